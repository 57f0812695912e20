"""From resolved providers to the Pipecat services of a call.

The embedded models answer on a loopback HTTP API in the shape of OpenAI's, so that a tenant on them and a tenant on a
cloud provider run the same code with another URL.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pipecat.frames.frames import Frame, TranscriptionFrame, TTSAudioRawFrame
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.transcriptions.language import Language
from pipecat.utils.time import time_now_iso8601

from mediaserver.errors import FailureCause, ProviderFailed
from mediaserver.phrase_cache import PHRASE_RATE_HZ
from mediaserver.pipeline.audio_answers import speech
from mediaserver.pipeline.hearing import Transcriber
from mediaserver.pipeline.replying import ModelReplier
from mediaserver.pipeline.speaking import Synthesizer
from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.breaker import BreakerKey, Stage
from mediaserver.providers.connections import ConnectionWarmer, ProviderClient
from mediaserver.providers.stats import ProviderStats
from tenancy import ResolvedProvider, TenantContext

EMBEDDED_STT_MODEL = "tiny.en"
EMBEDDED_API_KEY = "embedded"
"""The SDK insists on a key; the model process listens on loopback and does not."""


def shared_http_client(stats: ProviderStats | None = None) -> ProviderClient:
    """One pool of connections to all providers for the whole process; close it with the process."""
    return ProviderClient(stats)


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


class ExactOpenAISTT(OpenAISTTService):
    """Pipecat's OpenAI transcription without what hides failures: the SDK's retries, frames in place of errors.

    It also keeps what the caller said out of the log.
    """

    def __init__(self, provider: str, **options: Any) -> None:
        super().__init__(**options)
        self._stt_provider = provider
        self._client.max_retries = 0

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame, None]:
        """Transcribe one utterance; raises what the SDK raises, and `ProviderFailed` where there is no text."""
        answer = await self._transcribe(audio)
        # The SDK does not check shapes: of another kind of content it makes a str, and any JSON may be the text.
        text = getattr(answer, "text", None)
        if not isinstance(text, str):
            raise ProviderFailed(self._stt_provider, "an answer without a transcript", FailureCause.GARBAGE)
        yield TranscriptionFrame(text, "caller", time_now_iso8601())


class ExactOpenAITTS(OpenAITTSService):
    """Pipecat's OpenAI synthesis with small first pieces, checked and bounded, without the SDK's retries."""

    def __init__(self, provider: str, **options: Any) -> None:
        super().__init__(**options)
        self._tts_provider = provider
        self._client.max_retries = 0

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame, None]:
        """Speak one sentence; raises what `speech` raises."""
        settings: Any = self._settings  # Pipecat's alias, which mypy cannot follow.
        pieces = speech(
            self._client,
            self._tts_provider,
            text=text,
            model=str(settings.model),
            voice=str(settings.voice),
            speed=settings.speed if isinstance(settings.speed, int | float) else None,
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield TTSAudioRawFrame(piece, PHRASE_RATE_HZ, 1, context_id=context_id)


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
    care: ProviderCare = field(default_factory=ProviderCare.fresh)
    warmer: ConnectionWarmer | None = None

    def root_of(self, provider: ResolvedProvider) -> str:
        """The root of the provider's API."""
        return provider.base_url or self.embedded.base_url

    def warm(self, tenant: TenantContext) -> None:
        """Open connections to whom a call of this tenant will ask; returns at once."""
        if self.warmer is not None:
            asked = (*tenant.stt, *tenant.llm, *tenant.tts)
            models = [one for one in tenant.llm if one.kind != "openai"]
            self.warmer.warm({self.root_of(one) for one in asked if one not in models})


def breaker_key(stage: Stage, provider: ResolvedProvider, access: ProviderAccess) -> BreakerKey:
    """The breaker that this provider shares with all calls that reach it with the same key."""
    return BreakerKey.of(
        stage, provider.name, access.root_of(provider), provider.model or "", provider.secret() or ""
    )


def transcribers(providers: Sequence[ResolvedProvider], access: ProviderAccess) -> tuple[Transcriber, ...]:
    """The transcription chain.

    No prompt with the business's vocabulary: on tiny.en it doubled the decoder's loops and gained no accuracy.
    """
    return tuple(
        Transcriber(
            provider.name,
            ExactOpenAISTT(
                provider.name,
                api_key=provider.secret() or EMBEDDED_API_KEY,
                base_url=access.root_of(provider),
                http_client=access.http,
                settings=OpenAISTTService.Settings(
                    model=provider.model or EMBEDDED_STT_MODEL, language=Language.EN
                ),
            ),
            breaker_key(Stage.STT, provider, access),
            last_resort=provider.kind == "embedded",
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
                ExactOpenAITTS(
                    provider.name,
                    api_key=provider.secret() or EMBEDDED_API_KEY,
                    base_url=access.root_of(provider),
                    http_client=access.http,
                    sample_rate=PHRASE_RATE_HZ,
                    settings=OpenAITTSService.Settings(
                        # The embedded API takes the voice as its model: Pipecat admits only OpenAI's voice names.
                        model=provider.model if own else voice,
                        voice=voice if own else "alloy",
                        speed=speed,
                    ),
                ),
                breaker_key(Stage.TTS, provider, access),
                last_resort=not own,
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
            breaker_key(Stage.LLM, provider, access),
        )
        for provider in providers
        if provider.kind == "openai"
    )
