"""Meters and workers' reports: what is counted, bounded, and adds up whatever is lost, repeated, late or garbage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.telemetry import metric_kinds, schema
from mediaserver.telemetry.absorbing import Absorber, provider_readings
from mediaserver.telemetry.deltas import (
    MAX_WORKERS_KNOWN,
    WINDOW,
    Delta,
    DeltaLedger,
    MalformedDelta,
    WorkerMeters,
)
from mediaserver.telemetry.meters import Distribution, Meters
from mediaserver.telemetry.metrics import Telemetry
from mediaserver.telemetry.sources import Reading

COUNTERS = tuple(metric for metric in schema.METERS if isinstance(metric, metric_kinds.CounterMetric))
HISTOGRAMS = tuple(metric for metric in schema.METERS if isinstance(metric, metric_kinds.HistogramMetric))


def test_an_observation_is_in_the_bucket_of_its_upper_bound() -> None:
    meters = Meters()
    for value in (0.25, 0.2500001, 99.0, -1.0, float("nan"), float("inf"), -float("inf")):
        meters.observe(schema.TURN_SECONDS, value, "total")
    ((_, values, distribution),) = meters.histograms()
    assert values == ("total",)
    bounds = schema.TURN_SECONDS.buckets
    assert distribution.counts[bounds.index(0.25)] == 1
    assert distribution.counts[bounds.index(0.3)] == 1
    assert distribution.counts[0] == 2  # What is below zero is zero.
    assert distribution.counts[-1] == 1
    assert distribution.sum == pytest.approx(0.25 + 0.2500001 + 99.0)


def test_a_counter_takes_no_step_back() -> None:
    meters = Meters()
    for by in (2.0, -1.0, float("nan"), float("inf")):
        meters.inc(schema.CALLS, "cancelled", by=by)
    assert meters.value(schema.CALLS, "cancelled") == 2


def test_what_a_label_does_not_say_is_other() -> None:
    meters = Meters()
    meters.inc(schema.CALLS, "struck by lightning")
    meters.inc(schema.CALLS, "struck by lightning")
    assert meters.value(schema.CALLS, "other") == 2
    with pytest.raises(ValueError, match="zip"):
        meters.inc(schema.CALLS)


@given(st.lists(st.text(max_size=200), max_size=200))
def test_names_are_bounded_in_number_and_length(names: list[str]) -> None:
    meters = Meters()
    for name in names:
        meters.inc(schema.PROVIDER_ERRORS, "llm", name, "timeout")
    seen = [values for _, values, _ in meters.counters()]
    assert len(seen) <= schema.MAX_PROVIDERS + 1
    assert all(len(value) <= 100 and value.isprintable() for _, value, _ in seen)
    assert sum(value for _, _, value in meters.counters()) == len(names)


def test_a_report_is_what_was_counted_since_the_last() -> None:
    worker, edge = WorkerMeters(7, 1), Telemetry()
    assert worker.take_delta() == b""
    worker.inc(schema.BARGE_INS, "let_pass")
    worker.observe(schema.TAKEOVER_SECONDS, 0.4)
    edge.add_delta(worker.take_delta())
    worker.inc(schema.BARGE_INS, "let_pass", by=2)
    edge.add_delta(worker.take_delta())
    edge.add_delta(worker.take_delta())
    assert edge.meters.value(schema.BARGE_INS, "let_pass") == 3
    assert edge.meters.count(schema.TAKEOVER_SECONDS) == 1
    assert edge.meters.value(schema.METER_DELTAS, "added") == 2


@dataclass
class Mesh:
    """Workers that count, whose reports arrive, arrive twice, late, or never; any of them may be replaced, with the same pid."""

    workers: list[WorkerMeters] = field(default_factory=list)
    on_their_way: list[bytes] = field(default_factory=list)
    starts: Iterator[int] = field(default_factory=lambda: iter(range(1, 10_000)))

    def start(self, place: int) -> None:
        self.workers[place] = WorkerMeters(pid=place % 2, started_ns=next(self.starts))


STEPS = st.one_of(
    st.tuples(st.just("count"), st.integers(0, 3), st.sampled_from(COUNTERS), st.integers(0, 1000)),
    st.tuples(st.just("observe"), st.integers(0, 3), st.sampled_from(HISTOGRAMS), st.integers(0, 20)),
    st.tuples(st.just("report"), st.integers(0, 3)),
    st.tuples(st.just("deliver"), st.integers(0, 30)),
    st.tuples(st.just("repeat"), st.integers(0, 30)),
    st.tuples(st.just("lose"), st.integers(0, 30)),
    st.tuples(st.just("replace"), st.integers(0, 3)),
    st.tuples(st.just("garbage"), st.binary(max_size=50)),
)


def _labels(metric: metric_kinds.CounterMetric | metric_kinds.HistogramMetric) -> list[str]:
    return [label.values[0] if label.values else "acme" for label in metric.labels]


def _totals(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """Every series that the workers' reports can change, bucket by bucket."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in telemetry.families()
        for sample in family.samples
        if family.type != "gauge" and not family.name.startswith("receptionist_worker_meter_deltas")
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_counters_only_rise_and_add_up_to_the_reports_that_arrived(steps: list[tuple[object, ...]]) -> None:
    mesh, edge = Mesh(workers=[WorkerMeters(0, 0)] * 4), Telemetry()
    for place in range(4):
        mesh.start(place)
    arrived: list[bytes] = []
    before = _totals(edge)
    for step in steps:
        match step:
            case ("count", int(place), metric_kinds.CounterMetric() as metric, int(amount)):
                mesh.workers[place].inc(metric, *_labels(metric), by=amount)
            case ("observe", int(place), metric_kinds.HistogramMetric() as metric, int(amount)):
                mesh.workers[place].observe(metric, amount, *_labels(metric))
            case ("report", int(place)):
                if delta := mesh.workers[place].take_delta():
                    mesh.on_their_way.append(delta)
            case ("deliver", int(which)) if mesh.on_their_way:
                arrived.append(mesh.on_their_way.pop(which % len(mesh.on_their_way)))
                edge.add_delta(arrived[-1])
            case ("repeat", int(which)) if arrived:
                edge.add_delta(arrived[which % len(arrived)])
            case ("lose", int(which)) if mesh.on_their_way:
                mesh.on_their_way.pop(which % len(mesh.on_their_way))
            case ("replace", int(place)):
                mesh.start(place)
            case ("garbage", bytes(data)):
                edge.add_delta(data)
            case _:
                pass
        now = _totals(edge)
        assert all(now[series] >= value for series, value in before.items())
        before = now
    counted: Counter[str] = Counter()
    observed: Counter[str] = Counter()
    for delta in map(orjson.loads, arrived):
        for name, _, amount in delta["counters"]:
            counted[name] += amount
        for name, _, counts, _ in delta["histograms"]:
            observed[name] += sum(counts)
    for metric in COUNTERS:
        if metric is not schema.METER_DELTAS:
            assert edge.meters.value(metric, *_labels(metric)) == counted[metric.name]
    for histogram in HISTOGRAMS:
        assert edge.meters.count(histogram, *_labels(histogram)) == observed[histogram.name]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
NAMES = st.sampled_from([metric.name for metric in schema.METERS]) | st.text(max_size=20)


@settings(deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        JSON.map(orjson.dumps),
        st.fixed_dictionaries(
            {
                "worker": st.tuples(st.integers(0, 9), st.integers(0, 9)) | JSON,
                "number": st.integers(1, 99) | JSON,
                "counters": st.lists(st.tuples(NAMES, JSON, JSON), max_size=3) | JSON,
                "histograms": st.lists(st.tuples(NAMES, JSON, JSON, JSON), max_size=3) | JSON,
            }
        ).map(orjson.dumps),
    )
)
def test_garbage_changes_nothing(data: bytes) -> None:
    edge = Telemetry()
    before = _totals(edge)
    edge.add_delta(data)
    try:
        delta = Delta.parse(data)
    except MalformedDelta:
        assert _totals(edge) == before
        assert edge.meters.value(schema.METER_DELTAS, "malformed") == bool(data)
    else:
        assert all(amount >= 0 for _, _, amount in delta.counters)


@pytest.mark.parametrize(
    ("field_name", "value"),
    [
        ("worker", [1]),
        ("worker", [True, 1]),
        ("number", -1),
        ("number", "1"),
        ("counters", [["receptionist_calls_total", ["cancelled"], -1]]),
        ("counters", [["receptionist_calls_total", ["cancelled"], True]]),
        ("counters", [["receptionist_calls_total", ["cancelled"], 1e16]]),
        ("counters", [["receptionist_calls_total", [], 1]]),
        ("counters", [["receptionist_calls_total", "cancelled", 1]]),
        ("counters", [["receptionist_calls_total", [1], 1]]),
        ("counters", [["receptionist_calls_total", ["cancelled"]]]),
        ("counters", [["receptionist_calls_active", [], 1]]),
        ("counters", [["receptionist_worker_takeover_seconds", [], 1]]),
        ("histograms", [["receptionist_worker_takeover_seconds", [], [1], 1]]),
        ("histograms", [["receptionist_worker_takeover_seconds", [], [0.5] * 10, 1]]),
        ("histograms", [["receptionist_worker_takeover_seconds", [], [1 << 62] * 10, 1]]),
    ],
)
def test_a_report_with_one_wrong_entry_is_added_nowhere(field_name: str, value: object) -> None:
    good: dict[str, object] = {
        "worker": [1, 2],
        "number": 1,
        "counters": [["receptionist_calls_total", ["cancelled"], 1]],
        "histograms": [["receptionist_worker_takeover_seconds", [], [1] * 10, 1]],
    }
    edge = Telemetry()
    edge.add_delta(orjson.dumps({**good, field_name: value}))
    assert edge.meters.value(schema.CALLS, "cancelled") == 0
    edge.add_delta(orjson.dumps(good))
    assert edge.meters.value(schema.CALLS, "cancelled") == 1


@given(st.lists(st.integers(0, 2 * WINDOW), max_size=100))
def test_each_report_is_accepted_once_unless_it_is_too_late(numbers: list[int]) -> None:
    ledger, accepted = DeltaLedger(), set[int]()
    for number in numbers:
        newest = max(accepted, default=0)
        expected = number not in accepted and number > newest - WINDOW
        assert ledger.accept((1, 1), number) == expected
        if expected:
            accepted.add(number)


def test_workers_that_are_long_gone_are_forgotten() -> None:
    ledger = DeltaLedger()
    for pid in range(3 * MAX_WORKERS_KNOWN):
        assert ledger.accept((pid, 0), 1)
    assert len(ledger._windows) == MAX_WORKERS_KNOWN


@given(st.lists(st.integers(0, 100), max_size=30))
def test_what_a_part_counts_for_itself_is_taken_in_by_what_it_has_grown(levels: list[int]) -> None:
    meters = Meters()
    absorber = Absorber(meters)
    expected, before = 0, 0
    for level in levels:
        counts = [level] * (len(schema.TAKEOVER_SECONDS.buckets) + 1)
        absorber.absorb(
            [
                Reading(schema.CALLS, level, ("cancelled",)),
                Reading(schema.TAKEOVER_SECONDS, Distribution(counts, float(level))),
                Reading(schema.CALLS_ACTIVE, level),
            ]
        )
        expected += level - before if level >= before else level
        before = level
    assert meters.value(schema.CALLS, "cancelled") == expected
    assert meters.count(schema.TAKEOVER_SECONDS) == expected * (len(schema.TAKEOVER_SECONDS.buckets) + 1)


@dataclass(frozen=True)
class _First:
    counts: tuple[int, ...]
    sum_ms: int


@dataclass(frozen=True)
class _Figures:
    answered: int = 3
    abandoned: int = 1
    skipped: int = 0
    hedges_started: int = 2
    hedges_won: int = 1
    failures: dict[str, int] = field(default_factory=lambda: {"timeout": 4, "unheard of": 1})
    first_ms: _First = _First((1,) * 18, 900)


@dataclass(frozen=True)
class _Counts:
    providers: dict[tuple[str, str], _Figures]
    breaker_changes: dict[tuple[str, str], int]
    connections_warmed: int = 5
    warmings_failed: int = 0
    warmings_spared: int = 0
    dead_connections_retried: int = 1


def test_a_workers_providers_reach_the_edge() -> None:
    worker, edge = WorkerMeters(1, 1), Telemetry()
    absorber = Absorber(worker)
    counts = _Counts({("llm", "acme"): _Figures()}, {("llm", "open"): 1})
    absorber.absorb(provider_readings(counts))
    absorber.absorb(provider_readings(counts))
    edge.add_delta(worker.take_delta())
    meters = edge.meters
    assert meters.value(schema.PROVIDER_ERRORS, "llm", "acme", "timeout") == 4
    assert meters.value(schema.PROVIDER_ERRORS, "llm", "acme", "other") == 1
    assert meters.value(schema.PROVIDER_REQUESTS, "llm", "acme", "answered") == 3
    assert meters.value(schema.PROVIDER_HEDGES, "llm", "acme", "won") == 1
    assert meters.count(schema.PROVIDER_FIRST_BYTE_SECONDS, "llm", "acme") == 18
    assert meters.value(schema.BREAKER_CHANGES, "llm", "open") == 1
    assert meters.value(schema.PROVIDER_CONNECTIONS, "dead_retried") == 1
