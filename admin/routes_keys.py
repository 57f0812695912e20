"""Tenants' own provider keys: put, listed, revoked, sealed anew. Never told."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path

from admin.documents import for_operators, problems
from admin.guard import GuardedRoute
from admin.models import DataKeyRotation, KekRotation, Key, Keys, NewKey, NotRotated
from admin.services import Asking, In
from vault import Secret
from vault.rotation import Failure

MAX_REWRAPPED: Final = 1_000
"""Data keys in one request; whoever wants the rest asks again."""
Name = Annotated[str, Path(max_length=64, description="As the configuration has it: ``key: NAME``.")]


def _told(failures: tuple[Failure, ...]) -> list[NotRotated]:
    return [
        NotRotated(tenant_id=each.tenant_id, what=each.what, reason=each.reason) for each in failures[:100]
    ]


async def list_keys(tenant_id: str, at: In) -> Keys:
    """A tenant's keys by name, the revoked ones too."""
    await at.registry.status(tenant_id)
    return Keys(items=[Key.of(each) for each in await at.keys().list(tenant_id)])


async def put(tenant_id: str, name: Name, new: NewKey, at: In, asking: Asking) -> Key:
    """Keep a key under a name, in place of the one before if there is one. The next call uses it."""
    await at.registry.status(tenant_id)
    secret = Secret(new.key.get_secret_value())
    return Key.of(await at.keys().put(tenant_id, name, secret, actor=asking.name, at=at.now()))


async def revoke(tenant_id: str, name: Name, at: In, asking: Asking) -> Key:
    """Delete a key; its name and version stay. Calls that are up keep it."""
    await at.registry.status(tenant_id)
    return Key.of(await at.keys().revoke(tenant_id, name, actor=asking.name, at=at.now()))


async def reseal(tenant_id: str, at: In, asking: Asking) -> DataKeyRotation:
    """Seal a tenant's keys under a new data key, while calls go on."""
    await at.registry.status(tenant_id)
    done = await at.keys().rotate_data_key(tenant_id, actor=asking.name, at=at.now())
    return DataKeyRotation(
        generation=done.generation,
        resumed=done.resumed,
        resealed=done.resealed,
        finished=done.finished,
        failures=_told(done.failures),
    )


async def rewrap(at: In, asking: Asking) -> KekRotation:
    """Wrap data keys by the present key-encryption key; again until ``finished``."""
    done = await at.keys().rotate_kek(actor=asking.name, at=at.now(), limit=MAX_REWRAPPED)
    return KekRotation(
        kek_id=done.kek_id,
        rewrapped=done.rewrapped,
        failed=done.failed,
        finished=done.finished,
        failures=_told(done.failures),
    )


def routes() -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix="/v1", route_class=GuardedRoute, tags=["keys"])
    router.get("/tenants/{tenant_id}/keys", name="keys.list", responses=problems(404, 409))(list_keys)
    router.put("/tenants/{tenant_id}/keys/{name}", name="keys.put", responses=problems(404, 409))(put)
    router.delete("/tenants/{tenant_id}/keys/{name}", name="keys.revoke", responses=problems(404, 409))(
        revoke
    )
    router.post("/tenants/{tenant_id}/keys/rotation", name="keys.reseal", responses=problems(404, 409))(
        reseal
    )
    router.post("/keys/rotation", name="keys.rewrap", openapi_extra=for_operators(), responses=problems(409))(
        rewrap
    )
    return router
