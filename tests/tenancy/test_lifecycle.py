"""Drafts, activations, trials and files of two tenants: what is done to one is never seen at the other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from config.node import NodeConfig, PlatformProviders
from config.tenant import TenantConfig
from tenancy import (
    CallRecord,
    ChangeRefused,
    NumberTaken,
    Registry,
    StoreError,
    UnknownTenant,
    UnknownVersion,
    VersionConflict,
    VersionInvalid,
    open_registry,
)
from tenancy.canary import CallOutcome, CanaryPlan, in_share
from tenancy.lifecycle import CURRENT, Expected, Lifecycle, Report
from tenancy.sqlite_store import SqliteStore
from tenancy.versions import Origin, VersionState
from tests.tenancy.conftest import Backing, dialled, tenant
from tests.tenancy.test_store_contract import numbers_of

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)
T = TypeVar("T")
ADA = Origin("ada", "because", NOON)


@pytest.fixture
async def two(backing: Backing) -> AsyncIterator[tuple[Registry, Registry]]:
    """Two processes' registries on one store."""
    registries = await backing.open_registry(), await backing.open_registry()
    await registries[0].import_tenant(tenant("a", greeting="One."), author="op", reason="first")
    yield registries
    for each in registries:
        await each.close()


async def test_what_one_process_activates_the_other_has_at_its_next_call(
    two: tuple[Registry, Registry],
) -> None:
    here, there = two
    up = await there.context_for(dialled("+15550100"), call_id="up")
    for number, words in enumerate(("Two.", "Three.", "Four."), 2):
        made = await here.lifecycle.draft(tenant("a", greeting=words), ADA)
        await here.lifecycle.activate("a", made.version, ADA)
        context = await there.context_for(dialled("+15550100"), call_id="next")
        assert (context.config_version, context.config.greeting) == (number, words)
    await there.lifecycle.roll_back("a", 1, ADA)
    context = await here.context_for(dialled("+15550100"), call_id="next")
    assert (context.config_version, context.config.greeting) == (5, "One.")
    assert (up.config_version, up.config.greeting) == (1, "One.")


async def test_numbers_come_and_go_with_their_version(two: tuple[Registry, Registry]) -> None:
    here, there = two
    await here.import_tenant(tenant("b", "+15550200"), author="op", reason="first")
    made = await here.lifecycle.draft(tenant("a", "+15550100", "+15550101", greeting="Two."), ADA)
    await here.lifecycle.activate("a", made.version, ADA)
    assert (await there.resolve(dialled("+15550101"))).tenant_id == "a"
    thief = await here.lifecycle.draft(tenant("b", "+15550200", "+15550101"), ADA)
    with pytest.raises(NumberTaken):
        await there.lifecycle.activate("b", thief.version, ADA)
    await there.lifecycle.roll_back("a", 1, ADA)
    await there.lifecycle.activate("b", thief.version, ADA)
    assert (await here.resolve(dialled("+15550101"))).tenant_id == "b"
    with pytest.raises(NumberTaken):
        await here.lifecycle.roll_back("a", 2, ADA)
    assert (await here.resolve(dialled("+15550101"))).tenant_id == "b"


async def test_a_trial_is_for_its_share_and_its_time(backing: Backing) -> None:
    store = await backing.open()
    try:
        times = [NOON]
        lifecycle = Lifecycle(store, now=lambda: times[-1])
        await Registry(store, PlatformProviders(), {}).import_tenant(tenant("a"), author="op", reason="first")
        made = await lifecycle.draft(tenant("a", greeting="Two."), ADA)
        plan = CanaryPlan(version=made.version, baseline=1, share=3_000, max_duration_ms=60_000)
        await lifecycle.begin_trial("a", plan, ADA)
        serving = await store.serving("a")
        assert serving is not None
        for n in range(50):
            expected = 2 if in_share(f"c{n}", 2, 3_000) else 1
            assert lifecycle.arm_of(serving, f"c{n}").version == expected
        times.append(NOON + timedelta(minutes=1))
        assert {lifecycle.arm_of(serving, f"c{n}").version for n in range(50)} == {1}
        edit = await lifecycle.end_call("a", CallOutcome(1))
        assert edit is not None
        assert edit.ended is not None
        assert (await lifecycle.ledger("a")).trial is None
        assert (await store.serving("a")) is not None
    finally:
        await store.close()


async def test_what_is_refused_leaves_drafts_and_trials_as_they_were(two: tuple[Registry, Registry]) -> None:
    here, _ = two
    await here.import_tenant(tenant("b", "+15550200"), author="op", reason="first")
    for words in ("Two.", "Three."):
        await here.lifecycle.draft(tenant("a", greeting=words), ADA)
    thief = await here.lifecycle.draft(tenant("a", "+15550100", "+15550200"), ADA)
    same = await here.lifecycle.draft(tenant("a", greeting="One."), ADA)
    await here.lifecycle.begin_trial("a", CanaryPlan(version=2, baseline=1, max_duration_ms=600_000), ADA)
    before = await here.lifecycle.ledger("a"), await here.lifecycle.log("a")
    due = await here.store.due_trials(2**62)
    with pytest.raises(ChangeRefused, match="on trial"):
        await here.lifecycle.begin_trial("a", CanaryPlan(version=3, baseline=1, max_duration_ms=60_000), ADA)
    with pytest.raises(NumberTaken):
        await here.lifecycle.activate("a", thief.version, ADA)
    with pytest.raises(ChangeRefused, match="this very content"):
        await here.lifecycle.activate("a", same.version, ADA)
    with pytest.raises(VersionConflict):
        await here.lifecycle.activate("a", 3, ADA, expected=7)
    assert (await here.lifecycle.ledger("a"), await here.lifecycle.log("a")) == before
    assert await here.store.due_trials(2**62) == due
    # What is not refused is noted whole, in one step.
    await here.lifecycle.activate("a", 3, ADA)
    deeds = [line.deed.value for line in await here.lifecycle.log("a", 3)]
    assert deeds == ["trial rolled back", "activated", "validated"]


async def test_a_draft_that_cannot_be_used_is_refused_for_good(sqlite_registry: Registry) -> None:
    async def dry_run(config: TenantConfig) -> Report:
        return Report(("voice.name: no such voice",) if config.voice.name == "bad" else (), ())

    await sqlite_registry.import_tenant(tenant("a"), author="op", reason="first")
    lifecycle = Lifecycle(sqlite_registry.store, dry_run=dry_run)
    bad = tenant("a").model_copy(update={"voice": tenant("a").voice.model_copy(update={"name": "bad"})})
    made = await lifecycle.draft(bad, ADA)
    with pytest.raises(VersionInvalid, match="no such voice"):
        await lifecycle.activate("a", made.version, ADA)
    ledger = await lifecycle.ledger("a")
    assert ledger.history.versions[1].state is VersionState.REFUSED
    with pytest.raises(ChangeRefused, match="version 2 is refused; it must be validated"):
        await lifecycle.activate("a", made.version, ADA)
    with pytest.raises(ChangeRefused, match="it must be draft"):
        await lifecycle.validate("a", 1, ADA)
    for number in (0, 9, 2**40):
        with pytest.raises(UnknownVersion):
            await lifecycle.activate("a", number, ADA)
    for name in ("b", "../a", "x" * 100, "\0"):
        with pytest.raises(UnknownTenant):
            await lifecycle.draft(bad.model_copy(update={"tenant_id": name}), ADA)
    with pytest.raises(ChangeRefused, match="author"):
        lifecycle.origin(" ", "x")
    assert (await sqlite_registry.context_for(dialled("+15550100"), call_id="c")).config_version == 1


async def test_a_node_that_starts_again_takes_nobody_s_change_back(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(tenant("a", greeting="File.").model_dump(mode="json")))
    node = NodeConfig(data_dir=tmp_path / "data", tenants=(file,))

    async def start() -> Registry:
        return await open_registry(node, {})

    async def words(registry: Registry) -> str:
        return (await registry.context_for(dialled("+15550100"), call_id="c")).config.greeting

    registry = await start()
    made = await registry.lifecycle.draft(tenant("a", "+15550100", "+15550105", greeting="Hand."), ADA)
    await registry.lifecycle.activate("a", made.version, ADA)
    tried = await registry.lifecycle.draft(tenant("a", "+15550100", "+15550105", greeting="Tried."), ADA)
    plan = CanaryPlan(version=tried.version, baseline=made.version, share=5_000)
    await registry.lifecycle.begin_trial("a", plan, registry.lifecycle.origin("ada", "now"))
    await registry.close()
    registry = await start()
    assert {
        (await registry.context_for(dialled("+15550105"), call_id=f"c{n}")).config.greeting for n in range(20)
    } == {"Hand.", "Tried."}
    assert (await registry.lifecycle.ledger("a")).trial is not None
    await registry.close()
    file.write_text(yaml.safe_dump(tenant("a", greeting="Newer.").model_dump(mode="json")))
    registry = await start()
    assert await words(registry) == "Newer."
    assert (await registry.lifecycle.ledger("a")).trial is None
    await registry.close()


# -- two tenants, any order ----------------------------------------------------------------------------

TENANTS = ("a", "b")
NUMBERS = {"a": ("+15550100",), "b": ("+15550200",)}


class TwoTenants(RuleBasedStateMachine):
    """Random changes by authors who may have seen an older state, in a real store, against a plain model."""

    directories: Iterator[Path]

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = self.do(SqliteStore.open(next(self.directories)))
        self.registry = Registry(self.store, PlatformProviders(), {})
        self.lifecycle = self.registry.lifecycle
        self.words: dict[str, list[str]] = {}
        self.active: dict[str, int] = {}
        self.calls = itertools.count()
        for name in TENANTS:
            words = f"{name} begins."
            self.do(self.registry.import_tenant(self.config(name, words), author="op", reason="first"))
            self.words[name], self.active[name] = [words], 1

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def config(self, name: str, words: str) -> TenantConfig:
        return tenant(name, *NUMBERS[name], greeting=words)

    @rule(name=st.sampled_from(TENANTS), words=st.sampled_from(("x", "y", "z")))
    def draft(self, name: str, words: str) -> None:
        text = f"{name} says {words}."
        try:
            made = self.do(self.lifecycle.draft(self.config(name, text), ADA))
        except ChangeRefused:
            return
        self.words[name].append(text)
        assert made.version == len(self.words[name])

    @rule(
        name=st.sampled_from(TENANTS),
        version=st.integers(1, 8),
        expected=st.sampled_from((CURRENT, None, 1, 2, 3)),
    )
    def activate(self, name: str, version: int, expected: Expected) -> None:
        try:
            made = self.do(self.lifecycle.activate(name, version, ADA, expected=expected))
        except VersionConflict:
            assert expected != CURRENT
            assert expected != self.active[name]
        except (ChangeRefused, UnknownVersion):
            pass
        else:
            assert expected in (CURRENT, self.active[name])
            self.active[name] = made.version

    @rule(name=st.sampled_from(TENANTS), to=st.integers(1, 8))
    def roll_back(self, name: str, to: int) -> None:
        try:
            made = self.do(self.lifecycle.roll_back(name, to, ADA))
        except (ChangeRefused, UnknownVersion):
            return
        self.words[name].append(self.words[name][to - 1])
        self.active[name] = made.version

    @rule(name=st.sampled_from(TENANTS), version=st.integers(1, 8))
    def try_it(self, name: str, version: int) -> None:
        if version == self.active[name]:
            return
        plan = CanaryPlan(version=version, baseline=self.active[name], share=5_000)
        try:
            self.do(self.lifecycle.begin_trial(name, plan, self.lifecycle.origin("ada", "now")))
        except (ChangeRefused, UnknownVersion):
            return

    @rule(name=st.sampled_from(TENANTS), bad=st.booleans())
    def calls_end(self, name: str, bad: bool) -> None:
        for _ in range(20):
            call_id = f"call-{next(self.calls)}"
            context = self.do(self.registry.context_for(dialled(NUMBERS[name][0]), call_id=call_id))
            assert context.config.greeting == self.words[name][context.config_version - 1]
            failed = bad and context.config_version != self.active[name]
            record = CallRecord(call_id, NUMBERS[name][0], "x", context.config_version, NOON, NOON, "over")
            edit = self.do(
                self.registry.record_call(context, record, CallOutcome(context.config_version, failed))
            )
            if edit is not None and edit.ended is not None and edit.version.state is VersionState.ACTIVE:
                self.active[name] = edit.version.version

    @invariant()
    def each_has_its_own(self) -> None:
        for name in TENANTS:
            ledger = self.do(self.lifecycle.ledger(name))
            assert ledger.history.active is not None
            assert ledger.history.active.version == self.active[name]
            assert len(ledger.history.versions) == len(self.words[name])
            trial = ledger.trial
            assert trial is None or trial.plan.baseline == self.active[name]
            allowed = {self.active[name]} | ({trial.plan.version} if trial else set())
            for call_id in ("p", "q", "r"):
                context = self.do(self.registry.context_for(dialled(NUMBERS[name][0]), call_id=call_id))
                assert context.tenant_id == name
                assert context.config_version in allowed
                assert context.config.greeting == self.words[name][context.config_version - 1]
                assert context.config.greeting.startswith(f"{name} ")
            assert self.do(numbers_of(self.store, name)) == NUMBERS[name]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.do(self.store.close())
            self.loop.close()


def test_two_tenants_in_any_order(tmp_path: Path) -> None:
    class Here(TwoTenants):
        directories = (tmp_path / f"run-{n}" for n in itertools.count())

    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(Here, settings=settings(max_examples=12, stateful_step_count=14, deadline=None))


async def test_a_trial_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    import sqlite3

    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    await registry.import_tenant(tenant("a"), author="op", reason="first")
    made = await registry.lifecycle.draft(tenant("a", greeting="Two."), ADA)
    plan = CanaryPlan(version=made.version, baseline=1)
    await registry.lifecycle.begin_trial("a", plan, ADA)
    with sqlite3.connect(tmp_path / "tenants" / "client-a.db") as database:
        database.execute("UPDATE trials SET body = '{}'")
    database.close()
    try:
        with pytest.raises(StoreError, match="a trial cannot be read"):
            await registry.lifecycle.ledger("a")
        # Calls go on: which version they get does not hang on it.
        assert (await registry.context_for(dialled("+15550100"), call_id="c")).tenant_id == "a"
    finally:
        await registry.close()
