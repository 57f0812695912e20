"""One tenant as one file: checked, backed up while calls go on, brought back, moved to another node.

A backup is the tenant's database with one table more, which says whose it is and when it was made. Bringing one back loses
nothing that is there: versions that both have must be equal, calls are added, and where the backup's active content is not
what is active now, it becomes a new version. So an older backup leaves a longer history, and what cannot be brought
together is refused. What became of versions is brought together by `tenancy.restored_lives`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import orjson
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from config.tenant import TENANT_ID_PATTERN, TenantConfig
from tenancy.addresses import addresses_of
from tenancy.database import BUSY_TIMEOUT_MS, Database, connect, open_database, store_errors, unbroken
from tenancy.errors import RestoreRefused, StoreCorrupt, StoreError, StoreLocked, UnknownTenant
from tenancy.repository import TenantRepository
from tenancy.restored_lives import Backup, bring_together, settle_trials
from tenancy.schema_history import SchemaHistory
from tenancy.sqlite_store import SqliteStore
from tenancy.store import CallRow, NewVersion, TenantStatus

CALLS_AT_ONCE: Final = 500
MAX_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True)
class BackupInfo:
    """What a backup says of itself."""

    tenant_id: str
    made_at: datetime
    suspended: bool
    versions: int
    calls: int


@dataclass(frozen=True, slots=True)
class RestoreInfo:
    """What bringing a backup back has changed."""

    tenant_id: str
    active_version: int
    added_versions: int
    added_calls: int
    damaged_file: Path | None
    """Where the file is that could not be read, if there was one."""


async def check(store: SqliteStore, tenant_id: str) -> tuple[str, ...]:
    """What is wrong with a tenant's file; nothing, where it is sound. Raises `UnknownTenant`."""
    if await store.tenant(tenant_id) is None:
        raise UnknownTenant(f"no tenant {tenant_id!r}")
    return await unbroken(asyncio.to_thread(_problems, store.shards.path(tenant_id), tenant_id))


async def backup(store: SqliteStore, tenant_id: str, target: Path) -> BackupInfo:
    """Write a tenant's backup while it is in use. Raises `UnknownTenant`, `StoreError`; ``target`` must not be there."""
    if await store.tenant(tenant_id) is None:
        raise UnknownTenant(f"no tenant {tenant_id!r}")
    await store.active(tenant_id)  # Refuses one that is in Postgres, whose file is old.
    suspended = await store.suspended(tenant_id)
    source = store.shards.path(tenant_id)
    return await unbroken(asyncio.to_thread(_write_backup, source, target, tenant_id, suspended))


async def restore(store: SqliteStore, source: Path, *, author: str) -> RestoreInfo:
    """Bring a backup back, of a tenant that is here or is not. Calls that are up go on. ``author``: who does.

    Raises:
        RestoreRefused: it is no backup, or does not fit to what is here. NumberTaken: another tenant has one of its
        numbers. TenantMoved: the tenant lives on another node. StoreError. Nothing is changed then, but calls that had
        been added.
    """
    async with _opened(store, source) as (info, backed_up):
        return await _restore(store, info, backed_up, author)


async def export(store: SqliteStore, tenant_id: str, target: Path, moved_to: str) -> BackupInfo:
    """Move a tenant away: from now on its calls are told the new node's address, and its data are in ``target``.

    Calls that are up go on and are recorded here: after the last of them, export once more, and import that as well.
    """
    before = await store.tenant(tenant_id)
    if before is None:
        raise UnknownTenant(f"no tenant {tenant_id!r}")
    # First, so that no configuration comes in between.
    await store.set_status(tenant_id, TenantStatus.MOVED, moved_to)
    try:
        return await backup(store, tenant_id, target)
    except BaseException:
        await store.set_status(tenant_id, before.status, before.moved_to)
        raise


async def arrive(store: SqliteStore, source: Path, *, author: str) -> RestoreInfo:
    """Take in a tenant that another node exported, or that comes back from one. Raises as `restore`."""
    async with _opened(store, source) as (info, backed_up):
        present = await store.tenant(info.tenant_id)
        status = TenantStatus.SUSPENDED if info.suspended else TenantStatus.ACTIVE
        if present is not None and present.status is TenantStatus.MOVED:
            await store.set_status(info.tenant_id, status)
            try:
                return await _restore(store, info, backed_up, author)
            except BaseException:
                await store.set_status(info.tenant_id, TenantStatus.MOVED, present.moved_to)
                raise
        return await _restore(store, info, backed_up, author)


# -- writing -------------------------------------------------------------------------------------------


def _write_backup(source: Path, target: Path, tenant_id: str, suspended: bool) -> BackupInfo:
    if target.exists():
        raise StoreError(f"{target}: is there already; a backup replaces none")
    if not target.parent.is_dir():
        raise StoreError(f"{target.parent}: no such folder")
    unfinished = target.with_name(f".{target.name}.{uuid4().hex}")
    made_at = datetime.now(UTC)
    try:
        with store_errors(source):
            writing = sqlite3.connect(unfinished, isolation_level=None)
            with closing(connect(source)) as reading, closing(writing):
                # In one go: a reader holds up nobody in WAL, and page by page every write would begin it anew.
                reading.backup(writing)
        problems = _problems(unfinished, tenant_id)
        if problems:
            raise StoreCorrupt(f"{source}: {problems[0]}")
        with store_errors(unfinished):
            info = _sign(unfinished, tenant_id, made_at, suspended)
        _sync(unfinished)
        # Fails where another has made the file meanwhile.
        os.link(unfinished, target)
        _sync(target.parent)
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror}") from error
    finally:
        _remove(unfinished)
    return info


def _sign(path: Path, tenant_id: str, made_at: datetime, suspended: bool) -> BackupInfo:
    """Say in the file whose it is; afterwards it is one file, without a journal beside it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(
            "CREATE TABLE backup (tenant_id TEXT NOT NULL, made_at TEXT NOT NULL, suspended INTEGER NOT NULL) STRICT"
        )
        connection.execute(
            "INSERT INTO backup VALUES (?, ?, ?)", (tenant_id, made_at.isoformat(), int(suspended))
        )
        return _info(connection)


def _info(connection: sqlite3.Connection) -> BackupInfo:
    tenant_id, made_at, suspended = connection.execute("SELECT * FROM backup").fetchone()
    (versions,) = connection.execute("SELECT count(*) FROM config_versions").fetchone()
    (calls,) = connection.execute("SELECT count(*) FROM calls").fetchone()
    return BackupInfo(tenant_id, datetime.fromisoformat(made_at), bool(suspended), versions, calls)


def _problems(path: Path, tenant_id: str) -> tuple[str, ...]:
    """What SQLite's own check says, and whether every version is what was written, and this tenant's.

    Raises `StoreLocked`, which says nothing about the file.
    """
    try:
        with store_errors(path), closing(_read_only(path)) as connection:
            return file_problems(connection, tenant_id)
    except StoreLocked:
        raise
    except StoreError as error:
        return (str(error),)


def file_problems(connection: sqlite3.Connection, tenant_id: str) -> tuple[str, ...]:
    """What is wrong with the tenant's file that a connection reads; at most `MAX_PROBLEMS`. Raises `sqlite3.Error`."""
    checked = connection.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})")
    problems = [line for (line,) in checked if line != "ok"]
    if problems:
        return tuple(problems)
    orphans = connection.execute("PRAGMA foreign_key_check")
    problems += [f"{row[0]}: a row without what it refers to" for row in orphans]
    versions = connection.execute("SELECT version, content_hash, body FROM config_versions")
    for version, digest, body in versions:
        if hashlib.sha256(body.encode()).hexdigest() != digest:
            problems.append(f"version {version} is not what was written")
        elif (owner := _owner(body)) != tenant_id:
            problems.append(f"version {version} is {owner}'s, not {tenant_id}'s")
    if not connection.execute("SELECT 1 FROM active_version").fetchall():
        problems.append("no configuration is active")
    return tuple(problems[:MAX_PROBLEMS])


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_MS / 1000)


def _owner(body: str) -> str:
    """Whose configuration it is; one of an older schema says so as well."""
    try:
        return str(orjson.loads(body)["tenant_id"])
    except (ValueError, LookupError, TypeError):
        return "nobody"


# -- bringing back -------------------------------------------------------------------------------------


@asynccontextmanager
async def _opened(store: SqliteStore, source: Path) -> AsyncIterator[tuple[BackupInfo, Database]]:
    """A copy of the backup beside the shards, brought to the present schema: the backup itself stays as it is."""
    copy = store.shards.path(f".incoming.{uuid4().hex}")
    try:
        info = await unbroken(asyncio.to_thread(_copy, source, copy))
        database = await open_database(copy, SchemaHistory("tenant"))
        try:
            yield info, database
        finally:
            await database.close()
    finally:
        await asyncio.to_thread(_remove, copy)


def _copy(source: Path, copy: Path) -> BackupInfo:
    if not source.is_file():
        raise StoreError(f"{source}: no such file")
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            closing(_read_only(source)) as reading,
            closing(sqlite3.connect(copy, isolation_level=None)) as writing,
        ):
            info = _info(reading)
            reading.backup(writing)
            writing.execute("DROP TABLE backup")
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise RestoreRefused(f"{source}: no backup of a tenant, or damaged: {error}") from error
    if re.fullmatch(TENANT_ID_PATTERN, info.tenant_id) is None:
        raise RestoreRefused(f"{source}: {info.tenant_id[:64]!r} can be no tenant's id")
    problems = _problems(copy, info.tenant_id)
    if problems:
        raise RestoreRefused(f"{source}: {problems[0]}")
    return info


async def _restore(store: SqliteStore, info: BackupInfo, backed_up: Database, author: str) -> RestoreInfo:
    tenant_id = info.tenant_id
    repository = store.repository
    content = await backed_up.read(partial(_content, repository, info.made_at))
    wanted = content.active
    try:
        addresses = addresses_of(TenantConfig.model_validate_json(wanted.body, strict=True))
    except ValidationError as error:
        raise RestoreRefused(
            f"the backup's version {wanted.version} does not follow this program's schema: {error}"
        ) from error
    known = await store.tenant(tenant_id) is not None
    damaged: Path | None = None
    if known and await check(store, tenant_id):
        damaged = await _set_aside(store, tenant_id)

    async def merge() -> tuple[int, int]:
        async with store.shards.use(tenant_id) as shard:
            return await shard.write(
                lambda connection: _merge(repository, connection, content, author, datetime.now(UTC))
            )

    try:
        added, version = await store.claim_for(tenant_id, addresses, merge)
    except BaseException:
        if damaged is not None:
            await _put_back(store, tenant_id, damaged)
        raise
    if not known and info.suspended:
        await store.set_status(tenant_id, TenantStatus.SUSPENDED)
    calls = await _add_calls(store, tenant_id, backed_up)
    return RestoreInfo(tenant_id, version, added, calls, damaged)


async def _content(repository: TenantRepository, made_at: datetime, connection: AsyncConnection) -> Backup:
    active = await repository.active(connection)
    assert active is not None  # `_problems` has looked.
    return Backup(
        made_at,
        await repository.stored_versions(connection),
        active.version,
        await repository.rows.trials(connection),
        await repository.ledgers.followed(connection),
        await repository.rows.log(connection),
    )


async def _merge(
    repository: TenantRepository, connection: AsyncConnection, backup: Backup, author: str, now: datetime
) -> tuple[int, int]:
    """Add what is missing and activate the wanted content; returns how many versions that made, and the active one."""
    wanted = backup.active
    present = {each.version: each for each in await repository.stored_versions(connection)}
    for each in backup.versions:
        if present.get(each.version, each).content_hash != each.content_hash:
            raise RestoreRefused(
                f"version {each.version} is here and in the backup with different content: they are two histories"
            )
    missing = [each for each in backup.versions if each.version not in present]
    newest = max(present, default=0)
    if any(each.version < newest for each in missing):
        raise RestoreRefused(
            "the history that is here has gaps which the backup would fill: they are two histories"
        )
    await repository.put_versions(connection, missing)
    restored = await bring_together(repository, connection, backup, present)
    active = await repository.active(connection)
    if newest < wanted.version or restored.here_is_older:
        await repository.activate(connection, wanted.version)
        added, version = len(missing), wanted.version
        if active is None or active.version != version:
            await repository.rows.add_log(connection, [backup.line(author, now)])
    elif active is not None and active.content_hash == wanted.content_hash:
        added, version = len(missing), active.version
    else:
        # What is here is newer: the backup's content becomes active as a version of its own.
        new = NewVersion(
            "", (), wanted.content_hash, wanted.schema_version, author, backup.reason, now, wanted.body
        )  # fmt: skip
        added, version = len(missing) + 1, await repository.add_version(connection, new)
    await settle_trials(repository, connection, backup, restored, now)
    return added, version


async def _add_calls(store: SqliteStore, tenant_id: str, backed_up: Database) -> int:
    """In small transactions: calls that end meanwhile are recorded in between. Returns how many were missing."""
    added = key = 0
    while True:
        rows = await backed_up.read(partial(store.repository.calls_after, key=key, limit=CALLS_AT_ONCE))
        if not rows:
            return added
        key = rows[-1][0]
        async with store.shards.use(tenant_id) as shard:
            added += await shard.write(partial(_add_missing, store.repository, [call for _, call in rows]))


async def _add_missing(
    repository: TenantRepository, calls: list[CallRow], connection: AsyncConnection
) -> int:
    _, before = await repository.counts(connection)
    await repository.add_calls(connection, calls)
    _, after = await repository.counts(connection)
    return after - before


async def _set_aside(store: SqliteStore, tenant_id: str) -> Path | None:
    """Rename a damaged file, with its journal: somebody may still get something out of it."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    async with store.shards.closed(tenant_id) as path:
        aside = path.with_name(f"{path.name}.damaged-{stamp}")
        return aside if await asyncio.to_thread(_rename, path, aside) else None


async def _put_back(store: SqliteStore, tenant_id: str, aside: Path) -> None:
    async with store.shards.closed(tenant_id) as path:
        await asyncio.to_thread(_remove, path)
        await asyncio.to_thread(_rename, aside, path)


def _rename(path: Path, target: Path) -> bool:
    """Whether there was such a file."""
    found = path.exists()
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(target.with_name(target.name + suffix))
    return found


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
