"""Tenants between SQLite and Postgres: nothing is lost, nobody is frozen, whoever is ended wherever."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from config.node import PlatformProviders
from perf.postgres_server import PostgresServer
from tenancy import (
    Registry,
    TenantElsewhere,
    TenantMoved,
    TenantStatus,
    migration,
)
from tenancy.both_stores import BothStores
from tenancy.canary import CallOutcome
from tenancy.errors import TenantChanged
from tenancy.ledger import Deed, Edit, Ledger
from tenancy.ledger_rows import LogRow
from tenancy.migration import Migration, Outcome
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tenancy.store import CallRow, TenantRow
from tests.tenancy.conftest import dialled
from tests.tenancy.moves.stores import everything, fill, move, node_store, observed, outcomes, reports
from tests.tenancy.test_registry import NOON, put, record, shard_file
from tests.tenancy.test_store_contract import add_valid, addresses, begin_trial, call, digest, origin, version

# -- there and back ------------------------------------------------------------------------------------


async def test_everything_is_the_same_there_and_back(
    tmp_path: Path, node: BothStores, mover: Migration, there: PostgresStore, files: SqliteStore
) -> None:
    await fill(node)
    before = await everything(node)
    moved = await reports(mover.to_postgres())
    assert [(each.tenant_id, each.outcome, each.versions, each.calls) for each in moved] == [
        ("a", Outcome.MOVED, 5, 3),
        ("b", Outcome.MOVED, 1, 0),
        ("c", Outcome.MOVED, 1, 0),
    ]
    assert len({each.checksum for each in moved}) == 3
    assert [each.lines for each in moved] == [9, 1, 1]
    # The node goes on, and a node that knows Postgres alone sees the same.
    assert await everything(node) == await everything(there) == before
    assert set((await outcomes(mover.to_postgres())).values()) == {"already there"}

    # The trial goes on, where its tenant is.
    for number in (3, 5):
        assert await observed(node, number) is not None
    (trial,) = await there.trials("a", 9)
    assert (trial.baseline.calls, trial.canary.calls, trial.verdict) == (2, 1, None)
    stale = await files_rows(tmp_path, "a")

    # What happens there comes back.
    await node.import_version(version("a", "a9", "+1", "+29"))
    await node.add_call("a", call("late", 99))
    with pytest.raises(TenantChanged):
        await node.set_status("b", TenantStatus.ACTIVE, expected=TenantRow("b", TenantStatus.MOVED, "node3"))
    assert await there.tenant("b") == await files.tenant("b") == TenantRow("b", TenantStatus.SUSPENDED)
    await node.set_status("b", TenantStatus.ACTIVE, expected=TenantRow("b", TenantStatus.SUSPENDED))
    await node.import_version(version("d", "d", "+5"))  # new, and so in a file
    changed = await everything(node)
    (trial,) = await node.trials("a", 9)
    assert trial.verdict is not None
    assert trial.verdict.reason == "version 6 is active now, and the trial compared with 3"
    assert await files_rows(tmp_path, "a") == stale
    with pytest.raises(TenantElsewhere):
        await files.active("a")
    assert await outcomes(mover.to_sqlite(["a"])) == {"a": "moved"}
    assert await everything(node) == changed
    assert await outcomes(mover.to_sqlite()) == {"a": "already there", "b": "moved", "c": "moved"}
    assert await everything(node) == await everything(files) == changed
    with pytest.raises(TenantMoved, match="sqlite"):
        await there.import_version(version("a", "a10", "+1"))

    # And there once more, with another trial than the one that Postgres knows of.
    await node.import_version(version("a", "a11", "+1"))
    await begin_trial(node, "a")
    changed = await everything(node)
    assert set((await outcomes(mover.to_postgres())).values()) == {"moved"}
    assert await everything(node) == await everything(there) == changed


async def files_rows(directory: Path, name: str) -> list[object]:
    with sqlite3.connect(shard_file(directory, name)) as connection:
        found: list[object] = [
            connection.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("version_states", "trials", "followed_file", "config_log")
        ]
    connection.close()
    return found


async def test_a_long_log_goes_in_batches_in_its_order(
    node: BothStores, mover: Migration, there: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "LINES_AT_ONCE", 7)
    for name, number in (("a", "+1"), ("b", "+2")):
        for n in range(20):
            await node.import_version(version(name, f"{name}{n}", number))
    before = await everything(node)
    assert [each.lines for each in await reports(mover.to_postgres())] == [20, 20]
    assert await everything(there) == before
    assert [each.lines for each in await reports(mover.to_sqlite())] == [20, 20]
    assert await everything(node) == before


async def test_a_log_that_is_another_one_is_not_added_to(
    node: BothStores, mover: Migration, there: PostgresStore
) -> None:
    await node.import_version(version("a", "a", "+1"))
    assert await outcomes(mover.to_postgres()) == {"a": "moved"}
    assert await outcomes(mover.to_sqlite()) == {"a": "moved"}
    async with there.tenant_transaction("a") as connection:
        await there.repository.rows.add_log(connection, [LogRow(NOON, "x", "drafted", 1, "y")])
    (report,) = await reports(mover.to_postgres())
    assert report.reason == "a: the logs of the two sides differ after line 0"
    assert await node.active("a") is not None
    await observed(node, 1)


async def test_many_calls_go_in_batches(
    node: BothStores, mover: Migration, there: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "CALLS_AT_ONCE", 7)
    await node.import_version(version("a", "a", "+1"))
    for n in range(40):
        await node.add_call("a", call(f"c{n}", n))
    (there_report,) = await reports(mover.to_postgres())
    assert there_report.calls == 40
    assert len(await there.newest_calls("a", 100)) == 40
    (back_report,) = await reports(mover.to_sqlite())
    assert back_report.calls == 40
    assert len(await node.newest_calls("a", 100)) == 40


async def test_what_postgres_cannot_write_is_written_as_it_can(node: BothStores, mover: Migration) -> None:
    await node.import_version(version("a", "a", "+1"))
    await node.add_call("a", call("c\0d"))
    assert await outcomes(mover.to_postgres()) == {"a": "moved"}
    assert [each.call_id for each in await node.newest_calls("a", 9)] == ["c?d"]


# -- while calls go on ---------------------------------------------------------------------------------


async def test_no_call_fails_and_no_record_is_lost_while_tenants_move(
    node: BothStores, mover: Migration
) -> None:
    registry = Registry(node, PlatformProviders(), {})
    numbers = {f"t{n}": f"+1555010{n}" for n in range(3)}
    for name, number in numbers.items():
        await put(registry, name, number)
    recorded: dict[str, set[str]] = {name: set() for name in numbers}
    imported = dict.fromkeys(numbers, 1)
    done = asyncio.Event()

    async def calls(name: str) -> None:
        for n in itertools.count():
            if done.is_set():
                return
            context = await registry.context_for(dialled(numbers[name]), call_id=f"{name}-{n}")
            assert context.tenant_id == name
            start = NOON + timedelta(seconds=n)
            await registry.record_call(context, record(context, started_at=start))
            recorded[name].add(context.call_id)

    async def changes(name: str) -> None:
        while not done.is_set():
            imported[name] += 1
            greeting = f"Hello {imported[name]}."
            assert await put(registry, name, numbers[name], greeting=greeting) == imported[name]
            context = await registry.context_for(dialled(numbers[name]), call_id="x")
            assert context.config_version == imported[name]

    async def moves() -> None:
        try:
            for run in (mover.to_postgres(), mover.to_sqlite()):
                assert [each.reason for each in await reports(run)] == [""] * len(numbers)
        finally:
            done.set()

    async with asyncio.timeout(100):
        await asyncio.gather(moves(), *(calls(name) for name in numbers), *(changes(n) for n in numbers))
    for name in numbers:
        kept = await all_calls(node, name)
        assert len(kept) == len(recorded[name])
        assert set(kept) == recorded[name]
        infos = await node.versions(name)
        assert [each.version for each in infos] == list(range(imported[name], 0, -1))


async def all_calls(node: BothStores, name: str) -> list[str]:
    return [each.call_id for each in await node.newest_calls(name, 1_000_000)]


async def test_no_change_and_no_observed_call_is_lost_while_its_tenant_moves(
    node: BothStores, mover: Migration
) -> None:
    """Trials count each call once, drafts are numbered without gaps, and numbers follow the version, on either side."""
    await node.import_version(version("a", "a", "+1"))
    plan = await begin_trial(node, "a", min_calls=100_000)
    done = asyncio.Event()
    ended: list[int] = []
    logged: list[tuple[Deed, int]] = []

    async def calls(k: int) -> None:
        for n in itertools.count():
            if done.is_set():
                return
            outcome = CallOutcome((plan.version, plan.baseline)[n % 2])

            def observe(ledger: Ledger, outcome: CallOutcome = outcome) -> Edit | None:
                return ledger.observe(outcome, origin().at)

            edit = await node.end_call("a", call(f"{k}-{n}", n), observe)
            assert edit is not None
            # The same call once more counts for nothing.
            assert await node.end_call("a", call(f"{k}-{n}", n), observe) is None
            ended.append(outcome.version)

    async def drafts() -> None:
        while not done.is_set():
            edit = await node.edit("a", lambda ledger: ledger.draft(digest("d"), 1, "d", origin()))
            number = edit.version.version
            reject = partial(Ledger.reject, version=number, origin=origin())
            await node.edit("a", reject, addresses("+1", f"+9{number}"))
            logged.extend([(Deed.DRAFTED, number), (Deed.REJECTED, number)])
            assert [each.address for each in await node.addresses_of("a")] == ["+1", f"+9{number}"]

    async def moves() -> None:
        try:
            for run in (mover.to_postgres(), mover.to_sqlite(), mover.to_postgres()):
                assert [each.reason for each in await reports(run)] == [""]
        finally:
            done.set()

    async with asyncio.timeout(100):
        await asyncio.gather(moves(), drafts(), *(calls(k) for k in range(3)))
    (trial,) = await node.trials("a", 9)
    assert (trial.canary.calls, trial.baseline.calls) == (
        ended.count(plan.version),
        ended.count(plan.baseline),
    )
    assert len(await all_calls(node, "a")) == len(ended)
    lines = await node.config_log("a", 1_000_000)
    assert [(each.deed, each.version) for each in reversed(lines)][-len(logged) :] == logged


# -- ended anywhere ------------------------------------------------------------------------------------


def ended_at(step: int, work: Callable[[], Awaitable[None]]) -> bool:
    """Whether a process that does the work ended at a statement or commit of its own, as if it were killed there."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    status = 1
    try:
        steps = itertools.count(1)

        def count(*_: Any) -> None:
            if next(steps) == step:
                os._exit(9)

        event.listen(Engine, "before_cursor_execute", count)
        event.listen(Engine, "commit", count)
        asyncio.run(work())  # type: ignore[arg-type]
        status = 0
    finally:
        os._exit(status)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("offset", [1, 11, 21])
def test_whoever_is_ended_anywhere_leaves_each_tenant_in_one_place(
    tmp_path: Path, postgres: PostgresServer, *, back: bool, offset: int
) -> None:
    ended = 0
    for step in range(offset, 10_000, 31):
        directory, url = tmp_path / str(step), postgres.new_database()
        asyncio.run(prepared(directory, url, back=back))
        was_ended = ended_at(step, lambda d=directory, u=url: move(d, u, back=back))  # type: ignore[misc]
        ended += was_ended
        asyncio.run(goes_on(directory, url, back=back))
        if not was_ended:
            break
    assert ended > 2


async def prepared(directory: Path, url: str, *, back: bool) -> None:
    node = await node_store(directory, url)
    await fill(node)
    await node.close()
    if back:
        await move(directory, url, back=False)


async def goes_on(directory: Path, url: str, *, back: bool) -> None:
    """The node works at once, and the next run finishes the move: with all there was, and all that came since."""
    node = await node_store(directory, url)
    try:
        await node.add_call("a", call("since", 50))
        await node.import_version(version("a", "since", "+1", "+6"))
        await node.set_status("b", TenantStatus.ACTIVE)
        await observed(node, 3)
        made = await add_valid(node, "a", "made since")
        await node.edit("a", lambda ledger: ledger.reject(made, origin()))
        before = await everything(node)
        calls: list[CallRow] = list(await node.newest_calls("a", 9))
        assert [each.call_id for each in calls] == ["since", "a2", "a1", "a0"]
        assert [each.version for each in await node.versions("a")] == [7, 6, 5, 4, 3, 2, 1]
        await move(directory, url, back=back)
        assert await everything(node) == before
        other = node.files if back else await node.postgres()
        assert await everything(other) == before
    finally:
        await node.close()
