"""The audio of a test call over WebRTC: aiortc's tracks, and when their packets went out and came in.

A packet's arrival is taken where aiortc hands it to its receiver, before its jitter buffer (which holds audio back by
80 ms) and decoder; the decoded audio is matched to it by RTP timestamp. `RTCRtpReceiver._handle_rtp_packet` is a private
name of aiortc 1.16, held by a test. Departure is when the sender takes the frame, one Opus encoding before its packet
goes out: about a millisecond early, so a latency is never told too short.
"""

from __future__ import annotations

import asyncio
import time
import wave
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import soxr
from aiortc import MediaStreamTrack, RTCRtpReceiver
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket
from av import AudioFrame, AudioResampler

from mediaserver.softphone.caller import now_us
from mediaserver.softphone.speech import SPEECH_RATE_HZ

RATE_HZ = 48_000
FRAME_SAMPLES = RATE_HZ // 50
HEARD_RATE_HZ = 16_000
HEARD_FRAME_BYTES = HEARD_RATE_HZ // 50 * 2
AUDIBLE_RMS = 184
"""-45 dBFS, as the media engine's activity report has it."""
QUIET_AFTER_MS = 300
ARRIVALS_KEPT = 512
"""Ten seconds of packets; aiortc's jitter buffer holds 16."""
MAX_QUEUED_FRAMES = 250
"""Of the other side's audio that waits to be recorded: the two clocks differ, and a recording must not grow by that."""


@dataclass(frozen=True, slots=True)
class HeardFrame:
    """20 ms of what came in, 16 kHz, with the arrival of its packet."""

    at_us: int
    pcm: bytes
    audible: bool


@dataclass(slots=True)
class Audibility:
    """Whether the other side is audible, with the rule of the engine's `Activity`. Sans-IO."""

    active: bool = False
    last_audible_us: int = 0

    def heard(self, at_us: int, *, audible: bool) -> bool:
        """Take a packet; True when the other side became audible with it."""
        if not audible:
            return False
        began = not self.active
        self.active = True
        self.last_audible_us = max(self.last_audible_us, at_us)
        return began

    def fell_silent(self, now_us: int) -> bool:
        """True once when nothing audible has come for `QUIET_AFTER_MS`, by packets or by the clock."""
        if not self.active or now_us - self.last_audible_us < QUIET_AFTER_MS * 1000:
            return False
        self.active = False
        return True


class Mouth(MediaStreamTrack):
    """The outgoing track: utterances, and silence between them, 20 ms at a time."""

    kind = "audio"

    def __init__(self, on_sent: Callable[[bytes], None], on_said: Callable[[int], None]) -> None:
        super().__init__()
        self._on_sent = on_sent
        self._on_said = on_said
        self._frames: deque[bytes] = deque()
        self._began_s = 0.0
        self._count = 0

    def say(self, pcm: bytes) -> None:
        """Queue an utterance (16-bit mono at `SPEECH_RATE_HZ`)."""
        samples = soxr.resample(np.frombuffer(pcm, dtype="<i2"), SPEECH_RATE_HZ, RATE_HZ)
        whole = np.pad(samples, (0, -len(samples) % FRAME_SAMPLES))
        self._frames.extend(frame.tobytes() for frame in whole.astype("<i2").reshape(-1, FRAME_SAMPLES))

    async def recv(self) -> AudioFrame:
        """The next 20 ms, when they are due."""
        if self._count == 0:
            self._began_s = time.monotonic()
        due_s = self._began_s + self._count * 0.02
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        speaking = bool(self._frames)
        pcm = self._frames.popleft() if speaking else bytes(FRAME_SAMPLES * 2)
        if speaking and not self._frames:
            self._on_said(now_us())
        self._on_sent(pcm)
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(pcm)
        frame.sample_rate, frame.time_base = RATE_HZ, Fraction(1, RATE_HZ)
        frame.pts = self._count * FRAME_SAMPLES
        self._count += 1
        return frame


class Arrivals:
    """When each packet came in, by its RTP timestamp relative to the first."""

    def __init__(self, receiver: RTCRtpReceiver) -> None:
        self._at_us: dict[int, int] = {}
        self._first: int | None = None
        self._receive = receiver._handle_rtp_packet
        receiver._handle_rtp_packet = self._note  # type: ignore[method-assign] # the documented private hook

    async def _note(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        timestamp = packet.timestamp
        if self._first is None:
            self._first = timestamp
        self._at_us[(timestamp - self._first) % 2**32] = now_us()
        if len(self._at_us) > ARRIVALS_KEPT:
            del self._at_us[next(iter(self._at_us))]
        await self._receive(packet, arrival_time_ms=arrival_time_ms)

    def of(self, timestamp: int | None) -> int:
        """The arrival of the packet with the frame of this timestamp; now, where that is not known."""
        return self._at_us.get((timestamp or 0) % 2**32, now_us())


async def listen(track: MediaStreamTrack, arrivals: Arrivals, hear: Callable[[HeardFrame], None]) -> None:
    """Decode what comes in until the track ends."""
    resampler = AudioResampler(format="s16", layout="mono", rate=HEARD_RATE_HZ)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        if not isinstance(frame, AudioFrame):
            continue
        at_us = arrivals.of(frame.pts)
        for part in resampler.resample(frame):
            pcm = bytes(part.planes[0])[: part.samples * 2]
            samples = np.frombuffer(pcm, dtype="<i2").astype(np.float64)
            rms = float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
            hear(HeardFrame(at_us, pcm, rms > AUDIBLE_RMS))


class StereoRecording:
    """A WAV file, 16 kHz: left what came in, right what went out, on the beat of what goes out."""

    def __init__(self, path: Path) -> None:
        self._file = wave.open(str(path), "wb")  # noqa: SIM115 - `close` closes it
        self._file.setnchannels(2)
        self._file.setsampwidth(2)
        self._file.setframerate(HEARD_RATE_HZ)
        self._heard: deque[bytes] = deque(maxlen=MAX_QUEUED_FRAMES)

    def heard(self, pcm: bytes) -> None:
        """20 ms that came in."""
        self._heard.append(pcm)

    def sent(self, pcm: bytes) -> None:
        """20 ms that went out, at `RATE_HZ`."""
        right = np.frombuffer(pcm, dtype="<i2").reshape(-1, RATE_HZ // HEARD_RATE_HZ).mean(axis=1)
        left = np.zeros(len(right), dtype="<i2")
        if self._heard:
            samples = np.frombuffer(self._heard.popleft()[:HEARD_FRAME_BYTES], dtype="<i2")
            left[: len(samples)] = samples
        self._file.writeframes(np.stack((left, right.astype("<i2")), axis=1).tobytes())

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
