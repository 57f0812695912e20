"""What the registry asks of its databases, whichever they are.

`tenancy.sqlite_store` and `tenancy.postgres_store` are the two backings; `tests/tenancy/test_store_contract.py` holds both to
what is said here. Every method may raise `StoreError`. A method that was begun is carried out even when the task that
awaits it is cancelled, so that nothing is ever left half done: the cancellation follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from tenancy.canary import Canary
from tenancy.context import VersionInfo
from tenancy.figures import NodeMinute, NodeRow, StoreFigures
from tenancy.ledger import Edit, Ledger, LogLine
from tenancy.numbers import MAX_CANDIDATES

MAX_ASKED: Final = MAX_CANDIDATES
"""Addresses that are looked up at once."""
MAX_KNOWN: Final = 2
"""Versions of a tenant that whoever asks what new calls get may know already: the active one, and that on trial."""
MAX_OPEN_SHARDS = 256
"""Tenants' SQLite files open at a time; each is up to three file descriptors and a thread. More users wait.

Looks at files that nobody has open (`tenancy.glance`) take at most `tenancy.glance.AT_ONCE` descriptors beside these.
"""


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
class TrialArm:
    """The version on trial, for a share of calls (`tenancy.canary.in_share`) and a time."""

    key: VersionKey
    share: int
    ends_at_ms: int
    """Since the epoch; from then on no call gets it."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Which versions new calls get."""

    active: VersionKey
    trial: TrialArm | None = None

    @property
    def hashes(self) -> frozenset[str]:
        """Of what these versions say."""
        trial = () if self.trial is None else (self.trial.key.content_hash,)
        return frozenset((self.active.content_hash, *trial))


@dataclass(frozen=True, slots=True)
class ServingTexts:
    """Which versions new calls get, and what those say that were not known."""

    serving: Serving
    bodies: Mapping[str, str]
    """By content hash, which nobody has compared with them yet."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Tenants whose calls get something else than before: another version, or one on trial, or nothing any more."""

    last: int
    """The number up to which these are all."""
    tenant_ids: tuple[str, ...]
    more: bool = False
    """There may be later ones."""


@dataclass(frozen=True, slots=True)
class DueTrial:
    """A tenant whose trial somebody has to look at."""

    tenant_id: str
    due_at_ms: int
    """Since the epoch, as it is noted."""


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
    state: str | None = None
    """`tenancy.versions.VersionState`; None: it was imported before versions had states."""
    restores: int | None = None
    changed_by: str | None = None
    changed_reason: str | None = None
    changed_at: datetime | None = None


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
    followed: bool = False
    """It is what the tenant's file says, which is noted: a file that did not change takes nobody's change back."""
    new_tenant: bool = False
    """The tenant must not be there yet."""


@dataclass(frozen=True, slots=True)
class CallRow:
    """A call as it is kept; transcript, messages and providers are JSON arrays."""

    call_id: str
    called: str
    caller: str
    config_version: int
    started_at: datetime
    ended_at: datetime
    cause: str
    transcript: str
    messages: str
    providers: str = "[]"


CallPlace = tuple[datetime, str]
"""When a call began, and its id: where it stands among its tenant's calls."""


class SharedStore(Protocol):
    """Addresses and the tenants' status."""

    async def registered(self, addresses: Sequence[str]) -> tuple[OwnedAddress, ...]:
        """Those of at most `MAX_ASKED` addresses that somebody has, in no order."""

    async def tenant(self, tenant_id: str) -> TenantRow | None:
        """The tenant of an id."""

    async def tenant_ids(self, status: TenantStatus | None = None) -> tuple[str, ...]:
        """The tenants with a status (none: all), in order."""

    async def tenants(
        self, after: str, limit: int, status: TenantStatus | None = None
    ) -> tuple[TenantRow, ...]:
        """Tenants with a status (none: any) whose ids come after that one, in order."""

    async def addresses_of(self, tenant_id: str) -> tuple[Address, ...]:
        """A tenant's addresses, in order."""

    async def set_status(
        self,
        tenant_id: str,
        status: TenantStatus,
        moved_to: str | None = None,
        expected: TenantRow | None = None,
    ) -> bool:
        """Whether there is such a tenant; ``moved_to`` goes with `TenantStatus.MOVED` alone.

        With ``expected``, only where the tenant still is that. Raises `TenantChanged`.
        """

    async def last_change(self) -> int:
        """The number of the latest change of what calls get; 0 before the first."""

    async def changes(self, after: int) -> Changes:
        """The changes after a number, by whichever program, each tenant once; a bounded number at a time.

        A program that ends between two commits may leave one out (SQLite alone): it says who is to be looked at, nothing else
        rests on it.
        """

    async def watch_trial(self, tenant_id: str, due_at_ms: int) -> None:
        """Have a tenant's trial looked at then, at the latest."""

    async def due_trials(self, now_ms: int) -> tuple[DueTrial, ...]:
        """The trials that are to be looked at by now, the longest due first; a bounded number at a time."""

    async def trial_looked_at(self, seen: DueTrial, again_at_ms: int | None) -> None:
        """Note when to look again (None: no trial runs), unless somebody has noted something else meanwhile."""


class TenantStore(Protocol):
    """Configuration versions, which of them is active, and calls."""

    def place(self, tenant_id: str) -> str:
        """Where the tenant's data are, for errors."""

    async def active(self, tenant_id: str) -> VersionKey | None:
        """The active version; none where nothing was imported."""

    async def content(self, tenant_id: str, version: int) -> VersionContent | None:
        """What a version says."""

    async def serving(self, tenant_id: str) -> Serving | None:
        """What new calls get; none where nothing was imported."""

    async def serving_texts(self, tenant_id: str, known: Sequence[str]) -> ServingTexts | None:
        """The same with what those versions say whose hash is not among the at most `MAX_KNOWN` that are ``known``."""

    async def followed(self, tenant_id: str) -> str | None:
        """The hash of what the tenant's file said when it was last taken over."""

    async def ledger(self, tenant_id: str) -> Ledger:
        """Every version with what became of it, and the trial that runs."""

    async def trials(self, tenant_id: str, limit: int, before: int | None = None) -> tuple[Canary, ...]:
        """The trials of the newest versions that had one, of those below ``before``."""

    async def config_log(self, tenant_id: str, limit: int, before: int | None = None) -> tuple[LogLine, ...]:
        """Who did what to the versions, latest first, of entries below ``before``."""

    async def end_call(
        self, tenant_id: str, call: CallRow | None, observe: Callable[[Ledger], Edit | None]
    ) -> Edit | None:
        """Keep a call, and have it observed where a trial runs: in one step, and for a call that is kept already not again.

        Without a ``call`` (it never began), it is observed alone.
        """

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        """All versions, newest first."""

    async def add_call(self, tenant_id: str, call: CallRow) -> None:
        """Keep a call, unless one with its id and start is kept already."""

    async def newest_calls(
        self, tenant_id: str, limit: int, before: CallPlace | None = None
    ) -> tuple[CallRow, ...]:
        """The newest calls, latest first; with ``before``, of those that come after that one in this order."""


class NodeStore(Protocol):
    """Which nodes have the store open, and what they measure; never a tenant's."""

    @property
    def figures(self) -> StoreFigures:
        """What this process has asked of it."""

    async def keep_minutes(self, node: NodeRow, minutes: Sequence[NodeMinute]) -> int:
        """Say that a node is there and keep its minutes, of all nodes those of the last day; again changes nothing.

        Returns how many nodes there are: those seen in the last three minutes, and the addresses that tenants moved to.
        """

    async def leave(self, node_id: str) -> None:
        """A node ends; what it measured stays."""

    async def known_nodes(self) -> tuple[NodeRow, ...]:
        """Nodes that did not say that they end, in the order of their starts."""

    async def minutes_since(self, minute: int) -> tuple[NodeMinute, ...]:
        """What nodes measured from a minute on, newest first; bounded."""


class Store(SharedStore, TenantStore, NodeStore, Protocol):
    """A node's databases."""

    async def import_version(self, new: NewVersion) -> int:
        """Give the tenant its addresses and make a version the active one; returns its number.

        The content that is active already makes no new version. All of it or nothing is done.

        Raises:
            NumberTaken: another tenant has one of the addresses. TenantMoved: the tenant is another node's.
            TenantExists: it was to be new.
        """

    async def edit(
        self,
        tenant_id: str,
        change: Callable[[Ledger], Edit],
        addresses: tuple[Address, ...] | None = None,
    ) -> Edit:
        """Change what becomes of a tenant's versions, alone; with ``addresses``, give it exactly these in the same step.

        What ``change`` raises is raised, and nothing is changed.

        Raises:
            UnknownTenant. TenantMoved: it is another node's. NumberTaken: another tenant has one of the addresses.
        """

    async def close(self) -> None:
        """End every connection; whatever is asked afterwards is a `StoreError`."""
