"""The composition root: builds a node from its configuration, starts it in order, stops it in reverse."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from loguru import logger

from admission import AdmissionGate
from config.node import NodeConfig
from mediaserver.admin_listener import AdminListener
from mediaserver.answer_warmer import MAX_TENANTS, AnswerWarmer
from mediaserver.calls import Switchboard
from mediaserver.config_watch import ConfigWatch
from mediaserver.edge import Edge
from mediaserver.errors import StartupError
from mediaserver.gate_watch import GateWatch
from mediaserver.http_api import HttpServer, make_app, make_operator_app
from mediaserver.key_reports import KeyReports
from mediaserver.media_link import EngineHub
from mediaserver.media_session import MediaPolicy
from mediaserver.models.process import ModelProcess
from mediaserver.node_parts import (
    Reloads,
    contexts_to_prepare,
    engine_end,
    farewell,
    open_engine,
    open_keys,
    open_sip,
    tell_of_end,
    warm_phrases,
    worker_pool,
)
from mediaserver.node_size import slots_of
from mediaserver.node_view import READINGS, NodeView
from mediaserver.phrase_cache import PhraseCache
from mediaserver.phrase_warmer import PhraseWarmer
from mediaserver.pipeline.call_pipeline import CallPipeline, PipelineResources
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.services import Embedded, ProviderAccess
from mediaserver.pipeline.turn_model import TurnModel
from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.connections import ConnectionWarmer, ProviderClient
from mediaserver.telemetry.absorbing import Absorber, provider_readings
from mediaserver.telemetry.health import LoopWatch
from mediaserver.telemetry.metrics import Telemetry
from mediaserver.telemetry.redaction import Redactor
from mediaserver.telemetry.routes import metrics_routes, probe_routes
from mediaserver.telemetry.sources import Reading
from mediaserver.telemetry.trial_log import TrialLog
from mediaserver.tenant_folder import TenantFolder, open_folder
from mediaserver.webrtc.edge import WebEdge
from mediaserver.webrtc.routes import web_routes
from mediaserver.workers.nursery_client import Nursery
from mediaserver.workers.pool import WorkerPool
from sipbridge import SipEndpoint
from tenancy import ActiveTenant, Registry, Trunks, open_registry
from tenancy.gate import GateBounds
from tenancy.keys import TenantKeys

LATER_SYNTHESES = 4
"""Phrases that are made at a time for configurations that change while calls are up."""


class Node:
    """One edge with its in-process pipelines and its model process."""

    def __init__(
        self,
        config: NodeConfig,
        models: ModelProcess | None = None,
        nursery: Nursery | None = None,
        redactor: Redactor | None = None,
    ) -> None:
        """``models`` and ``nursery``: processes that have been begun already; the node ends them."""
        self._config = config
        self._trunks = Trunks.of(config)
        self._redactor = redactor or Redactor()
        self._started_at = time.monotonic()
        self._ready = False
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._reloads = Reloads()
        self._registry: Registry | None = None
        self._keys: TenantKeys | None = None
        self._models = models
        self._nursery = nursery
        self._pool: WorkerPool | None = None
        self._warming: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.broken = False
        """Whether the node stopped because it could not go on."""
        self._folder: TenantFolder | None = None
        self._following: asyncio.Task[None] | None = None
        self._configs: ConfigWatch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._late_phrases: set[asyncio.Task[int]] = set()
        self._hub: EngineHub | None = None
        self._provider_http: ProviderClient | None = None
        self._turn_model = TurnModel()
        self._care = ProviderCare.fresh()
        self._connection_warmer: ConnectionWarmer | None = None
        self._switchboard: Switchboard | None = None
        self._web: WebEdge | None = None
        self._sip: SipEndpoint | None = None
        self._gate = AdmissionGate(slots=slots_of(config))
        self._gate_watch: GateWatch | None = None
        web = web_routes(
            lambda: self._web, self._listed_numbers, config.http.allowed_origins, config.http.trusted_proxies
        )
        self.telemetry = Telemetry()
        for read in READINGS:
            self.telemetry.add_source(partial(self._read, read))
        self.telemetry.add_source(self._read_providers)
        self._trials = TrialLog(self.telemetry.meters)
        self._absorber = Absorber(self.telemetry.meters)
        self._loop_watch = LoopWatch(self.telemetry.meters, "edge")
        probes = probe_routes(self.alive, self.ready)
        self._http = HttpServer(make_app(probes, web), config.http.host, config.http.port)
        self._operator = HttpServer(
            make_operator_app(self._status, probes, metrics_routes(self.telemetry)),
            config.http.operator.host,
            config.http.operator_port,
            "http.operator.port",
        )
        self.admin = (
            None if config.admin is None else AdminListener(config, os.environ, self.telemetry.meters)
        )
        """The admin API, where the node has one."""

    @property
    def tenants(self) -> tuple[ActiveTenant, ...]:
        """The tenants that answer here, for the banner."""
        return self._configs.tenants if self._configs is not None else ()

    def on_changed(self, tenant_id: str) -> None:
        """Say that new calls of a tenant get another version, for what is to be made before the first; returns at once.

        Changes in the store are noticed without it, within a second.
        """
        if self._configs is not None:
            self._configs.changed(tenant_id)

    @property
    def registry(self) -> Registry:
        """The tenants' store, while the node runs."""
        if self._registry is None:
            raise StartupError("the node is not running")
        return self._registry

    @property
    def workers(self) -> WorkerPool:
        """The call workers, while the node runs."""
        if self._pool is None:
            raise StartupError("the node runs no call workers")
        return self._pool

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

    @property
    def media_ports(self) -> list[int]:
        """The RTP ports that are bound."""
        return self._hub.engine.ports() if self._hub is not None else []

    @property
    def http_port(self) -> int:
        """The HTTP port for callers that is bound."""
        return self._http.port

    @property
    def calls(self) -> tuple[int, int]:
        """How many are up, and how many have ended since the start."""
        board = self._switchboard
        return (board.active_calls, board.ended_calls) if board else (0, 0)

    @property
    def operator_port(self) -> int:
        """The HTTP port for the operator that is bound."""
        return self._operator.port

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
        self._operator.bind()
        if self.admin is not None:
            self.admin.bind()
        engine = open_engine(config)
        self._hub = EngineHub(engine)
        self._hub.start()
        self._registry = await open_registry(config, self._redactor.watching(os.environ))
        self._keys = self._registry.keys = await open_keys(config, self._redactor)
        reports = KeyReports(self._keys, self.telemetry.meters)
        bounds = GateBounds(**config.store.gate.model_dump())
        self._gate_watch = GateWatch(
            self._registry.store, bounds, self._calls_and_slots, self.telemetry.meters
        )
        await self._gate_watch.start()
        await self._follow_folder(self._registry)
        self._configs = ConfigWatch(self._registry, self.telemetry.meters, self._trials)
        await self._configs.begin()
        tenants = self._configs.tenants
        if not tenants:
            raise StartupError(
                "no tenant is configured: name tenant files under 'tenants' in the node's configuration, or a folder"
                " of them as 'tenant_folder'"
            )
        stats = self._care.stats
        self._provider_http = ProviderClient(stats)
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
            meters=self.telemetry.meters,
            turn_model=self._turn_model,
        )
        warmer = PhraseWarmer(phrases, access)
        self._late_phrases, _ = await asyncio.gather(
            warm_phrases(tenants, warmer), self._start_workers(access, phrases, reports)
        )
        self._switchboard = Switchboard(
            registry=self._registry,
            gate=self._gate,
            hub=self._hub,
            converse=self._pool.host
            if self._pool is not None
            else lambda tenant, link, observer: CallPipeline(
                tenant, link, resources.telling(partial(reports.take, tenant)), observer
            ),
            meters=self.telemetry.meters,
            farewell=lambda tenant: farewell(phrases, tenant),
            trials=self._trials,
        )
        edge = Edge(self._switchboard, MediaPolicy.of(config.media), self._trunks)
        self._sip = await open_sip(config.sip, edge)
        self._web = WebEdge(self._switchboard, self._trunks.web, config.http.waiting_calls_per_source)
        # From here on: the start itself may hold the loop up, and holds nobody else up.
        self._loop_watch.start()
        self._http.listen()
        self._operator.listen()
        if self.admin is not None:
            await self.admin.open(self._registry, self._keys, self.on_changed)
        self._ready = True
        self._watch = asyncio.create_task(self._watch_engine(self._hub), name="engine-watch")
        if self._folder is not None:
            self._following = asyncio.create_task(self._folder.run(), name="tenant-folder")
            self._following.add_done_callback(tell_of_end)
        later = PhraseWarmer(phrases, access, LATER_SYNTHESES)
        self._watching = asyncio.create_task(self._configs.run(later.warm), name="config-watch")
        self._watching.add_done_callback(tell_of_end)
        answers = AnswerWarmer(warmer, resources.clock, self._switchboard.idle)
        contexts = await contexts_to_prepare(self._registry, tenants[:MAX_TENANTS])
        self._warming = asyncio.create_task(answers.run(contexts), name="answer-warmer")

    async def _follow_folder(self, registry: Registry) -> None:
        """Take over what the watched folder holds; from then on it is followed."""
        self._folder = await open_folder(
            self._config, registry.store, self.telemetry.meters, self._folder_changed
        )
        if self._folder is not None:
            await self._folder.look(at_once=True)

    async def _folder_changed(self) -> None:
        if self._configs is not None:
            await self._configs.look()

    async def _start_workers(self, access: ProviderAccess, phrases: PhraseCache, reports: KeyReports) -> None:
        pool = partial(worker_pool, self._config, access.embedded.base_url, phrases)
        self._pool = pool(telemetry=self.telemetry, reports=reports, nursery=self._nursery)
        if self._pool is not None:
            self._nursery = None
            await self._pool.start()

    async def _start_models(self) -> str:
        if self._models is None:
            self._models = ModelProcess(start_timeout_s=self._config.models.start_timeout_s)
        await self._models.start()
        return self._models.base_url

    def alive(self) -> dict[str, bool]:
        """What has to hold for the process to go on."""
        return {
            "event_loop": self._loop_watch.steady,
            "media": self._hub is None or self._hub.engine.alive(),
        }

    def ready(self) -> dict[str, bool]:
        """What has to hold for a call to be admitted, if there is a slot."""
        return {
            "started": self._switchboard is not None and self._web is not None,
            "not_draining": not self._stop.is_set()
            and self._switchboard is not None
            and not self._switchboard.draining,
            "media": self._hub is not None and self._hub.engine.alive(),
            "workers": self._pool is None or self._pool.ready_workers > 0,
            "models": self._models is None or self._models.ready,
        }

    def _read(self, read: Callable[[NodeView], Iterable[Reading]]) -> Iterable[Reading]:
        return read(self._view())

    def _read_providers(self) -> Iterable[Reading]:
        # Into the same series as what the workers report of theirs.
        self._absorber.absorb(provider_readings(self._care.stats.snapshot()))
        return ()

    def _calls_and_slots(self) -> tuple[int, int]:
        return self.calls[0], self._gate.snapshot().slots

    async def _watch_engine(self, hub: EngineHub) -> None:
        """A media thread that fails takes its calls with it. Without any the process ends, for a supervisor to start anew."""
        await engine_end(hub)
        logger.error("no media thread runs any more; the node stops")
        self.broken = True
        self.request_stop()

    async def run(self) -> None:
        """Serve until `request_stop`, let the calls that are up go on for `drain_s`, end the rest politely, release everything."""
        http = {
            asyncio.create_task(self._http.serve(), name="http"),
            asyncio.create_task(self._operator.serve(), name="http-operator"),
        }
        if self.admin is not None:
            http.add(asyncio.create_task(self.admin.serve(), name="http-admin"))
        try:
            await self._stop.wait()
            await self._drain()
        finally:
            self._ready = False
            self._http.stop()
            self._operator.stop()
            if self.admin is not None:
                self.admin.stop()
            await asyncio.wait(http, timeout=5)
            await self.stop()

    async def _drain(self) -> None:
        if self._switchboard is None or self.broken:
            return
        if self._switchboard.active_calls:
            logger.info(
                "{} calls may go on for {} s; new ones are told to try again",
                self._switchboard.active_calls,
                self._config.drain_s,
            )
        idle = asyncio.ensure_future(self._switchboard.idle())
        at_once = asyncio.ensure_future(self._stop_at_once.wait())
        await asyncio.wait([idle, at_once], timeout=self._config.drain_s, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (idle, at_once):
            waiting.cancel()
        if not self._stop_at_once.is_set():
            await self._switchboard.part("the node stops")

    def request_stop(self) -> None:
        """Make `run` drain and return; calls that come in meanwhile are told to try again. Asked again, it does not wait."""
        if self._stop.is_set():
            self._stop_at_once.set()
        self._ready = False
        if self._switchboard is not None:
            self._switchboard.drain()
        self._stop.set()

    def request_reload(self) -> None:
        """Replace the call workers by ones with the code on the disk; calls stay where they are until they end."""
        self._reloads.request(self._pool)

    async def stop(self) -> None:
        """Stop what is running, calls first. Safe to call at any point of the start."""
        self._ready = False
        self._loop_watch.stop()
        await self._stop_background()
        await self._stop_calls()
        if self._hub is not None:
            self._hub.close()
            self._hub = None
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
        if self._nursery is not None:
            await self._nursery.close()
            self._nursery = None
        self._turn_model.close()
        if self._connection_warmer is not None:
            await self._connection_warmer.close()
            self._connection_warmer = None
        if self._provider_http is not None:
            await self._provider_http.aclose()
            self._provider_http = None
        if self._models is not None:
            await self._models.close()
            self._models = None
        await self._stop_store()

    async def _stop_store(self) -> None:
        if self.admin is not None:
            await self.admin.aclose()
        self._http.close()
        self._operator.close()
        if self._gate_watch is not None:
            await self._gate_watch.close()
            self._gate_watch = None
        if self._registry is not None:
            await self._registry.close()
            self._registry = None
        if self._keys is not None:
            await self._keys.aclose()
            self._keys = None

    async def _stop_background(self) -> None:
        background: set[asyncio.Task[int] | asyncio.Task[None]] = {*self._late_phrases}
        tasks = (self._warming, self._watch, self._reloads.running, self._following, self._watching)
        background |= {task for task in tasks if task is not None}
        for task in background:
            task.cancel()
        if background:
            await asyncio.wait(background)
        self._warming, self._watch, self._late_phrases = None, None, set()
        self._following = self._watching = None

    async def _stop_calls(self) -> None:
        if self._switchboard is None:
            return
        await self._switchboard.close()
        if self._sip is not None:
            await self._sip.close()
        await self._switchboard.finish()
        self._switchboard = self._web = self._sip = None

    def _listed_numbers(self) -> dict[str, str]:
        """What the page may offer to anybody."""
        return self._numbers() if self._config.http.list_numbers else {}

    def _numbers(self) -> dict[str, str]:
        return {
            number: tenant.config.business_name for tenant in self.tenants for number in tenant.config.numbers
        }

    def _view(self) -> NodeView:
        return NodeView(
            ready=self._ready,
            uptime_s=int(time.monotonic() - self._started_at),
            gate=self._gate,
            switchboard=self._switchboard,
            pool=self._pool,
            keys=self._keys,
            web=self._web,
            sip=self._sip,
            models=self._models,
            folder=self._folder,
            gate_watch=self._gate_watch,
            trials=self._trials,
            media=self.media_stats(),
            numbers=self._numbers,
            admin=None if self.admin is None else self.admin.status(),
        )

    def _status(self) -> dict[str, object]:
        return self._view().status()
