"""Everything is looked at when it is worth it, and not while calls have to wait for it in vain."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.garbage import FEWEST_ENDED, LONGEST_S, GarbageCollection, GarbagePolicy
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import GARBAGE_SECONDS


@given(
    st.lists(st.tuples(st.floats(0, 60), st.integers(0, 200), st.integers(0, 30)), min_size=1, max_size=200)
)
def test_what_ended_calls_leave_is_bounded_and_looks_are_few(steps: list[tuple[float, int, int]]) -> None:
    policy = GarbagePolicy(0.0)
    now_s, ended, left, looked_s = 0.0, 0, 0, 0.0
    for wait_s, calls, more in steps:
        now_s, ended, left = now_s + wait_s, ended + more, left + more
        if policy.due(now_s, calls, ended):
            assert left > 0 or now_s - looked_s >= LONGEST_S
            assert calls == 0 or left >= max(FEWEST_ENDED, calls) or now_s - looked_s >= LONGEST_S
            left, looked_s = 0, now_s
        assert calls > 0 or left == 0
        assert left < max(FEWEST_ENDED, calls)
        assert calls == 0 or now_s - looked_s < LONGEST_S


class _Cycle:
    def __init__(self) -> None:
        self.own = self


async def test_a_process_collects_when_its_last_call_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mediaserver.garbage.LOOK_EVERY_S", 0.001)
    meters, before, calls = Meters(), gc.get_threshold(), [(1, 0)]
    collection = GarbageCollection(meters, "worker", lambda: calls[0])
    collection.start()
    try:
        found, cycle = asyncio.Event(), _Cycle()
        weakref.finalize(cycle, found.set)
        del cycle
        calls[0] = (0, 1)
        await found.wait()
    finally:
        collection.stop()
    assert gc.get_threshold() == before
    assert meters.count(GARBAGE_SECONDS, "worker") >= 1
