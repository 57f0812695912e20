"""Which providers serve a call: the tenant's, then the platform's, then the embedded models. Sans-IO.

A step that cannot be taken (its key is not in the environment or the vault, or its provider refuses it at present) is left
out with the reason recorded, and the embedded models end every chain, so that no chain is ever empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from config.node import PlatformProviders
from config.tenant import Deepgram, Listener, OpenAICompatible, Price, Provider, Providers
from tenancy.call_keys import CallKeys
from vault.resolver import KeyRef, KeyState, Origin

DEFAULT_LLM_MODEL: Final = "gpt-4.1-mini"
OPENAI_API_ROOT: Final = "https://api.openai.com/v1"
OPENAI_KEY: Final = "OPENAI_API_KEY"
DEEPGRAM_API_ROOT: Final = "https://api.deepgram.com/v1"
DEEPGRAM_KEY: Final = "DEEPGRAM_API_KEY"
_API_ROOT: Final = re.compile(r"https?://[^\s/?#]+[^\s?#]*")


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
    key_ref: KeyRef | None = None
    """Which key that is, where what its provider says of it is kept: in the calls of tenants with keys in the vault."""
    price: Price | None = None
    """What it charges, as its configuration says; the edge's alone."""

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
class ProviderStep:
    """One step of a service's chain as it was resolved, and why it is taken or left out. Nothing in it is secret."""

    service: str
    """``stt``, ``llm`` or ``tts``."""
    origin: Origin
    model: str
    """``embedded`` for the models of this machine."""
    reason: str
    provider: str | None = None
    """What logs and metrics call it (`ResolvedProvider.name`); None: it is left out."""

    def __str__(self) -> str:
        return f"{self.service}: {self.origin} {self.model}: {self.reason}"


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """A step that cannot be taken."""

    origin: Origin
    model: str | None
    reason: str


_Outcome = ResolvedProvider | _LeftOut


@dataclass(frozen=True, slots=True)
class Chains:
    """The resolved chains of a call and the steps that were left out."""

    stt: tuple[ResolvedProvider, ...]
    llm: tuple[ResolvedProvider, ...]
    tts: tuple[ResolvedProvider, ...]
    skipped: tuple[str, ...]
    steps: tuple[ProviderStep, ...] = ()
    """Every step of each service in order, with the reason why it is taken or left out: for the call's record."""
    voice: str | None = None
    """The name of the first that speaks when its key is not held off: fixed phrases are in its voice."""


def resolve(
    providers: Providers,
    platform: PlatformProviders,
    environ: Mapping[str, str],
    keys: CallKeys | None = None,
) -> Chains:
    """The chains of a tenant on this node. ``keys`` are those that it names in its vault; None: there are none to be had.

    A chain is: the tenant's own providers in their order, the platform's, the embedded models. ``embedded`` in a
    tenant's list therefore adds nothing; a tenant that wants nothing else sets ``use_platform: false``. For the LLM,
    a platform that configures none has OpenAI's as soon as ``OPENAI_API_KEY`` is set.
    """
    recorded: list[ProviderStep] = []
    first: dict[str, str] = {}

    def chain(
        service: str, own: Sequence[Provider | Listener], shared: Sequence[OpenAICompatible | Deepgram]
    ) -> tuple[ResolvedProvider, ...]:
        steps: list[tuple[Origin, OpenAICompatible | Deepgram]] = [
            (Origin.TENANT, step) for step in own if isinstance(step, OpenAICompatible | Deepgram)
        ]
        if providers.use_platform:
            steps += [(Origin.PLATFORM, step) for step in shared]
        outcomes: list[_Outcome] = [
            _priced(_step(step, origin, providers.use_platform, environ, keys), step.price)
            for origin, step in steps
        ]
        if providers.use_platform and service == "llm" and not shared and environ.get(OPENAI_KEY, "").strip():
            outcomes.append(_implicit_llm(environ, keys))
        named = any(step.kind == "embedded" for step in own)
        why = "named by the tenant" if named else "the last step of every chain"
        last = ResolvedProvider("embedded", Origin.FALLBACK, why)
        first[service] = next(
            (each.name for each in outcomes if isinstance(each, ResolvedProvider)), last.name
        )
        if keys is not None:
            outcomes = list(_judged(service, outcomes, keys))
        recorded.extend(_told(service, outcome) for outcome in (*outcomes, last))
        return (*(outcome for outcome in outcomes if isinstance(outcome, ResolvedProvider)), last)

    return Chains(
        stt=chain("stt", providers.stt, platform.stt),
        llm=chain("llm", providers.llm, platform.llm),
        tts=chain("tts", providers.tts, platform.tts),
        skipped=tuple(str(step) for step in recorded if step.provider is None),
        steps=tuple(recorded),
        voice=first["tts"],
    )


def _priced(outcome: _Outcome, price: Price | None) -> _Outcome:
    return replace(outcome, price=price) if isinstance(outcome, ResolvedProvider) else outcome


def _told(service: str, outcome: _Outcome) -> ProviderStep:
    if isinstance(outcome, _LeftOut):
        return ProviderStep(service, outcome.origin, str(outcome.model), outcome.reason)
    return ProviderStep(service, outcome.origin, outcome.model or outcome.kind, outcome.reason, outcome.name)


def _judged(service: str, outcomes: Sequence[_Outcome], keys: CallKeys) -> Iterator[_Outcome]:
    """The same without the steps whose key is held off: in their place stands why."""
    candidates = [outcome for outcome in outcomes if isinstance(outcome, ResolvedProvider)]
    judged = iter(keys.judge(service, [(each.model or each.kind, each.key_ref) for each in candidates]))
    for outcome in outcomes:
        if isinstance(outcome, _LeftOut):
            yield outcome
            continue
        step = next(judged)
        if step.state is not KeyState.USABLE:
            yield _LeftOut(outcome.origin, outcome.model, step.reason)
        elif outcome.key_ref is not None:
            yield replace(outcome, reason=f"{outcome.reason}; {step.reason}")
        else:
            yield outcome


def _implicit_llm(environ: Mapping[str, str], keys: CallKeys | None) -> _Outcome:
    """``OPENAI_API_KEY`` alone is enough for a real language model."""
    model = environ.get("OPENAI_MODEL", "").strip() or DEFAULT_LLM_MODEL
    key = environ[OPENAI_KEY].strip()
    reason = f"{OPENAI_KEY} is set"
    ref = None if keys is None else KeyRef(None, OPENAI_KEY)
    root = _platform_root(environ)
    return _checked(ResolvedProvider("openai", Origin.PLATFORM, reason, root, model, key, ref))


def _step(
    step: OpenAICompatible | Deepgram,
    origin: Origin,
    use_platform: bool,
    environ: Mapping[str, str],
    keys: CallKeys | None,
) -> _Outcome:
    """The step, ready to use, or why it is left out."""
    if step.key is not None:
        return _with_vault_key(step, step.key, origin, keys)
    variable = step.api_key_env
    if variable is None and step.base_url is not None:
        reason = f"named by the {origin}, without a key"
        return _checked(ResolvedProvider(step.kind, origin, reason, step.base_url, step.model))
    if variable is None:
        # Neither URL nor key: this model on the platform's account.
        if not use_platform:
            return _LeftOut(origin, step.model, "the platform's account is not used (use_platform is false)")
        variable = OPENAI_KEY if step.kind == "openai" else DEEPGRAM_KEY
    key = environ.get(variable, "").strip()
    if not key:
        return _LeftOut(origin, step.model, f"{variable} is not set")
    reason = f"named by the {origin}, key from {variable}"
    root = step.base_url or _default_root(step.kind, variable, environ)
    ref = None
    if keys is not None:
        # A tenant's step without a key of its own is on the platform's account.
        tenants = origin is Origin.TENANT and step.api_key_env is not None
        ref = KeyRef(keys.tenant_id, f"env:{variable}") if tenants else KeyRef(None, variable)
    return _checked(ResolvedProvider(step.kind, origin, reason, root, step.model, key, ref))


def _with_vault_key(
    step: OpenAICompatible | Deepgram, name: str, origin: Origin, keys: CallKeys | None
) -> _Outcome:
    found = keys.found.get(name) if keys is not None else None
    if keys is None or found is None:
        return _LeftOut(origin, step.model, f"key {name} is missing: this node has no vault")
    if found.secret is None:
        return _LeftOut(origin, step.model, f"key {name} {found.reason}")
    reason = f"named by the {origin}, key from its vault"
    # Not the platform's gateway: a tenant's own key must not go there.
    root = step.base_url or (DEEPGRAM_API_ROOT if step.kind == "deepgram" else OPENAI_API_ROOT)
    ref = KeyRef(keys.tenant_id, name, found.version)
    return ResolvedProvider(step.kind, origin, reason, root, step.model, found.secret.reveal(), ref)


def _default_root(kind: str, variable: str, environ: Mapping[str, str]) -> str:
    if kind == "deepgram":
        return DEEPGRAM_API_ROOT
    # OPENAI_BASE_URL belongs to OPENAI_API_KEY: a tenant's own key must not go to the platform's gateway.
    return _platform_root(environ) if variable == OPENAI_KEY else OPENAI_API_ROOT


def _checked(provider: ResolvedProvider) -> _Outcome:
    if not _API_ROOT.fullmatch(provider.base_url or ""):
        return _LeftOut(
            provider.origin, provider.model, "OPENAI_BASE_URL is not an http(s) URL without a query"
        )
    return provider


def _platform_root(environ: Mapping[str, str]) -> str:
    return environ.get("OPENAI_BASE_URL", "").strip() or OPENAI_API_ROOT
