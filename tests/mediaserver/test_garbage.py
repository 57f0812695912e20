"""Everything is looked at when it is worth it, and not while calls have to wait for it in vain."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.garbage import ENDED_PER_CALL, FEWEST_ENDED, LONGEST_S, GarbageCollection, GarbagePolicy
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import GARBAGE_SECONDS
from perf.simulators import Script
from tests.sim.conversation import conversation


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
            assert (
                calls == 0
                or left >= max(FEWEST_ENDED, ENDED_PER_CALL * calls)
                or now_s - looked_s >= LONGEST_S
            )
            left, looked_s = 0, now_s
        assert calls > 0 or left == 0
        assert left < max(FEWEST_ENDED, ENDED_PER_CALL * calls)
        assert calls == 0 or now_s - looked_s < LONGEST_S


async def _left_by_a_call(directory: Path) -> int:
    script = Script(transcripts=["When are you open?"], replies=["At eight."])
    gc.disable()
    try:
        async with conversation(directory, script):
            gc.collect()
        return gc.collect()
    finally:
        gc.enable()


async def test_little_of_a_finished_pipeline_is_left_to_the_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _left_by_a_call(tmp_path)  # What the first call of a process loads is not another's.
    taken_apart = await _left_by_a_call(tmp_path)
    monkeypatch.setattr("mediaserver.pipeline.call_pipeline.dismantle", lambda _: None)
    whole = await _left_by_a_call(tmp_path)
    assert taken_apart < whole / 2


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
