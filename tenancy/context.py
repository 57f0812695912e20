"""What a call knows of its tenant: built once, frozen, passed explicitly."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from config.tenant import TenantConfig
from tenancy.call_keys import key_names
from tenancy.providers import ProviderStep, ResolvedProvider


@dataclass(frozen=True, slots=True)
class TenantContext:
    """One call's tenant: its configuration at the version that the call began with, and who serves it."""

    tenant_id: str
    call_id: str
    called_number: str
    """The number, SIP address or site key, as the registry has it."""
    trunk_id: str
    """The trunk that the call came on."""
    config: TenantConfig
    config_version: int
    content_hash: str
    stt: tuple[ResolvedProvider, ...]
    llm: tuple[ResolvedProvider, ...]
    tts: tuple[ResolvedProvider, ...]
    skipped_providers: tuple[str, ...] = ()
    provider_steps: tuple[ProviderStep, ...] = ()
    """Every step of each service's chain and why it is taken or left out; the edge's alone."""

    voice_of: str | None = None
    """The provider that made the fixed phrases; None: the first that speaks."""

    @property
    def phrase_voice(self) -> str:
        """The name of the provider in whose voice fixed phrases are."""
        return self.voice_of or self.tts[0].name

    @property
    def has_vault_keys(self) -> bool:
        """Whether its configuration names keys in the vault."""
        return bool(key_names(self.config.providers))


@dataclass(frozen=True, slots=True)
class ResolvedTenant:
    """Who was called."""

    tenant_id: str
    called_number: str
    """The number, SIP address or site key, as the registry has it."""
    trunk_id: str


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version of a tenant's configuration and where it came from."""

    version: int
    content_hash: str
    schema_version: int
    author: str
    reason: str
    created_at: datetime
    active: bool


@dataclass(frozen=True, slots=True)
class ActiveTenant:
    """A tenant that takes calls on this node, for start-up work."""

    config: TenantConfig
    config_version: int
    tts: tuple[ResolvedProvider, ...]


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What stays of a call."""

    call_id: str
    called: str
    caller: str
    config_version: int
    started_at: datetime
    ended_at: datetime
    cause: str
    transcript: list[dict[str, object]] = field(default_factory=list)
    """Lines in order. Where they exceed the store's limit, the oldest are left out and a first line says so."""
    messages: list[dict[str, str]] = field(default_factory=list)
    providers: list[dict[str, object]] = field(default_factory=list)
    """Who was to serve it, in the order of each service's chain and why, and then what became of that: see `mediaserver.providers.trail.provider_entries`."""
