"""What other parts of the node count for themselves, in the metrics' terms. Nothing is remembered between two readings.

Counters of the engine and the endpoint have names that their code gives them. Those that are known by their form become
labels of a metric about it; a new one that is not shows up under ``…_events_total``, so that none is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize
from typing import Final

from admission import GateSnapshot
from mediaserver._native import StreamQuality
from mediaserver.telemetry import metric_kinds, schema
from mediaserver.telemetry.meters import Distribution, Meters, Values

LATENESS_BUCKETS: Final = tuple(
    f"tick_lateness_le_{round(bound * 1_000_000)}_us" for bound in schema.TICK_LATENESS_SECONDS.buckets
)
LATENESS_MORE: Final = "tick_lateness_more"
LATENESS_MAX: Final = "tick_lateness_max_us"
LATENESS_SUM: Final = "tick_lateness_sum_us"
"""Of an engine that knows it."""
QUEUES: Final = {
    "dropped_audio_events": "engine_audio_events",
    "dropped_other_events": "engine_other_events",
    "dropped_link_audio_events": "link_audio_events",
    "dropped_link_other_events": "link_other_events",
}
PACKETS: Final = {
    "received": (schema.MEDIA_PACKETS, "received"),
    "sent": (schema.MEDIA_PACKETS, "sent"),
    "rtcp_received": (schema.RTCP_PACKETS, "received"),
    "rtcp_sent": (schema.RTCP_PACKETS, "sent"),
}
FORMS: Final = {
    "dropped_": schema.MEDIA_DROPS,
    "ended_legs_": schema.MEDIA_DROPS,
    "refused_": schema.MEDIA_REFUSED,
}
"""By how the name of a counter begins; the rest of it is the label."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a series stands at."""

    metric: metric_kinds.Metric
    value: float | Distribution
    values: Values = ()


Source = Callable[[], Iterable[Reading]]
"""A part of the node; asked in the event loop, and answering at once."""


def engine_readings(stats: Mapping[str, int]) -> Iterator[Reading]:
    """The media engine's counters and its links'."""
    lateness = [stats.get(name) for name in (*LATENESS_BUCKETS, LATENESS_MORE)]
    if counts := [count for count in lateness if count is not None]:
        sum_us = stats.get(LATENESS_SUM)
        total_s = None if sum_us is None else sum_us / 1_000_000
        if len(counts) == len(lateness):
            yield Reading(schema.TICK_LATENESS_SECONDS, Distribution(counts, total_s))
    for name, value in stats.items():
        if name.startswith("tick_lateness_"):
            if name == LATENESS_MAX:
                yield Reading(schema.TICK_LATENESS_MAX, value / 1_000_000)
        elif name == "streams":
            yield Reading(schema.MEDIA_STREAMS, value)
        elif (queue := QUEUES.get(name)) is not None:
            yield Reading(schema.QUEUE_DROPS, value, (queue,))
        elif name in PACKETS:
            metric, direction = PACKETS[name]
            yield Reading(metric, value, (direction,))
        else:
            yield _by_form(name, value)


def _by_form(name: str, value: int) -> Reading:
    for prefix, metric in FORMS.items():
        if name.startswith(prefix):
            return Reading(metric, value, (name.removeprefix(prefix),))
    return Reading(schema.MEDIA_EVENTS, value, (name,))


def gate_readings(gate: GateSnapshot) -> Iterator[Reading]:
    """The admission gate's counters and sizes."""
    yield Reading(schema.CALL_SLOTS, gate.slots)
    yield Reading(schema.CALL_SLOTS_TAKEN, gate.in_use)
    yield Reading(schema.CALLS_ADMITTED, gate.admitted)
    yield Reading(schema.CALLS_REFUSED, gate.refused, ("slots",))
    yield Reading(schema.CALLS_REFUSED, gate.refused_tenant_limit, ("tenant_limit",))
    yield Reading(schema.DOUBLE_RELEASES, gate.double_releases)


def sip_readings(stats: Mapping[str, int]) -> Iterator[Reading]:
    """The SIP endpoint's counters and levels."""
    (kinds,) = schema.SIP_OPEN.labels
    for name, value in stats.items():
        yield Reading(schema.SIP_OPEN if name in kinds.values else schema.SIP_EVENTS, value, (name,))


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """One worker's place, whoever is in it."""

    place: int
    """0 and up; a worker that replaces another has its place."""
    up: bool
    """Whether it takes calls."""
    calls: int
    pid: int | None = None


def worker_readings(workers: Iterable[WorkerHealth]) -> Iterator[Reading]:
    """The call workers."""
    for worker in workers:
        place = (str(worker.place),)
        yield Reading(schema.WORKER_UP, worker.up, place)
        yield Reading(schema.WORKER_CALLS, worker.calls, place)
        if worker.pid is not None and (resident := resident_bytes(worker.pid)) is not None:
            yield Reading(schema.WORKER_MEMORY, resident, place)


def resident_bytes(pid: int) -> int | None:
    """Memory of a process that is in RAM; None when it is gone, or on a system without ``/proc``."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * getpagesize()


def observe_quality(meters: Meters, quality: StreamQuality) -> None:
    """Count how good a call's media was, at its end."""
    meters.inc(schema.PACKETS_LOST, "lost", by=quality.lost)
    meters.inc(schema.PACKETS_LOST, "late", by=quality.discarded)
    if quality.received:
        meters.observe(schema.LOSS_RATIO, quality.fraction_lost, "received")
        meters.observe(schema.JITTER_SECONDS, quality.jitter_ms / 1000, "received")
    for metric, value, *values in (
        (schema.LOSS_RATIO, quality.peer_fraction_lost, "sent"),
        (schema.JITTER_SECONDS, _seconds(quality.peer_jitter_ms), "sent"),
        (schema.ROUND_TRIP_SECONDS, _seconds(quality.round_trip_ms)),
        (schema.MOS, quality.mos_lq, "listening"),
        (schema.MOS, quality.mos_cq, "conversational"),
    ):
        if value is not None:
            meters.observe(metric, value, *values)


def _seconds(value_ms: float | None) -> float | None:
    return None if value_ms is None else value_ms / 1000
