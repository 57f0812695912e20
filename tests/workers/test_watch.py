"""When a worker is suspect, and when it is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.workers.watch import EXCUSED_MS, STARVED_MS_MAX, Health, WatchParams, WorkerWatch

PARAMS = WatchParams(tick_ms=50, suspect_ms=200, lost_ms=500)


def test_a_worker_that_stops_is_suspected_and_then_lost() -> None:
    watch = WorkerWatch(PARAMS, 0)
    seen = []
    for now_ms in range(50, 1_000, 50):
        number = watch.tick(now_ms)
        if number is not None and now_ms <= 200:
            watch.pong(number)
        seen.append((now_ms, watch.health))
        if number is None:
            break
    suspect_at = next(at for at, health in seen if health is Health.SUSPECT)
    # Its last answer was to the ping of 200 ms; the one of 250 ms is never answered.
    assert (suspect_at, seen[-1]) == (450, (750, Health.LOST))


def test_an_answer_clears_the_suspicion() -> None:
    watch = WorkerWatch(PARAMS, 0)
    numbers = [watch.tick(now_ms) for now_ms in range(50, 350, 50)]
    before = watch.health
    last = numbers[-1]
    assert last is not None
    watch.pong(last)
    assert (before, watch.health) == (Health.SUSPECT, Health.WELL)


def test_an_edge_that_was_held_up_suspects_nobody() -> None:
    watch = WorkerWatch(PARAMS, 0)
    first = watch.tick(50)
    assert first is not None
    assert watch.tick(5_050) is not None
    assert watch.health is Health.WELL


@given(st.lists(st.tuples(st.integers(0, 120), st.booleans()), max_size=200))
def test_a_worker_that_answers_within_a_tick_is_never_suspected(steps: list[tuple[int, bool]]) -> None:
    watch, now_ms = WorkerWatch(PARAMS, 0), 0
    for step_ms, twice in steps:
        now_ms += step_ms
        number = watch.tick(now_ms)
        assert number is not None
        watch.pong(number)
        if twice:
            watch.pong(number)
        assert watch.health is Health.WELL


def test_a_worker_that_said_so_may_stand_still() -> None:
    watch, healths = WorkerWatch(PARAMS, 0), {}
    watch.excuse()
    for now_ms in range(50, 2_000, 50):
        if watch.tick(now_ms) is None:
            break
        healths[now_ms] = watch.health
    # The time begins with the first ping that is not answered.
    assert healths[EXCUSED_MS + 200] is Health.WELL
    assert healths[EXCUSED_MS + 250] is Health.SUSPECT
    assert now_ms == EXCUSED_MS + 550
    assert watch.health is Health.LOST


def test_answers_that_were_never_asked_for_mean_nothing() -> None:
    watch = WorkerWatch(PARAMS, 0)
    for now_ms in range(50, 2_000, 50):
        watch.pong(10_000)
        if watch.tick(now_ms) is None:
            break
    assert watch.health is Health.LOST


def lost_after_ms(waited_ms: int) -> int:
    """A worker that never answers, and waits for a processor so long in every tick."""
    watch = WorkerWatch(PARAMS, 0)
    for now_ms in range(50, 100_000, 50):
        if watch.tick(now_ms, waited_ms) is None:
            return now_ms
    raise AssertionError("it is never lost")


def test_a_worker_that_gets_no_processor_is_given_time_and_not_forever() -> None:
    stuck_ms = lost_after_ms(0)
    assert lost_after_ms(25) == stuck_ms + 500, "half of the time is its own"
    assert lost_after_ms(50) == lost_after_ms(80) == stuck_ms + STARVED_MS_MAX


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(-5, 500), st.booleans()), max_size=200))
def test_waiting_makes_nobody_lost_sooner(steps: list[tuple[int, int, bool]]) -> None:
    patient, plain, now_ms = WorkerWatch(PARAMS, 0), WorkerWatch(PARAMS, 0), 0
    for step_ms, waited_ms, answers in steps:
        now_ms += step_ms
        number, other = patient.tick(now_ms, waited_ms), plain.tick(now_ms)
        if other is None:
            return
        assert number == other
        assert patient.silent_ms <= plain.silent_ms
        if answers:
            patient.pong(other)
            plain.pong(other)
