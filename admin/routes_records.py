"""What was: calls, and who changed what. And the schema that configurations follow."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from admin.documents import for_anybody, for_operators, problems
from admin.guard import GuardedRoute
from admin.paging import MAX_NUMBER, Cursor, Limit, link_next, moment_of, number_of, page_of, written
from admin.ports import Entry
from admin.record_models import AuditEntries, AuditEntry, Call, Calls
from admin.services import In, Services
from config.schema import tenant_schema
from tenancy.call_log import MAX_LISTED_CALLS

After = Annotated[
    int | None, Query(ge=0, le=MAX_NUMBER, description="Only entries with a sequence above this one.")
]


async def list_calls(
    tenant_id: str, at: In, request: Request, response: Response, limit: Limit = 20, cursor: Cursor = None
) -> Calls:
    """A tenant's calls, the latest first."""
    # One more than the page has, and the registry gives no more than so many: a page has one less.
    limit = min(limit, MAX_LISTED_CALLS - 1)
    found = await at.registry.calls(tenant_id, limit + 1, moment_of(cursor))
    cursors = [written(each.started_at.isoformat(), each.call_id) for each in found]
    page = page_of([Call.of(each) for each in found], limit, cursors)
    link_next(request, response, page.next_cursor)
    return Calls(items=page.items, next_cursor=page.next_cursor)


async def list_audit(
    at: In,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
    after: After = None,
) -> AuditEntries:
    """Changes and refusals of everybody, in order."""
    return await _entries(at, request, response, None, limit, cursor, after)


async def list_tenants_audit(
    tenant_id: str,
    at: In,
    request: Request,
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
    after: After = None,
) -> AuditEntries:
    """Changes and refusals that concern a tenant, in order."""
    await at.registry.status(tenant_id)
    return await _entries(at, request, response, tenant_id, limit, cursor, after)


async def _entries(
    at: Services,
    request: Request,
    response: Response,
    tenant_id: str | None,
    limit: int,
    cursor: str | None,
    after: int | None,
) -> AuditEntries:
    start = number_of(cursor)
    found = await at.audit.page(
        tenant_id=tenant_id, after=(after or 0) if start is None else start, limit=limit + 1
    )
    page = page_of([_told(each) for each in found], limit, [written(str(each.sequence)) for each in found])
    link_next(request, response, page.next_cursor)
    return AuditEntries(items=page.items, next_cursor=page.next_cursor)


def _told(entry: Entry) -> AuditEntry:
    deed = entry.deed
    fields = {name: getattr(deed, name) for name in type(deed).__slots__}
    return AuditEntry(sequence=entry.sequence, hash=entry.hash.hex(), **fields)


async def read_schema() -> dict[str, Any]:
    """The JSON Schema of a tenant's configuration, for editors."""
    return dict(tenant_schema())


def routes() -> APIRouter:
    """The routes of this module."""
    router = APIRouter(prefix="/v1", route_class=GuardedRoute, tags=["records"])
    router.get("/tenants/{tenant_id}/calls", name="calls.list", responses=problems(404))(list_calls)
    router.get("/audit", name="audit.list", openapi_extra=for_operators(), responses=problems())(list_audit)
    router.get("/tenants/{tenant_id}/audit", name="audit.tenant", responses=problems(404))(list_tenants_audit)
    router.get("/schema/tenant", name="schema.tenant", openapi_extra=for_anybody(), responses=problems())(
        read_schema
    )
    return router
