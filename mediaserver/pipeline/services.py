"""From resolved providers to the chains of a call.

The embedded models answer on a loopback HTTP API in the shape of OpenAI's, so that a tenant on them and a tenant on a
cloud provider run the same code with another URL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from mediaserver.pipeline.deepgram_links import DeepgramTranscriber
from mediaserver.pipeline.hearing import Transcriber
from mediaserver.pipeline.openai_links import OpenAIReplier, OpenAISynthesizer, OpenAITranscriber
from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.breaker import BreakerKey, Stage
from mediaserver.providers.connections import ConnectionWarmer, ProviderClient
from mediaserver.providers.key_watch import Tell
from mediaserver.providers.openai_api import OpenAIApi
from mediaserver.providers.trail import ProviderTrail
from tenancy import ResolvedProvider, TenantContext
from tenancy.spending import Usage

EMBEDDED_STT_MODEL = "tiny.en"
EMBEDDED_API_KEY = "embedded"
"""The model process listens on loopback and asks for none."""


Spent = Callable[[str, str, Usage], None]
"""Takes what a request has used: the service, the provider's name, and how much."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Where this machine's own models listen."""

    base_url: str
    """Root of the model process's API, ending in ``/v1``."""


@dataclass(frozen=True, slots=True)
class ProviderAccess:
    """How the calls of a node reach providers."""

    embedded: Embedded
    http: ProviderClient
    care: ProviderCare = field(default_factory=ProviderCare.fresh)
    warmer: ConnectionWarmer | None = None
    spent: Spent = field(default=lambda *_: None)
    """Told of what each request has used."""

    def root_of(self, provider: ResolvedProvider) -> str:
        """The root of the provider's API."""
        return provider.base_url or self.embedded.base_url

    def api_of(self, provider: ResolvedProvider) -> OpenAIApi:
        """The provider's API with the tenant's key."""
        return OpenAIApi(self.http, self.root_of(provider), provider.secret() or EMBEDDED_API_KEY)

    def telling(self, tell: Tell, on_dropped: Callable[[], object]) -> ProviderAccess:
        """The same for one call, whose reports on keys go to ``tell``; ``on_dropped`` is told of each that is over the rate."""
        care = replace(self.care, keys=self.care.keys.for_call(tell, on_dropped))
        return replace(self, care=care)

    def leaving(self, trail: ProviderTrail) -> ProviderAccess:
        """The same for one call, which leaves this trail."""
        return replace(self, care=replace(self.care, trail=trail))

    def warm(self, tenant: TenantContext) -> None:
        """Open connections to whom a call of this tenant will ask; returns at once."""
        if self.warmer is not None:
            # A provider that listens is connected to by the call itself.
            asked = [one for one in tenant.stt if one.kind != "deepgram"]
            asked += [one for one in tenant.llm if one.kind == "openai"]
            asked += tenant.tts
            self.warmer.warm({self.root_of(one) for one in asked})


def breaker_key(stage: Stage, provider: ResolvedProvider, access: ProviderAccess) -> BreakerKey:
    """The breaker that this provider shares with all calls that reach it with the same key."""
    return BreakerKey.of(
        stage, provider.name, access.root_of(provider), provider.model or "", provider.secret() or ""
    )


def transcriber(provider: ResolvedProvider, access: ProviderAccess) -> Transcriber:
    """A link of the transcription chain.

    No prompt with the business's vocabulary: on tiny.en it doubled the decoder's loops and gained no accuracy.
    """
    breaker = breaker_key(Stage.STT, provider, access)
    if provider.kind == "deepgram":
        return DeepgramTranscriber(
            provider.name,
            access.http,
            access.root_of(provider),
            provider.secret() or "",
            provider.model or "",
            breaker,
            key_ref=provider.key_ref,
            spent=partial(access.spent, "stt", provider.name),
        )
    return OpenAITranscriber(
        provider.name,
        access.api_of(provider),
        provider.model or EMBEDDED_STT_MODEL,
        breaker,
        last_resort=provider.kind == "embedded",
        key_ref=provider.key_ref,
        spent=partial(access.spent, "stt", provider.name),
    )


def transcribers(providers: Sequence[ResolvedProvider], access: ProviderAccess) -> tuple[Transcriber, ...]:
    """The transcription chain."""
    return tuple(transcriber(provider, access) for provider in providers)


def synthesizer(
    provider: ResolvedProvider, access: ProviderAccess, voice: str, speed: float
) -> OpenAISynthesizer:
    """A link of the synthesis chain."""
    own = provider.kind == "openai"
    return OpenAISynthesizer(
        provider.name,
        access.api_of(provider),
        # The embedded API takes the voice as its model, as it takes OpenAI's names of voices with OpenAI's models.
        (provider.model or "") if own else voice,
        voice if own else "alloy",
        speed,
        breaker_key(Stage.TTS, provider, access),
        last_resort=not own,
        key_ref=provider.key_ref,
        spent=partial(access.spent, "tts", provider.name),
    )


def synthesizers(
    providers: Sequence[ResolvedProvider], access: ProviderAccess, voice: str, speed: float
) -> tuple[OpenAISynthesizer, ...]:
    """The synthesis chain."""
    return tuple(synthesizer(provider, access, voice, speed) for provider in providers)


def model_repliers(
    providers: Sequence[ResolvedProvider], access: ProviderAccess, system_prompt: str
) -> tuple[OpenAIReplier, ...]:
    """The language models of the chain; the built-in receptionist is added by the caller."""
    return tuple(
        OpenAIReplier(
            provider.name,
            access.api_of(provider),
            provider.model or "",
            system_prompt,
            breaker_key(Stage.LLM, provider, access),
            key_ref=provider.key_ref,
            spent=partial(access.spent, "llm", provider.name),
        )
        for provider in providers
        if provider.kind == "openai"
    )
