"""CPU time of threads and processes, from Linux's /proc: what wall time on a shared machine cannot tell."""

from __future__ import annotations

import os
import re
from pathlib import Path

TASKS = Path("/proc/self/task")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def thread_cpu_s(name: str) -> float:
    """CPU seconds of all threads of this process with that name, numbered ones (``media-0``) too.

    To the nanosecond where the kernel says so.
    """
    return sum(precise_s(task) for task in _tasks(name))


def thread_kernel_s(name: str) -> float:
    """How much of `thread_cpu_s` was spent in the kernel, to 10 ms: system calls and the network stack."""
    return sum(stat_cpu_s((task / "stat").read_text(), user=False) for task in _tasks(name))


def _tasks(name: str) -> list[Path]:
    named = re.compile(re.escape(name) + r"(-\d+)?")
    return [task for task in TASKS.iterdir() if named.fullmatch((task / "comm").read_text().strip())]


def process_cpu_s(pid: int) -> float:
    """CPU seconds of all threads of another process, those that run now."""
    return sum(precise_s(task) for task in Path(f"/proc/{pid}/task").iterdir())


def precise_s(task: Path) -> float:
    """CPU seconds of a thread, by its folder in /proc."""
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        return stat_cpu_s((task / "stat").read_text())


def stat_cpu_s(stat: str, *, user: bool = True) -> float:
    """User and system time of a line of proc(5) ``stat``; the name in it may hold spaces and parentheses."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) * user + int(fields[12])) * TICK_S
