"""A worker's memory against its limit.

What a refused allocation does depends on who asked: Python raises `MemoryError`, the system's resolver says that a host is not
known, a thread does not start. Libraries catch the most of it, and the call goes on deaf. So a worker looks for itself, and ends
as a whole before it comes to that; the edge gives its calls to another.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from mediaserver.workers.worker_settings import EXIT_NO_MEMORY

LOOK_EVERY_S = 0.25
LEAST_ROOM_BYTES = 8 << 20
ROOM_SHARE = 64
"""A worker ends with this part of its limit left."""
STATM = Path("/proc/self/statm")
"""proc_pid_statm(5): the sixth figure is data and stack, in pages; RLIMIT_DATA counts the same but for the stack."""
DATA_FIELD = 5


def is_short(used_bytes: int, limit_bytes: int) -> bool:
    """Whether so little room is left that the next request may be refused."""
    if limit_bytes == resource.RLIM_INFINITY:
        return False
    return used_bytes > limit_bytes - max(LEAST_ROOM_BYTES, limit_bytes // ROOM_SHARE)


def used_bytes() -> int:
    """What this process has of what RLIMIT_DATA limits."""
    with STATM.open("rb", buffering=0) as file:
        return int(file.read(256).split()[DATA_FIELD]) * resource.getpagesize()


class MemoryWatch:
    """Ends this process when its memory is short, from `start` to `stop`."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        try:
            # The limit as it is now: an operator may change it with prlimit(1).
            short = is_short(used_bytes(), resource.getrlimit(resource.RLIMIT_DATA)[0])
        except (MemoryError, OSError):
            short = True
        if short:
            self._end()
            return
        self.start()


def end_for_memory() -> None:
    """End this process; what is left of its objects is not touched."""
    os.write(sys.stderr.fileno(), b"call worker ends: its memory is used up\n")
    os._exit(EXIT_NO_MEMORY)
