"""Why a worker ended. Its socket says that it has, the nursery says how, and either may be the first. Sans-IO."""

from __future__ import annotations

import signal
from collections import OrderedDict
from typing import Literal

from mediaserver.workers.worker_settings import EXIT_NO_MEMORY

Cause = Literal["crashed", "killed", "memory"]
MAX_REMEMBERED = 256
"""Ends of which only one side is known; the oldest go."""
_KILLS = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT})


def cause_of(status: int) -> Cause:
    """The cause that an exit status stands for; negative: the signal."""
    if status == EXIT_NO_MEMORY:
        return "memory"
    # The kernel's out-of-memory killer sends SIGKILL too; its log has the difference.
    return "killed" if status in _KILLS else "crashed"


class Ends:
    """Puts the two together."""

    def __init__(self) -> None:
        self._lost: OrderedDict[int, None] = OrderedDict()
        self._statuses: OrderedDict[int, int] = OrderedDict()

    def lost(self, pid: int) -> Cause | None:
        """The worker is missed; the cause, if it is known already."""
        status = self._statuses.pop(pid, None)
        if status is not None:
            return cause_of(status)
        self._lost[pid] = None
        if len(self._lost) > MAX_REMEMBERED:
            self._lost.popitem(last=False)
        return None

    def ended(self, pid: int, status: int) -> Cause | None:
        """The process has ended; the cause, if the worker is missed already."""
        if pid in self._lost:
            del self._lost[pid]
            return cause_of(status)
        self._statuses[pid] = status
        if len(self._statuses) > MAX_REMEMBERED:
            self._statuses.popitem(last=False)
        return None
