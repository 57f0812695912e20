"""What may pass for synthesised speech. Any bytes are PCM to a codec, so what is no audio must be told by other signs."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from openai import AsyncOpenAI, omit

from mediaserver.errors import FailureCause, ProviderFailed
from mediaserver.phrase_cache import PHRASE_RATE_HZ

BYTES_PER_S = PHRASE_RATE_HZ * 2
MAX_SENTENCE_S = 120
SPARE_S = 5.0
SLOWEST_S_PER_CHARACTER = 0.4
"""Figures and abbreviations take the longest: "1 000 000" is nine characters and a good second."""
NO_AUDIO = (
    "text/",
    "application/json",
    "application/xml",
    "application/problem",
    "image/",
    "video/",
    "multipart/",
)
CONTAINERS = (b"RIFF", b"OggS", b"fLaC", b"ID3", b'{"', b"<htm", b"<!DO")
"""How files begin that are no PCM; as samples they would be a loud noise."""
READ_BYTES = BYTES_PER_S // 10
"""A tenth of a second, so that the first piece is early."""


def max_audio_bytes(text: str) -> int:
    """The longest speech that a text can be, generously: what goes on is noise."""
    return int(min(MAX_SENTENCE_S, SPARE_S + SLOWEST_S_PER_CHARACTER * len(text)) * BYTES_PER_S)


async def speech(
    client: AsyncOpenAI, provider: str, *, text: str, model: str, voice: str, speed: float | None
) -> AsyncGenerator[bytes, None]:
    """Speech from an API in the shape of OpenAI's, in pieces of `READ_BYTES`: 16-bit mono at `PHRASE_RATE_HZ`.

    Raises:
        ProviderFailed: what came is no speech, or too much of it.
    """
    taken, limit = 0, max_audio_bytes(text)
    async with client.audio.speech.with_streaming_response.create(
        input=text, model=model, voice=voice, response_format="pcm", speed=omit if speed is None else speed
    ) as response:
        if response.headers.get("content-type", "").strip().lower().startswith(NO_AUDIO):
            raise ProviderFailed(provider, "an answer that is no audio", FailureCause.GARBAGE)
        async for piece in response.iter_bytes(READ_BYTES):
            if taken == 0 and piece.startswith(CONTAINERS):
                raise ProviderFailed(provider, "a file instead of samples", FailureCause.GARBAGE)
            taken += len(piece)
            if taken > limit:
                why = f"more than {limit // BYTES_PER_S} s of audio for {len(text)} characters"
                raise ProviderFailed(provider, why, FailureCause.TOO_LARGE)
            yield piece
