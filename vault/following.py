"""The store of a node whose vault is being brought from its file to Postgres, or back, while its keys are in use.

Where the vault is, its file says (`vault.records.Place`): it is asked first, always, and where it was left, Postgres.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from vault.audit import Entry, Head
from vault.errors import VaultElsewhere
from vault.records import DataKeyRow, Found, Link, SecretRow, SecretStore, Write
from vault.sealing import KeyPlace

T = TypeVar("T")
ATTEMPTS: Final = 4
"""Times that both are asked, as the vault may go between two questions; one that went so often is not moved in earnest."""


class FollowingStore:
    """`SecretStore` over a file and the database that the vault may have been brought to."""

    def __init__(self, file: SecretStore, open_other: Callable[[], Awaitable[SecretStore]]) -> None:
        self._file = file
        self._open_other = open_other
        self._opening = asyncio.Lock()
        self._other: SecretStore | None = None

    async def _there(self) -> SecretStore:
        """The database, opened when the vault is there: one that is down costs nothing before."""
        async with self._opening:
            if self._other is None:
                self._other = await self._open_other()
            return self._other

    async def _ask(self, question: Callable[[SecretStore], Awaitable[T]]) -> T:
        attempt = 1
        while True:
            try:
                return await question(self._file)
            except VaultElsewhere:
                other = await self._there()
            try:
                return await question(other)
            except VaultElsewhere:
                if attempt == ATTEMPTS:
                    raise
                attempt += 1

    async def secret(self, tenant_id: str, name: str) -> Found | None:
        return await self._ask(lambda store: store.secret(tenant_id, name))

    async def several(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, Found]:
        return await self._ask(lambda store: store.several(tenant_id, names))

    async def secrets(self, tenant_id: str) -> tuple[SecretRow, ...]:
        return await self._ask(lambda store: store.secrets(tenant_id))

    async def data_keys(self, tenant_id: str) -> tuple[DataKeyRow, ...]:
        return await self._ask(lambda store: store.data_keys(tenant_id))

    async def data_keys_not_under(
        self, kek_id: str, after: KeyPlace | None, limit: int
    ) -> tuple[DataKeyRow, ...]:
        return await self._ask(lambda store: store.data_keys_not_under(kek_id, after, limit))

    async def tenants(self, after: str, limit: int) -> tuple[str, ...]:
        return await self._ask(lambda store: store.tenants(after, limit))

    async def head(self) -> Head | None:
        return await self._ask(lambda store: store.head())

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]:
        return await self._ask(lambda store: store.entries(after, limit))

    async def commit(self, writes: Sequence[Write], link: Link) -> None:
        await self._ask(lambda store: store.commit(writes, link))

    async def aclose(self) -> None:
        try:
            await self._file.aclose()
        finally:
            if self._other is not None:
                await self._other.aclose()
