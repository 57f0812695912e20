"""Whether it is time to go from SQLite to Postgres, from measured figures. Sans-IO.

SQLite serves a node as long as one process writes, and mostly one tenant at a time is asked. Four things end that, and each
is a criterion here: a node that is full for long (a second one needs a store in common), several nodes, writers that wait
for each other, and queries over many tenants' files. A criterion is reached when its figure was at its bound or above in a
share of the last minutes: a peak is none. Minutes of which nothing is known count as quiet ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tenancy.figures import NodeMinute

KEPT_MINUTES: Final = 1_440
"""Of which figures are kept: a day."""


class Criterion(StrEnum):
    """What ends SQLite's time."""

    CONCURRENCY = "concurrency"
    NODES = "nodes"
    CONTENTION = "write_contention"
    CROSS_TENANT = "cross_tenant"


@dataclass(frozen=True, slots=True)
class GateBounds:
    """When a minute counts, and how many have to; the reasons are `config.node.GateConfig`'s."""

    window_min: int = 60
    share: float = 0.5
    calls_share: float = 0.7
    nodes: int = 2
    write_wait_ms: int = 50
    cross_tenant_ms: int = 1_000

    def bound(self, criterion: Criterion) -> float:
        """From what figure on a minute counts."""
        match criterion:
            case Criterion.CONCURRENCY:
                return self.calls_share
            case Criterion.NODES:
                return self.nodes
            case Criterion.CONTENTION:
                return self.write_wait_ms
            case Criterion.CROSS_TENANT:
                return self.cross_tenant_ms

    @property
    def needed_min(self) -> int:
        """Minutes of the window that have to count; at least one."""
        return max(1, -(-round(self.share * 1_000) * self.window_min // 1_000))


LOCKED_WAIT_MS: Final = 5_000
"""What a write that was given up had waited (`tenancy.database.BUSY_TIMEOUT_MS`)."""


def figures_of(minutes: Iterable[NodeMinute]) -> dict[Criterion, float]:
    """The figures of one minute, of all nodes that have the store.

    Concurrency is the fullest node's 95th percentile of calls as a share of its slots; contention the worst node's 95th
    percentile of a write's wait, and SQLite's own limit where a write was given up; queries over tenants are added up.
    """
    found = dict.fromkeys(Criterion, 0.0)
    for each in minutes:
        waited_ms = max(each.write_wait_p95_ms, LOCKED_WAIT_MS if each.locked else 0)
        found[Criterion.CONCURRENCY] = max(
            found[Criterion.CONCURRENCY], each.calls_p95 / each.slots if each.slots else 0.0
        )
        found[Criterion.NODES] = max(found[Criterion.NODES], each.nodes)
        found[Criterion.CONTENTION] = max(found[Criterion.CONTENTION], waited_ms)
        found[Criterion.CROSS_TENANT] += each.crossing_ms
    return found


@dataclass(frozen=True, slots=True)
class Finding:
    """One criterion at one moment."""

    criterion: Criterion
    bound: float
    latest: float | None
    """The figure of the newest minute; None: of the last window nothing is known."""
    peak: float
    """The highest of the window."""
    exceeded_min: int
    """Minutes of the window at the bound or above."""
    needed_min: int
    window_min: int
    exceeded_since: int | None
    """The first of them, in minutes since the epoch; None: there are none."""
    reached_since: int | None
    """The minute since which there have been enough without a break; None: there are not."""

    @property
    def reached(self) -> bool:
        """Whether the gate is reached by this criterion."""
        return self.reached_since is not None


@dataclass(slots=True)
class _Course:
    """One criterion over the window."""

    figures: deque[tuple[int, float]] = field(default_factory=deque)
    """Minute and figure, of the window alone."""
    over: deque[int] = field(default_factory=deque)
    """Those at the bound or above."""
    reached_since: int | None = None


class Gate:
    """Takes minutes in order and holds what is known of the last window: at most `GateBounds.window_min` figures each."""

    def __init__(self, bounds: GateBounds) -> None:
        self._bounds = bounds
        self._courses = {criterion: _Course() for criterion in Criterion}
        self._minute: int | None = None

    def take(self, minute: int, figures: dict[Criterion, float]) -> None:
        """The figures of a minute, later than all before; an earlier one (a clock that was put back) is not taken in."""
        if self._minute is not None and minute <= self._minute:
            return
        if self._minute is not None and minute > self._minute + 1:
            # Nothing is known of those between, in which a criterion may have ceased to be reached.
            self._quiet_until(minute - 1)
        self._forget_before(minute)
        self._minute = minute
        for criterion, course in self._courses.items():
            course.figures.append((minute, figures[criterion]))
            if figures[criterion] >= self._bounds.bound(criterion):
                course.over.append(minute)
            if len(course.over) < self._bounds.needed_min:
                course.reached_since = None
            elif course.reached_since is None:
                course.reached_since = minute

    def _quiet_until(self, minute: int) -> None:
        self._forget_before(minute)
        self._minute = minute
        for course in self._courses.values():
            if len(course.over) < self._bounds.needed_min:
                course.reached_since = None

    def _forget_before(self, minute: int) -> None:
        """Forget what is not in the window that ends with this minute."""
        first = minute - self._bounds.window_min + 1
        for course in self._courses.values():
            while course.figures and course.figures[0][0] < first:
                course.figures.popleft()
            while course.over and course.over[0] < first:
                course.over.popleft()

    def findings(self, minute: int) -> tuple[Finding, ...]:
        """Each criterion, as of a minute that is not before the last that was taken."""
        if self._minute is None or minute > self._minute:
            self._quiet_until(minute)
        return tuple(self._finding(criterion, course) for criterion, course in self._courses.items())

    def _finding(self, criterion: Criterion, course: _Course) -> Finding:
        return Finding(
            criterion,
            self._bounds.bound(criterion),
            course.figures[-1][1] if course.figures else None,
            max((figure for _, figure in course.figures), default=0.0),
            len(course.over),
            self._bounds.needed_min,
            self._bounds.window_min,
            course.over[0] if course.over else None,
            course.reached_since,
        )


def assess(minutes: Iterable[NodeMinute], bounds: GateBounds, now_minute: int) -> tuple[Finding, ...]:
    """Each criterion as of now, from what was kept, in any order; minutes that are still to come are left out."""
    by_minute: dict[int, list[NodeMinute]] = {}
    for each in minutes:
        if now_minute - KEPT_MINUTES < each.minute <= now_minute:
            by_minute.setdefault(each.minute, []).append(each)
    gate = Gate(bounds)
    for minute in sorted(by_minute):
        gate.take(minute, figures_of(by_minute[minute]))
    return gate.findings(now_minute)
