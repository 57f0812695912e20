"""Paraphrases, as callers say them and as a small speech model writes them, and what they are about."""

from __future__ import annotations

import pytest

from config.tenant import TenantConfig
from mediaserver.receptionist import Receptionist, Topic
from tests.receptionist.tenants import DENTAL, PLUMBER

DENTAL_CASES = {
    Topic.HOURS: (
        "What are your hours?",
        "what are your ours",
        "What our your hours?",
        "When do you open?",
        "when do you clothes",
        "What time do you close today?",
        "Are you open on Saturday?",
        "are you open on saterday",
        "Are you open now?",
        "You open on weekends?",
        "Hi there, are you guys open tomorrow?",
        "are you open to morrow",
        "How late are you open?",
        "What are your opening times?",
        "And on Friday?",
        "What about Sunday?",
        "what days are you open",
        "Will you be there on Thursday evening?",
        "when are you guys around",
        "are you working on saturday afternoon",
    ),
    Topic.ADDRESS: (
        "What's your address?",
        "what's your adress",
        "What's your dress?",
        "Where are you located?",
        "wear are you",
        "Where is your office?",
        "Could you tell me where you are?",
        "What street are you on?",
        "Which street is it?",
    ),
    Topic.DIRECTIONS: (
        "How do I get there?",
        "Can you give me directions?",
        "How can I find you?",
        "can you give me direcktions",
    ),
    Topic.SERVICES: (
        "What services do you offer?",
        "what kind of sir vices do you have",
        "What do you offer?",
        "What kind of work do you do?",
    ),
    Topic.SERVICE: (
        "Do you do teeth whitening?",
        "do you do teeth whitning",
        "Can you do a root canal?",
        "I lost a filling.",
        "Tell me about the cleaning",
        "do you have a hygenist",
        "I think I have a cavity",
    ),
    Topic.PRICE: (
        "How much is a cleaning?",
        "how match is a cleaning",
        "What does teeth whitening cost?",
        "What are your prices?",
        "what's the prize for a check up",
    ),
    Topic.FAQ: (
        "Do you take my insurance?",
        "do you accept insurence",
        "Do you accept Cigna?",
        "Is there parking?",
        "Where can I park my car?",
        "Do you see kids?",
        "Do you treat children?",
        "What do I need to bring to my first visit?",
    ),
    Topic.EMERGENCY: (
        "My tooth got knocked out!",
        "I have severe pain",
        "my gums won't stop bleeding",
        "I have sever pain in my jaw",
        "This is an emergency",
        "My face is swollen",
    ),
    Topic.HUMAN: (
        "Can I talk to a real person?",
        "I want to speak to someone",
        "Let me speak to Dr. Patel's manager",
        "Put me through to the doctor please",
        "human",
        "Give me the front desk",
        "Is the dentist there?",
    ),
    Topic.MESSAGE: (
        "Can I leave a message?",
        "leaf a massage for the doctor",
        "Could you take a message please?",
        "Please have someone call me back.",
        "I'd like a callback",
        "Tell the doctor to call me",
    ),
    Topic.APPOINTMENT: (
        "I'd like to make an appointment",
        "I need an a point mint",
        "Can I book a cleaning for Tuesday?",
        "Do you have any openings tomorrow?",
        "I need to reschedule",
        "I want to cancel my appointment",
        "Can you fit me in today?",
        "do you have anything available next week",
    ),
    Topic.REPEAT: (
        "Could you repeat that?",
        "Say that again please",
        "Sorry, what?",
        "sorry what was that",
        "I didn't catch that",
    ),
    Topic.IDENTITY: ("Are you a robot?", "Am I talking to a machine? Who are you?", "Is this a recording?"),
    Topic.CAPABILITIES: ("What can you do?", "How can you help me?"),
    Topic.GREETING: ("Hello", "Hi there", "Good morning!"),
    Topic.THANKS: ("Thank you.", "Okay, thanks a lot", "Great"),
    Topic.GOODBYE: (
        "Goodbye",
        "Bye bye",
        "That's all, thank you",
        "buy buy",
        "No thanks, that's it",
        "Goodbye and thank you so much for all your help",
        "Thanks a lot, bye for now",
        "That's everything I needed, thank you",
        "Okay, great, take care now",
        "Thank you, have a nice day",
        "Great, I'll see you then",
        "Thanks, see you",
        "I've got to go now",
    ),
    Topic.SMALL_TALK: ("How are you today?", "Tell me a joke", "How's the weather?"),
    Topic.UNCLEAR: ("", "[BLANK_AUDIO]", "you", "uh", "...", "(static)"),
    Topic.UNKNOWN: ("Do you sell bicycles?", "My dog likes bananas a lot", "Who won the election last year?"),
    Topic.CANCEL: ("Never mind", "Oh, forget it"),
}
PLUMBER_CASES = {
    Topic.HOURS: ("are you open on sunday", "what are the opening ours", "when can I come by"),
    Topic.FAQ: (
        "Are you open on Christmas?",
        "Do you charge a call out fee?",
        "Can I pay with a credit card?",
        "are you licenced",
        "Are you insured?",
    ),
    Topic.SERVICE: ("My kitchen drain is clogged", "Do you fix water heaters?", "The faucet is dripping"),
    Topic.EMERGENCY: (
        "A pipe burst in my kitchen",
        "I smell gas!",
        "my basement is flooding",
        "we have no water at all",
    ),
    Topic.PRICE: ("How much do you charge for drain cleaning?", "what does it cost to fix a water heater"),
    Topic.APPOINTMENT: ("Can you send somebody out tomorrow?",),
    Topic.UNKNOWN: ("Do you take dental insurance from Delta?", "Do you whiten teeth?"),
    Topic.ADDRESS: ("Where's your shop?",),
}
CASES = [
    pytest.param(config, heard, topic, id=f"{config.tenant_id}-{topic}-{heard[:40]}")
    for config, cases in ((DENTAL, DENTAL_CASES), (PLUMBER, PLUMBER_CASES))
    for topic, utterances in cases.items()
    for heard in utterances
]


@pytest.mark.parametrize(("config", "heard", "topic"), CASES)
def test_the_topic_of_a_paraphrase(config: TenantConfig, heard: str, topic: Topic) -> None:
    assert Receptionist(config).topic(heard) is topic


@pytest.mark.parametrize(
    "heard",
    [
        "I'm not going to be able to put it in the next video, because I'll see you",
        "Can I see you tomorrow?",
        "Can you take care of my boiler?",
        "Do you have a good hygienist?",
        "Do I have to go to your office for that?",
        "I said goodbye to my last dentist",
        "Please don't hang up",
        "I'm good at waiting, so could you check?",
        "That is all I heard from him until the tooth broke",
    ],
)
def test_a_farewell_inside_a_request_does_not_end_the_call(heard: str) -> None:
    for config in (DENTAL, PLUMBER):
        assert Receptionist(config).topic(heard) is not Topic.GOODBYE


def test_there_are_enough_paraphrases() -> None:
    assert len(CASES) >= 120
