"""The bounded queue before the models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from mediaserver.models.pool import QueueFull, Rank, TooSlow, WorkPool


def _pool(*, workers: int = 1, max_waiting: int = 3, timeout_s: float = 10.0) -> WorkPool:
    return WorkPool("test", workers=workers, max_waiting=max_waiting, timeout_s=timeout_s)


async def _turns() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_places_are_limited_and_come_back() -> None:
    pool = _pool(workers=1, max_waiting=1)
    with pool.place(), pool.place():
        with pytest.raises(QueueFull):
            pool.take()
        assert pool.taken == 2
    assert pool.taken == 0
    assert pool.counters.refused == 1
    with pool.place():
        assert await pool.run(lambda: 7) == 7


async def test_an_error_of_the_work_reaches_the_caller_and_frees_the_worker() -> None:
    pool = _pool()
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert await pool.run(lambda: 7) == 7


async def test_first_pieces_go_before_later_ones() -> None:
    pool = _pool()
    gate = threading.Event()
    order: list[str] = []

    def note(name: str) -> Callable[[], None]:
        return lambda: order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(pool.run(lambda: gate.wait(10)))
        await _turns()
        for name, rank in (("a2", Rank.LATER), ("b1", Rank.FIRST), ("c2", Rank.LATER), ("d1", Rank.FIRST)):
            group.create_task(pool.run(note(name), rank))
        await _turns()
        gate.set()
    assert order == ["b1", "d1", "a2", "c2"]


async def test_work_whose_client_left_is_never_begun() -> None:
    pool = _pool()
    gate = threading.Event()
    begun: list[str] = []
    blocking = asyncio.create_task(pool.run(lambda: gate.wait(10)))
    await _turns()
    left = asyncio.create_task(pool.run(lambda: begun.append("left")))
    stays = asyncio.create_task(pool.run(lambda: begun.append("stays")))
    await _turns()
    left.cancel()
    await _turns()
    gate.set()
    await asyncio.gather(blocking, stays)
    assert left.cancelled()
    assert begun == ["stays"]
    assert pool.counters.dropped == 1


async def test_a_worker_is_free_again_only_when_its_thread_is() -> None:
    pool = _pool()
    gate = threading.Event()
    running = threading.Event()

    def block() -> None:
        running.set()
        gate.wait(10)

    left = asyncio.create_task(pool.run(block))
    await asyncio.to_thread(running.wait, 10)
    left.cancel()
    begun = threading.Event()
    second = asyncio.create_task(pool.run(begun.set))
    await _turns()
    assert not begun.is_set()
    gate.set()
    await second
    assert begun.is_set()


async def test_a_turn_that_comes_as_its_client_leaves_is_passed_on() -> None:
    pool = _pool()
    gate = threading.Event()
    blocking = asyncio.create_task(pool.run(lambda: gate.wait(10)))
    await _turns()
    left = asyncio.create_task(pool.run(lambda: 1))
    await _turns()
    pool._release()  # the turn is given ...
    left.cancel()  # ... and not taken
    await asyncio.wait((left,))
    gate.set()
    await blocking
    assert await pool.run(lambda: 7) == 7


async def test_work_that_takes_too_long_is_given_up() -> None:
    pool = _pool(timeout_s=0.05)
    gate = threading.Event()
    try:
        with pytest.raises(TooSlow, match="within"):
            await pool.run(lambda: gate.wait(10))
        with pytest.raises(TooSlow):
            await pool.run(lambda: None)
    finally:
        gate.set()
    assert pool.counters.timed_out == 2
