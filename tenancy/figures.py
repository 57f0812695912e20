"""What a node measures of itself and its store, a minute at a time: the figures of `tenancy.gate`. Sans-IO.

Counting costs a call nothing but additions; the minute's row is written once, when the minute is over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MINUTE_MS: Final = 60_000
WAIT_BOUNDS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
"""Upper bounds, inclusive, of the waits that are told apart; one bucket more takes the rest."""
WAIT_MOST_MS: Final = 10_000
"""What stands for a wait above the last bound: in the queue and for the lock, twice SQLite's own limit."""
MAX_SAMPLES: Final = 600
"""Looks at the calls in one minute; what is past them is not taken in."""


@dataclass(frozen=True, slots=True)
class StoreMinute:
    """What was asked of a node's store."""

    writes: int = 0
    """Transactions that write."""
    waits: tuple[int, ...] = (0,) * (len(WAIT_BOUNDS_MS) + 1)
    """How many of them waited how long, by `WAIT_BOUNDS_MS`: in the file's queue, and then for SQLite's lock."""
    wait_ms: float = 0.0
    """All of their waits."""
    locked: int = 0
    """Given up because another held the lock for too long (`StoreLocked`)."""
    crossings: int = 0
    """Queries over the files of many tenants."""
    crossing_ms: float = 0.0
    """The time that they took."""
    crossed: int = 0
    """Tenants that the widest of them asked."""

    @property
    def wait_p95_ms(self) -> int:
        """The bound that 95 % of the writes waited no longer than; 0 without any."""
        return percentile_95(self.waits)


def percentile_95(waits: Sequence[int]) -> int:
    """The bound of the bucket that the 95th of a hundred is in."""
    total = sum(waits)
    if not total:
        return 0
    # The nearest rank, in whole numbers.
    rank, seen = -(-total * 95 // 100), 0
    for count, bound in zip(waits, (*WAIT_BOUNDS_MS, WAIT_MOST_MS), strict=True):
        seen += count
        if seen >= rank:
            return bound
    raise AssertionError("the buckets hold all of them")


class StoreFigures:
    """Counts for one store of one process. Belongs to the event loop."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._waits = [0] * (len(WAIT_BOUNDS_MS) + 1)
        self._wait_ms = 0.0
        self._locked = 0
        self._crossings = 0
        self._crossing_ms = 0.0
        self._crossed = 0

    def waited(self, wait_ms: float) -> None:
        """A write began after so long."""
        wait_ms = max(0.0, wait_ms)
        self._waits[bisect_left(WAIT_BOUNDS_MS, wait_ms)] += 1
        self._wait_ms += wait_ms

    def was_locked(self) -> None:
        """Something was given up because the lock was not to be had."""
        self._locked += 1

    def went_across(self, tenants: int, took_ms: float) -> None:
        """A query asked the data of so many tenants, one after the other."""
        self._crossings += 1
        self._crossing_ms += max(0.0, took_ms)
        self._crossed = max(self._crossed, tenants)

    def take(self) -> StoreMinute:
        """What was counted since the last time."""
        taken = StoreMinute(
            sum(self._waits),
            tuple(self._waits),
            self._wait_ms,
            self._locked,
            self._crossings,
            self._crossing_ms,
            self._crossed,
        )
        self._reset()
        return taken


@dataclass(frozen=True, slots=True)
class NodeMinute:
    """One minute of one node, as it is kept."""

    node_id: str
    minute: int
    """Minutes since the epoch."""
    slots: int
    """Calls that the node may have at a time."""
    calls_p95: int
    """Calls in progress, of the looks at them in this minute."""
    calls_max: int
    writes: int
    write_wait_p95_ms: int
    write_wait_ms: int
    locked: int
    crossings: int
    crossing_ms: int
    crossed: int
    nodes: int = 1
    """Nodes that the store knew of when this was written; see `NodeRepository.keep`."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node that has the store open, or had."""

    node_id: str
    """Of one process; a node that is started again is another."""
    host: str
    pid: int
    started_ms: int
    """Since the epoch, as `seen_ms`."""
    seen_ms: int


@dataclass(slots=True)
class Tally:
    """Looks at the calls of a node, put together to minutes."""

    node_id: str
    _minute: int | None = None
    _calls: list[int] = field(default_factory=list)
    _slots: int = 0

    def look(
        self, now_ms: int, calls: int, slots: int, store: StoreFigures
    ) -> tuple[NodeMinute, StoreMinute] | None:
        """So many calls are in progress; returns the minute that is over, with what its store was asked in it."""
        minute = now_ms // MINUTE_MS
        over = None
        if self._minute is not None and minute != self._minute:
            over = self._close(store)
        if self._minute != minute:
            self._minute, self._calls = minute, []
        self._slots = slots
        if len(self._calls) < MAX_SAMPLES:
            self._calls.append(calls)
        return over

    def end(self, store: StoreFigures) -> tuple[NodeMinute, StoreMinute] | None:
        """The minute that has begun, as far as it went; None where nothing did."""
        return None if self._minute is None else self._close(store)

    def _close(self, store: StoreFigures) -> tuple[NodeMinute, StoreMinute]:
        assert self._minute is not None
        asked, calls = store.take(), sorted(self._calls)
        minute = NodeMinute(
            self.node_id,
            self._minute,
            self._slots,
            calls[-(-len(calls) * 95 // 100) - 1],
            calls[-1],
            asked.writes,
            asked.wait_p95_ms,
            round(asked.wait_ms),
            asked.locked,
            asked.crossings,
            round(asked.crossing_ms),
            asked.crossed,
        )
        self._minute, self._calls = None, []
        return minute, asked
