"""What a node is made of, from its configuration: its engine, what its workers are told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from loguru import logger

from config.node import NodeConfig, SipConfig
from mediaserver._native import MediaEngine, MediaError
from mediaserver.edge import Edge
from mediaserver.errors import StartupError
from mediaserver.key_reports import KeyReports
from mediaserver.media_link import EngineHub
from mediaserver.media_session import media_threads, thread_arguments
from mediaserver.node_size import slots_of, workers_of
from mediaserver.phrase_cache import PHRASE_RATE_HZ, PhraseCache
from mediaserver.phrase_warmer import PhraseWarmer
from mediaserver.realtime import starvation_warning, unthrottled
from mediaserver.receptionist import Phrases
from mediaserver.telemetry.metrics import Telemetry
from mediaserver.telemetry.redaction import Redactor
from mediaserver.vad_weights import silero_weights
from mediaserver.workers.nursery_client import Nursery
from mediaserver.workers.pool import WorkerPool
from mediaserver.workers.watch import WatchParams
from mediaserver.workers.worker_settings import WorkerSettings
from sipbridge import SipEndpoint, SipEndpointConfig
from tenancy import ActiveTenant, Registry, TenancyError, TenantContext
from tenancy.keys import TenantKeys, open_tenant_keys
from vault import VaultError

WARM_DEADLINE_S = 60.0
"""For the fixed phrases of all tenants at start; what is missing then is made while calls are taken."""
ENGINE_WATCH_S = 1.0
"""Between two looks at whether the media threads run."""
SPARE_STREAMS = 8
"""Streams beyond the slots: those of calls that are being wound up."""


def worker_settings(config: NodeConfig, models_url: str) -> WorkerSettings:
    """What the node's workers are told."""
    return WorkerSettings(
        data_dir=str(config.data_dir),
        models_url=models_url,
        budgets=config.budgets.model_dump(),
        memory_mb=config.workers.memory_mb,
        log_level=config.log_level,
        log_format=config.log_format,
        forbid_core_dumps=config.vault is not None,
    )


async def open_keys(config: NodeConfig, redactor: Redactor) -> TenantKeys | None:
    """The tenants' keys, where the node has a vault; the log learns of each that is used. Raises `StartupError`."""
    try:
        return await open_tenant_keys(config, os.environ, redactor.register)
    except VaultError as error:
        raise StartupError(f"the vault of tenants' keys cannot be used: {error}") from error


def open_engine(config: NodeConfig) -> MediaEngine:
    """The media engine on its ports. Raises `StartupError`."""
    media, cores = config.media, len(os.sched_getaffinity(0))
    try:
        engine = MediaEngine(
            media.host,
            first_port=media.first_port,
            port_count=media.port_count,
            vad_model=silero_weights(),
            max_streams=slots_of(config) + SPARE_STREAMS,
            **thread_arguments(media, cores),
        )
    except MediaError as error:
        raise StartupError(f"media ports on {media.host} cannot be opened: {error}") from error
    if (reason := engine.realtime_refused()) is not None:
        logger.info(
            "media threads run without real-time scheduling ({}); under load packets may leave late. "
            "Grant CAP_SYS_NICE or an rtprio limit, or set media.realtime: off.",
            reason,
        )
    elif media.realtime == "auto" and unthrottled():
        logger.warning("{}", starvation_warning(media_threads(media, cores), cores))
    return engine


def farewell(phrases: PhraseCache, tenant: TenantContext) -> tuple[bytes, int] | None:
    """What a caller hears whose call the node ends."""
    pcm = phrases.spoken(tenant, Phrases.of(tenant.config).goodbye)
    return None if pcm is None else (pcm, PHRASE_RATE_HZ)


async def open_sip(sip: SipConfig, edge: Edge) -> SipEndpoint:
    """The node's SIP, listening, for its edge. Raises `StartupError`."""
    endpoint = SipEndpoint(
        SipEndpointConfig(
            host=sip.host,
            port=sip.port,
            tcp=sip.tcp,
            advertised_host=sip.advertised_host,
            user_agent="ai-receptionist",
        ),
        edge.sip_event,
    )
    edge.use(endpoint)
    try:
        await endpoint.start()
    except OSError as error:
        await endpoint.close()
        raise StartupError(
            f"SIP cannot listen on {sip.host}:{sip.port} (UDP and TCP): {error.strerror or error}. "
            "Stop what uses the port, or set sip.port in the node's configuration."
        ) from error
    return endpoint


async def contexts_to_prepare(registry: Registry, tenants: Sequence[ActiveTenant]) -> list[TenantContext]:
    """In what context answers are made before anybody calls; a tenant whose data cannot be used now is left out."""
    contexts = []
    for tenant in tenants:
        try:
            contexts.append(await registry.context_to_prepare(tenant))
        except TenancyError as error:
            logger.error("{}: no answers are made ahead: {}", tenant.config.tenant_id, error)
    return contexts


async def warm_phrases(tenants: Sequence[ActiveTenant], warmer: PhraseWarmer) -> set[asyncio.Task[int]]:
    """Make the fixed phrases; those that are late go on being made: a tenant whose provider hangs keeps no other from its calls."""
    tasks = [
        asyncio.create_task(warmer.warm(tenant.config, tenant.tts), name=tenant.config.tenant_id)
        for tenant in tenants
    ]
    done, late = await asyncio.wait(tasks, timeout=WARM_DEADLINE_S)
    for task in done:
        if missing := task.result():
            logger.warning("{}: {} fixed phrases are not cached", task.get_name(), missing)
    for task in late:
        logger.warning("{}: fixed phrases are still being made", task.get_name())
    return late


def worker_pool(
    config: NodeConfig,
    models_url: str,
    phrases: PhraseCache,
    *,
    telemetry: Telemetry,
    reports: KeyReports,
    nursery: Nursery | None,
) -> WorkerPool | None:
    """The node's call workers, to be started, with a nursery that has been begun already; None where it runs none."""
    count = workers_of(config)
    if count == 0:
        return None
    return WorkerPool(
        count,
        worker_settings(config, models_url),
        phrases,
        meters=telemetry.meters,
        on_delta=telemetry.add_delta,
        on_key=reports.take,
        nursery=nursery,
        watch=WatchParams(suspect_ms=config.workers.suspect_ms, lost_ms=config.workers.lost_ms),
    )


async def engine_end(hub: EngineHub) -> None:
    """Wait until no media thread runs any more, and say which have failed before."""
    known = 0
    while hub.engine.alive():
        failed = hub.engine.stats()["failed_threads"]
        if failed > known:
            logger.error("{} media threads have failed; their calls are over, the others go on", failed)
            known = failed
        await asyncio.sleep(ENGINE_WATCH_S)


def tell_of_end(task: asyncio.Task[None]) -> None:
    """Say that something that was to go on as long as the node has ended by a fault: nobody waits for it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("{} has ended, and with it what it does: {!r}", task.get_name(), error)


class Reloads:
    """Replaces the call workers by ones with the code on the disk, one replacement at a time."""

    def __init__(self) -> None:
        self.running: asyncio.Task[None] | None = None

    def request(self, pool: WorkerPool | None) -> None:
        """Begin; calls stay where they are until they end."""
        if pool is None:
            logger.warning("nothing to reload: the node runs no call workers")
        elif self.running is not None and not self.running.done():
            logger.warning("the call workers are being replaced already")
        else:
            self.running = asyncio.create_task(self._replace(pool), name="reload")

    async def _replace(self, pool: WorkerPool) -> None:
        try:
            await pool.replace()
        except (OSError, TimeoutError, StartupError) as error:
            logger.error("the call workers could not be replaced, those that run go on: {}", error)
        else:
            logger.info("the call workers have been replaced")
