"""What a tenant may change in its own configuration, and what needs an operator. Sans-IO.

An operator answers for three things: by what numbers, addresses and pages a tenant is reached; how many calls it may have at
once; and whom this machine asks on its behalf. The last is a matter of safety: a provider's URL is asked by this server from
within its network, and ``api_key_env`` names a variable of this server's, so that both together would send any secret of the
environment anywhere. A tenant brings keys of its own into the vault instead (``key: NAME``).
"""

from __future__ import annotations

from collections.abc import Iterator

from admin.errors import Forbidden
from config.tenant import TenantConfig
from tenancy.addresses import addresses_of

Endpoint = tuple[str, str, str | None, str | None]


def check_tenants_change(new: TenantConfig, active: TenantConfig | None) -> None:
    """Let a tenant's own change pass. Raises `Forbidden`, which names what needs an operator."""
    if active is None:
        raise Forbidden("the first version of a tenant needs the role operator")
    fields = _reserved(new, active)
    if fields:
        raise Forbidden(f"a change of {', '.join(fields)} needs the role operator")


def _reserved(new: TenantConfig, active: TenantConfig) -> list[str]:
    fields = []
    if set(addresses_of(new)) != set(addresses_of(active)):
        fields.append("numbers, sip_addresses, trunks or site_keys")
    if new.max_concurrent_calls > active.max_concurrent_calls:
        fields.append("max_concurrent_calls (to more than there are)")
    allowed = set(_endpoints(active))
    for service, kind, url, variable in _endpoints(new):
        if (service, kind, url, variable) not in allowed and (url is not None or variable is not None):
            fields.append(f"providers.{service} (base_url or api_key_env)")
    return list(dict.fromkeys(fields))


def _endpoints(config: TenantConfig) -> Iterator[Endpoint]:
    """Whom a configuration has asked: service, kind, URL, and the variable with the key."""
    chains = (("stt", config.providers.stt), ("llm", config.providers.llm), ("tts", config.providers.tts))
    for service, chain in chains:
        for step in chain:
            yield service, step.kind, getattr(step, "base_url", None), getattr(step, "api_key_env", None)
