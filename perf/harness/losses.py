"""Workers that are lost under load, and what the server's own metrics say became of their calls."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from perf.harness.processes import PROC, descendants

TOLD_BAR_S = 0.3
TAKEN_BAR_S = 1.0
WAYS = (signal.SIGKILL, signal.SIGSTOP)
NURSERY = b"mediaserver.workers.nursery"
TOLD = "receptionist_worker_told_to_wait_seconds"
TAKEN = "receptionist_worker_takeover_seconds"
OUTCOMES = "receptionist_worker_takeovers_total"


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: how many observations were at most so many seconds."""

    upto: Mapping[float, float]

    @property
    def count(self) -> float:
        """Observations."""
        return max(self.upto.values(), default=0.0)

    def within(self, bound_s: float) -> float | None:
        """The percentage of at most a bucket's bound; None without observations."""
        return 100 * self.upto.get(bound_s, 0.0) / self.count if self.count else None

    def quantile_at_most_ms(self, share: float) -> float | None:
        """The bound of the bucket that holds the quantile."""
        due = share * self.count
        bounds = [bound for bound, count in sorted(self.upto.items()) if self.count and count >= due]
        return 1000 * bounds[0] if bounds else None


def workers_of(server: int) -> list[int]:
    """The worker processes of a server: its nursery's children."""
    family = descendants(server)
    nurseries = {pid for pid in family if NURSERY in _read(pid, "cmdline")}
    return [pid for pid in family if _parent(pid) in nurseries]


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / f"{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _parent(pid: int) -> int:
    stat = _read(pid, "stat")
    return int(stat[stat.rindex(b")") + 2 :].split()[1]) if stat else 0


@contextmanager
def losing_workers(server: int, every_s: float) -> Iterator[list[int]]:
    """Kill and stop a worker in turn, every so many seconds; the list grows by those that were lost."""
    lost: list[int] = []
    done = threading.Event()

    def lose() -> None:
        while not done.wait(every_s):
            workers = [pid for pid in workers_of(server) if pid not in lost]
            if workers:
                os.kill(workers[-1], WAYS[len(lost) % len(WAYS)])
                lost.append(workers[-1])

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join()


def scraped(url: str) -> dict[str, Buckets | dict[str, float]]:
    """The metrics of taking calls over."""
    with urllib.request.urlopen(url, timeout=10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    found: dict[str, Buckets | dict[str, float]] = {
        name: Buckets({float(one.labels["le"]): one.value for one in samples if one.name == f"{name}_bucket"})
        for name in (TOLD, TAKEN)
    }
    found[OUTCOMES] = {one.labels["outcome"]: one.value for one in samples if one.name == OUTCOMES}
    return found


def takeovers(url: str, lost: int) -> dict[str, float | None]:
    """What became of the calls of lost workers, for the report."""
    time.sleep(1.0)  # The last worker's meters come with its next report.
    metrics = scraped(url)
    told, taken, outcomes = metrics[TOLD], metrics[TAKEN], metrics[OUTCOMES]
    assert isinstance(told, Buckets)
    assert isinstance(taken, Buckets)
    assert isinstance(outcomes, dict)
    return {
        "workers_lost": lost,
        "calls_resumed": outcomes.get("resumed", 0.0),
        "calls_failed": outcomes.get("failed", 0.0),
        "told_to_wait": told.count,
        "told_within_300_ms_percent": told.within(TOLD_BAR_S),
        "told_p99_at_most_ms": told.quantile_at_most_ms(0.99),
        "taken_within_1_s_percent": taken.within(TAKEN_BAR_S),
        "taken_p50_at_most_ms": taken.quantile_at_most_ms(0.5),
        "taken_p99_at_most_ms": taken.quantile_at_most_ms(0.99),
    }
