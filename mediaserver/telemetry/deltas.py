"""From a worker's counters to the edge's: reports that add up whatever is lost, repeated, late or garbage.

A report holds what was counted since the last one, the worker that counted (its pid and when it started, since pids come
back) and a number. The edge adds each report at most once, so that no counter goes down and none counts twice: what a
worker had not reported when it was killed is lost, and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import orjson

from mediaserver.telemetry.meters import Distribution, Meters, Values
from mediaserver.telemetry.metric_kinds import CounterMetric, HistogramMetric
from mediaserver.telemetry.schema import METERS

MAX_DELTA_BYTES: Final = 1 << 20
"""More than every series of the schema takes."""
WINDOW: Final = 256
"""Reports of one worker may overtake each other by so many; what is older was added or is lost."""
MAX_WORKERS_KNOWN: Final = 1024
"""Workers, past ones too, whose reports are told apart from repeated ones."""
MAX_AMOUNT: Final = 1e15
"""Of anything between two reports: no sum of a real node's comes near, and every whole number up to here is exact."""

WORKER_METERS: Final = MappingProxyType({metric.name: metric for metric in METERS})

WorkerName = tuple[int, int]
"""Its pid and the nanosecond of its start."""


class MalformedDelta(ValueError):  # noqa: N818 - says what was received
    """A report that cannot be read; nothing of it was added."""


class WorkerMeters(Meters):
    """What a call worker has counted since it last told the edge."""

    def __init__(self, pid: int, started_ns: int) -> None:
        super().__init__()
        self._worker = (pid, started_ns)
        self._number = 0

    def take_delta(self) -> bytes:
        """What was counted since the last call, for `Telemetry.add_delta`; empty when nothing was. A lost one is not repeated."""
        counters = [(metric.name, values, value) for metric, values, value in self.counters()]
        histograms = [
            (metric.name, values, distribution.counts, distribution.sum)
            for metric, values, distribution in self.histograms()
        ]
        if not counters and not histograms:
            return b""
        self._number += 1
        delta = orjson.dumps(
            {"worker": self._worker, "number": self._number, "counters": counters, "histograms": histograms}
        )
        self.clear()
        return delta


@dataclass(frozen=True, slots=True)
class Delta:
    """A report that was read and fits the schema."""

    worker: WorkerName
    number: int
    counters: tuple[tuple[CounterMetric, Values, float], ...]
    histograms: tuple[tuple[HistogramMetric, Values, Distribution], ...]

    @classmethod
    def parse(cls, data: bytes) -> Delta:
        """Read a report, whole or not at all. Raises `MalformedDelta`."""
        if len(data) > MAX_DELTA_BYTES:
            raise MalformedDelta(f"{len(data)} bytes")
        try:
            document = orjson.loads(data)
            pid, started_ns = document["worker"]
            return cls(
                (_whole(pid), _whole(started_ns)),
                _whole(document["number"]),
                tuple(_counter(*entry) for entry in document["counters"]),
                tuple(_histogram(*entry) for entry in document["histograms"]),
            )
        except (ValueError, TypeError, KeyError) as error:
            raise MalformedDelta(str(error)) from error

    def add_to(self, meters: Meters) -> None:
        """Count what the worker has counted."""
        for metric, values, amount in self.counters:
            meters.inc(metric, *values, by=amount)
        for histogram, values, distribution in self.histograms:
            meters.merge(histogram, values, distribution)


def _counter(name: object, values: object, amount: object) -> tuple[CounterMetric, Values, float]:
    metric = WORKER_METERS.get(str(name))
    if not isinstance(metric, CounterMetric):
        raise MalformedDelta("no counter of that name")
    return metric, _values(metric, values), _amount(amount)


def _histogram(
    name: object, values: object, counts: object, total: object
) -> tuple[HistogramMetric, Values, Distribution]:
    metric = WORKER_METERS.get(str(name))
    if not isinstance(metric, HistogramMetric):
        raise MalformedDelta("no histogram of that name")
    if not isinstance(counts, list) or len(counts) != len(metric.buckets) + 1:
        raise MalformedDelta("not one count for each bucket")
    return metric, _values(metric, values), Distribution([_count(each) for each in counts], _amount(total))


def _values(metric: CounterMetric | HistogramMetric, values: object) -> Values:
    if not isinstance(values, list) or len(values) != len(metric.labels):
        raise MalformedDelta("not one value for each label")
    if not all(isinstance(value, str) for value in values):
        raise MalformedDelta("a label's value that is no text")
    return tuple(values)


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MalformedDelta("an amount that is no number")
    if not 0 <= value <= MAX_AMOUNT:
        raise MalformedDelta("an amount out of range")
    return float(value)


def _count(value: object) -> int:
    if _whole(value) > MAX_AMOUNT:
        raise MalformedDelta("a count out of range")
    return _whole(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise MalformedDelta("no whole number")
    return value


@dataclass(slots=True)
class _Window:
    """Which reports of one worker have come: all up to ``newest`` that ``seen`` has a bit for, and none above."""

    newest: int = 0
    seen: int = 0

    def accept(self, number: int) -> bool:
        if number > self.newest:
            self.seen = (self.seen << min(number - self.newest, WINDOW) | 1) & ((1 << WINDOW) - 1)
            self.newest = number
            return True
        age = self.newest - number
        if age >= WINDOW or self.seen >> age & 1:
            return False
        self.seen |= 1 << age
        return True


@dataclass(slots=True)
class DeltaLedger:
    """Tells a report that is new from one that was added."""

    _windows: dict[WorkerName, _Window] = field(default_factory=dict)

    def accept(self, worker: WorkerName, number: int) -> bool:
        """Whether to add the report; True once for each, and never for one that came after `WINDOW` newer ones."""
        window = self._windows.pop(worker, None) or _Window()
        self._windows[worker] = window  # The last one heard of is the last to be forgotten.
        if len(self._windows) > MAX_WORKERS_KNOWN:
            del self._windows[next(iter(self._windows))]
        return window.accept(number)
