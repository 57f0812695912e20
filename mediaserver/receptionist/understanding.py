"""From a caller's words to a topic, for one tenant."""

from __future__ import annotations

import re

from config.tenant import TenantConfig
from mediaserver.receptionist.knowledge import Knowledge, Match
from mediaserver.receptionist.topics import VOCABULARY, Topic, topic_of, wants_booking
from mediaserver.receptionist.words import FILLERS, STOP_WORDS, normalise, raw_words, snap

FAQ_SURE = 0.8
"""An entry that resembles the utterance this much goes before the general topic that it also contains."""

_URGENT = re.compile(
    r"(?<!not )(?<!not an )(?<!no )(?<!not a )(?<!not very )\b(emergency|emergencies|urgent|urgently)\b"
)
_CHANGING = re.compile(r"\b(cancel|move|change|reschedule)\b")
_TITLES = frozenset({"dr", "mr", "mrs", "ms", "doctor", "the", "our"})
_YIELDS_TO_FAQ = frozenset(
    {
        Topic.HOURS,
        Topic.ADDRESS,
        Topic.DIRECTIONS,
        Topic.SERVICES,
        Topic.SMALL_TALK,
        Topic.THANKS,
        Topic.GREETING,
        Topic.GOODBYE,
        Topic.YES,
        Topic.NO,
        Topic.CAPABILITIES,
        Topic.HUMAN,
    }
)
_YIELDS_TO_SERVICE = frozenset(
    {Topic.SERVICES, Topic.SMALL_TALK, Topic.THANKS, Topic.GREETING, Topic.YES, Topic.NO}
)


class Understanding:
    """Reads utterances against the general topics and one tenant's own entries."""

    def __init__(self, config: TenantConfig) -> None:
        self.knowledge = Knowledge(config)
        names = [word.lower() for word in raw_words(config.human.name) if word[0].isupper()]
        called = "|".join(re.escape(name) for name in names if name not in _TITLES) or r"(?!)"
        self._asks_number = re.compile(rf"\bnumber\b.*\b({called})\b|\b({called})s? .*\bnumber\b")
        self._asks_person = re.compile(
            rf"\b(talk|speak|chat|transfer|connect|put|get|reach|see|is)\b( \w+){{0,4}} ({called})\b"
        )

    def read(self, heard: str) -> str:
        """Normalise an utterance: lower case, mishearings repaired, misspelt topic words put right."""
        return snap(normalise(heard), VOCABULARY, self.knowledge.vocabulary)

    def topic(self, text: str) -> Topic:
        """Decide what a normalised utterance is about."""
        if self.urgent(text):
            return Topic.EMERGENCY
        if is_noise(text):
            return Topic.UNCLEAR
        topic = self._general(text)
        match = self.knowledge.best(text)
        if match is not None and _prefers(match, topic, text):
            return Topic.FAQ if match.faq else Topic.SERVICE
        if topic is not None:
            return topic
        words = text.split()
        if len(words) < 2 or (len(words) < 4 and all(word in STOP_WORDS for word in words)):
            return Topic.UNCLEAR
        return Topic.UNKNOWN

    def _general(self, text: str) -> Topic | None:
        """The table's topic, or the configured person by name."""
        topic = topic_of(text)
        if topic is None or topic in (Topic.GREETING, Topic.THANKS, Topic.YES, Topic.NO):
            if self._asks_number.search(text):
                return Topic.HUMAN_NUMBER
            if self._asks_person.search(text):
                return Topic.HUMAN
        return topic

    def urgent(self, text: str) -> bool:
        """Tell an emergency, by the tenant's keywords or by the word itself."""
        return self.knowledge.emergency(text) or _URGENT.search(text) is not None

    def bare(self, text: str, topic: Topic) -> bool:
        """Tell whether an utterance is this general topic and nothing of the tenant's own."""
        return topic_of(text) is topic and self.knowledge.best(text) is None


def is_noise(text: str) -> bool:
    """Tell whether nothing but fillers was heard."""
    return text != "uh huh" and all(word in FILLERS for word in text.split())


def _prefers(match: Match, topic: Topic | None, text: str) -> bool:
    """Whether the tenant's own entry goes before the general topic."""
    if topic is None:
        return True
    if match.faq is None:
        return topic in _YIELDS_TO_SERVICE
    if topic is Topic.APPOINTMENT and _CHANGING.search(text):
        return match.score >= FAQ_SURE
    if topic is Topic.APPOINTMENT:
        return match.resemblance >= FAQ_SURE and not wants_booking(text)
    return topic is Topic.PRICE or (topic in _YIELDS_TO_FAQ and match.score >= FAQ_SURE)
