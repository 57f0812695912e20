"""Brings a vault from one store to another, as it is: what is sealed is sealed to tenant, name and version, not to a place.

All of it is copied first, in batches, while the vault is in use. Then its source is held: who wants to put a key waits,
or is told that the vault is busy; who wants to read one is not held up. What is missing or different at the target is
written, both sides are compared row by row and counted, the target's trail is verified to its head, and the target's
transaction ends with its saying that the vault is there. After that, and in the transaction that holds it, the source says
that the vault has gone.

Whoever is ended at any point leaves the vault in the source, or in both with the same content. The trail tells how much has
arrived, and which of two is the newer: so running again goes on, in either direction.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from vault.audit import Chain, Entry, Finding, Head, Verifier
from vault.envelopes import ROOT_PLACE
from vault.errors import AuditBroken, MoveRefused, OtherVault, VaultElsewhere, VaultStoreLocked
from vault.kek import KeyEncryption
from vault.records import DataKeyRow, MovableStore, Place, Rows, SecretRow
from vault.sealing import KeyPlace

ROWS_AT_ONCE: Final = 1_000
ATTEMPTS: Final = 4
"""How often a store is tried whose lock others hold; each waits as long as any other writer."""
Row = TypeVar("Row", DataKeyRow, SecretRow, Entry)


class Outcome(StrEnum):
    """What became of a vault."""

    MOVED = "moved"
    ALREADY_THERE = "already there"
    EMPTY = "empty"
    """Nothing was ever put into it; the first key is put at the target."""


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What one run did."""

    outcome: Outcome
    data_keys: int = 0
    secrets: int = 0
    entries: int = 0
    """Of the audit trail."""
    checksum: str = ""
    """SHA-256 over all rows, the same on both sides."""
    held_ms: float = 0.0
    """How long a change had to wait at most."""


class _Trail(Protocol):
    """Where audit entries are read from."""

    async def head(self) -> Head | None: ...

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]: ...


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What the target has of the source's trail."""

    last: int
    newer: bool = False
    """It has all of it and goes on from there."""


async def move(source: MovableStore, target: MovableStore, keks: KeyEncryption) -> MoveReport:
    """Bring the vault to the target. ``keks`` must open its root key.

    Raises:
        OtherVault: the target has a vault with another root key.
        MoveRefused: it is the same vault and their ways have parted, or the trail is not sound.
        KeyEncryptionError: the root key cannot be had.
        VaultStoreError: either store cannot be read or written.
    In each case the vault is where it was.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return await _move(source, target, keks)
        except VaultStoreLocked:
            continue
    return await _move(source, target, keks)


async def _move(source: MovableStore, target: MovableStore, keks: KeyEncryption) -> MoveReport:
    if await _place(source) is Place.ELSEWHERE:
        if await _place(target) is Place.ELSEWHERE:
            raise VaultElsewhere(
                "neither side has the vault: one of the two was put back to an earlier state"
            )
        return MoveReport(Outcome.ALREADY_THERE)
    chain = await _chain(source, keks)
    if chain is not None:
        await _copy_trail(source, target, chain)
        await _copy_ahead(source, target, chain)
    began = time.perf_counter()
    report = await source.alone(lambda rows: _turn(rows, target, chain))
    return dataclasses.replace(report, held_ms=(time.perf_counter() - began) * 1000)


async def _place(store: MovableStore) -> Place:
    return await store.alone(lambda rows: rows.place())


async def _chain(source: MovableStore, keks: KeyEncryption) -> Chain | None:
    """The trail's chain, by the vault's root key; None where nothing was put yet."""
    keys = await source.data_keys(ROOT_PLACE.tenant_id)
    if keys:
        return Chain(await keks.unwrap(keys[0].wrapped, keys[0].place))
    if await source.head() is not None:
        raise AuditBroken("the vault's root key is missing: it was taken away")
    return None


async def _arrived(source: _Trail, target: Rows, chain: Chain) -> _Arrived:
    """Raises `OtherVault` and `MoveRefused` where the target has something else."""
    head, last = await target.head(), await target.last_entry()
    if head is not None and not chain.vouches(head):
        raise OtherVault(
            "there is a vault with another root key, and two cannot be put together: begin with a database that has none,"
            " or put the keys there anew"
        )
    if last is None:
        return _Arrived(0)
    ours = await source.entries(last.sequence - 1, 1)
    if ours and ours[0].hash == last.hash:
        return _Arrived(last.sequence)
    end = await source.head()
    if not ours and end is not None:
        theirs = await target.entries(end.sequence - 1, 1)
        if theirs and theirs[0].hash == end.hash:
            return _Arrived(last.sequence, newer=True)
    if head is None:
        raise OtherVault("there is a part of another vault's audit trail, whose move has not ended")
    raise MoveRefused(
        f"the vault was changed on both sides, and neither has all changes: their audit trails ({last.sequence} entries"
        f" there, {0 if end is None else end.sequence} here) have parted"
    )


async def _copy_trail(source: MovableStore, target: MovableStore, chain: Chain) -> None:
    """Copy entries without holding anybody up, to where nobody reads the vault yet."""

    async def some(rows: Rows) -> bool:
        arrived = await _arrived(source, rows, chain)
        if arrived.newer or (await rows.place() is Place.HERE and arrived.last):
            return False
        entries = await source.entries(arrived.last, ROWS_AT_ONCE)
        # Nobody sees this: a file takes entries only where it says "here".
        await rows.set_place(Place.HERE)
        await rows.put_entries(entries)
        await rows.set_place(Place.ELSEWHERE)
        return len(entries) == ROWS_AT_ONCE

    while await target.alone(some):
        pass


async def _copy_ahead(source: MovableStore, target: MovableStore, chain: Chain) -> None:
    """Copy data keys and secrets a page at a time, each page as it is at one moment; what changes later is copied again."""
    after = KeyPlace("", 0)

    async def read(rows: Rows) -> tuple[tuple[DataKeyRow, ...], list[SecretRow]]:
        keys = await rows.all_data_keys(after, ROWS_AT_ONCE)
        return keys, await _secrets_under(rows, keys) if keys else []

    async def put(rows: Rows) -> bool:
        # Never over what is newer than the source, whoever of the two says that it has the vault.
        if await rows.place() is Place.HERE or (await _arrived(source, rows, chain)).newer:
            return False
        await rows.put_data_keys(keys)
        await rows.put_secrets(secrets)
        return True

    while True:
        keys, secrets = await source.alone(read)
        if not keys or not await target.alone(put):
            return
        after = keys[-1].place


async def _secrets_under(rows: Rows, keys: tuple[DataKeyRow, ...]) -> list[SecretRow]:
    """The secrets of these tenants that need none but these data keys."""
    places = {_key_of(key) for key in keys}
    found: list[SecretRow] = []
    async for row in _secrets(rows, (keys[0].place.tenant_id, "")):
        if row.tenant_id > keys[-1].place.tenant_id:
            break
        if row.generation is None or (row.tenant_id, row.generation) in places:
            found.append(row)
    return found


async def _turn(source: Rows, target: MovableStore, chain: Chain | None) -> MoveReport:
    if await source.place() is Place.ELSEWHERE:
        return MoveReport(Outcome.ALREADY_THERE)
    if chain is None:
        if await source.head() is not None:
            raise VaultStoreLocked("the vault's first key is being put; run it again")
        report = await target.alone(_begin_there)
    else:
        report = await target.alone(lambda rows: _complete(source, rows, chain))
    # The target has everything now, and the source still counts: this turns it, with its transaction's commit.
    await source.set_place(Place.ELSEWHERE)
    return report


async def _begin_there(target: Rows) -> MoveReport:
    if await target.place() is Place.ELSEWHERE and await target.last_entry() is not None:
        raise MoveRefused("there is another vault, whose move has not ended")
    await target.set_place(Place.HERE)
    return MoveReport(Outcome.EMPTY)


async def _complete(source: Rows, target: Rows, chain: Chain) -> MoveReport:
    arrived, there = await _arrived(source, target, chain), await target.place() is Place.HERE
    if arrived.newer:
        if not there:
            raise MoveRefused(
                "the other side has entries of the audit trail that are missing here, where the vault is: it was put back to"
                " an earlier state"
            )
        return await _compare(target, target, chain)
    head = await source.head()
    # Where both had it and neither has changed, there is nothing to copy, and nothing may differ.
    if not there or head != await target.head():
        await target.set_place(Place.HERE)
        await _copy_rows(source, target)
        after = arrived.last
        while entries := await source.entries(after, ROWS_AT_ONCE):
            await target.put_entries(entries)
            after = entries[-1].sequence
        if head is not None and head != await target.head():
            await target.put_head(head)
    return await _compare(source, target, chain)


# -- data keys and secrets -------------------------------------------------------------------------------


def _key_of(row: DataKeyRow) -> tuple[str, int]:
    return row.place.tenant_id, row.place.generation


def _name_of(row: SecretRow) -> tuple[str, str]:
    return row.tenant_id, row.name


async def _data_keys(rows: Rows) -> AsyncIterator[DataKeyRow]:
    after = KeyPlace("", 0)
    while page := await rows.all_data_keys(after, ROWS_AT_ONCE):
        for row in page:
            yield row
        after = page[-1].place


async def _secrets(rows: Rows, after: tuple[str, str] = ("", "")) -> AsyncIterator[SecretRow]:
    while page := await rows.all_secrets(after, ROWS_AT_ONCE):
        for row in page:
            yield row
        after = _name_of(page[-1])


async def _entries(rows: Rows) -> AsyncIterator[Entry]:
    after = 0
    while page := await rows.entries(after, ROWS_AT_ONCE):
        for row in page:
            yield row
        after = page[-1].sequence


async def _pairs(
    ours: AsyncIterator[Row], theirs: AsyncIterator[Row], key: Callable[[Row], Any]
) -> AsyncIterator[tuple[Row | None, Row | None]]:
    """Rows of the same key together; None where a side has none. Both sides come ordered by key."""
    mine, other = await anext(ours, None), await anext(theirs, None)
    while mine is not None or other is not None:
        if other is None or (mine is not None and key(mine) < key(other)):
            yield mine, None
            mine = await anext(ours, None)
        elif mine is None or key(other) < key(mine):
            yield None, other
            other = await anext(theirs, None)
        else:
            yield mine, other
            mine, other = await anext(ours, None), await anext(theirs, None)


async def _copy_rows(source: Rows, target: Rows) -> None:
    gone: list[KeyPlace] = []
    keys: list[DataKeyRow] = []
    async for ours, theirs in _pairs(_data_keys(source), _data_keys(target), _key_of):
        if ours is None:
            assert theirs is not None
            gone.append(theirs.place)
        elif ours != theirs:
            keys.append(ours)
            await _flush(keys, target.put_data_keys)
    await _flush(keys, target.put_data_keys, at=1)
    secrets: list[SecretRow] = []
    async for mine, other in _pairs(_secrets(source), _secrets(target), _name_of):
        # What the source never had is found by the comparison that follows.
        if mine is not None and mine != other:
            secrets.append(mine)
            await _flush(secrets, target.put_secrets)
    await _flush(secrets, target.put_secrets, at=1)
    # Last: the secrets that named them are those of before.
    await target.drop_data_keys(gone)


async def _flush(
    rows: list[Row], put: Callable[[list[Row]], Awaitable[None]], at: int = ROWS_AT_ONCE
) -> None:
    if len(rows) >= at:
        await put(rows)
        rows.clear()


async def _compare(source: Rows, target: Rows, chain: Chain) -> MoveReport:
    """Count and compare both sides, and verify the target's trail."""
    checksum = hashlib.sha256()
    keys = await _same(_data_keys(source), _data_keys(target), _key_of, checksum)
    secrets = await _same(_secrets(source), _secrets(target), _name_of, checksum)
    trail = _verified(target, chain)
    entries = await _same(_entries(source), trail, lambda entry: entry.sequence, checksum)
    if await source.head() != await target.head():
        raise MoveRefused("the heads of the two sides' audit trails differ")
    return MoveReport(Outcome.MOVED, keys, secrets, entries, checksum.hexdigest())


async def _same(
    ours: AsyncIterator[Row], theirs: AsyncIterator[Row], key: Callable[[Row], Any], checksum: hashlib._Hash
) -> int:
    count = 0
    async for mine, other in _pairs(ours, theirs, key):
        if mine is None or mine != other:
            row = mine or other
            raise MoveRefused(f"{type(row).__name__} {row and key(row)} is not the same on the two sides")
        checksum.update(repr(mine).encode())
        count += 1
    return count


async def _verified(target: Rows, chain: Chain) -> AsyncIterator[Entry]:
    """The target's trail, up to where it is not sound. Raises `MoveRefused` there."""
    verifier = Verifier(chain)
    async for entry in _entries(target):
        _refuse(verifier.take(entry))
        yield entry
    _refuse(verifier.end(await target.head()))


def _refuse(finding: Finding | None) -> None:
    if finding is not None:
        raise MoveRefused(
            f"the audit trail is not sound at entry {finding.sequence}: {finding.reason}; see mediaserver keys audit --verify"
        )
