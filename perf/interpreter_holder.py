"""Somebody who holds the interpreter most of the time, as a computation in C that forgets to let go of it does.

As a thread it keeps every other thread of Python from running; as a process of its own
(``python -m perf.interpreter_holder SECONDS SHARE``) it takes as much of the machine and nothing of our interpreter:
what is left between the two is what the interpreter is to blame for.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from perf.examples import ROOT

PERIOD_S = 0.010
"""One hold and one rest: longer than the 5 ms after which the interpreter asks a holder to let go."""


def _additions(seconds: float) -> int:
    """How many additions take so long; one call of ``sum`` never lets go of the interpreter."""
    probe = 200_000
    took = []
    for _ in range(5):
        began = time.thread_time()
        sum(range(probe))
        took.append(time.thread_time() - began)
    return int(probe * seconds / min(took))


def hold(share: float, stop: threading.Event, seconds: float = 600.0) -> float:
    """Hold and rest in turns until `stop`, at most so long; returns the share of the time that was held."""
    addends = range(_additions(share * PERIOD_S))
    began, held_s = time.monotonic(), 0.0
    while not stop.is_set() and time.monotonic() < began + seconds:
        taken = time.monotonic()
        sum(addends)
        held_s += time.monotonic() - taken
        # A rest of its own: `stop.wait` would be woken by others.
        time.sleep((1 - share) * PERIOD_S)
    return held_s / max(time.monotonic() - began, 1e-6)


@contextmanager
def in_a_thread(share: float) -> Iterator[list[float]]:
    """Hold while inside; afterwards the list has the share that was held."""
    stop, shares = threading.Event(), list[float]()
    thread = threading.Thread(target=lambda: shares.append(hold(share, stop)), name="holder")
    thread.start()
    try:
        yield shares
    finally:
        stop.set()
        thread.join()


@contextmanager
def in_a_process(share: float, seconds: float) -> Iterator[None]:
    """As busy a process beside us while inside, at most so long."""
    process = subprocess.Popen(
        [sys.executable, "-m", "perf.interpreter_holder", str(seconds), str(share)], cwd=ROOT
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    hold(float(sys.argv[2]), threading.Event(), float(sys.argv[1]))
