"""Who is asked when, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.errors import FailureCause
from mediaserver.providers.hedge import MAX_IN_FLIGHT, Action, Ask, Drop, Entrant, Fail, GiveUp, Race, Terms

TERMS = Terms(first_ms=1_000, stall_ms=500, total_ms=5_000, hedge_ms=400)
A, B, LAST = Entrant(0, hedged=True), Entrant(1, hedged=True), Entrant(2, hedged=False)


def test_the_first_to_answer_wins_and_the_slow_one_is_dropped() -> None:
    race = Race([A, B], TERMS)
    assert race.begin(0) == (Ask(0, hedge=False),)
    assert race.deadline_ms == 400
    assert race.poll(399) == ()
    assert race.poll(400) == (Ask(1, hedge=True),)
    assert race.delivered(1, 450) == (Drop(0, slow=True),)
    assert race.streaming == 1
    race.finished(1)
    assert race.over


def test_the_first_may_still_win_and_the_hedge_is_not_slow() -> None:
    race = Race([A, B], TERMS)
    race.begin(0)
    race.poll(400)
    assert race.delivered(0, 500) == (Drop(1, slow=False),)


def test_past_the_budget_the_first_has_failed_and_the_hedge_goes_on() -> None:
    race = Race([A, B, LAST], TERMS)
    race.begin(0)
    race.poll(400)
    assert race.poll(1_000) == (Fail(0, FailureCause.TIMEOUT, "nothing within 1000 ms"),)
    assert race.deadline_ms == 1_400
    assert race.poll(1_400) == (Fail(1, FailureCause.TIMEOUT, "nothing within 1000 ms"), Ask(2, hedge=False))


def test_the_last_resort_is_asked_after_failures_only() -> None:
    race = Race([A, LAST], TERMS)
    race.begin(0)
    assert race.deadline_ms == 1_000
    assert race.poll(999) == ()
    assert race.failed(0, 999) == (Ask(2, hedge=False),)
    assert race.failed(2, 1_000) == (GiveUp(),)
    assert race.over


def test_a_stream_may_pause_but_neither_stall_nor_go_on_for_ever() -> None:
    race = Race([A], TERMS)
    race.begin(0)
    now_ms = 900
    race.delivered(0, now_ms)
    assert race.deadline_ms == 1_400
    race.resumed(1_300)
    while now_ms < 4_800:
        now_ms += 450
        assert race.poll(now_ms) == ()
        race.delivered(0, now_ms)
    assert race.deadline_ms == 5_000
    stalled, over = race.poll(5_000)
    assert stalled == Fail(0, FailureCause.STALL, "no end within 5000 ms")
    assert over == GiveUp()


def test_when_the_winner_breaks_off_the_dropped_one_may_be_asked_again() -> None:
    race = Race([A, B], TERMS)
    race.begin(0)
    race.poll(400)
    race.delivered(1, 500)
    assert race.failed(1, 600) == (Ask(0, hedge=False),)


def test_a_probe_has_half_the_time() -> None:
    race = Race([Entrant(0, hedged=False, probe=True)], TERMS)
    race.begin(0)
    assert race.deadline_ms == 500


ENTRANTS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=5)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["delivered", "failed", "finished", "poll"]), st.integers(0, 4), st.integers(0, 900)),
    max_size=60,
)  # fmt: skip
ANY_TERMS = st.builds(
    Terms,
    first_ms=st.integers(1, 2_000),
    stall_ms=st.integers(1, 2_000),
    total_ms=st.integers(1, 5_000),
    hedge_ms=st.none() | st.integers(1, 2_000),
)


@given(ENTRANTS, ANY_TERMS, EVENTS)
def test_any_course_keeps_the_rules_and_ends(
    chain: list[tuple[bool, bool]], terms: Terms, events: list[tuple[str, int, int]]
) -> None:
    entrants = [Entrant(position, hedged, probe) for position, (hedged, probe) in enumerate(chain)]
    race = Race(entrants, terms)
    in_flight: set[int] = set()
    out: set[int] = set()
    now_ms = 0

    def take(actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Ask():
                    assert action.position not in in_flight | out
                    if action.hedge:
                        (beside,) = in_flight
                        assert entrants[beside].hedged
                        assert entrants[action.position].hedged
                    in_flight.add(action.position)
                case Fail():
                    in_flight.remove(action.position)
                    out.add(action.position)
                case Drop():
                    in_flight.remove(action.position)
                case GiveUp():
                    assert race.over
                    assert not in_flight
                    assert out == set(range(len(entrants)))
            assert len(in_flight) <= MAX_IN_FLIGHT

    take(race.begin(now_ms))
    for kind, which, step_ms in events:
        now_ms += step_ms
        position = which % len(entrants)
        if race.over:
            break
        if kind == "poll":
            take(race.poll(now_ms))
        elif kind == "finished":
            race.finished(position)
        elif kind == "delivered":
            take(race.delivered(position, now_ms))
        else:
            # In the race before its time: the runner reports failures of what was asked only, so does this test.
            if position in in_flight:
                in_flight.remove(position)
                out.add(position)
            take(race.failed(position, now_ms))
    # Left to silence, it ends within the sum of what everybody may take.
    limit_ms = now_ms + (len(entrants) + 1) * (terms.first_ms + terms.total_ms)
    while not race.over:
        assert race.deadline_ms is not None
        now_ms = max(now_ms, race.deadline_ms)
        assert now_ms <= limit_ms
        take(race.poll(now_ms))
    assert race.deadline_ms is None
