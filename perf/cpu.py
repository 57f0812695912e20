"""CPU time of this process's threads, from Linux's /proc: what wall time on a shared machine cannot tell."""

from __future__ import annotations

import os
from pathlib import Path

TASKS = Path("/proc/self/task")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def thread_cpu_s(name: str) -> float:
    """CPU seconds of all threads of this process with that name: to the nanosecond where the kernel says so."""
    spent_s = 0.0
    for task in TASKS.iterdir():
        if (task / "comm").read_text().strip() == name:
            spent_s += _precise_s(task)
    return spent_s


def _precise_s(task: Path) -> float:
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        return stat_cpu_s((task / "stat").read_text())


def stat_cpu_s(stat: str) -> float:
    """User and system time of a line of proc(5) ``stat``; the name in it may hold spaces and parentheses."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S
