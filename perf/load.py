"""A media engine under load: callers from another process (`native/media/examples/rtp_load.rs`), speech out, what it cost."""

from __future__ import annotations

import json
import re
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mediaserver._native import MediaEngine
from mediaserver.softphone.speech import Utterance
from mediaserver.vad_weights import silero_weights
from perf.audio import encode, frames
from perf.cpu import thread_cpu_s, thread_kernel_s
from perf.examples import ROOT, example_command
from perf.results import histogram_percentile

MEDIA_THREAD = "media"
PORTS = 8
"""Ports of the engine, and callers on one socket: the engine tells callers of one address apart by its port."""
PAUSE_LEVEL = 40
"""A line is never silent: the noise while the caller listens, -58 dBFS at its peak."""
SPOKEN_RATE_HZ = 24_000
SPEAK_EVERY_S = 2.0
RENDEZVOUS_S = 300.0
"""For the generator to be built, on a machine where it is not yet."""
WARM_UP_S = 1.5


@dataclass(frozen=True, slots=True)
class Carried:
    """What an engine did in the time that was measured."""

    calls: int
    lasted_s: float
    media_s: float
    """CPU seconds of its thread."""
    kernel_s: float
    """Of it in the kernel."""
    python_s: float
    """CPU seconds of the thread that drains it and gives it speech."""
    events: int
    packets_per_call_second: float
    late_us: dict[float, int]
    """Ticks by the upper bound of how late they came."""
    windows: int
    quiet_windows: int
    """Windows of the detector since the calls began, and those that the energy gate kept from the model."""
    realtime: bool
    """Whether the engine's thread has SCHED_FIFO."""
    generator: dict[str, Any]
    """What the callers' process says of itself."""

    @property
    def call_seconds(self) -> float:
        return self.calls * self.lasted_s

    @property
    def media_ms(self) -> float:
        """CPU-ms of the media thread per call-second."""
        return self.media_s * 1000 / self.call_seconds

    @property
    def kernel_ms(self) -> float:
        """Of it in the kernel."""
        return self.kernel_s * 1000 / self.call_seconds

    @property
    def python_ms(self) -> float:
        """CPU-ms of the draining thread per call-second."""
        return self.python_s * 1000 / self.call_seconds

    @property
    def callers_late_percent(self) -> float:
        """Bursts of the callers that left more than 5 ms late: what the load was not."""
        bounds, late = [*self.generator["late_bounds_us"], float("inf")], self.generator["late"]
        beyond = sum(bursts for bound, bursts in zip(bounds, late, strict=True) if bound > 5000)
        return float(100 * beyond / sum(late))

    def late_percent(self, more_than_us: float) -> float:
        """Ticks that came later than that, a bound of the histogram."""
        late = sum(ticks for bound, ticks in self.late_us.items() if bound > more_than_us)
        return 100 * late / sum(self.late_us.values())

    def late_ms(self, percent: float) -> float:
        """The bound that so many of the ticks kept."""
        return histogram_percentile(self.late_us, percent) / 1000


def conversation(utterances: tuple[Utterance, ...]) -> bytes:
    """What every caller sends around and around: questions one after the other, and faint noise for as long."""
    spoken = b"".join(b"".join(frames(utterance)) for utterance in utterances)
    noise = np.random.default_rng(1).integers(-PAUSE_LEVEL, PAUSE_LEVEL + 1, len(spoken))
    return spoken + encode(noise.astype(np.int16))


@contextmanager
def callers(
    codes: bytes, calls: int, seconds: float
) -> Iterator[tuple[list[int], Callable[[list[int]], None], Callable[[], dict[str, Any]]]]:
    """A process with the callers: their ports, what starts them, and what waits for their report."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(codes)
        file.flush()
        arguments = [file.name, str(calls), str(PORTS), str(int(seconds + 1))]
        command = example_command("media", "rtp_load", *arguments)
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def begin(ports: list[int]) -> None:
            stdin.write(" ".join(map(str, ports)) + "\n")
            stdin.flush()

        def report() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(stdout.readline())
            return told

        try:
            ready, _, _ = select.select([stdout], [], [], RENDEZVOUS_S)
            if not ready:
                raise RuntimeError("the callers' process does not start")
            yield json.loads(stdout.readline()), begin, report
        finally:
            process.terminate()
            process.communicate()


def carry(codes: bytes, calls: int, seconds: float, *, listening: bool = True) -> Carried:
    """That many calls for so long, somebody answering on each half of the time; with or without a detector."""
    model = silero_weights() if listening else None
    engine = MediaEngine("127.0.0.1", port_count=PORTS, vad_model=model, max_streams=calls)
    try:
        with callers(codes, calls, WARM_UP_S + seconds + 1) as (ports, begin, report):
            streams, ours = [], []
            for port in ports:
                remote = ("127.0.0.1", port)
                stream, local = engine.open_stream(remote=remote)
                engine.connect_stream(stream, remote=remote, codec="PCMU", payload_type=0, rtcp_mux=True)
                streams.append(stream)
                ours.append(local)
            begin(ours)
            return _measure(engine, streams, seconds, report)
    finally:
        engine.close()


def _measure(
    engine: MediaEngine, streams: list[int], seconds: float, report: Callable[[], dict[str, Any]]
) -> Carried:
    calls = len(streams)
    spoken = (np.sin(np.arange(SPOKEN_RATE_HZ) / 10) * 6000).astype("<i2").tobytes()
    _attend(engine, streams, spoken, WARM_UP_S)
    before, media_s, python_s = engine.stats(), thread_cpu_s(MEDIA_THREAD), time.thread_time()
    kernel_s = thread_kernel_s(MEDIA_THREAD)
    events, lasted_s = _attend(engine, streams, spoken, seconds)
    media_s, python_s = thread_cpu_s(MEDIA_THREAD) - media_s, time.thread_time() - python_s
    kernel_s = thread_kernel_s(MEDIA_THREAD) - kernel_s
    after = engine.stats()
    packets = (after["received"] - before["received"]) / (calls * lasted_s)
    windows = [engine.stream_stats(stream) for stream in streams]
    carried = Carried(
        calls=calls,
        lasted_s=lasted_s,
        media_s=media_s,
        kernel_s=kernel_s,
        python_s=python_s,
        events=events,
        packets_per_call_second=packets,
        late_us=lateness_us(before, after),
        windows=sum(stats["vad_windows"] for stats in windows),
        quiet_windows=sum(stats["vad_windows_quiet"] for stats in windows),
        realtime=engine.realtime_refused() is None,
        generator=report(),
    )
    if packets < 47.5:
        raise RuntimeError(
            f"only {packets / 50:.0%} of {calls} callers' packets came in; they: {carried.generator}"
        )
    return carried


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
