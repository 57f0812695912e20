"""Which key is used when, in virtual time: rules one by one, then whatever may be reported in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vault import (
    BadInput,
    KeyRef,
    KeyResolver,
    KeyState,
    Origin,
    Outcome,
    Resolution,
    Service,
    Step,
    classify,
)
from vault.resolver import STEPS_MAX, HoldPolicy

LLM = Service.LLM
POLICY = HoldPolicy()
EMBEDDED = Step(Origin.FALLBACK, "embedded")


def own(
    name: str = "openai", version: int = 1, tenant: str = "a", stored: KeyState = KeyState.USABLE
) -> Step:
    return Step(Origin.TENANT, f"{tenant}'s {name}", KeyRef(tenant, name, version), stored)


def shared(name: str = "openai", stored: KeyState = KeyState.USABLE) -> Step:
    return Step(Origin.PLATFORM, f"platform {name}", KeyRef(None, name), stored)


STEPS = (own(), shared(), EMBEDDED)


class Calls:
    """A resolver and the time."""

    def __init__(self, **bounds: int) -> None:
        self.resolver = KeyResolver(POLICY, **bounds)
        self.now = 0

    def use(self, *steps: Step, tenant: str = "a", service: Service = LLM) -> Resolution:
        return self.resolver.resolve(tenant, service, steps or STEPS, self.now)

    def origin(self, *steps: Step, tenant: str = "a") -> Origin:
        return self.use(*steps, tenant=tenant).use.origin

    def report(
        self,
        outcome: Outcome,
        step: Step | None = None,
        *,
        began: int | None = None,
        retry_ms: int | None = None,
    ) -> None:
        key = (step or STEPS[0]).key
        assert key is not None
        self.resolver.report(
            LLM,
            key,
            outcome,
            began_ms=self.now if began is None else began,
            now_ms=self.now,
            retry_after_ms=retry_ms,
        )


def test_the_tenants_key_comes_first_and_every_step_has_its_reason() -> None:
    found = Calls().use()
    assert found.use is STEPS[0]
    assert found.record == (
        "llm: tenant a's openai: key openai version 1 is usable",
        "llm: platform platform openai: key openai version 1 is usable",
        "llm: fallback embedded: needs no key",
    )


@pytest.mark.parametrize("stored", [KeyState.MISSING, KeyState.REVOKED, KeyState.UNREADABLE])
def test_a_key_that_the_vault_has_not_leads_to_the_next_step(stored: KeyState) -> None:
    calls = Calls()
    found = calls.use(own(stored=stored), shared(), EMBEDDED)
    assert found.use.origin is Origin.PLATFORM
    assert found.steps[0].state is stored
    assert found.record[0].endswith(f"key openai is {stored}")
    assert calls.origin(own(stored=stored), shared(stored=stored), EMBEDDED) is Origin.FALLBACK
    assert calls.origin(EMBEDDED) is Origin.FALLBACK


@pytest.mark.parametrize(
    ("outcome", "state", "first_ms", "longest_ms"),
    [
        (Outcome.DENIED, KeyState.DENIED, POLICY.denied_ms, POLICY.denied_max_ms),
        (Outcome.OUT_OF_QUOTA, KeyState.OUT_OF_QUOTA, POLICY.quota_ms, POLICY.quota_max_ms),
        (Outcome.RATE_LIMITED, KeyState.RATE_LIMITED, POLICY.rate_ms, POLICY.rate_max_ms),
    ],
)
def test_a_failed_key_is_held_off_twice_as_long_each_time_up_to_a_longest(
    outcome: Outcome, state: KeyState, first_ms: int, longest_ms: int
) -> None:
    calls = Calls()
    for times in range(40):
        calls.report(outcome)
        held_ms = min(first_ms << min(times, 32), longest_ms)
        calls.now += held_ms - 1
        found = calls.use()
        assert (found.use.origin, found.steps[0].state) == (Origin.PLATFORM, state)
        assert found.steps[0].until_ms == calls.now + 1
        assert "for 1 ms more" in found.record[0]
        calls.now += 1
        assert calls.origin() is Origin.TENANT
    calls.report(Outcome.SUCCEEDED)
    assert len(calls.resolver) == 0
    calls.report(outcome)
    calls.now += first_ms
    assert calls.origin() is Origin.TENANT, "after a success the next hold-off is the first again"


@pytest.mark.parametrize(
    ("said_ms", "held_ms"),
    [(7_000, 7_000), (0, POLICY.retry_after_min_ms), (-5, POLICY.retry_after_min_ms), (10**12, 600_000)],
)
def test_retry_after_is_kept_to_within_bounds(said_ms: int, held_ms: int) -> None:
    calls = Calls()
    calls.report(Outcome.RATE_LIMITED, retry_ms=said_ms)
    calls.now += held_ms - 1
    assert calls.origin() is Origin.PLATFORM
    calls.now += 1
    assert [calls.origin() for _ in range(3)] == [Origin.TENANT] * 3, (
        "a rate limit that is over is over for all"
    )


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.OUT_OF_QUOTA])
def test_one_call_tries_a_refused_key_and_the_others_wait_for_what_it_says(outcome: Outcome) -> None:
    calls = Calls()
    calls.report(outcome)
    calls.now += POLICY.denied_ms
    assert [calls.origin() for _ in range(3)] == [Origin.TENANT, Origin.PLATFORM, Origin.PLATFORM]
    assert "is being tried by another call" in calls.use().record[0]
    calls.now += POLICY.try_lost_ms
    assert [calls.origin() for _ in range(2)] == [Origin.TENANT, Origin.PLATFORM], "the first try was lost"
    calls.report(Outcome.SUCCEEDED)
    assert [calls.origin() for _ in range(3)] == [Origin.TENANT] * 3


def test_requests_that_were_under_way_neither_end_nor_lengthen_a_hold_off() -> None:
    calls = Calls()
    calls.now = 1_000
    for _ in range(50):
        calls.report(Outcome.DENIED, began=900)
    calls.report(Outcome.SUCCEEDED, began=500)
    assert calls.origin() is Origin.PLATFORM
    calls.now += POLICY.denied_ms
    assert calls.origin() is Origin.TENANT
    calls.report(Outcome.RATE_LIMITED, shared(), began=900, retry_ms=5_000)
    calls.report(Outcome.RATE_LIMITED, shared(), began=900, retry_ms=9_000)
    calls.report(Outcome.RATE_LIMITED, shared(), began=900, retry_ms=1_000)
    calls.now += 8_999
    assert calls.use().steps[1].state is KeyState.RATE_LIMITED, "the latest Retry-After counts"


def test_a_graver_state_stays() -> None:
    calls = Calls()
    calls.report(Outcome.RATE_LIMITED, retry_ms=600_000)
    calls.report(Outcome.DENIED)
    calls.report(Outcome.OUT_OF_QUOTA)
    calls.report(Outcome.RATE_LIMITED, retry_ms=600_000)
    found = calls.use().steps[0]
    assert (found.state, found.until_ms) == (KeyState.DENIED, POLICY.denied_ms)


def test_a_key_that_is_put_anew_starts_afresh() -> None:
    calls = Calls()
    calls.report(Outcome.DENIED)
    assert calls.origin() is Origin.PLATFORM
    renewed = own(version=2)
    assert calls.origin(renewed, shared(), EMBEDDED) is Origin.TENANT
    calls.report(Outcome.DENIED, renewed)
    calls.report(Outcome.SUCCEEDED, own(version=1))
    calls.report(Outcome.OUT_OF_QUOTA, own(version=1))
    assert calls.use(renewed, EMBEDDED).steps[0].state is KeyState.DENIED
    calls.report(Outcome.SUCCEEDED, renewed)
    assert len(calls.resolver) == 0
    calls.report(Outcome.RATE_LIMITED, renewed)
    calls.report(Outcome.DENIED, own(version=1))
    assert calls.use(renewed, EMBEDDED).steps[0].state is KeyState.RATE_LIMITED, (
        "of the old one, nothing counts"
    )


def test_services_learn_for_themselves() -> None:
    calls = Calls()
    calls.report(Outcome.DENIED)
    assert calls.use(service=Service.TTS).use.origin is Origin.TENANT


def test_the_platforms_key_is_everybodys_and_a_tenants_its_own() -> None:
    calls = Calls()
    calls.report(Outcome.DENIED)
    b = (own(tenant="b"), shared(), EMBEDDED)
    assert calls.origin(*b, tenant="b") is Origin.TENANT
    calls.report(Outcome.DENIED, shared())
    assert calls.origin() is Origin.FALLBACK
    assert calls.use(shared(), EMBEDDED, tenant="b").use.origin is Origin.FALLBACK


def test_steps_that_are_refused() -> None:
    resolver = KeyResolver()
    with pytest.raises(BadInput, match="not that of the step's owner"):
        resolver.resolve("b", LLM, STEPS, 0)
    crossed = Step(Origin.PLATFORM, "x", KeyRef("a", "openai"))
    for steps, text in (
        ((), "1 to 32 steps, not 0"),
        ((own(),), "the last step must be a fallback"),
        ((own(), shared()), "the last step must be a fallback"),
        ((Step(Origin.FALLBACK, "x", KeyRef(None, "k")),), "needs no key"),
        ((*[own()] * STEPS_MAX, EMBEDDED), "not 33"),
        ((crossed, EMBEDDED), "not that of the step's owner"),
    ):
        with pytest.raises(BadInput, match=text):
            resolver.resolve("a", LLM, steps, 0)


def test_memory_is_bounded_and_no_tenant_crowds_out_the_platform() -> None:
    calls = Calls(owners_max=10, holds_max=4)
    calls.report(Outcome.DENIED, shared())
    for number in range(500):
        calls.report(Outcome.DENIED, own(tenant=f"t{number % 50}", name=f"k{number // 50}"))
    assert len(calls.resolver) <= 10 * 4 + 4
    assert calls.resolver.forgotten > 0
    assert calls.use(shared(), EMBEDDED).use.origin is Origin.FALLBACK
    last = own(tenant="t49", name="k9")
    assert calls.use(last, EMBEDDED, tenant="t49").use.origin is Origin.FALLBACK


def test_one_tenant_with_many_keys_forgets_its_own() -> None:
    calls = Calls(owners_max=2, holds_max=3)
    calls.report(Outcome.DENIED, own(tenant="b"))
    for number in range(100):
        calls.report(Outcome.DENIED, own(name=f"k{number}"))
    assert len(calls.resolver) == 4
    assert calls.use(own(tenant="b"), EMBEDDED, tenant="b").use.origin is Origin.FALLBACK


def test_what_is_long_over_is_forgotten() -> None:
    calls = Calls()
    calls.report(Outcome.DENIED)
    calls.now += POLICY.denied_ms + POLICY.forget_ms
    assert calls.origin() is Origin.TENANT
    assert len(calls.resolver) == 0


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (200, None, Outcome.SUCCEEDED),
        (401, None, Outcome.DENIED),
        (403, None, Outcome.DENIED),
        (402, None, Outcome.OUT_OF_QUOTA),
        (429, "insufficient_quota", Outcome.OUT_OF_QUOTA),
        (429, "rate_limit_exceeded", Outcome.RATE_LIMITED),
        (429, None, Outcome.RATE_LIMITED),
        (400, None, None),
        (404, None, None),
        (500, "insufficient_quota", None),
        (503, None, None),
        (101, None, None),
    ],
)
def test_what_a_status_says_about_the_key(status: int, code: str | None, outcome: Outcome | None) -> None:
    assert classify(status, code) is outcome


# -- in any order --------------------------------------------------------------------------------------

REPORTS = st.lists(
    st.tuples(
        st.integers(0, 200_000),
        st.sampled_from([own(), own(version=2), own("other"), shared(), own(tenant="b")]),
        st.sampled_from(Outcome),
        st.integers(0, 100_000),
        st.none() | st.integers(-1, 10**9),
    ),
    max_size=40,
)


@given(REPORTS)
def test_there_is_always_a_step_and_it_is_the_first_usable_one(
    reports: list[tuple[int, Step, Outcome, int, int | None]],
) -> None:
    calls = Calls()
    for passed, step, outcome, ago, retry_ms in reports:
        calls.now += passed
        calls.report(outcome, step, began=calls.now - ago, retry_ms=retry_ms)
        found = calls.use(own(version=2), own("other"), shared(), EMBEDDED)
        states = [each.state for each in found.steps]
        assert found.chosen == states.index(KeyState.USABLE)
        assert all(each.reason for each in found.steps)
        for each in found.steps:
            assert each.state is KeyState.USABLE or (each.until_ms or 0) > calls.now
    # Whatever was said, in the end every key is tried again.
    calls.now += POLICY.denied_max_ms + POLICY.try_lost_ms
    assert calls.origin(own(version=2), EMBEDDED) is Origin.TENANT


@given(REPORTS)
def test_what_is_reported_of_a_changes_nothing_for_b(
    reports: list[tuple[int, Step, Outcome, int, int | None]],
) -> None:
    """B's resolutions with A's reports and without them are the same."""
    both, alone = Calls(), Calls()
    for passed, step, outcome, ago, retry_ms in reports:
        both.now += passed
        alone.now += passed
        both.report(outcome, step, began=both.now - ago, retry_ms=retry_ms)
        if step.key is not None and step.key.owner != "a":
            alone.report(outcome, step, began=alone.now - ago, retry_ms=retry_ms)
        steps = (own(tenant="b"), shared(), EMBEDDED)
        assert both.use(*steps, tenant="b") == alone.use(*steps, tenant="b")


class Keys(RuleBasedStateMachine):
    """Held off means not used: nobody gets a key before the time that its hold-off named."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls(owners_max=3, holds_max=3)
        self.held_until = 0

    @rule(passed=st.integers(0, 300_000))
    def time_passes(self, passed: int) -> None:
        self.calls.now += passed

    @rule(outcome=st.sampled_from([Outcome.DENIED, Outcome.OUT_OF_QUOTA, Outcome.RATE_LIMITED]))
    def fails(self, outcome: Outcome) -> None:
        # Only what was let through can fail.
        if self.calls.origin() is Origin.TENANT:
            self.calls.report(outcome)
            until = self.calls.use().steps[0].until_ms
            assert until is not None
            self.held_until = until

    @rule()
    def succeeds(self) -> None:
        if self.calls.origin() is Origin.TENANT:
            self.calls.report(Outcome.SUCCEEDED)
            self.held_until = 0

    @rule(tenant=st.sampled_from("bc"), outcome=st.sampled_from(Outcome), name=st.sampled_from("klmnop"))
    def others_report(self, tenant: str, outcome: Outcome, name: str) -> None:
        self.calls.report(outcome, own(tenant=tenant, name=name))

    @invariant()
    def nobody_gets_it_early(self) -> None:
        # The others are as many tenants as are remembered, each with more keys than are.
        if self.calls.now < self.held_until:
            assert self.calls.origin() is not Origin.TENANT

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.calls.resolver) <= 3 * 3


TestKeys = Keys.TestCase
