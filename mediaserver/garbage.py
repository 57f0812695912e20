"""When the interpreter looks for garbage in cycles.

A look at everything stops the process for about 0.8 ms per call that is up (measured: 200 ms at 150 calls), and left to itself
the interpreter looks every few seconds, to find the little that running calls leave. What counts is the calls that
have ended. So everything is looked at when no call is up, or when several times as many calls have ended as are up; and
young objects are looked at as always, but less often.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import GARBAGE_SECONDS

YOUNG_OBJECTS = 2_000
YOUNG_ROUNDS = 5
NEVER = 1_000_000_000
LOOK_EVERY_S = 1.0
FEWEST_ENDED = 100
ENDED_PER_CALL = 5
"""A call that has ended leaves a fifth of its objects: its pipeline was taken apart."""
LONGEST_S = 300.0
"""With calls up that never end: what they leave is found at last."""


class GarbagePolicy:
    """Sans-IO: whether it is time to look at everything."""

    def __init__(self, now_s: float) -> None:
        self._looked_s = now_s
        self._ended = 0

    def due(self, now_s: float, calls: int, ended: int) -> bool:
        """With so many calls up, and so many ended since the start."""
        new = ended - self._ended
        due = (
            new > 0
            if calls == 0
            else new >= max(FEWEST_ENDED, ENDED_PER_CALL * calls) or now_s - self._looked_s >= LONGEST_S
        )
        if due:
            self._looked_s, self._ended = now_s, ended
        return due


def settle() -> None:
    """What is there now, the modules above all, is never looked at again; what comes, only while it is young."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, NEVER)


class GarbageCollection:
    """Takes the interpreter's collection over for this process, from `start` to `stop`."""

    def __init__(
        self,
        meters: Meters,
        process: str,
        calls: Callable[[], tuple[int, int]],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """``calls``: how many are up, and how many have ended since the start; ``before``: told when it stands still."""
        self._meters = meters
        self._process = process
        self._calls = calls
        self._before = before
        self._policy = GarbagePolicy(0.0)
        self._thresholds = gc.get_threshold()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """What is there now is never looked at again."""
        settle()
        loop = asyncio.get_running_loop()
        self._policy = GarbagePolicy(loop.time())
        self._timer = loop.call_later(LOOK_EVERY_S, self._look, loop)

    def stop(self) -> None:
        """As it was."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            gc.set_threshold(*self._thresholds)
            gc.unfreeze()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._policy.due(loop.time(), *self._calls()):
            self._before()
            began_ns = time.monotonic_ns()
            gc.collect()
            self._meters.observe(GARBAGE_SECONDS, (time.monotonic_ns() - began_ns) / 1e9, self._process)
        self._timer = loop.call_later(LOOK_EVERY_S, self._look, loop)
