"""Tenants: who a called number belongs to, at which configuration, served by whom."""

from tenancy.context import ActiveTenant, CallRecord, ResolvedTenant, TenantContext, VersionInfo
from tenancy.errors import (
    CallNotRouted,
    ChangeRefused,
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
    UnknownTenant,
    UnknownVersion,
    VersionConflict,
    VersionInvalid,
)
from tenancy.providers import Chains, ResolvedProvider, resolve
from tenancy.registry import Registry, open_registry
from tenancy.store import TenantRow, TenantStatus
from tenancy.trunks import Called, CalledNumber, CalledSite, CalledUri, Trunk, Trunks
from vault.resolver import Origin

__all__ = [
    "ActiveTenant",
    "CallNotRouted",
    "CallRecord",
    "Called",
    "CalledNumber",
    "CalledSite",
    "CalledUri",
    "Chains",
    "ChangeRefused",
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
    "Trunk",
    "Trunks",
    "UnknownTenant",
    "UnknownVersion",
    "VersionConflict",
    "VersionInfo",
    "VersionInvalid",
    "open_registry",
    "resolve",
]
