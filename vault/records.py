"""What a vault keeps, and the store that keeps it. Sans-IO but for the protocol's methods.

A store knows no key and no meaning: it holds sealed bytes and applies changes whole or not at all. Each change names what
it replaces, so that of two that meet one is refused (`Conflict`) and can be tried again on what is there now.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from vault.audit import Appended, Entry, Head
from vault.sealing import KeyPlace, WrappedKey


@dataclass(frozen=True, slots=True)
class SecretRow:
    """A tenant's key of one name, at its latest version. What was revoked has no sealed bytes and no generation."""

    tenant_id: str
    name: str
    version: int
    """Counts from 1 and never goes back, over revocations too."""
    sealed: bytes | None
    generation: int | None
    """Of the data key that opens it."""
    fingerprint: str
    put_at: str
    put_by: str
    revoked_at: str | None = None


@dataclass(frozen=True, slots=True)
class DataKeyRow:
    """A tenant's data key. Generations count from 1."""

    place: KeyPlace
    wrapped: WrappedKey
    made_at: str


@dataclass(frozen=True, slots=True)
class Found:
    """A secret and the data key that it names, as they were at one moment."""

    secret: SecretRow
    data_key: DataKeyRow | None
    """None for what was revoked."""


@dataclass(frozen=True, slots=True)
class AddDataKey:
    """A new generation. `Conflict` where it is there already."""

    row: DataKeyRow


@dataclass(frozen=True, slots=True)
class RewrapDataKey:
    """The same data key, wrapped anew. `Conflict` where it is no longer wrapped as in ``old``."""

    place: KeyPlace
    old: WrappedKey
    new: WrappedKey


@dataclass(frozen=True, slots=True)
class RetireDataKey:
    """Take a generation away. `Conflict` where a secret names it, or there is no newer one."""

    place: KeyPlace


@dataclass(frozen=True, slots=True)
class WriteSecret:
    """A secret's row. `Conflict` where what it replaces is not there, or its data key is not.

    Raises `VaultFull` where the name is new and the tenant has ``names_max``.
    """

    row: SecretRow
    replaces: tuple[int, int | None] | None
    """The version and generation of the row before; None for a name that is new."""
    names_max: int


Write = AddDataKey | RewrapDataKey | RetireDataKey | WriteSecret
Link = Callable[[Head | None], Appended]
"""Given the head of the audit trail, what is to be entered with a change. Called once, within its transaction."""


class SecretStore(Protocol):
    """Keeps secrets, data keys and the audit trail.

    Every method raises `VaultStoreError` where it cannot, and `VaultElsewhere` where the vault is in another store.

    Each reading method answers from one moment: nothing of a change that is under way is seen.
    """

    async def secret(self, tenant_id: str, name: str) -> Found | None:
        """A tenant's key; None where it never had one of this name."""
        ...

    async def several(self, tenant_id: str, names: Sequence[str]) -> Mapping[str, Found]:
        """Those of a tenant's keys that it has or had, by name, all as they were at one moment."""
        ...

    async def secrets(self, tenant_id: str) -> tuple[SecretRow, ...]:
        """All of a tenant's keys by name, the revoked ones too."""
        ...

    async def data_keys(self, tenant_id: str) -> tuple[DataKeyRow, ...]:
        """A tenant's data keys, the oldest first."""
        ...

    async def data_keys_not_under(
        self, kek_id: str, after: KeyPlace | None, limit: int
    ) -> tuple[DataKeyRow, ...]:
        """Data keys of all tenants that something else wraps, ordered by tenant and generation, after that place."""
        ...

    async def tenants(self, after: str, limit: int) -> tuple[str, ...]:
        """Ids of tenants with a data key in their order, after that one; ``""`` begins."""
        ...

    async def head(self) -> Head | None:
        """The head of the audit trail; None before the first entry."""
        ...

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]:
        """Entries of the audit trail in order, after that sequence."""
        ...

    async def commit(self, writes: Sequence[Write], link: Link) -> None:
        """Apply the changes in order and enter them in the audit trail: all of it, or nothing.

        A task that is cancelled meanwhile may find it done.

        Raises:
            Conflict, VaultFull: as the changes say.
            AuditBroken: there are entries but no head, or as ``link`` raises.
        """
        ...

    async def aclose(self) -> None:
        """Let go of files and connections."""
        ...


T = TypeVar("T")


class Place(StrEnum):
    """Where the vault is, as a store says it."""

    HERE = "here"
    ELSEWHERE = "elsewhere"


class Rows(Protocol):
    """All rows of a store, within one transaction that nobody else writes in: to bring a vault from store to store."""

    async def place(self) -> Place:
        """Whether the vault is here."""
        ...

    async def set_place(self, place: Place) -> None:
        """Say where it is from now on."""
        ...

    async def head(self) -> Head | None:
        """As `SecretStore.head`, wherever the vault is."""
        ...

    async def entries(self, after: int, limit: int) -> tuple[Entry, ...]:
        """As `SecretStore.entries`, wherever the vault is."""
        ...

    async def last_entry(self) -> Entry | None:
        """The last entry that is there, whatever the head says."""
        ...

    async def all_data_keys(self, after: KeyPlace, limit: int) -> tuple[DataKeyRow, ...]:
        """Data keys of all tenants, ordered by tenant and generation, after that place."""
        ...

    async def all_secrets(self, after: tuple[str, str], limit: int) -> tuple[SecretRow, ...]:
        """Secrets of all tenants, ordered by tenant and name, after those."""
        ...

    async def put_entries(self, entries: Sequence[Entry]) -> None:
        """Add to the audit trail's end."""
        ...

    async def put_head(self, head: Head) -> None:
        """Put the trail's head in place of the one before."""
        ...

    async def put_data_keys(self, rows: Sequence[DataKeyRow]) -> None:
        """Add them, or put them in place of those before."""
        ...

    async def drop_data_keys(self, places: Sequence[KeyPlace]) -> None:
        """Take them away; no secret may name them."""
        ...

    async def put_secrets(self, rows: Sequence[SecretRow]) -> None:
        """Add them, or put them in place of those before."""
        ...


class MovableStore(SecretStore, Protocol):
    """A store that a vault can be brought to, or away from."""

    async def alone(self, work: Callable[[Rows], Awaitable[T]]) -> T:
        """Do it in one transaction, all or nothing, while others can read and none can write."""
        ...
