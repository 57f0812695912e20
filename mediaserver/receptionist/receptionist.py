"""The receptionist that needs no language model: one tenant's configuration in, one reply per utterance out.

Order of a turn: an emergency goes first; then a message that is being taken, whose step may be interrupted
by a question and is then asked again; then what was offered last; then the caller's topic. Pure: the same
state, words and time give the same reply, in any process.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from config.tenant import TenantConfig
from mediaserver.receptionist import message_form as form_machine
from mediaserver.receptionist.answers import Answers
from mediaserver.receptionist.message_form import FormTurn
from mediaserver.receptionist.phrases import Phrases
from mediaserver.receptionist.slots import has_digits, marked_name, not_a_name
from mediaserver.receptionist.speakable import speakable
from mediaserver.receptionist.state import (
    Action,
    ConversationState,
    EndCall,
    HumanRequested,
    MessageForm,
    Offer,
    Reply,
    Step,
)
from mediaserver.receptionist.topics import INFORMATIVE, Topic, is_goodbye, is_question, is_topic, topic_of
from mediaserver.receptionist.understanding import Understanding, is_noise

MAX_REPLY_CHARS = 3_000
"""A tenant's longest emergency instructions with their number; our own replies are a tenth of it."""
MAX_MISSES = 6
"""Turns in a row without a usable word after which the call is ended."""
MORE = "Is there anything else I can help with?"

_WELL = re.compile(r"\bhow (are|is it|do you do)\b|\bwhat is up\b")
_REFERS_BACK = re.compile(
    r"\b(it|that|this|one)\b|^(and |so |ok )*(how much|what is the price|the price)( please)?$"
)


@dataclass(frozen=True, slots=True)
class _Turn:
    heard: str
    text: str
    """``heard``, normalised."""
    now: datetime


class Receptionist:
    """Replies for one tenant. Holds no conversation: that is the caller's `ConversationState`."""

    def __init__(self, config: TenantConfig) -> None:
        self._config = config
        self._answers = Answers(config)
        self._understanding = Understanding(config)
        self._phrases = Phrases.of(config)
        self._facts: dict[Topic, Callable[[], str]] = {
            Topic.ADDRESS: self._answers.address,
            Topic.DIRECTIONS: self._answers.directions,
            Topic.SERVICES: self._answers.services,
            Topic.IDENTITY: self._answers.identity,
            Topic.CAPABILITIES: self._answers.capabilities,
        }
        self._topics: dict[Topic, Callable[[ConversationState, _Turn], Reply]] = {
            Topic.EMERGENCY: lambda state, _: self._emergency(state),
            Topic.MESSAGE: self._message,
            Topic.HUMAN: self._human,
            Topic.HUMAN_NUMBER: self._human_number,
            Topic.APPOINTMENT: self._appointment,
            Topic.CANCEL: lambda state, _: self._anything_else(state),
            Topic.NO: lambda state, _: self._anything_else(state),
            Topic.GOODBYE: lambda state, _: self._goodbye(state),
            Topic.REPEAT: lambda state, _: self._repeat(state),
            Topic.UNCLEAR: lambda state, _: self._unclear(state),
            Topic.UNKNOWN: lambda state, _: self._unknown(state),
        }

    def reply(self, state: ConversationState, heard: str, now: datetime) -> Reply:
        """Answer what was heard. ``now`` must be aware; anything may be heard, nothing raises."""
        turn = _Turn(heard, self._understanding.read(heard), now)
        if state.form is not None:
            return _finished(self._in_form(state, state.form, turn))
        topic = self._offered(state, turn) or self._understanding.topic(turn.text)
        return _finished(self._about(topic, state, turn))

    def topic(self, heard: str) -> Topic:
        """Tell what an utterance by itself is about, for this tenant."""
        return self._understanding.topic(self._understanding.read(heard))

    # A topic's reply.

    def _about(self, topic: Topic, state: ConversationState, turn: _Turn) -> Reply:
        if topic is not Topic.UNCLEAR:
            state = replace(state, misses=0)
        special = self._topics.get(topic)
        return special(state, turn) if special is not None else self._plain(topic, state, turn)

    def _plain(self, topic: Topic, state: ConversationState, turn: _Turn) -> Reply:
        """A topic that is answered and changes nothing but the subject."""
        offer, text = Offer.NOTHING, turn.text
        match topic:
            case Topic.SERVICE | Topic.PRICE:
                return self._service(topic, state, text)
            case Topic.FAQ:
                best = self._understanding.knowledge.best(text)
                said = self._answers.faq(best.faq) if best and best.faq else ""
                if is_topic(Topic.APPOINTMENT, text):
                    said, offer = f"{said} Shall I take a message about an appointment?", Offer.MESSAGE
            case Topic.HOURS:
                said = self._answers.hours(text, turn.now)
            case Topic.THANKS:
                said, offer = "You're welcome. Is there anything else?", Offer.MORE_HELP
            case Topic.SMALL_TALK:
                said = self._small_talk(state, text)
                state = replace(state, small_talk=min(state.small_talk + 1, 9))
            case _ if topic in self._facts:
                said = self._facts[topic]()
            case Topic.YES:
                said = "What would you like to know?"
            case _:
                said = "Hello! How can I help you?"
        return Reply(said, replace(state, offer=offer))

    def _service(self, topic: Topic, state: ConversationState, text: str) -> Reply:
        best = self._understanding.knowledge.best_service(text)
        service = best.service if best else None
        if service is None and _REFERS_BACK.search(text):
            service = next((each for each in self._config.services if each.name == state.subject), None)
        if service is not None:
            state = replace(state, subject=service.name)
        if topic is Topic.SERVICE and service is not None and not is_topic(Topic.PRICE, text):
            return Reply(self._answers.service(service), replace(state, offer=Offer.NOTHING))
        said = self._answers.price(service)
        if said:
            return Reply(said, replace(state, offer=Offer.NOTHING))
        said = f"I don't have a price for that. Shall I ask {self._answers.person} to call you back?"
        return Reply(said, replace(state, offer=Offer.MESSAGE))

    def _emergency(self, state: ConversationState) -> Reply:
        offer = Offer.MORE_HELP if self._config.emergency else Offer.MESSAGE
        return Reply(self._answers.emergency(), replace(state, offer=offer, emergency_told=True))

    def _message(self, state: ConversationState, turn: _Turn) -> Reply:
        return self._begin(state, f"I can take a message for {self._answers.person}.", turn.heard)

    def _human(self, state: ConversationState, turn: _Turn) -> Reply:
        said = f"I can't transfer calls, but {self._answers.person} can call you back."
        return self._begin(state, said, turn.heard, actions=(HumanRequested(),))

    def _human_number(self, state: ConversationState, turn: _Turn) -> Reply:
        said = self._answers.person_number()
        if not said:
            said = f"I don't have a direct number, but {self._answers.person} can call you back."
            return self._begin(state, said, turn.heard, actions=(HumanRequested(),))
        return Reply(said, replace(state, offer=Offer.NOTHING))

    def _appointment(self, state: ConversationState, turn: _Turn) -> Reply:
        said = f"I can't see the calendar, but {self._answers.person} can call you back to arrange it."
        return self._begin(state, said, turn.heard, booking=True)

    def _begin(
        self,
        state: ConversationState,
        said: str,
        heard: str,
        *,
        booking: bool = False,
        actions: tuple[Action, ...] = (),
    ) -> Reply:
        turn = form_machine.begin(heard, booking=booking)
        return Reply(f"{said} {turn.say}", replace(state, form=turn.form, offer=Offer.NOTHING), actions)

    def _anything_else(self, state: ConversationState) -> Reply:
        return Reply(f"Alright. {MORE}", replace(state, offer=Offer.MORE_HELP))

    def _goodbye(self, state: ConversationState) -> Reply:
        return Reply(self._phrases.goodbye, replace(state, form=None, offer=Offer.NOTHING), (EndCall(),))

    def _repeat(self, state: ConversationState) -> Reply:
        return Reply(state.last_reply or speakable(self._config.greeting), state)

    def _small_talk(self, state: ConversationState, text: str) -> str:
        if state.small_talk == 0 and _WELL.search(text):
            return "All good here, thank you. What can I do for you?"
        return f"I'd rather stick to {self._answers.business}. What would you like to know?"

    def _unknown(self, state: ConversationState) -> Reply:
        said = (
            f"I'm sorry, I don't have that information. Shall I ask {self._answers.person} to call you back?"
        )
        return Reply(said, replace(state, offer=Offer.MESSAGE))

    def _unclear(self, state: ConversationState) -> Reply:
        misses = state.misses + 1
        state = replace(state, misses=misses)
        if misses >= MAX_MISSES:
            said = f"I can't hear you well. Please call again. {self._phrases.goodbye}"
            return Reply(said, replace(state, misses=0), (EndCall(),))
        if misses > 2:
            said = f"I'm having trouble hearing you. Shall I take a message for {self._answers.person}?"
            return Reply(said, replace(state, offer=Offer.MESSAGE))
        again = "Could you say that again?" if misses == 1 else "Could you say it in other words?"
        return Reply(f"{self._phrases.not_caught} {again}", state)

    def _offered(self, state: ConversationState, turn: _Turn) -> Topic | None:
        """Tell what a bare "yes" or "no", or a name, means after the last reply's offer."""
        text = turn.text
        if state.offer is Offer.NOTHING or len(text.split()) > 6:
            return None
        bare = self._understanding.bare
        if state.offer is Offer.MORE_HELP:
            return Topic.GOODBYE if bare(text, Topic.NO) else None
        if bare(text, Topic.YES) or marked_name(turn.heard):
            return Topic.MESSAGE
        declined = topic_of(text) is Topic.GOODBYE and text.startswith("no ") and "bye" not in text
        return Topic.NO if declined else None

    # While a message is being taken.

    def _in_form(self, state: ConversationState, form: MessageForm, turn: _Turn) -> Reply:
        text = turn.text
        if self._understanding.urgent(text) and not state.emergency_told:
            return self._emergency_in_form(state, form, turn)
        if is_noise(text):
            return self._turned(state, form_machine.missed(form), self._phrases.not_caught)
        return self._left_form(state, form, text) or self._stepped(state, form, turn)

    def _left_form(self, state: ConversationState, form: MessageForm, text: str) -> Reply | None:
        """Reply to words about the form as a whole: dropping it, hanging up, hearing it again."""
        if is_topic(Topic.CANCEL, text):
            said = f"Alright, I won't take a message. {MORE}"
            return Reply(said, replace(state, form=None, offer=Offer.MORE_HELP))
        if form.step is not Step.CONFIRM and is_goodbye(text):
            goodbye = f"I haven't taken a message. {self._phrases.goodbye}"
            return Reply(goodbye, replace(state, form=None), (EndCall(),))
        if is_topic(Topic.REPEAT, text) and len(text.split()) <= 6:
            return self._repeat(state)
        return None

    def _stepped(self, state: ConversationState, form: MessageForm, turn: _Turn) -> Reply:
        """Take the words as the step's answer, or as a question in between, or as neither."""
        topic = self._understanding.topic(turn.text)
        asked = is_question(turn.text) or (form.step is Step.NAME and not_a_name(turn.heard))
        if topic in INFORMATIVE and asked and has_digits(turn.heard) < 5:
            return self._answered_in_form(topic, state, form, turn)
        after = form_machine.advance(form, turn.heard, turn.text)
        if after.understood:
            return self._turned(state, after)
        if topic in INFORMATIVE:
            return self._answered_in_form(topic, state, form, turn)
        if topic is Topic.GOODBYE:
            goodbye = f"I haven't taken a message. {self._phrases.goodbye}"
            return Reply(goodbye, replace(state, form=None), (EndCall(),))
        return self._turned(state, form_machine.missed(after.form or form), self._phrases.not_caught)

    def _turned(self, state: ConversationState, turn: FormTurn, lead: str = "") -> Reply:
        """The reply to what the form made of a turn."""
        if turn.taken is not None:
            said = f"Thank you. I've noted that for {self._answers.person}. Is there anything else?"
            taken = min(state.messages_taken + 1, 99)
            state = replace(state, form=None, offer=Offer.MORE_HELP, messages_taken=taken, misses=0)
            return Reply(said, state, (turn.taken,))
        offer = Offer.MORE_HELP if turn.form is None else Offer.NOTHING
        return Reply(f"{lead} {turn.say}".strip(), replace(state, form=turn.form, offer=offer, misses=0))

    def _answered_in_form(
        self, topic: Topic, state: ConversationState, form: MessageForm, turn: _Turn
    ) -> Reply:
        if topic is Topic.HUMAN_NUMBER:
            answer = self._answers.person_number() or "I don't have that number."
            return Reply(f"{answer} {form_machine.prompt(form)}", state)
        answered = self._plain(topic, state, turn)
        state = replace(answered.state, form=form, offer=Offer.NOTHING)
        said = answered.text.split(" Shall I ")[0].removesuffix(" Which one?")
        return Reply(f"{said} {form_machine.prompt(form)}", state)

    def _emergency_in_form(self, state: ConversationState, form: MessageForm, turn: _Turn) -> Reply:
        """Instructions first; words that answer the step are kept all the same."""
        kept = form
        if form.step is Step.REASON:
            kept = form_machine.advance(form, turn.heard, turn.text).form or form
        said = f"{self._answers.emergency().removesuffix(' Shall I?')} {form_machine.prompt(kept)}"
        return Reply(said, replace(state, form=kept, emergency_told=True))


def _finished(reply: Reply) -> Reply:
    """Bound the text and remember it for "could you repeat that?"."""
    text = " ".join(reply.text.split())
    if len(text) > MAX_REPLY_CHARS:
        text = text[:MAX_REPLY_CHARS].rpartition(" ")[0] or text[:MAX_REPLY_CHARS]
    return replace(reply, text=text, state=replace(reply.state, last_reply=text))
