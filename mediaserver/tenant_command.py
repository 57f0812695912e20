"""``mediaserver tenant list|show|suspend|activate|create``: what it asks of the admin API, as text for people."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from admin.client import AdminClient, ApiProblem, path_of
from config.canonical import canonical_json
from config.loader import load_tenant_config
from config.tenant import TENANT_ID_PATTERN
from mediaserver.configuring.commands import Outcome
from mediaserver.configuring.running import through_api, told
from tenancy.errors import ChangeRefused, UnknownTenant
from tenancy.routing import LEFT_FOR_GOOD, Home

PAGE: Final = 100


async def run(options: Namespace) -> int:
    """Run one of the commands; returns the exit status, as ``mediaserver config`` has them."""
    match options.what:
        case "list":
            work = through_api(options, lambda api, _: list_all(api, options.status, options.limit))
        case "show":
            work = through_api(options, lambda api, _: show(api, options.tenant))
        case "create":
            work = through_api(options, lambda api, by: create(api, options.file, by.reason))
        case _:
            work = through_api(options, lambda api, _: set_status(api, options.tenant, options.what))
    return await told(work)


def _path(tenant: str) -> str:
    """A tenant's path. Raises `UnknownTenant` for what can be no tenant's id."""
    if not re.fullmatch(TENANT_ID_PATTERN, tenant):
        raise UnknownTenant(f"no tenant {tenant[:63]!r}")
    return path_of("tenants", tenant)


async def list_all(api: AdminClient, status: str | None, limit: int) -> Outcome:
    """The node's tenants by id, at most ``limit``."""
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < limit:
        page = await api.get(
            path_of("tenants"), limit=min(limit - len(found), PAGE), cursor=cursor, status=status
        )
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    width = max((len(each["tenant_id"]) for each in found), default=0)
    lines = [f"{each['tenant_id']:<{width}}  {_status(each)}" for each in found]
    if cursor is not None:
        lines.append(f"and more (--limit {limit})")
    return Outcome(tuple(lines) or ("no tenants",))


def _status(tenant: Mapping[str, Any]) -> str:
    if tenant["status"] != "moved":
        return str(tenant["status"])
    home = str(tenant["moved_to"])
    if Home.read(home) is not None:
        return f"moved to {home}"
    # Earlier programs took any text; callers are told that the tenant is gone.
    return "gone" if home == LEFT_FOR_GOOD else f"gone ({home} is no node's address)"


async def show(api: AdminClient, tenant: str) -> Outcome:
    """Whether a tenant's calls are taken, what answers them, and by what it is called."""
    path = _path(tenant)
    found = await api.get(path)
    addresses = (await api.get(f"{path}/addresses"))["items"]
    lines = [f"{tenant}: {_status(found)}", await _active(api, path)]
    for each in addresses:
        where = [f"{name} {', '.join(each[name])}" for name in ("trunks", "origins") if each[name]]
        lines.append(f"  {'; '.join([each['address'], *where])}")
    return Outcome(tuple(lines))


async def _active(api: AdminClient, path: str) -> str:
    try:
        active = await api.get(f"{path}/config")
    except ApiProblem as problem:
        if problem.answered != 404:
            raise
        return "  no version is active"
    made = active["created"]
    return f"  version {active['version']} ({active['content_hash'][:12]}), by {made['author']}: {made['reason']}"


async def set_status(api: AdminClient, tenant: str, what: str) -> Outcome:
    """Refuse a tenant's new calls, or take them again."""
    path = _path(tenant)
    found, tag = await api.tagged(path)
    if found["status"] == "moved":
        # Two nodes would have its calls.
        status = _status(found)
        raise ChangeRefused(
            f"{tenant} {'has' if status.startswith('moved') else 'is'} {status}: mediaserver tenant import brings it back"
        )
    wanted = "suspended" if what == "suspend" else "active"
    if found["status"] == wanted:
        return Outcome((f"{tenant} is {wanted} already",))
    await api.change("PATCH", path, {"status": wanted}, match=tag)
    then = "new calls are refused, calls that are up go on" if what == "suspend" else "new calls are taken"
    return Outcome((f"{tenant} is {wanted}: {then}",))


async def create(api: AdminClient, path: Path, reason: str) -> Outcome:
    """Make a tenant of a file. Raises `ConfigError`, with the file's name and lines."""
    config = load_tenant_config(path)
    made = await api.change("POST", path_of("tenants"), yaml=canonical_json(config), reason=reason)
    return Outcome((f"{config.tenant_id} is made: version {made['version']} is active, its calls are taken",))
