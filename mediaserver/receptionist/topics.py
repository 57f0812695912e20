"""The topics that every receptionist knows, recognised in normalised words.

Rules: the table is read from top to bottom and the first topic whose pattern occurs anywhere wins, so that
"hi, what are your hours?" is about hours and "thanks, goodbye" ends the call. What only this tenant
can answer (its services, its questions) is `knowledge`'s business.
"""

from __future__ import annotations

import re
from enum import StrEnum

from mediaserver.receptionist.words import word_list


class Topic(StrEnum):
    """What a caller's words are about."""

    REPEAT = "repeat"
    IDENTITY = "identity"
    CAPABILITIES = "capabilities"
    CANCEL = "cancel"
    MESSAGE = "message"
    HUMAN_NUMBER = "human number"
    HUMAN = "human"
    APPOINTMENT = "appointment"
    DIRECTIONS = "directions"
    ADDRESS = "address"
    PRICE = "price"
    HOURS = "hours"
    SERVICES = "services"
    GOODBYE = "goodbye"
    THANKS = "thanks"
    SMALL_TALK = "small talk"
    GREETING = "greeting"
    YES = "yes"
    NO = "no"
    # Recognised by other means than the table.
    EMERGENCY = "emergency"
    SERVICE = "service"
    FAQ = "faq"
    UNCLEAR = "unclear"
    UNKNOWN = "unknown"


_DAY = r"(?:today|tonight|tomorrow|week ?ends?|week ?days?|(?:mon|tues|wednes|thurs|fri|satur|sun)days?)"
_WANT = r"(?:want|need|would like|like|have|love|hoping|trying|wish|going|looking)"
_PERSON = (
    r"(?:human|person|people|somebody|someone|anyone|anybody|agent|operator|representative|manager|owner|"
    r"boss|staff|receptionist|doctor|dentist|lawyer|plumber|technician|supervisor|employee)"
)

_POLITE = r"(?:ok|okay|thanks|thank you|great|well|bye|all right|alright|i will|we will) "
_FAREWELL = "|".join(
    # It ends the call, so words that also occur inside a request count only where they close the utterance: "take care
    # of my boiler", "do I have to go to your office" and "I said goodbye to my last dentist" are no farewells.
    (
        r"^(?:good ?bye|bye)\b(?! to\b)",
        r"\b(?:good ?bye|bye)(?: (?!to\b)\w+){0,2}$",
        r"\btake care(?: (?:now|then|bye|good ?bye|too))*$",
        r"\bhave a (?:good|nice|great|lovely|wonderful) (?:one|day|morning|afternoon|evening|night|week|weekend|rest)\b",
        r"\bgood night\b|\bfarewell\b|\btalk to you later\b",
        r"\bthat is (?:all|it|everything)(?: (?:for|i need|i needed|i want|i wanted|thanks|thank|then|bye|good ?bye)\b|$)",
        r"\bthat (?:will|would) be (?:all|it)\b",
        r"\bnothing else(?: (?:thanks|thank)\b|$)",
        r"\bi am (?:all )?(?:done|set|good)(?: (?:now|here|thanks|thank|bye|good ?bye)\b|$)",
        r"(?<!not )\bhang up\b",
        r"\b(?:no|not) (?:thanks|thank you)(?: \w+)*$",
        r"(?<!do i )\b(?:have to|got to|gotta) go(?: now| bye)*$",
        rf"(?:^|{_POLITE}|\byou )see you (?:later|soon|then|around|there|tomorrow|next (?:time|week)|on \w+)$",
        rf"^(?:{_POLITE})*see you$",
    )
)
_TABLE: tuple[tuple[Topic, str], ...] = (
    (
        Topic.REPEAT,
        r"\b(repeat (that|it|what|please)|say (that|it) (again|once more)|(can|could) you repeat|"
        r"come again|what did you say|what was that|say again|one more time|i did not (hear|catch|get|"
        r"understand) (that|you|it)|pardon)\b"
        r"|^(sorry )?(what|repeat|excuse me|again( please)?|pardon me)( please)?$",
    ),
    (
        Topic.IDENTITY,
        r"\b(who are you|what are you$|who is this|who am i (talking|speaking)|are you (a |an )?(real|"
        r"robot|human|machine|bot|computer|ai|person|recording|automated|actual)|is this (a |an )?(real|"
        r"robot|human|machine|bot|computer|ai|person|recording|automated)|(talking|speaking) (to|with) (a |"
        r"an )?(robot|machine|computer|bot|ai)\b|what is your name|are you alive|artificial intelligence)",
    ),
    (
        Topic.CAPABILITIES,
        r"\b(what (can|could|do) you (do|help)|how (can|could) you help|what (can|could) i ask|"
        r"what (else )?can you tell|what are you able|what are my options|what is this number for)\b|"
        r"^help( me)?$",
    ),
    (
        Topic.CANCEL,
        r"^(?:(?:no|oh|actually|please|ok|okay|sorry|well|you know what|wait|hm+|um|uh) )*(never ?mind|"
        r"nevermind|forget (it|about it|that|the message)|cancel( that| it| this| the message| please)*$|"
        r"do not bother|i changed my mind|i have changed my mind|scratch that$|no message$|stop$|leave it$)",
    ),
    (
        Topic.MESSAGE,
        r"\b((tell|ask|have) (\w+ ){1,4}to (call|phone|ring|contact) (me|us)|(leave|take|send|pass|give|"
        r"drop|write)( \w+){0,3} (message|note|voicemail|voice mail)|(a|my) message for|(call|phone|ring|"
        r"get) (me|us|back to me)( \w+)? back|call me (later|tomorrow|today)|get back to me|call ?back|"
        r"return my call)\b|^(a )?message( please)?$",
    ),
    (
        Topic.HUMAN_NUMBER,
        rf"\b(number (of|for) (the |a |your )?{_PERSON}|direct (number|line)|(his|her|"
        rf"their) (phone )?number)\b",
    ),
    (
        Topic.HUMAN,
        rf"\b(give me (the |a |your )?(front desk|{_PERSON})|(talk|speak|chat|transfer|connect|put|"
        rf"get)( \w+){{0,4}} {_PERSON}|real (person|human)|actual (person|human)|live (person|agent)|"
        rf"{_WANT} (a |an |to see a )?(human|person|agent|operator|representative)|(transfer|connect) (me|"
        rf"my call)|put me through|is (anyone|anybody|somebody|someone|the {_PERSON}) (there|available|"
        rf"around|in)|not (a |with a )?(robot|machine))\b"
        rf"|^(a |the |your )?(human|operator|agent|representative|real person|person|manager)( please)?$",
    ),
    (
        # Plainly put, a question about hours is one even where it mentions appointments.
        Topic.HOURS,
        r"\bwhat ((are )?(your|the) )?(opening )?hours\b|\b(when|what time) (are|do) you (open|close)\b|^are you open\b",
    ),
    (
        Topic.APPOINTMENT,
        r"\b(appointments?|reservations?|(book|schedule|reschedule) (me|a|an|my|something|in|for|the|some|"
        r"it|with)|make a booking|bookings?|(come|get|fit|squeeze) (me )?in (for|to|on|this|next|today|"
        r"tomorrow|and)|see me|(any|an|a|your|next|what) (\w+ )?(openings?(?! (hours?|times?))|"
        r"availability|available|slots?|free times?)|(do you have|have you got|got) (anything|something|"
        r"a time|time|room|space)|send (someone|somebody|a \w+) (out|over|round)|(come|coming) (out|over|"
        r"round) (to|and|today|tomorrow)|running late|reschedule|set up a (visit|time|consultation))\b",
    ),
    (
        Topic.DIRECTIONS,
        r"\b(directions?|how (do|can|would|to) (i |we |you )?(get|find|reach|drive)( to)?( you| there|"
        r" to you| your)?|get to (you|your)|way to (you|your)|landmarks?|near(by)? what|which (exit|bus|"
        r"train|stop|station)|drive to you)\b",
    ),
    (
        Topic.ADDRESS,
        r"\b(address|where (are|is|exactly are) (you|your|the|it|this|that)|where (you|your \w+) (are|is)|"
        r"located|location|which (street|town|city|area)|what (street|town|city|part of town)|where (can|"
        r"do|could|should) (i|we) (find|come|go)|where about|whereabouts)\b",
    ),
    (
        Topic.PRICE,
        r"\b(how much|prices?|pricing|costs?|charges?|fees?|rates?|expensive|how (expensive|many dollars)|"
        r"cheap|quote|estimates?)\b",
    ),
    (
        Topic.HOURS,
        rf"\b(hours?|you (\w+ )?(be )?(there|around|in|working)( on| this)? {_DAY}|"
        rf"when are you (\w+ )?(there|around|in)\b|open(ed|ing|s)? ?(now|{_DAY}|on|at|until|till|late|"
        rf"early|right|yet|still|times?|today)?|clos(e|ed|es|ing)|shut|(what|which) (days|"
        rf"times?)\b.*\b(open|there|work|in|available|come)|working (time|day)s?|how late|how early|(about|"
        rf"on|what about|and|how about|also|{_DAY} and) {_DAY}$|(can|could) i (come|stop|drop) (by|in|"
        rf"over)( {_DAY})?$|when (can|could|should) i (come|stop|drop|visit))\b"
        rf"|^(and |so |what |about |how |on )*{_DAY}$",
    ),
    (
        Topic.SERVICES,
        r"\b(services?|(kind|kinds|sort|sorts|type|types) of work|what (do|can|kind|kinds|sort|sorts|type|"
        r"types|all do|all) (of )?(\w+ )?(you|work|jobs?|things|treatments?|repairs?)( \w+)? ?(offer|do|"
        r"provide|handle|fix|repair|treat|specialize|specialise)?( for people)?$|what .*\b(offer|provide|"
        r"specialize in|specialise in)|treatments|what do you (offer|do|fix|sell|treat))\b",
    ),
    (Topic.GOODBYE, _FAREWELL),
    (
        Topic.THANKS,
        r"\b(thanks?|thank you|thank|thx|cheers|appreciate|that is (great|perfect|helpful|wonderful)|great|"
        r"perfect)\b",
    ),
    (
        Topic.SMALL_TALK,
        r"\b(how are you|how is it going|how are things|how do you do|what is up|weather|joke|(do you|"
        r"are you) (like|love|happy|married|single|sleep|eat|hungry|tired|bored)|your (day|favorite|"
        r"favourite)|sports?|football|movies?|nice voice|where are you from|how old are you|i love you|"
        r"you are (funny|nice|cute|smart|great|stupid|dumb))\b",
    ),
    (Topic.GREETING, r"\b(hello|hi|hey|hiya|howdy|good (morning|afternoon|evening|day)|greetings|yo)\b"),
    (
        Topic.YES,
        r"^(?:(?:oh|um|uh|well|ok|okay) )*(yes|yeah|yep|yup|yah|ya|sure|correct|right|that is (right|"
        r"correct|fine)|exactly|please( do)?|absolutely|of course|definitely|uh huh|mhm|mm hmm|ok|okay|"
        r"affirmative|sounds good|all right|alright|go ahead|why not|i would$|that would be (great|good|"
        r"nice))\b",
    ),
    (
        Topic.NO,
        r"^(?:(?:oh|um|uh|well|ok|okay|actually) )*(no|nope|nah|not (right|correct|really|now|quite)|wrong|"
        r"incorrect|that is (not|wrong|incorrect)|negative|i do not think so|it is not|is not)\b",
    ),
)
INFORMATIVE = frozenset(
    {
        Topic.HOURS,
        Topic.ADDRESS,
        Topic.DIRECTIONS,
        Topic.PRICE,
        Topic.SERVICES,
        Topic.SERVICE,
        Topic.FAQ,
        Topic.IDENTITY,
        Topic.CAPABILITIES,
        Topic.HUMAN_NUMBER,
        Topic.SMALL_TALK,
    }
)
"""Topics whose answer is a statement, and so may interrupt the taking of a message."""
_COMPILED = tuple((topic, re.compile(pattern)) for topic, pattern in _TABLE)

VOCABULARY = tuple(
    word_list(
        "address appointment appointments available booking cancel closed close closing directions "
        "emergency goodbye hello hours human location located manager message monday tuesday wednesday "
        "thursday friday saturday sunday opening operator person please price prices receptionist repeat "
        "representative reservation robot schedule reschedule service services thank thanks today tomorrow "
        "transfer weekend weekends weekday open opened where when what number"
    )
)
"""Words that the table needs spelt right; what resembles one is taken for it."""

_QUESTION = re.compile(
    r"^(?:(?:and|so|but|ok|okay|oh|um|uh|wait|hold on|sorry|actually|first|before that|hi|hello|hey|well|"
    r"quick question|one question|by the way) )*(what|when|where|who|why|how|which|are you|are there|is it|"
    r"is there|is your|is the|do you|do i|does|can you (tell|say|repeat)|could you (tell|say|repeat)|"
    r"can i (park|come|pay)|did you|are your|will you|have you)\b"
)
_BYE = re.compile(
    r"^(?:(?:ok|okay|thanks|thank you|well|no|alright|all right|great|perfect|yes) )*(?:good ?bye|"
    r"bye)(?: bye| now| then)*$"
    r"|\b(?:have|got) to go$|(?<!not )\bhang up\b"
)
_BOOKING = re.compile(
    r"(?<!do )(?<!should )\b(?:i|we) (?:\w+ ){0,2}(need|want|like|have|love|hoping|trying|wanted|wondering|"
    r"am calling|calling)\b"
    r"|\b(book|schedule|reschedule|make|set up|get|move|change|cancel) (me |us )?(a|an|my|the|in)\b|"
    r"\bcan (you|someone|somebody)\b"
)


def topic_of(text: str) -> Topic | None:
    """The first topic of the table that occurs in a normalised utterance."""
    return next((topic for topic, pattern in _COMPILED if pattern.search(text)), None)


def is_topic(topic: Topic, text: str) -> bool:
    """Whether this topic's own pattern occurs, whatever else does."""
    return any(pattern.search(text) is not None for each, pattern in _COMPILED if each is topic)


def is_question(text: str) -> bool:
    """Whether the utterance is put as a question to the receptionist."""
    return _QUESTION.search(text) is not None


def wants_booking(text: str) -> bool:
    """Whether the caller asks for an appointment, rather than about appointments."""
    return _BOOKING.search(text) is not None


def is_goodbye(text: str) -> bool:
    """Whether the utterance is a goodbye and nothing else, so that it cannot be a name or a reason."""
    return _BYE.search(text) is not None
