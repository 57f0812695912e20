"""The media engine and the voice activity detector, measured without calls around them."""

from __future__ import annotations

import json
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime

from mediaserver._native import MediaEngine, SileroVad
from mediaserver.softphone.speech import Utterance
from mediaserver.vad_weights import silero_weights
from perf.audio import LINE_RATE_HZ, SILENCE, at_rate, frames
from perf.cpu import thread_cpu_s
from perf.results import Row, histogram_percentile

ROOT = Path(__file__).parents[1]
MEDIA_THREAD = "media"

STAGE_STREAMS = 100
STAGE_SECONDS = 30
STAGE = re.compile(r"^  (?P<stage>\S.*?) {2,}(?P<cpu_us>[0-9.]+)$", re.MULTILINE)

STREAMS = 100
WARM_UP_S = 1.5
WIRE_S = 8.0
PAUSE_S = 1.5
SPOKEN_RATE_HZ = 24_000
SPEAK_EVERY_S = 2.0

WINDOW = 512
CONTEXT = 64
WIDE_RATE_HZ = 16_000
REPEATS = 7

CROSSING_STREAMS = 50
CROSSING_S = 3
CROSSING_CHUNK = 20
"""Samples of a chunk: 2.5 ms, so that events and not packets are what the engine is busy with."""


# -- the stages of the caller's path, in Rust alone --------------------------------------------------------


def parse_stages(printed: str) -> dict[str, float]:
    """CPU-us per call-second by stage, from what ``bench_stream`` prints."""
    return {match["stage"]: float(match["cpu_us"]) for match in STAGE.finditer(printed)}


def stages() -> list[Row]:
    """Run the Rust benchmark of a leg, without sockets."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as model:
        model.write(silero_weights())
        model.flush()
        command = [
            "cargo",
            "run",
            "--quiet",
            "--release",
            "--locked",
            "-p",
            "media",
            "--example",
            "bench_stream",
        ]
        run = subprocess.run(
            [*command, "--", model.name, str(STAGE_STREAMS), str(STAGE_SECONDS)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    found = parse_stages(run.stdout)
    if "together" not in found:
        raise ValueError(f"bench_stream printed no total: {run.stdout!r}")
    return [
        Row(f"leg without sockets: {stage}", cpu_us / 1000, "CPU-ms per call-second")
        for stage, cpu_us in found.items()
    ]


# -- a hundred legs on the wire ----------------------------------------------------------------------------


def conversation(utterances: tuple[Utterance, ...]) -> bytes:
    """What every caller sends around and around: questions with pauses between them."""
    pause = SILENCE * int(PAUSE_S * 50)
    return b"".join(b"".join(frames(utterance)) + pause for utterance in utterances)


@contextmanager
def _sender(codes: bytes, seconds: float) -> Iterator[tuple[list[int], Callable[[list[int]], None]]]:
    """A process with the callers: their ports, and what starts them."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(codes)
        file.flush()
        command = [sys.executable, "-m", "perf.line_sender", file.name, str(STREAMS), str(seconds)]
        sender = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert sender.stdin is not None
        assert sender.stdout is not None
        stdin = sender.stdin

        def begin(ports: list[int]) -> None:
            stdin.write(" ".join(map(str, ports)) + "\n")
            stdin.flush()

        try:
            yield json.loads(sender.stdout.readline()), begin
        finally:
            sender.terminate()
            sender.communicate()


def on_the_wire(utterances: tuple[Utterance, ...]) -> list[Row]:
    """A hundred legs with a caller's packets in, ours out, speech detected, and half of the time somebody answering."""
    engine = MediaEngine("127.0.0.1", port_count=8, vad_model=silero_weights(), max_streams=STREAMS)
    spoken = (np.sin(np.arange(SPOKEN_RATE_HZ) / 10) * 6000).astype("<i2").tobytes()
    with _sender(conversation(utterances), WARM_UP_S + WIRE_S + 1) as (callers, begin):
        ports, streams = [], []
        for caller in callers:
            remote = ("127.0.0.1", caller)
            stream, port = engine.open_stream(remote=remote)
            engine.connect_stream(stream, remote=remote, codec="PCMU", payload_type=0)
            streams.append(stream)
            ports.append(port)
        begin(ports)
        _attend(engine, streams, spoken, WARM_UP_S)
        before, cpu_s, python_s = engine.stats(), thread_cpu_s(MEDIA_THREAD), time.thread_time()
        events, lasted_s = _attend(engine, streams, spoken, WIRE_S)
        cpu_s, python_s = thread_cpu_s(MEDIA_THREAD) - cpu_s, time.thread_time() - python_s
        after = engine.stats()
    engine.close()
    call_seconds = STREAMS * lasted_s
    packets = (after["received"] - before["received"]) / (call_seconds * 50)
    if packets < 0.95:
        raise RuntimeError(f"only {packets:.0%} of the callers' packets came in")
    late = lateness_us(before, after)
    per_second = "CPU-ms per call-second"
    return [
        Row(
            f"engine, {STREAMS} legs on sockets: media thread",
            cpu_s * 1000 / call_seconds,
            per_second,
            design="about 1",
        ),
        Row(
            f"engine, {STREAMS} legs on sockets: draining thread", python_s * 1000 / call_seconds, per_second
        ),
        Row(f"engine, {STREAMS} legs on sockets: events", events / call_seconds, "per call-second"),
        *(
            Row(
                f"engine, {STREAMS} legs on sockets: tick lateness p{percent:g}, at most",
                histogram_percentile(late, percent) / 1000,
                "ms",
            )
            for percent in (50, 99)
        ),
        Row(
            f"engine, {STREAMS} legs on sockets: ticks more than 5 ms late",
            100 * sum(n for bound, n in late.items() if bound > 5000) / sum(late.values()),
            "%",
        ),
    ]


def lateness_us(before: dict[str, int], after: dict[str, int]) -> dict[float, int]:
    """The engine's histogram of tick lateness between two readings: ticks by upper bound."""
    name = re.compile(r"^tick_lateness_(?:le_(\d+)_us|more)$")
    return {
        float(match[1] or "inf"): count - before[key]
        for key, count in after.items()
        if (match := name.match(key))
    }


def _attend(engine: MediaEngine, streams: list[int], spoken: bytes, seconds: float) -> tuple[int, float]:
    """Drain events and speak on every leg each two seconds; returns the events and how long it lasted."""
    poll = select.poll()
    poll.register(engine.fileno(), select.POLLIN)
    began = time.monotonic()
    events, due, mark = 0, list(streams), 0
    spoke_at = began
    while (now := time.monotonic()) < began + seconds:
        if not due and now >= spoke_at + SPEAK_EVERY_S:
            due, spoke_at = list(streams), spoke_at + SPEAK_EVERY_S
        # Calls speak one after the other, not all in one moment.
        elapsed = (now - spoke_at) / SPEAK_EVERY_S
        while due and 1 - len(due) / len(streams) <= elapsed:
            mark += 1
            engine.play(due.pop(), spoken, SPOKEN_RATE_HZ, mark)
        if poll.poll(10):
            events += len(engine.drain())
    return events, time.monotonic() - began


# -- the detector against onnxruntime ----------------------------------------------------------------------


def detector(utterances: tuple[Utterance, ...]) -> list[Row]:
    """The kernel and onnxruntime on the same windows in turns, each inference by itself."""
    pcm = np.concatenate([at_rate(utterance, WIDE_RATE_HZ) for utterance in utterances])
    pcm = pcm[: len(pcm) // WINDOW * WINDOW]
    windows = len(pcm) // WINDOW
    model = silero_weights()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    vad = SileroVad(model)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(REPEATS):
        vad.reset()
        began = time.process_time()
        judged = vad.infer(pcm.tobytes())
        ours.append((time.process_time() - began) / windows)
        began = time.process_time()
        expected = _by_onnxruntime(session, pcm.astype(np.float32) / 32768)
        theirs.append((time.process_time() - began) / windows)
        if float(np.abs(np.subtract(judged, expected)).max()) > 1e-4:
            raise ValueError("the kernel and onnxruntime do not agree")
    return [
        Row(
            "Silero inference (peer: onnxruntime)",
            statistics.median(ours) * 1e6,
            "CPU-us",
            peer=statistics.median(theirs) * 1e6,
            design="13 against 220",
        )
    ]


def _by_onnxruntime(session: onnxruntime.InferenceSession, samples: np.ndarray) -> list[float]:
    state = np.zeros((2, 1, 128), np.float32)
    heard = np.zeros((1, CONTEXT + WINDOW), np.float32)
    rate = np.array(WIDE_RATE_HZ, np.int64)
    probabilities = []
    for start in range(0, len(samples), WINDOW):
        heard[0, :CONTEXT] = heard[0, -CONTEXT:]
        heard[0, CONTEXT:] = samples[start : start + WINDOW]
        probability, state = session.run(None, {"input": heard, "state": state, "sr": rate})
        probabilities.append(float(probability[0, 0]))
    return probabilities


# -- crossing into Python ----------------------------------------------------------------------------------


def crossing() -> list[Row]:
    """What an event costs: the same audio in chunks of 2.5 ms, each with its event, and in one chunk."""
    many = [_play_out(CROSSING_CHUNK) for _ in range(2)]
    few = [_play_out(LINE_RATE_HZ * CROSSING_S) for _ in range(2)]
    events = many[0][0]
    engine_s = min(cpu for _, cpu, _ in many) - min(cpu for _, cpu, _ in few)
    python_s = min(cpu for _, _, cpu in many) - min(cpu for _, _, cpu in few)
    return [
        Row("event into Python: draining side", python_s * 1e6 / events, "CPU-us"),
        Row("event into Python: engine's side, chunk included", engine_s * 1e6 / events, "CPU-us"),
        Row("event into Python: both sides", (python_s + engine_s) * 1e6 / events, "CPU-us", design="1.2"),
    ]


def _play_out(chunk: int) -> tuple[int, float, float]:
    """Queue everything while paused, then let it go: events, CPU seconds of the engine and of this thread."""
    engine = MediaEngine("127.0.0.1", port_count=1, max_streams=CROSSING_STREAMS)
    poll = select.poll()
    poll.register(engine.fileno(), select.POLLIN)
    streams = []
    for index in range(CROSSING_STREAMS):
        remote = ("127.0.0.1", 20_000 + index)
        stream, _ = engine.open_stream(remote=remote)
        engine.connect_stream(stream, remote=remote, codec="PCMU", payload_type=0)
        engine.pause(stream)
        streams.append(stream)
    pcm = bytes(2 * chunk)
    chunks = LINE_RATE_HZ * CROSSING_S // chunk
    for stream in streams:
        for mark in range(1, chunks + 1):
            engine.play(stream, pcm, LINE_RATE_HZ, mark)
        # Answered behind the chunks: the command queue never fills.
        engine.stream_stats(stream)
    for stream in streams:
        engine.resume(stream)
    engine_s, python_s = thread_cpu_s(MEDIA_THREAD), time.thread_time()
    expected, events = CROSSING_STREAMS * (chunks + 1), 0
    give_up_at = time.monotonic() + 3 * CROSSING_S
    while events < expected and time.monotonic() < give_up_at:
        if poll.poll(100):
            for event in engine.drain():
                events += event.stream >= 0
    spent = thread_cpu_s(MEDIA_THREAD) - engine_s, time.thread_time() - python_s
    engine.close()
    if events < expected:
        raise RuntimeError(f"{events} of {expected} events came")
    return events, *spent
