"""Tenants, by what they are called, and the node's trunks."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from admin.bodies import ConfigBody, config_body, faults_of
from admin.documents import for_operators, problems
from admin.errors import BadRequest, NotFound
from admin.etags import check_match, is_known, tag_of
from admin.guard import ABOUT, GuardedRoute
from admin.models import (
    Addresses,
    Created,
    OneAddress,
    Owner,
    StatusChange,
    Tenant,
    Tenants,
    Trunks,
)
from admin.paging import Cursor, Limit, link_next, page_of, text_of, written
from admin.services import Asking, In
from tenancy.store import TenantRow, TenantStatus

MAX_ADDRESS_CHARACTERS: Final = 255


def tenant_tag(row: TenantRow) -> str:
    """What somebody has seen of a tenant's status."""
    return tag_of(row.tenant_id, row.status.value, row.moved_to)


async def list_tenants(
    at: In,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
    status: Annotated[TenantStatus | None, Query(description="Only tenants with this status.")] = None,
) -> Tenants:
    """The tenants of this node, by id."""
    rows = await at.registry.store.tenants(text_of(cursor), limit + 1, status)
    page = page_of([Tenant.of(row) for row in rows], limit, [written(row.tenant_id) for row in rows])
    link_next(request, response, page.next_cursor)
    return Tenants(items=page.items, next_cursor=page.next_cursor)


async def create_tenant(
    at: In,
    asking: Asking,
    body: Annotated[ConfigBody, Depends(ConfigBody.read)],
    request: Request,
    response: Response,
    reason: Annotated[str, Query(min_length=1, max_length=1_000)] = "created",
) -> Created:
    """Make a tenant of its first configuration, which is active at once."""
    setattr(request.state, ABOUT, body.config.tenant_id)
    version = await at.lifecycle.create(body.config, at.origin(asking, reason))
    # Not read again: what was made stands, whatever the store says next.
    row = TenantRow(body.config.tenant_id, TenantStatus.ACTIVE)
    response.headers["ETag"] = tenant_tag(row)
    response.headers["Location"] = f"/v1/tenants/{row.tenant_id}"
    await at.on_changed(row.tenant_id)
    return Created(tenant=Tenant.of(row), version=version, warnings=faults_of(body.warnings))


async def read_tenant(
    tenant_id: str, at: In, response: Response, if_none_match: Annotated[str | None, Header()] = None
) -> Tenant | Response:
    """A tenant's status."""
    row = await at.registry.status(tenant_id)
    tag = tenant_tag(row)
    if is_known(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return Tenant.of(row)


async def change_status(
    tenant_id: str,
    change: StatusChange,
    at: In,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> Tenant:
    """Suspend a tenant, take its calls again, or note which node has it now."""
    row = await at.registry.status(tenant_id)
    check_match(if_match, tenant_tag(row))
    await at.registry.set_status(tenant_id, change.status, moved_to=change.moved_to, expected=row)
    changed = TenantRow(tenant_id, change.status, change.moved_to)
    response.headers["ETag"] = tenant_tag(changed)
    await at.on_changed(tenant_id)
    return Tenant.of(changed)


async def list_addresses(tenant_id: str, at: In) -> Addresses:
    """The numbers, SIP addresses and site keys of a tenant. They change with its active version."""
    await at.registry.status(tenant_id)
    found = await at.registry.store.addresses_of(tenant_id)
    return Addresses(items=[OneAddress.of(each) for each in found])


async def owner_of(address: str, at: In) -> Owner:
    """Whose a number (E.164), SIP address or site key is."""
    if not 1 <= len(address) <= MAX_ADDRESS_CHARACTERS or not address.isprintable():
        raise BadRequest(f"an address is 1 to {MAX_ADDRESS_CHARACTERS} printable characters")
    found = await at.registry.store.registered((address,))
    if not found:
        raise NotFound("nobody has this address")
    (owned,) = found
    return Owner(**OneAddress.of(owned.address).model_dump(), tenant=Tenant.of(owned.tenant))


async def list_trunks(at: In) -> Trunks:
    """The trunks of this node. None: it takes calls from everywhere, on the trunk ``any``."""
    return Trunks(items=[trunk.model_dump(mode="json") for trunk in at.node.trunks])


def routes() -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix="/v1", route_class=GuardedRoute, tags=["tenants"])
    router.get("/tenants", name="tenants.list", openapi_extra=for_operators(), responses=problems())(
        list_tenants
    )
    router.post(
        "/tenants",
        name="tenants.create",
        status_code=201,
        openapi_extra={**for_operators(), **config_body()},
        responses=problems(409, 413, 415, 422),
    )(create_tenant)
    router.get(
        "/tenants/{tenant_id}", name="tenants.read", response_model=Tenant, responses=problems(304, 404)
    )(read_tenant)
    router.patch(
        "/tenants/{tenant_id}",
        name="tenants.status",
        openapi_extra=for_operators(),
        responses=problems(404, 412, 422, 428),
    )(change_status)
    router.get("/tenants/{tenant_id}/addresses", name="addresses.list", responses=problems(404))(
        list_addresses
    )
    router.get(
        "/addresses/{address:path}",
        name="addresses.owner",
        openapi_extra=for_operators(),
        responses=problems(404),
    )(owner_of)
    router.get("/trunks", name="trunks.list", openapi_extra=for_operators(), responses=problems())(
        list_trunks
    )
    return router
