"""What nodes look at instead of at every tenant, on every backing: what has changed, and whose trial is due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from tenancy import Registry, TenantStatus
from tenancy.canary import Bound, CallOutcome, CanaryPlan, Decision
from tenancy.feed_repository import MAX_READ
from tenancy.ledger import Deed
from tenancy.lifecycle import AGAIN_MS, Lifecycle
from tenancy.store import Changes, DueTrial, Store
from tests.tenancy.conftest import Backing, dialled, tenant
from tests.tenancy.test_store_contract import NOON, add_valid, addresses, begin_trial, call, origin, version

HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
NOON_MS = int(NOON.timestamp() * 1000)


@pytest.fixture
async def store(backing: Backing) -> AsyncIterator[Store]:
    store = await backing.open()
    yield store
    await store.close()


async def changed(store: Store, after: int) -> tuple[int, tuple[str, ...]]:
    found = await store.changes(after)
    assert not found.more
    return found.last, found.tenant_ids


async def test_what_reaches_calls_is_noted_and_nothing_else(store: Store) -> None:
    assert await store.last_change() == 0
    assert await store.changes(0) == Changes(0, ())
    await store.import_version(version("a", "one", "+1"))
    await store.import_version(version("b", "one", "+2"))
    last, who = await changed(store, 0)
    assert who == ("a", "b")
    assert await store.last_change() == last
    # The same content again, a draft and its validation: no call gets anything else.
    await store.import_version(version("a", "one", "+1"))
    two = await add_valid(store, "a", "two")
    three = await add_valid(store, "a", "three")
    await store.add_call("a", call("x"))
    await store.edit("a", lambda ledger: ledger.reject(three, origin()))
    assert await changed(store, last) == (last, ())
    await store.edit("a", lambda ledger: ledger.activate(two, origin(), expected=1), addresses("+1"))
    last, who = await changed(store, last)
    assert who == ("a",)
    await store.edit("a", lambda ledger: ledger.roll_back(1, origin(), expected=2))
    await begin_trial(store, "b")
    last, who = await changed(store, last)
    assert who == ("a", "b")
    assert await store.set_status("a", TenantStatus.SUSPENDED)
    assert not await store.set_status("nobody", TenantStatus.SUSPENDED)
    last, who = await changed(store, last)
    assert who == ("a",)
    # A verdict that a call's end brings is a change as well.
    await store.end_call("b", None, lambda ledger: ledger.tick(NOON + 1_000 * HOUR))
    assert (await store.ledger("b")).trial is None
    assert (await changed(store, last))[1] == ("b",)


async def test_a_call_that_decides_nothing_is_no_change(store: Store) -> None:
    await store.import_version(version("a", "one", "+1"))
    await begin_trial(store, "a")
    last = await store.last_change()
    await store.end_call("a", call("x"), lambda ledger: ledger.observe(CallOutcome(1), NOON))
    assert await store.last_change() == last


async def test_each_tenant_is_told_once_however_often_it_changed_and_many_in_parts(store: Store) -> None:
    count = MAX_READ + 7
    for n in range(count):
        await store.import_version(version(f"t{n}", "one", f"+{n}"))
    await store.import_version(version("t0", "two", "+0"))
    first = await store.changes(0)
    assert first.more
    assert len(first.tenant_ids) == MAX_READ
    last, rest = await changed(store, first.last)
    told = [*first.tenant_ids, *rest]
    assert sorted(told) == sorted(f"t{n}" for n in range(count))
    assert told[-1] == "t0"
    assert await changed(store, last) == (last, ())


async def test_no_change_is_passed_over_while_several_programs_write(backing: Backing) -> None:
    """Numbers are given in the order of commits: whoever has read up to one has missed none before it."""
    stores = [await backing.open() for _ in range(3)]
    reader = await backing.open()
    try:
        for n in range(12):
            await stores[0].import_version(version(f"t{n}", "zero", f"+{n}"))
        last = await reader.last_change()
        seen: list[str] = []
        writing = [
            asyncio.ensure_future(stores[n % 3].import_version(version(f"t{n}", "one", f"+{n}")))
            for n in range(12)
        ]
        while not all(each.done() for each in writing):
            found = await reader.changes(last)
            last = found.last
            seen += found.tenant_ids
        await asyncio.gather(*writing)
        seen += (await reader.changes(last)).tenant_ids
        assert sorted(seen) == sorted(f"t{n}" for n in range(12))
    finally:
        for each in (*stores, reader):
            await each.close()


async def test_due_trials_are_found_by_time_and_the_earliest_time_counts(store: Store) -> None:
    await store.watch_trial("a", 2_000)
    await store.watch_trial("b", 1_000)
    await store.watch_trial("a", 3_000)
    assert await store.due_trials(999) == ()
    assert await store.due_trials(1_000) == (DueTrial("b", 1_000),)
    assert await store.due_trials(5_000) == (DueTrial("b", 1_000), DueTrial("a", 2_000))
    await store.watch_trial("a", 500)
    # Who has seen what is noted no more changes nothing.
    await store.trial_looked_at(DueTrial("a", 2_000), None)
    await store.trial_looked_at(DueTrial("b", 1_000), 9_000)
    assert await store.due_trials(9_000) == (DueTrial("a", 500), DueTrial("b", 9_000))
    await store.trial_looked_at(DueTrial("a", 500), None)
    assert await store.due_trials(9_000) == (DueTrial("b", 9_000),)


class Clock:
    """The time, as the test sets it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


async def on_trial(registry: Registry, clock: Clock, tenant_id: str = "a", number: str = "+15550100") -> int:
    """Put a version of a new tenant on trial for an hour."""
    lifecycle = Lifecycle(registry.store, now=clock)
    await registry.import_tenant(tenant(tenant_id, number), author="op", reason="first")
    drafted = await lifecycle.draft(
        tenant(tenant_id, number, greeting="Two."), lifecycle.origin("ada", "new")
    )
    plan = CanaryPlan(
        version=drafted.version, baseline=1, failures=Bound(absolute=0.1), max_duration_ms=HOUR_MS
    )
    await lifecycle.begin_trial(tenant_id, plan, lifecycle.origin("ada", "try it"))
    return drafted.version


async def test_a_trial_ends_when_its_time_is_over_without_any_call(registry: Registry) -> None:
    clock = Clock()
    lifecycle = Lifecycle(registry.store, now=clock)
    tried = await on_trial(registry, clock)
    clock.now += HOUR - timedelta(milliseconds=1)
    assert await lifecycle.end_due_trials() == ()
    assert (await lifecycle.ledger("a")).trial is not None
    clock.now += timedelta(milliseconds=1)
    ((tenant_id, edit),) = await lifecycle.end_due_trials()
    assert tenant_id == "a"
    assert edit.ended is not None
    assert edit.ended.decision is Decision.ROLL_BACK
    ledger = await lifecycle.ledger("a")
    assert ledger.trial is None
    assert [each.state.value for each in ledger.history.versions] == ["active", "refused"]
    (line, *_) = await lifecycle.log("a")
    assert (line.deed, line.version, line.origin.author) == (Deed.TRIAL_ROLLED_BACK, tried, "canary")
    assert await lifecycle.end_due_trials() == ()
    assert await registry.store.due_trials(2**62) == ()


async def test_several_nodes_end_a_trial_once(backing: Backing) -> None:
    clock = Clock()
    nodes = [await backing.open_registry() for _ in range(4)]
    try:
        for n in range(5):
            await on_trial(nodes[0], clock, f"t{n}", f"+1555010{n}")
        clock.now += HOUR
        lifecycles = [Lifecycle(each.store, now=clock) for each in nodes]
        ended = await asyncio.gather(*(each.end_due_trials() for each in lifecycles))
        assert sorted(tenant_id for each in ended for tenant_id, _ in each) == [f"t{n}" for n in range(5)]
        for n in range(5):
            lines = await lifecycles[0].log(f"t{n}")
            assert [each.deed for each in lines].count(Deed.TRIAL_ROLLED_BACK) == 1
        assert await nodes[0].store.due_trials(2**62) == ()
    finally:
        for each in nodes:
            await each.close()


async def test_a_later_trial_is_not_ended_at_an_earlier_one_s_time(registry: Registry) -> None:
    clock = Clock()
    lifecycle = Lifecycle(registry.store, now=clock)
    await on_trial(registry, clock)
    await lifecycle.end_trial("a", lifecycle.origin("ada", "another one"))
    drafted = await lifecycle.draft(tenant("a", greeting="Three."), lifecycle.origin("ada", "new"))
    clock.now += HOUR / 2
    plan = CanaryPlan(version=drafted.version, baseline=1, max_duration_ms=HOUR_MS)
    await lifecycle.begin_trial("a", plan, lifecycle.origin("ada", "try it"))
    clock.now += HOUR / 2
    assert await lifecycle.end_due_trials() == ()
    assert (await lifecycle.ledger("a")).trial is not None
    # Looked at in vain, it is looked at again when its own time is over.
    assert await registry.store.due_trials(2**62) == (DueTrial("a", NOON_MS + 3 * HOUR_MS // 2),)
    clock.now += HOUR / 2
    assert len(await lifecycle.end_due_trials()) == 1


async def test_a_tenant_that_cannot_be_used_holds_up_no_other(backing: Backing) -> None:
    if backing.name != "sqlite":
        pytest.skip("only a file is damaged by itself")
    clock = Clock()
    registry = await backing.open_registry()
    for tenant_id, number in (("a", "+15550100"), ("b", "+15550101")):
        await on_trial(registry, clock, tenant_id, number)
    await registry.close()
    (backing.directory / "tenants" / "client-a.db").write_bytes(b"not a database" * 1_000)
    registry = await backing.open_registry()
    try:
        clock.now += HOUR
        lifecycle = Lifecycle(registry.store, now=clock)
        assert [tenant_id for tenant_id, _ in await lifecycle.end_due_trials()] == ["b"]
        again = NOON_MS + HOUR_MS + AGAIN_MS
        assert await registry.store.due_trials(2**62) == (DueTrial("a", again),)
    finally:
        await registry.close()


async def test_a_call_that_sees_a_trial_s_time_over_has_it_ended(registry: Registry) -> None:
    """The note was lost with a program that ended between its two commits."""
    clock = Clock()
    await on_trial(registry, clock)
    for due in await registry.store.due_trials(2**62):
        await registry.store.trial_looked_at(due, None)
    registry.lifecycle = Lifecycle(registry.store, now=clock)
    over: list[str] = []
    registry.on_trial_over = over.append
    await registry.context_for(dialled("+15550100"), call_id="c")
    assert over == []
    clock.now += HOUR
    context = await registry.context_for(dialled("+15550100"), call_id="c")
    assert (over, context.config_version) == (["a"], 1)
    await registry.lifecycle.watch_trial("a")
    assert len(await registry.lifecycle.end_due_trials()) == 1


async def test_a_version_that_no_call_had_is_told_of_once(registry: Registry) -> None:
    new: list[str] = []
    registry.on_new_version = lambda tenant_id, _: new.append(tenant_id)
    await registry.import_tenant(tenant("a"), author="op", reason="first")
    assert await registry.served_versions("a")
    for n in range(3):
        await registry.context_for(dialled("+15550100"), call_id=f"c{n}")
    assert new == []  # It was prepared before.
    await registry.import_tenant(tenant("a", greeting="Two."), author="op", reason="second")
    for n in range(3):
        await registry.context_for(dialled("+15550100"), call_id=f"d{n}")
    assert new == ["a"]


async def test_what_a_tenant_s_calls_get_is_the_active_version_and_the_one_on_trial(
    registry: Registry,
) -> None:
    clock = Clock()
    registry.lifecycle = Lifecycle(registry.store, now=clock)
    await on_trial(registry, clock)

    async def served() -> list[tuple[int, str]]:
        return [(each.config_version, each.config.greeting) for each in await registry.served_versions("a")]

    assert await served() == [(1, "Hello."), (2, "Two.")]
    clock.now += HOUR
    assert await served() == [(1, "Hello.")]
    await registry.set_status("a", TenantStatus.SUSPENDED)
    assert await served() == []
    assert await registry.served_versions("nobody") == ()


async def test_a_trial_s_note_goes_with_its_tenant_to_another_database(backing: Backing) -> None:
    if backing.name != "postgres":
        pytest.skip("both databases at once")
    from tenancy.migration import Migration
    from tenancy.postgres_store import PostgresStore
    from tenancy.sqlite_store import SqliteStore

    files, there = await SqliteStore.open(backing.directory), await backing.open()
    assert isinstance(there, PostgresStore)
    try:
        await files.import_version(version("a", "one", "+1"))
        await begin_trial(files, "a")
        await files.watch_trial("a", 5_000)
        migration = Migration(files, there)
        async for report in migration.to_postgres():
            assert report.reason == "", report
        assert await there.due_trials(2**62) == (DueTrial("a", 5_000),)
        for due in await there.due_trials(2**62):
            await there.trial_looked_at(due, 4_000)
        async for report in migration.to_sqlite():
            assert report.reason == "", report
        assert await files.due_trials(2**62) == (DueTrial("a", 4_000),)
    finally:
        await files.close()
        await there.close()
