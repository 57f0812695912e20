"""Counters that other parts of a process keep for themselves, brought into its meters, so that they cross to the edge.

At the edge a part's counters can be read when metrics are asked for (`Telemetry.add_source`). In a worker nobody asks: what
they have grown by since the last time goes into its `WorkerMeters`, and with the next report over the media link.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from mediaserver.telemetry import schema
from mediaserver.telemetry.meters import Distribution, Meters, Values
from mediaserver.telemetry.metric_kinds import CounterMetric, HistogramMetric
from mediaserver.telemetry.sources import Reading


class Absorber:
    """Remembers what each series stood at, and adds what it has grown by."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._counters: dict[tuple[CounterMetric, Values], float] = {}
        self._histograms: dict[tuple[HistogramMetric, Values], Distribution] = {}

    def absorb(self, readings: Iterable[Reading]) -> None:
        """Take in counters as they stand now; one that has fallen began anew. Levels are nobody's to add up."""
        for reading in readings:
            metric, value = reading.metric, reading.value
            if isinstance(metric, CounterMetric) and isinstance(value, int | float):
                series = (metric, reading.values)
                before = self._counters.get(series, 0.0)
                self._meters.inc(metric, *reading.values, by=value - before if value >= before else value)
                self._counters[series] = value
            elif isinstance(metric, HistogramMetric) and isinstance(value, Distribution):
                self._absorb_histogram(metric, reading.values, value)

    def _absorb_histogram(self, metric: HistogramMetric, values: Values, value: Distribution) -> None:
        before = self._histograms.get((metric, values)) or Distribution.empty(metric)
        counts = [now - then for now, then in zip(value.counts, before.counts, strict=True)]
        grown = Distribution(counts, max(0.0, (value.sum or 0.0) - (before.sum or 0.0)))
        if min(counts) < 0:
            grown = value.copy()
        self._histograms[metric, values] = value.copy()
        if any(grown.counts):
            self._meters.merge(metric, values, grown)


class Latencies(Protocol):
    """Times to a first piece: how many in each bucket of `PROVIDER_FIRST_BYTE_SECONDS`, and their sum."""

    @property
    def counts(self) -> tuple[int, ...]: ...
    @property
    def sum_ms(self) -> int: ...


class ProviderFigures(Protocol):
    """What is counted of one provider in one stage."""

    @property
    def answered(self) -> int: ...
    @property
    def abandoned(self) -> int: ...
    @property
    def skipped(self) -> int: ...
    @property
    def hedges_started(self) -> int: ...
    @property
    def hedges_won(self) -> int: ...
    @property
    def failures(self) -> Mapping[Any, int]: ...
    @property
    def first_ms(self) -> Latencies: ...


class ProviderCounts(Protocol):
    """What a process counts of all providers; stages, states and causes are texts."""

    @property
    def providers(self) -> Mapping[Any, ProviderFigures]: ...
    @property
    def breaker_changes(self) -> Mapping[Any, int]: ...
    @property
    def connections_warmed(self) -> int: ...
    @property
    def warmings_failed(self) -> int: ...
    @property
    def warmings_spared(self) -> int: ...
    @property
    def dead_connections_retried(self) -> int: ...


def provider_readings(counts: ProviderCounts) -> Iterator[Reading]:
    """The counters of the providers."""
    for (stage, provider), figures in counts.providers.items():
        where = (str(stage), provider)
        for result in ("answered", "abandoned", "skipped"):
            yield Reading(schema.PROVIDER_REQUESTS, getattr(figures, result), (*where, result))
        yield Reading(schema.PROVIDER_HEDGES, figures.hedges_started, (*where, "started"))
        yield Reading(schema.PROVIDER_HEDGES, figures.hedges_won, (*where, "won"))
        for cause, count in figures.failures.items():
            yield Reading(schema.PROVIDER_ERRORS, count, (*where, str(cause)))
        first = figures.first_ms
        yield Reading(
            schema.PROVIDER_FIRST_BYTE_SECONDS, Distribution(list(first.counts), first.sum_ms / 1000), where
        )
    for (stage, state), count in counts.breaker_changes.items():
        yield Reading(schema.BREAKER_CHANGES, count, (str(stage), str(state)))
    for event, count in (
        ("warmed", counts.connections_warmed),
        ("warming_failed", counts.warmings_failed),
        ("warming_spared", counts.warmings_spared),
        ("dead_retried", counts.dead_connections_retried),
    ):
        yield Reading(schema.PROVIDER_CONNECTIONS, count, (event,))
