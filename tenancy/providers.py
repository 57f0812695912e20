"""Which providers serve a call: the tenant's, then the platform's, then the embedded models. Sans-IO.

A step that cannot be taken (its key is not in the environment) is left out with the reason recorded, and the embedded
models end every chain, so that no chain is ever empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from config.node import PlatformProviders
from config.tenant import Deepgram, Listener, OpenAICompatible, Provider, Providers

DEFAULT_LLM_MODEL: Final = "gpt-4.1-mini"
OPENAI_API_ROOT: Final = "https://api.openai.com/v1"
OPENAI_KEY: Final = "OPENAI_API_KEY"
DEEPGRAM_API_ROOT: Final = "https://api.deepgram.com/v1"
DEEPGRAM_KEY: Final = "DEEPGRAM_API_KEY"
_API_ROOT: Final = re.compile(r"https?://[^\s/?#]+[^\s?#]*")


class Origin(StrEnum):
    """Whose provider it is."""

    TENANT = "tenant"
    PLATFORM = "platform"
    FALLBACK = "fallback"


@dataclass(frozen=True, slots=True)
class ResolvedProvider:
    """One step of a chain, ready to use. The key is never part of its text."""

    kind: str
    """``openai``, ``deepgram`` or ``embedded``."""
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
        host = (self.base_url or OPENAI_API_ROOT).partition("://")[2].partition("/")[0].rpartition("@")[2]
        return f"{self.origin}:{host}/{self.model}"


@dataclass(frozen=True, slots=True)
class Chains:
    """The resolved chains of a call and the steps that were left out."""

    stt: tuple[ResolvedProvider, ...]
    llm: tuple[ResolvedProvider, ...]
    tts: tuple[ResolvedProvider, ...]
    skipped: tuple[str, ...]


def resolve(providers: Providers, platform: PlatformProviders, environ: Mapping[str, str]) -> Chains:
    """The chains of a tenant on this node.

    A chain is: the tenant's own providers in their order, the platform's, the embedded models. ``embedded`` in a
    tenant's list therefore adds nothing; a tenant that wants nothing else sets ``use_platform: false``. For the LLM,
    a platform that configures none has OpenAI's as soon as ``OPENAI_API_KEY`` is set.
    """
    skipped: list[str] = []

    def chain(
        service: str, own: Sequence[Provider | Listener], shared: Sequence[OpenAICompatible | Deepgram]
    ) -> tuple[ResolvedProvider, ...]:
        steps: list[tuple[Origin, OpenAICompatible | Deepgram]] = [
            (Origin.TENANT, step) for step in own if isinstance(step, OpenAICompatible | Deepgram)
        ]
        if providers.use_platform:
            steps += [(Origin.PLATFORM, step) for step in shared]
        outcomes = [_step(step, origin, providers.use_platform, environ) for origin, step in steps]
        if providers.use_platform and service == "llm" and not shared and environ.get(OPENAI_KEY, "").strip():
            outcomes.append(_implicit_llm(environ))
        skipped.extend(f"{service}: {outcome}" for outcome in outcomes if isinstance(outcome, str))
        named = any(step.kind == "embedded" for step in own)
        why = "named by the tenant" if named else "the last step of every chain"
        found = [outcome for outcome in outcomes if isinstance(outcome, ResolvedProvider)]
        return (*found, ResolvedProvider("embedded", Origin.FALLBACK, why))

    return Chains(
        stt=chain("stt", providers.stt, platform.stt),
        llm=chain("llm", providers.llm, platform.llm),
        tts=chain("tts", providers.tts, platform.tts),
        skipped=tuple(skipped),
    )


def _implicit_llm(environ: Mapping[str, str]) -> ResolvedProvider | str:
    """``OPENAI_API_KEY`` alone is enough for a real language model."""
    model = environ.get("OPENAI_MODEL", "").strip() or DEFAULT_LLM_MODEL
    key = environ[OPENAI_KEY].strip()
    reason = f"{OPENAI_KEY} is set"
    return _checked(ResolvedProvider("openai", Origin.PLATFORM, reason, _platform_root(environ), model, key))


def _step(
    step: OpenAICompatible | Deepgram, origin: Origin, use_platform: bool, environ: Mapping[str, str]
) -> ResolvedProvider | str:
    """The step, ready to use, or why it is left out."""
    variable = step.api_key_env
    if variable is None and step.base_url is not None:
        reason = f"named by the {origin}, without a key"
        return _checked(ResolvedProvider(step.kind, origin, reason, step.base_url, step.model))
    if variable is None:
        # Neither URL nor key: this model on the platform's account.
        if not use_platform:
            return f"{origin} {step.model}: the platform's account is not used (use_platform is false)"
        variable = OPENAI_KEY if step.kind == "openai" else DEEPGRAM_KEY
    key = environ.get(variable, "").strip()
    if not key:
        return f"{origin} {step.model}: {variable} is not set"
    reason = f"named by the {origin}, key from {variable}"
    root = step.base_url or _default_root(step.kind, variable, environ)
    return _checked(ResolvedProvider(step.kind, origin, reason, root, step.model, key))


def _default_root(kind: str, variable: str, environ: Mapping[str, str]) -> str:
    if kind == "deepgram":
        return DEEPGRAM_API_ROOT
    # OPENAI_BASE_URL belongs to OPENAI_API_KEY: a tenant's own key must not go to the platform's gateway.
    return _platform_root(environ) if variable == OPENAI_KEY else OPENAI_API_ROOT


def _checked(provider: ResolvedProvider) -> ResolvedProvider | str:
    if not _API_ROOT.fullmatch(provider.base_url or ""):
        return f"{provider.origin} {provider.model}: OPENAI_BASE_URL is not an http(s) URL without a query"
    return provider


def _platform_root(environ: Mapping[str, str]) -> str:
    return environ.get("OPENAI_BASE_URL", "").strip() or OPENAI_API_ROOT
