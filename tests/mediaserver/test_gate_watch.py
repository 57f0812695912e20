"""What a node measures reaches its store each minute, and waits where it cannot: on a clock of the test's own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from mediaserver.gate_watch import MAX_WAITING, GateWatch
from mediaserver.telemetry import schema
from mediaserver.telemetry.meters import Meters
from tenancy import database
from tenancy.figures import MINUTE_MS
from tenancy.gate import GateBounds
from tenancy.sqlite_store import SqliteStore

START_MS = 29_000_000 * MINUTE_MS


class Bench:
    """A watch whose time and calls the test says."""

    def __init__(self, store: SqliteStore, **bounds: int) -> None:
        self.store = store
        self.now_ms = START_MS
        self.calls = 0
        self.meters = Meters()
        self.watch = GateWatch(
            store, GateBounds(**bounds), lambda: (self.calls, 10), self.meters, lambda: self.now_ms
        )

    async def minute(self, calls: int) -> None:
        """A minute with so many calls in progress, which is kept at its end."""
        self.calls = calls
        await self.watch.look()
        self.now_ms += MINUTE_MS
        await self.watch.look()

    def reached(self) -> set[str]:
        """The criteria that the metrics say are reached."""
        readings = list(self.watch.readings())
        return {each.values[0] for each in readings if each.metric is schema.GATE_REACHED and each.value}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path)
    yield store
    await store.close()


async def test_a_row_a_minute_and_the_criterion_in_the_metrics(store: SqliteStore) -> None:
    bench = Bench(store, window_min=4)
    assert bench.reached() == set()
    for calls in (1, 8, 9, 2, 10):
        await bench.minute(calls)
    kept = await store.minutes_since(0)
    # The first look of a minute is at what the one before it ended with.
    assert [(each.calls_max, each.slots) for each in kept] == [(10, 10), (9, 10), (9, 10), (8, 10), (1, 10)]
    assert all(each.node_id == bench.watch.node_id for each in kept)
    bench.now_ms += MINUTE_MS
    assert bench.reached() == {"concurrency"}
    assert bench.meters.value(schema.STORE_MINUTES, "kept") == 5
    assert bench.meters.count(schema.STORE_WRITE_WAIT_SECONDS) >= 4, "its own writes wait as well"
    bench.now_ms += 9 * MINUTE_MS
    assert bench.reached() == set()


async def test_a_node_that_starts_knows_what_was_measured_before(store: SqliteStore) -> None:
    before = Bench(store, window_min=4)
    for _ in range(3):
        await before.minute(9)
    after = Bench(store, window_min=4)
    after.now_ms = before.now_ms + MINUTE_MS
    await after.watch.start()
    try:
        assert after.reached() == {"concurrency"}
        assert [each.pid for each in await store.known_nodes()] == [os.getpid()] * 2
    finally:
        await after.watch.close()
    (left,) = await store.known_nodes()
    assert left.node_id == before.watch.node_id, "who ends in order takes itself off"


async def test_minutes_that_cannot_be_kept_wait_and_are_bounded(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 1)
    hasty = await SqliteStore.open(tmp_path)
    try:
        bench = Bench(hasty)
        with closing(sqlite3.connect(tmp_path / "shared.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            for _ in range(MAX_WAITING + 3):
                await bench.minute(1)
            assert await store.minutes_since(0) == ()
            holder.execute("ROLLBACK")
        assert bench.meters.value(schema.STORE_MINUTES, "failed") == MAX_WAITING + 3
        assert bench.meters.value(schema.STORE_MINUTES, "dropped") == 3
        await bench.minute(1)
        kept = await store.minutes_since(0)
        assert len(kept) == MAX_WAITING
        assert max(each.locked for each in kept) >= 1, "that the store was locked is measured"
    finally:
        await hasty.close()
