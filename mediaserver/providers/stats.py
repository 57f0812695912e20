"""What a process knows of its providers, for metrics: counters, and the time to the first piece of an answer. Sans-IO.

Labels are bounded: stages, causes and states are fixed, and past `MAX_PROVIDERS` names a stage counts under `OTHERS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mediaserver.errors import FailureCause
from mediaserver.providers.breaker import BreakerKey, Stage, State

MAX_PROVIDERS = 64
OTHERS = "other"
FIRST_MS_BOUNDS = (
    10,
    25,
    50,
    75,
    100,
    150,
    200,
    300,
    400,
    500,
    750,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
    10_000,
)
"""Upper bounds, inclusive, of the latency histogram; one bucket more takes the rest."""


@dataclass(frozen=True, slots=True)
class Latencies:
    """A histogram over `FIRST_MS_BOUNDS`; ``counts`` are per bucket, not cumulative."""

    counts: tuple[int, ...]
    sum_ms: int

    @property
    def count(self) -> int:
        """How many were measured."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """One provider in one stage."""

    requests: int
    answered: int
    """Answers that came to their end."""
    abandoned: int
    """Given up by us: the caller spoke or left, or the other of two was first."""
    skipped: int
    """Not asked because its breaker was open."""
    hedges_started: int
    """Asked beside another that was still silent."""
    hedges_won: int
    failures: Mapping[FailureCause, int]
    first_ms: Latencies
    """From the request to the first piece of the answer."""


@dataclass(frozen=True, slots=True)
class ProviderSnapshot:
    """Everything, at one moment."""

    providers: Mapping[tuple[Stage, str], ProviderFigures]
    breaker_changes: Mapping[tuple[Stage, State], int]
    """How often a breaker of the stage entered the state."""
    connections_warmed: int
    warmings_failed: int
    warmings_spared: int
    """The same origin was warmed a moment ago, or too many are being warmed."""
    dead_connections_retried: int
    """Requests sent again because a pooled connection had died unnoticed."""


@dataclass(slots=True)
class _Provider:
    requests: int = 0
    answered: int = 0
    abandoned: int = 0
    skipped: int = 0
    hedges_started: int = 0
    hedges_won: int = 0
    failures: dict[FailureCause, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(FIRST_MS_BOUNDS) + 1))
    sum_ms: int = 0

    def figures(self) -> ProviderFigures:
        return ProviderFigures(
            self.requests,
            self.answered,
            self.abandoned,
            self.skipped,
            self.hedges_started,
            self.hedges_won,
            MappingProxyType(dict(self.failures)),
            Latencies(tuple(self.buckets), self.sum_ms),
        )


class ProviderStats:
    """The counters of a process."""

    def __init__(self) -> None:
        self._providers: dict[tuple[Stage, str], _Provider] = {}
        self._breaker_changes: dict[tuple[Stage, State], int] = {}
        self.connections_warmed = 0
        self.warmings_failed = 0
        self.warmings_spared = 0
        self.dead_connections_retried = 0

    def snapshot(self) -> ProviderSnapshot:
        """A frozen copy."""
        return ProviderSnapshot(
            providers=MappingProxyType({key: one.figures() for key, one in self._providers.items()}),
            breaker_changes=MappingProxyType(dict(self._breaker_changes)),
            connections_warmed=self.connections_warmed,
            warmings_failed=self.warmings_failed,
            warmings_spared=self.warmings_spared,
            dead_connections_retried=self.dead_connections_retried,
        )

    def breaker_changed(self, key: BreakerKey, state: State) -> None:
        """A breaker entered a state."""
        label = (key.stage, state)
        self._breaker_changes[label] = self._breaker_changes.get(label, 0) + 1

    def asked(self, stage: Stage, provider: str, *, hedge: bool) -> None:
        """A request was sent."""
        one = self._provider(stage, provider)
        one.requests += 1
        one.hedges_started += hedge

    def skipped(self, stage: Stage, provider: str) -> None:
        """An open breaker left the provider out."""
        self._provider(stage, provider).skipped += 1

    def first_piece(self, stage: Stage, provider: str, latency_ms: int, *, hedge: bool) -> None:
        """An answer began, before any other's."""
        one = self._provider(stage, provider)
        one.buckets[bisect_left(FIRST_MS_BOUNDS, latency_ms)] += 1
        one.sum_ms += latency_ms
        one.hedges_won += hedge

    def answered(self, stage: Stage, provider: str) -> None:
        """An answer came to its end."""
        self._provider(stage, provider).answered += 1

    def abandoned(self, stage: Stage, provider: str) -> None:
        """We gave the request up."""
        self._provider(stage, provider).abandoned += 1

    def failed(self, stage: Stage, provider: str, cause: FailureCause) -> None:
        """A request failed."""
        failures = self._provider(stage, provider).failures
        failures[cause] = failures.get(cause, 0) + 1

    def _provider(self, stage: Stage, provider: str) -> _Provider:
        one = self._providers.get((stage, provider))
        if one is not None:
            return one
        if sum(key[0] is stage for key in self._providers) >= MAX_PROVIDERS:
            provider = OTHERS
        return self._providers.setdefault((stage, provider), _Provider())
