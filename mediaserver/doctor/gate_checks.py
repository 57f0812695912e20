"""The gate's findings as checks. Sans-IO."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from mediaserver.doctor.checks import Check, ok, warning
from tenancy.figures import MINUTE_MS
from tenancy.gate import Criterion, Finding

MOVE = (
    "it is time for Postgres: give the node a store.postgres section, restart it, and run"
    " mediaserver migrate sqlite-to-postgres"
)
WHY = {
    Criterion.CONCURRENCY: "the node is full for long, and a second one needs a store in common with it",
    Criterion.NODES: "several nodes cannot share SQLite's files",
    Criterion.CONTENTION: "writers wait for each other's locks",
    Criterion.CROSS_TENANT: "queries over many tenants open each one's file",
}


def gate_checks(findings: Sequence[Finding], *, postgres: bool) -> list[Check]:
    """One check for each criterion."""
    return [_check(each, postgres=postgres) for each in findings]


def _check(found: Finding, *, postgres: bool) -> Check:
    name = f"gate: {found.criterion}"
    measured = _measured(found)
    figures: dict[str, object] = {
        "criterion": str(found.criterion),
        "bound": found.bound,
        "latest": found.latest,
        "peak": found.peak,
        "exceeded_minutes": found.exceeded_min,
        "needed_minutes": found.needed_min,
        "window_minutes": found.window_min,
        "exceeded_since": None if found.exceeded_since is None else _time(found.exceeded_since),
        "reached_since": None if found.reached_since is None else _time(found.reached_since),
        "reached": found.reached,
    }
    if found.reached and not postgres:
        return warning(name, measured, f"{WHY[found.criterion]}; {MOVE}", **figures)
    if postgres:
        measured += "; the store is Postgres already"
    return ok(name, measured, **figures)


def _measured(found: Finding) -> str:
    if found.latest is None:
        return f"nothing was measured in the last {found.window_min} min"
    latest, peak = _figure(found.criterion, found.latest), _figure(found.criterion, found.peak)
    said = (
        f"{latest} in the latest minute, {peak} at most in {found.window_min} min; in {found.exceeded_min} of them"
        f" {_figure(found.criterion, found.bound)} or more ({found.needed_min} are the gate)"
    )
    if found.exceeded_since is not None:
        said += f", first at {_time(found.exceeded_since)}"
    if found.reached_since is not None:
        said += f"; reached since {_time(found.reached_since)}"
    return said


def _figure(criterion: Criterion, value: float) -> str:
    match criterion:
        case Criterion.CONCURRENCY:
            return f"{value:.0%} of the slots"
        case Criterion.NODES:
            return f"{value:.0f} node{'s' if value != 1 else ''}"
        case Criterion.CONTENTION:
            return f"{value:.0f} ms of waiting (p95)"
        case Criterion.CROSS_TENANT:
            return f"{value:.0f} ms of queries"


def _time(minute: int) -> str:
    return datetime.fromtimestamp(minute * MINUTE_MS / 1_000, UTC).strftime("%Y-%m-%dT%H:%MZ")
