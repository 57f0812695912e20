"""Worker threads of one kind behind a bounded queue, with one rule of order.

A request takes a place for as long as it lasts and may use a worker several times. First pieces go before later ones: a
caller who hears nothing yet waits for them, while a caller who has heard a sentence still has its audio to listen to.

A thread that computes cannot be interrupted. So a worker is free again when its thread is, not when its client has given
up; work that has not begun when its client leaves is dropped.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

T = TypeVar("T")


class PoolError(Exception):
    """The pool does not do the work."""


class QueueFull(PoolError):  # noqa: N818 - names what happened
    """No place is left; try again later."""


class TooSlow(PoolError):  # noqa: N818
    """The work was not done within the time limit."""


class Rank(IntEnum):
    """Who goes first."""

    FIRST = 0
    LATER = 1


@dataclass(slots=True)
class Counters:
    """What happened so far."""

    done: int = 0
    refused: int = 0
    timed_out: int = 0
    dropped: int = 0
    """Work whose client left before it was done."""


class WorkPool:
    """See the module. All methods belong to one event loop."""

    def __init__(self, name: str, *, workers: int, max_waiting: int, timeout_s: float) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._free = workers
        self._places = workers + max_waiting
        self._timeout_s = timeout_s
        self._queue: list[tuple[Rank, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.taken = 0
        self.counters = Counters()

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request; raises `QueueFull`."""
        self.take()
        try:
            yield
        finally:
            self.leave()

    def take(self) -> None:
        """Take a place, to be given back with `leave`; raises `QueueFull`."""
        if self.taken >= self._places:
            self.counters.refused += 1
            raise QueueFull("the model's queue is full")
        self.taken += 1

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1

    async def run(self, work: Callable[[], T], rank: Rank = Rank.FIRST) -> T:
        """Compute in a worker; raises `TooSlow`. The caller holds a place."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._worker(rank)
                result = await self._compute(work)
        except TimeoutError:
            self.counters.timed_out += 1
            raise TooSlow(f"not done within {self._timeout_s:g} s") from None
        except asyncio.CancelledError:
            self.counters.dropped += 1
            raise
        self.counters.done += 1
        return result

    async def _worker(self, rank: Rank) -> None:
        """Wait for a free worker and take it."""
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (rank, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # the turn came in the same moment
            raise
        finally:
            self._queue = [entry for entry in self._queue if not entry[2].done()]
            heapq.heapify(self._queue)

    async def _compute(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future = self._threads.submit(work)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.shield(asyncio.wrap_future(future))

    def _release(self) -> None:
        while self._queue:
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
