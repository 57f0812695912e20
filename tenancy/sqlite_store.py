"""The store of one machine: ``shared.db``, and one file per tenant.

What belongs to one tenant is in its own file, so that a damaged or busy file costs one tenant, and a tenant is moved or
erased with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger
from sqlalchemy import Select, bindparam, literal_column, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.canary import Canary
from tenancy.context import VersionInfo
from tenancy.database import Database, Work, open_database, prepare
from tenancy.errors import StoreError, TenantElsewhere
from tenancy.feed_repository import changes_of
from tenancy.figures import NodeMinute, NodeRow, StoreFigures
from tenancy.glance import Remembered
from tenancy.ledger import Edit, Ledger, LogLine
from tenancy.ledger_repository import known_as, serving_of, texts_of
from tenancy.node_repository import NodeRepository
from tenancy.repository import TenantRepository
from tenancy.schema_history import SchemaHistory
from tenancy.shards import Shards
from tenancy.shared_repository import SharedRepository, asked_for, owned_address, tenant_of
from tenancy.store import (
    MAX_OPEN_SHARDS,
    Address,
    CallPlace,
    CallRow,
    Changes,
    DueTrial,
    NewVersion,
    OwnedAddress,
    Serving,
    ServingTexts,
    TenantRow,
    TenantStatus,
    VersionContent,
    VersionKey,
)

T = TypeVar("T")


class SqliteStore:
    """`tenancy.store.Store` in files below one folder."""

    def __init__(
        self,
        directory: Path,
        *,
        reader: Database,
        writer: Database,
        max_open_shards: int,
        figures: StoreFigures,
    ) -> None:
        self._writer = writer
        self.figures = figures
        # Look-ups have their own connection: on the writer's they would see what is not committed.
        self._reader = reader
        self.shared = SharedRepository()
        """The statements on addresses and status."""
        self.repository = TenantRepository()
        """The statements of one tenant's file."""
        self.nodes = NodeRepository()
        self.shards = Shards(directory / "tenants", max_open_shards, figures)
        self._served: Remembered[Serving] = Remembered()
        self._registered = prepare(self.shared.registered_query)
        self._tenant = prepare(self.shared.tenant_query)
        feed = self.shared.feed
        self._last_change, self._changes = prepare(feed.last_query), prepare(feed.changes_query)
        self._due = prepare(feed.due_query)
        queries = _queries(self.repository)
        self._placement, self._active, self._content, self._serving = map(prepare, queries[:4])
        self._texts, self._followed, self._trial = map(prepare, queries[4:])

    @classmethod
    async def open(cls, directory: Path, max_open_shards: int = MAX_OPEN_SHARDS) -> SqliteStore:
        """Open or create the databases in a folder. Raises `StoreError`."""
        path, history, figures = directory / "shared.db", SchemaHistory("shared"), StoreFigures()
        writer = await open_database(path, history, figures)
        try:
            reader = await open_database(path, history, figures)
        except BaseException:
            await writer.close()
            raise
        return cls(directory, reader=reader, writer=writer, max_open_shards=max_open_shards, figures=figures)

    async def close(self) -> None:
        """Close every file, each when its present user is done."""
        await self.shards.close()
        self._served = Remembered()
        await self._reader.close()
        await self._writer.close()

    # -- shared ----------------------------------------------------------------------------------------

    async def registered(self, addresses: Sequence[str]) -> tuple[OwnedAddress, ...]:
        rows = await self._reader.fetch(self._registered, **asked_for(addresses))
        return tuple(map(owned_address, rows))

    async def tenant(self, tenant_id: str) -> TenantRow | None:
        return tenant_of(await self._reader.fetch(self._tenant, tenant_id=tenant_id))

    async def tenant_ids(self, status: TenantStatus | None = None) -> tuple[str, ...]:
        return await self._reader.read(lambda connection: self.shared.tenant_ids(connection, status))

    async def tenants(
        self, after: str, limit: int, status: TenantStatus | None = None
    ) -> tuple[TenantRow, ...]:
        return await self._reader.read(
            lambda connection: self.shared.tenants(connection, after, limit, status)
        )

    async def addresses_of(self, tenant_id: str) -> tuple[Address, ...]:
        return await self._reader.read(lambda connection: self.shared.addresses_of(connection, tenant_id))

    async def set_status(
        self,
        tenant_id: str,
        status: TenantStatus,
        moved_to: str | None = None,
        expected: TenantRow | None = None,
    ) -> bool:
        return await self.set_status_after(tenant_id, status, moved_to, expected, _nothing)

    async def set_status_after(
        self,
        tenant_id: str,
        status: TenantStatus,
        moved_to: str | None,
        expected: TenantRow | None,
        first: Callable[[], Awaitable[object]],
    ) -> bool:
        """`set_status`, once something else is done: that is done only to a tenant that is as expected."""

        async def work(connection: AsyncConnection) -> bool:
            await self.shared.check_expected(connection, tenant_id, expected)
            await first()
            done = await self.shared.set_status(connection, tenant_id, status, moved_to)
            if done:
                await self.shared.feed.note(connection, tenant_id)
            return done

        return await self._writer.write(work)

    async def shared_write(self, work: Work[T]) -> T:
        """Do all of it or nothing, while nobody else writes addresses, status or, through them, versions."""
        return await self._writer.write(work)

    async def suspended(self, tenant_id: str) -> bool:
        """Whether it is, or was before it moved."""
        rows = await self._reader.fetch(self._tenant, tenant_id=tenant_id)
        return any(status == TenantStatus.SUSPENDED for _, status, _ in rows)

    async def last_change(self) -> int:
        ((number,),) = await self._reader.fetch(self._last_change)
        return int(number)

    async def changes(self, after: int) -> Changes:
        return changes_of(await self._reader.fetch(self._changes, after=after), after)

    async def note_change(self, tenant_id: str) -> None:
        """Say that calls of a tenant get something else; what was done before stays done where this fails."""
        try:
            await self._writer.write(lambda connection: self.shared.feed.note(connection, tenant_id))
        except StoreError as error:
            logger.bind(tenant=tenant_id).warning("other programs are not told of a change: {}", error)

    async def watch_trial(self, tenant_id: str, due_at_ms: int) -> None:
        await self._writer.write(lambda connection: self.shared.feed.watch(connection, tenant_id, due_at_ms))

    async def due_trials(self, now_ms: int) -> tuple[DueTrial, ...]:
        return tuple(DueTrial(*row) for row in await self._reader.fetch(self._due, now_ms=now_ms))

    async def trial_looked_at(self, seen: DueTrial, again_at_ms: int | None) -> None:
        await self._writer.write(lambda connection: self.shared.feed.looked_at(connection, seen, again_at_ms))

    async def import_version(self, new: NewVersion) -> int:
        return await self.import_with(new, self.active, self.add_version)

    async def import_with(
        self,
        new: NewVersion,
        active: Callable[[str], Awaitable[VersionKey | None]],
        add: Callable[[NewVersion], Awaitable[int]],
    ) -> int:
        """`import_version`, wherever the tenant's own data are."""

        async def and_then() -> tuple[int, bool]:
            before = await active(new.tenant_id)
            version = await add(new)
            return version, before is None or before.version != version

        version, _ = await self.claim_for(
            new.tenant_id,
            new.addresses,
            and_then,
            new_tenant=new.new_tenant,
            reaches_calls=lambda done: done[1],
        )
        return version

    async def claim_for(
        self,
        tenant_id: str,
        addresses: tuple[Address, ...],
        and_then: Callable[[], Awaitable[T]],
        *,
        reaches_calls: Callable[[T], bool] = lambda _: True,
        new_tenant: bool = False,
    ) -> T:
        """Give a tenant exactly these addresses once something else is committed, and note it where that reaches calls.

        In this order, a crash in between leaves addresses that the next import sets right, never one without a
        configuration.
        """

        async def work(connection: AsyncConnection) -> T:
            await self.shared.claim(connection, tenant_id, addresses, new_tenant=new_tenant)
            done = await and_then()
            if reaches_calls(done):
                await self.shared.feed.note(connection, tenant_id)
            return done

        return await self._writer.write(work)

    async def edit(
        self,
        tenant_id: str,
        change: Callable[[Ledger], Edit],
        addresses: tuple[Address, ...] | None = None,
    ) -> Edit:
        return await self.hold_for(tenant_id, addresses, lambda: self.edit_versions(tenant_id, change))

    async def hold_for(
        self,
        tenant_id: str,
        addresses: tuple[Address, ...] | None,
        and_then: Callable[[], Awaitable[Edit]],
    ) -> Edit:
        """As `claim_for`, for a tenant that is known; without ``addresses`` it keeps those that it has.

        The row is held meanwhile: a tenant that moves away takes all of its history along, or none of this.
        """

        async def work(connection: AsyncConnection) -> Edit:
            await self.shared.hold(connection, tenant_id)
            if addresses is not None:
                await self.shared.put_addresses(connection, tenant_id, addresses)
            edit = await and_then()
            if edit.reaches_calls:
                await self.shared.feed.note(connection, tenant_id)
            return edit

        return await self._writer.write(work)

    # -- nodes -----------------------------------------------------------------------------------------

    async def keep_minutes(self, node: NodeRow, minutes: Sequence[NodeMinute]) -> int:
        return await self._writer.write(lambda connection: self.nodes.keep(connection, node, minutes))

    async def leave(self, node_id: str) -> None:
        await self._writer.write(lambda connection: self.nodes.leave(connection, node_id))

    async def known_nodes(self) -> tuple[NodeRow, ...]:
        return await self._reader.read(self.nodes.known)

    async def minutes_since(self, minute: int) -> tuple[NodeMinute, ...]:
        return await self._reader.read(lambda connection: self.nodes.minutes_since(connection, minute))

    # -- one tenant ------------------------------------------------------------------------------------

    def place(self, tenant_id: str) -> str:
        return str(self.shards.path(tenant_id))

    async def active(self, tenant_id: str) -> VersionKey | None:
        ((store, version, content_hash),) = await self.shards.fetch(tenant_id, self._active)
        self._check_placement(store, tenant_id)
        return None if version is None else VersionKey(version, content_hash)

    async def serving(self, tenant_id: str) -> Serving | None:
        ((store, *row),) = await self.shards.fetch(tenant_id, self._serving)
        self._check_placement(store, tenant_id)
        return None if row[0] is None else serving_of(*row)

    async def serving_texts(self, tenant_id: str, known: Sequence[str]) -> ServingTexts | None:
        path = self.shards.path(tenant_id)
        served = self._served.get(path)
        if served is not None and served.hashes <= set(known):
            return ServingTexts(served, {})
        look = await self.shards.look(tenant_id, self._texts, **known_as(known))
        ((store, *row),) = look.rows
        self._check_placement(store, tenant_id)
        if row[0] is None:
            return None
        texts = texts_of(row)
        self._served.put(path, look.stamp, texts.serving)
        return texts

    async def followed(self, tenant_id: str) -> str | None:
        ((store, content_hash),) = await self.shards.fetch(tenant_id, self._followed)
        self._check_placement(store, tenant_id)
        return None if content_hash is None else str(content_hash)

    async def ledger(self, tenant_id: str) -> Ledger:
        return await self._read(tenant_id, self.repository.ledgers.ledger)

    async def trials(self, tenant_id: str, limit: int, before: int | None = None) -> tuple[Canary, ...]:
        return await self._read(
            tenant_id, lambda connection: self.repository.ledgers.trials(connection, limit, before)
        )

    async def config_log(self, tenant_id: str, limit: int, before: int | None = None) -> tuple[LogLine, ...]:
        return await self._read(
            tenant_id, lambda connection: self.repository.ledgers.log(connection, limit, before)
        )

    async def end_call(
        self, tenant_id: str, call: CallRow | None, observe: Callable[[Ledger], Edit | None]
    ) -> Edit | None:
        async def work(connection: AsyncConnection) -> Edit | None:
            await self._check_here(connection, tenant_id)
            return await self.repository.end_call(connection, call, observe)

        async with self.shards.use(tenant_id) as shard:
            if call is None:
                ((store, trial),) = await shard.fetch(self._trial)
                self._check_placement(store, tenant_id)
                if trial is None:
                    return None
            edit = await shard.write(work)
        if edit is not None and edit.reaches_calls:
            await self.note_change(tenant_id)
        return edit

    async def content(self, tenant_id: str, version: int) -> VersionContent | None:
        ((store, content_hash, body),) = await self.shards.fetch(tenant_id, self._content, number=version)
        self._check_placement(store, tenant_id)
        return None if body is None else VersionContent(content_hash, body)

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        return await self._read(tenant_id, self.repository.versions)

    async def is_here(self, tenant_id: str) -> bool:
        """Whether the tenant's file is where it lives: else it was left for Postgres."""
        ((store,),) = await self.shards.fetch(tenant_id, self._placement)
        return bool(store == "here")

    async def place_here(self, connection: AsyncConnection, *, here: bool) -> None:
        """Say in a tenant's file, whose connection it is, where the tenant lives."""
        value = "here" if here else "postgres"
        await connection.execute(update(self.repository.tables.placement).values(store=value))

    async def add_version(self, new: NewVersion) -> int:
        """The tenant's part of `import_version`."""

        async def work(connection: AsyncConnection) -> int:
            await self._check_here(connection, new.tenant_id)
            return await self.repository.add_version(connection, new)

        async with self.shards.use(new.tenant_id) as shard:
            # A node that starts finds most of its tenants as they are.
            ((store, version, content_hash),) = await shard.fetch(self._active)
            self._check_placement(store, new.tenant_id)
            if content_hash == new.content_hash:
                ((_, noted),) = await shard.fetch(self._followed)
                if not new.followed or noted == new.content_hash:
                    return int(version)
            return await shard.write(work)

    async def edit_versions(self, tenant_id: str, change: Callable[[Ledger], Edit]) -> Edit:
        """The tenant's part of `edit`."""

        async def work(connection: AsyncConnection) -> Edit:
            await self._check_here(connection, tenant_id)
            return await self.repository.edit(connection, change)

        async with self.shards.use(tenant_id) as shard:
            return await shard.write(work)

    async def add_call(self, tenant_id: str, call: CallRow) -> None:
        async with self.shards.use(tenant_id) as shard:
            # The file's own triggers refuse it where the tenant has left.
            await shard.write(lambda connection: self.repository.add_calls(connection, (call,)))

    async def newest_calls(
        self, tenant_id: str, limit: int, before: CallPlace | None = None
    ) -> tuple[CallRow, ...]:
        return await self._read(
            tenant_id, lambda connection: self.repository.newest_calls(connection, limit, before)
        )

    async def _read(self, tenant_id: str, work: Work[T]) -> T:
        async with self.shards.use(tenant_id) as shard:
            result = await shard.read(work)
            # Afterwards: what was read before the tenant left was true then.
            ((store,),) = await shard.fetch(self._placement)
        self._check_placement(store, tenant_id)
        return result

    async def _check_here(self, connection: AsyncConnection, tenant_id: str) -> None:
        store = (await connection.exec_driver_sql(self._placement.sql)).scalar_one()
        self._check_placement(store, tenant_id)

    def _check_placement(self, store: str, tenant_id: str) -> None:
        if store != "here":
            raise TenantElsewhere(
                f"{self.place(tenant_id)}: the tenant is in Postgres, which store.postgres does not name"
            )


async def _nothing() -> None:
    """Nothing is to be done first."""


def _queries(repository: TenantRepository) -> tuple[Select[Any], ...]:
    """Where the tenant is.

    The same with its active version, a version's content, what new calls get (then with the texts), what its file said, the
    trial that runs; each where there is one.
    """
    tables = repository.tables
    placement, active, versions = tables.placement, tables.active_version, tables.config_versions
    with_active = select(placement.c.store, versions.c.version, versions.c.content_hash).select_from(
        placement.outerjoin(active, true()).outerjoin(versions, active.c.version == versions.c.version)
    )
    with_content = select(placement.c.store, versions.c.content_hash, versions.c.body).select_from(
        placement.outerjoin(versions, versions.c.version == bindparam("number"))
    )
    ledgers = repository.ledgers
    always = literal_column("1") == literal_column("1")
    serving, texts = (
        select(placement.c.store, *columns).select_from(placement.outerjoin(ledgers.joined, always))
        for columns in (ledgers.serving_columns, ledgers.texts_columns)
    )
    followed = select(placement.c.store, tables.followed_file.c.content_hash).select_from(
        placement.outerjoin(tables.followed_file, true())
    )
    trial = select(placement.c.store, tables.trials.c.version).select_from(
        placement.outerjoin(tables.trials, tables.trials.c.running == literal_column("1"))
    )
    return select(placement.c.store), with_active, with_content, serving, texts, followed, trial
