"""A version for a share of a tenant's calls, until it is shown to be good or bad."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import ValidationError

from admin.documents import problems
from admin.errors import Fault, Invalid, NotFound
from admin.etags import check_match, tag_of
from admin.guard import GuardedRoute
from admin.models import NewTrial, Trial, Trials, Version
from admin.paging import Cursor, Limit, link_next, number_of, page_of, written
from admin.routes_config import active_tag, check_allowed, found_in
from admin.services import Asking, In
from tenancy.canary import SHARE_STEPS, Bound, Canary, CanaryPlan, Metric
from tenancy.spending import MICROS

DEFAULTS: Final[Mapping[str, Bound]] = MappingProxyType(
    {"turn_latency_p95": Bound(absolute=300.0, relative=0.2)}
)
"""Beside those of `CanaryPlan`."""
COST_BOUND: Final = Bound(relative=0.25)


def told(trial: Canary) -> Trial:
    """A trial, as the API tells it."""
    ends_ms = trial.started_ms + trial.plan.max_duration_ms
    started, ends = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (trial.started_ms, ends_ms))
    return Trial.of(trial, started, ends, trial.plan.share * 100 / SHARE_STEPS)


def plan_of(new: NewTrial, baseline: int, *, priced: bool) -> CanaryPlan:
    """What is to be compared. Raises `Invalid`."""
    fields = {
        Metric.FAILURES: "failures",
        Metric.TRANSFERS: "transfers",
        Metric.TURN_LATENCY: "turn_latency",
        Metric.TURN_LATENCY_P95: "turn_latency_p95",
        Metric.COST: "cost",
    }
    bounds = dict(DEFAULTS)
    if priced:
        bounds["cost"] = COST_BOUND
    bounds |= {fields[metric]: bound for metric, bound in new.bounds.items()}
    try:
        plan = CanaryPlan(
            version=new.version,
            baseline=baseline,
            share=round(new.share_percent * SHARE_STEPS / 100),
            min_calls=new.min_calls,
            max_duration_ms=round(new.hours * 3_600_000),
            cost_cap_micros=max(1, round(new.cost_cap_usd * MICROS)),
        )
        # Checked anew: a copy with other fields is not.
        return CanaryPlan.model_validate({**plan.model_dump(), **bounds})
    except ValidationError as error:
        faults = [
            Fault(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors(include_url=False)
        ]
        raise Invalid("there is no such trial", faults) from error


def trial_tag(trial: Canary) -> str:
    """Which trial it is, however many calls it has seen: a version has one at most."""
    return tag_of("trial", trial.plan.version, trial.started_ms)


async def read(tenant_id: str, at: In, response: Response) -> Trial:
    """The trial that runs. Its ETag says which one it is, and stays the same while calls are counted."""
    ledger = await at.lifecycle.ledger(tenant_id)
    if ledger.trial is None:
        raise NotFound(f"no version of {tenant_id} is on trial")
    response.headers["ETag"] = trial_tag(ledger.trial)
    return told(ledger.trial)


async def list_trials(
    tenant_id: str, at: In, request: Request, response: Response, limit: Limit = 20, cursor: Cursor = None
) -> Trials:
    """Trials that were, of the newest version first, and the one that runs."""
    found = await at.lifecycle.trials(tenant_id, limit + 1, number_of(cursor))
    cursors = [written(str(each.plan.version)) for each in found]
    page = page_of([told(each) for each in found], limit, cursors)
    link_next(request, response, page.next_cursor)
    return Trials(items=page.items, next_cursor=page.next_cursor)


async def begin(
    tenant_id: str,
    new: NewTrial,
    at: In,
    asking: Asking,
    if_match: Annotated[str | None, Header(description="The ETag of what is active.")] = None,
) -> Trial:
    """Give a version to a share of calls; a draft is validated first."""
    ledger = await at.lifecycle.ledger(tenant_id)
    check_match(if_match, active_tag(ledger))
    active = ledger.history.active
    if active is None:
        raise NotFound(f"{tenant_id} has no active version to compare with")
    found_in(ledger, tenant_id, new.version)
    config = await at.lifecycle.config(tenant_id, new.version)
    await check_allowed(at, asking, config, ledger)
    missing = at.lifecycle.unpriced(await at.lifecycle.config(tenant_id, active.version), config)
    plan = plan_of(new, active.version, priced=not missing)
    origin = at.origin(asking, new.reason)
    await at.lifecycle.begin_trial(tenant_id, plan, origin)
    await at.on_changed(tenant_id)
    # Not read again: it has begun, whatever the store says next.
    trial = told(Canary(plan, int(origin.at.timestamp() * 1000)))
    return trial.model_copy(update={"unpriced": list(missing) if plan.cost is None else []})


async def end(
    tenant_id: str,
    at: In,
    asking: Asking,
    reason: Annotated[str, Query(min_length=1, max_length=1_000)] = "ended",
    if_match: Annotated[
        str | None, Header(description="The trial's ETag, where no other is to be ended.")
    ] = None,
) -> Version:
    """Take the version on trial back."""
    expected = None
    if if_match is not None:
        trial = (await at.lifecycle.ledger(tenant_id)).trial
        check_match(if_match, None if trial is None else trial_tag(trial))
        expected = None if trial is None else trial.plan.version
    changed = await at.lifecycle.end_trial(tenant_id, at.origin(asking, reason), expected=expected)
    await at.on_changed(tenant_id)
    return Version.of(changed)


def routes() -> APIRouter:
    """The routes of this module."""
    router = APIRouter(
        prefix="/v1/tenants/{tenant_id}/config/trial", route_class=GuardedRoute, tags=["trials"]
    )
    router.get("", name="trial.read", responses=problems(404))(read)
    router.get("s", name="trial.list", responses=problems(404))(list_trials)
    router.put("", name="trial.begin", responses=problems(404, 409, 412, 428))(begin)
    router.delete("", name="trial.end", responses=problems(404, 409, 412))(end)
    return router
