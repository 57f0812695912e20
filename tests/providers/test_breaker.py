"""Circuit breakers in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.providers.breaker import (
    Breaker,
    BreakerKey,
    BreakerPolicy,
    Breakers,
    Outcome,
    Permit,
    Stage,
    State,
    least_recently_failed,
)

KEY = BreakerKey.of(Stage.LLM, "tenant:example/model", "https://example/v1", "model", "sk-canary-1")
POLICY = BreakerPolicy(open_ms=1_000, open_max_ms=10_000, probe_lost_ms=5_000)


def fail(breaker: Breaker, now_ms: int) -> None:
    permit = breaker.begin(now_ms)
    assert permit is not None
    breaker.end(permit, Outcome.FAILURE, now_ms)


def opened(now_ms: int = 0) -> Breaker:
    breaker = Breaker(KEY, POLICY)
    for _ in range(POLICY.min_failures):
        fail(breaker, now_ms)
    assert breaker.state(now_ms) is State.OPEN
    return breaker


def test_the_key_cannot_be_read_and_separates_tenants() -> None:
    other = BreakerKey.of(Stage.LLM, KEY.provider, "https://example/v1", "model", "sk-canary-2")
    assert other != KEY
    assert "canary" not in repr(KEY)
    assert BreakerKey.of(Stage.STT, KEY.provider, "https://example/v1", "model", "sk-canary-1") != KEY
    moved = BreakerKey.of(Stage.LLM, KEY.provider, "https://example/v1m", "odel", "sk-canary-1")
    assert moved != KEY


def test_it_opens_by_count_and_ratio_and_forgets_what_is_old() -> None:
    breaker = Breaker(KEY, POLICY)
    for _ in range(4):
        permit = breaker.begin(0)
        assert permit is not None
        breaker.end(permit, Outcome.SUCCESS, 0)
    for _ in range(3):
        fail(breaker, 1_000)
    assert breaker.state(1_000) is State.CLOSED  # three of seven
    fail(breaker, 1_000)
    assert breaker.state(1_000) is State.OPEN  # four of eight
    spread = Breaker(KEY, POLICY)
    for number in range(10):
        fail(spread, number * POLICY.window_ms)
        assert spread.state(number * POLICY.window_ms) is State.CLOSED


def test_one_probe_at_a_time_and_its_success_closes() -> None:
    breaker = opened()
    assert breaker.begin(999) is None
    probe = breaker.begin(1_000)
    assert probe == Permit(probe.era if probe else -1, probe=True)
    assert breaker.begin(1_500) is None
    assert probe is not None
    breaker.end(probe, Outcome.SUCCESS, 1_600)
    assert breaker.state(1_600) is State.CLOSED
    assert breaker.passes(1_600)


def test_a_failed_probe_doubles_the_wait_up_to_the_cap() -> None:
    breaker = opened()
    now_ms, waits = 0, []
    for _ in range(6):
        begun = now_ms
        while not breaker.passes(now_ms):
            now_ms += 100
        waits.append(now_ms - begun)
        fail(breaker, now_ms)
    assert waits == [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]


def test_a_probe_without_an_outcome_gives_its_place_up() -> None:
    breaker = opened()
    given_up = breaker.begin(1_000)
    assert given_up is not None
    breaker.end(given_up, Outcome.NEUTRAL, 1_100)
    assert breaker.begin(1_100) is not None  # and this one is never heard of again
    assert not breaker.passes(6_000)
    assert breaker.passes(6_100)


def test_late_outcomes_of_another_time_change_nothing() -> None:
    breaker = Breaker(KEY, POLICY)
    old = breaker.begin(0)
    assert old is not None
    for _ in range(3):
        fail(breaker, 0)
    breaker.state(1_000)
    breaker.end(old, Outcome.FAILURE, 1_000)
    assert breaker.state(1_000) is State.HALF_OPEN
    assert breaker.passes(1_000)


def test_asked_although_open_a_success_closes_it() -> None:
    breaker = opened()
    permit = breaker.begin(10, anyway=True)
    assert permit is not None
    assert not permit.probe
    breaker.end(permit, Outcome.SUCCESS, 20)
    assert breaker.state(20) is State.CLOSED


def test_of_all_open_the_least_recently_failed_is_asked() -> None:
    first, second = opened(5_000), opened(100)
    assert least_recently_failed([first, second]) is second


STEPS = st.lists(
    st.tuples(st.integers(0, 2_000), st.booleans(), st.sampled_from(list(Outcome)), st.integers(0, 5)),
    max_size=120,
)


@given(STEPS)
def test_any_course_keeps_the_rules(steps: list[tuple[int, bool, Outcome, int]]) -> None:
    changes: list[State] = []
    breaker = Breaker(KEY, POLICY, lambda _key, state: changes.append(state))
    now_ms = 0
    in_flight: list[Permit] = []
    probes: set[int] = set()
    for step_ms, begins, outcome, which in steps:
        now_ms += step_ms
        if begins:
            passes = breaker.passes(now_ms)
            permit = breaker.begin(now_ms)
            assert (permit is not None) == passes
            if permit is not None:
                assert breaker.state(now_ms) is not State.OPEN
                assert permit.probe == (breaker.state(now_ms) is State.HALF_OPEN)
                in_flight.append(permit)
        elif in_flight:
            permit = in_flight.pop(which % len(in_flight))
            before = breaker.state(now_ms)
            breaker.end(permit, outcome, now_ms)
            after = breaker.state(now_ms)
            if outcome is Outcome.NEUTRAL:
                assert after is before
            if outcome is Outcome.FAILURE:
                assert not (before is not State.CLOSED and after is State.CLOSED)
            if permit.probe:
                probes.add(permit.era)
    # Every state is entered from the only ones that lead there, and no wait is longer than the cap.
    allowed = {
        State.CLOSED: {State.OPEN},
        State.OPEN: {State.HALF_OPEN, State.CLOSED},
        State.HALF_OPEN: {State.OPEN, State.CLOSED},
    }
    state = State.CLOSED
    for change in changes:
        assert change in allowed[state]
        state = change
    assert breaker.state(now_ms + POLICY.open_max_ms) is not State.OPEN
    assert breaker.passes(now_ms + POLICY.open_max_ms + POLICY.probe_lost_ms)


@given(st.lists(st.integers(0, 30), max_size=100))
def test_the_registry_is_bounded_and_drops_the_least_recently_used(uses: list[int]) -> None:
    breakers = Breakers(POLICY, limit=8)
    recent: list[int] = []
    for number in uses:
        key = BreakerKey.of(Stage.TTS, "p", "u", "m", str(number))
        held = breakers.of(key)
        assert breakers.of(key) is held
        recent = [*[other for other in recent if other != number], number][-8:]
        assert len(breakers) == len(recent)
