"""What the tenancy package raises.

TenancyError
├── CallNotRouted        the call is no tenant's here; the error has the outcome (`tenancy.routing`)
├── UnknownTenant        no tenant has this id
├── UnknownVersion       the tenant has no such configuration version
├── TenantMoved          the tenant is another node's, whose address the error has
├── NumberTaken          an import would take a number, SIP address or site key away from another tenant
├── ChangeRefused        a configuration version cannot be given this state
│   ├── VersionConflict  another version is active than the author saw
│   └── VersionInvalid   what it says cannot be used: each fault with its field and its reason
├── RestoreRefused       a backup cannot be brought back without losing something
├── MigrationFailed      a tenant could not be brought from one store to the other; it stays where it was
└── StoreError           a database cannot be opened, read or written
    ├── StoreLocked      another program holds the file or the row; trying again may help
    ├── StoreFull        no room is left to write
    ├── StoreUnavailable the database server cannot be reached; trying again helps when it can
    ├── TenantElsewhere  the tenant's file was left for Postgres, which this node was not told of
    └── StoreCorrupt     the file is damaged, or holds what this program did not write
"""

from __future__ import annotations

from tenancy.routing import Refused, answer


class TenancyError(Exception):
    """The root of this package's errors."""


class CallNotRouted(TenancyError):  # noqa: N818
    """The call is no tenant's here. There is no default."""

    def __init__(self, outcome: Refused) -> None:
        self.outcome = outcome
        self.answer = answer(outcome)
        super().__init__(f"{self.answer.code}: {outcome}")


class UnknownTenant(TenancyError):  # noqa: N818
    """No tenant has this id."""


class TenantExists(TenancyError):  # noqa: N818
    """There is a tenant of this id already, and a new one was meant."""


class TenantChanged(TenancyError):  # noqa: N818
    """Somebody else changed the tenant's status meanwhile. Nothing was done."""


class UnknownVersion(TenancyError):  # noqa: N818
    """The tenant has no such configuration version."""


class TenantMoved(TenancyError):  # noqa: N818
    """The tenant lives on another node."""

    def __init__(self, tenant_id: str, address: str) -> None:
        super().__init__(f"{tenant_id} has moved to {address}")
        self.tenant_id = tenant_id
        self.address = address


class NumberTaken(TenancyError):  # noqa: N818
    """A number, SIP address or site key belongs to another tenant; the text names both."""


class ChangeRefused(TenancyError):  # noqa: N818
    """A configuration version cannot be given this state; the text says why, and nothing has changed."""


class VersionConflict(ChangeRefused):
    """Another version is active than the author saw."""

    def __init__(self, text: str, expected: int | None, found: int | None) -> None:
        super().__init__(text)
        self.expected = expected
        self.found = found


class VersionInvalid(ChangeRefused):
    """A version says what cannot be used."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class RestoreRefused(TenancyError):  # noqa: N818
    """A backup is not brought back: the text says what would be lost, or what it is instead."""


class MigrationFailed(TenancyError):  # noqa: N818
    """A tenant was not brought over and stays where it was; the text names it and what differs."""


class StoreError(TenancyError):
    """A database cannot be opened, read or written; the text names the file or the server."""


class StoreLocked(StoreError):  # noqa: N818
    """Another program holds the file or the row; trying again may help."""


class StoreFull(StoreError):  # noqa: N818
    """No room is left to write; what was there can be read."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The database server cannot be reached; trying again helps when it can."""


class TenantElsewhere(StoreError):  # noqa: N818
    """The tenant's file was left for Postgres."""


class StoreCorrupt(StoreError):  # noqa: N818
    """The file is damaged, or holds what this program did not write."""
