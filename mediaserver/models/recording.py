"""Audio files on the wire: what is accepted for transcription and how a stream of speech begins."""

from __future__ import annotations

import io
import wave

import numpy as np
import soxr

from mediaserver.models.engines import SPEECH_RATE_HZ, TRANSCRIPTION_RATE_HZ, Samples

MIN_RATE_HZ = 4_000
MAX_RATE_HZ = 192_000
_UNKNOWN_LENGTH = b"\xff\xff\xff\xff"


class RecordingError(Exception):
    """The audio cannot be transcribed; `status` is the HTTP status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def read_wav(body: bytes, max_audio_s: float) -> Samples:
    """The left channel of a 16-bit PCM WAV file at `TRANSCRIPTION_RATE_HZ`; raises `RecordingError`."""
    try:
        with wave.open(io.BytesIO(body), "rb") as recording:
            rate_hz, channels = recording.getframerate(), recording.getnchannels()
            if recording.getsampwidth() != 2:
                raise RecordingError(400, "only 16-bit PCM WAV files can be transcribed")
            raw = recording.readframes(recording.getnframes())
    except (wave.Error, EOFError) as error:
        raise RecordingError(400, f"the file is no PCM WAV file: {error}") from error
    return read_pcm(raw, rate_hz, channels, max_audio_s)


def read_pcm(raw: bytes, rate_hz: int, channels: int, max_audio_s: float) -> Samples:
    """The left channel of signed 16-bit little-endian samples at `TRANSCRIPTION_RATE_HZ`; raises `RecordingError`."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise RecordingError(
            400, f"a sample rate of {rate_hz} Hz is not between {MIN_RATE_HZ} and {MAX_RATE_HZ}"
        )
    whole = len(raw) // (2 * channels) * 2 * channels
    samples = np.frombuffer(raw[:whole], dtype="<i2").reshape(-1, channels)[:, 0].astype(np.float32) / 32768
    if len(samples) > max_audio_s * rate_hz:
        raise RecordingError(413, f"the audio is longer than {max_audio_s:g} s")
    if rate_hz != TRANSCRIPTION_RATE_HZ:
        samples = soxr.resample(samples, rate_hz, TRANSCRIPTION_RATE_HZ)
    return samples.astype(np.float32)


def wav_stream_header() -> bytes:
    """The header of a WAV file of speech whose length is not known yet."""
    container = io.BytesIO()
    with wave.open(container, "wb") as header:
        header.setnchannels(1)
        header.setsampwidth(2)
        header.setframerate(SPEECH_RATE_HZ)
    raw = container.getvalue()
    return raw[:4] + _UNKNOWN_LENGTH + raw[8:40] + _UNKNOWN_LENGTH
