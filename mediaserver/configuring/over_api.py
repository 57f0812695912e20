"""What ``mediaserver config`` asks of the admin API, as text for people. Nothing here decides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from admin.client import AdminClient, ApiProblem, path_of
from admin.etags import version_of
from config.canonical import canonical_json
from config.diff import MAX_CHANGES, Change, ChangeKind
from config.loader import load_tenant_config
from config.tenant import TENANT_ID_PATTERN
from mediaserver.configuring.arguments import LISTED
from mediaserver.configuring.commands import Author, Outcome
from tenancy.errors import UnknownTenant, VersionConflict

PAGE: Final = 100
COST: Final = "cost_micros"
LATENCY: Final = "turn_latency_ms"
LATENCY_P95: Final = "turn_latency_p95_ms"
MICROS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Trial:
    """How a version is to be tried; see `admin.models.NewTrial`."""

    share_percent: float
    hours: float
    min_calls: int
    max_cost_percent: float | None = None
    """How much the cost per call may rise; None: by a quarter where prices are known, else it is not compared."""
    cost_cap_usd: float = 1.0
    """A call's cost counts up to this: the lower, the fewer calls show a rise."""


def _config(tenant: str) -> str:
    """The path of a tenant's configuration. Raises `UnknownTenant` for what can be no tenant's id."""
    if not re.fullmatch(TENANT_ID_PATTERN, tenant):
        raise UnknownTenant(f"no tenant {tenant[:63]!r}")
    return path_of("tenants", tenant, "config")


async def validate(
    api: AdminClient, tenant: str, version: int, author: Author, *, reachability: bool
) -> Outcome:
    """Check a version, and have noted what came of it where it is a draft."""
    path = f"{_config(tenant)}/versions/{version}/validation"
    report = await api.change("POST", path, {"reachability": reachability, "reason": author.reason})
    lines = [f"error: {each}" for each in report["errors"]]
    lines += [f"warning: {each}" for each in report["warnings"]]
    lines += [f"reachable: {each}" for each in report["reachable"]]
    lines += [f"error: {each}" for each in report["unreachable"]]
    lines.append(f"{tenant} version {version}: {'valid' if report['valid'] else 'not valid'}")
    return Outcome(tuple(lines), bool(report["valid"]))


async def history(api: AdminClient, tenant: str, limit: int = LISTED) -> Outcome:
    """The newest versions, the trial that runs, and who did what."""
    config = _config(tenant)
    versions, more = await _newest(api, f"{config}/versions", limit)
    lines = [
        f"{'':2}{'version':>7}  {'state':<11}  {'content':<12}  {'schema':>6}  {'made':<20}  by, why",
        *map(_row, versions),
    ]
    if more:
        lines.append(f"  and {int(versions[-1]['version']) - 1} older ones (--limit)")
    trial = await _trial(api, config)
    if trial is not None:
        lines += ["", *trial_lines(trial)]
    lines += ["", "log, latest first"]
    log, more = await _newest(api, f"{config}/log", limit)
    lines += [
        f"  {_time(each['by']['at'])}  version {each['version']} {each['deed']}"
        f" by {each['by']['author']}: {each['by']['reason']}"
        for each in log
    ]
    if more:
        lines.append("  and what was before (--limit)")
    return Outcome(tuple(lines))


async def _newest(api: AdminClient, path: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """The first items of a list, page by page, and whether there are more."""
    found: list[dict[str, Any]] = []
    cursor = None
    while len(found) < limit:
        page = await api.get(path, limit=min(limit - len(found), PAGE), cursor=cursor)
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found, False
    return found, True


async def _trial(api: AdminClient, config: str) -> dict[str, Any] | None:
    try:
        return await api.get(f"{config}/trial")
    except ApiProblem as problem:
        if problem.answered == 404:
            return None
        raise


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%SZ}"


def _row(version: Mapping[str, Any]) -> str:
    mark = "*" if version["state"] == "active" else " "
    made = version["created"]
    restores = f" (the content of {version['restores']})" if version["restores"] is not None else ""
    return (
        f"{mark} {version['version']:>7}  {version['state']:<11}  {version['content_hash'][:12]}  {version['schema_version']:>6}"
        f"  {_time(made['at'])}  {made['author']}: {made['reason']}{restores}"
    )


def trial_lines(trial: Mapping[str, Any]) -> list[str]:
    """A trial for people."""
    hours = (
        datetime.fromisoformat(trial["ends_at"]) - datetime.fromisoformat(trial["started_at"])
    ).total_seconds() / 3600
    lines = [
        f"trial of version {trial['version']} against {trial['baseline']},"
        f" {trial['share_percent']:g} % of the calls, for at most {hours:g} h"
    ]
    for name, arm in (("baseline", trial["old"]), ("canary", trial["new"])):
        means = arm["means"]
        lines.append(
            f"  {name:<8}  {arm['calls']} calls, {arm['failed']} failed, {arm['asked_for_a_person']} asked for a person,"
            f" turn latency {means[LATENCY] or 0:.0f} ms (p95 {means[LATENCY_P95] or 0:.0f} ms){_costs(arm)}"
        )
    if trial["verdict"] is not None:
        lines.append(f"  {trial['decision']}: {trial['verdict']}")
    return lines


def _costs(arm: Mapping[str, Any]) -> str:
    if not arm["costs"]:
        return ""
    few = arm["estimated_costs"]
    estimated = f", {few} of {arm['costs']} estimated" if few else ""
    return f", {arm['means'][COST] / MICROS:.4f} USD a call{estimated}"


async def diff(api: AdminClient, tenant: str, old: int, new: int) -> Outcome:
    """What differs between two versions, field by field."""
    found = await api.get(f"{_config(tenant)}/diff", **{"from": old, "to": new})
    lines = [
        str(Change(ChangeKind(each["kind"]), each["field"], each["old"], each["new"]))
        for each in found["items"]
    ]
    if found["cut_off"]:
        lines.append(f"only the first {MAX_CHANGES} differences are shown")
    return Outcome(tuple(lines) or (f"versions {old} and {new} say the same",))


async def draft(api: AdminClient, path: Path, author: Author) -> Outcome:
    """Add a file's content as a version that no call gets yet. Raises `ConfigError`, with the file's name and lines."""
    config = load_tenant_config(path)
    try:
        made = await api.change(
            "POST",
            f"{_config(config.tenant_id)}/versions",
            yaml=canonical_json(config),
            reason=author.reason,
        )
    except ApiProblem as problem:
        if problem.answered != 404:
            raise
        raise UnknownTenant(
            f"no tenant {config.tenant_id!r}: mediaserver tenant create {path} makes it"
        ) from problem
    return Outcome(
        (
            f"{config.tenant_id} version {made['version']} is a draft of {made['content_hash'][:12]}; no call gets it yet",
        )
    )


async def _seen(api: AdminClient, config: str, expected: int | None) -> str:
    """The ETag of what is active, where that is what was expected. Raises `VersionConflict`."""
    active, tag = None, "*"
    try:
        _, tag = await api.tagged(config)
        active = version_of(tag)
    except ApiProblem as problem:
        if problem.answered != 404:
            raise
    if expected is not None and (expected or None) != active:
        raise VersionConflict(
            f"version {active} is active by now, not {expected or None}; look at it and try again",
            expected or None,
            active,
        )
    return tag


async def activate(
    api: AdminClient, tenant: str, version: int, author: Author, expected: int | None
) -> Outcome:
    """Give a version to new calls."""
    config = _config(tenant)
    match = await _seen(api, config, expected)
    await api.change(
        "POST", f"{config}/versions/{version}/activation", {"reason": author.reason}, match=match
    )
    return Outcome(
        (f"{tenant} version {version} is active: new calls have it, calls that are up keep theirs",)
    )


async def rollback(api: AdminClient, tenant: str, to: int, author: Author, expected: int | None) -> Outcome:
    """Give new calls the content of an earlier version."""
    config = _config(tenant)
    match = await _seen(api, config, expected)
    made = await api.change("POST", f"{config}/rollback", {"to": to, "reason": author.reason}, match=match)
    return Outcome((f"{tenant} version {made['version']} is active, with the content of version {to}",))


async def reject(api: AdminClient, tenant: str, version: int, author: Author) -> Outcome:
    """Keep a version from ever becoming active."""
    path = f"{_config(tenant)}/versions/{version}/rejection"
    await api.change("POST", path, {"reason": author.reason})
    return Outcome((f"{tenant} version {version} is refused for good",))


async def canary(api: AdminClient, tenant: str, version: int, author: Author, trial: Trial) -> Outcome:
    """Give a version to a share of calls until it is shown to be good or bad."""
    config = _config(tenant)
    match = await _seen(api, config, None)
    bounds: dict[str, object] = {}
    if trial.max_cost_percent is not None:
        bounds[COST] = {"relative": trial.max_cost_percent / 100}
    begun = await api.change(
        "PUT",
        f"{config}/trial",
        {
            "version": version,
            "share_percent": trial.share_percent,
            "hours": trial.hours,
            "min_calls": trial.min_calls,
            "cost_cap_usd": trial.cost_cap_usd,
            "bounds": bounds,
            "reason": author.reason,
        },
        match=match,
    )
    lines = trial_lines(begun)
    if begun["unpriced"]:
        lines.append(
            f"  cost per call is not compared: no price is stated for {'; '.join(begun['unpriced'])}"
        )
    return Outcome(tuple(lines))
