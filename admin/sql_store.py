"""`admin.store.AdminStore` by SQL, the same statements for SQLite and Postgres.

SQLite lets one write at a time. In Postgres, several nodes write: where one has to wait for another, each transaction begins
with a lock of its own kind (an advisory one, which ends with it), so that what is read afterwards stays true until it commits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import orjson
from sqlalchemy import Row, Table, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from admin.audit import EMPTY, Head, chained, time_text
from admin.errors import Throttled, Unavailable
from admin.idempotency import KEPT_MS, KeyUse
from admin.ports import Deed, Entry, KeptAnswer
from admin.principals import Role
from admin.schema import admin_tables
from admin.store import PAGE_MAX, TOKENS_STAY_MS, Denials, TokenRow, Use
from tenancy.database import Work
from tenancy.errors import StoreError

T = TypeVar("T")

RETRY_FULL_S: Final = 3_600


class Backing(Protocol):
    """A database."""

    @property
    def place(self) -> str:
        """What errors call it."""

    async def read(self, work: Work[T]) -> T:
        """Do what only reads. Raises `StoreError`."""

    async def write(self, work: Work[T]) -> T:
        """Do all of it or nothing. Raises `StoreError`."""

    async def close(self) -> None:
        """Let go of it."""

    def told(self, error: StoreError) -> str:
        """What to tell a client of the error."""


class SqlStore:
    """Statements on a backing."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._tables = admin_tables()

    @property
    def place(self) -> str:
        return self._backing.place

    async def close(self) -> None:
        await self._backing.close()

    async def _read(self, work: Work[T]) -> T:
        try:
            return await self._backing.read(work)
        except StoreError as error:
            raise Unavailable(self._backing.told(error)) from error

    async def _write(self, work: Work[T]) -> T:
        try:
            return await self._backing.write(work)
        except StoreError as error:
            raise Unavailable(self._backing.told(error)) from error

    # -- API tokens ------------------------------------------------------------------------------------

    async def add_token(self, row: TokenRow, active_max: int) -> bool:
        tokens, now_ms = self._tables.tokens, row.created_ms

        async def work(connection: AsyncConnection) -> bool:
            await _lock(connection, "tokens", row.tenant_id or "")
            await connection.execute(delete(tokens).where(tokens.c.expires_ms < now_ms - TOKENS_STAY_MS))
            active = select(func.count()).where(
                tokens.c.tenant_id.is_not_distinct_from(row.tenant_id),
                tokens.c.revoked_ms.is_(None),
                tokens.c.expires_ms > now_ms,
            )
            if (await connection.execute(active)).scalar_one() >= active_max:
                return False
            await connection.execute(
                insert(tokens).values(
                    {column.name: getattr(row, column.name) for column in tokens.c} | {"role": str(row.role)}
                )
            )
            return True

        return await self._write(work)

    async def token(self, public_id: str) -> TokenRow | None:
        tokens = self._tables.tokens

        async def work(connection: AsyncConnection) -> TokenRow | None:
            query = select(tokens).where(tokens.c.public_id == public_id)
            found = (await connection.execute(query)).one_or_none()
            return None if found is None else _token(found)

        return await self._read(work)

    async def tokens(self, *, tenant_id: str | None, after: str, limit: int) -> tuple[TokenRow, ...]:
        tokens = self._tables.tokens
        query = select(tokens).where(tokens.c.public_id > after).order_by(tokens.c.public_id)
        if tenant_id is not None:
            query = query.where(tokens.c.tenant_id == tenant_id)

        async def work(connection: AsyncConnection) -> tuple[TokenRow, ...]:
            return tuple(map(_token, await connection.execute(query.limit(min(limit, PAGE_MAX)))))

        return await self._read(work)

    async def revoke_token(
        self, public_id: str, *, tenant_id: str | None, by: str, now_ms: int
    ) -> TokenRow | None:
        tokens = self._tables.tokens
        mine = [tokens.c.public_id == public_id]
        if tenant_id is not None:
            mine.append(tokens.c.tenant_id == tenant_id)

        async def work(connection: AsyncConnection) -> TokenRow | None:
            change = update(tokens).where(*mine, tokens.c.revoked_ms.is_(None))
            await connection.execute(change.values(revoked_ms=now_ms, revoked_by=by))
            found = (await connection.execute(select(tokens).where(*mine))).one_or_none()
            return None if found is None else _token(found)

        return await self._write(work)

    # -- JWTs ------------------------------------------------------------------------------------------

    async def use_once(self, token_hash: bytes, *, until_ms: int, now_ms: int, size_max: int) -> Use:
        async def work(connection: AsyncConnection) -> Use:
            used = self._tables.used_tokens
            await _lock(connection, "used tokens", "")
            await connection.execute(delete(used).where(used.c.until_ms < now_ms))
            if await _has(connection, used, token_hash):
                return Use.AGAIN
            if (await connection.execute(select(func.count()).select_from(used))).scalar_one() >= size_max:
                return Use.FULL
            await connection.execute(insert(used).values(token_hash=token_hash, until_ms=until_ms))
            return Use.FIRST

        return await self._write(work)

    async def denials(self, token_hash: bytes | None, subject_hash: bytes) -> Denials:
        tokens, subjects = self._tables.denied_tokens, self._tables.denied_subjects
        query = select(
            select(func.count()).where(tokens.c.token_hash == (token_hash or b"")).scalar_subquery(),
            select(subjects.c.before_ms).where(subjects.c.subject_hash == subject_hash).scalar_subquery(),
        )

        async def work(connection: AsyncConnection) -> Denials:
            count, before_ms = (await connection.execute(query)).one()
            return Denials(count > 0, before_ms)

        return await self._read(work)

    async def deny_token(self, token_hash: bytes, *, until_ms: int, now_ms: int, size_max: int) -> bool:
        denied = self._tables.denied_tokens

        async def work(connection: AsyncConnection) -> bool:
            await _make_room(connection, denied, now_ms)
            if await _has(connection, denied, token_hash):
                change = update(denied).where(denied.c.token_hash == token_hash, denied.c.until_ms < until_ms)
                await connection.execute(change.values(until_ms=until_ms))
                return True
            if (await connection.execute(select(func.count()).select_from(denied))).scalar_one() >= size_max:
                return False
            await connection.execute(insert(denied).values(token_hash=token_hash, until_ms=until_ms))
            return True

        return await self._write(work)

    async def deny_subject(
        self, subject_hash: bytes, *, before_ms: int, until_ms: int, now_ms: int, size_max: int
    ) -> bool:
        denied = self._tables.denied_subjects

        async def work(connection: AsyncConnection) -> bool:
            await _make_room(connection, denied, now_ms)
            mine = denied.c.subject_hash == subject_hash
            if (await connection.execute(select(denied.c.before_ms).where(mine))).one_or_none() is not None:
                change = update(denied).where(mine, denied.c.before_ms < before_ms)
                await connection.execute(change.values(before_ms=before_ms, until_ms=until_ms))
                return True
            if (await connection.execute(select(func.count()).select_from(denied))).scalar_one() >= size_max:
                return False
            await connection.execute(
                insert(denied).values(subject_hash=subject_hash, before_ms=before_ms, until_ms=until_ms)
            )
            return True

        return await self._write(work)

    # -- idempotency -----------------------------------------------------------------------------------

    async def begin_key(
        self,
        key: bytes,
        owner: bytes,
        new: KeyUse,
        judge: Callable[[KeyUse | None], KeptAnswer | None],
        keys_max: int,
    ) -> KeptAnswer | None:
        keys = self._tables.keys

        async def work(connection: AsyncConnection) -> KeptAnswer | None:
            # An owner's keys one after the other: their count is exact, and nobody else waits.
            await _lock(connection, "keys", owner.hex())
            found = (await connection.execute(select(keys).where(keys.c.key_hash == key))).one_or_none()
            answer = judge(None if found is None else _key_use(found))
            if answer is not None:
                return answer
            over = keys.c.began_ms < new.began_ms - KEPT_MS
            await connection.execute(
                delete(keys).where((keys.c.key_hash == key) | ((keys.c.owner_hash == owner) & over))
            )
            count = select(func.count()).select_from(keys).where(keys.c.owner_hash == owner)
            if (await connection.execute(count)).scalar_one() >= keys_max:
                raise Throttled(
                    f"{keys_max} idempotency keys were used within 24 hours, as many as are kept",
                    RETRY_FULL_S,
                )
            await connection.execute(
                insert(keys).values(
                    key_hash=key,
                    owner_hash=owner,
                    fingerprint=new.fingerprint,
                    claim=new.claim,
                    began_ms=new.began_ms,
                )
            )
            return None

        return await self._write(work)

    async def finish_key(self, key: bytes, claim: bytes, answer: KeptAnswer) -> bool:
        keys = self._tables.keys
        change = (
            update(keys)
            .where(keys.c.key_hash == key, keys.c.claim == claim, keys.c.status.is_(None))
            .values(status=answer.status, headers=orjson.dumps(answer.headers).decode(), body=answer.body)
        )
        return await self._write(lambda connection: _changed(connection, change))

    async def abandon_key(self, key: bytes, claim: bytes) -> bool:
        keys = self._tables.keys
        change = delete(keys).where(keys.c.key_hash == key, keys.c.claim == claim, keys.c.status.is_(None))
        return await self._write(lambda connection: _changed(connection, change))

    async def forget_keys(self, now_ms: int) -> int:
        keys = self._tables.keys

        async def work(connection: AsyncConnection) -> int:
            over = delete(keys).where(keys.c.began_ms < now_ms - KEPT_MS)
            return int((await connection.execute(over)).rowcount)

        return await self._write(work)

    # -- audit -----------------------------------------------------------------------------------------

    async def append(self, deed: Deed) -> Head:
        audit, heads = self._tables.audit, self._tables.audit_head

        async def work(connection: AsyncConnection) -> Head:
            await _lock(connection, "audit", "")
            found = (await connection.execute(select(heads.c.sequence, heads.c.hash))).one_or_none()
            head = EMPTY if found is None else Head(found.sequence, bytes(found.hash))
            entry = chained(head, deed)
            values = {name: getattr(deed, name) for name in _DEED_FIELDS}
            await connection.execute(
                insert(audit).values(
                    values | {"at": time_text(deed.at), "sequence": entry.sequence, "hash": entry.hash}
                )
            )
            new = {"sequence": entry.sequence, "hash": entry.hash}
            change = insert(heads).values(only_row=1, **new) if found is None else update(heads).values(new)
            await connection.execute(change)
            return Head(entry.sequence, entry.hash)

        return await self._write(work)

    async def entries(self, *, tenant_id: str | None, after: int, limit: int) -> tuple[Entry, ...]:
        audit = self._tables.audit
        query = select(audit).where(audit.c.sequence > after).order_by(audit.c.sequence)
        if tenant_id is not None:
            query = query.where(audit.c.tenant_id == tenant_id)

        async def work(connection: AsyncConnection) -> tuple[Entry, ...]:
            return tuple(map(_entry, await connection.execute(query.limit(min(limit, PAGE_MAX)))))

        return await self._read(work)

    async def ends(self) -> tuple[Head, int]:
        audit, heads = self._tables.audit, self._tables.audit_head
        # One statement: one moment.
        query = select(
            select(func.coalesce(func.max(audit.c.sequence), 0)).scalar_subquery(),
            select(heads.c.sequence).scalar_subquery(),
            select(heads.c.hash).scalar_subquery(),
        )

        async def work(connection: AsyncConnection) -> tuple[Head, int]:
            last, sequence, entry_hash = (await connection.execute(query)).one()
            return (EMPTY if sequence is None else Head(sequence, bytes(entry_hash))), int(last)

        return await self._read(work)


_DEED_FIELDS: Final = (
    "principal",
    "credential",
    "source",
    "action",
    "tenant_id",
    "target",
    "status",
    "request_id",
    "detail",
)


async def _lock(connection: AsyncConnection, kind: str, whose: str) -> None:
    """Wait for others of this kind, and make them wait until the transaction ends."""
    if connection.dialect.name != "sqlite":
        digest = hashlib.sha256(f"admin/{kind}/{whose}".encode()).digest()
        number = int.from_bytes(digest[:8], "big", signed=True)
        await connection.execute(select(func.pg_advisory_xact_lock(literal(number))))


async def _make_room(connection: AsyncConnection, denied: Table, now_ms: int) -> None:
    await _lock(connection, denied.name, "")
    await connection.execute(delete(denied).where(denied.c.until_ms < now_ms))


async def _has(connection: AsyncConnection, table: Table, token_hash: bytes) -> bool:
    query = select(func.count()).select_from(table).where(table.c.token_hash == token_hash)
    return bool((await connection.execute(query)).scalar_one())


async def _changed(connection: AsyncConnection, change: Any) -> bool:
    return bool((await connection.execute(change)).rowcount == 1)


def _token(row: Row[Any]) -> TokenRow:
    fields = row._asdict()
    return TokenRow(**fields | {"role": Role(row.role)})


def _key_use(row: Row[Any]) -> KeyUse:
    answer = None
    if row.status is not None:
        headers = tuple((str(name), str(value)) for name, value in orjson.loads(row.headers))
        answer = KeptAnswer(row.status, headers, bytes(row.body))
    return KeyUse(bytes(row.fingerprint), bytes(row.claim), row.began_ms, answer)


def _entry(row: Row[Any]) -> Entry:
    fields = {name: getattr(row, name) for name in _DEED_FIELDS}
    return Entry(row.sequence, Deed(at=_time(row.at), **fields), bytes(row.hash))


def _time(text: str) -> datetime:
    """When it was; what is no time was written by somebody else, and is left to the verification to find."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
