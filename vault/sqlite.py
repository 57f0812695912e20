"""The vault's own SQLite file, ``vault.db``.

Two connections: one that writes, one change after the other, and one that reads, each answer by a single statement. So
no reader sees a change that is under way. A change runs to its end even where the task that asked for it is cancelled.

What is replaced, revoked or retired is overwritten in the file (``secure_delete``); the write-ahead log holds it, sealed,
until its next checkpoint.

Triggers keep the audit trail append-only and versions from going back. They guard against this program's own errors and
against statements typed by hand; whoever can write the file can drop them, which is what the chain of hashes is for
(`vault.audit`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar, assert_never

import aiosqlite

from vault.audit import Entry, Head
from vault.errors import (
    AuditBroken,
    Conflict,
    VaultElsewhere,
    VaultFull,
    VaultStoreCorrupt,
    VaultStoreError,
    VaultStoreFull,
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
from vault.sealing import SEALED_BYTES_MAX, WRAPPED_BYTES_MAX, KeyPlace, WrappedKey
from vault.unbroken import to_the_end

T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 5_000
_WAL_RETRY_S: Final = 0.01
_ELSEWHERE: Final = "the vault was brought to Postgres"
_SECRET_COLUMNS: Final = (
    "s.tenant_id, s.name, s.version, s.sealed, s.generation, s.fingerprint, s.put_at, s.put_by, s.revoked_at"
)
_KEY_COLUMNS: Final = "k.tenant_id, k.generation, k.kek_id, k.wrapped, k.made_at"
_PLACE: Final = "SELECT place FROM placement"
_HEAD: Final = "SELECT sequence, hash, mac FROM audit_head"
_ENTRIES: Final = (
    "SELECT sequence, at, actor, action, tenant_id, name, version, kek_id, hash FROM audit"
    " WHERE sequence > ? ORDER BY sequence LIMIT ?"
)
_LAST_ENTRY: Final = (
    "SELECT sequence, at, actor, action, tenant_id, name, version, kek_id, hash FROM audit"
    " ORDER BY sequence DESC LIMIT 1"
)
_DATA_KEYS_NOT_UNDER: Final = (
    f"SELECT {_KEY_COLUMNS} FROM data_keys k WHERE (tenant_id, generation) > (?, ?) AND kek_id <> ?"
    " ORDER BY tenant_id, generation LIMIT ?"
)
_ALL_SECRETS: Final = f"SELECT {_SECRET_COLUMNS} FROM secrets s WHERE (tenant_id, name) > (?, ?) ORDER BY tenant_id, name LIMIT ?"
_PUT_SECRET: Final = """INSERT INTO secrets VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (tenant_id, name) DO UPDATE SET
    version = excluded.version, sealed = excluded.sealed, generation = excluded.generation,
    fingerprint = excluded.fingerprint, put_at = excluded.put_at, put_by = excluded.put_by,
    revoked_at = excluded.revoked_at"""

MIGRATIONS: Final = (
    (
        f"""CREATE TABLE data_keys (
            tenant_id TEXT NOT NULL,
            generation INTEGER NOT NULL CHECK (generation >= 1),
            kek_id TEXT NOT NULL,
            wrapped BLOB NOT NULL CHECK (length(wrapped) <= {WRAPPED_BYTES_MAX}),
            made_at TEXT NOT NULL,
            PRIMARY KEY (tenant_id, generation)
        ) STRICT, WITHOUT ROWID""",
        f"""CREATE TABLE secrets (
            tenant_id TEXT NOT NULL,
            name TEXT NOT NULL,
            version INTEGER NOT NULL CHECK (version >= 1),
            sealed BLOB CHECK (length(sealed) <= {SEALED_BYTES_MAX}),
            generation INTEGER,
            fingerprint TEXT NOT NULL,
            put_at TEXT NOT NULL,
            put_by TEXT NOT NULL,
            revoked_at TEXT,
            PRIMARY KEY (tenant_id, name),
            FOREIGN KEY (tenant_id, generation) REFERENCES data_keys (tenant_id, generation),
            CHECK ((sealed IS NULL) = (generation IS NULL) AND (sealed IS NULL) = (revoked_at IS NOT NULL))
        ) STRICT""",
        "CREATE INDEX secrets_by_data_key ON secrets (tenant_id, generation)",
        """CREATE TABLE audit (
            sequence INTEGER PRIMARY KEY,
            at TEXT NOT NULL,
            actor TEXT NOT NULL,
            action TEXT NOT NULL,
            tenant_id TEXT NOT NULL,
            name TEXT,
            version INTEGER,
            kek_id TEXT,
            hash BLOB NOT NULL CHECK (length(hash) = 32)
        ) STRICT""",
        """CREATE TABLE audit_head (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            sequence INTEGER NOT NULL,
            hash BLOB NOT NULL,
            mac BLOB NOT NULL
        ) STRICT""",
        """CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
        BEGIN SELECT RAISE (ABORT, 'audit entries are not changed'); END""",
        """CREATE TRIGGER audit_remains BEFORE DELETE ON audit
        BEGIN SELECT RAISE (ABORT, 'audit entries are not deleted'); END""",
        # REPLACE deletes without firing the trigger above.
        """CREATE TRIGGER audit_grows BEFORE INSERT ON audit
        WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM audit)
        BEGIN SELECT RAISE (ABORT, 'audit entries are appended one after the other'); END""",
        """CREATE TRIGGER audit_head_advances BEFORE UPDATE ON audit_head WHEN NEW.sequence <= OLD.sequence
        BEGIN SELECT RAISE (ABORT, 'the head of the audit trail goes forward only'); END""",
        """CREATE TRIGGER audit_head_remains BEFORE DELETE ON audit_head
        BEGIN SELECT RAISE (ABORT, 'the head of the audit trail is not deleted'); END""",
        """CREATE TRIGGER versions_advance BEFORE UPDATE ON secrets WHEN NEW.version < OLD.version
        BEGIN SELECT RAISE (ABORT, 'versions of secrets go forward only'); END""",
        """CREATE TRIGGER versions_remain BEFORE DELETE ON secrets
        BEGIN SELECT RAISE (ABORT, 'secrets are revoked, not deleted'); END""",
    ),
    (
        """CREATE TABLE placement (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            place TEXT NOT NULL CHECK (place IN ('here', 'elsewhere'))
        ) STRICT""",
        "INSERT INTO placement VALUES (1, 'here')",
        # A program of before that has the file open knows no placement.
        f"""CREATE TRIGGER audit_here BEFORE INSERT ON audit WHEN (SELECT place FROM placement) <> 'here'
        BEGIN SELECT RAISE (ABORT, '{_ELSEWHERE}'); END""",
    ),
)


@contextmanager
def _store_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise VaultStoreLocked(
                f"{path}: in use by another program for {BUSY_TIMEOUT_MS} ms: {error}"
            ) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise VaultStoreCorrupt(f"{path}: damaged, or not a database of ours: {error}") from error
        if code == sqlite3.SQLITE_FULL:
            raise VaultStoreFull(f"{path}: {error}") from error
        if _ELSEWHERE in str(error):
            raise VaultElsewhere(f"{path}: {error}") from error
        raise VaultStoreError(f"{path}: {error}") from error


class SqliteStore:
    """`SecretStore` in a file that nobody but the server's user can read."""

    def __init__(self, path: Path, writer: aiosqlite.Connection, reader: aiosqlite.Connection) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open the file, creating (mode 0600) and migrating it. Raises `VaultStoreError`."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite gives its -wal and -shm files the permissions of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise VaultStoreError(f"{path}: {error.strerror}") from error
        with _store_errors(path):
            writer = await _connect(path)
            try:
                await _migrate(writer, path)
                reader = await _connect(path)
            except BaseException:
                await writer.close()
                raise
        return cls(path, writer, reader)

    async def secret(self, tenant_id: str, name: str) -> Found | None:
        return (await self.several(tenant_id, (name,))).get(name)

    async def several(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, Found]:
        rows = await self._read(
            f"""SELECT {_SECRET_COLUMNS}, {_KEY_COLUMNS} FROM secrets s LEFT JOIN data_keys k
            ON k.tenant_id = s.tenant_id AND k.generation = s.generation
            WHERE s.tenant_id = ? AND s.name IN (SELECT value FROM json_each(?))""",
            tenant_id,
            json.dumps(names),
        )
        found = [Found(SecretRow(*row[:9]), None if row[9] is None else _data_key(row[9:])) for row in rows]
        return {each.secret.name: each for each in found}

    async def secrets(self, tenant_id: str) -> tuple[SecretRow, ...]:
        query = f"SELECT {_SECRET_COLUMNS} FROM secrets s WHERE tenant_id = ? ORDER BY name"
        return tuple(SecretRow(*row) for row in await self._read(query, tenant_id))

    async def data_keys(self, tenant_id: str) -> tuple[DataKeyRow, ...]:
        query = f"SELECT {_KEY_COLUMNS} FROM data_keys k WHERE tenant_id = ? ORDER BY generation"
        return tuple(_data_key(row) for row in await self._read(query, tenant_id))

    async def data_keys_not_under(
        self, kek_id: str, after: KeyPlace | None, limit: int
    ) -> tuple[DataKeyRow, ...]:
        start = ("", 0) if after is None else (after.tenant_id, after.generation)
        rows = await self._read(_DATA_KEYS_NOT_UNDER, *start, kek_id, limit)
        return tuple(_data_key(row) for row in rows)

    async def tenants(self, after: str, limit: int) -> tuple[str, ...]:
        query = "SELECT DISTINCT tenant_id FROM data_keys WHERE tenant_id > ? ORDER BY tenant_id LIMIT ?"
        return tuple(row[0] for row in await self._read(query, after, limit))

    async def head(self) -> Head | None:
        rows = await self._read(_HEAD)
        return Head(*rows[0]) if rows else None

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]:
        return tuple(Entry(*row) for row in await self._read(_ENTRIES, after, limit))

    async def commit(self, writes: Sequence[Write], link: Link) -> None:
        async with self._writing:
            with _store_errors(self._path):
                await to_the_end(self._commit(writes, link))

    async def aclose(self) -> None:
        async with self._writing:
            try:
                await self._reader.close()
            finally:
                await self._writer.close()

    async def alone(self, work: Callable[[Rows], Awaitable[T]]) -> T:
        """See `MovableStore`."""
        async with self._writing:
            with _store_errors(self._path):
                return await to_the_end(self._transaction(lambda: work(_SqliteRows(self._writer))))

    async def _read(self, query: str, *values: object) -> list[sqlite3.Row]:
        with _store_errors(self._path):
            rows = list(await self._reader.execute_fetchall(query, values))
            # After the rows: what was read before the vault went was as it should be.
            self._check(list(await self._reader.execute_fetchall(_PLACE)))
            return rows

    def _check(self, rows: Sequence[Sequence[Any]]) -> None:
        if rows[0][0] != Place.HERE:
            raise VaultElsewhere(
                f"{self._path}: {_ELSEWHERE}; the node needs store.kind postgres, or a store.postgres section to follow it"
            )

    async def _transaction(self, work: Callable[[], Awaitable[T]]) -> T:
        writer = self._writer
        await writer.execute("BEGIN IMMEDIATE")
        try:
            done = await work()
            await writer.execute("COMMIT")
        except BaseException:
            # None is open where SQLite itself rolled back, as it does on a full disk.
            with suppress(sqlite3.Error):
                await writer.execute("ROLLBACK")
            raise
        return done

    async def _commit(self, writes: Sequence[Write], link: Link) -> None:
        async def work() -> None:
            self._check(list(await self._writer.execute_fetchall(_PLACE)))
            for write in writes:
                await self._write(write)
            await self._enter(link)

        await self._transaction(work)

    async def _enter(self, link: Link) -> None:
        rows = _SqliteRows(self._writer)
        head, last_entry = await rows.head(), await rows.last_entry()
        last = 0 if last_entry is None else last_entry.sequence
        if head is None and last:
            raise AuditBroken(f"{self._path}: the audit trail has entries but no head")
        appended = link(head)
        if appended.entries and appended.entries[0].sequence != last + 1:
            raise AuditBroken(f"{self._path}: the audit trail ends at entry {last}, not where its head says")
        await rows.put_entries(appended.entries)
        await rows.put_head(appended.head)

    async def _write(self, write: Write) -> None:
        match write:
            case WriteSecret():
                await self._write_secret(write)
            case AddDataKey(DataKeyRow(place, wrapped, made_at)):
                await self._change(
                    place,
                    "INSERT INTO data_keys VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    place.tenant_id, place.generation, wrapped.kek_id, wrapped.blob, made_at,
                )  # fmt: skip
            case RewrapDataKey(place, old, new):
                await self._change(
                    place,
                    """UPDATE data_keys SET kek_id = ?, wrapped = ?
                    WHERE tenant_id = ? AND generation = ? AND kek_id = ? AND wrapped = ?""",
                    new.kek_id, new.blob, place.tenant_id, place.generation, old.kek_id, old.blob,
                )  # fmt: skip
            case RetireDataKey(place):
                await self._change(
                    place,
                    """DELETE FROM data_keys AS k WHERE tenant_id = ?1 AND generation = ?2
                    AND EXISTS (SELECT 1 FROM data_keys n WHERE n.tenant_id = ?1 AND n.generation > ?2)
                    AND NOT EXISTS (SELECT 1 FROM secrets s WHERE s.tenant_id = ?1 AND s.generation = ?2)""",
                    place.tenant_id,
                    place.generation,
                )
            case _:
                assert_never(write)

    async def _change(self, place: KeyPlace, statement: str, *values: object) -> None:
        cursor = await self._writer.execute(statement, values)
        if cursor.rowcount != 1:
            raise Conflict(f"{place.tenant_id}: data key {place.generation} was changed meanwhile")

    async def _write_secret(self, write: WriteSecret) -> None:
        row, writer = write.row, self._writer
        where = "tenant_id = ? AND name = ?"
        old = list(
            await writer.execute_fetchall(
                f"SELECT version, generation FROM secrets WHERE {where}", (row.tenant_id, row.name)
            )
        )
        if (tuple(old[0]) if old else None) != write.replaces:
            raise Conflict(f"{row.tenant_id}: {row.name} was changed meanwhile")
        if row.generation is not None and not list(
            await writer.execute_fetchall(
                "SELECT 1 FROM data_keys WHERE tenant_id = ? AND generation = ?",
                (row.tenant_id, row.generation),
            )
        ):
            raise Conflict(f"{row.tenant_id}: data key {row.generation} was retired meanwhile")
        if not old:
            counted = await _value(writer, "SELECT count(*) FROM secrets WHERE tenant_id = ?", row.tenant_id)
            if counted >= write.names_max:
                raise VaultFull(
                    f"{row.tenant_id} has {write.names_max} names of keys, as many as it may have"
                )
        await writer.execute(_PUT_SECRET, _of_secret(row))


class _SqliteRows:
    """`Rows` through the connection that writes, within its transaction."""

    def __init__(self, writer: aiosqlite.Connection) -> None:
        self._writer = writer

    async def place(self) -> Place:
        ((place,),) = await self._writer.execute_fetchall(_PLACE)
        return Place(place)

    async def set_place(self, place: Place) -> None:
        await self._writer.execute("UPDATE placement SET place = ?", (str(place),))

    async def head(self) -> Head | None:
        rows = list(await self._writer.execute_fetchall(_HEAD))
        return Head(*rows[0]) if rows else None

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]:
        return tuple(Entry(*row) for row in await self._writer.execute_fetchall(_ENTRIES, (after, limit)))

    async def last_entry(self) -> Entry | None:
        rows = list(await self._writer.execute_fetchall(_LAST_ENTRY))
        return Entry(*rows[0]) if rows else None

    async def all_data_keys(self, after: KeyPlace, limit: int) -> tuple[DataKeyRow, ...]:
        values = (after.tenant_id, after.generation, "", limit)
        return tuple(map(_data_key, await self._writer.execute_fetchall(_DATA_KEYS_NOT_UNDER, values)))

    async def all_secrets(self, after: tuple[str, str], limit: int) -> tuple[SecretRow, ...]:
        rows = await self._writer.execute_fetchall(_ALL_SECRETS, (*after, limit))
        return tuple(SecretRow(*row) for row in rows)

    async def put_entries(self, entries: Sequence[Entry]) -> None:
        await self._writer.executemany(
            "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (e.sequence, e.at, e.actor, e.action, e.tenant_id, e.name, e.version, e.kek_id, e.hash)
                for e in entries
            ],
        )

    async def put_head(self, head: Head) -> None:
        await self._writer.execute(
            """INSERT INTO audit_head VALUES (1, ?, ?, ?)
            ON CONFLICT (only_row) DO UPDATE SET sequence = excluded.sequence, hash = excluded.hash, mac = excluded.mac""",
            (head.sequence, head.hash, head.mac),
        )

    async def put_data_keys(self, rows: Sequence[DataKeyRow]) -> None:
        await self._writer.executemany(
            """INSERT INTO data_keys VALUES (?, ?, ?, ?, ?) ON CONFLICT (tenant_id, generation) DO UPDATE SET
            kek_id = excluded.kek_id, wrapped = excluded.wrapped, made_at = excluded.made_at""",
            [
                (row.place.tenant_id, row.place.generation, row.wrapped.kek_id, row.wrapped.blob, row.made_at)
                for row in rows
            ],
        )

    async def drop_data_keys(self, places: Sequence[KeyPlace]) -> None:
        await self._writer.executemany(
            "DELETE FROM data_keys WHERE tenant_id = ? AND generation = ?",
            [(place.tenant_id, place.generation) for place in places],
        )

    async def put_secrets(self, rows: Sequence[SecretRow]) -> None:
        await self._writer.executemany(_PUT_SECRET, [_of_secret(row) for row in rows])


def _of_secret(row: SecretRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in SecretRow.__slots__)


async def _value(connection: aiosqlite.Connection, query: str, *values: object) -> int:
    """The number that a query of one row and one column gives."""
    (row,) = await connection.execute_fetchall(query, values)
    return int(row[0])


def _data_key(row: Sequence[Any]) -> DataKeyRow:
    tenant_id, generation, kek_id, wrapped, made_at = row
    return DataKeyRow(KeyPlace(tenant_id, generation), WrappedKey(kek_id, wrapped), made_at)


async def _connect(path: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None)
    try:
        await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        await _use_wal(connection)
        # A key that was accepted is still there after a power cut.
        await connection.execute("PRAGMA synchronous = FULL")
        await connection.execute("PRAGMA foreign_keys = ON")
        # What is replaced or revoked is overwritten in the file, sealed as it is.
        await connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _use_wal(connection: aiosqlite.Connection) -> None:
    """Turn to WAL. SQLite says "busy" at once where two do so at a time, whatever ``busy_timeout`` is."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or loop.time() >= give_up:
                raise
            await asyncio.sleep(_WAL_RETRY_S)
        else:
            return


async def _migrate(connection: aiosqlite.Connection, path: Path) -> None:
    await connection.execute("BEGIN IMMEDIATE")
    try:
        version = await _value(connection, "PRAGMA user_version")
        if version > len(MIGRATIONS):
            raise VaultStoreError(
                f"{path}: schema version {version} is newer than this program's {len(MIGRATIONS)}"
            )
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                await connection.execute(statement)
        await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        await connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            await connection.execute("ROLLBACK")
        raise
