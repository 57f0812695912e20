"""Who gets which worker: few calls are opened in one at a time, and a worker that was suspected in vain is one too many."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.media_link import LocalMediaLink
from mediaserver.phrase_cache import PhraseCache
from mediaserver.telemetry.meters import Meters
from mediaserver.workers.connection import Connection
from mediaserver.workers.hosted import HostedCall
from mediaserver.workers.messages import CallOver, CallTaken, Message, OpenCall, Pong, Retire
from mediaserver.workers.pool import MAX_OPENING, Stage, Worker, WorkerPool
from mediaserver.workers.watch import WatchParams, WorkerWatch
from mediaserver.workers.worker_settings import WorkerSettings
from tests.sim.conversation import Notes
from tests.sim.link import SimulatedLink


class _Wire:
    """In the place of a worker's socket: what it was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Message]] = []

    def send(self, call: int, message: Message) -> None:
        self.sent.append((call, message))

    def opened(self) -> list[int]:
        return [call for call, message in self.sent if isinstance(message, OpenCall)]


def _pool(workers: int, count: int) -> tuple[WorkerPool, list[Worker], list[_Wire]]:
    pool = WorkerPool(count, WorkerSettings("", "", {}, 0, "INFO", "text"), PhraseCache(Path("/nonexistent")))
    wires = [_Wire() for _ in range(workers)]
    pool._workers = [
        Worker(0, -1, cast(Connection, wire), Stage.TAKING_CALLS, WorkerWatch(WatchParams(), 0))
        for wire in wires
    ]
    return pool, pool._workers, wires


def _calls(pool: WorkerPool, count: int) -> list[HostedCall]:
    return [
        HostedCall(
            number,
            lambda: "{}",
            cast(LocalMediaLink, SimulatedLink()),
            Notes(),
            pool,
            meters=Meters(),
            announcement=None,
        )
        for number in range(1, count + 1)
    ]


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["taken", "over"]), st.integers(0, 99)), max_size=80),
)
def test_few_calls_are_opened_in_a_worker_at_a_time_and_all_are_in_the_end(
    workers: int, answers: list[tuple[str, int]]
) -> None:
    async def scenario() -> None:
        pool, members, wires = _pool(workers, workers)
        calls = _calls(pool, 30)
        running = [asyncio.create_task(call.run()) for call in calls]
        await asyncio.sleep(0)
        opening: set[int] = set()
        seen: list[int] = []

        def look() -> None:
            for member, wire in zip(members, wires, strict=True):
                new = [number for number in wire.opened() if number not in seen]
                seen.extend(new)
                opening.update(new)
                assert len(opening & set(member.calls)) <= MAX_OPENING

        async def answered(kind: str, number: int) -> None:
            (member,) = [one for one in members if number in one.calls]
            opening.discard(number)
            pool._take(member, number, CallTaken() if kind == "taken" else CallOver("over", failed=False))
            for _ in range(3):
                await asyncio.sleep(0)
            look()

        look()
        for kind, which in answers:
            if opening:
                await answered(kind, sorted(opening)[which % len(opening)])
        while opening:
            await answered("taken", min(opening))
        assert sorted(seen) == [call.number for call in calls]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    asyncio.run(scenario())


async def test_a_worker_that_lives_after_all_makes_one_too_many() -> None:
    pool, members, wires = _pool(2, 1)
    (call,) = _calls(pool, 1)
    members[0].calls[call.number] = call
    watch = members[0].watch
    assert watch is not None
    number = 0
    for now_ms in range(25, 250, 25):
        number = watch.tick(now_ms) or 0
    pool._take(members[0], 0, Pong(number))
    # The one without calls.
    assert [member.stage for member in members] == [Stage.TAKING_CALLS, Stage.RETIRING]
    assert wires[1].sent == [(0, Retire())]
