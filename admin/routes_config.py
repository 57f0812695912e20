"""Versions of a tenant's configuration: drafted, checked, activated, taken back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from admin.bodies import ConfigBody, config_body, faults_of
from admin.documents import problems
from admin.errors import Fault, Invalid, NotFound
from admin.etags import check_match, is_known, version_tag
from admin.guard import GuardedRoute
from admin.models import (
    Check,
    Difference,
    Differences,
    Draft,
    Line,
    Log,
    Report,
    Rollback,
    Version,
    Versions,
    VersionWithContent,
    Why,
)
from admin.paging import Cursor, Limit, link_next, number_of, page_of, written
from admin.policy import check_tenants_change
from admin.principals import Principal, Role
from admin.services import Asking, In, Services
from config.diff import differences
from config.tenant import TenantConfig
from tenancy.errors import UnknownVersion
from tenancy.ledger import Ledger
from tenancy.versions import ConfigVersion, VersionState

Number = Annotated[int, Path(ge=1, lt=2**31)]
IfMatch = Annotated[str | None, Header(description="The ETag of what is active: GET …/config gives it.")]


def active_tag(ledger: Ledger) -> str | None:
    """What somebody has seen active; None: nothing is."""
    active = ledger.history.active
    return None if active is None else version_tag(active.version, active.content_hash)


async def check_allowed(at: Services, asking: Principal, config: TenantConfig, ledger: Ledger) -> None:
    """Let a tenant make of its own version what needs no operator. Raises `Forbidden`."""
    if asking.role is Role.TENANT:
        active = ledger.history.active
        now = None if active is None else await at.lifecycle.config(config.tenant_id, active.version)
        check_tenants_change(config, now)


def found_in(ledger: Ledger, tenant_id: str, version: int) -> ConfigVersion:
    """A version. Raises `UnknownVersion`."""
    found = ledger.history.get(version)
    if found is None:
        raise UnknownVersion(f"{tenant_id} has no configuration version {version}")
    return found


async def _with_content(at: Services, tenant_id: str, version: ConfigVersion) -> VersionWithContent:
    config = await at.lifecycle.config(tenant_id, version.version)
    return VersionWithContent(**Version.of(version).model_dump(), content=config.model_dump(mode="json"))


async def read_active(
    tenant_id: str, at: In, response: Response, if_none_match: Annotated[str | None, Header()] = None
) -> VersionWithContent | Response:
    """The version that new calls get, with what it says."""
    ledger = await at.lifecycle.ledger(tenant_id)
    active, tag = ledger.history.active, active_tag(ledger)
    if active is None or tag is None:
        raise NotFound(f"{tenant_id} has no active version")
    if is_known(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return await _with_content(at, tenant_id, active)


async def list_versions(
    tenant_id: str, at: In, request: Request, response: Response, limit: Limit = 50, cursor: Cursor = None
) -> Versions:
    """All versions, the newest first."""
    before = number_of(cursor)
    ledger = await at.lifecycle.ledger(tenant_id)
    newest = [each for each in reversed(ledger.history.versions) if before is None or each.version < before]
    found = newest[: limit + 1]
    page = page_of(
        [Version.of(each) for each in found], limit, [written(str(each.version)) for each in found]
    )
    link_next(request, response, page.next_cursor)
    return Versions(items=page.items, next_cursor=page.next_cursor)


async def draft(
    tenant_id: str,
    at: In,
    asking: Asking,
    body: Annotated[ConfigBody, Depends(ConfigBody.read)],
    response: Response,
    reason: Annotated[str, Query(min_length=1, max_length=1_000)] = "draft",
) -> Draft:
    """Add a version that no call gets yet."""
    if body.config.tenant_id != tenant_id:
        raise Invalid(
            "the configuration is another tenant's",
            (Fault("tenant_id", f"has to be {tenant_id!r}, as in the path"),),
        )
    await check_allowed(at, asking, body.config, await at.lifecycle.ledger(tenant_id))
    version = await at.lifecycle.draft(body.config, at.origin(asking, reason))
    response.headers["Location"] = f"/v1/tenants/{tenant_id}/config/versions/{version.version}"
    return Draft(**Version.of(version).model_dump(), warnings=faults_of(body.warnings))


async def read_version(tenant_id: str, version: Number, at: In) -> VersionWithContent:
    """One version, with what it says."""
    found = found_in(await at.lifecycle.ledger(tenant_id), tenant_id, version)
    return await _with_content(at, tenant_id, found)


async def validate(tenant_id: str, version: Number, check: Check, at: In, asking: Asking) -> Report:
    """Check a version. A draft is validated by it, or refused for good."""
    config = await at.lifecycle.config(tenant_id, version)
    ledger = await at.lifecycle.ledger(tenant_id)
    # Not even asked by way of an operator's draft: whom this server asks is an operator's to say.
    await check_allowed(at, asking, config, ledger)
    if found_in(ledger, tenant_id, version).state is VersionState.DRAFT:
        report = await at.lifecycle.validate(tenant_id, version, at.origin(asking, check.reason))
    else:
        report = await at.lifecycle.check(config)
    reachable, unreachable = await at.reachability(config) if check.reachability else ((), ())
    return Report(
        valid=not report.errors and not unreachable,
        errors=list(report.errors),
        warnings=list(report.warnings),
        reachable=list(reachable),
        unreachable=list(unreachable),
    )


async def activate(
    tenant_id: str,
    version: Number,
    why: Why,
    at: In,
    asking: Asking,
    response: Response,
    if_match: IfMatch = None,
) -> Version:
    """Give a version to new calls; a draft is validated first. Of two at once one wins."""
    ledger = await at.lifecycle.ledger(tenant_id)
    check_match(if_match, active_tag(ledger))
    await check_allowed(at, asking, await at.lifecycle.config(tenant_id, version), ledger)
    active = ledger.history.active
    changed = await at.lifecycle.activate(
        tenant_id,
        version,
        at.origin(asking, why.reason),
        expected=None if active is None else active.version,
    )
    response.headers["ETag"] = version_tag(changed.version, changed.content_hash)
    await at.on_changed(tenant_id)
    return Version.of(changed)


async def reject(tenant_id: str, version: Number, why: Why, at: In, asking: Asking) -> Version:
    """Keep a version from ever becoming active."""
    found_in(await at.lifecycle.ledger(tenant_id), tenant_id, version)
    changed = await at.lifecycle.reject(tenant_id, version, at.origin(asking, why.reason))
    await at.on_changed(tenant_id)
    return Version.of(changed)


async def roll_back(
    tenant_id: str, back: Rollback, at: In, asking: Asking, response: Response, if_match: IfMatch = None
) -> Version:
    """Give new calls an earlier version's content, as a new version."""
    ledger = await at.lifecycle.ledger(tenant_id)
    check_match(if_match, active_tag(ledger))
    found_in(ledger, tenant_id, back.to)
    await check_allowed(at, asking, await at.lifecycle.config(tenant_id, back.to), ledger)
    active = ledger.history.active
    changed = await at.lifecycle.roll_back(
        tenant_id,
        back.to,
        at.origin(asking, back.reason),
        expected=None if active is None else active.version,
    )
    response.headers["ETag"] = version_tag(changed.version, changed.content_hash)
    await at.on_changed(tenant_id)
    return Version.of(changed)


async def diff(
    tenant_id: str,
    at: In,
    old: Annotated[int, Query(alias="from", ge=1, lt=2**31)],
    new: Annotated[int, Query(alias="to", ge=1, lt=2**31)],
) -> Differences:
    """What two versions have otherwise."""
    before = await at.lifecycle.config(tenant_id, old)
    after = await at.lifecycle.config(tenant_id, new)
    found = differences(before.model_dump(mode="json"), after.model_dump(mode="json"))
    return Differences(
        items=[
            Difference(field=each.field, kind=each.kind.value, old=each.old, new=each.new)
            for each in found.changes
        ],
        cut_off=found.cut_off,
    )


async def log(
    tenant_id: str, at: In, request: Request, response: Response, limit: Limit = 50, cursor: Cursor = None
) -> Log:
    """Who did what to the versions, latest first."""
    found = await at.lifecycle.log(tenant_id, limit + 1, number_of(cursor))
    page = page_of([Line.of(each) for each in found], limit, [written(str(each.entry)) for each in found])
    link_next(request, response, page.next_cursor)
    return Log(items=page.items, next_cursor=page.next_cursor)


def routes() -> APIRouter:
    """The routes of this module."""
    router = APIRouter(
        prefix="/v1/tenants/{tenant_id}/config", route_class=GuardedRoute, tags=["configuration"]
    )
    router.get("", name="config.read", response_model=VersionWithContent, responses=problems(304, 404))(
        read_active
    )
    router.get("/versions", name="config.versions", responses=problems(404))(list_versions)
    router.post(
        "/versions",
        name="config.draft",
        status_code=201,
        openapi_extra=config_body(),
        responses=problems(404, 409, 415),
    )(draft)
    router.get("/versions/{version}", name="config.version", responses=problems(404))(read_version)
    router.post("/versions/{version}/validation", name="config.validate", responses=problems(404, 409))(
        validate
    )
    router.post(
        "/versions/{version}/activation", name="config.activate", responses=problems(404, 409, 412, 428)
    )(activate)
    router.post("/versions/{version}/rejection", name="config.reject", responses=problems(404, 409))(reject)
    router.post("/rollback", name="config.rollback", responses=problems(404, 409, 412, 428))(roll_back)
    router.get("/diff", name="config.diff", responses=problems(404))(diff)
    router.get("/log", name="config.log", responses=problems(404))(log)
    return router
