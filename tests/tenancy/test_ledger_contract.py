"""What `tenancy.store` says of versions' lives and trials, on every backing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from tenancy import ChangeRefused, NumberTaken, TenantMoved, TenantStatus, UnknownTenant, VersionConflict
from tenancy.canary import Bound, CallOutcome, Decision
from tenancy.ledger import Deed, Edit, Ledger
from tenancy.schema_history import SchemaHistory
from tenancy.sqlite_store import SqliteStore
from tenancy.store import Serving, ServingTexts, Store, VersionKey
from tenancy.versions import VersionState
from tests.tenancy.conftest import Backing
from tests.tenancy.test_store_contract import (
    NOON,
    add_valid,
    addresses,
    begin_trial,
    call,
    digest,
    numbers_of,
    origin,
    version,
)

RATES = {"failures": Bound(absolute=0.05), "transfers": None, "turn_latency": None, "cost": None}


@pytest.fixture
async def store(backing: Backing) -> AsyncIterator[Store]:
    store = await backing.open()
    await store.import_version(version("a", "one", "+1"))
    await store.import_version(version("b", "one", "+9"))
    yield store
    await store.close()


def states(ledger: Ledger) -> list[str]:
    return [each.state.value for each in ledger.history.versions]


async def test_a_life_is_there_after_opening_again(backing: Backing) -> None:
    store = await backing.open()
    await store.import_version(version("a", "one", "+1"))
    two = await add_valid(store, "a", "two")
    await store.edit(
        "a", lambda ledger: ledger.activate(two, origin("bo", 1), expected=1), addresses("+1", "+2")
    )
    await store.edit("a", lambda ledger: ledger.roll_back(1, origin("cy", 2), expected=2), addresses("+1"))
    await store.edit("a", lambda ledger: ledger.draft(digest("four"), 1, "four", origin("di", 3)))
    before = await store.ledger("a")
    await store.close()
    store = await backing.open()
    try:
        ledger = await store.ledger("a")
        assert ledger == before
        assert states(ledger) == ["superseded", "rolled_back", "active", "draft"]
        third = ledger.history.versions[2]
        assert (third.restores, third.content_hash, third.created) == (1, digest("one"), origin("cy", 2))
        assert ledger.history.versions[1].changed == origin("cy", 2)
        content = await store.content("a", 3)
        assert content is not None
        assert content.body == "one"
        assert await store.active("a") == VersionKey(3, digest("one"))
        assert await numbers_of(store, "a") == ("+1",)
        lines = await store.config_log("a", 9)
        assert [(each.deed, each.version, each.origin.author) for each in lines] == [
            (Deed.DRAFTED, 4, "di"),
            (Deed.ROLLED_BACK, 3, "cy"),
            (Deed.ACTIVATED, 2, "bo"),
            (Deed.VALIDATED, 2, "ada"),
            (Deed.DRAFTED, 2, "ada"),
            (Deed.IMPORTED, 1, "op"),
        ]
        newest = await store.config_log("a", 2)
        assert [*newest, *await store.config_log("a", 9, before=newest[-1].entry)] == list(lines)
        assert await store.config_log("a", 9, before=lines[-1].entry) == ()
    finally:
        await store.close()


async def test_of_two_activations_at_once_one_wins(backing: Backing) -> None:
    """Two programs (SQLite), two nodes (Postgres); whoever lost has changed no number either."""
    stores = [await backing.open(), await backing.open()]
    try:
        await stores[0].import_version(version("a", "one", "+1"))
        drafts = [await add_valid(stores[0], "a", f"draft {n}") for n in range(6)]

        def attempt(n: int, number: int) -> asyncio.Future[Edit]:
            return asyncio.ensure_future(
                stores[n % 2].edit(
                    "a",
                    lambda ledger: ledger.activate(number, origin(f"author {n}"), expected=1),
                    addresses("+1", f"+7{n}"),
                )
            )

        done = await asyncio.gather(*(attempt(*each) for each in enumerate(drafts)), return_exceptions=True)
        won = [n for n, each in enumerate(done) if not isinstance(each, BaseException)]
        assert len(won) == 1
        for n, each in enumerate(done):
            if n not in won:
                assert isinstance(each, VersionConflict)
                assert (each.expected, each.found) == (1, drafts[won[0]])
        for store in stores:
            active = await store.active("a")
            assert active is not None
            assert active.version == drafts[won[0]]
            assert await numbers_of(store, "a") == ("+1", f"+7{won[0]}")
        assert states(await stores[0].ledger("a")).count("active") == 1
    finally:
        for store in stores:
            await store.close()


async def test_a_number_of_another_tenant_leaves_everything_as_it_was(store: Store) -> None:
    two = await add_valid(store, "a", "two")
    before, log = await store.ledger("a"), await store.config_log("a", 99)
    with pytest.raises(NumberTaken, match=r"\+9 belongs to b"):
        await store.edit(
            "a", lambda ledger: ledger.activate(two, origin(), expected=1), addresses("+2", "+9")
        )
    assert await store.ledger("a") == before
    assert await store.config_log("a", 99) == log
    assert await numbers_of(store, "a") == ("+1",)
    assert await numbers_of(store, "b") == ("+9",)


async def test_who_is_not_here_is_not_changed(store: Store) -> None:
    with pytest.raises(UnknownTenant):
        await store.edit("nobody", lambda ledger: ledger.draft(digest("x"), 1, "x", origin()))
    await store.set_status("a", TenantStatus.MOVED, "node2")
    with pytest.raises(TenantMoved):
        await store.edit("a", lambda ledger: ledger.draft(digest("x"), 1, "x", origin()))
    assert await store.tenant("nobody") is None
    assert len((await store.ledger("a")).history.versions) == 1


async def test_an_import_supersedes_and_ends_the_trial(store: Store) -> None:
    await begin_trial(store, "a")
    await store.import_version(version("a", "three", "+1"))
    ledger = await store.ledger("a")
    assert states(ledger) == ["superseded", "refused", "active"]
    assert ledger.trial is None
    serving = await store.serving("a")
    assert serving == Serving(VersionKey(3, digest("three")))
    (trial,) = await store.trials("a", 9)
    assert await store.trials("a", 9, before=trial.plan.version + 1) == (trial,)
    assert await store.trials("a", 9, before=trial.plan.version) == ()
    assert trial.verdict is not None
    assert "version 3 is active now" in trial.verdict.reason


async def test_what_is_served_has_the_trial_while_it_runs(store: Store) -> None:
    assert await store.serving("nobody") is None
    assert await store.serving("a") == Serving(VersionKey(1, digest("one")))
    plan = await begin_trial(store, "a")
    serving = await store.serving("a")
    assert serving is not None
    assert serving.active == VersionKey(1, digest("one"))
    assert serving.trial is not None
    assert serving.trial.key == VersionKey(2, digest("trial of a"))
    assert serving.trial.share == 5_000
    assert serving.trial.ends_at_ms == int(NOON.timestamp() * 1000) + plan.max_duration_ms
    assert await store.serving("b") == Serving(VersionKey(1, digest("one")))
    assert await store.active("a") == VersionKey(1, digest("one"))
    # Imported again as it is, the trial goes on; one at a time.
    assert await store.import_version(version("a", "one", "+1")) == 1
    three = await add_valid(store, "a", "three")
    with pytest.raises(ChangeRefused, match="version 2 is on trial"):
        await store.edit(
            "a",
            lambda ledger: ledger.begin_trial(plan.model_copy(update={"version": three}), origin()),
        )
    await store.edit("a", lambda ledger: ledger.end_trial(origin()))
    with pytest.raises(ChangeRefused, match="no version is on trial"):
        await store.edit("a", lambda ledger: ledger.end_trial(origin()))
    assert await store.serving("a") == Serving(VersionKey(1, digest("one")))


async def test_what_is_served_comes_with_the_texts_that_are_not_known(store: Store) -> None:
    assert await store.serving_texts("nobody", ()) is None
    one, trial = digest("one"), digest("trial of a")
    for known in ((), (trial,), ("", "x")):
        texts = await store.serving_texts("a", known)
        assert texts == ServingTexts(Serving(VersionKey(1, one)), {one: "one"})
    await begin_trial(store, "a")
    serving = await store.serving("a")
    assert serving is not None
    assert serving.hashes == {one, trial}
    for known, bodies in (
        ((), {one: "one", trial: "trial of a"}),
        ((one,), {trial: "trial of a"}),
        ((trial, "x"), {one: "one"}),
        ((trial, one), {}),
    ):
        assert await store.serving_texts("a", known) == ServingTexts(serving, bodies)
    with pytest.raises(ValueError, match="at most 2"):
        await store.serving_texts("a", ("x", "y", "z"))


async def test_each_call_counts_once_and_a_bad_version_goes_back(backing: Backing) -> None:
    store = await backing.open()
    other = await backing.open()
    try:
        for name, number in (("a", "+1"), ("b", "+9")):
            await store.import_version(version(name, "one", number))
            await begin_trial(store, name, **RATES)

        async def end(n: int, of: Store, tenant: str = "a") -> Edit | None:
            outcome = CallOutcome(version=1 + n % 2, failed=n % 2 == 1)
            return await of.end_call(
                tenant, call(f"c{n}", n), lambda ledger: ledger.observe(outcome, NOON + timedelta(minutes=n))
            )

        # Twice each, by two writers at once.
        await asyncio.gather(*(end(n, of) for n in range(8) for of in (store, other)))
        ledger = await store.ledger("a")
        assert ledger.trial is not None
        assert (ledger.trial.baseline.calls, ledger.trial.canary.calls) == (4, 4)
        assert ledger.trial.canary.failures.hits == 4
        await other.close()
        other = await backing.open()  # As after a restart.
        edits = [await end(n, other) for n in range(8, 40)]
        ended = [each for each in edits if each is not None and each.ended is not None]
        assert len(ended) == 1
        assert ended[0].ended is not None
        assert ended[0].ended.decision is Decision.ROLL_BACK
        ledger = await store.ledger("a")
        assert ledger.trial is None
        assert states(ledger) == ["active", "refused"]
        (newest, *_) = await store.config_log("a", 9)
        assert (newest.deed, newest.version, newest.origin.author) == (Deed.TRIAL_ROLLED_BACK, 2, "canary")
        assert "failures: 1.000 over" in newest.origin.reason
        assert len(await store.newest_calls("a", 100)) == 40
        # Another tenant's trial has seen none of it.
        theirs = await store.ledger("b")
        assert theirs.trial is not None
        assert theirs.trial.canary.calls == theirs.trial.baseline.calls == 0
    finally:
        await store.close()
        await other.close()


async def test_a_good_version_is_promoted(store: Store) -> None:
    await begin_trial(store, "a", **(RATES | {"failures": Bound(absolute=0.5), "min_calls": 5}))
    for n in range(200):
        outcome = CallOutcome(version=1 + n % 2)
        edit = await store.end_call("a", None, lambda ledger, o=outcome: ledger.observe(o, NOON))  # type: ignore[misc]
        if edit is not None and edit.ended is not None:
            break
    ledger = await store.ledger("a")
    assert states(ledger) == ["superseded", "active"]
    assert await store.serving("a") == Serving(VersionKey(2, digest("trial of a")))
    assert (await store.config_log("a", 1))[0].deed is Deed.TRIAL_PROMOTED
    # A call that ends later is no part of anything.
    assert await store.end_call("a", None, lambda ledger: ledger.observe(outcome, NOON)) is None


async def test_a_call_without_a_trial_is_kept(store: Store) -> None:
    def never(ledger: Ledger) -> Edit:
        raise AssertionError(ledger)

    assert await store.end_call("a", call("c"), never) is None
    assert await store.end_call("a", call("c"), never) is None
    assert await store.end_call("a", None, never) is None
    assert await store.newest_calls("a", 9) == (call("c"),)


async def test_what_the_file_said_is_noted(store: Store) -> None:
    assert await store.followed("a") is None
    assert await store.import_version(replace(version("a", "one", "+1"), followed=True)) == 1
    assert await store.followed("a") == digest("one")
    assert await store.import_version(replace(version("a", "two", "+1"), followed=True)) == 2
    await store.import_version(version("a", "three", "+1"))
    assert await store.followed("a") == digest("two")
    assert await store.followed("b") is None


@pytest.mark.parametrize("steps", range(0, 60, 6))
async def test_a_cancelled_activation_is_done_or_not_begun(store: Store, steps: int) -> None:
    two = await add_valid(store, "a", "two")
    task = asyncio.create_task(
        store.edit("a", lambda ledger: ledger.activate(two, origin(), expected=1), addresses("+2"))
    )
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    active = await store.active("a")
    assert active is not None
    lines = await store.config_log("a", 99)
    assert (active.version, await numbers_of(store, "a"), len(lines)) in ((1, ("+1",), 3), (2, ("+2",), 4))


async def test_history_from_before_versions_had_states(tmp_path: Path) -> None:
    """A file of the third revision, with two versions, is taken over as it is."""
    path = tmp_path / "tenants" / "client-a.db"
    path.parent.mkdir()
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        SchemaHistory("tenant").upgrade(connection, "old", target=3)
    engine.dispose()
    with sqlite3.connect(path) as old:
        for number, body in ((1, "one"), (2, "two")):
            old.execute(
                "INSERT INTO config_versions VALUES (?, ?, 1, '', '', ?, ?)",
                (number, digest(body), NOON.isoformat(), body),
            )
        old.execute("INSERT INTO active_version VALUES (1, 2)")
    old.close()
    store = await SqliteStore.open(tmp_path)
    try:
        ledger = await store.ledger("a")
        assert states(ledger) == ["superseded", "active"]
        assert ledger.history.versions[0].created.author == "unknown"
        await store.import_version(version("a", "three", "+1"))
        edit = await store.edit("a", lambda ledger: ledger.roll_back(1, origin(), expected=3))
        assert edit.version.state is VersionState.ACTIVE
        assert states(await store.ledger("a")) == ["superseded", "superseded", "rolled_back", "active"]
    finally:
        await store.close()
