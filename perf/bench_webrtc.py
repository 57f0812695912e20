"""WebRTC calls: what one costs the media engine, and what it costs aiortc in our place, with the same callers."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mediaserver._native import MediaEngine
from mediaserver.softphone.speech import Utterance
from mediaserver.vad_weights import silero_weights
from perf.audio import at_rate
from perf.cpu import process_cpu_s, thread_cpu_s
from perf.examples import ROOT
from perf.load import MEDIA_THREAD
from perf.results import Row

PER_SECOND = "CPU-ms per call-second"
AIORTC_CALLS = 4
"""aiortc as a server carries a dozen on a core, and its callers take another."""
ENGINE_CALLS = 10
IDLE_S = 2.0
SETTLE_S = 1.5
CALL_S = 8.0
SPARE_S = 4.0
"""How much longer than what is measured the processes live."""
ANSWER_S = 30.0
CALL_BAR = 3.0
RATE_HZ = 24_000
CHUNK_S = 1.0


class _Peer:
    """A process of `webrtc_peers`, and the lines that it and we say."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perf.webrtc_peers", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def cpu_s(self) -> float:
        return process_cpu_s(self._process.pid)

    def hear(self) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            raise RuntimeError("the WebRTC peer says nothing")
        return json.loads(self._process.stdout.readline())

    def say(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.terminate()
        self._process.communicate()


@contextmanager
def _peer(*arguments: str) -> Iterator[_Peer]:
    peer = _Peer(*arguments)
    try:
        yield peer
    finally:
        peer.end()


def measure(utterances: tuple[Utterance, ...]) -> list[Row]:
    """The engine's cost beside aiortc's; nothing without aiortc, which is an extra of the package."""
    if find_spec("aiortc") is None:
        print("no WebRTC calls: aiortc is not installed", file=sys.stderr)
        return []
    with tempfile.NamedTemporaryFile() as file:
        pcm = b"".join(at_rate(utterance, RATE_HZ).tobytes() for utterance in utterances)
        file.write(pcm)
        file.flush()
        theirs = _aiortc(file.name)
        ours, idle = _engine(file.name, pcm)
    name = "WebRTC call, both sides speaking: server"
    return [
        Row(f"{name}, {ENGINE_CALLS} calls (peer: aiortc)", ours, PER_SECOND, peer=theirs, bar=CALL_BAR),
        Row(
            f"{name}, beyond the beat of an idle engine (peer: aiortc)", ours - idle, PER_SECOND, peer=theirs
        ),
    ]


def _aiortc(pcm: str) -> float:
    """CPU-ms per call-second of a whole process with aiortc as the server."""
    lasts = str(SETTLE_S + CALL_S + SPARE_S)
    with _peer("call", str(AIORTC_CALLS), lasts, pcm) as callers, _peer("serve", lasts, pcm) as server:
        server.say(callers.hear())
        callers.say(server.hear())
        _expect_connected(callers)
        time.sleep(SETTLE_S)
        spent_s, began = server.cpu_s, time.monotonic()
        time.sleep(CALL_S)
        spent_s, lasted_s = server.cpu_s - spent_s, time.monotonic() - began
        _expect_sound(callers.hear(), AIORTC_CALLS)
    return spent_s * 1000 / (AIORTC_CALLS * lasted_s)


def _engine(pcm_path: str, pcm: bytes) -> tuple[float, float]:
    """CPU-ms per call-second of the engine's thread, the detector included; and of it what the thread takes without calls."""
    engine = MediaEngine("127.0.0.1", port_count=1, vad_model=silero_weights(), max_streams=ENGINE_CALLS)
    try:
        idle_s, began = thread_cpu_s(MEDIA_THREAD), time.monotonic()
        time.sleep(IDLE_S)
        idle = (thread_cpu_s(MEDIA_THREAD) - idle_s) / (time.monotonic() - began)
        with _peer("call", str(ENGINE_CALLS), str(SETTLE_S + CALL_S + SPARE_S), pcm_path) as callers:
            opened = [engine.open_webrtc(offer=offer) for offer in callers.hear()]
            callers.say([answer for _, answer in opened])
            streams = [stream for stream, _ in opened]
            _expect_connected(callers)
            _speak(engine, streams, pcm, SETTLE_S)
            spent_s, began = thread_cpu_s(MEDIA_THREAD), time.monotonic()
            _speak(engine, streams, pcm, CALL_S)
            spent_s, lasted_s = thread_cpu_s(MEDIA_THREAD) - spent_s, time.monotonic() - began
            _expect_sound(callers.hear(), ENGINE_CALLS)
    finally:
        engine.close()
    return spent_s * 1000 / (ENGINE_CALLS * lasted_s), idle * 1000 / ENGINE_CALLS


def _speak(engine: MediaEngine, streams: list[int], pcm: bytes, seconds: float) -> None:
    """Give every playout a chunk just as often as it has played one, and take the events."""
    poll = select.poll()
    poll.register(engine.fileno(), select.POLLIN)
    chunk = int(CHUNK_S * RATE_HZ) * 2
    began, given = time.monotonic(), 0
    while (elapsed_s := time.monotonic() - began) < seconds:
        if elapsed_s >= given * CHUNK_S:
            at = given * chunk % (len(pcm) - chunk)
            given += 1
            for stream in streams:
                engine.play(stream, pcm[at : at + chunk], RATE_HZ, given)
        poll.poll(100)
        engine.drain()


def _expect_connected(callers: _Peer) -> None:
    if (told := callers.hear()) != "connected":
        raise RuntimeError(f"the callers are not connected: {told!r}")


def _expect_sound(heard: dict[str, int], calls: int) -> None:
    """A call in which nobody is heard costs nothing and proves nothing."""
    expected = calls * CALL_S * 50
    if heard["frames"] < 0.8 * expected or heard["audible"] < 0.2 * expected:
        raise RuntimeError(f"the callers heard too little: {heard}")
