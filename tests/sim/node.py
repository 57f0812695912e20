"""A whole node in the test's event loop, with simulated providers in place of every model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from config.admin import AdminConfig
from config.node import (
    BudgetsConfig,
    CapacityConfig,
    HttpConfig,
    MediaConfig,
    ModelsConfig,
    NodeConfig,
    PlatformProviders,
    SipConfig,
    TenantFolderConfig,
    VaultConfig,
    WorkersConfig,
)
from config.tenant import TenantConfig
from config.trunks import TrunkConfig
from mediaserver.media_session import NARROWBAND_ONLY
from mediaserver.node import Node
from mediaserver.softphone.listening import Ear
from mediaserver.softphone.phone import Phone, PhoneOptions
from mediaserver.softphone.report import CallReport
from mediaserver.softphone.speech import Utterance
from mediaserver.softphone.web_phone import WebPhone, WebPhoneOptions
from mediaserver.telemetry.redaction import Redactor
from mediaserver.vad_weights import silero_weights
from perf.simulators import Script, running
from sipbridge import SipUri
from sipbridge.sdp import SrtpPolicy

NUMBER = "+15550199"
GREETING = "Hello, this is the test bakery. How can I help you?"


def tenant(url: str, listener_url: str | None = None, /, **changes: object) -> TenantConfig:
    """A tenant whose providers are the simulators at ``url``; before them who listens at ``listener_url``."""
    provider = {"kind": "openai", "base_url": url, "model": "simulated"}
    listeners = [] if listener_url is None else [{"kind": "deepgram", "base_url": listener_url}]
    document: dict[str, object] = {
        "tenant_id": "bakery",
        "business_name": "Test Bakery",
        "business_kind": "bakery",
        "numbers": [NUMBER],
        "time_zone": "Europe/Berlin",
        "greeting": GREETING,
        "address": "1 Mill Lane",
        "hours": {"monday": [{"opens": "08:00", "closes": "18:00"}]},
        "human": {"name": "Rosa"},
        "voice": {"name": "alloy"},
        "providers": {"stt": [*listeners, provider], "llm": [provider], "tts": [provider]},
        **changes,
    }
    return TenantConfig.model_validate(document)


@dataclass
class RunningNode:
    """A started node and the simulator's script."""

    node: Node
    script: Script
    host: str = "127.0.0.1"

    @property
    def sip_port(self) -> int:
        """The port to call."""
        return self.node.sip_port

    async def call(
        self,
        *utterances: Utterance,
        number: str = NUMBER,
        record: Path | None = None,
        interrupt_greeting_ms: int | None = None,
        quiet_ms: int = 700,
        on_line: Callable[[str], None] = lambda _: None,
        codecs: tuple[str, ...] = NARROWBAND_ONLY,
        srtp: SrtpPolicy = SrtpPolicy.OFF,
    ) -> CallReport:
        """Call a number with the softphone."""
        ear = Ear("http://127.0.0.1:9/v1")
        options = PhoneOptions(
            target=SipUri("sip", number, self.host, self.sip_port),
            utterances=utterances,
            local_host=self.host,
            codecs=codecs,
            srtp=srtp,
            vad_model=silero_weights(),
            record=record,
            quiet_ms=quiet_ms,
            interrupt_greeting_ms=interrupt_greeting_ms,
            transcribe=False,
        )
        try:
            return await Phone(options, ear, on_line).call()
        finally:
            await ear.close()

    def web_phone(
        self,
        *utterances: Utterance,
        number: str = NUMBER,
        record: Path | None = None,
        quiet_ms: int = 700,
        on_line: Callable[[str], None] = lambda _: None,
    ) -> WebPhone:
        """A softphone that will call a number over WebRTC."""
        options = WebPhoneOptions(
            url=f"http://127.0.0.1:{self.node.http_port}",
            number=number,
            utterances=utterances,
            record=record,
            quiet_ms=quiet_ms,
        )
        return WebPhone(options, None, on_line)


@asynccontextmanager
async def running_node(
    directory: Path,
    *,
    script: Script | None = None,
    slots: int = 20,
    workers: int = 0,
    drain_s: int = 0,
    budgets: Mapping[str, int] | None = None,
    sip_port: int = 0,
    http_port: int = 0,
    host: str = "127.0.0.1",
    http: Mapping[str, object] | None = None,
    redactor: Redactor | None = None,
    listener_url: str | None = None,
    vault: VaultConfig | None = None,
    platform: PlatformProviders | None = None,
    log_level: Literal["DEBUG", "INFO"] = "INFO",
    log_format: Literal["text", "json"] = "text",
    node_trunks: Sequence[Mapping[str, object]] = (),
    others: Sequence[Mapping[str, object]] = (),
    folder: Path | None = None,
    admin: AdminConfig | None = None,
    **changes: object,
) -> AsyncIterator[RunningNode]:
    """Start a node with one tenant, and ``others``; stop it with everything that it started. ``changes`` are of the first.

    ``folder`` is watched for tenants' files.
    """
    script = script or Script()
    with running(script) as url:
        tenant_files = []
        for each in (changes, *others):
            config_of_it = tenant(url, listener_url, **each)
            tenant_files.append(directory / f"{config_of_it.tenant_id}.yaml")
            tenant_files[-1].write_text(yaml.safe_dump(config_of_it.model_dump(mode="json")))
        config = NodeConfig(
            sip=SipConfig(host=host, port=sip_port),
            media=MediaConfig(host=host, first_port=0, port_count=12),
            http=HttpConfig(host=host, port=http_port, **dict(http or {})),  # type: ignore[arg-type] # passed through
            data_dir=directory / "data",
            capacity=CapacityConfig(slots=slots),
            trunks=tuple(TrunkConfig.model_validate(each, strict=False) for each in node_trunks),
            tenants=tuple(tenant_files),
            tenant_folder=None if folder is None else TenantFolderConfig(path=folder, poll_ms=100),
            models=ModelsConfig(url=url),
            budgets=BudgetsConfig(**dict(budgets or {})),
            workers=WorkersConfig(count=workers),
            vault=vault,
            admin=admin,
            providers=platform or PlatformProviders(),
            log_level=log_level,
            log_format=log_format,
            drain_s=drain_s,
        )
        node = Node(config, redactor=redactor)
        await node.start()
        serving = asyncio.create_task(node.run())
        try:
            yield RunningNode(node, script, host)
        finally:
            node.request_stop()
            await serving
