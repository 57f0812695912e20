"""The media engine and the voice activity detector, measured without calls around them."""

from __future__ import annotations

import re
import select
import statistics
import tempfile
import time

import numpy as np
import onnxruntime

from mediaserver._native import MediaEngine, SileroVad
from mediaserver.softphone.speech import Utterance
from mediaserver.vad_weights import silero_weights
from perf.audio import LINE_RATE_HZ, at_rate
from perf.cpu import thread_cpu_s
from perf.examples import run_example
from perf.load import MEDIA_THREAD
from perf.results import Row

STAGE_STREAMS = 500
STAGE_SECONDS = 20
STAGE = re.compile(r"^  (?P<stage>\S.*?) {2,}(?P<cpu_us>[0-9.]+)$", re.MULTILINE)

WINDOW = 512
CONTEXT = 64
WIDE_RATE_HZ = 16_000
WINDOWS_PER_SECOND = WIDE_RATE_HZ / WINDOW
REPEATS = 7

CROSSING_STREAMS = 50
CROSSING_S = 3
CROSSING_CHUNK = 20
"""Samples of a chunk: 2.5 ms, so that events and not packets are what the engine is busy with."""


# -- the stages of the caller's path, in Rust alone --------------------------------------------------------


def parse_stages(printed: str) -> dict[str, float]:
    """CPU-us per call-second by stage, from what ``bench_stream`` prints."""
    return {match["stage"]: float(match["cpu_us"]) for match in STAGE.finditer(printed)}


def stages() -> dict[str, float]:
    """CPU-ms per call-second by stage: the Rust benchmark of legs, without sockets."""
    with tempfile.NamedTemporaryFile(suffix=".onnx") as model:
        model.write(silero_weights())
        model.flush()
        printed = run_example("media", "bench_stream", model.name, str(STAGE_STREAMS), str(STAGE_SECONDS))
    found = parse_stages(printed)
    if "together" not in found:
        raise ValueError(f"bench_stream printed no total: {printed!r}")
    return {stage: cpu_us / 1000 for stage, cpu_us in found.items()}


def leg() -> list[Row]:
    """The stages as rows."""
    return [
        Row(f"leg without sockets: {stage}", cpu_ms, "CPU-ms per call-second")
        for stage, cpu_ms in stages().items()
    ]


# -- the detector against onnxruntime ----------------------------------------------------------------------


def detector(utterances: tuple[Utterance, ...]) -> list[Row]:
    """The kernel and onnxruntime, each window by itself."""
    ours_us, theirs_us = window_us(utterances)
    return [
        Row(
            "Silero inference (peer: onnxruntime)", ours_us, "CPU-us", peer=theirs_us, design="13 against 220"
        )
    ]


def window_us(utterances: tuple[Utterance, ...]) -> tuple[float, float]:
    """CPU-us per window of the kernel and of onnxruntime, one by one and in turns: medians."""
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
    return statistics.median(ours) * 1e6, statistics.median(theirs) * 1e6


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
        Row(
            "event into Python: both sides",
            (python_s + engine_s) * 1e6 / events,
            "CPU-us",
            design="1.2",
            bar=1.5,
        ),
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
        engine.connect_stream(stream, remote=remote, codec="PCMU", payload_type=0, rtcp=False)
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
