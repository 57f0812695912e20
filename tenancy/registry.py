"""Called number -> tenant -> context; imports of configurations; records of calls.

``shared.db`` has the numbers and the tenants' status; what belongs to one tenant is in its own file, so that a damaged
or busy file costs one tenant, and a tenant is moved or erased with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import aiosqlite
from loguru import logger
from pydantic import ValidationError

from config.canonical import canonical_json
from config.loader import load_tenants
from config.node import NodeConfig, PlatformProviders
from config.tenant import TenantConfig
from config.variables import VariableError, filled_in
from tenancy.call_log import MAX_LISTED_CALLS, insert_call, newest_calls
from tenancy.context import ActiveTenant, CallRecord, ResolvedTenant, TenantContext, VersionInfo
from tenancy.database import SHARED_MIGRATIONS, Shards, fetch, open_database, store_errors, transaction
from tenancy.errors import (
    NumberTaken,
    StoreCorrupt,
    StoreError,
    TenantSuspended,
    UnknownNumber,
    UnknownTenant,
    UnknownVersion,
)
from tenancy.keys import TenantKeys, chains_for

MAX_CALLED_CHARACTERS = 64
MAX_CACHED_CONFIGS = 1_024
"""Parsed configurations kept. A version never changes, so that none goes stale."""


class TenantStatus(StrEnum):
    """Whether a tenant's calls are taken."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


async def open_registry(config: NodeConfig, environ: Mapping[str, str]) -> Registry:
    """Open the node's databases and import its tenant files; raises `TenancyError` or `ConfigError`.

    A tenant whose own file cannot be used is logged and left as it is: the others answer.
    """
    tenants = load_tenants(config.tenants)
    registry = await Registry.open(Path(config.data_dir), config.providers, environ)
    try:
        for tenant in tenants:
            try:
                await registry.import_tenant(tenant, author="node start", reason="tenant file")
            except StoreError as error:
                logger.error("{} is not imported: {}", tenant.tenant_id, error)
    except BaseException:
        await registry.close()
        raise
    return registry


class Registry:
    """The tenants of a node."""

    def __init__(
        self,
        directory: Path,
        *,
        writer: aiosqlite.Connection,
        reader: aiosqlite.Connection,
        platform: PlatformProviders,
        environ: Mapping[str, str],
        max_open_shards: int,
    ) -> None:
        self._shared_path = directory / "shared.db"
        self._writer = writer
        self._writing = asyncio.Lock()
        # Look-ups have their own connection: on the writer's they would see what is not committed.
        self._reader = reader
        self._shards = Shards(directory / "tenants", max_open_shards)
        self._platform = platform
        self._environ = environ
        self.keys: TenantKeys | None = None
        """Tenants' own keys, where the node has a vault; whoever opened it closes it."""
        self._configs: OrderedDict[tuple[str, int], TenantConfig] = OrderedDict()

    @classmethod
    async def open(
        cls,
        directory: Path,
        platform: PlatformProviders,
        environ: Mapping[str, str],
        max_open_shards: int = 256,
    ) -> Registry:
        """Open or create the databases in ``directory``."""
        path = directory / "shared.db"
        writer = await open_database(path, SHARED_MIGRATIONS)
        try:
            reader = await open_database(path, SHARED_MIGRATIONS)
        except BaseException:
            await writer.close()
            raise
        return cls(
            directory,
            writer=writer,
            reader=reader,
            platform=platform,
            environ=environ,
            max_open_shards=max_open_shards,
        )

    async def close(self) -> None:
        """Close the databases."""
        await self._shards.close()
        await self._reader.close()
        await self._writer.close()

    # -- routing ---------------------------------------------------------------------------------------

    async def resolve(self, called: str) -> ResolvedTenant:
        """Whose number a SIP user part is.

        Raises:
            UnknownNumber: no tenant has it. TenantSuspended: its tenant takes no calls. StoreError.
        """
        for number in spellings(called):
            rows = await self._look_up(
                "SELECT tenant_id, status FROM numbers JOIN tenants USING (tenant_id) WHERE number = ?",
                number,
            )
            for tenant_id, status in rows:
                if status != TenantStatus.ACTIVE:
                    raise TenantSuspended(f"the tenant of {number} is suspended")
                return ResolvedTenant(tenant_id, number)
        raise UnknownNumber(f"no tenant has the number {called[:MAX_CALLED_CHARACTERS]!r}")

    async def context_for(self, called: str, *, call_id: str) -> TenantContext:
        """The context of a call to a number, pinned to the version that is active now. Raises as `resolve`."""
        tenant = await self.resolve(called)
        config, version, digest = await self._active_config(tenant.tenant_id)
        chains = await chains_for(config, self._platform, self._environ, self.keys)
        return TenantContext(
            tenant_id=tenant.tenant_id,
            call_id=call_id,
            called_number=tenant.called_number,
            config=config,
            config_version=version,
            content_hash=digest,
            stt=chains.stt,
            llm=chains.llm,
            tts=chains.tts,
            skipped_providers=chains.skipped,
            provider_steps=chains.steps,
            voice_of=chains.voice,
        )

    async def _active_config(self, tenant_id: str) -> tuple[TenantConfig, int, str]:
        path = self._shards.path(tenant_id)
        async with self._shards.use(tenant_id) as shard:
            active = await _active_version(shard, path)
            if active is None:
                raise StoreCorrupt(f"{path}: no configuration is active")
            version, digest = active
            config = self._configs.get((tenant_id, version))
            if config is None:
                config = _as_said(await _load_version(shard, path, version))
                self._configs[tenant_id, version] = config
                if len(self._configs) > MAX_CACHED_CONFIGS:
                    self._configs.popitem(last=False)
        self._configs.move_to_end((tenant_id, version))
        return config, version, digest

    # -- tenants ---------------------------------------------------------------------------------------

    async def import_tenant(self, config: TenantConfig, *, author: str, reason: str) -> int:
        """Make a configuration the active one; returns its version. The same content makes no new version.

        Raises:
            NumberTaken: one of its numbers belongs to another tenant; nothing is changed then. StoreError.
        """
        async with self._writing, transaction(self._writer, self._shared_path):
            await self._claim_numbers(config)
            # Committed before the numbers are: a crash in between leaves numbers that the next import sets right,
            # never a number without a configuration.
            return await self._add_version(config, author, reason)

    async def restore_version(self, tenant_id: str, version: int, *, author: str, reason: str) -> int:
        """Go back to an earlier configuration, as a new version with its content, so that history only grows.

        Raises:
            UnknownTenant, UnknownVersion, NumberTaken, StoreError.
        """
        await self._status(tenant_id)
        async with self._shards.use(tenant_id) as shard:
            config = await _load_version(shard, self._shards.path(tenant_id), version)
        return await self.import_tenant(config, author=author, reason=reason)

    async def _claim_numbers(self, config: TenantConfig) -> None:
        writer = self._writer
        for number in config.numbers:
            for (owner,) in await fetch(writer, "SELECT tenant_id FROM numbers WHERE number = ?", number):
                if owner != config.tenant_id:
                    raise NumberTaken(f"{number} belongs to {owner}; {config.tenant_id} cannot have it")
        await writer.execute(
            "INSERT INTO tenants VALUES (?, 'active') ON CONFLICT DO NOTHING", (config.tenant_id,)
        )
        await writer.execute("DELETE FROM numbers WHERE tenant_id = ?", (config.tenant_id,))
        await writer.executemany(
            "INSERT INTO numbers VALUES (?, ?)", [(number, config.tenant_id) for number in config.numbers]
        )

    async def _add_version(self, config: TenantConfig, author: str, reason: str) -> int:
        body = canonical_json(config)
        digest = hashlib.sha256(body).hexdigest()
        path = self._shards.path(config.tenant_id)
        async with self._shards.use(config.tenant_id) as shard, transaction(shard, path):
            active = await _active_version(shard, path)
            if active is not None and active[1] == digest:
                return active[0]
            cursor = await shard.execute(
                "INSERT INTO config_versions (content_hash, schema_version, author, reason, created_at, body)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (digest, config.schema_version, author, reason, datetime.now(UTC).isoformat(), body.decode()),
            )
            version = cursor.lastrowid
            assert version is not None
            await shard.execute("INSERT OR REPLACE INTO active_version VALUES (1, ?)", (version,))
            return version

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        """Every version of a tenant's configuration, newest first. Raises `UnknownTenant`."""
        await self._status(tenant_id)
        path = self._shards.path(tenant_id)
        async with self._shards.use(tenant_id) as shard:
            active = await _active_version(shard, path)
            with store_errors(path):
                rows = await fetch(
                    shard,
                    "SELECT version, content_hash, schema_version, author, reason, created_at"
                    " FROM config_versions ORDER BY version DESC",
                )
        current = None if active is None else active[0]
        return tuple(
            VersionInfo(
                row[0], row[1], row[2], row[3], row[4], datetime.fromisoformat(row[5]), row[0] == current
            )
            for row in rows
        )

    async def set_status(self, tenant_id: str, status: TenantStatus) -> None:
        """Suspend or activate a tenant. Calls in progress go on. Raises `UnknownTenant`."""
        async with self._writing, transaction(self._writer, self._shared_path):
            cursor = await self._writer.execute(
                "UPDATE tenants SET status = ? WHERE tenant_id = ?", (status, tenant_id)
            )
            if cursor.rowcount != 1:
                raise UnknownTenant(f"no tenant {tenant_id!r}")

    async def _status(self, tenant_id: str) -> TenantStatus:
        for (status,) in await self._look_up("SELECT status FROM tenants WHERE tenant_id = ?", tenant_id):
            return TenantStatus(status)
        raise UnknownTenant(f"no tenant {tenant_id!r}")

    async def _look_up(self, query: str, *values: object) -> list[sqlite3.Row]:
        with store_errors(self._shared_path):
            return await fetch(self._reader, query, *values)

    async def active_tenants(self) -> tuple[ActiveTenant, ...]:
        """Every tenant that takes calls; one whose file cannot be used is logged and left out."""
        rows = await self._look_up("SELECT tenant_id FROM tenants WHERE status = 'active' ORDER BY tenant_id")
        tenants = []
        for (tenant_id,) in rows:
            try:
                config, version, _ = await self._active_config(tenant_id)
            except StoreError as error:
                logger.error("{} takes no calls: {}", tenant_id, error)
                continue
            chains = await chains_for(config, self._platform, self._environ, self.keys)
            tenants.append(ActiveTenant(config, version, chains.tts))
        return tuple(tenants)

    # -- calls -----------------------------------------------------------------------------------------

    async def record_call(self, tenant: TenantContext, record: CallRecord) -> None:
        """Keep a finished call in its tenant's shard. The same call a second time changes nothing."""
        path = self._shards.path(tenant.tenant_id)
        async with self._shards.use(tenant.tenant_id) as shard, transaction(shard, path):
            await insert_call(shard, path, record)

    async def calls(self, tenant_id: str, limit: int = MAX_LISTED_CALLS) -> list[CallRecord]:
        """The newest calls of a tenant, at most `MAX_LISTED_CALLS`. Raises `UnknownTenant`."""
        await self._status(tenant_id)
        async with self._shards.use(tenant_id) as shard:
            return await newest_calls(shard, self._shards.path(tenant_id), limit)


async def _active_version(shard: aiosqlite.Connection, path: Path) -> tuple[int, str] | None:
    """The active version and its content hash."""
    with store_errors(path):
        rows = await fetch(
            shard, "SELECT version, content_hash FROM active_version JOIN config_versions USING (version)"
        )
    return (rows[0][0], rows[0][1]) if rows else None


def _as_said(config: TenantConfig) -> TenantConfig:
    """The configuration with its variables filled in."""
    try:
        return filled_in(config)
    except VariableError as error:
        # Stored before texts had variables: a brace was a brace then.
        logger.warning("the texts of {} are said as they stand: {}", config.tenant_id, error)
        return config


async def _load_version(shard: aiosqlite.Connection, path: Path, version: int) -> TenantConfig:
    """One version, checked against its hash."""
    with store_errors(path):
        rows = await fetch(shard, "SELECT content_hash, body FROM config_versions WHERE version = ?", version)
    if not rows:
        raise UnknownVersion(f"{path}: no configuration version {version}")
    digest, body = rows[0]
    if hashlib.sha256(body.encode()).hexdigest() != digest:
        raise StoreCorrupt(f"{path}: version {version} is not what was written")
    try:
        return TenantConfig.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise StoreCorrupt(
            f"{path}: version {version} does not follow this program's schema: {error}"
        ) from error


def spellings(called: str) -> tuple[str, ...]:
    """The E.164 number that a called user part writes; it counts only if it is registered.

    ``+15550100``; ``0015550100``, with ITU-T's international prefix; ``15550100``, where a trunk leaves out the plus.
    RFC 3966's visual separators are passed over. Nothing is guessed: a national number matches nothing.
    """
    if len(called) > MAX_CALLED_CHARACTERS:
        return ()
    text = "".join(character for character in called if character not in "-.()")
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return ()
    if not text.startswith("+") and text.startswith("00"):
        digits = text[2:]
    return (f"+{digits}",) if 7 <= len(digits) <= 15 and digits[0] != "0" else ()
