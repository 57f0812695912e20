"""What a caller said in one stretch, as it is given to transcription."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass

SPEECH_RATE_HZ = 16_000
BYTES_PER_MS = SPEECH_RATE_HZ * 2 // 1000
TRAILING_SILENCE_MS = 200
"""Added to a recording: recognisers garble a last word that ends with the audio."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech up to now, 16-bit mono at `SPEECH_RATE_HZ`."""

    number: int
    """While the same stretch goes on, it keeps its number."""
    pcm: bytes
    said_bytes: int
    """All of the stretch: ``pcm`` is its end, where it is longer than what is kept."""

    def wav(self) -> bytes:
        """As a file."""
        silence = bytes(TRAILING_SILENCE_MS * BYTES_PER_MS)
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(SPEECH_RATE_HZ)
            writer.writeframes(self.pcm + silence)
        return file.getvalue()

    @classmethod
    def of_wav(cls, file: bytes) -> Utterance:
        """From a file of that form. Raises `ValueError` where it is another."""
        try:
            with wave.open(io.BytesIO(file)) as reader:
                form = reader.getnchannels(), reader.getsampwidth(), reader.getframerate()
                pcm = reader.readframes(reader.getnframes())
        except (wave.Error, EOFError) as error:
            raise ValueError(f"no WAV file: {error}") from None
        if form != (1, 2, SPEECH_RATE_HZ):
            raise ValueError(f"(channels, bytes, Hz) are {form}, not (1, 2, {SPEECH_RATE_HZ})")
        return cls(0, pcm, len(pcm))
