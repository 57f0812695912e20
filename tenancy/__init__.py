"""Tenants: who a called number belongs to, at which configuration, served by whom."""

from tenancy.context import ActiveTenant, CallRecord, TenantContext
from tenancy.errors import NumberTaken, StoreError, TenancyError, TenantSuspended, UnknownNumber
from tenancy.providers import Origin, ResolvedProvider, resolve
from tenancy.registry import Registry, open_registry

__all__ = [
    "ActiveTenant",
    "CallRecord",
    "NumberTaken",
    "Origin",
    "Registry",
    "ResolvedProvider",
    "StoreError",
    "TenancyError",
    "TenantContext",
    "TenantSuspended",
    "UnknownNumber",
    "open_registry",
    "resolve",
]
