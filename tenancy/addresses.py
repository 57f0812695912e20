"""By what a tenant is called: from its configuration to the store, and from the store to a decision. Sans-IO."""

from __future__ import annotations

from config.tenant import TenantConfig
from tenancy.routing import Home, Registration, Standing
from tenancy.store import Address, OwnedAddress


def addresses_of(config: TenantConfig) -> tuple[Address, ...]:
    """By what a configuration's tenant is called, and from where."""
    trunks = frozenset(config.trunks)
    called = (Address(each, trunks) for each in (*config.numbers, *config.sip_addresses))
    sites = (Address(site.key, origins=frozenset(site.origins)) for site in config.site_keys)
    return (*called, *sites)


def registration_of(owned: OwnedAddress) -> Registration:
    """What an address in the store is for `tenancy.routing`."""
    address, tenant = owned.address, owned.tenant
    home = None if tenant.moved_to is None else Home.read(tenant.moved_to)
    return Registration(
        address.address,
        tenant.tenant_id,
        Standing(tenant.status.value),
        address.trunks,
        address.origins,
        home,
    )
