"""What a finished call shows of its configuration's version, for the trial that may run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mediaserver.telemetry.metric_kinds import OTHER
from mediaserver.telemetry.outcomes import outcome_of
from tenancy.canary import Arm, CallOutcome
from tenancy.ledger import Edit

FAILED: Final = frozenset(
    {"pipeline_failed", "no_media", "never_connected", "signalling_failed", "media_lost"}
)
"""Outcomes (`mediaserver.telemetry.outcomes`) that no caller wants. Both arms have the network's share of them."""


def trial_outcome(
    version: int,
    why: str,
    turn_latencies_ms: Sequence[int],
    *,
    human_requested: bool,
    cost_micros: int | None = None,
    cost_estimated: bool = False,
) -> CallOutcome:
    """The outcome of a call that ended for this reason."""
    ordered = sorted(turn_latencies_ms)
    return CallOutcome(
        version=version,
        failed=outcome_of(why) in FAILED,
        transferred=human_requested,
        turn_latency_ms=_percentile(ordered, 50),
        turn_latency_p95_ms=_percentile(ordered, 95),
        cost_micros=cost_micros,
        cost_estimated=cost_estimated,
    )


def _percentile(ordered: Sequence[int], percent: int) -> float | None:
    """By nearest rank; None of nothing."""
    if not ordered:
        return None
    return float(ordered[max(0, -(-percent * len(ordered) // 100) - 1)])


def arm_name(edit: Edit, version: int) -> str:
    """Which version of a trial a call had, for the metric."""
    trial = edit.ended or edit.ledger.trial
    if trial is None or version not in (trial.plan.version, trial.plan.baseline):
        return OTHER
    return str(Arm.CANARY if version == trial.plan.version else Arm.BASELINE)
