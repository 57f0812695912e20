"""Which providers serve a call: the tenant's, then the platform's, then the embedded models. Sans-IO.

A step that cannot be taken (its key is not in the environment) is left out with the reason recorded, and the embedded
models end every chain, so that no chain is ever empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from config.node import PlatformProviders
from config.tenant import OpenAICompatible, Provider, Providers

DEFAULT_LLM_MODEL = "gpt-4.1-mini"


class Origin(StrEnum):
    """Whose provider it is."""

    TENANT = "tenant"
    PLATFORM = "platform"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True)
class ResolvedProvider:
    """One step of a chain, ready to use. The key is never part of its text."""

    kind: str
    """``openai`` or ``embedded``."""
    origin: Origin
    reason: str
    base_url: str | None = None
    model: str | None = None
    _key: str | None = field(default=None, repr=False)

    def secret(self) -> str | None:
        """The API key, for the client that sends it and nobody else."""
        return self._key

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        if self.kind == "embedded":
            return "embedded"
        host = (self.base_url or "openai").partition("://")[2].partition("/")[0] or "openai"
        return f"{self.origin}:{host}/{self.model}"


@dataclass(frozen=True, slots=True)
class Chains:
    """The resolved chains of a call and the steps that were left out."""

    stt: tuple[ResolvedProvider, ...]
    llm: tuple[ResolvedProvider, ...]
    tts: tuple[ResolvedProvider, ...]
    skipped: tuple[str, ...]


def resolve(providers: Providers, platform: PlatformProviders, environ: Mapping[str, str]) -> Chains:
    """The chains of a tenant on this node."""
    skipped: list[str] = []
    implicit = _implicit_llm(platform, environ)

    def chain(own: Sequence[Provider], shared: Sequence[OpenAICompatible]) -> tuple[ResolvedProvider, ...]:
        steps = [step for step in own if isinstance(step, OpenAICompatible)]
        resolved = [_step(step, Origin.TENANT, environ, skipped) for step in steps]
        if providers.use_platform:
            resolved += [_step(step, Origin.PLATFORM, environ, skipped) for step in shared]
        found = [step for step in resolved if step is not None]
        named = any(step.kind == "embedded" for step in own)
        why = "named by the tenant" if named else "the last step of every chain"
        return (*found, ResolvedProvider("embedded", Origin.FALLBACK, why))

    return Chains(
        stt=chain(providers.stt, platform.stt),
        llm=chain(providers.llm, (*platform.llm, *implicit)),
        tts=chain(providers.tts, platform.tts),
        skipped=tuple(skipped),
    )


def _implicit_llm(platform: PlatformProviders, environ: Mapping[str, str]) -> tuple[OpenAICompatible, ...]:
    """``OPENAI_API_KEY`` alone is enough for a real language model."""
    if platform.llm or not environ.get("OPENAI_API_KEY"):
        return ()
    return (
        OpenAICompatible(
            base_url=environ.get("OPENAI_BASE_URL") or None,
            model=environ.get("OPENAI_MODEL") or DEFAULT_LLM_MODEL,
            api_key_env="OPENAI_API_KEY",
        ),
    )


def _step(
    step: OpenAICompatible, origin: Origin, environ: Mapping[str, str], skipped: list[str]
) -> ResolvedProvider | None:
    key = environ.get(step.api_key_env) if step.api_key_env else None
    if step.api_key_env and not key:
        skipped.append(f"{origin} {step.model}: {step.api_key_env} is not set")
        return None
    if key is None and step.base_url is None:
        skipped.append(f"{origin} {step.model}: neither base_url nor api_key_env is given")
        return None
    return ResolvedProvider("openai", origin, f"named by the {origin}", step.base_url, step.model, key)
