"""A bad version goes back soon, a good one seldom, and the same calls are the canary's every time."""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tenancy.canary import (
    SHARE_STEPS,
    TRIAL,
    AtEnd,
    Bound,
    CallOutcome,
    Canary,
    CanaryPlan,
    Decision,
    Metric,
    in_share,
    settle,
)
from tenancy.sequential import MeanTally, RateTally
from tenancy.versions import Applied, Conflict, History, Origin, VersionState, WrongState

TRACES: Final = Path(__file__).parents[1] / "traces" / "canary"
OLD: Final = 1
NEW: Final = 2
ADA: Final = Origin("ada", "trial", datetime(2025, 3, 3, tzinfo=UTC))


def plan(**changes: object) -> CanaryPlan:
    given: dict[str, object] = {
        "version": NEW,
        "baseline": OLD,
        "share": 2_000,
        "cost": Bound(relative=0.25),
        "cost_cap_micros": 500_000,
    }
    return CanaryPlan(**(given | changes))  # type: ignore[arg-type]


# -- which calls ---------------------------------------------------------------------------------------


def test_the_share_is_exact_in_the_long_run() -> None:
    n = 20_000
    for share in (1, 100, 2_000, 5_000):
        taken = sum(in_share(f"call-{number}@host", 7, share) for number in range(n))
        expected = n * share / SHARE_STEPS
        assert abs(taken - expected) < 4 * (expected * (1 - share / SHARE_STEPS)) ** 0.5


@given(st.text(max_size=40), st.integers(1, 10**6), st.integers(1, 5_000), st.integers(1, 5_000))
def test_a_larger_share_keeps_the_calls_of_a_smaller_one(
    call_id: str, version: int, one: int, other: int
) -> None:
    assert in_share(call_id, version, max(one, other)) or not in_share(call_id, version, min(one, other))
    assert in_share(call_id, version, one) == in_share(call_id, version, one)
    assert in_share(call_id, version, SHARE_STEPS)


def test_another_version_is_tried_on_other_calls() -> None:
    calls = [f"call-{number}" for number in range(4_000)]
    both = sum(in_share(each, 7, 5_000) and in_share(each, 8, 5_000) for each in calls)
    assert abs(both - 1_000) < 120


def test_which_calls_does_not_change_between_programs() -> None:
    # Stored calls are replayed against the arm that they had: the hash is part of the data's meaning.
    assert [number for number in range(40) if in_share(f"call-{number}", 2, 2_000)] == [
        0,
        1,
        5,
        9,
        15,
        27,
        34,
    ]


# -- bounds --------------------------------------------------------------------------------------------

ALPHA: Final = 0.1
RUNS: Final = 150
LENGTH: Final = 250


def most_misses(alpha: float, runs: int) -> float:
    """Four standard deviations above the stated rate."""
    return runs * alpha + 4 * math.sqrt(runs * alpha * (1 - alpha))


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.5, 0.9])
def test_a_rate_is_ever_outside_its_bounds_as_seldom_as_stated(rate: float) -> None:
    draws = random.Random(20_250_101)
    missed = 0
    for _ in range(RUNS):
        tally = RateTally()
        wrong = False
        for _ in range(LENGTH):
            tally = tally.plus(draws.random() < rate)
            wrong = wrong or not tally.lower(ALPHA) <= rate <= tally.upper(ALPHA)
        missed += wrong
    assert missed <= most_misses(ALPHA, RUNS)


@pytest.mark.parametrize(("a", "b"), [(2.0, 8.0), (0.3, 0.9), (40.0, 160.0)])
def test_a_mean_is_ever_outside_its_bounds_as_seldom_as_stated(a: float, b: float) -> None:
    draws = random.Random(20_250_102)
    above = below = 0
    for _ in range(RUNS):
        tally = MeanTally()
        high = low = False
        for _ in range(LENGTH):
            tally = tally.plus(draws.betavariate(a, b))
            low = low or tally.lower(ALPHA) > a / (a + b)
            high = high or tally.upper(ALPHA) < a / (a + b)
        above += high
        below += low
    assert max(above, below) <= most_misses(ALPHA, RUNS)


@given(st.lists(st.floats(0, 1), max_size=60), st.sampled_from([0.2, 0.05, 0.001]))
def test_bounds_stand_around_what_was_seen_and_widen_with_certainty(
    values: list[float], alpha: float
) -> None:
    rate, mean = RateTally(), MeanTally()
    for value in values:
        rate, mean = rate.plus(value > 0.5), mean.plus(value)
    for tally in (rate, mean):
        assert (
            0
            <= tally.lower(alpha / 2)
            <= tally.lower(alpha)
            <= tally.upper(alpha)
            <= tally.upper(alpha / 2)
            <= 1
        )
    assert rate.lower(alpha) <= rate.mean <= rate.upper(alpha)


def test_bounds_close_in() -> None:
    rate, mean = RateTally(), MeanTally()
    for number in range(4_000):
        rate, mean = rate.plus(number % 10 == 0), mean.plus(0.2 + 0.02 * (number % 3))
    assert rate.upper(0.01) - rate.lower(0.01) < 0.05
    assert mean.upper(0.01) - mean.lower(0.01) < 0.02
    with pytest.raises(ValueError, match="0 to 1"):
        mean.plus(1.01)


def test_no_trial_and_every_trial_a_hit() -> None:
    assert (RateTally().lower(0.1), RateTally().upper(0.1)) == (0.0, 1.0)
    assert (MeanTally().lower(0.1), MeanTally().upper(0.1)) == (0.0, 1.0)
    always, never = RateTally(30, 30), RateTally(30, 0)
    assert always.upper(0.1) == 1.0
    assert never.lower(0.1) == 0.0
    assert always.lower(0.1) > 0.8
    assert never.upper(0.1) < 0.2


# -- trials in a simulation ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Quality:
    """What calls are like with a version."""

    failures: float = 0.03
    transfers: float = 0.2
    latency_ms: float = 700.0
    cost_micros: float = 60_000.0

    def call(self, version: int, draws: random.Random) -> CallOutcome:
        return CallOutcome(
            version,
            failed=draws.random() < self.failures,
            transferred=draws.random() < self.transfers,
            turn_latency_ms=draws.gauss(self.latency_ms, 200.0),
            cost_micros=int(draws.expovariate(1 / self.cost_micros)),
        )


def simulate(trial: Canary, new: Quality, old: Quality, *, seed: int, calls: int) -> Canary:
    draws = random.Random(seed)
    for number in range(calls):
        version = trial.version_for(f"{seed}-{number}")
        trial = trial.observe((new if version == NEW else old).call(version, draws), number * 1_000)
        if trial.verdict is not None:
            break
    return trial


def test_a_version_that_is_no_worse_is_rolled_back_as_seldom_as_stated() -> None:
    """With no rise allowed at all, where a false rollback is likeliest; four metrics, a look after each call."""
    nothing = Bound()
    strict = plan(share=5_000, failures=nothing, transfers=nothing, turn_latency=nothing, cost=nothing)
    runs = 100
    ends = [simulate(Canary(strict, 0), Quality(), Quality(), seed=seed, calls=400) for seed in range(runs)]
    back = sum(each.decision is Decision.ROLL_BACK for each in ends)
    print(f"false rollbacks: {back} of {runs}, seeds 0 to {runs - 1}")
    assert back <= most_misses(strict.false_rollback_rate, runs)


@pytest.mark.parametrize(
    ("metric", "new", "most_calls"),
    [
        (Metric.FAILURES, Quality(failures=0.5), 80),
        (Metric.FAILURES, Quality(failures=0.2), 400),
        (Metric.TRANSFERS, Quality(transfers=0.6), 250),
        (Metric.TURN_LATENCY, Quality(latency_ms=1_200.0), 250),
        (Metric.COST, Quality(cost_micros=150_000.0), 300),
    ],
)
def test_a_worse_version_goes_back_within_some_calls_of_its_own(
    metric: Metric, new: Quality, most_calls: int
) -> None:
    ends = [simulate(Canary(plan(), 0), new, Quality(), seed=seed, calls=5_000) for seed in range(12)]
    delays = sorted(each.canary.calls for each in ends)
    print(f"{metric}: rolled back after {delays} canary calls, seeds 0 to 11")
    for each in ends:
        assert each.verdict is not None
        assert each.verdict.decision is Decision.ROLL_BACK
        assert each.verdict.metric is metric
        assert each.verdict.reason.startswith(f"{metric}: ")
    assert delays[-1] <= most_calls


def test_a_good_version_is_promoted_and_a_bad_one_is_not() -> None:
    wide = plan(
        share=5_000, failures=Bound(absolute=0.1), transfers=Bound(absolute=0.2), cost=Bound(relative=1.0)
    )
    for seed in range(4):
        good = simulate(Canary(wide, 0), Quality(), Quality(), seed=seed, calls=4_000)
        assert good.decision is Decision.PROMOTE, good
        assert min(good.canary.calls, good.baseline.calls) >= wide.min_calls
        assert good.version_for("any") == NEW
    edge = Quality(failures=0.03 + 0.1)
    ends = [simulate(Canary(wide, 0), edge, Quality(), seed=seed, calls=800) for seed in range(20)]
    assert sum(each.decision is Decision.PROMOTE for each in ends) <= most_misses(
        wide.false_promotion_rate, 20
    )


def test_a_bad_hour_of_a_provider_hurts_both_and_rolls_nothing_back() -> None:
    outage = Quality(failures=0.6, latency_ms=2_500.0)
    trial = simulate(Canary(plan(share=5_000), 0), outage, outage, seed=5, calls=500)
    assert trial.decision is Decision.CONTINUE


# -- rules ---------------------------------------------------------------------------------------------


def test_promotion_waits_for_enough_calls_of_both_arms() -> None:
    easy = Bound(absolute=1.0)
    only = plan(failures=easy, transfers=None, turn_latency=None, cost=None, min_calls=10)
    trial = Canary(only, 0)
    for number in range(10):
        trial = trial.observe(CallOutcome(NEW), number)
        assert trial.decision is Decision.CONTINUE
    for number in range(9):
        trial = trial.observe(CallOutcome(OLD), number)
        assert trial.decision is Decision.CONTINUE
    assert trial.observe(CallOutcome(OLD), 20).decision is Decision.PROMOTE


@pytest.mark.parametrize(
    ("at_end", "decision"), [(AtEnd.ROLL_BACK, Decision.ROLL_BACK), (AtEnd.PROMOTE, Decision.PROMOTE)]
)
def test_a_trial_ends_in_its_time(at_end: AtEnd, decision: Decision) -> None:
    trial = Canary(plan(max_duration_ms=60_000, at_end=at_end), 5_000)
    assert trial.tick(64_999).decision is Decision.CONTINUE
    ended = trial.tick(65_000)
    assert ended.verdict is not None
    assert (ended.decision, ended.verdict.metric, ended.verdict.at_ms) == (decision, None, 65_000)


def test_a_verdict_is_final() -> None:
    trial = Canary(plan(), 0)
    for number in range(200):
        trial = trial.observe(CallOutcome(OLD), number)
    while trial.verdict is None:
        trial = trial.observe(CallOutcome(NEW, failed=True), 300)
    at, verdict = trial.canary.calls, trial.verdict
    for number in range(1_000):
        trial = trial.observe(CallOutcome(NEW if number % 2 else OLD), 400 + number)
        assert trial.version_for(f"call-{number}") == OLD
    assert trial.verdict is verdict
    assert (trial.canary.calls, trial.late) == (at, 1_000)


def history_of_two() -> History:
    history = History()
    for content in "ab":
        made = history.draft(content * 64, 1, ADA)
        assert isinstance(made, Applied)
        valid = made.history.validate(made.version.version, ADA)
        assert isinstance(valid, Applied)
        history = valid.history
    active = history.activate(OLD, ADA, expected=None)
    assert isinstance(active, Applied)
    return active.history


def ended(at_end: AtEnd) -> Canary:
    return Canary(plan(max_duration_ms=60_000, at_end=at_end), 0).tick(60_000)


def test_a_verdict_is_carried_out_in_the_history() -> None:
    history = history_of_two()
    assert settle(Canary(plan(), 0), history, ADA) is None
    promoted = settle(ended(AtEnd.PROMOTE), history, ADA)
    assert isinstance(promoted, Applied)
    assert promoted.history.active == promoted.version
    assert promoted.version.version == NEW
    back = settle(ended(AtEnd.ROLL_BACK), history, ADA)
    assert isinstance(back, Applied)
    assert back.version.state is VersionState.REFUSED
    assert back.history.active == history.active
    # Nobody activates by hand what a trial has found bad.
    again = back.history.activate(NEW, ADA, expected=OLD)
    assert isinstance(again, WrongState)
    third = history.draft("c" * 64, 1, ADA)
    assert isinstance(third, Applied)
    valid = third.history.validate(3, ADA)
    assert isinstance(valid, Applied)
    overtaken = valid.history.activate(3, ADA, expected=OLD)
    assert isinstance(overtaken, Applied)
    assert settle(ended(AtEnd.PROMOTE), overtaken.history, ADA) == Conflict(OLD, 3)


def test_a_trial_ends_when_its_baseline_is_no_longer_active() -> None:
    trial = Canary(plan(), 0)
    assert trial.baseline_gone(OLD, 5) is trial
    gone = trial.baseline_gone(3, 5)
    assert gone.verdict is not None
    assert (gone.decision, gone.verdict.at_ms) == (Decision.ROLL_BACK, 5)
    assert "version 3 is active now" in gone.verdict.reason
    assert gone.baseline_gone(4, 6) is gone


def test_calls_of_other_versions_and_what_is_not_known_count_for_nothing() -> None:
    trial = Canary(plan(), 0).observe(CallOutcome(3, failed=True), 1)
    assert (trial.foreign, trial.baseline.calls, trial.canary.calls) == (1, 0, 0)
    trial = trial.observe(CallOutcome(NEW), 2)
    assert (trial.canary.failures.n, trial.canary.turn_latency.n, trial.canary.cost.n) == (1, 0, 0)
    far = trial.observe(CallOutcome(NEW, turn_latency_ms=1e12, cost_micros=10**15), 3).canary
    assert (far.turn_latency.mean, far.cost.mean) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baseline": NEW}, "both 2"),
        ({"share": 5_001}, "share"),
        ({"share": 0}, "share"),
        ({"failures": None, "transfers": None, "turn_latency": None, "cost": None}, "needs a bound"),
        ({"false_rollback_rate": 0.0}, "false_rollback_rate"),
        ({"failures": {"absolute": -0.1}}, "failures.absolute"),
        ({"failures": {"absolute": math.inf}}, "failures.absolute"),
        ({"turn_latency": {"relative": math.nan}}, "turn_latency.relative"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        plan(**changes)


CALLS = st.lists(
    st.tuples(
        st.sampled_from([OLD, NEW]), st.booleans(), st.booleans(), st.none() | st.floats(0, 5_000), st.none() | st.integers(0, 10**7)
    ),
    max_size=60,
)  # fmt: skip


@given(CALLS, st.integers(0, 60))
def test_a_trial_goes_on_after_a_restart_as_without_one(
    calls: list[tuple[int, bool, bool, float | None, int | None]], at: int
) -> None:
    through = restarted = Canary(plan(min_calls=5), 0)
    for number, call in enumerate(calls):
        if number == at:
            restarted = TRIAL.validate_json(TRIAL.dump_json(restarted), strict=True)
        through, restarted = (each.observe(CallOutcome(*call), number) for each in (through, restarted))
    assert restarted == through


@given(
    *[st.floats()] * 2, st.sampled_from(["failures", "transfers", "turn_latency", "turn_latency_p95", "cost"])
)
def test_every_bound_that_may_be_given_can_be_kept(absolute: float, relative: float, name: str) -> None:
    try:
        trial = Canary(plan(**{name: {"absolute": absolute, "relative": relative}}), 0)
    except ValidationError:
        return
    for number in range(8):
        trial = trial.observe(CallOutcome(NEW if number % 2 else OLD, number % 3 == 0), number)
        assert TRIAL.validate_json(TRIAL.dump_json(trial), strict=True) == trial


# -- golden traces -------------------------------------------------------------------------------------


def written(path: Path) -> str:
    """Run a trace's lines again and write them with what comes of each."""
    lines: list[str] = []
    trial: Canary | None = None
    now_ms = 0
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            lines.append(line)
        elif line.startswith("plan"):
            settings: dict[str, object] = {
                name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)
            }
            trial = Canary(plan(**settings), 0)
            lines.append(line)
        elif trial is not None and ">" in line:
            lines.append(line)
            now_ms = int(line.split(">")[0])
            words: dict[str, int] = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}
            before = trial
            trial = trial.tick(now_ms) if "tick" in line else calls(trial, now_ms, words)
            if trial.verdict is not None and before.verdict is None:
                lines.append(f"{trial.verdict.at_ms:>7} <   {trial.decision} | {trial.verdict.reason}")
            lines.append(
                f"{'':>7} <   baseline={trial.baseline.calls} canary={trial.canary.calls} late={trial.late}"
            )
    return "\n".join(lines) + "\n"


def calls(trial: Canary, now_ms: int, words: dict[str, int]) -> Canary:
    """Calls that end a second after one another, with the failures and transfers spread evenly over them."""
    count = words["count"]

    def spread(name: str, number: int) -> bool:
        hits = words.get(name, 0)
        return hits * number // count != hits * (number + 1) // count

    for number in range(count):
        outcome = CallOutcome(
            words["version"],
            failed=spread("failed", number),
            transferred=spread("transferred", number),
            turn_latency_ms=words.get("latency_ms"),
            cost_micros=words.get("cost_micros"),
        )
        trial = trial.observe(outcome, now_ms + number * 1_000)
    return trial


@pytest.mark.parametrize("path", sorted(TRACES.glob("*.txt")), ids=lambda path: path.stem)
def test_golden_traces(path: Path) -> None:
    assert written(path) == path.read_text()


def test_there_are_traces() -> None:
    assert len(list(TRACES.glob("*.txt"))) >= 4
    assert replace(Canary(plan(), 0), started_ms=1) != Canary(plan(), 0)
