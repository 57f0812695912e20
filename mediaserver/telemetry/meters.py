"""Counters and histograms as plain numbers: cheap to add to, bounded by the schema, without a lock or a clock.

`Meters` belong to one event loop. `WorkerMeters` are those of a call worker, which has no listener: it hands over what it
has counted since the last time as bytes, and the edge adds them to its own (`mediaserver.telemetry.deltas`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from mediaserver.telemetry.metric_kinds import OTHER, CounterMetric, HistogramMetric, Label, Metric

MAX_NAME_CHARACTERS = 100
"""Of a name that a configuration chooses; more is cut."""

Values = tuple[str, ...]
"""A series of a metric: one value for each of its labels."""


@dataclass(slots=True)
class Distribution:
    """Observations of one series: how many in each bucket (the last is open), and their sum (None: nobody knows)."""

    counts: list[int]
    sum: float | None = 0.0

    @classmethod
    def empty(cls, metric: HistogramMetric) -> Distribution:
        """With no observation yet."""
        return cls([0] * (len(metric.buckets) + 1))

    def copy(self) -> Distribution:
        """One of its own."""
        return Distribution(list(self.counts), self.sum)

    def add(self, other: Distribution) -> None:
        """Take in another's observations, of the same metric."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.sum = None if self.sum is None or other.sum is None else self.sum + other.sum


class NameBook:
    """The names that open labels have had; past a label's limit a new one is ``other``."""

    def __init__(self) -> None:
        self._names: dict[Label, set[str]] = {}

    def fit(self, metric: Metric, values: Values) -> Values:
        """The values as they are exposed. Raises `ValueError` when there are not as many as labels."""
        return tuple(self._fit(label, value) for label, value in zip(metric.labels, values, strict=True))

    def _fit(self, label: Label, value: str) -> str:
        if label.values:
            return value if value in label.values else OTHER
        name = "".join(each if each.isprintable() else "?" for each in value[:MAX_NAME_CHARACTERS]) or OTHER
        known = self._names.setdefault(label, set())
        if name not in known:
            if len(known) >= label.limit:
                return OTHER
            known.add(name)
        return name


class Meters:
    """What one process has counted."""

    def __init__(self) -> None:
        self.names = NameBook()
        self._counters: dict[tuple[CounterMetric, Values], float] = {}
        self._histograms: dict[tuple[HistogramMetric, Values], Distribution] = {}

    def inc(self, metric: CounterMetric, *values: str, by: float = 1.0) -> None:
        """Add to a counter; ``by`` is not negative. A value that a label does not have counts as ``other``."""
        if not 0.0 <= by < math.inf:
            return
        series = (metric, values)
        if series not in self._counters:
            series = (metric, self.names.fit(metric, values))
        self._counters[series] = self._counters.get(series, 0.0) + by

    def observe(self, metric: HistogramMetric, value: float, *values: str) -> None:
        """Count an observation; below 0 (a clock's resolution) it is 0, and what is no number is none."""
        if not value < math.inf:
            return
        distribution = self._distribution(metric, values)
        value = max(0.0, value)
        distribution.counts[bisect_left(metric.buckets, value)] += 1
        if distribution.sum is not None:
            distribution.sum += value

    def merge(self, metric: HistogramMetric, values: Values, distribution: Distribution) -> None:
        """Take in a whole distribution, as a worker reports it."""
        self._distribution(metric, values).add(distribution)

    def _distribution(self, metric: HistogramMetric, values: Values) -> Distribution:
        distribution = self._histograms.get((metric, values))
        if distribution is None:
            fitted = (metric, self.names.fit(metric, values))
            distribution = self._histograms.get(fitted)
            if distribution is None:
                distribution = self._histograms[fitted] = Distribution.empty(metric)
        return distribution

    def value(self, metric: CounterMetric, *values: str) -> float:
        """What a counter stands at."""
        return self._counters.get((metric, values), 0.0)

    def count(self, metric: HistogramMetric, *values: str) -> int:
        """How many observations a series has."""
        distribution = self._histograms.get((metric, values))
        return sum(distribution.counts) if distribution is not None else 0

    def counters(self) -> Iterator[tuple[CounterMetric, Values, float]]:
        """Every counter that was ever added to."""
        for (metric, values), value in self._counters.items():
            yield metric, values, value

    def histograms(self) -> Iterator[tuple[HistogramMetric, Values, Distribution]]:
        """Every histogram that was ever added to."""
        for (metric, values), distribution in self._histograms.items():
            yield metric, values, distribution

    def clear(self) -> None:
        """Count from nothing again, with the same names."""
        self._counters.clear()
        self._histograms.clear()
