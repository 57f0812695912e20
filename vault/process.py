"""Keeping keys out of core dumps: for the start of every process that opens keys.

A core file, or what a crash reporter is piped, holds the process's memory and every key that was in use.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from dataclasses import dataclass
from typing import Final

from vault.errors import VaultError

# <linux/prctl.h>
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4


class CoreDumpsPossible(VaultError):  # noqa: N818
    """The system did not let core dumps be turned off."""


@dataclass(frozen=True, slots=True)
class CoreDumps:
    """What stands between this process and a core dump."""

    size_limit: int
    """Bytes that a core file may have (RLIMIT_CORE, the hard limit); -1 is no limit."""
    dumpable: bool | None
    """Linux's mark of a process that may be dumped; None on systems without it."""


def forbid_core_dumps() -> CoreDumps:
    """Turn core dumps of this process off for good, and say what stands afterwards.

    RLIMIT_CORE becomes 0, soft and hard: child processes inherit it and cannot raise it without privilege. A kernel that
    pipes dumps to a program ignores that limit, so on Linux the process is marked as not dumpable too (prctl(2),
    PR_SET_DUMPABLE). The mark lasts over fork and ends with execve: a program that is started anew must ask again.

    The mark also keeps debuggers and profilers of the same user from attaching, and gives ``/proc/PID`` to root: others of
    the user cannot read its environment, its descriptors or its memory map.

    Raises:
        CoreDumpsPossible: the system refused.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        raise CoreDumpsPossible(f"RLIMIT_CORE cannot be set to 0: {error}") from error
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise CoreDumpsPossible(f"PR_SET_DUMPABLE: {os.strerror(ctypes.get_errno())}")
    done = core_dumps()
    if done.size_limit != 0 or done.dumpable:
        raise CoreDumpsPossible(f"core dumps are still possible: {done}")
    return done


def core_dumps() -> CoreDumps:
    """What stands between this process and a core dump now."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if sys.platform != "linux":
        return CoreDumps(hard, None)
    libc = ctypes.CDLL(None, use_errno=True)
    # 1 is dumpable; 2 is dumpable by root alone, as the system's administrator set it.
    return CoreDumps(hard, libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
