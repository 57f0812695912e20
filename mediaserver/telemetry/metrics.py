"""The metrics of one node, as Prometheus reads them: its own meters, its workers' reports, and what its parts count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final

from loguru import logger
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from mediaserver.telemetry.deltas import Delta, DeltaLedger, MalformedDelta
from mediaserver.telemetry.meters import Distribution, Meters, Values
from mediaserver.telemetry.metric_kinds import CounterMetric, GaugeMetric, HistogramMetric, Metric
from mediaserver.telemetry.schema import METER_DELTAS, METERS, READINGS, SCRAPE_FAILURES
from mediaserver.telemetry.sources import Reading, Source

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"

_Series = dict[Values, float | Distribution]


class Telemetry:
    """What one node exposes. Belongs to the event loop; `Snapshot.expose` alone may run elsewhere."""

    def __init__(self) -> None:
        self.meters = Meters()
        """Of this process; calls that run in it count here."""
        self.registry = CollectorRegistry()
        self._ledger = DeltaLedger()
        self._sources: list[Source] = []
        self.registry.register(_NodeCollector(self))
        # CPU, memory and descriptors of this process, under the names that every exporter gives them.
        ProcessCollector(registry=self.registry)

    def add_source(self, source: Source) -> None:
        """Ask this part of the node too when metrics are asked for."""
        self._sources.append(source)

    def add_delta(self, data: bytes) -> None:
        """Add a worker's report (`WorkerMeters.take_delta`), once; what is no report is counted and changes nothing else."""
        if not data:
            return
        try:
            delta = Delta.parse(data)
        except MalformedDelta:
            self.meters.inc(METER_DELTAS, "malformed")
            return
        if self._ledger.accept(delta.worker, delta.number):
            delta.add_to(self.meters)
            self.meters.inc(METER_DELTAS, "added")
        else:
            self.meters.inc(METER_DELTAS, "duplicate")

    def snapshot(self) -> Snapshot:
        """Everything as it stands now."""
        return Snapshot(tuple(self.registry.collect()))

    def families(self) -> Iterator[Family]:
        """The node's metrics, each with all its series."""
        series: dict[Metric, _Series] = {}
        for reading in self._readings():
            values = self.meters.names.fit(reading.metric, reading.values)
            _add(series.setdefault(reading.metric, {}), values, reading.value)
        # After the readings, whose failures it counts.
        for metric, values, value in self.meters.counters():
            _add(series.setdefault(metric, {}), values, value)
        for histogram, values, distribution in self.meters.histograms():
            _add(series.setdefault(histogram, {}), values, distribution.copy())
        for each in (*METERS, *READINGS):
            yield _family(each, series.get(each, {}))

    def _readings(self) -> Iterable[Reading]:
        readings: list[Reading] = []
        for source in self._sources:
            try:
                readings += source()
            except Exception as error:  # noqa: BLE001 - the other parts' metrics matter most when one is broken
                self.meters.inc(SCRAPE_FAILURES)
                logger.opt(exception=error).warning("a part of the node could not be read for its metrics")
        return readings


class Snapshot(Collector):
    """The metrics of a moment, which no thread changes any more."""

    def __init__(self, families: tuple[Family, ...]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type: OpenMetrics where ``accept`` asks for it, else the classic format."""
        # Not the header itself: the library fails on versions that are none, and all our names are plain in any of them.
        encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS.partition(";")[0] in accept else "")
        return encode(self), content_type


class _NodeCollector(Collector):
    """Lets the registry ask the node."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterable[Family]:
        return self._telemetry.families()

    def describe(self) -> Iterable[Family]:
        """Without a reading: the registry asks for the names at once."""
        return [_family(metric, {}) for metric in (*METERS, *READINGS)]


def _add(series: _Series, values: Values, value: float | Distribution) -> None:
    """Put a value to those of the same series: several names may have become ``other``."""
    before = series.get(values)
    if isinstance(value, Distribution):
        if isinstance(before, Distribution):
            before.add(value)
        else:
            series[values] = value.copy()
    else:
        series[values] = value + (before if isinstance(before, int | float) else 0.0)


def _family(metric: Metric, series: _Series) -> Family:
    labels = [label.name for label in metric.labels]
    match metric:
        case GaugeMetric():
            gauge = GaugeMetricFamily(metric.name, metric.help, labels=labels)
            for values, value in series.items():
                if isinstance(value, int | float):
                    gauge.add_metric(values, value)
            return gauge
        case CounterMetric():
            counter = CounterMetricFamily(metric.name, metric.help, labels=labels)
            # A series that appears with its first event has no increase to be seen: those that can be named are there.
            for values, value in {**dict.fromkeys(_closed(metric), 0.0), **series}.items():
                if isinstance(value, int | float):
                    counter.add_metric(values, value)
            return counter
        case HistogramMetric():
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
            for values, value in series.items():
                if isinstance(value, Distribution):
                    histogram.add_metric(values, _buckets(metric, value), value.sum)
            return histogram


def _closed(metric: CounterMetric) -> Iterator[Values]:
    """Every series of a metric whose labels all have closed lists."""
    if all(label.values for label in metric.labels):
        yield from product(*(label.values for label in metric.labels))


def _buckets(metric: HistogramMetric, distribution: Distribution) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*metric.buckets, float("inf")), distribution.counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), total))
    return buckets
