"""The composition root: builds a node from its configuration, starts it in order, stops it in reverse."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from loguru import logger
from openai import DefaultAsyncHttpxClient

from admission import AdmissionGate, CallKind, slots_for
from config.node import NodeConfig
from mediaserver._native import MediaEngine, MediaError
from mediaserver.answer_warmer import MAX_TENANTS, AnswerWarmer
from mediaserver.calls import Switchboard
from mediaserver.edge import Edge
from mediaserver.errors import StartupError
from mediaserver.http_api import HttpServer, make_app
from mediaserver.media_link import EngineHub
from mediaserver.media_session import MediaPolicy, thread_arguments
from mediaserver.models.process import ModelProcess
from mediaserver.phrase_cache import PhraseCache
from mediaserver.phrase_warmer import PhraseWarmer
from mediaserver.pipeline.call_pipeline import PipelineResources
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.services import Embedded, ProviderAccess, shared_http_client
from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.connections import ConnectionWarmer
from mediaserver.providers.stats import ProviderSnapshot
from mediaserver.vad_weights import silero_weights
from mediaserver.webrtc.edge import WebEdge
from mediaserver.webrtc.routes import web_routes
from sipbridge import SipEndpoint, SipEndpointConfig
from tenancy import ActiveTenant, Registry, open_registry

WARM_DEADLINE_S = 60.0
"""For the fixed phrases of all tenants at start; what is missing then is made while calls are taken."""
ENGINE_WATCH_S = 1.0
"""Between two looks at whether the media threads run."""
SPARE_STREAMS = 8
"""Streams beyond the slots: those of calls that are being wound up."""


def slots_of(config: NodeConfig) -> int:
    """The node's calls at a time: as configured, else what its cores can carry with the embedded models."""
    if config.capacity.slots is not None:
        return config.capacity.slots
    return slots_for(os.cpu_count() or 1, CallKind.EMBEDDED_MODELS)


class Node:
    """One edge with its in-process pipelines and its model process."""

    def __init__(self, config: NodeConfig, models: ModelProcess | None = None) -> None:
        self._config = config
        self._started_at = time.monotonic()
        self._ready = False
        self._stop = asyncio.Event()
        self._registry: Registry | None = None
        self._models = models
        self._warming: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.broken = False
        """Whether the node stopped because it could not go on."""
        self._late_phrases: set[asyncio.Task[int]] = set()
        self._hub: EngineHub | None = None
        self._provider_http: DefaultAsyncHttpxClient | None = None
        self._care = ProviderCare.fresh()
        self._connection_warmer: ConnectionWarmer | None = None
        self._switchboard: Switchboard | None = None
        self._web: WebEdge | None = None
        self._sip: SipEndpoint | None = None
        self._gate = AdmissionGate(slots=slots_of(config))
        web = web_routes(lambda: self._web, self._numbers, config.http.allowed_origins)
        self._http = HttpServer(
            make_app(self._status, self._is_ready, web), config.http.host, config.http.port
        )
        self._tenants: tuple[ActiveTenant, ...] = ()

    @property
    def tenants(self) -> tuple[ActiveTenant, ...]:
        """The tenants that answer here, for the banner."""
        return self._tenants

    @property
    def registry(self) -> Registry:
        """The tenants' store, while the node runs."""
        if self._registry is None:
            raise StartupError("the node is not running")
        return self._registry

    @property
    def gate(self) -> AdmissionGate:
        """The gate before every call."""
        return self._gate

    async def idle(self) -> None:
        """Wait until no call is in progress or being wound up."""
        if self._switchboard is not None:
            await self._switchboard.idle()

    def media_stats(self) -> dict[str, int]:
        """Counters of the media engine and its links."""
        return self._hub.stats() if self._hub is not None else {}

    def provider_snapshot(self) -> ProviderSnapshot:
        """What is known of the providers, for metrics."""
        return self._care.stats.snapshot()

    @property
    def media_ports(self) -> list[int]:
        """The RTP ports that are bound."""
        return self._hub.engine.ports() if self._hub is not None else []

    @property
    def stream_count(self) -> int:
        """Media streams that are open."""
        return self.media_stats().get("streams", 0)

    @property
    def http_port(self) -> int:
        """The HTTP port that is bound."""
        return self._http.port

    @property
    def sip_port(self) -> int:
        """The SIP port that is bound."""
        return self._sip.local_port if self._sip is not None else self._config.sip.port

    async def start(self) -> None:
        """Start everything; when it returns, calls are answered. Raises `StartupError` and leaves nothing running."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        config = self._config
        # Ports first: a port in use is the commonest mistake and must not cost the loading of the models.
        self._http.bind()
        engine = self._open_engine()
        self._hub = EngineHub(engine)
        self._hub.start()
        self._registry = await open_registry(config, os.environ)
        self._tenants = await self._registry.active_tenants()
        if not self._tenants:
            raise StartupError(
                "no tenant is configured: name tenant files under 'tenants' in the node's configuration"
            )
        stats = self._care.stats
        self._provider_http = shared_http_client(stats)
        self._connection_warmer = ConnectionWarmer(self._provider_http, stats)
        access = ProviderAccess(
            Embedded(config.models.url or await self._start_models()),
            self._provider_http,
            self._care,
            self._connection_warmer,
        )
        phrases = PhraseCache(Path(config.data_dir) / "phrases")
        resources = PipelineResources(
            providers=access,
            budgets=Budgets(**config.budgets.model_dump()),
            phrases=phrases,
            clock=lambda: datetime.now(UTC),
        )
        warmer = PhraseWarmer(phrases, access)
        await self._warm_phrases(warmer)
        self._switchboard = Switchboard(
            registry=self._registry, gate=self._gate, hub=self._hub, resources=resources
        )
        await self._start_sip(Edge(self._switchboard, MediaPolicy.of(config.media)))
        self._web = WebEdge(self._switchboard)
        self._http.listen()
        self._ready = True
        self._watch = asyncio.create_task(self._watch_engine(), name="engine-watch")
        answers = AnswerWarmer(warmer, resources.clock, self._switchboard.idle)
        contexts = [
            await self._registry.context_for(tenant.config.numbers[0], call_id="warm-up")
            for tenant in self._tenants[:MAX_TENANTS]
        ]
        self._warming = asyncio.create_task(answers.run(contexts), name="answer-warmer")

    async def _warm_phrases(self, warmer: PhraseWarmer) -> None:
        """Make the fixed phrases; a tenant whose provider hangs must not keep the others from their calls."""
        tasks = [
            asyncio.create_task(warmer.warm(tenant.config, tenant.tts), name=tenant.config.tenant_id)
            for tenant in self._tenants
        ]
        done, late = await asyncio.wait(tasks, timeout=WARM_DEADLINE_S)
        for task in done:
            if missing := task.result():
                logger.warning("{}: {} fixed phrases are not cached", task.get_name(), missing)
        for task in late:
            logger.warning("{}: fixed phrases are still being made", task.get_name())
        self._late_phrases = late

    async def _start_models(self) -> str:
        if self._models is None:
            self._models = ModelProcess(start_timeout_s=self._config.models.start_timeout_s)
        await self._models.start()
        return self._models.base_url

    def _open_engine(self) -> MediaEngine:
        media = self._config.media
        try:
            engine = MediaEngine(
                media.host,
                first_port=media.first_port,
                port_count=media.port_count,
                vad_model=silero_weights(),
                max_streams=slots_of(self._config) + SPARE_STREAMS,
                **thread_arguments(media, len(os.sched_getaffinity(0))),
            )
        except MediaError as error:
            raise StartupError(f"media ports on {media.host} cannot be opened: {error}") from error
        if (reason := engine.realtime_refused()) is not None:
            logger.info(
                "media threads run without real-time scheduling ({}); under load packets may leave late. "
                "Grant CAP_SYS_NICE or an rtprio limit, or set media.realtime: off.",
                reason,
            )
        return engine

    async def _start_sip(self, edge: Edge) -> None:
        sip = self._config.sip
        self._sip = SipEndpoint(
            SipEndpointConfig(
                host=sip.host,
                port=sip.port,
                tcp=sip.tcp,
                advertised_host=sip.advertised_host,
                user_agent="ai-receptionist",
            ),
            edge.sip_event,
        )
        edge.use(self._sip)
        try:
            await self._sip.start()
        except OSError as error:
            raise StartupError(
                f"SIP cannot listen on {sip.host}:{sip.port} (UDP and TCP): {error.strerror or error}. "
                "Stop what uses the port, or set sip.port in the node's configuration."
            ) from error

    def _is_ready(self) -> bool:
        return self._ready and self._hub is not None and self._hub.engine.alive()

    async def _watch_engine(self) -> None:
        """A media thread that has ended takes every call with it: end the process, for a supervisor to start it anew."""
        while self._hub is not None and self._hub.engine.alive():  # noqa: ASYNC110 - a thread that died sets no event
            await asyncio.sleep(ENGINE_WATCH_S)
        if self._hub is not None:
            logger.error("a media thread has ended; the node stops")
            self.broken = True
            self.request_stop()

    async def run(self) -> None:
        """Serve until `request_stop`, then hang up politely and release everything."""
        http = asyncio.create_task(self._http.serve(), name="http")
        try:
            await self._stop.wait()
        finally:
            self._ready = False
            self._http.stop()
            await asyncio.wait([http], timeout=5)
            await self.stop()

    def request_stop(self) -> None:
        """Make `run` return; calls that come in meanwhile are told to try again."""
        self._ready = False
        if self._switchboard is not None:
            self._switchboard.drain()
        self._stop.set()

    async def stop(self) -> None:
        """Stop what is running, calls first. Safe to call at any point of the start."""
        self._ready = False
        await self._stop_background()
        await self._stop_calls()
        if self._hub is not None:
            self._hub.close()
            self._hub = None
        if self._connection_warmer is not None:
            await self._connection_warmer.close()
            self._connection_warmer = None
        if self._provider_http is not None:
            await self._provider_http.aclose()
            self._provider_http = None
        if self._models is not None:
            await self._models.close()
            self._models = None
        if self._registry is not None:
            await self._registry.close()
            self._registry = None

    async def _stop_background(self) -> None:
        background: set[asyncio.Task[int] | asyncio.Task[None]] = {*self._late_phrases}
        background |= {task for task in (self._warming, self._watch) if task is not None}
        for task in background:
            task.cancel()
        if background:
            await asyncio.wait(background)
        self._warming, self._watch, self._late_phrases = None, None, set()

    async def _stop_calls(self) -> None:
        if self._switchboard is None:
            return
        await self._switchboard.close()
        if self._sip is not None:
            await self._sip.close()
        await self._switchboard.finish()
        self._switchboard = self._web = self._sip = None

    def _numbers(self) -> dict[str, str]:
        return {
            number: tenant.config.business_name
            for tenant in self._tenants
            for number in tenant.config.numbers
        }

    def _status(self) -> dict[str, object]:
        gate = self._gate.snapshot()
        return {
            "ready": self._ready,
            "uptime_s": int(time.monotonic() - self._started_at),
            "active_calls": self._switchboard.active_calls if self._switchboard else 0,
            "slots": gate.slots,
            "admitted": gate.admitted,
            "refused": gate.refused,
            "refused_tenant_limit": gate.refused_tenant_limit,
            "web_sessions": self._web.sessions if self._web else 0,
            "numbers": self._numbers(),
            "media": self.media_stats(),
            "sip": self._sip.stats() if self._sip else {},
        }
