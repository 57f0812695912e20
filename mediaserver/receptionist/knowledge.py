"""What one tenant's configuration can answer: its services, its questions, its emergencies.

Words are weighted by how rare they are among this tenant's own entries (inverse document frequency), so that
"dental" counts little at a dentist's. A match below `THRESHOLD` is no match: the receptionist then says that it
does not know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
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

    @property
    def words(self) -> frozenset[str]:
        """Every stem of the entry; a keyword of several words also as one, the way it may be transcribed."""
        return self.stems.union(*self.keywords, map("".join, self.keywords))


class Knowledge:
    """An index over one tenant's configuration; immutable once built."""

    def __init__(self, config: TenantConfig) -> None:
        self._entries = tuple((entry, entry.words) for entry in _entries(config))
        counts: dict[str, int] = {}
        for _, words in self._entries:
            for word in words:
                counts[word] = counts.get(word, 0) + 1
        self._initials: dict[str, list[str]] = {}
        for word in counts:
            self._initials.setdefault(word[0], []).append(word)
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
        return self._best(text, services_only=False)

    def best_service(self, text: str) -> Match | None:
        """The service that it is most likely about."""
        return self._best(text, services_only=True)

    def emergency(self, text: str) -> bool:
        """Whether an utterance reports one of the tenant's emergencies."""
        if _HYPOTHETICAL.search(text) and not _DISTRESS.search(text):
            return False
        stems = [stem(word) for word in text.split()]
        return any(_reported(keyword, stems) for keyword in self._emergencies)

    def _best(self, text: str, *, services_only: bool) -> Match | None:
        said = content_stems(text)
        near = {word: self._near(word) for word in said}
        found = frozenset().union(*near.values(), *(self._near(a + b) for a, b in pairwise(said)))
        matches = (
            self._score(near, found, entry, words)
            for entry, words in self._entries
            if (entry.service or not services_only) and not words.isdisjoint(found)
        )
        best = max(matches, key=lambda match: (match.score, match.resemblance), default=None)
        return best if best is not None and best.score >= THRESHOLD else None

    def _near(self, word: str) -> frozenset[str]:
        """The words of the index that a heard word may be; one look-up per word, however many entries."""
        return frozenset(known for known in self._initials.get(word[0], ()) if similar(word, known))

    def _score(
        self, near: Mapping[str, frozenset[str]], found: frozenset[str], entry: _Entry, words: frozenset[str]
    ) -> Match:
        wanted = [word for word in near if word not in _GENERIC]
        asked = self._share((word for word in wanted if not near[word].isdisjoint(words)), wanted)
        covered = self._share(entry.stems & found, entry.stems)
        score = resemblance = (asked + covered) / 2
        if any(found.issuperset(keyword) or "".join(keyword) in found for keyword in entry.keywords):
            base = SERVICE_SCORE if entry.service else KEYWORD_SCORE
            score = max(score, base + (1 - base) * asked)
        return Match(score, resemblance, entry.service, entry.faq)

    def _share(self, part: Iterable[str], whole: Iterable[str]) -> float:
        weight = sum(map(self._weight, sorted(whole)))
        return sum(map(self._weight, sorted(part))) / weight if weight else 0.0

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
