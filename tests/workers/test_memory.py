"""When a worker takes its memory to be used up."""

from __future__ import annotations

import asyncio
import resource

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.workers.memory import LEAST_ROOM_BYTES, MemoryWatch, is_short, used_bytes

SIZES = st.integers(0, 1 << 40)


@given(SIZES, SIZES)
def test_a_worker_that_has_come_to_its_limit_is_short_and_one_without_a_limit_never(
    used: int, limit: int
) -> None:
    assert is_short(used, limit) or used < limit
    assert not is_short(used, resource.RLIM_INFINITY)


def test_some_room_is_left() -> None:
    limit = 4_096 << 20
    assert not is_short(limit * 98 // 100, limit)
    assert is_short(limit * 99 // 100, limit)
    assert is_short(limit - LEAST_ROOM_BYTES + 1, limit)


def test_what_is_allocated_is_used() -> None:
    before = used_bytes()
    held = bytearray(64 << 20)
    assert used_bytes() - before >= len(held)


async def test_a_process_without_a_limit_goes_on_and_one_that_is_short_ends() -> None:
    ended = asyncio.Event()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    watch = MemoryWatch(ended.set)
    watch._look()
    assert not ended.is_set()
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (used_bytes() + LEAST_ROOM_BYTES // 2, hard))
        async with asyncio.timeout(5):
            await ended.wait()
    finally:
        watch.stop()
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
