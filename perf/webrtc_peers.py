"""aiortc as the server of WebRTC calls, in a process of its own, everything on the loopback interface.

``python -m perf.webrtc_peers SECONDS PCM``: reads offers (one JSON line, a list of SDP), prints answers (the same), and listens
to every caller and speaks to it all the time, for so long from then on. PCM is speech, 16-bit mono at 24 kHz.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import aioice.ice
import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack

RATE_HZ = 24_000
FRAME = RATE_HZ // 50
SECONDS_MAX = 120.0
AUDIBLE = 500


class Speech(AudioStreamTrack):
    """The same speech around and around, a frame every 20 ms."""

    def __init__(self, pcm: bytes, begin: int) -> None:
        super().__init__()
        samples = np.frombuffer(pcm, dtype="<i2")
        self._frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, 1, FRAME)
        self._began: float | None = None
        self._begin = begin
        self._count = 0

    async def recv(self) -> av.AudioFrame:
        """The next frame, when it is due."""
        if self._began is None:
            self._began = time.monotonic()
        due = self._began + self._count / 50
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        samples = self._frames[(self._begin + self._count) % len(self._frames)]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        frame.pts = self._count * FRAME
        frame.time_base = fractions.Fraction(1, RATE_HZ)
        self._count += 1
        return frame


class Ear:
    """Takes what comes and counts it."""

    def __init__(self) -> None:
        self.frames = 0
        self.audible = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, track: MediaStreamTrack) -> None:
        """Begin; `track` is the other side's."""
        task = asyncio.create_task(self._take(track))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, track: MediaStreamTrack) -> None:
        from aiortc.mediastreams import MediaStreamError

        while True:
            try:
                frame = cast(av.AudioFrame, await track.recv())
            except MediaStreamError:
                return
            self.frames += 1
            self.audible += int(np.abs(frame.to_ndarray()).max()) > AUDIBLE


def connection(ear: Ear, pcm: bytes, begin: int) -> RTCPeerConnection:
    """A peer that speaks and listens."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.on("track", ear.listen)
    peer.addTrack(Speech(pcm, begin))
    return peer


async def line() -> Any:
    """The next line of standard input."""
    return json.loads(await asyncio.to_thread(sys.stdin.readline))


def tell(what: object) -> None:
    """A line for the benchmark."""
    print(json.dumps(what), flush=True)


async def serve(seconds: float, pcm: bytes) -> None:
    """Answer, speak and listen."""
    ear = Ear()
    peers, answers = [], []
    for index, offer in enumerate(await line()):
        peer = connection(ear, pcm, 53 * index)
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        peers.append(peer)
        answers.append(peer.localDescription.sdp)
    tell(answers)
    await asyncio.sleep(seconds)
    tell({"frames": ear.frames, "audible": ear.audible})
    await asyncio.gather(*(peer.close() for peer in peers))


def main() -> None:
    """Be the server."""
    # aioice leaves out the one interface that a benchmark may use.
    addresses: Callable[..., list[str]] = lambda *_, **__: ["127.0.0.1"]  # noqa: E731
    aioice.ice.get_host_addresses = addresses
    seconds, pcm = sys.argv[1:]
    asyncio.run(serve(min(float(seconds), SECONDS_MAX), Path(pcm).read_bytes()))


if __name__ == "__main__":
    main()
