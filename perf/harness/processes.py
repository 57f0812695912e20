"""Processes of a run: starting them on a core, and what they spend, from Linux's /proc."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from perf.cpu import TICK_S, precise_s
from perf.examples import ROOT

PROC = Path("/proc")
STOP_S = 20.0
MEDIA_THREAD = re.compile(r"media(-\d+)?")


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: the server on some, everything that measures it on others."""

    server: tuple[int, ...]
    others: tuple[int, ...]

    @classmethod
    def divided(cls, server: int = 1) -> Cores:
        """The first ``server`` of the processors that we may use, and the rest; without a rest nobody is bound."""
        usable = tuple(sorted(os.sched_getaffinity(0)))
        if len(usable) <= server:
            return cls(usable, usable)
        return cls(usable[:server], usable[server:])

    @property
    def apart(self) -> bool:
        """Whether the server has its processors to itself, as far as we are concerned."""
        return not set(self.server) & set(self.others)


def start(
    command: Sequence[str],
    cores: Sequence[int],
    *,
    log: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a process on some processors; its standard output is a pipe, its standard error the log's."""
    bound = ["taskset", "-c", ",".join(map(str, cores)), *command]
    return subprocess.Popen(
        bound,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log if log is not None else None,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def python(module: str, *arguments: str) -> list[str]:
    """What runs a module of ours."""
    return [sys.executable, "-m", module, *arguments]


@contextlib.contextmanager
def stopped_after(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ask the process to end, and end it if it does not."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a family of processes has used up to now."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds by ``process.stage``: the media threads, and the rest of each process."""
    waited_s: float = 0.0
    """Seconds that its threads could run and did not, because something else had the processor: the neighbours, or itself."""
    pss_mb: float = 0.0
    """Memory, pages that several processes share counted once."""
    processes: int = 0

    def since(self, earlier: Usage) -> dict[str, float]:
        """CPU seconds between two readings."""
        return {name: spent - earlier.cpu_s.get(name, 0.0) for name, spent in self.cpu_s.items()}


def usage(root: int) -> Usage:
    """Read a process and everything that it started."""
    cpu_s: dict[str, float] = {}
    pss_kb, counted, waited_s = 0, 0, 0.0
    for pid in [root, *descendants(root)]:
        try:
            name = "edge" if pid == root else role(pid)
            tasks = list((PROC / f"{pid}/task").iterdir())
            media_s = sum(precise_s(task) for task in tasks if MEDIA_THREAD.fullmatch(_comm(task)))
            waited_s += sum(map(_waited_s, tasks))
            whole_s = _process_s(pid)
            pss_kb += _pss_kb(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        counted += 1
        if media_s:
            cpu_s[f"{name}.media"] = cpu_s.get(f"{name}.media", 0.0) + media_s
        cpu_s[f"{name}.rest"] = cpu_s.get(f"{name}.rest", 0.0) + max(0.0, whole_s - media_s)
    return Usage(cpu_s, waited_s, pss_kb / 1024, counted)


def descendants(root: int) -> list[int]:
    """Every process that descends from one, in order of their numbers."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children.setdefault(_parent(int(entry.name)), []).append(int(entry.name))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return sorted(found)


def role(pid: int) -> str:
    """What a process of the server's is, by its command line and its name."""
    words = (PROC / f"{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    name = _comm(PROC / str(pid))
    for role_name in ("worker", "models"):
        if role_name in name or f"mediaserver.{role_name}" in words:
            return role_name
    # A fork of the server has its command line.
    return "worker" if "mediaserver" in words else "other"


def _comm(of: Path) -> str:
    return (of / "comm").read_text().strip()


def _fields(pid: int) -> list[str]:
    stat = (PROC / f"{pid}/stat").read_text()
    return stat[stat.rindex(")") + 2 :].split()


def _parent(pid: int) -> int:
    return int(_fields(pid)[1])


def _process_s(pid: int) -> float:
    """All threads, also those that have ended."""
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) * TICK_S


def _waited_s(task: Path) -> float:
    """The second figure of schedstat, where the kernel keeps it."""
    try:
        return int((task / "schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


def _pss_kb(pid: int) -> int:
    match = re.search(r"^Pss:\s+(\d+) kB", (PROC / f"{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(match[1]) if match else 0
