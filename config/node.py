"""A node's configuration: where it listens, what it may use, and which tenants it imports at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from config.tenant import HttpUrl, OpenAICompatible, StrictModel

Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
"""An IPv4 or IPv6 address, or a host name."""
Port = Annotated[int, Field(ge=0, le=65_535)]
"""A port; 0 lets the system choose one."""

WebOrigin = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9._\[\]:-]{1,253}$")]
"""Scheme, host and, where it is not the scheme's own, port: as a browser's Origin header has it (RFC 6454 7)."""

ANY_HOST = "0.0.0.0"


class SipConfig(StrictModel):
    """The SIP listener. UDP always; RFC 3261 18 asks for TCP as well."""

    host: Host = ANY_HOST
    port: Port = 5060
    tcp: bool = True
    advertised_host: Host | None = None
    """What Contact and Via name; unset: the address that a peer reaches us on."""


class MediaConfig(StrictModel):
    """The RTP sockets. Calls share them, so a handful serves hundreds of calls."""

    host: Host = ANY_HOST
    first_port: Port = 40_000
    port_count: int = Field(default=8, ge=1, le=256)
    advertised_host: Host | None = None
    """What SDP names: the public address of a node behind NAT."""


class HttpConfig(StrictModel):
    """The HTTP listener. Loopback unless said otherwise: it has status and administration."""

    host: Host = "127.0.0.1"
    port: Port = 8080
    allowed_origins: tuple[WebOrigin, ...] = Field(default=(), max_length=100)
    """Web pages of other origins that may place calls from a browser; none: only the pages that this server serves."""


class CapacityConfig(StrictModel):
    """How many calls the node takes."""

    slots: int | None = Field(default=None, ge=1, le=100_000)
    """Calls at a time; unset: derived from the cores and the kind of calls (`admission.capacity`)."""


class PlatformProviders(StrictModel):
    """Providers for tenants that bring none of their own, best first. The embedded models always follow."""

    stt: tuple[OpenAICompatible, ...] = Field(default=(), max_length=4)
    llm: tuple[OpenAICompatible, ...] = Field(default=(), max_length=4)
    tts: tuple[OpenAICompatible, ...] = Field(default=(), max_length=4)


class ModelsConfig(StrictModel):
    """The process with the embedded models."""

    url: HttpUrl | None = None
    """API root of one that runs already; unset: the node starts its own."""
    start_timeout_s: int = Field(default=120, ge=1, le=3_600)


class BudgetsConfig(StrictModel):
    """How long a provider may take before the next of the chain is asked."""

    stt_final_ms: int = Field(default=4_000, ge=100, le=60_000)
    llm_first_token_ms: int = Field(default=3_000, ge=100, le=60_000)
    tts_first_audio_ms: int = Field(default=3_000, ge=100, le=60_000)


class NodeConfig(StrictModel):
    """Everything that an operator decides about one node.

    Environment variables that override a field are listed in `config.loader.OVERRIDES`.
    """

    schema_version: Literal[1] = 1
    sip: SipConfig = SipConfig()
    media: MediaConfig = MediaConfig()
    http: HttpConfig = HttpConfig()
    data_dir: Path = Field(default=Path("var/node"), validate_default=False)
    """shared.db, tenant shards, phrase cache. Relative to the working directory: this file's may be read-only."""
    capacity: CapacityConfig = CapacityConfig()
    providers: PlatformProviders = PlatformProviders()
    tenants: tuple[Path, ...] = Field(default=(), max_length=1_000)
    """Tenant files, or folders of ``*.yaml``, imported at start. Relative to this file."""
    models: ModelsConfig = ModelsConfig()
    budgets: BudgetsConfig = BudgetsConfig()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
