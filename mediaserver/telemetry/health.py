"""Whether the process is alive and whether calls would be admitted, each as named checks that are all asked anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import LOOP_LAG_SECONDS

BEAT_S = 0.1
"""Between two looks at the clock."""
STALL_S = 1.0
"""A loop that comes so late holds up every call."""
REMEMBERED_S = 10.0
"""How long a stall counts: about the time between two looks of a supervisor, which cannot see one while it lasts."""

Checks = Callable[[], Mapping[str, bool]]
"""Every condition by its name."""


@dataclass(slots=True)
class Beat:
    """A beat that should come every `BEAT_S`. It is told the time, and tells how late it came."""

    now_s: float
    """Of the last beat."""
    _stalled_s: float | None = None

    def beat(self, now_s: float) -> float:
        """It came; returns by how much too late."""
        lag_s = max(0.0, now_s - self.now_s - BEAT_S)
        if lag_s > STALL_S:
            self._stalled_s = now_s
        self.now_s = now_s
        return lag_s

    def steady(self, now_s: float) -> bool:
        """Whether no beat was late by more than `STALL_S` lately, the one that is due among them."""
        overdue = now_s - self.now_s - BEAT_S > STALL_S
        return not overdue and (self._stalled_s is None or now_s - self._stalled_s > REMEMBERED_S)


class LoopWatch:
    """Watches over the event loop that it runs in."""

    def __init__(self, meters: Meters, process: str) -> None:
        self._meters = meters
        self._process = process
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat = Beat(0.0)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._beat = Beat(self._loop.time())
        self._timer = self._loop.call_later(BEAT_S, self._tick)

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def steady(self) -> bool:
        """Whether the loop has kept its time lately."""
        return self._loop is None or self._beat.steady(self._loop.time())

    def _tick(self) -> None:
        assert self._loop is not None
        self._meters.observe(LOOP_LAG_SECONDS, self._beat.beat(self._loop.time()), self._process)
        self._timer = self._loop.call_later(BEAT_S, self._tick)
