"""From resolved providers to the Pipecat services of a call.

The embedded models answer on a loopback HTTP API in the shape of OpenAI's, so that a tenant on them and a tenant on a
cloud provider run the same code with another URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.transcriptions.language import Language

from mediaserver.phrase_cache import PHRASE_RATE_HZ
from mediaserver.pipeline.hearing import Transcriber
from mediaserver.pipeline.replying import ModelReplier
from mediaserver.pipeline.speaking import Synthesizer
from tenancy import ResolvedProvider

EMBEDDED_STT_MODEL = "tiny.en"
EMBEDDED_API_KEY = "embedded"
"""The SDK insists on a key; the model process listens on loopback and does not."""


class CoarseOpenAITTS(OpenAITTSService):
    """Pipecat's OpenAI synthesis, read 100 ms at a time so that the first piece is early."""

    @property
    def chunk_size(self) -> int:
        """Bytes per read of the response."""
        return PHRASE_RATE_HZ * 2 // 10


@dataclass(frozen=True, slots=True)
class Embedded:
    """Where this machine's own models listen."""

    base_url: str
    """Root of the model process's API, ending in ``/v1``."""


def transcribers(providers: Sequence[ResolvedProvider], embedded: Embedded) -> tuple[Transcriber, ...]:
    """The transcription chain.

    No prompt with the business's vocabulary: on tiny.en it doubled the decoder's loops and gained no accuracy.
    """
    return tuple(
        Transcriber(
            provider.name,
            OpenAISTTService(
                api_key=provider.secret() or EMBEDDED_API_KEY,
                base_url=provider.base_url if provider.kind == "openai" else embedded.base_url,
                push_empty_transcripts=True,
                settings=OpenAISTTService.Settings(
                    model=provider.model or EMBEDDED_STT_MODEL, language=Language.EN
                ),
            ),
        )
        for provider in providers
    )


def synthesizers(
    providers: Sequence[ResolvedProvider], embedded: Embedded, voice: str, speed: float
) -> tuple[Synthesizer, ...]:
    """The synthesis chain."""
    chain = []
    for provider in providers:
        own = provider.kind == "openai"
        chain.append(
            Synthesizer(
                provider.name,
                CoarseOpenAITTS(
                    api_key=provider.secret() or EMBEDDED_API_KEY,
                    base_url=provider.base_url if own else embedded.base_url,
                    sample_rate=PHRASE_RATE_HZ,
                    settings=OpenAITTSService.Settings(
                        # The embedded API takes the voice as its model: Pipecat admits only OpenAI's voice names.
                        model=provider.model if own else voice,
                        voice=voice if own else "alloy",
                        speed=speed,
                    ),
                ),
            )
        )
    return tuple(chain)


def model_repliers(providers: Sequence[ResolvedProvider], system_prompt: str) -> tuple[ModelReplier, ...]:
    """The language models of the chain; the built-in receptionist is added by the caller."""
    return tuple(
        ModelReplier(
            provider.name,
            OpenAILLMService(
                api_key=provider.secret() or EMBEDDED_API_KEY,
                base_url=provider.base_url,
                settings=OpenAILLMService.Settings(
                    model=provider.model, system_instruction=system_prompt, max_completion_tokens=200
                ),
            ),
        )
        for provider in providers
        if provider.kind == "openai"
    )
