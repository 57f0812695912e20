"""What a node does about changes: once for each, bounded, and without one tenant's fault being another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from config.node import PlatformProviders
from config.tenant import TenantConfig
from mediaserver import config_watch
from mediaserver.config_watch import ConfigWatch
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import CONFIG_CHANGES
from mediaserver.telemetry.trial_log import MAX_SHOWN, TrialLog
from tenancy import ActiveTenant, Registry, ResolvedProvider, StoreError, TenantStatus
from tenancy.canary import Bound, CanaryPlan, Decision, Verdict
from tests.tenancy.conftest import dialled, tenant


class Warmer:
    """Notes whose phrases are to be made."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.missing = 0
        self.failing: Callable[[TenantConfig], None] = lambda _: None

    async def __call__(self, config: TenantConfig, chain: tuple[ResolvedProvider, ...]) -> int:
        assert chain
        self.failing(config)
        self.made.append((config.tenant_id, config.greeting))
        return self.missing


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    await registry.import_tenant(tenant("a"), author="op", reason="first")
    await registry.import_tenant(tenant("b", "+15550101"), author="op", reason="first")
    yield registry
    await registry.close()


@asynccontextmanager
async def running(watch: ConfigWatch, warmer: Warmer) -> AsyncIterator[None]:
    task = asyncio.create_task(watch.run(warmer))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is the synchronisation
            await asyncio.sleep(0.005)


def watch_on(registry: Registry) -> tuple[ConfigWatch, Meters]:
    meters = Meters()
    return ConfigWatch(registry, meters, TrialLog(meters)), meters


async def test_a_change_by_another_process_is_made_once_and_nobody_else_is_asked(
    tmp_path: Path, registry: Registry
) -> None:
    watch, meters = watch_on(registry)
    warmer = Warmer()
    await watch.begin()
    assert [each.config.tenant_id for each in watch.tenants] == ["a", "b"]
    other = await Registry.open(tmp_path, PlatformProviders(), {})
    try:
        async with running(watch, warmer):
            await other.import_tenant(tenant("a", greeting="Two."), author="op", reason="second")
            await _until(lambda: meters.value(CONFIG_CHANGES, "prepared") == 1)
            assert warmer.made == [("a", "Two.")]
            assert [each.config.greeting for each in watch.tenants] == ["Two.", "Hello."]
            # The first call finds it known, and tells of nothing.
            await registry.context_for(dialled("+15550100"), call_id="c")
            await other.import_tenant(tenant("c", "+15550102"), author="op", reason="new")
            await _until(lambda: ("c", "Hello.") in warmer.made)
            await other.set_status("b", TenantStatus.SUSPENDED)
            await _until(lambda: meters.value(CONFIG_CHANGES, "prepared") == 3)
            assert [each.config.tenant_id for each in watch.tenants] == ["a", "c"]
            assert warmer.made == [("a", "Two."), ("c", "Hello.")]
    finally:
        await other.close()


async def test_a_version_on_trial_is_made_beside_the_active_one(registry: Registry) -> None:
    lifecycle = registry.lifecycle
    origin = lifecycle.origin("ada", "try it")
    drafted = await lifecycle.draft(tenant("a", greeting="Two."), origin)
    plan = CanaryPlan(version=drafted.version, baseline=1, failures=Bound(absolute=0.1))
    await lifecycle.begin_trial("a", plan, origin)
    watch, meters = watch_on(registry)
    warmer = Warmer()
    await watch.begin()  # A node that starts in the middle of it.
    async with running(watch, warmer):
        await _until(lambda: meters.value(CONFIG_CHANGES, "prepared") == 1)
    assert warmer.made == [("a", "Hello."), ("a", "Two.")]


async def test_one_tenant_s_fault_is_not_another_s(registry: Registry) -> None:
    watch, meters = watch_on(registry)
    warmer = Warmer()

    def fail(config: TenantConfig) -> None:
        if config.tenant_id == "a":
            raise ValueError("a library's own")

    warmer.failing, warmer.missing = fail, 2
    await watch.begin()
    async with running(watch, warmer):
        watch.changed("a")
        watch.changed("b")
        await _until(lambda: meters.value(CONFIG_CHANGES, "incomplete") == 1)
        await _until(lambda: meters.value(CONFIG_CHANGES, "failed") == 1)
    assert warmer.made == [("b", "Hello.")]


async def test_what_waits_is_bounded_and_each_tenant_waits_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_watch, "MAX_PENDING", 2)
    watch, meters = watch_on(registry)
    await watch.begin()
    for tenant_id in ("a", "b", "a", "c", "b"):
        watch.changed(tenant_id)
    assert meters.value(CONFIG_CHANGES, "dropped") == 1
    warmer = Warmer()
    async with running(watch, warmer):
        await _until(lambda: meters.value(CONFIG_CHANGES, "prepared") == 2)
    assert sorted(warmer.made) == [("a", "Hello."), ("b", "Hello.")]


async def test_an_older_look_that_takes_longer_does_not_undo_a_newer_one(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, meters = watch_on(registry)
    await watch.begin()
    await registry.import_tenant(tenant("a", greeting="Two."), author="op", reason="second")
    right = registry.served_versions
    looked, may_end = asyncio.Event(), asyncio.Event()

    async def slow_at_first(tenant_id: str) -> tuple[ActiveTenant, ...]:
        found = await right(tenant_id)
        if not looked.is_set():
            looked.set()
            await may_end.wait()
        return found

    monkeypatch.setattr(registry, "served_versions", slow_at_first)
    async with running(watch, Warmer()):
        watch.changed("a")
        await looked.wait()
        await registry.import_tenant(tenant("a", greeting="Three."), author="op", reason="third")
        watch.changed("a")
        watch.changed("b")
        await _until(lambda: meters.value(CONFIG_CHANGES, "prepared") == 1)
        may_end.set()
        await _until(lambda: meters.value(CONFIG_CHANGES, "prepared") == 3)
    (known,) = [each for each in watch.tenants if each.config.tenant_id == "a"]
    assert known.config.greeting == "Three."


async def test_a_store_that_fails_is_said_once_and_looked_at_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loguru import logger

    watch, meters = watch_on(registry)
    await watch.begin()
    said: list[str] = []
    number = logger.add(said.append, format="{message}", level="ERROR")
    store = registry.store
    right = store.changes

    async def wrong(_: int) -> object:
        raise StoreError("the disk is gone")

    try:
        monkeypatch.setattr(store, "changes", wrong)
        for _ in range(3):
            await watch.look()
        assert said == ["changes of configurations are not noticed at present: the disk is gone\n"]
        monkeypatch.setattr(store, "changes", right)
        await registry.import_tenant(tenant("a", greeting="Two."), author="op", reason="second")
        await watch.look()
        warmer = Warmer()
        async with running(watch, warmer):
            await _until(lambda: meters.value(CONFIG_CHANGES, "prepared") == 1)
    finally:
        logger.remove(number)


async def test_the_latest_trials_are_shown_and_all_are_counted(registry: Registry) -> None:
    lifecycle = registry.lifecycle
    origin = lifecycle.origin("ada", "try it")
    drafted = await lifecycle.draft(tenant("a", greeting="Two."), origin)
    plan = CanaryPlan(version=drafted.version, baseline=1)
    await lifecycle.begin_trial("a", plan, origin)
    ledger = await lifecycle.ledger("a")
    assert ledger.trial is not None
    trials = TrialLog(Meters())
    for n in range(MAX_SHOWN + 5):
        edit = ledger.end(ledger.trial, Verdict(Decision.ROLL_BACK, f"reason {n}", n), origin.at)
        trials.ended("a", edit)
    status = trials.status()
    assert status["ended"] == {"roll_back": MAX_SHOWN + 5}
    latest = status["latest"]
    assert isinstance(latest, list)
    assert [each["reason"] for each in latest] == [f"reason {n}" for n in range(MAX_SHOWN + 4, 4, -1)]
