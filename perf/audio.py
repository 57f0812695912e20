"""The benchmarks' caller: a synthesised question as PCM and as packets on the line."""

from __future__ import annotations

import asyncio
import struct

import numpy as np
import numpy.typing as npt
import soxr

from mediaserver.softphone.speech import SPEECH_RATE_HZ, Utterance, synthesise

Samples = npt.NDArray[np.int16]

LINE_RATE_HZ = 8_000
FRAME = 160
PACKET_MS = 20
PACKET_US = 20_000
QUESTIONS = ("Are you open on Friday?", "Do you have fresh bread?", "Can I order a cake?")
AUDIBLE = 8
"""G.711's quietest steps are not sound."""


def _mu_table() -> npt.NDArray[np.int32]:
    """G.711 table 2: inverted on the line, segments double from a bias of 132."""
    code = ~np.arange(256) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 132) << ((code >> 4) & 7)) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int32)


_TABLE = _mu_table()
_ORDER = np.argsort(_TABLE, kind="stable")
_LEVELS = _TABLE[_ORDER]
_QUIET_CODES = bytes(int(code) for code in np.flatnonzero(np.abs(_TABLE) <= AUDIBLE))
SILENCE = bytes([0xFF]) * FRAME


def encode(samples: Samples) -> bytes:
    """The nearest µ-law code of each sample."""
    places = np.clip(np.searchsorted(_LEVELS, samples), 1, 255)
    lower = np.abs(samples - _LEVELS[places - 1]) <= np.abs(samples - _LEVELS[places])
    return bytes(_ORDER[places - lower].astype(np.uint8))


def decode(codes: bytes) -> Samples:
    """The samples of µ-law codes."""
    return _TABLE[np.frombuffer(codes, dtype=np.uint8)].astype(np.int16)


def audible(payload: bytes) -> bool:
    """Whether a µ-law payload holds any sound."""
    return bool(payload.translate(None, _QUIET_CODES))


def packet(sequence: int, timestamp: int, ssrc: int, payload: bytes) -> bytes:
    """An RTP packet (RFC 3550 5.1) with PCMU."""
    return struct.pack("!BBHII", 0x80, 0, sequence & 0xFFFF, timestamp & 0xFFFF_FFFF, ssrc) + payload


def at_rate(utterance: Utterance, rate_hz: int) -> Samples:
    """The utterance's samples at another rate."""
    samples = np.frombuffer(utterance.pcm, dtype="<i2")
    return np.asarray(soxr.resample(samples, SPEECH_RATE_HZ, rate_hz), dtype=np.int16)


def frames(utterance: Utterance) -> list[bytes]:
    """The utterance as payloads of 20 ms."""
    codes = encode(at_rate(utterance, LINE_RATE_HZ))
    return [codes[at : at + FRAME] for at in range(0, len(codes) - FRAME + 1, FRAME)]


def questions() -> tuple[Utterance, ...]:
    """The questions, spoken; the same each time."""

    async def all_of_them() -> tuple[Utterance, ...]:
        return tuple([await synthesise(text) for text in QUESTIONS])

    return asyncio.run(all_of_them())
