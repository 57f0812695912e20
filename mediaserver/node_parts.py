"""What a node is made of, from its configuration: how much it takes, its engine, what its workers are told."""

from __future__ import annotations

import os

from loguru import logger

from admission import CallKind, slots_for
from config.node import NodeConfig
from mediaserver._native import MediaEngine, MediaError
from mediaserver.errors import StartupError
from mediaserver.media_session import media_threads, thread_arguments
from mediaserver.phrase_cache import PHRASE_RATE_HZ, PhraseCache
from mediaserver.realtime import starvation_warning, unthrottled
from mediaserver.receptionist import Phrases
from mediaserver.telemetry.redaction import Redactor
from mediaserver.vad_weights import silero_weights
from mediaserver.workers.worker_settings import WorkerSettings
from tenancy import TenantContext
from tenancy.keys import TenantKeys, open_tenant_keys
from vault import VaultError

SPARE_STREAMS = 8
"""Streams beyond the slots: those of calls that are being wound up."""


def slots_of(config: NodeConfig) -> int:
    """The node's calls at a time: as configured, else what its cores can carry with the embedded models."""
    if config.capacity.slots is not None:
        return config.capacity.slots
    return slots_for(os.cpu_count() or 1, CallKind.EMBEDDED_MODELS)


def workers_of(config: NodeConfig) -> int:
    """The node's call workers: as configured, else one per core."""
    if config.workers.count is not None:
        return config.workers.count
    return len(os.sched_getaffinity(0))


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
