"""``mediaserver keys`` on a node that runs: what it asks of the admin API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from admin.client import AdminClient, ApiProblem, path_of
from mediaserver.errors import MediaServerError
from vault import Secret, SecretInfo
from vault.resolver import Service
from vault.rotation import DataKeyRotation, Failure, KekRotation


def _info(key: Mapping[str, Any]) -> SecretInfo:
    return SecretInfo(**{name: key[name] for name in SecretInfo.__slots__})


async def put(api: AdminClient, tenant_id: str, name: str, secret: Secret) -> SecretInfo:
    """Keep a key."""
    path = path_of("tenants", tenant_id, "keys", name)
    return _info(await api.change("PUT", path, {"key": secret.reveal()}, secret=True))


async def unused(api: AdminClient, tenant_id: str, name: str) -> str | None:
    """Why no call uses the key, as the active version says."""
    try:
        active = await api.get(path_of("tenants", tenant_id, "config"))
    except ApiProblem as problem:
        return f"whether a call uses it is not known: {problem}"
    providers = active["content"].get("providers", {})
    if any(step.get("key") == name for service in Service for step in providers.get(service, ())):
        return None
    return f"no provider of {tenant_id} names it yet: write `key: {name}` in its configuration"


async def listed(api: AdminClient, tenant_id: str | None) -> list[SecretInfo]:
    """A tenant's keys."""
    if tenant_id is None:
        raise MediaServerError("name a TENANT: which of them have keys is told on the node's machine alone")
    return [_info(each) for each in (await api.get(path_of("tenants", tenant_id, "keys")))["items"]]


async def revoke(api: AdminClient, tenant_id: str, name: str) -> SecretInfo:
    """Delete a key."""
    return _info(await api.change("DELETE", path_of("tenants", tenant_id, "keys", name)))


async def reseal(api: AdminClient, tenant_id: str) -> DataKeyRotation:
    """Seal a tenant's keys under a new data key."""
    done = await api.change("POST", path_of("tenants", tenant_id, "keys", "rotation"))
    return DataKeyRotation(
        done["generation"], done["resumed"], done["resealed"], _failures(done), finished=done["finished"]
    )


async def rewrap(api: AdminClient) -> KekRotation:
    """Wrap all data keys anew, as many requests as that takes."""
    rewrapped = 0
    while True:
        done = await api.change("POST", path_of("keys", "rotation"))
        rewrapped += done["rewrapped"]
        # What fails is passed over, and met again by the next request: without progress there is nothing more to be had.
        if done["finished"] or not done["rewrapped"]:
            return KekRotation(
                done["kek_id"], rewrapped, done["failed"], _failures(done), finished=done["finished"]
            )


def _failures(done: Mapping[str, Any]) -> tuple[Failure, ...]:
    return tuple(Failure(each["tenant_id"], each["what"], each["reason"]) for each in done["failures"])
