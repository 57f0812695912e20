"""Brings tenants from SQLite files to Postgres, and back, one at a time and while calls go on.

What a tenant has is copied while it is in use. Then it is frozen, for milliseconds: the write lock of ``shared.db`` and of
the tenant's file (back: of its row in Postgres) are held, so that whoever wants to write waits. What came in meanwhile is
copied, numbers of rows and checksums of both sides are compared, and the file's mark is turned: from then on who waited
writes to the other side (`tenancy.both_stores`). A lock ends with the process that holds it, and the mark is turned in one
transaction; so whoever is ended at any point leaves every tenant in one place, not frozen, and the next run goes on.

Copying leaves the source as it is. Versions never change, and calls and the log's lines are only added, so that copying again,
or back, adds what is missing and compares the rest. What became of versions, their trials and what the tenant's file said are
written over. A trial goes on where its tenant is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.database import unbroken
from tenancy.errors import MigrationFailed, StoreLocked, TenancyError
from tenancy.ledger_rows import LogRow, StateRow, TrialRow
from tenancy.postgres_store import PostgresStore
from tenancy.repository import TenantRepository
from tenancy.sqlite_store import SqliteStore
from tenancy.store import CallRow, StoredVersion, TenantRow, TenantStatus

CALLS_AT_ONCE: Final = 500
LINES_AT_ONCE: Final = 500
ATTEMPTS: Final = 4
"""How often a tenant is tried whose locks others hold; each waits as long as any other writer."""
T = TypeVar("T")
Row = TypeVar("Row", CallRow, StoredVersion, StateRow, TrialRow, LogRow)
IN_FILES: Final = "sqlite"
"""The address in Postgres of a tenant that is in a file: whoever asks Postgres alone is told that it has moved."""


class Outcome(StrEnum):
    """What became of a tenant."""

    MOVED = "moved"
    ALREADY_THERE = "already there"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant's move."""

    tenant_id: str
    outcome: Outcome
    versions: int = 0
    calls: int = 0
    lines: int = 0
    """Of the log."""
    checksum: str = ""
    """SHA-256 over both sides' rows, the same for either."""
    frozen_ms: float = 0.0
    """How long a write had to wait at most."""
    reason: str = ""
    """Why it failed; the tenant is where it was."""


@dataclass(slots=True)
class _Side:
    """One store's rows of a tenant, through a connection that sees them."""

    connection: AsyncConnection
    repository: TenantRepository


@dataclass(slots=True)
class _Copied:
    """What has been copied of a tenant so far, and the checksums of what was read on both sides."""

    last_call_key: int = 0
    calls: int = 0
    last_line_keys: tuple[int, int] = (0, 0)
    """On the source's side and the target's, where a line has another key."""
    lines: int = 0
    source: hashlib._Hash = field(default_factory=hashlib.sha256)
    target: hashlib._Hash = field(default_factory=hashlib.sha256)


class Migration:
    """Moves tenants between a node's files and a Postgres."""

    def __init__(self, files: SqliteStore, postgres: PostgresStore) -> None:
        self._files = files
        self._postgres = postgres

    async def to_postgres(self, tenant_ids: Sequence[str] = ()) -> AsyncIterator[TenantReport]:
        """Move these tenants (none: all), one after the other; one that fails does not hold up the others.

        Raises `StoreError` where the shared part of either side cannot be read.
        """
        await _patiently(self._agree_on_addresses)
        for tenant_id in tenant_ids or await self._files.tenant_ids():
            yield await self._reported(tenant_id, self._forward)

    async def to_sqlite(self, tenant_ids: Sequence[str] = ()) -> AsyncIterator[TenantReport]:
        """Move these tenants (none: all that Postgres has) back. Raises as `to_postgres`."""
        for tenant_id in tenant_ids or await self._postgres.tenant_ids():
            yield await self._reported(tenant_id, self._back)

    async def _reported(
        self, tenant_id: str, move: Callable[[str], Coroutine[Any, Any, TenantReport]]
    ) -> TenantReport:
        try:
            return await _patiently(lambda: move(tenant_id))
        except TenancyError as error:
            return TenantReport(tenant_id, Outcome.FAILED, reason=str(error))

    async def _agree_on_addresses(self) -> None:
        """Set right what a node that ended between its two commits has left: ``shared.db`` decides."""

        async def work(shared: AsyncConnection) -> None:
            right = await self._files.shared.all_addresses(shared)
            async with self._postgres.transaction() as connection:
                present = await self._postgres.shared.all_addresses(connection)
                known = set(await self._files.shared.tenant_ids(shared))
                # A tenant that the files do not know is Postgres's own.
                wrong = [
                    address
                    for address, owned in present.items()
                    if owned[0] in known and right.get(address) != owned
                ]
                if not wrong and not (right.items() - present.items()):
                    return
                await self._postgres.shared.release(connection, wrong)
                there = await self._postgres.shared.tenant_ids(connection)
                for tenant_id in known.intersection(there):
                    row = await self._postgres.shared.tenant(connection, tenant_id)
                    if row is not None and row.moved_to != IN_FILES:
                        mine = await self._files.shared.addresses_of(shared, tenant_id)
                        await self._postgres.shared.put_addresses(connection, tenant_id, mine)

        await self._files.shared_write(work)

    # -- to Postgres -----------------------------------------------------------------------------------

    async def _forward(self, tenant_id: str) -> TenantReport:
        if await self._files.tenant(tenant_id) is None:
            raise MigrationFailed(f"{tenant_id}: no such tenant in the files")
        if not await self._files.is_here(tenant_id):
            return TenantReport(tenant_id, Outcome.ALREADY_THERE)
        copied = _Copied()
        await self._announce(tenant_id)
        while await self._copy_some_forward(tenant_id, copied):
            pass
        began = time.perf_counter()

        async def frozen(shared: AsyncConnection) -> TenantReport:
            async with self._files.shards.use(tenant_id) as shard:
                return await shard.write(
                    lambda connection: self._finish_forward(tenant_id, copied, shared, connection)
                )

        report = await self._files.shared_write(frozen)
        return dataclasses.replace(report, frozen_ms=(time.perf_counter() - began) * 1000)

    async def _announce(self, tenant_id: str) -> None:
        """Make the tenant's row, to which the others refer: as one that is not there yet."""
        async with self._postgres.transaction() as connection:
            if await self._postgres.shared.tenant(connection, tenant_id) is None:
                row = TenantRow(tenant_id, TenantStatus.MOVED, IN_FILES)
                await self._postgres.shared.put_tenant(connection, row, suspended=False)

    async def _copy_some_forward(self, tenant_id: str, copied: _Copied) -> bool:
        """Copy a batch without holding anybody up; whether there may be more."""
        async with self._files.shards.use(tenant_id) as shard:
            # The shard's one connection is ours meanwhile; other programs use the file through their own.
            async def work(connection: AsyncConnection) -> bool:
                async with self._postgres.tenant_transaction(tenant_id) as target:
                    return await _copy_batch(
                        tenant_id,
                        copied,
                        _Side(connection, self._files.repository),
                        _Side(target, self._postgres.repository),
                    )

            return await shard.read(work)

    async def _finish_forward(
        self, tenant_id: str, copied: _Copied, shared: AsyncConnection, connection: AsyncConnection
    ) -> TenantReport:
        row = await self._files.shared.tenant(shared, tenant_id)
        assert row is not None  # Tenants are never deleted.
        addresses = await self._files.shared.addresses_of(shared, tenant_id)
        suspended = await self._files.suspended(tenant_id)
        async with self._postgres.tenant_transaction(tenant_id) as target:
            source_side = _Side(connection, self._files.repository)
            target_side = _Side(target, self._postgres.repository)
            while await _copy_batch(tenant_id, copied, source_side, target_side):
                pass
            report = await _finish(tenant_id, copied, source_side, target_side)
            await self._postgres.shared.put_tenant(target, row, suspended=suspended)
            await self._postgres.shared.put_addresses(target, tenant_id, addresses)
            due_at_ms = await self._files.shared.feed.due_at(shared, tenant_id)
            if due_at_ms is not None:
                # For nodes that have no files.
                await self._postgres.shared.feed.watch(target, tenant_id, due_at_ms)
        # Postgres has everything now, and the file still counts: this turns it, with this transaction's commit.
        await self._files.place_here(connection, here=False)
        return report

    # -- back ------------------------------------------------------------------------------------------

    async def _back(self, tenant_id: str) -> TenantReport:
        row = await self._postgres.tenant(tenant_id)
        if row is None:
            raise MigrationFailed(f"{tenant_id}: no such tenant in Postgres")
        if row.moved_to == IN_FILES or (
            await self._files.is_here(tenant_id) and await self._files.active(tenant_id) is not None
        ):
            # The file counts; Postgres was not told, where the last run ended in between.
            await self._leave_postgres(tenant_id)
            return TenantReport(tenant_id, Outcome.ALREADY_THERE)
        copied = _Copied()
        while await self._copy_some_back(tenant_id, copied):
            pass
        began = time.perf_counter()
        report = await self._files.shared_write(lambda shared: self._finish_back(tenant_id, copied, shared))
        return dataclasses.replace(report, frozen_ms=(time.perf_counter() - began) * 1000)

    async def _leave_postgres(self, tenant_id: str) -> None:
        async with self._postgres.tenant_transaction(tenant_id) as connection:
            await self._postgres.shared.set_status(connection, tenant_id, TenantStatus.MOVED, IN_FILES)
            await self._postgres.shared.put_addresses(connection, tenant_id, ())

    async def _copy_some_back(self, tenant_id: str, copied: _Copied) -> bool:
        async with self._files.shards.use(tenant_id) as shard:

            async def work(connection: AsyncConnection) -> bool:
                async with self._postgres.tenant_transaction(tenant_id) as source:
                    # Nobody sees this: the file refuses what is written into it unless it says "here".
                    await self._files.place_here(connection, here=True)
                    more = await _copy_batch(
                        tenant_id,
                        copied,
                        _Side(source, self._postgres.repository),
                        _Side(connection, self._files.repository),
                    )
                    await self._files.place_here(connection, here=False)
                    return more

            return await shard.write(work)

    async def _finish_back(self, tenant_id: str, copied: _Copied, shared: AsyncConnection) -> TenantReport:
        postgres = self._postgres
        async with postgres.tenant_transaction(tenant_id) as source:
            row = await postgres.shared.lock(source, tenant_id)
            assert row is not None
            suspended = await postgres.shared.suspended(source, tenant_id)
            addresses = await postgres.shared.addresses_of(source, tenant_id)
            await self._files.shared.put_tenant(shared, row, suspended=suspended)
            await self._files.shared.put_addresses(shared, tenant_id, addresses)
            due_at_ms = await postgres.shared.feed.due_at(source, tenant_id)
            if due_at_ms is not None:
                await self._files.shared.feed.watch(shared, tenant_id, due_at_ms)

            async def work(connection: AsyncConnection) -> TenantReport:
                await self._files.place_here(connection, here=True)
                source_side = _Side(source, postgres.repository)
                target_side = _Side(connection, self._files.repository)
                while await _copy_batch(tenant_id, copied, source_side, target_side):
                    pass
                return await _finish(tenant_id, copied, source_side, target_side)

            async with self._files.shards.use(tenant_id) as shard:
                report = await shard.write(work)
            # The file counts now. Who waited for the tenant's lock reads that, and writes there.
            away = TenantRow(tenant_id, TenantStatus.MOVED, IN_FILES)
            await postgres.shared.put_tenant(source, away, suspended=suspended)
            await postgres.shared.put_addresses(source, tenant_id, ())
        return report


async def _patiently(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do it, again where a lock was another's: SQLite gives its lock to whoever asks at the right moment."""
    for _ in range(ATTEMPTS - 1):
        try:
            return await unbroken(work())
        except StoreLocked:
            continue
    return await unbroken(work())


def _plain(row: Row) -> Row:
    """A row as both sides can have it: Postgres has no NUL in texts, and its times are UTC."""
    changes: dict[str, Any] = {}
    for name in row.__slots__:
        match getattr(row, name):
            case str() as text if "\0" in text:
                changes[name] = text.replace("\0", "?")
            case datetime() as moment:
                changes[name] = moment.astimezone(UTC)
    return dataclasses.replace(row, **changes)


def _digest(rows: Sequence[CallRow | StoredVersion | TrialRow | LogRow]) -> bytes:
    return hashlib.sha256(orjson.dumps([dataclasses.astuple(row) for row in rows])).digest()


def _by_time(call: CallRow) -> tuple[datetime, str]:
    return call.started_at, call.call_id


async def _copy_batch(tenant_id: str, copied: _Copied, source: _Side, target: _Side) -> bool:
    """Copy the next calls and lines, and read them back; whether there may be more."""
    # Versions after what refers to them was read: none is missing, whatever is added in between.
    read = await _lives(source), await _next_lines(source, copied.last_line_keys[0])
    await _copy_versions(tenant_id, source, target)
    await _put_lives(target, read[0])
    more_lines = await _copy_lines(tenant_id, copied, read[1], target)
    return await _copy_calls(tenant_id, copied, source, target) or more_lines


async def _copy_calls(tenant_id: str, copied: _Copied, source: _Side, target: _Side) -> bool:
    rows = await source.repository.calls_after(source.connection, copied.last_call_key, CALLS_AT_ONCE)
    if rows:
        calls = sorted((_plain(call) for _, call in rows), key=_by_time)
        await target.repository.add_calls(target.connection, calls)
        found = await target.repository.calls_like(target.connection, calls)
        kept = sorted((_plain(call) for call in found), key=_by_time)
        if _digest(kept) != _digest(calls):
            raise MigrationFailed(f"{tenant_id}: calls up to {calls[-1].started_at} differ on the two sides")
        copied.source.update(_digest(calls))
        copied.target.update(_digest(kept))
        copied.calls += len(rows)
        copied.last_call_key = rows[-1][0]
    return len(rows) == CALLS_AT_ONCE


@dataclass(frozen=True, slots=True)
class _Lives:
    """What became of versions; it changes."""

    states: tuple[StateRow, ...]
    trials: tuple[TrialRow, ...]
    followed: str | None


async def _lives(side: _Side) -> _Lives:
    return _Lives(
        tuple(map(_plain, await side.repository.rows.states(side.connection))),
        await side.repository.rows.trials(side.connection),
        await side.repository.ledgers.followed(side.connection),
    )


async def _put_lives(target: _Side, ours: _Lives) -> None:
    theirs = await _lives(target)
    rows, connection = target.repository.rows, target.connection
    await rows.put_states(connection, set(ours.states).difference(theirs.states))
    await rows.put_trials(connection, set(ours.trials).difference(theirs.trials))
    if ours.followed is not None and ours.followed != theirs.followed:
        await target.repository.ledgers.follow(connection, ours.followed)


async def _next_lines(side: _Side, key: int) -> list[tuple[int, LogRow]]:
    rows = await side.repository.rows.log_after(side.connection, key, LINES_AT_ONCE)
    return [(each_key, _plain(row)) for each_key, row in rows]


async def _copy_lines(
    tenant_id: str, copied: _Copied, ours: Sequence[tuple[int, LogRow]], target: _Side
) -> bool:
    """Copy the next lines where they are missing, and read them back; whether there may be more."""
    _, target_key = copied.last_line_keys
    lines = [row for _, row in ours]
    theirs = [row for _, row in await _next_lines(target, target_key)]
    if theirs != lines[: len(theirs)]:
        raise MigrationFailed(f"{tenant_id}: the logs of the two sides differ after line {copied.lines}")
    await target.repository.rows.add_log(target.connection, lines[len(theirs) :])
    kept = await _next_lines(target, target_key)
    if [row for _, row in kept] != lines:
        raise MigrationFailed(f"{tenant_id}: the logs of the two sides differ after line {copied.lines}")
    if ours:
        copied.source.update(_digest(lines))
        copied.target.update(_digest([row for _, row in kept]))
        copied.lines += len(lines)
        copied.last_line_keys = ours[-1][0], kept[-1][0]
    return len(ours) == LINES_AT_ONCE


async def _copy_versions(tenant_id: str, source: _Side, target: _Side) -> None:
    """Copy the versions that are missing. Raises `MigrationFailed` where the sides have two histories."""
    theirs = await target.repository.version_hashes(target.connection)
    ours = await source.repository.version_hashes(source.connection)
    for version, content_hash in theirs.items():
        if ours.get(version) != content_hash:
            raise MigrationFailed(f"{tenant_id}: version {version} is not the same on the two sides")
    for version in sorted(ours.keys() - theirs.keys()):
        stored = await source.repository.stored_versions(source.connection, version=version)
        await target.repository.put_versions(target.connection, [_plain(each) for each in stored])


async def _finish(tenant_id: str, copied: _Copied, source: _Side, target: _Side) -> TenantReport:
    """Activate, count and compare, while nobody writes."""
    active = await source.repository.active(source.connection)
    if active is not None:
        await target.repository.activate(target.connection, active.version)
    counted = await source.repository.counts(source.connection)
    found = await target.repository.counts(target.connection)
    if counted != found or counted[1] != copied.calls:
        raise MigrationFailed(
            f"{tenant_id}: {counted[0]} versions and {counted[1]} calls became {found[0]} and {found[1]}"
        )
    for side, checksum in ((source, copied.source), (target, copied.target)):
        versions = await side.repository.stored_versions(side.connection)
        checksum.update(_digest([_plain(each) for each in versions]))
        lives = await _lives(side)
        checksum.update(_digest(lives.trials) + str(lives.followed).encode())
    if copied.source.digest() != copied.target.digest():
        raise MigrationFailed(f"{tenant_id}: the checksums of the two sides differ")
    if await target.repository.active(target.connection) != active:
        raise MigrationFailed(f"{tenant_id}: another version is active on the other side")
    return TenantReport(
        tenant_id, Outcome.MOVED, *counted, lines=copied.lines, checksum=copied.source.hexdigest()
    )
