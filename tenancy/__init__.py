"""Tenants: who a called number belongs to, at which configuration, served by whom."""

from tenancy.context import ActiveTenant, CallRecord, ResolvedTenant, TenantContext, VersionInfo
from tenancy.errors import (
    MigrationFailed,
    NumberTaken,
    RestoreRefused,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    TenancyError,
    TenantElsewhere,
    TenantMoved,
    TenantSuspended,
    UnknownNumber,
    UnknownTenant,
    UnknownVersion,
)
from tenancy.providers import Chains, Origin, ResolvedProvider, resolve
from tenancy.registry import Registry, open_registry
from tenancy.store import TenantRow, TenantStatus

__all__ = [
    "ActiveTenant",
    "CallRecord",
    "Chains",
    "MigrationFailed",
    "NumberTaken",
    "Origin",
    "Registry",
    "ResolvedProvider",
    "ResolvedTenant",
    "RestoreRefused",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "TenancyError",
    "TenantContext",
    "TenantElsewhere",
    "TenantMoved",
    "TenantRow",
    "TenantStatus",
    "TenantSuspended",
    "UnknownNumber",
    "UnknownTenant",
    "UnknownVersion",
    "VersionInfo",
    "open_registry",
    "resolve",
]
