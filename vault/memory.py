"""A store in memory: for tests of what stands on a store, and the plainest reading of what a store does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from vault.audit import Entry, Head
from vault.errors import AuditBroken, Conflict, VaultFull
from vault.records import (
    AddDataKey,
    DataKeyRow,
    Found,
    Link,
    RetireDataKey,
    RewrapDataKey,
    SecretRow,
    Write,
    WriteSecret,
)
from vault.sealing import KeyPlace

_Secrets = dict[tuple[str, str], SecretRow]
_DataKeys = dict[tuple[str, int], DataKeyRow]


class MemoryStore:
    """`SecretStore` without a file; its content goes with it."""

    def __init__(self) -> None:
        self._secrets: _Secrets = {}
        self._data_keys: _DataKeys = {}
        self._entries: list[Entry] = []
        self._head: Head | None = None

    async def secret(self, tenant_id: str, name: str) -> Found | None:
        row = self._secrets.get((tenant_id, name))
        if row is None:
            return None
        return Found(
            row, None if row.generation is None else self._data_keys.get((tenant_id, row.generation))
        )

    async def several(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, Found]:
        found = {name: await self.secret(tenant_id, name) for name in names}
        return {name: each for name, each in found.items() if each is not None}

    async def secrets(self, tenant_id: str) -> tuple[SecretRow, ...]:
        return tuple(row for (owner, _), row in sorted(self._secrets.items()) if owner == tenant_id)

    async def data_keys(self, tenant_id: str) -> tuple[DataKeyRow, ...]:
        return tuple(row for (owner, _), row in sorted(self._data_keys.items()) if owner == tenant_id)

    async def data_keys_not_under(
        self, kek_id: str, after: KeyPlace | None, limit: int
    ) -> tuple[DataKeyRow, ...]:
        start = ("", 0) if after is None else (after.tenant_id, after.generation)
        return tuple(
            row
            for place, row in sorted(self._data_keys.items())
            if place > start and row.wrapped.kek_id != kek_id
        )[:limit]

    async def tenants(self, after: str, limit: int) -> tuple[str, ...]:
        return tuple(sorted({owner for owner, _ in self._data_keys if owner > after}))[:limit]

    async def head(self) -> Head | None:
        return self._head

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]:
        return tuple(entry for entry in self._entries if entry.sequence > after)[:limit]

    async def commit(self, writes: Sequence[Write], link: Link) -> None:
        if self._head is None and self._entries:
            raise AuditBroken("the audit trail has entries but no head")
        appended = link(self._head)
        secrets, data_keys = dict(self._secrets), dict(self._data_keys)
        for write in writes:
            match write:
                case WriteSecret():
                    _write_secret(write, secrets, data_keys)
                case AddDataKey() | RewrapDataKey() | RetireDataKey():
                    _write_data_key(write, secrets, data_keys)
                case _:
                    assert_never(write)
        self._secrets, self._data_keys = secrets, data_keys
        self._entries.extend(appended.entries)
        self._head = appended.head

    async def aclose(self) -> None:
        """Nothing is open."""


def _write_secret(write: WriteSecret, secrets: _Secrets, data_keys: _DataKeys) -> None:
    row = write.row
    old = secrets.get((row.tenant_id, row.name))
    if (None if old is None else (old.version, old.generation)) != write.replaces:
        raise Conflict(f"{row.tenant_id}: {row.name} was changed meanwhile")
    if row.generation is not None and (row.tenant_id, row.generation) not in data_keys:
        raise Conflict(f"{row.tenant_id}: data key {row.generation} was retired meanwhile")
    if old is None and sum(owner == row.tenant_id for owner, _ in secrets) >= write.names_max:
        raise VaultFull(f"{row.tenant_id} has {write.names_max} names of keys, as many as it may have")
    secrets[row.tenant_id, row.name] = row


def _write_data_key(
    write: AddDataKey | RewrapDataKey | RetireDataKey, secrets: _Secrets, data_keys: _DataKeys
) -> None:
    place = write.row.place if isinstance(write, AddDataKey) else write.place
    key = (place.tenant_id, place.generation)
    present = data_keys.get(key)
    if isinstance(write, AddDataKey):
        possible = present is None
    elif isinstance(write, RewrapDataKey):
        possible = present is not None and present.wrapped == write.old
    else:
        named = any((row.tenant_id, row.generation) == key for row in secrets.values())
        newer = any(owner == key[0] and generation > key[1] for owner, generation in data_keys)
        possible = present is not None and newer and not named
    if not possible:
        raise Conflict(f"{place.tenant_id}: data key {place.generation} was changed meanwhile")
    match write:
        case AddDataKey():
            data_keys[key] = write.row
        case RewrapDataKey():
            data_keys[key] = replace(data_keys[key], wrapped=write.new)
        case RetireDataKey():
            del data_keys[key]
