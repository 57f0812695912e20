"""What keeps a tenant from moving, and what a node says of one that has moved."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from config.node import NodeConfig, PostgresConfig, StoreConfig
from tenancy import (
    StoreUnavailable,
    TenantElsewhere,
    database,
    open_registry,
)
from tenancy.both_stores import BothStores
from tenancy.migration import Migration, Outcome
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tests.tenancy.conftest import dialled, tenant
from tests.tenancy.moves.stores import everything, move, node_store, outcomes, reports
from tests.tenancy.test_registry import shard_file
from tests.tenancy.test_store_contract import call, digest, origin, version


async def test_two_histories_are_not_mixed_and_others_go_on(
    node: BothStores, mover: Migration, there: PostgresStore
) -> None:
    await there.import_version(version("a", "another", "+9"))
    await node.import_version(version("a", "a", "+1"))
    await node.import_version(version("b", "b", "+2"))
    first, second = await reports(mover.to_postgres())
    assert (first.outcome, first.reason) == (
        Outcome.FAILED,
        "a: version 1 is not the same on the two sides",
    )
    assert second.outcome is Outcome.MOVED
    assert await node.active("a") is not None
    await node.add_call("a", call("c"))


async def test_a_damaged_file_stays_where_it_is_and_others_go_on(
    tmp_path: Path, node: BothStores, mover: Migration
) -> None:
    for name, number in (("a", "+1"), ("b", "+2")):
        await node.import_version(version(name, name, number))
    async with node.files.shards.closed("a") as path:
        path.write_bytes(b"this is not a database" * 1000)
    first, second = await reports(mover.to_postgres())
    assert first.outcome is Outcome.FAILED
    assert "client-a.db: damaged" in first.reason
    assert second.outcome is Outcome.MOVED
    assert shard_file(tmp_path, "a").read_bytes().startswith(b"this is not")


async def test_a_lock_that_another_holds_is_waited_for_within_bounds(
    tmp_path: Path, url: str, there: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
    node = await node_store(tmp_path, url)
    files = await SqliteStore.open(tmp_path)
    await node.import_version(version("a", "a", "+1"))
    holder = sqlite3.connect(shard_file(tmp_path, "a"), isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        (report,) = [each async for each in Migration(files, there).to_postgres(["a"])]
        assert report.outcome is Outcome.FAILED
        assert "client-a.db: in use by another program" in report.reason
        assert await node.active("a") is not None  # What only looks is not held up.
        holder.execute("ROLLBACK")
        await node.add_call("a", call("c"))
        assert await outcomes(Migration(files, there).to_postgres(["a"])) == {"a": "moved"}
        assert [each.call_id for each in await node.newest_calls("a", 9)] == ["c"]
    finally:
        holder.close()
        await files.close()
        await node.close()


async def test_a_node_that_was_not_told_of_postgres_says_so(
    node: BothStores, mover: Migration, files: SqliteStore
) -> None:
    await node.import_version(version("a", "a", "+1"))
    assert await outcomes(mover.to_postgres()) == {"a": "moved"}
    for ask in (
        lambda: files.active("a"),
        lambda: files.content("a", 1),
        lambda: files.versions("a"),
        lambda: files.newest_calls("a", 9),
        lambda: files.serving("a"),
        lambda: files.followed("a"),
        lambda: files.ledger("a"),
        lambda: files.trials("a", 9),
        lambda: files.config_log("a", 9),
        lambda: files.end_call("a", call("c"), lambda _: None),
        lambda: files.end_call("a", None, lambda _: None),
        lambda: files.edit("a", lambda ledger: ledger.draft(digest("x"), 1, "x", origin())),
        lambda: files.add_call("a", call("c")),
        lambda: files.import_version(version("a", "b", "+1")),
    ):
        with pytest.raises(TenantElsewhere, match="ostgres"):
            await ask()


async def test_postgres_that_is_down_costs_the_tenants_that_are_there(
    tmp_path: Path, node: BothStores, mover: Migration
) -> None:
    for name, number in (("a", "+1"), ("b", "+2")):
        await node.import_version(version(name, name, number))
    assert await outcomes(mover.to_postgres(["a"])) == {"a": "moved"}
    other = await node_store(tmp_path, "postgresql://u@127.0.0.1:1/d")
    try:
        with pytest.raises(StoreUnavailable):
            await other.active("a")
        with pytest.raises(StoreUnavailable):
            await other.import_version(version("a", "x", "+1"))
        assert await other.active("b") is not None
        await other.add_call("b", call("c"))
    finally:
        await other.close()


async def test_numbers_that_a_node_left_half_changed_are_set_right(
    node: BothStores, mover: Migration, there: PostgresStore
) -> None:
    for name, number in (("a", "+1"), ("b", "+2"), ("c", "+3")):
        await node.import_version(version(name, name, number))
    await outcomes(mover.to_postgres(["a", "b"]))
    # As if the node had ended after Postgres's commit and before that of shared.db.
    await there.import_version(version("a", "a2", "+3"))
    assert set((await outcomes(mover.to_postgres())).values()) == {"already there", "moved"}
    assert [each.address for each in await there.addresses_of("a")] == ["+1"]
    assert [each.address for each in await there.addresses_of("c")] == ["+3"]
    assert await everything(there) == await everything(node)


async def test_unknown_tenants_are_named(mover: Migration) -> None:
    (report,) = await reports(mover.to_postgres(["x"]))
    assert (report.outcome, report.reason) == (Outcome.FAILED, "x: no such tenant in the files")
    (report,) = await reports(mover.to_sqlite(["x"]))
    assert (report.outcome, report.reason) == (Outcome.FAILED, "x: no such tenant in Postgres")


async def test_a_nodes_configuration_follows_its_tenants(tmp_path: Path, url: str) -> None:
    both = StoreConfig(postgres=PostgresConfig(url_env="DB"))
    configured = NodeConfig(data_dir=tmp_path, store=both)
    # Postgres is asked for when the first tenant is there, and not before.
    registry = await open_registry(configured, {})
    await registry.import_tenant(tenant("a", "+15550100"), author="op", reason="first")
    await registry.close()
    await move(tmp_path, url, back=False)
    registry = await open_registry(configured, {"DB": url})
    try:
        assert (await registry.context_for(dialled("+15550100"), call_id="c")).config_version == 1
    finally:
        await registry.close()
