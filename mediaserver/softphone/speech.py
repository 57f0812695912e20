"""What the caller says: synthesised by a voice that is not the receptionist's, or read from a WAV file."""

from __future__ import annotations

import asyncio
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from mediaserver.errors import MediaServerError

SPEECH_RATE_HZ = 24_000
SILENCE_DBFS = -50.0
MAX_UTTERANCE_S = 120
PEAK = 0.5
"""Level of the loudest sample: a telephone voice, not a shout."""
INSTALL_HINT = "pip install 'ai-receptionist-mediaserver[embedded]'"


@dataclass(frozen=True, slots=True)
class Utterance:
    """One thing to say."""

    text: str | None
    """The words, where they are known."""
    pcm: bytes
    """Signed 16-bit mono at `SPEECH_RATE_HZ`, without silence at its ends: its last packet carries speech."""


async def synthesise(text: str) -> Utterance:
    """Speak ``text`` with the voice that the package hibari-tts ships."""
    return await asyncio.to_thread(_synthesise, text)


def _synthesise(text: str) -> Utterance:
    try:
        import hibari
    except ModuleNotFoundError as error:
        raise MediaServerError(f"the caller's voice needs the package hibari-tts: {INSTALL_HINT}") from error
    voice = hibari.Hibari()
    # The seed makes a question sound the same every time, so that two runs can be compared.
    samples = np.concatenate([np.asarray(part, dtype=np.float32) for part in voice.stream(text, seed=1)])
    return Utterance(text, _finish(samples, int(hibari.SAMPLE_RATE)))


async def from_wav(path: Path) -> Utterance:
    """Read speech from a PCM WAV file, any rate, mono or stereo (the left channel)."""
    return await asyncio.to_thread(_from_wav, path)


def _from_wav(path: Path) -> Utterance:
    try:
        with wave.open(str(path), "rb") as recording:
            width, channels, rate_hz = (
                recording.getsampwidth(),
                recording.getnchannels(),
                recording.getframerate(),
            )
            if width != 2:
                raise MediaServerError(f"{path}: {8 * width}-bit samples; a 16-bit PCM WAV file is needed")
            if recording.getnframes() > MAX_UTTERANCE_S * rate_hz:
                raise MediaServerError(f"{path}: longer than {MAX_UTTERANCE_S} s")
            raw = recording.readframes(recording.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise MediaServerError(f"{path}: not a readable PCM WAV file ({error})") from error
    samples = np.frombuffer(raw, dtype="<i2").reshape(-1, channels)[:, 0].astype(np.float32) / 32768
    return Utterance(None, _finish(samples, rate_hz))


def _finish(samples: np.ndarray, rate_hz: int) -> bytes:
    """Bring to `SPEECH_RATE_HZ`, level, and trim the silence at both ends."""
    if rate_hz != SPEECH_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, SPEECH_RATE_HZ)
    loudest = float(np.max(np.abs(samples), initial=0.0))
    if loudest == 0.0:
        raise MediaServerError("the utterance is silent")
    samples = samples * (PEAK / loudest)
    window = SPEECH_RATE_HZ // 50
    whole = samples[: len(samples) // window * window].reshape(-1, window)
    level_dbfs = 20 * np.log10(np.sqrt(np.mean(whole**2, axis=1)) + 1e-9)
    loud = np.flatnonzero(level_dbfs > SILENCE_DBFS)
    if len(loud) == 0:
        raise MediaServerError("the utterance is silent")
    trimmed = samples[loud[0] * window : (loud[-1] + 1) * window]
    return (np.clip(trimmed, -1, 1) * 32767).astype("<i2").tobytes()
