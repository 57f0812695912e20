"""The media engine under load: what five hundred calls cost, whether ticks stay in time, and when they no longer do."""

from __future__ import annotations

import statistics
import sys
from contextlib import AbstractContextManager, nullcontext

from mediaserver.softphone.speech import Utterance
from perf.bench_engine import WINDOWS_PER_SECOND, stages, window_us
from perf.interpreter_holder import in_a_process, in_a_thread
from perf.load import Carried, carry, conversation
from perf.results import Row

PER_SECOND = "CPU-ms per call-second"
CALLS = 500
ROUNDS = 3
ROUND_S = 10.0
CALL_BAR = 1.0
DETECTOR_BAR = 0.45
DETECTOR_STAGE, RESAMPLING_STAGE = "VAD, cutting", "resample 8 to 16 kHz"

FEW = 100
FEW_S = 8.0
HELD_SHARE = 0.7
BOUNDS_US = (250, 1_000, 2_000, 5_000, 10_000)

LADDER = (500, 600, 700, 800, 900, 1000, 1200, 1400)
LADDER_S = 5.0
LATE_MS = 5.0


def five_hundred(utterances: tuple[Utterance, ...]) -> list[Row]:
    """PCMU, listening buffer, detector, resampling both ways, UDP: with and without the detector in turns.

    The detector's part is measured twice: as the difference that it makes on sockets, less the resampling of its input,
    and as the stage of `bench_stream`. Its peer is onnxruntime, which is given every window by itself.
    """
    codes = conversation(utterances)
    with_it: list[Carried] = []
    without: list[Carried] = []
    staged: list[float] = []
    resampling: list[float] = []
    onnx: list[float] = []
    for _ in range(ROUNDS):
        with_it.append(carry(codes, CALLS, ROUND_S))
        without.append(carry(codes, CALLS, ROUND_S, listening=False))
        stage = stages()
        staged.append(stage[DETECTOR_STAGE])
        resampling.append(stage[RESAMPLING_STAGE])
        onnx.append(window_us(utterances)[1] * WINDOWS_PER_SECOND / 1000)
    whole = [one.media_ms for one in with_it]
    listening = [one.media_ms - other.media_ms for one, other in zip(with_it, without, strict=True)]
    detector = [cost - wide for cost, wide in zip(listening, resampling, strict=True)]
    busiest = max(with_it, key=lambda one: one.late_percent(LATE_MS * 1000))
    windows, quiet = sum(one.windows for one in with_it), sum(one.quiet_windows for one in with_it)
    name = f"{CALLS} PCMU calls on one media thread"
    return [
        Row(f"{name}: best of {ROUNDS}", min(whole), PER_SECOND, bar=CALL_BAR),
        Row(f"{name}: median of {ROUNDS}", statistics.median(whole), PER_SECOND, bar=CALL_BAR),
        Row(f"{name}: of it in the kernel", statistics.median(one.kernel_ms for one in with_it), PER_SECOND),
        Row(f"{name}: without listening", min(one.media_ms for one in without), PER_SECOND),
        Row(f"{name}: of it listening, with resampling to 16 kHz", statistics.median(listening), PER_SECOND),
        *_beside_onnxruntime(f"{name}: of it VAD", detector, onnx),
        *_beside_onnxruntime(f"{CALLS} legs without sockets: VAD, cutting", staged, onnx),
        Row(f"{name}: windows too quiet for the model", 100 * quiet / windows, "%"),
        Row(f"{name}: draining thread", min(one.python_ms for one in with_it), PER_SECOND),
        Row(f"{name}: events", with_it[0].events / with_it[0].call_seconds, "per call-second"),
        Row(f"{name}: tick lateness p99, at most", busiest.late_ms(99), "ms", bar=LATE_MS, worst=True),
        Row(f"{name}: ticks more than 5 ms late", busiest.late_percent(LATE_MS * 1000), "%", worst=True),
        Row(f"{name}: callers' bursts more than 5 ms late", busiest.callers_late_percent, "%", worst=True),
        Row("condition: media thread with SCHED_FIFO", float(busiest.realtime), "1 is yes"),
    ]


def _beside_onnxruntime(name: str, ours: list[float], theirs: list[float]) -> list[Row]:
    """The best and the median, each beside onnxruntime's best and median."""
    label = f"{name} (peer: onnxruntime, one by one)"
    return [
        Row(f"{label}, best", min(ours), PER_SECOND, peer=min(theirs), bar=DETECTOR_BAR),
        Row(
            f"{label}, median",
            statistics.median(ours),
            PER_SECOND,
            peer=statistics.median(theirs),
            bar=DETECTOR_BAR,
        ),
    ]


def held_interpreter(utterances: tuple[Utterance, ...]) -> list[Row]:
    """Tick lateness while a Python thread holds the interpreter, while as busy a process runs instead, and in peace."""
    codes = conversation(utterances)

    def under(neighbour: AbstractContextManager[object]) -> Carried:
        with neighbour:
            return carry(codes, FEW, FEW_S)

    alone = under(nullcontext())
    beside = under(in_a_process(HELD_SHARE, 60 + FEW_S))
    with in_a_thread(HELD_SHARE) as shares:
        held = under(nullcontext())
    legs = f"engine, {FEW} legs on sockets"
    name = "tick lateness, interpreter held (peer: as busy a process instead)"
    rows = [
        Row(f"{legs}: media thread", alone.media_ms, PER_SECOND, design="about 1"),
        Row(f"{legs}: draining thread", alone.python_ms, PER_SECOND),
        Row(f"{legs}: events", alone.events / alone.call_seconds, "per call-second"),
        Row("interpreter held by a thread", 100 * shares[0], "%"),
    ]
    for percent in (50, 99):
        rows += [
            Row(f"tick lateness, nobody beside: p{percent}, at most", alone.late_ms(percent), "ms"),
            Row(f"{name}: p{percent}, at most", held.late_ms(percent), "ms", peer=beside.late_ms(percent)),
        ]
    for bound_us in BOUNDS_US:
        beyond = f"more than {bound_us / 1000:g} ms"
        rows += [
            Row(f"tick lateness, nobody beside: {beyond}", alone.late_percent(bound_us), "%"),
            Row(f"{name}: {beyond}", held.late_percent(bound_us), "%", peer=beside.late_percent(bound_us)),
        ]
    return rows


def ladder(utterances: tuple[Utterance, ...]) -> list[Row]:
    """More and more calls until one tick in a hundred is more than 5 ms late."""
    codes = conversation(utterances)
    kept, rows = 0, list[Row]()
    for calls in LADDER:
        try:
            carried = carry(codes, calls, LADDER_S)
        except RuntimeError as beyond:
            print(beyond, file=sys.stderr)
            break
        late_ms = carried.late_ms(99)
        rows.append(Row(f"one media thread, {calls} calls: tick lateness p99, at most", late_ms, "ms"))
        rows.append(Row(f"one media thread, {calls} calls: cost", carried.media_ms, PER_SECOND))
        if late_ms > LATE_MS:
            break
        kept = calls
    return [Row("one media thread: most calls with p99 of tick lateness within 5 ms", kept, "calls"), *rows]
