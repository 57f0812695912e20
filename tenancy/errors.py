"""What the tenancy package raises.

TenancyError
├── UnknownNumber        no tenant has the called number
├── TenantSuspended      its tenant does not take calls
├── NumberTaken          an import would take a number away from another tenant
└── StoreError           a database cannot be opened, read or written
"""

from __future__ import annotations


class TenancyError(Exception):
    """The root of this package's errors."""


class UnknownNumber(TenancyError):  # noqa: N818
    """No tenant has the called number. There is no default."""


class TenantSuspended(TenancyError):  # noqa: N818
    """The number's tenant exists and does not take calls."""


class NumberTaken(TenancyError):  # noqa: N818
    """A number belongs to another tenant; the text names both."""


class StoreError(TenancyError):
    """A database cannot be opened, read or written; the text names the file."""
