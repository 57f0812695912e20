"""Tenants: who a called number belongs to, at which configuration, served by whom."""

from tenancy.context import ActiveTenant, CallRecord, ResolvedTenant, TenantContext, VersionInfo
from tenancy.errors import (
    NumberTaken,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    TenancyError,
    TenantSuspended,
    UnknownNumber,
    UnknownTenant,
    UnknownVersion,
)
from tenancy.providers import Chains, Origin, ResolvedProvider, resolve
from tenancy.registry import Registry, TenantStatus, open_registry

__all__ = [
    "ActiveTenant",
    "CallRecord",
    "Chains",
    "NumberTaken",
    "Origin",
    "Registry",
    "ResolvedProvider",
    "ResolvedTenant",
    "StoreCorrupt",
    "StoreError",
    "StoreLocked",
    "TenancyError",
    "TenantContext",
    "TenantStatus",
    "TenantSuspended",
    "UnknownNumber",
    "UnknownTenant",
    "UnknownVersion",
    "VersionInfo",
    "open_registry",
    "resolve",
]
