"""A new configuration for a share of calls, until it is shown to be good or bad. Sans-IO.

Rules:

- which calls are the canary's follows from a hash of the call and the version: replays agree, and a larger share keeps
  the calls that a smaller one had;
- both arms run at the same time, and only their difference counts: a provider's bad hour hurts both;
- a metric is *broken* when the canary's lower bound exceeds what is allowed over the baseline's upper bound, and *kept*
  when its upper bound is within what is allowed over the baseline's lower bound (`tenancy.sequential`: bounds that hold
  after every call, so that looking often costs nothing);
- one broken metric rolls back, at any number of calls; all kept, and the calls of both arms enough, promotes;
- a trial that proves neither in its time ends as the plan says, by default with a rollback;
- a verdict is final. There is no way back from it: calls that end later are counted and change nothing, and another trial
  is another version.

Errors: a version that is no worse than allowed is rolled back with at most ``false_rollback_rate``, over all metrics and
the whole trial; one that is worse than allowed is promoted with at most ``false_promotion_rate``. Both assume that an
arm's calls are alike over the trial.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Final, assert_never

from pydantic import Field, TypeAdapter, model_validator

from config.tenant import StrictModel
from tenancy.sequential import MeanTally, RateTally
from tenancy.versions import Applied, Declined, History, Origin

SHARE_STEPS: Final = 10_000
"""A share is counted in hundredths of a percent."""
Share = Annotated[int, Field(ge=1, le=SHARE_STEPS // 2)]
DAY_MS: Final = 86_400_000


class Metric(StrEnum):
    """What is compared, per call."""

    FAILURES = "failures"
    """The share of calls that failed."""
    TRANSFERS = "transfers"
    """The share of calls that went on to a person."""
    TURN_LATENCY = "turn_latency_ms"
    """A call's typical time (its mean or median) from the end of the caller's speech to the first of the answer, cut at
    `CanaryPlan.latency_cap_ms`."""
    TURN_LATENCY_P95 = "turn_latency_p95_ms"
    """The same for a call's slow turns: its 95th percentile."""
    COST = "cost_micros"
    """A call's cost in millionths of the currency, cut at `CanaryPlan.cost_cap_micros`."""


class Arm(StrEnum):
    """Which version a call had."""

    BASELINE = "baseline"
    CANARY = "canary"


class AtEnd(StrEnum):
    """What becomes of a version that was shown to be neither good nor bad."""

    ROLL_BACK = "roll_back"
    PROMOTE = "promote"


class Bound(StrictModel):
    """How far a metric may rise over the baseline: ``baseline * (1 + relative) + absolute``."""

    absolute: float = Field(default=0.0, ge=0.0)
    """In the metric's unit; of a share, 0.05 is five in a hundred calls."""
    relative: float = Field(default=0.0, ge=0.0, le=10.0)


class CanaryPlan(StrictModel):
    """What a trial is to show, and what it may cost."""

    version: int = Field(ge=1)
    baseline: int = Field(ge=1)
    share: Share = 500
    """Calls that get the version, in `SHARE_STEPS`; at most half."""
    failures: Bound | None = Bound(absolute=0.03)
    transfers: Bound | None = Bound(absolute=0.10)
    turn_latency: Bound | None = Bound(absolute=100.0, relative=0.10)
    turn_latency_p95: Bound | None = None
    cost: Bound | None = None
    """Needs the prices of all who may be asked (`tenancy.spending.unpriced`)."""
    latency_cap_ms: int = Field(default=3_000, ge=100, le=60_000)
    cost_cap_micros: int = Field(default=1_000_000, ge=1)
    min_calls: int = Field(default=50, ge=1, le=1_000_000)
    """Calls that each arm needs before a promotion. A rollback needs none: its test holds at every number."""
    max_duration_ms: int = Field(default=7 * DAY_MS, ge=60_000, le=90 * DAY_MS)
    at_end: AtEnd = AtEnd.ROLL_BACK
    false_rollback_rate: float = Field(default=0.05, gt=0.0, le=0.5)
    false_promotion_rate: float = Field(default=0.05, gt=0.0, le=0.5)

    @model_validator(mode="after")
    def _two_versions_and_a_metric(self) -> CanaryPlan:
        if self.version == self.baseline:
            raise ValueError(f"version and baseline are both {self.version}")
        if not self.bounds():
            raise ValueError(
                "one of failures, transfers, turn_latency, turn_latency_p95 and cost needs a bound"
            )
        return self

    def bounds(self) -> Mapping[Metric, Bound]:
        """The metrics that are compared."""
        named = (
            (Metric.FAILURES, self.failures),
            (Metric.TRANSFERS, self.transfers),
            (Metric.TURN_LATENCY, self.turn_latency),
            (Metric.TURN_LATENCY_P95, self.turn_latency_p95),
            (Metric.COST, self.cost),
        )
        return {metric: bound for metric, bound in named if bound is not None}

    def scale(self, metric: Metric) -> float:
        """What a tally's 1 stands for."""
        match metric:
            case Metric.TURN_LATENCY | Metric.TURN_LATENCY_P95:
                return float(self.latency_cap_ms)
            case Metric.COST:
                return float(self.cost_cap_micros)
            case _:
                return 1.0


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """How a call ended. Each call is reported once."""

    version: int
    failed: bool = False
    transferred: bool = False
    turn_latency_ms: float | None = None
    """None: the call had no turn."""
    cost_micros: int | None = None
    """None: its cost is not known."""
    turn_latency_p95_ms: float | None = None
    cost_estimated: bool = False
    """Whether some of the cost rests on figures that are not the provider's own."""


@dataclass(frozen=True, slots=True)
class ArmTally:
    """What one arm's calls came to."""

    calls: int = 0
    failures: RateTally = field(default_factory=RateTally)
    transfers: RateTally = field(default_factory=RateTally)
    turn_latency: MeanTally = field(default_factory=MeanTally)
    cost: MeanTally = field(default_factory=MeanTally)
    turn_latency_p95: MeanTally = field(default_factory=MeanTally)
    estimated_costs: int = 0
    """Calls whose cost is estimated in part."""

    def of(self, metric: Metric) -> RateTally | MeanTally:
        """The tally of a metric."""
        match metric:
            case Metric.FAILURES:
                return self.failures
            case Metric.TRANSFERS:
                return self.transfers
            case Metric.TURN_LATENCY:
                return self.turn_latency
            case Metric.TURN_LATENCY_P95:
                return self.turn_latency_p95
            case Metric.COST:
                return self.cost


class Decision(StrEnum):
    """What is to be done with the version."""

    CONTINUE = "continue"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a trial."""

    decision: Decision
    """`PROMOTE` or `ROLL_BACK`."""
    reason: str
    at_ms: int
    metric: Metric | None = None
    """What the version broke."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A trial: its plan and all that has been seen. Nothing in it grows with the calls."""

    plan: CanaryPlan
    started_ms: int
    baseline: ArmTally = field(default_factory=ArmTally)
    canary: ArmTally = field(default_factory=ArmTally)
    foreign: int = 0
    """Calls of other versions, which count for neither arm."""
    late: int = 0
    """Calls that ended after the verdict."""
    verdict: Verdict | None = None

    @property
    def decision(self) -> Decision:
        """What is to be done now."""
        return Decision.CONTINUE if self.verdict is None else self.verdict.decision

    def version_for(self, call_id: str) -> int:
        """The version that a new call gets."""
        if self.verdict is not None:
            return self.plan.version if self.verdict.decision is Decision.PROMOTE else self.plan.baseline
        return (
            self.plan.version if in_share(call_id, self.plan.version, self.plan.share) else self.plan.baseline
        )

    def observe(self, outcome: CallOutcome, now_ms: int) -> Canary:
        """Count a call that has ended, and decide."""
        if outcome.version not in (self.plan.version, self.plan.baseline):
            return replace(self, foreign=self.foreign + 1).tick(now_ms)
        if self.verdict is not None:
            return replace(self, late=self.late + 1)
        if outcome.version == self.plan.version:
            return replace(self, canary=_counted(self.canary, outcome, self.plan)).tick(now_ms)
        return replace(self, baseline=_counted(self.baseline, outcome, self.plan)).tick(now_ms)

    def tick(self, now_ms: int) -> Canary:
        """Decide at a time; a trial that is over stays as it is."""
        if self.verdict is not None:
            return self
        return replace(self, verdict=self._verdict(now_ms))

    def baseline_gone(self, active: int | None, now_ms: int) -> Canary:
        """End the trial where another version than its baseline has become active: there is nothing to compare with."""
        if self.verdict is not None or active == self.plan.baseline:
            return self
        reason = f"version {active} is active now, and the trial compared with {self.plan.baseline}"
        return replace(self, verdict=Verdict(Decision.ROLL_BACK, reason, now_ms))

    def _verdict(self, now_ms: int) -> Verdict | None:
        plan = self.plan
        bounds = plan.bounds()
        for metric, bound in bounds.items():
            alpha = plan.false_rollback_rate / (2 * len(bounds))
            if self._broken(metric, bound, alpha):
                return Verdict(Decision.ROLL_BACK, self._comparison(metric, bound), now_ms, metric)
        enough = min(self.canary.calls, self.baseline.calls) >= plan.min_calls
        # Promotion needs every metric to be kept, so one error bound serves them all.
        if enough and all(
            self._kept(metric, bound, plan.false_promotion_rate / 2) for metric, bound in bounds.items()
        ):
            return Verdict(Decision.PROMOTE, "every metric is shown to be within its bound", now_ms)
        if now_ms - self.started_ms >= plan.max_duration_ms:
            decision = Decision.PROMOTE if plan.at_end is AtEnd.PROMOTE else Decision.ROLL_BACK
            reason = f"neither shown in {plan.max_duration_ms} ms with {self.canary.calls} calls; the plan says {plan.at_end}"
            return Verdict(decision, reason, now_ms)
        return None

    def _broken(self, metric: Metric, bound: Bound, alpha: float) -> bool:
        old, new, scale = self.baseline.of(metric), self.canary.of(metric), self.plan.scale(metric)
        # Where the means do not differ by that much, no bounds on them do.
        if new.mean * scale <= _allowed(bound, old.mean * scale):
            return False
        return new.lower(alpha) * scale > _allowed(bound, old.upper(alpha) * scale)

    def _kept(self, metric: Metric, bound: Bound, alpha: float) -> bool:
        old, new, scale = self.baseline.of(metric), self.canary.of(metric), self.plan.scale(metric)
        return new.upper(alpha) * scale <= _allowed(bound, old.lower(alpha) * scale)

    def _comparison(self, metric: Metric, bound: Bound) -> str:
        scale = self.plan.scale(metric)
        old, new = self.baseline.of(metric), self.canary.of(metric)
        return (
            f"{metric}: {_written(new.mean * scale)} over {new.n} calls, against {_written(old.mean * scale)} over {old.n}; "
            f"allowed {_written(_allowed(bound, old.mean * scale))}"
        )


TRIAL: Final = TypeAdapter(Canary)
"""Dumps a trial to JSON and reads it back, for a restart in the middle of it."""


def settle(trial: Canary, history: History, origin: Origin) -> Applied | Declined | None:
    """Carry a verdict out in the tenant's history; None while there is none.

    A promotion is an activation that saw the baseline active, so that one that somebody overtook is a `Conflict`. What is
    rolled back was never active for every call: it is rejected, and the baseline stays as it is.
    """
    match trial.decision:
        case Decision.CONTINUE:
            return None
        case Decision.PROMOTE:
            return history.activate(trial.plan.version, origin, expected=trial.plan.baseline)
        case Decision.ROLL_BACK:
            return history.reject(trial.plan.version, origin)
        case _:
            assert_never(trial.decision)


def in_share(call_id: str, version: int, share: int) -> bool:
    """Whether a call gets the version; ``share`` is in `SHARE_STEPS`."""
    digest = hashlib.sha256(f"{version}\0{call_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") * SHARE_STEPS < share << 64


def _allowed(bound: Bound, baseline: float) -> float:
    return baseline * (1 + bound.relative) + bound.absolute


def _counted(arm: ArmTally, outcome: CallOutcome, plan: CanaryPlan) -> ArmTally:
    latency, slow, cost = arm.turn_latency, arm.turn_latency_p95, arm.cost
    if outcome.turn_latency_ms is not None:
        latency = latency.plus(min(max(outcome.turn_latency_ms, 0.0) / plan.latency_cap_ms, 1.0))
    if outcome.turn_latency_p95_ms is not None:
        slow = slow.plus(min(max(outcome.turn_latency_p95_ms, 0.0) / plan.latency_cap_ms, 1.0))
    if outcome.cost_micros is not None:
        cost = cost.plus(min(max(outcome.cost_micros, 0) / plan.cost_cap_micros, 1.0))
    return ArmTally(
        arm.calls + 1,
        arm.failures.plus(outcome.failed),
        arm.transfers.plus(outcome.transferred),
        latency,
        cost,
        slow,
        arm.estimated_costs + (outcome.cost_micros is not None and outcome.cost_estimated),
    )


def _written(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.3f}"
