"""What the registry asks of its databases, whichever they are.

`tenancy.sqlite_store` and `tenancy.postgres_store` are the two backings; `tests/tenancy/test_store_contract.py` holds both to
what is said here. Every method may raise `StoreError`. A method that was begun is carried out even when the task that
awaits it is cancelled, so that nothing is ever left half done: the cancellation follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from tenancy.context import VersionInfo
from tenancy.numbers import MAX_CANDIDATES

MAX_ASKED: Final = MAX_CANDIDATES
"""Addresses that are looked up at once."""
MAX_OPEN_SHARDS = 256
"""Tenants' SQLite files open at a time; each is up to three file descriptors and a thread. More users wait."""


class TenantStatus(StrEnum):
    """Whether a tenant's calls are taken."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    MOVED = "moved"
    """It lives on another node; see `TenantRow.moved_to`."""


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant as the shared part knows it."""

    tenant_id: str
    status: TenantStatus
    moved_to: str | None = None
    """The address of the node that has it, where the status is moved."""


@dataclass(frozen=True, slots=True)
class Address:
    """By what a tenant is called, and from where."""

    address: str
    """A number in E.164, a SIP address (`tenancy.called.sip_address`) or a site key."""
    trunks: frozenset[str] = frozenset()
    """The trunks that reach it."""
    origins: frozenset[str] = frozenset()
    """Of a site key: the web pages that may use it."""


@dataclass(frozen=True, slots=True)
class OwnedAddress:
    """An address and whose it is."""

    address: Address
    tenant: TenantRow


@dataclass(frozen=True, slots=True)
class VersionKey:
    """Which version it is, and of which content."""

    version: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class VersionContent:
    """A configuration as it is kept."""

    content_hash: str
    """SHA-256 of ``body``, in hexadecimal."""
    body: str
    """Canonical JSON (`config.canonical`)."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """One configuration version as it is kept."""

    version: int
    content_hash: str
    schema_version: int
    author: str
    reason: str
    created_at: datetime
    body: str


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A configuration that is to become the active one."""

    tenant_id: str
    addresses: tuple[Address, ...]
    """All that the tenant is to have."""
    content_hash: str
    schema_version: int
    author: str
    reason: str
    created_at: datetime
    body: str


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call as it is kept; transcript and messages are JSON arrays."""

    call_id: str
    called: str
    caller: str
    config_version: int
    started_at: datetime
    ended_at: datetime
    cause: str
    transcript: str
    messages: str


class SharedStore(Protocol):
    """Addresses and the tenants' status."""

    async def registered(self, addresses: Sequence[str]) -> tuple[OwnedAddress, ...]:
        """Those of at most `MAX_ASKED` addresses that somebody has, in no order."""

    async def tenant(self, tenant_id: str) -> TenantRow | None:
        """The tenant of an id."""

    async def tenant_ids(self, status: TenantStatus | None = None) -> tuple[str, ...]:
        """The tenants with a status (none: all), in order."""

    async def addresses_of(self, tenant_id: str) -> tuple[Address, ...]:
        """A tenant's addresses, in order."""

    async def set_status(self, tenant_id: str, status: TenantStatus, moved_to: str | None = None) -> bool:
        """Whether there is such a tenant; ``moved_to`` goes with `TenantStatus.MOVED` alone."""


class TenantStore(Protocol):
    """Configuration versions, which of them is active, and calls."""

    def place(self, tenant_id: str) -> str:
        """Where the tenant's data are, for errors."""

    async def active(self, tenant_id: str) -> VersionKey | None:
        """The active version; none where nothing was imported."""

    async def content(self, tenant_id: str, version: int) -> VersionContent | None:
        """What a version says."""

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        """All versions, newest first."""

    async def add_call(self, tenant_id: str, call: CallRow) -> None:
        """Keep a call, unless one with its id and start is kept already."""

    async def newest_calls(self, tenant_id: str, limit: int) -> tuple[CallRow, ...]:
        """The newest calls, latest first."""


class Store(SharedStore, TenantStore, Protocol):
    """A node's databases."""

    async def import_version(self, new: NewVersion) -> int:
        """Give the tenant its addresses and make a version the active one; returns its number.

        The content that is active already makes no new version. All of it or nothing is done.

        Raises:
            NumberTaken: another tenant has one of the addresses. TenantMoved: the tenant is another node's.
        """

    async def close(self) -> None:
        """End every connection; whatever is asked afterwards is a `StoreError`."""
