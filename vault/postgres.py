"""One vault for several nodes: tables of its own in the Postgres database that the nodes share.

The database comes from outside (`Database`): who has tables there besides is not this package's matter.

Changes come one after the other, on whatever node: each locks the one row of ``vault_placement``, as the audit trail is one
chain and has one end. Readers wait for nobody; a reader whose task is cancelled does not wait for the server either.

Each transaction says whose rows it is about (``SET LOCAL app.tenant_id``) and row-level security shows it no others
(`vault.migrations`). The same triggers as in the file keep the audit trail append-only; who owns the tables can drop
them, which is what the chain of hashes is for (`vault.audit`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, assert_never

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from vault.audit import Entry, Head
from vault.errors import (
    AuditBroken,
    Conflict,
    VaultElsewhere,
    VaultFull,
    VaultStoreError,
    VaultStoreLocked,
)
from vault.records import (
    AddDataKey,
    DataKeyRow,
    Found,
    Link,
    Place,
    RetireDataKey,
    RewrapDataKey,
    Rows,
    SecretRow,
    Write,
    WriteSecret,
)
from vault.sealing import KeyPlace, WrappedKey
from vault.unbroken import to_the_end

T = TypeVar("T")

HISTORY: Final = "vault"
REVISIONS: Final = Path(__file__).parent / "migrations"
SCOPED_TABLES: Final = ("vault_data_keys", "vault_secrets")
READS_MAX: Final = 256
"""Reads at a time, those included that nobody waits for any more; one more is told that the database is busy."""
CLOSE_WAIT_S: Final = 1.0
EVERY_TENANT: Final = "every tenant"

_MAY_PASS_OVER: Final = text("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
_IS_SCOPED: Final = text("SELECT row_security_active(CAST(:name AS text))")
# SET LOCAL: it ends with the transaction, whoever has the connection next.
_SCOPE: Final = "set_config('app.tenant_id', :tenant_id, true), set_config('app.vault_scope', :scope, true)"
_BEGIN_READING: Final = text(f"SELECT {_SCOPE}, (SELECT place FROM vault_placement)")
_SET_SCOPE: Final = text(f"SELECT {_SCOPE}")
_BEGIN_WRITING: Final = text("SELECT place FROM vault_placement FOR UPDATE")

_SECRET_COLUMNS: Final = (
    "s.tenant_id, s.name, s.version, s.sealed, s.generation, s.fingerprint, s.put_at, s.put_by, s.revoked_at"
)
_KEY_COLUMNS: Final = "k.tenant_id, k.generation, k.kek_id, k.wrapped, k.made_at"
_SEVERAL: Final = text(
    f"""SELECT {_SECRET_COLUMNS}, {_KEY_COLUMNS} FROM vault_secrets s LEFT JOIN vault_data_keys k
    ON k.tenant_id = s.tenant_id AND k.generation = s.generation
    WHERE s.tenant_id = :tenant_id AND s.name = ANY (:names)"""
)
_SECRETS: Final = text(
    f"SELECT {_SECRET_COLUMNS} FROM vault_secrets s WHERE tenant_id = :tenant_id ORDER BY name"
)
_DATA_KEYS: Final = text(
    f"SELECT {_KEY_COLUMNS} FROM vault_data_keys k WHERE tenant_id = :tenant_id ORDER BY generation"
)
_DATA_KEYS_NOT_UNDER: Final = text(
    f"""SELECT {_KEY_COLUMNS} FROM vault_data_keys k
    WHERE (tenant_id, generation) > (:tenant_id, :generation) AND kek_id <> :kek_id
    ORDER BY tenant_id, generation LIMIT :limit"""
)
_ALL_SECRETS: Final = text(
    f"""SELECT {_SECRET_COLUMNS} FROM vault_secrets s WHERE (tenant_id, name) > (:tenant_id, :name)
    ORDER BY tenant_id, name LIMIT :limit"""
)
_TENANTS: Final = text(
    "SELECT DISTINCT tenant_id FROM vault_data_keys WHERE tenant_id > :after ORDER BY tenant_id LIMIT :limit"
)
_HEAD: Final = text("SELECT sequence, hash, mac FROM vault_audit_head")
_ENTRIES: Final = text(
    """SELECT sequence, at, actor, action, tenant_id, name, version, kek_id, hash FROM vault_audit
    WHERE sequence > :after ORDER BY sequence LIMIT :limit"""
)
_LAST_ENTRY: Final = text(
    "SELECT sequence, at, actor, action, tenant_id, name, version, kek_id, hash FROM vault_audit"
    " ORDER BY sequence DESC LIMIT 1"
)
_ADD_ENTRY: Final = text(
    """INSERT INTO vault_audit (sequence, at, actor, action, tenant_id, name, version, kek_id, hash)
    VALUES (:sequence, :at, :actor, :action, :tenant_id, :name, :version, :kek_id, :hash)"""
)
_PUT_HEAD: Final = text(
    """INSERT INTO vault_audit_head VALUES (1, :sequence, :hash, :mac) ON CONFLICT (only_row) DO UPDATE SET
    sequence = excluded.sequence, hash = excluded.hash, mac = excluded.mac"""
)
_INSERT_DATA_KEY: Final = (
    "INSERT INTO vault_data_keys (tenant_id, generation, kek_id, wrapped, made_at)"
    " VALUES (:tenant_id, :generation, :kek_id, :wrapped, :made_at) ON CONFLICT"
)
_ADD_DATA_KEY: Final = text(f"{_INSERT_DATA_KEY} DO NOTHING")
_PUT_DATA_KEY: Final = text(
    f"{_INSERT_DATA_KEY} (tenant_id, generation) DO UPDATE SET kek_id = excluded.kek_id,"
    " wrapped = excluded.wrapped, made_at = excluded.made_at"
)
_REWRAP: Final = text(
    """UPDATE vault_data_keys SET kek_id = :kek_id, wrapped = :wrapped WHERE tenant_id = :tenant_id
    AND generation = :generation AND kek_id = :old_kek_id AND wrapped = :old_wrapped"""
)
_RETIRE: Final = text(
    """DELETE FROM vault_data_keys WHERE tenant_id = :tenant_id AND generation = :generation
    AND EXISTS (SELECT 1 FROM vault_data_keys n WHERE n.tenant_id = :tenant_id AND n.generation > :generation)
    AND NOT EXISTS
    (SELECT 1 FROM vault_secrets s WHERE s.tenant_id = :tenant_id AND s.generation = :generation)"""
)
_DROP_DATA_KEY: Final = text(
    "DELETE FROM vault_data_keys WHERE tenant_id = :tenant_id AND generation = :generation"
)
_PRESENT: Final = text(
    "SELECT version, generation FROM vault_secrets WHERE tenant_id = :tenant_id AND name = :name"
)
_HAS_DATA_KEY: Final = text(
    "SELECT count(*) FROM vault_data_keys WHERE tenant_id = :tenant_id AND generation = :generation"
)
_NAMES: Final = text("SELECT count(*) FROM vault_secrets WHERE tenant_id = :tenant_id")
_PUT_SECRET: Final = text(
    """INSERT INTO vault_secrets
    (tenant_id, name, version, sealed, generation, fingerprint, put_at, put_by, revoked_at) VALUES
    (:tenant_id, :name, :version, :sealed, :generation, :fingerprint, :put_at, :put_by, :revoked_at)
    ON CONFLICT (tenant_id, name) DO UPDATE SET
    version = excluded.version, sealed = excluded.sealed, generation = excluded.generation,
    fingerprint = excluded.fingerprint, put_at = excluded.put_at, put_by = excluded.put_by,
    revoked_at = excluded.revoked_at"""
)
_SET_PLACE: Final = text("UPDATE vault_placement SET place = :place")


class Database(Protocol):
    """A Postgres database. Every method raises `VaultStoreError` where it cannot, without what was to be written."""

    @property
    def place(self) -> str:
        """What errors call it; without a password."""
        ...

    async def upgrade(self, history: str, revisions: Path) -> None:
        """Apply what is missing of the revisions in a folder, in one transaction."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction (read committed): all of it or nothing."""
        ...

    async def close(self) -> None:
        """End the connections."""
        ...


class PostgresSecretStore:
    """`SecretStore` in a Postgres database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reading: set[asyncio.Task[Any]] = set()
        self._closed = False

    @classmethod
    async def open(cls, database: Database) -> PostgresSecretStore:
        """Bring the schema up to date. Raises `VaultStoreError`, and closes the database then."""
        store = cls(database)
        try:
            await to_the_end(store._prepare())
        except BaseException:
            await database.close()
            raise
        return store

    async def _prepare(self) -> None:
        place = self._database.place
        async with self._database.transaction() as connection:
            if (await connection.execute(_MAY_PASS_OVER)).scalar_one():
                raise VaultStoreError(
                    f"{place}: its role may pass over row-level security (SUPERUSER or BYPASSRLS);"
                    " tenants' keys would not be kept apart. Use a role of NOSUPERUSER NOBYPASSRLS"
                )
        await self._database.upgrade(HISTORY, REVISIONS)
        async with self._database.transaction() as connection:
            for table in SCOPED_TABLES:
                if not (await connection.execute(_IS_SCOPED, {"name": table})).scalar_one():
                    raise VaultStoreError(f"{place}: row-level security of {table} is off")

    # -- reading -----------------------------------------------------------------------------------------

    async def secret(self, tenant_id: str, name: str) -> Found | None:
        return (await self.several(tenant_id, (name,))).get(name)

    async def several(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, Found]:
        rows = await self._read(tenant_id, _SEVERAL, tenant_id=tenant_id, names=list(names))
        found = [Found(SecretRow(*row[:9]), None if row[9] is None else _data_key(row[9:])) for row in rows]
        return {each.secret.name: each for each in found}

    async def secrets(self, tenant_id: str) -> tuple[SecretRow, ...]:
        rows = await self._read(tenant_id, _SECRETS, tenant_id=tenant_id)
        return tuple(SecretRow(*row) for row in rows)

    async def data_keys(self, tenant_id: str) -> tuple[DataKeyRow, ...]:
        return tuple(map(_data_key, await self._read(tenant_id, _DATA_KEYS, tenant_id=tenant_id)))

    async def data_keys_not_under(
        self, kek_id: str, after: KeyPlace | None, limit: int
    ) -> tuple[DataKeyRow, ...]:
        tenant_id, generation = ("", 0) if after is None else (after.tenant_id, after.generation)
        rows = await self._read(
            None, _DATA_KEYS_NOT_UNDER,
            tenant_id=tenant_id, generation=generation, kek_id=kek_id, limit=limit,
        )  # fmt: skip
        return tuple(map(_data_key, rows))

    async def tenants(self, after: str, limit: int) -> tuple[str, ...]:
        return tuple(row[0] for row in await self._read(None, _TENANTS, after=after, limit=limit))

    async def head(self) -> Head | None:
        rows = await self._read("", _HEAD)
        return Head(*rows[0]) if rows else None

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]:
        return tuple(Entry(*row) for row in await self._read("", _ENTRIES, after=after, limit=limit))

    async def _read(self, whose: str | None, query: TextClause, **values: object) -> list[tuple[Any, ...]]:
        """The rows of one statement, which sees that tenant's alone; None: every tenant's."""
        if self._closed:
            raise VaultStoreError(f"{self._database.place}: the vault is closed")
        if len(self._reading) >= READS_MAX:
            raise VaultStoreLocked(f"{self._database.place}: {READS_MAX} reads wait for an answer already")
        # A call waits for its keys so long and no longer; what was begun gives its connection back in its own time.
        task = asyncio.ensure_future(self._fetch(whose, query, values))
        self._reading.add(task)
        task.add_done_callback(self._was_read)
        return await asyncio.shield(task)

    def _was_read(self, task: asyncio.Task[Any]) -> None:
        self._reading.discard(task)
        if not task.cancelled():
            task.exception()

    async def _fetch(
        self, whose: str | None, query: TextClause, values: dict[str, object]
    ) -> list[tuple[Any, ...]]:
        async with self._database.transaction() as connection:
            begun = await connection.execute(_BEGIN_READING, _scope(whose))
            self._check(begun.one()[2])
            return [tuple(row) for row in await connection.execute(query, values)]

    def _check(self, place: str) -> None:
        if place != Place.HERE:
            raise VaultElsewhere(
                f"{self._database.place}: the vault is in a node's file: it was brought back, or not yet here to the end"
                " (mediaserver migrate sqlite-to-postgres)"
            )

    # -- writing -----------------------------------------------------------------------------------------

    async def commit(self, writes: Sequence[Write], link: Link) -> None:
        await to_the_end(self._commit(writes, link))

    async def _commit(self, writes: Sequence[Write], link: Link) -> None:
        async with self._database.transaction() as connection:
            self._check((await connection.execute(_BEGIN_WRITING)).scalar_one())
            for write in writes:
                await _write(connection, write)
            await self._enter(_PostgresRows(connection), link)

    async def _enter(self, rows: _PostgresRows, link: Link) -> None:
        place, head, last_entry = self._database.place, await rows.head(), await rows.last_entry()
        last = 0 if last_entry is None else last_entry.sequence
        if head is None and last:
            raise AuditBroken(f"{place}: the audit trail has entries but no head")
        appended = link(head)
        if appended.entries and appended.entries[0].sequence != last + 1:
            raise AuditBroken(f"{place}: the audit trail ends at entry {last}, not where its head says")
        await rows.put_entries(appended.entries)
        await rows.put_head(appended.head)

    async def alone(self, work: Callable[[Rows], Awaitable[T]]) -> T:
        """See `MovableStore`."""

        async def do() -> T:
            async with self._database.transaction() as connection:
                await connection.execute(_BEGIN_WRITING)
                await connection.execute(_SET_SCOPE, _scope(None))
                return await work(_PostgresRows(connection))

        return await to_the_end(do())

    async def aclose(self) -> None:
        self._closed = True
        reading = set(self._reading)
        if reading:
            await asyncio.wait(reading, timeout=CLOSE_WAIT_S)
        for task in reading:
            task.cancel()
        await self._database.close()


async def _write(connection: AsyncConnection, write: Write) -> None:
    row = write.row if isinstance(write, WriteSecret | AddDataKey) else write
    place = row if isinstance(row, SecretRow) else row.place
    await connection.execute(_SET_SCOPE, _scope(place.tenant_id))
    match write:
        case WriteSecret():
            await _write_secret(connection, write)
        case AddDataKey(DataKeyRow() as added):
            await _change(connection, added.place, _ADD_DATA_KEY, _of_data_key(added))
        case RewrapDataKey(where, old, new):
            values = {
                "kek_id": new.kek_id, "wrapped": new.blob, "old_kek_id": old.kek_id, "old_wrapped": old.blob,
            }  # fmt: skip
            await _change(connection, where, _REWRAP, _of_place(where) | values)
        case RetireDataKey(where):
            await _change(connection, where, _RETIRE, _of_place(where))
        case _:
            assert_never(write)


async def _change(
    connection: AsyncConnection, place: KeyPlace, statement: TextClause, values: dict[str, object]
) -> None:
    if (await connection.execute(statement, values)).rowcount != 1:
        raise Conflict(f"{place.tenant_id}: data key {place.generation} was changed meanwhile")


async def _write_secret(connection: AsyncConnection, write: WriteSecret) -> None:
    row = write.row
    values = _of_secret(row)
    old = (await connection.execute(_PRESENT, {"tenant_id": row.tenant_id, "name": row.name})).one_or_none()
    if (None if old is None else tuple(old)) != write.replaces:
        raise Conflict(f"{row.tenant_id}: {row.name} was changed meanwhile")
    if row.generation is not None:
        key = _of_place(KeyPlace(row.tenant_id, row.generation))
        if not (await connection.execute(_HAS_DATA_KEY, key)).scalar_one():
            raise Conflict(f"{row.tenant_id}: data key {row.generation} was retired meanwhile")
    if old is None:
        counted = (await connection.execute(_NAMES, {"tenant_id": row.tenant_id})).scalar_one()
        if counted >= write.names_max:
            raise VaultFull(f"{row.tenant_id} has {write.names_max} names of keys, as many as it may have")
    await connection.execute(_PUT_SECRET, values)


class _PostgresRows:
    """`Rows` through a connection that has the lock."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def place(self) -> Place:
        return Place((await self.connection.execute(_BEGIN_WRITING)).scalar_one())

    async def set_place(self, place: Place) -> None:
        await self.connection.execute(_SET_PLACE, {"place": str(place)})

    async def head(self) -> Head | None:
        row = (await self.connection.execute(_HEAD)).one_or_none()
        return None if row is None else Head(*row)

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]:
        rows = await self.connection.execute(_ENTRIES, {"after": after, "limit": limit})
        return tuple(Entry(*row) for row in rows)

    async def last_entry(self) -> Entry | None:
        row = (await self.connection.execute(_LAST_ENTRY)).one_or_none()
        return None if row is None else Entry(*row)

    async def all_data_keys(self, after: KeyPlace, limit: int) -> tuple[DataKeyRow, ...]:
        values = _of_place(after) | {"kek_id": "", "limit": limit}
        return tuple(map(_data_key, await self.connection.execute(_DATA_KEYS_NOT_UNDER, values)))

    async def all_secrets(self, after: tuple[str, str], limit: int) -> tuple[SecretRow, ...]:
        values = {"tenant_id": after[0], "name": after[1], "limit": limit}
        return tuple(SecretRow(*row) for row in await self.connection.execute(_ALL_SECRETS, values))

    async def put_entries(self, entries: Sequence[Entry]) -> None:
        await self._each(
            _ADD_ENTRY,
            [
                {
                    "sequence": e.sequence, "at": e.at, "actor": e.actor, "action": str(e.action),
                    "tenant_id": e.tenant_id, "name": e.name, "version": e.version, "kek_id": e.kek_id,
                    "hash": e.hash,
                }
                for e in entries
            ],
        )  # fmt: skip

    async def put_head(self, head: Head) -> None:
        await self.connection.execute(
            _PUT_HEAD, {"sequence": head.sequence, "hash": head.hash, "mac": head.mac}
        )

    async def put_data_keys(self, rows: Sequence[DataKeyRow]) -> None:
        await self._each(_PUT_DATA_KEY, [_of_data_key(row) for row in rows])

    async def drop_data_keys(self, places: Sequence[KeyPlace]) -> None:
        await self._each(_DROP_DATA_KEY, [_of_place(place) for place in places])

    async def put_secrets(self, rows: Sequence[SecretRow]) -> None:
        await self._each(_PUT_SECRET, [_of_secret(row) for row in rows])

    async def _each(self, statement: TextClause, values: list[dict[str, object]]) -> None:
        if values:
            await self.connection.execute(statement, values)


def _scope(tenant_id: str | None) -> dict[str, str]:
    """Whose rows a transaction sees; None: every tenant's."""
    return {"tenant_id": tenant_id or "", "scope": EVERY_TENANT if tenant_id is None else ""}


def _data_key(row: Sequence[Any]) -> DataKeyRow:
    tenant_id, generation, kek_id, wrapped, made_at = row
    return DataKeyRow(KeyPlace(tenant_id, generation), WrappedKey(kek_id, wrapped), made_at)


def _of_place(place: KeyPlace) -> dict[str, object]:
    return {"tenant_id": place.tenant_id, "generation": place.generation}


def _of_data_key(row: DataKeyRow) -> dict[str, object]:
    return _of_place(row.place) | {
        "kek_id": row.wrapped.kek_id, "wrapped": row.wrapped.blob, "made_at": row.made_at,
    }  # fmt: skip


def _of_secret(row: SecretRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in SecretRow.__slots__}
