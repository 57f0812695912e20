"""WebRTC calls: what one costs the media engine, and what it costs aiortc in our place, with the same callers.

The callers are `native/webrtc/examples/webrtc_load`, a process of their own; the server speaks to every one of them all the
time. What differs is what the callers do:

- *DTX*: they listen, and their browser sends a packet every 400 ms. The least that "while the bot speaks" can mean.
- *noise*: they listen, and their browser sends 50 packets a second of a quiet room. This is what our callers do: browsers leave
  DTX out unless the answer asks for it (``usedtx=1``, RFC 7587 section 6.1), and ours does not, for an end of turn is better
  found in the room's sound than in its absence.
- *speech*: they speak without a pause while they are spoken to. Nobody does for long; it is the worst case.

The bar is for a call "while the bot speaks", so it holds for the first two, of which the second is the one that decides: such
callers cost a server all there is to cost but the detector's model, which its gate spares it in a quiet room.

With 100 calls the beat of the engine is shared as it would be in earnest, about a third of a core's calls; aiortc, which has no
beat, gets as many as it can carry beside the callers.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from mediaserver._native import MediaEngine
from mediaserver.softphone.speech import Utterance
from mediaserver.vad_weights import silero_weights
from perf.audio import at_rate
from perf.cpu import process_cpu_s, thread_cpu_s, thread_kernel_s
from perf.examples import ROOT, example_command
from perf.load import MEDIA_THREAD, RENDEZVOUS_S
from perf.results import Row, histogram_percentile

PER_SECOND = "CPU-ms per call-second"
VOICES = {"dtx": "callers silent with DTX", "noise": "callers silent without DTX", "speech": "both speaking"}
BARRED = ("dtx", "noise")
"""The voices with which the bot alone speaks."""
ENGINE_CALLS = 100
AIORTC_CALLS = 4
"""aiortc as a server carries a dozen on a core."""
SETTLE_S = 1.0
CALL_S = 5.0
SPARE_S = 0.5
"""How much longer than what is measured the callers talk."""
TALK_S = SETTLE_S + CALL_S + SPARE_S
CALL_BAR = 3.0
RATE_HZ = 24_000
CHUNK_S = 1.0


@dataclass(frozen=True, slots=True)
class _Carried:
    """What calls cost a server, per call-second, and what the callers say of them."""

    cpu_ms: float
    kernel_ms: float
    callers: dict[str, Any]

    @property
    def spacing_error_ms(self) -> float:
        """How far the distance of packets that came one after the other is from 20 ms: a bound that 99 % keep."""
        bounds = [*self.callers["bounds_us"], float("inf")]
        counted = dict(zip(bounds, self.callers["spacing_error"], strict=True))
        return histogram_percentile(counted, 99) / 1000


class _Process:
    """A process, and the lines that it and we say."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def cpu_s(self) -> float:
        return process_cpu_s(self._process.pid)

    def hear(self) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], RENDEZVOUS_S)[0]:
            raise RuntimeError("a process of the WebRTC calls says nothing")
        return json.loads(self._process.stdout.readline() or "null")

    def say(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.terminate()
        self._process.communicate()


@contextmanager
def _process(command: list[str]) -> Iterator[_Process]:
    process = _Process(command)
    try:
        yield process
    finally:
        process.end()


def _callers(pcm_path: str, calls: int, voice: str) -> list[str]:
    return example_command("webrtc", "webrtc_load", pcm_path, str(calls), str(TALK_S), voice)


def measure(utterances: tuple[Utterance, ...]) -> list[Row]:
    """The engine's cost beside aiortc's, where aiortc is installed: it is an extra of the package."""
    with_aiortc = find_spec("aiortc") is not None
    if not with_aiortc:
        print("no peer for the WebRTC calls: aiortc is not installed", file=sys.stderr)
    pcm = b"".join(at_rate(utterance, RATE_HZ).tobytes() for utterance in utterances)
    rows: list[Row] = []
    with tempfile.NamedTemporaryFile() as file:
        file.write(pcm)
        file.flush()
        for voice, told in VOICES.items():
            theirs = _aiortc(file.name, voice) if with_aiortc else None
            ours = _engine(file.name, pcm, voice)
            name = f"WebRTC call, bot speaking, {told}: server, {ENGINE_CALLS} calls"
            bar = CALL_BAR if voice in BARRED else None
            rows += [
                Row(f"{name} (peer: aiortc)", ours.cpu_ms, PER_SECOND, peer=theirs, bar=bar),
                Row(f"{name}, of it in the kernel", ours.kernel_ms, PER_SECOND),
                Row(f"{name}, spacing error of what callers get, p99", ours.spacing_error_ms, "ms"),
            ]
    return rows


def _aiortc(pcm_path: str, voice: str) -> float:
    """CPU-ms per call-second of a whole process with aiortc as the server."""
    serve = [sys.executable, "-m", "perf.webrtc_peers", str(TALK_S + SPARE_S), pcm_path]
    with _process(_callers(pcm_path, AIORTC_CALLS, voice)) as callers, _process(serve) as server:
        server.say(callers.hear())
        callers.say(server.hear())
        _expect_connected(callers)
        time.sleep(SETTLE_S)
        spent_s, began = server.cpu_s, time.monotonic()
        time.sleep(CALL_S)
        spent_s, lasted_s = server.cpu_s - spent_s, time.monotonic() - began
        _expect_sound(callers.hear(), AIORTC_CALLS)
    return spent_s * 1000 / (AIORTC_CALLS * lasted_s)


def _engine(pcm_path: str, pcm: bytes, voice: str) -> _Carried:
    """What the engine's thread takes, the detector included."""
    engine = MediaEngine("127.0.0.1", port_count=1, vad_model=silero_weights(), max_streams=ENGINE_CALLS)
    try:
        with _process(_callers(pcm_path, ENGINE_CALLS, voice)) as callers:
            opened = [engine.open_webrtc(offer=offer) for offer in callers.hear()]
            callers.say([answer for _, answer in opened])
            streams = [stream for stream, _ in opened]
            _expect_connected(callers)
            _speak(engine, streams, pcm, SETTLE_S)
            spent_s, kernel_s = thread_cpu_s(MEDIA_THREAD), thread_kernel_s(MEDIA_THREAD)
            began = time.monotonic()
            _speak(engine, streams, pcm, CALL_S)
            spent_s, kernel_s = (
                thread_cpu_s(MEDIA_THREAD) - spent_s,
                thread_kernel_s(MEDIA_THREAD) - kernel_s,
            )
            call_seconds = ENGINE_CALLS * (time.monotonic() - began)
            heard = callers.hear()
            _expect_sound(heard, ENGINE_CALLS)
            _expect_heard(engine, streams, heard["sent"])
    finally:
        engine.close()
    return _Carried(spent_s * 1000 / call_seconds, kernel_s * 1000 / call_seconds, heard)


def _speak(engine: MediaEngine, streams: list[int], pcm: bytes, seconds: float) -> None:
    """Give every playout a chunk just as often as it has played one, one call after the other, and take the events."""
    poll = select.poll()
    poll.register(engine.fileno(), select.POLLIN)
    chunk = int(CHUNK_S * RATE_HZ) * 2
    began, given = time.monotonic(), 0
    while (elapsed_s := time.monotonic() - began) < seconds:
        while given < len(streams) * (elapsed_s / CHUNK_S + 1 / len(streams)):
            at = given * 2 * RATE_HZ // len(streams) * 2 % (len(pcm) - chunk)
            engine.play(streams[given % len(streams)], pcm[at : at + chunk], RATE_HZ, given + 1)
            given += 1
        poll.poll(10)
        engine.drain()


def _expect_connected(callers: _Process) -> None:
    if (told := callers.hear()) != "connected":
        raise RuntimeError(f"the callers are not connected: {told!r}")


def _expect_sound(heard: dict[str, Any], calls: int) -> None:
    """A call in which nobody is heard costs nothing and proves nothing."""
    packets = calls * CALL_S * 50
    if heard["received"] < packets or heard["audible"] < 0.4 * CALL_S * 50:
        raise RuntimeError(f"the callers heard too little: {heard}")


def _expect_heard(engine: MediaEngine, streams: list[int], sent: int) -> None:
    """Nor does one in which nobody is listened to."""
    received = sum(engine.stream_stats(stream)["received"] for stream in streams)
    if received < 0.98 * sent:
        raise RuntimeError(f"of {sent} packets of the callers the engine took {received}")
