"""What the tenancy package raises.

TenancyError
├── UnknownNumber        no tenant has the called number
├── UnknownTenant        no tenant has this id
├── UnknownVersion       the tenant has no such configuration version
├── TenantSuspended      its tenant does not take calls
├── NumberTaken          an import would take a number away from another tenant
└── StoreError           a database cannot be opened, read or written
    ├── StoreLocked      another program holds the file; trying again may help
    └── StoreCorrupt     the file is damaged, or holds what this program did not write
"""

from __future__ import annotations


class TenancyError(Exception):
    """The root of this package's errors."""


class UnknownNumber(TenancyError):  # noqa: N818
    """No tenant has the called number. There is no default."""


class UnknownTenant(TenancyError):  # noqa: N818
    """No tenant has this id."""


class UnknownVersion(TenancyError):  # noqa: N818
    """The tenant has no such configuration version."""


class TenantSuspended(TenancyError):  # noqa: N818
    """The number's tenant exists and does not take calls."""


class NumberTaken(TenancyError):  # noqa: N818
    """A number belongs to another tenant; the text names both."""


class StoreError(TenancyError):
    """A database cannot be opened, read or written; the text names the file."""


class StoreLocked(StoreError):  # noqa: N818
    """Another program holds the file; trying again may help."""


class StoreCorrupt(StoreError):  # noqa: N818
    """The file is damaged, or holds what this program did not write."""
