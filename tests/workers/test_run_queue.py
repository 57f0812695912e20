"""How long a process has waited for a processor, asked of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mediaserver.workers.run_queue import RunQueue


@pytest.fixture
def busy() -> Iterator[list[int]]:
    """Three processes in a loop on one processor."""
    processor = min(os.sched_getaffinity(0))
    loop = f"import os\nos.sched_setaffinity(0, {{{processor}}})\nprint(flush=True)\nwhile True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) for _ in range(3)]
    for each in processes:
        assert each.stdout is not None
        each.stdout.readline()
    yield [each.pid for each in processes]
    for each in processes:
        each.kill()
        each.communicate()


def run_ms(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def until_it_has_run(pid: int, more_ms: float) -> None:
    deadline, wanted = time.monotonic() + 30, run_ms(pid) + more_ms
    while run_ms(pid) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_who_shares_a_processor_waits_for_it(busy: list[int]) -> None:
    queue = RunQueue(busy[0])
    until_it_has_run(busy[0], 100)
    # Two thirds of the time are the others'; and each wait is told once.
    waited_ms = queue.waited_ms()
    assert waited_ms > 100
    assert queue.waited_ms() < waited_ms
    queue.close()
    assert queue.waited_ms() == 0


def test_who_is_stopped_does_not_wait(busy: list[int]) -> None:
    os.kill(busy[0], signal.SIGSTOP)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{busy[0]}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
    queue = RunQueue(busy[0])
    until_it_has_run(busy[1], 50)
    assert queue.waited_ms() == 0
    queue.close()


def test_who_has_ended_does_not_wait(busy: list[int]) -> None:
    queue = RunQueue(busy[0])
    os.kill(busy[0], signal.SIGKILL)
    os.waitpid(busy[0], 0)
    queue.waited_ms()
    assert queue.waited_ms() == 0
    gone = RunQueue(busy[0])
    assert gone.waited_ms() == 0
    gone.close()
