"""What one tenant's configuration can answer: its services, its questions, its emergencies.

Words are weighted by how rare they are among this tenant's own entries (inverse document frequency), so that
"dental" counts little at a dentist's. A match below `THRESHOLD` is no match: the receptionist then says "
"that it does
not know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from config.tenant import FaqEntry, Service, TenantConfig
from mediaserver.receptionist.words import STOP_WORDS, content_stems, normalise, similar, stem, word_list

THRESHOLD = 0.55
KEYWORD_SCORE = 0.65
"""What a complete keyword is worth by itself; the caller's other words count for the rest."""
SERVICE_SCORE = 0.8
"""A complete service name or keyword is an unambiguous request."""
NEGATION_REACH = 3
_NEGATIONS = frozenset(("not", "no", "never", "without"))
_GENERIC = frozenset(
    stem(word)
    for word in word_list("do offer provide need take service work help tell call phone time today")
)
"""Said around every question; they match where an entry has them but are not missed where it has not."""
_HYPOTHETICAL = re.compile(
    r"^(?:(?:and|so|hi|hello|hey|um|uh|ok|okay) )*(do you|how much|what (is|does|do|would)|can you|are you)\b"
)
_DISTRESS = re.compile(
    r"\b(my|our|i am|i have|we have|everywhere|right now|help|emergency|urgent|there is|has|just)\b"
)


@dataclass(frozen=True, slots=True)
class Match:
    """The best entry for an utterance."""

    score: float
    resemblance: float
    """How alike the utterance and the entry's question are, keywords aside."""
    service: Service | None = None
    faq: FaqEntry | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    stems: frozenset[str]
    keywords: tuple[tuple[str, ...], ...]
    service: Service | None = None
    faq: FaqEntry | None = None


class Knowledge:
    """An index over one tenant's configuration; immutable once built."""

    def __init__(self, config: TenantConfig) -> None:
        self._entries = tuple(_entries(config))
        counts: dict[str, int] = {}
        for entry in self._entries:
            for word in entry.stems.union(*entry.keywords):
                counts[word] = counts.get(word, 0) + 1
        total = len(self._entries) + 1
        self._weights = {word: math.log(1 + total / count) for word, count in counts.items()}
        self._rarest = math.log(1 + total)
        emergency = config.emergency.keywords if config.emergency else ()
        self._emergencies = tuple(filter(None, (_keyword(keyword, negations=True) for keyword in emergency)))
        own_texts = [config.business_name, config.business_kind, *emergency]
        for service in config.services:
            own_texts += [service.name, service.description, *service.keywords]
        for faq in config.faq:
            own_texts += [faq.question, faq.answer, *faq.keywords]
        self.vocabulary = frozenset(word for text in own_texts for word in normalise(text).split())
        """The tenant's words, which are never taken for misspelt ones."""

    def best(self, text: str) -> Match | None:
        """The service or question that a normalised utterance is most likely about."""
        return self._best(text, self._entries)

    def best_service(self, text: str) -> Match | None:
        """The service that it is most likely about."""
        return self._best(text, [entry for entry in self._entries if entry.service])

    def emergency(self, text: str) -> bool:
        """Whether an utterance reports one of the tenant's emergencies."""
        if _HYPOTHETICAL.search(text) and not _DISTRESS.search(text):
            return False
        stems = [stem(word) for word in text.split()]
        return any(_reported(keyword, stems) for keyword in self._emergencies)

    def _best(self, text: str, entries: Sequence[_Entry]) -> Match | None:
        said = content_stems(text)
        if not said:
            return None
        matches = [self._score(said, entry) for entry in entries]
        best = max(matches, key=lambda match: (match.score, match.resemblance), default=None)
        return best if best is not None and best.score >= THRESHOLD else None

    def _score(self, said: tuple[str, ...], entry: _Entry) -> Match:
        heard = (*said, *(left + right for left, right in pairwise(said)))
        own = entry.stems.union(*entry.keywords)
        wanted = [word for word in said if word not in _GENERIC]
        wanted_weight = sum(self._weight(word) for word in wanted)
        asked = (
            sum(self._weight(word) for word in wanted if _contains(own, word)) / wanted_weight
            if wanted
            else 0.0
        )
        found = [word for word in entry.stems if _contains(heard, word)]
        question_weight = sum(self._weight(word) for word in entry.stems)
        covered = sum(self._weight(word) for word in found) / question_weight if question_weight else 0.0
        resemblance = (asked + covered) / 2
        score = resemblance
        if any(_is_said(keyword, heard) for keyword in entry.keywords):
            base = SERVICE_SCORE if entry.service else KEYWORD_SCORE
            score = max(score, base + (1 - base) * asked)
        return Match(score, resemblance, entry.service, entry.faq)

    def _weight(self, word: str) -> float:
        return self._weights.get(word, self._rarest)


def _entries(config: TenantConfig) -> Iterable[_Entry]:
    for service in config.services:
        name = _keyword(service.name)
        keywords = (name, *(_keyword(keyword) for keyword in service.keywords))
        yield _Entry(frozenset(name), tuple(filter(None, keywords)), service=service)
    for faq in config.faq:
        keywords = tuple(_keyword(keyword) for keyword in faq.keywords)
        yield _Entry(
            frozenset(content_stems(normalise(faq.question))), tuple(filter(None, keywords)), faq=faq
        )


def _keyword(text: str, *, negations: bool = False) -> tuple[str, ...]:
    """The stems of a keyword. An emergency keeps its negations: "no heat" is not "heat"."""
    words = normalise(text).split()
    kept = [word for word in words if word not in STOP_WORDS or (negations and word in _NEGATIONS)]
    return tuple(stem(word) for word in kept or words)


def _contains(words: Iterable[str], wanted: str) -> bool:
    return any(similar(word, wanted) for word in words)


def _is_said(keyword: tuple[str, ...], heard: Sequence[str]) -> bool:
    return all(_contains(heard, word) for word in keyword) or (
        len(keyword) > 1 and _contains(heard, "".join(keyword))
    )


def _reported(keyword: tuple[str, ...], stems: list[str]) -> bool:
    """All words of the keyword near each other, in any order, and not denied just before."""
    reach = len(keyword) + 3
    for start in range(len(stems)):
        if not any(similar(stems[start], word) for word in keyword):
            continue
        if not all(_contains(stems[start : start + reach], word) for word in keyword):
            continue
        before = stems[max(0, start - NEGATION_REACH) : start]
        denied = any(word in _NEGATIONS and word not in keyword for word in before)
        return not denied or "stop" in before  # "it won't stop bleeding"
    return False
