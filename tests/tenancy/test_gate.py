"""When it is time for Postgres: figures of minutes, and a share of the last of them, in virtual time."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.node import GateConfig
from tenancy.figures import (
    MAX_SAMPLES,
    MINUTE_MS,
    WAIT_BOUNDS_MS,
    WAIT_MOST_MS,
    NodeMinute,
    StoreFigures,
    StoreMinute,
    Tally,
    percentile_95,
)
from tenancy.gate import KEPT_MINUTES, Criterion, Gate, GateBounds, assess, figures_of

QUIET = dict.fromkeys(Criterion, 0.0)


def minute(at: int, **changes: object) -> NodeMinute:
    figures: dict[str, object] = {
        "slots": 100, "calls_p95": 0, "calls_max": 0, "writes": 0, "write_wait_p95_ms": 0, "write_wait_ms": 0,
        "locked": 0, "crossings": 0, "crossing_ms": 0, "crossed": 0, "nodes": 1, "node_id": "n",
    }  # fmt: skip
    return NodeMinute(minute=at, **(figures | changes))  # type: ignore[arg-type]


bounds = st.builds(
    GateBounds, window_min=st.integers(1, 12), share=st.sampled_from([0.001, 0.25, 0.5, 0.9, 1.0])
)
courses = st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=40)


@given(bounds, courses, st.integers(0, 30))
def test_a_criterion_is_reached_as_long_as_enough_of_the_window_count(
    bounds: GateBounds, course: list[tuple[int, bool]], later: int
) -> None:
    gate, at, over = Gate(bounds), 1_000, set[int]()
    for step, exceeds in course:
        at += step
        gate.take(at, QUIET | {Criterion.NODES: 2.0 if exceeds else 1.0})
        over |= {at} if exceeds else set()
    now = at + later

    def counted(until: int) -> set[int]:
        return {each for each in over if until - bounds.window_min < each <= until}

    since = None
    for each in range(1_000, now + 1):
        if len(counted(each)) < bounds.needed_min:
            since = None
        elif since is None:
            since = each
    found = {each.criterion: each for each in gate.findings(now)}
    nodes = found.pop(Criterion.NODES)
    assert nodes.exceeded_min == len(counted(now))
    assert nodes.exceeded_since == min(counted(now), default=None)
    assert (nodes.reached_since, nodes.reached) == (since, since is not None)
    assert not any(each.reached for each in found.values())
    assert all(len(each.figures) <= bounds.window_min for each in gate._courses.values())


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_what_was_kept_may_come_in_any_order_and_from_several_nodes(ages: list[int], random: object) -> None:
    kept = [minute(1_000 - age, node_id=f"n{n}", nodes=2) for n, age in enumerate(ages)]
    shuffled = list(kept)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assess(shuffled, GateBounds(), 1_000) == assess(kept, GateBounds(), 1_000)
    (found,) = [each for each in assess(kept, GateBounds(), 1_000) if each.criterion is Criterion.NODES]
    assert found.exceeded_min == len(set(ages))


def test_a_peak_is_no_load_that_lasts() -> None:
    gate, bounds = Gate(GateBounds()), GateBounds()
    for at in range(bounds.needed_min - 1):
        gate.take(at, QUIET | {Criterion.CONCURRENCY: 1.0})
    (found, *_) = gate.findings(bounds.needed_min - 2)
    assert (found.peak, found.exceeded_min, found.reached) == (1.0, 29, False)
    gate.take(bounds.needed_min - 1, QUIET | {Criterion.CONCURRENCY: 0.7})
    assert gate.findings(bounds.needed_min - 1)[0].reached_since == bounds.needed_min - 1
    assert gate.findings(bounds.needed_min + 59)[0].reached_since is None, "the node has gone quiet, or away"


def test_minutes_that_are_still_to_come_or_long_over_are_left_out() -> None:
    kept = [minute(at, nodes=3) for at in (*range(2_001, 2_100), *range(2_000 - KEPT_MINUTES))]
    assert all(each.latest is None and not each.reached for each in assess(kept, GateBounds(), 2_000))


def test_what_a_minutes_figures_are() -> None:
    found = figures_of(
        [
            minute(1, calls_p95=40, write_wait_p95_ms=5, crossing_ms=700, nodes=2),
            minute(1, calls_p95=30, slots=40, locked=1, crossing_ms=400, nodes=1),
            minute(1, slots=0),
        ]
    )
    assert found == {
        Criterion.CONCURRENCY: 0.75,
        Criterion.NODES: 2,
        Criterion.CONTENTION: 5_000,
        Criterion.CROSS_TENANT: 1_100,
    }


def test_the_bounds_of_a_configuration_are_the_gates() -> None:
    assert GateBounds(**GateConfig().model_dump()) == GateBounds()


@given(st.lists(st.floats(0, 20_000), max_size=200))
def test_waits_are_told_to_their_bound(waits: list[float]) -> None:
    figures = StoreFigures()
    for each in waits:
        figures.waited(each)
    taken = figures.take()
    assert taken.writes == len(waits)
    assert taken.wait_ms == pytest.approx(sum(waits))
    bounds = (*WAIT_BOUNDS_MS, WAIT_MOST_MS)
    if waits:
        exact = sorted(waits)[-(-len(waits) * 95 // 100) - 1]
        assert taken.wait_p95_ms == next((bound for bound in bounds if exact <= bound), WAIT_MOST_MS)
    else:
        assert taken.wait_p95_ms == 0
    assert figures.take() == StoreMinute(), "what was taken is counted once"
    assert percentile_95([0] * 13) == 0


@given(st.lists(st.tuples(st.integers(1, 30_000), st.integers(0, 50)), min_size=1, max_size=300))
def test_looks_at_the_calls_become_one_row_a_minute(looks: list[tuple[int, int]]) -> None:
    tally, store, now_ms = Tally("n"), StoreFigures(), 0
    expected: dict[int, list[int]] = {}
    kept: list[NodeMinute] = []
    for step_ms, calls in looks:
        now_ms += step_ms
        store.waited(1)
        if (over := tally.look(now_ms, calls, 100, store)) is not None:
            kept.append(over[0])
        expected.setdefault(now_ms // MINUTE_MS, []).append(calls)
    if (over := tally.end(store)) is not None:
        kept.append(over[0])
    assert tally.end(store) is None
    assert {each.minute: each.calls_max for each in kept} == {
        at: max(calls) for at, calls in expected.items()
    }
    assert sum(each.writes for each in kept) == len(looks)
    for each in kept:
        seen = sorted(expected[each.minute])
        assert each.calls_p95 == seen[-(-len(seen) * 95 // 100) - 1]
        assert each.calls_p95 >= statistics.median_low(seen)


def test_a_clock_that_stands_still_does_not_fill_the_memory() -> None:
    tally, store = Tally("n"), StoreFigures()
    for _ in range(MAX_SAMPLES * 2):
        tally.look(0, 1, 1, store)
    assert len(tally._calls) == MAX_SAMPLES
