"""From resolved providers to the Pipecat services of a call.

The embedded models answer on a loopback HTTP API in the shape of OpenAI's, so that a tenant on them and a tenant on a
cloud provider run the same code with another URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.transcriptions.language import Language
from pipecat.utils.http import connection_limits

from mediaserver.phrase_cache import PHRASE_RATE_HZ
from mediaserver.pipeline.hearing import Transcriber
from mediaserver.pipeline.replying import ModelReplier
from mediaserver.pipeline.speaking import Synthesizer
from tenancy import ResolvedProvider

EMBEDDED_STT_MODEL = "tiny.en"
EMBEDDED_API_KEY = "embedded"
"""The SDK insists on a key; the model process listens on loopback and does not."""


MAX_PROVIDER_CONNECTIONS = 1_000
MAX_IDLE_CONNECTIONS = 100


def shared_http_client() -> DefaultAsyncHttpxClient:
    """One pool of connections to all providers for the whole node; close it with the node.

    A client of its own for each call would open its connections anew in the middle of the caller's turn, and leave them
    to the garbage collector. Keys are not in it: each request carries its own.
    """
    return DefaultAsyncHttpxClient(
        limits=connection_limits(
            max_connections=MAX_PROVIDER_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE_CONNECTIONS,
            keepalive_expiry=60.0,
        )
    )


class SharedClientLLM(OpenAILLMService):
    """Pipecat's OpenAI language model service over the node's connections."""

    def __init__(self, *, http_client: DefaultAsyncHttpxClient, **options: Any) -> None:
        self._shared_http_client = http_client
        super().__init__(**options)

    def create_client(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,  # noqa: ARG002 - Pipecat's signature
        project: str | None = None,  # noqa: ARG002
        default_headers: Any = None,  # noqa: ARG002
        **_: Any,
    ) -> AsyncOpenAI:
        """Build the SDK's client; Pipecat's own would make its own connections."""
        return AsyncOpenAI(
            api_key=api_key, base_url=base_url, http_client=self._shared_http_client, max_retries=0
        )


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


@dataclass(frozen=True, slots=True)
class ProviderAccess:
    """How the calls of a node reach providers."""

    embedded: Embedded
    http: DefaultAsyncHttpxClient


def transcribers(providers: Sequence[ResolvedProvider], access: ProviderAccess) -> tuple[Transcriber, ...]:
    """The transcription chain.

    No prompt with the business's vocabulary: on tiny.en it doubled the decoder's loops and gained no accuracy.
    """
    return tuple(
        Transcriber(
            provider.name,
            OpenAISTTService(
                api_key=provider.secret() or EMBEDDED_API_KEY,
                base_url=provider.base_url if provider.kind == "openai" else access.embedded.base_url,
                http_client=access.http,
                push_empty_transcripts=True,
                settings=OpenAISTTService.Settings(
                    model=provider.model or EMBEDDED_STT_MODEL, language=Language.EN
                ),
            ),
        )
        for provider in providers
    )


def synthesizers(
    providers: Sequence[ResolvedProvider], access: ProviderAccess, voice: str, speed: float
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
                    base_url=provider.base_url if own else access.embedded.base_url,
                    http_client=access.http,
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


def model_repliers(
    providers: Sequence[ResolvedProvider], access: ProviderAccess, system_prompt: str
) -> tuple[ModelReplier, ...]:
    """The language models of the chain; the built-in receptionist is added by the caller."""
    return tuple(
        ModelReplier(
            provider.name,
            SharedClientLLM(
                http_client=access.http,
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
