"""What a metric is: a counter, a level or observations, with labels whose values are bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OTHER: Final = "other"
"""Stands for every value that a label does not have."""


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """One label. ``values``: all that it may say beside ``other``; empty: any ``limit`` names.

    Metrics that have the very same label have its names in common.
    """

    name: str
    values: tuple[str, ...] = ()
    limit: int = 0

    @property
    def size(self) -> int:
        """The most values that it can have, ``other`` among them."""
        return (len(self.values) or self.limit) + 1


@dataclass(frozen=True, slots=True, eq=False)
class CounterMetric:
    """Only ever goes up; the name ends in ``_total``. Each metric exists once, and is looked up as itself."""

    name: str
    help: str
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class GaugeMetric:
    """A level, read when it is asked for."""

    name: str
    help: str
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class HistogramMetric:
    """Observations counted by upper bound; what is above the last has a bucket of its own."""

    name: str
    help: str
    buckets: tuple[float, ...]
    labels: tuple[Label, ...] = ()


Metric = CounterMetric | GaugeMetric | HistogramMetric
