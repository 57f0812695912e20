"""Turning what the other side said into text, for the printout."""

from __future__ import annotations

import io
import wave

import openai
from openai import AsyncOpenAI

from mediaserver._native import SpeechAudio, SpeechStarted, SpeechStopped
from mediaserver.media_link import MediaEvent

HEARD_RATE_HZ = 16_000
MAX_STRETCH_BYTES = 60 * HEARD_RATE_HZ * 2
"""A minute of one stretch of speech; what follows is not transcribed."""
TRANSCRIPTION_TIMEOUT_S = 30.0


class Ear:
    """Collects a stretch of speech from the leg's events and has it transcribed."""

    def __init__(self, base_url: str) -> None:
        self._client = AsyncOpenAI(
            api_key="embedded", base_url=base_url, timeout=TRANSCRIPTION_TIMEOUT_S, max_retries=0
        )
        self._pcm = bytearray()

    def event(self, event: MediaEvent) -> None:
        """Keep the audio of speech events."""
        if isinstance(event, SpeechStarted | SpeechAudio | SpeechStopped):
            room = MAX_STRETCH_BYTES - len(self._pcm)
            self._pcm += event.pcm[:room]

    async def transcribe(self) -> str:
        """The text of what was collected since the last call; a bracketed note when nobody can say."""
        pcm = bytes(self._pcm)
        self._pcm.clear()
        if not pcm:
            return "(inaudible)"
        container = io.BytesIO()
        with wave.open(container, "wb") as recording:
            recording.setnchannels(1)
            recording.setsampwidth(2)
            recording.setframerate(HEARD_RATE_HZ)
            recording.writeframes(pcm)
        try:
            result = await self._client.audio.transcriptions.create(
                model="tiny.en", file=("heard.wav", container.getvalue(), "audio/wav")
            )
        except openai.OpenAIError as error:
            return f"(not transcribed: {error})"
        return result.text.strip() or "(unintelligible)"

    async def close(self) -> None:
        """Release the connections."""
        await self._client.close()
