"""What ``/metrics`` says: readable by Prometheus's own parsers, bounded, complete, and of nobody in particular."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from admission import AdmissionGate
from mediaserver.telemetry import metric_kinds, schema
from mediaserver.telemetry.metrics import Telemetry
from mediaserver.telemetry.sources import (
    LATENESS_BUCKETS,
    WorkerHealth,
    engine_readings,
    gate_readings,
    sip_readings,
    worker_readings,
)

EVERYTHING = (*schema.METERS, *schema.READINGS)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
MAX_SERIES = 12_000
"""Lines of a node whose every label has had every value that it can have."""


def _families(telemetry: Telemetry, accept: str = "") -> dict[str, Family]:
    body, content_type = telemetry.snapshot().expose(accept)
    parse = parse_openmetrics if content_type.startswith("application/openmetrics-text") else parse_classic
    return {family.name: family for family in parse(body.decode())}


def _value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    return next(
        (
            sample.value
            for family in _families(telemetry).values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ),
        None,
    )


def _filled(seed: int) -> Telemetry:
    """Every metric with many values of every label, most of them not its own."""
    draw = random.Random(seed)
    telemetry = Telemetry()
    for metric in schema.METERS:
        for _ in range(400):
            values = [draw.choice((*label.values, f'"\\\n{draw.random()}')) for label in metric.labels]
            if isinstance(metric, metric_kinds.CounterMetric):
                telemetry.meters.inc(metric, *values, by=draw.randrange(9))
            else:
                telemetry.meters.observe(metric, draw.uniform(0, 20), *values)
    telemetry.add_source(lambda: engine_readings({f"dropped_{number}": number for number in range(1000)}))
    telemetry.add_source(lambda: sip_readings({f"odd_{number}": number for number in range(1000)}))
    telemetry.add_source(lambda: worker_readings(WorkerHealth(place, True, 3) for place in range(1000)))
    return telemetry


@pytest.mark.parametrize(
    "accept",
    ["", OPENMETRICS, "text/plain;version=0.0.4", "application/openmetrics-text; version=x", "*/*;q="],
)
@pytest.mark.parametrize("telemetry", [Telemetry(), _filled(1)], ids=["fresh", "filled"])
def test_prometheus_can_read_it(telemetry: Telemetry, accept: str) -> None:
    families = _families(telemetry, accept)
    names = {metric.name for metric in EVERYTHING}
    for family in families.values():
        if family.name.startswith("receptionist_"):
            assert {family.name, f"{family.name}_total"} & names, family.name
    assert {name.removesuffix("_total") for name in names} <= {
        name.removesuffix("_total") for name in families
    }
    assert "process_cpu_seconds" in {name.removesuffix("_total") for name in families}


def test_names_follow_the_conventions() -> None:
    assert len({metric.name for metric in EVERYTHING}) == len(EVERYTHING)
    for metric in EVERYTHING:
        assert re.fullmatch(r"receptionist_[a-z][a-z0-9_]*", metric.name)
        assert metric.name.endswith("_total") == isinstance(metric, metric_kinds.CounterMetric)
        assert metric.help.endswith(".") or metric.help[-1].isalnum()
        for label in metric.labels:
            assert re.fullmatch(r"[a-z]+", label.name)
            assert (label.limit > 0) != bool(label.values)
            assert metric_kinds.OTHER not in label.values
            assert label.name not in ("tenant", "call", "caller", "number")
        if isinstance(metric, metric_kinds.HistogramMetric):
            assert list(metric.buckets) == sorted(set(metric.buckets))
            assert metric.name.endswith(("_seconds", "_ratio", "_mos", "_dollars"))


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1 << 30))
def test_the_number_of_series_follows_from_the_schema(seed: int) -> None:
    telemetry = _filled(seed)
    bounds = {}
    for metric in EVERYTHING:
        series = 1
        for label in metric.labels:
            series *= label.size
        lines = len(metric.buckets) + 3 if isinstance(metric, metric_kinds.HistogramMetric) else 1
        bounds[metric.name.removesuffix("_total")] = series * lines
    for family in _families(telemetry).values():
        if family.name.startswith("receptionist_"):
            assert len(family.samples) <= bounds[family.name.removesuffix("_total")], family.name
    assert sum(bounds.values()) <= MAX_SERIES


def test_counters_that_can_be_named_are_there_before_they_count() -> None:
    telemetry = Telemetry()
    assert _value(telemetry, "receptionist_calls_total", outcome="pipeline_failed") == 0
    assert _value(telemetry, "receptionist_calls_refused_total", reason="slots") == 0
    assert _value(telemetry, "receptionist_worker_restarts_total", cause="stuck") == 0


def test_a_histogram_is_cumulative_and_has_its_sum() -> None:
    telemetry = Telemetry()
    for value in (0.04, 0.04, 0.3, 60.0):
        telemetry.meters.observe(schema.TURN_SECONDS, value, "total")
    name = "receptionist_turn_latency_seconds"
    assert _value(telemetry, f"{name}_bucket", stage="total", le="0.05") == 2
    assert _value(telemetry, f"{name}_bucket", stage="total", le="0.3") == 3
    assert _value(telemetry, f"{name}_bucket", stage="total", le="10.0") == 3
    assert _value(telemetry, f"{name}_bucket", stage="total", le="+Inf") == 4
    assert _value(telemetry, f"{name}_count", stage="total") == 4
    assert _value(telemetry, f"{name}_sum", stage="total") == pytest.approx(60.38)


def test_the_engines_counters_are_read_anew_each_time() -> None:
    stats = {
        "received": 100,
        "sent": 90,
        "rtcp_received": 3,
        "dropped_truncated": 2,
        "dropped_srtp_authentication": 4,
        "ended_legs_too_fast": 5,
        "dropped_audio_events": 6,
        "dropped_link_other_events": 7,
        "refused_chunks": 8,
        "clock_resyncs": 9,
        "something_new": 10,
        "streams": 11,
        "ticks": 12,
        "tick_lateness_max_us": 1500,
        **dict.fromkeys(LATENESS_BUCKETS, 2),
        "tick_lateness_more": 1,
    }
    telemetry = Telemetry()
    telemetry.add_source(lambda: engine_readings(stats))
    for _ in range(2):
        assert _value(telemetry, "receptionist_media_packets_total", direction="received") == 100
        assert _value(telemetry, "receptionist_media_rtcp_packets_total", direction="received") == 3
        dropped = "receptionist_media_packets_dropped_total"
        assert _value(telemetry, dropped, cause="truncated") == 2
        assert _value(telemetry, dropped, cause="srtp_authentication") == 4
        assert _value(telemetry, dropped, cause="too_fast") == 5
        assert _value(telemetry, "receptionist_queue_drops_total", queue="engine_audio_events") == 6
        assert _value(telemetry, "receptionist_queue_drops_total", queue="link_other_events") == 7
        assert _value(telemetry, "receptionist_media_refused_total", what="chunks") == 8
        assert _value(telemetry, "receptionist_media_engine_events_total", event="clock_resyncs") == 9
        assert _value(telemetry, "receptionist_media_engine_events_total", event="something_new") == 10
        assert _value(telemetry, "receptionist_media_streams") == 11
        assert _value(telemetry, "receptionist_media_tick_lateness_max_seconds") == 0.0015
        lateness = "receptionist_media_tick_lateness_seconds_bucket"
        assert _value(telemetry, lateness, le="0.00025") == 2
        assert _value(telemetry, lateness, le="+Inf") == 13


def test_the_gates_refusals_stand_beside_the_others() -> None:
    gate = AdmissionGate(slots=1)
    telemetry = Telemetry()
    telemetry.add_source(lambda: gate_readings(gate.snapshot()))
    telemetry.meters.inc(schema.CALLS_REFUSED, "draining")
    for tenant in ("a", "b"):
        gate.request(tenant, 1, 0)
    assert _value(telemetry, "receptionist_calls_refused_total", reason="slots") == 1
    assert _value(telemetry, "receptionist_calls_refused_total", reason="draining") == 1
    assert _value(telemetry, "receptionist_call_slots_taken") == 1


def test_a_part_that_cannot_be_read_hides_no_other() -> None:
    telemetry = Telemetry()

    def broken() -> list[object]:
        raise RuntimeError("the part is gone")

    telemetry.add_source(broken)  # type: ignore[arg-type]
    telemetry.add_source(lambda: sip_readings({"connections": 4}))
    assert _value(telemetry, "receptionist_sip_open", kind="connections") == 4
    assert telemetry.meters.value(schema.SCRAPE_FAILURES) == 1


def test_two_nodes_of_one_process_share_nothing() -> None:
    one, other = Telemetry(), Telemetry()
    one.meters.inc(schema.CALLS, "cancelled")
    assert _value(other, "receptionist_calls_total", outcome="cancelled") == 0
