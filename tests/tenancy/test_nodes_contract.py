"""Which nodes a store knows and what they measured, on every backing; and that waits are measured where they are waited."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tenancy import StoreLocked, TenantStatus
from tenancy import database as database_module
from tenancy.figures import MINUTE_MS, NodeRow
from tenancy.gate import KEPT_MINUTES
from tenancy.node_repository import SEEN_WITHIN_MS
from tenancy.sqlite_store import SqliteStore
from tenancy.store import Store
from tests.tenancy.conftest import Backing
from tests.tenancy.test_gate import minute
from tests.tenancy.test_store_contract import call, version

NOW = 29_000_000
NODE = NodeRow("one", "host", 41, 7, NOW * MINUTE_MS)


@pytest.fixture
async def store(backing: Backing) -> AsyncIterator[Store]:
    store = await backing.open()
    yield store
    await store.close()


async def test_what_a_node_measured_is_there_after_it_and_once(backing: Backing) -> None:
    store = await backing.open()
    measured = minute(NOW, node_id="one", calls_p95=3, write_wait_ms=2**40, nodes=9)
    assert await store.keep_minutes(NODE, (measured, replace(measured, minute=NOW - 1))) == 1
    assert await store.keep_minutes(NODE, (replace(measured, calls_p95=4),)) == 1
    assert await store.known_nodes() == (NODE,)
    await store.leave("one")
    await store.close()
    store = await backing.open()
    try:
        assert await store.known_nodes() == ()
        kept = replace(measured, nodes=1)
        assert await store.minutes_since(NOW - 1) == (kept, replace(kept, minute=NOW - 1))
        assert await store.minutes_since(NOW) == (kept,)
    finally:
        await store.close()


async def test_nodes_are_counted_that_were_seen_lately_and_where_tenants_went(store: Store) -> None:
    assert await store.keep_minutes(NODE, ()) == 1
    assert await store.keep_minutes(replace(NODE, node_id="two", pid=42), ()) == 2
    later = NODE.seen_ms + SEEN_WITHIN_MS
    assert await store.keep_minutes(replace(NODE, node_id="two", seen_ms=later), ()) == 1
    for tenant, place in (("a", "cell-1"), ("b", "cell-1"), ("c", "cell-2")):
        await store.import_version(version(tenant, tenant, f"+4930{ord(tenant)}"))
        await store.set_status(tenant, TenantStatus.MOVED, place)
    assert await store.keep_minutes(replace(NODE, node_id="two", seen_ms=later), ()) == 3
    assert [each.node_id for each in await store.known_nodes()] == ["one", "two"]


async def test_a_day_is_kept(store: Store) -> None:
    day = tuple(minute(NOW - KEPT_MINUTES + at, node_id="one") for at in range(KEPT_MINUTES + 1))
    await store.keep_minutes(NODE, day)
    await store.keep_minutes(replace(NODE, seen_ms=NODE.seen_ms + 9 * MINUTE_MS), ())
    kept = await store.minutes_since(0)
    assert [each.minute for each in kept] == list(range(NOW, NOW - KEPT_MINUTES + 8, -1))
    await store.keep_minutes(
        replace(NODE, node_id="two", seen_ms=NODE.seen_ms + 2 * KEPT_MINUTES * MINUTE_MS), ()
    )
    assert await store.minutes_since(0) == ()
    assert [each.node_id for each in await store.known_nodes()] == ["two"], (
        "who was killed is forgotten in time"
    )


# -- what is measured ----------------------------------------------------------------------------------


async def test_writers_waits_are_measured_in_the_queue_and_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(tmp_path)
    try:
        await store.import_version(version("a", "one", "+1"))
        store.figures.take()
        held = sqlite3.connect(tmp_path / "shared.db", isolation_level=None, check_same_thread=False)
        held.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.ensure_future(store.set_status("a", TenantStatus.ACTIVE)) for _ in range(2)]
        await asyncio.wait(waiting, timeout=0.3)
        held.execute("ROLLBACK")
        await asyncio.gather(*waiting)
        taken = store.figures.take()
        assert (taken.writes, taken.locked) == (2, 0)
        assert taken.wait_ms >= 2 * 250, "the one for the lock, the other for the first"
        await store.add_call("a", call("c"))
        assert store.figures.take().writes == 1, "a tenant's file counts as well"
        held.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(database_module, "BUSY_TIMEOUT_MS", 50)
        impatient = await SqliteStore.open(tmp_path)
        with pytest.raises(StoreLocked):
            await impatient.set_status("a", TenantStatus.ACTIVE)
        assert impatient.figures.take().locked == 1
        await impatient.close()
        held.close()
    finally:
        await store.close()


async def test_asking_every_tenant_is_counted(backing: Backing) -> None:
    registry = await backing.open_registry()
    try:
        for tenant in "abc":
            await registry.store.import_version(version(tenant, "{}", f"+4930{ord(tenant)}"))
        registry.store.figures.take()
        await registry.active_tenants()
        taken = registry.store.figures.take()
        assert (taken.crossings, taken.crossed) == (1, 3)
        assert taken.crossing_ms > 0
    finally:
        await registry.close()
