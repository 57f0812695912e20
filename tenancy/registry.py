"""Called number -> tenant -> context; imports of configurations; records of calls."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import aiosqlite
import orjson

from config.canonical import canonical_json, content_hash
from config.loader import load_tenants
from config.node import NodeConfig, PlatformProviders
from config.tenant import TenantConfig
from tenancy.context import ActiveTenant, CallRecord, TenantContext
from tenancy.database import SHARED_MIGRATIONS, Shards, open_database, transaction
from tenancy.errors import NumberTaken, StoreError, TenantSuspended, UnknownNumber
from tenancy.providers import resolve

MAX_CALLED_CHARACTERS = 64


async def open_registry(config: NodeConfig, environ: Mapping[str, str]) -> Registry:
    """Open the node's databases and import its tenant files; raises `TenancyError` or `ConfigError`."""
    registry = await Registry.open(Path(config.data_dir), config.providers, environ)
    try:
        for tenant in load_tenants(config.tenants):
            await registry.import_tenant(tenant, author="node start", reason="tenant file")
    except BaseException:
        await registry.close()
        raise
    return registry


class Registry:
    """The tenants of a node."""

    def __init__(
        self,
        directory: Path,
        shared: aiosqlite.Connection,
        platform: PlatformProviders,
        environ: Mapping[str, str],
    ) -> None:
        self._shared_path = directory / "shared.db"
        self._shared = shared
        self._shards = Shards(directory / "tenants")
        self._platform = platform
        self._environ = environ

    @classmethod
    async def open(cls, directory: Path, platform: PlatformProviders, environ: Mapping[str, str]) -> Registry:
        """Open or create the databases in ``directory``."""
        shared = await open_database(directory / "shared.db", SHARED_MIGRATIONS)
        return cls(directory, shared, platform, environ)

    async def close(self) -> None:
        """Close the databases."""
        await self._shards.close()
        await self._shared.close()

    # -- routing ---------------------------------------------------------------------------------------

    async def context_for(self, called: str, *, call_id: str) -> TenantContext:
        """The context of a call to a number, as the SIP user part writes it.

        Raises:
            UnknownNumber: no tenant has it. TenantSuspended: its tenant takes no calls. StoreError.
        """
        number, tenant_id = await self._resolve(called)
        config, version = await self._active_config(tenant_id)
        chains = resolve(config.providers, self._platform, self._environ)
        return TenantContext(
            tenant_id=tenant_id,
            call_id=call_id,
            called_number=number,
            config=config,
            config_version=version,
            content_hash=content_hash(config),
            stt=chains.stt,
            llm=chains.llm,
            tts=chains.tts,
            skipped_providers=chains.skipped,
        )

    async def _resolve(self, called: str) -> tuple[str, str]:
        for number in spellings(called):
            row = await self._one(
                "SELECT tenant_id, status FROM numbers JOIN tenants USING (tenant_id) WHERE number = ?",
                number,
            )
            if row is not None:
                if row[1] != "active":
                    raise TenantSuspended(f"the tenant of {number} is suspended")
                return number, str(row[0])
        raise UnknownNumber(f"no tenant has the number {called[:MAX_CALLED_CHARACTERS]!r}")

    async def _active_config(self, tenant_id: str) -> tuple[TenantConfig, int]:
        async with self._shards.use(tenant_id) as shard:
            path = self._shards.path(tenant_id)
            try:
                cursor = await shard.execute(
                    "SELECT version, body FROM active_version JOIN config_versions USING (version)"
                )
                row = await cursor.fetchone()
            except sqlite3.Error as error:
                raise StoreError(f"{path}: {error}") from error
        if row is None:
            raise StoreError(f"{path}: no configuration is active")
        return TenantConfig.model_validate_json(row[1]), int(row[0])

    async def _one(self, query: str, *values: object) -> sqlite3.Row | None:
        try:
            cursor = await self._shared.execute(query, values)
            return await cursor.fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{self._shared_path}: {error}") from error

    # -- tenants ---------------------------------------------------------------------------------------

    async def import_tenant(self, config: TenantConfig, *, author: str, reason: str) -> int:
        """Make a configuration the active one; returns its version. The same content makes no new version.

        Raises:
            NumberTaken: one of its numbers belongs to another tenant; nothing is changed then.
        """
        await self._claim_numbers(config)
        async with self._shards.use(config.tenant_id) as shard:
            path = self._shards.path(config.tenant_id)
            async with transaction(shard, path):
                digest = content_hash(config)
                row = await (
                    await shard.execute(
                        "SELECT version, content_hash FROM active_version JOIN config_versions USING (version)"
                    )
                ).fetchone()
                if row is not None and row[1] == digest:
                    return int(row[0])
                cursor = await shard.execute(
                    "INSERT INTO config_versions (content_hash, schema_version, author, reason, created_at, body)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        digest,
                        config.schema_version,
                        author,
                        reason,
                        datetime.now(UTC).isoformat(),
                        canonical_json(config).decode(),
                    ),
                )
                version = cursor.lastrowid
                assert version is not None
                await shard.execute("INSERT OR REPLACE INTO active_version VALUES (1, ?)", (version,))
                return version

    async def _claim_numbers(self, config: TenantConfig) -> None:
        async with transaction(self._shared, self._shared_path):
            for number in config.numbers:
                row = await (
                    await self._shared.execute("SELECT tenant_id FROM numbers WHERE number = ?", (number,))
                ).fetchone()
                if row is not None and row[0] != config.tenant_id:
                    raise NumberTaken(f"{number} belongs to {row[0]}; {config.tenant_id} cannot have it")
            await self._shared.execute(
                "INSERT INTO tenants VALUES (?, 'active') ON CONFLICT DO NOTHING", (config.tenant_id,)
            )
            await self._shared.execute("DELETE FROM numbers WHERE tenant_id = ?", (config.tenant_id,))
            await self._shared.executemany(
                "INSERT INTO numbers VALUES (?, ?)", [(number, config.tenant_id) for number in config.numbers]
            )

    async def set_status(self, tenant_id: str, status: str) -> None:
        """Suspend or activate a tenant (``active``, ``suspended``)."""
        async with transaction(self._shared, self._shared_path):
            await self._shared.execute(
                "UPDATE tenants SET status = ? WHERE tenant_id = ?", (status, tenant_id)
            )

    async def active_tenants(self) -> tuple[ActiveTenant, ...]:
        """Every tenant that takes calls."""
        try:
            cursor = await self._shared.execute(
                "SELECT tenant_id FROM tenants WHERE status = 'active' ORDER BY tenant_id"
            )
            rows = await cursor.fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._shared_path}: {error}") from error
        tenants = []
        for row in rows:
            config, version = await self._active_config(str(row[0]))
            chains = resolve(config.providers, self._platform, self._environ)
            tenants.append(ActiveTenant(config, version, chains.tts))
        return tuple(tenants)

    # -- calls -----------------------------------------------------------------------------------------

    async def record_call(self, tenant: TenantContext, record: CallRecord) -> None:
        """Keep a finished call in its tenant's shard."""
        path = self._shards.path(tenant.tenant_id)
        async with self._shards.use(tenant.tenant_id) as shard, transaction(shard, path):
            await shard.execute(
                "INSERT INTO calls (call_id, called, caller, config_version, started_at, ended_at, cause,"
                " transcript, messages) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.call_id,
                    record.called,
                    record.caller,
                    record.config_version,
                    record.started_at.isoformat(),
                    record.ended_at.isoformat(),
                    record.cause,
                    orjson.dumps(record.transcript).decode(),
                    orjson.dumps(record.messages).decode(),
                ),
            )

    async def calls(self, tenant_id: str, limit: int = 100) -> list[CallRecord]:
        """The newest calls of a tenant."""
        async with self._shards.use(tenant_id) as shard:
            try:
                cursor = await shard.execute(
                    "SELECT call_id, called, caller, config_version, started_at, ended_at, cause, transcript, messages"
                    " FROM calls ORDER BY started_at DESC LIMIT ?",
                    (limit,),
                )
                rows = await cursor.fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"{self._shards.path(tenant_id)}: {error}") from error
        return [
            CallRecord(
                call_id=row[0],
                called=row[1],
                caller=row[2],
                config_version=row[3],
                started_at=datetime.fromisoformat(row[4]),
                ended_at=datetime.fromisoformat(row[5]),
                cause=row[6],
                transcript=orjson.loads(row[7]),
                messages=orjson.loads(row[8]),
            )
            for row in rows
        ]


def spellings(called: str) -> tuple[str, ...]:
    """The E.164 numbers that a called user part may mean, exact first; each counts only if it is registered.

    ``+15550100``, and where a trunk writes it so, ``0015550100`` (ITU-T's international prefix) and ``15550100``.
    """
    if len(called) > MAX_CALLED_CHARACTERS:
        return ()
    text = "".join(character for character in called if character not in " -.()")
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return ()
    if text.startswith("+"):
        return (text,)
    if text.startswith("00"):
        return (f"+{text[2:]}",)
    return (f"+{text}",)
