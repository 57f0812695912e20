"""The files below the registry: settings, migrations, and a bounded number of them open."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import aiosqlite
import pytest

from tenancy import StoreCorrupt, StoreError, StoreLocked, database
from tenancy.database import SHARD_MIGRATIONS, Shards, open_database, transaction


async def pragma(connection: aiosqlite.Connection, name: str) -> object:
    row = await (await connection.execute(f"PRAGMA {name}")).fetchone()
    assert row is not None
    return row[0]


async def test_settings_and_schema_version(tmp_path: Path) -> None:
    connection = await open_database(tmp_path / "new" / "x.db", SHARD_MIGRATIONS)
    try:
        assert await pragma(connection, "journal_mode") == "wal"
        assert await pragma(connection, "foreign_keys") == 1
        assert await pragma(connection, "busy_timeout") == database.BUSY_TIMEOUT_MS
        assert await pragma(connection, "user_version") == len(SHARD_MIGRATIONS)
    finally:
        await connection.close()


async def test_an_older_file_is_migrated_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    old = await open_database(path, SHARD_MIGRATIONS[:1])
    await old.execute("INSERT INTO config_versions VALUES (1, 'h', 1, 'a', 'r', 't', '{}')")
    await old.close()
    new = await open_database(path, SHARD_MIGRATIONS)
    try:
        assert await pragma(new, "user_version") == len(SHARD_MIGRATIONS)
        row = await (await new.execute("SELECT body FROM config_versions")).fetchone()
        assert row is not None
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            await new.execute("DELETE FROM config_versions")
    finally:
        await new.close()


async def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await _closed(path, SHARD_MIGRATIONS)
    with pytest.raises(StoreError, match="newer than this program's 1"):
        await open_database(path, SHARD_MIGRATIONS[:1])


async def _closed(path: Path, migrations: database.Migrations) -> None:
    await (await open_database(path, migrations)).close()


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    broken = (("CREATE TABLE one (a)", "CREATE TABLE one (a)"),)
    with pytest.raises(StoreError, match=r"x\.db: table one already exists"):
        await open_database(path, broken)
    await _closed(path, (("CREATE TABLE one (a)",),))


async def test_several_openers_migrate_once(tmp_path: Path) -> None:
    # Many rounds: which of them finds another in the middle of the change to WAL is the scheduler's choice.
    for number in range(50):
        path = tmp_path / f"{number}.db"
        await asyncio.gather(*(_closed(path, SHARD_MIGRATIONS) for _ in range(16)))


async def test_what_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreCorrupt, match=r"x\.db"):
        await open_database(path, SHARD_MIGRATIONS)
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match=r"folder\.db"):
        await open_database(tmp_path / "folder.db", SHARD_MIGRATIONS)
    with pytest.raises(StoreError, match=r"x\.db"):
        await open_database(path / "below" / "a-file.db", SHARD_MIGRATIONS)


async def test_a_file_that_another_program_holds_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 10)
    path = tmp_path / "x.db"
    connection = await open_database(path, SHARD_MIGRATIONS)
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match=r"x\.db: in use by another program"):
            async with transaction(connection, path):
                pytest.fail("the transaction began")
        holder.execute("ROLLBACK")
        async with transaction(connection, path):
            await connection.execute("INSERT INTO config_versions VALUES (1, 'h', 1, 'a', 'r', 't', '{}')")
    finally:
        holder.close()
        await connection.close()


async def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    connection = await open_database(path, (("CREATE TABLE t (a UNIQUE)",),))
    try:
        with pytest.raises(StoreError, match="UNIQUE"):
            async with transaction(connection, path):
                await connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (1,)])
        row = await (await connection.execute("SELECT count(*) FROM t")).fetchone()
        assert row is not None
        assert row[0] == 0
    finally:
        await connection.close()


# -- shards --------------------------------------------------------------------------------------------


async def bump(shards: Shards, tenant_id: str, most: list[int]) -> None:
    async with shards.use(tenant_id) as shard:
        most.append(shards.open_count)
        async with transaction(shard, shards.path(tenant_id)):
            await shard.execute(
                "INSERT INTO config_versions SELECT count(*) + 1, 'h', 1, 'a', 'r', 't', '{}' FROM config_versions"
            )


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_many_tenants_share_few_connections(tmp_path: Path, limit: int) -> None:
    shards = Shards(tmp_path, limit)
    most: list[int] = []
    names = [f"t{n % 12}" for n in range(60)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(bump(shards, name, most) for name in names))
    assert max(most) == shards.open_count == limit
    for name in set(names):
        async with shards.use(name) as shard:
            row = await (await shard.execute("SELECT count(*) FROM config_versions")).fetchone()
            assert row is not None
            assert row[0] == 5
    await shards.close()
    assert shards.open_count == 0


async def test_the_least_recently_used_is_closed(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 2)
    async with shards.use("a") as a:
        pass
    async with shards.use("b"):
        pass
    async with shards.use("a") as again:
        assert again is a
    async with shards.use("c"):
        pass
    async with shards.use("a") as again:
        assert again is a
    await shards.close()


async def test_one_shard_at_work_does_not_hold_up_another(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 2)
    async with asyncio.timeout(10), shards.use("a"):
        waiting = [asyncio.create_task(bump(shards, "a", [])) for _ in range(5)]
        for _ in range(3):
            await bump(shards, "b", [])
            await bump(shards, "c", [])
    await asyncio.gather(*waiting)
    await shards.close()


@pytest.mark.parametrize("steps", range(0, 30, 2))
async def test_cancelled_users_leave_nothing_behind(tmp_path: Path, steps: int) -> None:
    shards = Shards(tmp_path, 1)
    tasks = [asyncio.create_task(bump(shards, f"t{n}", [])) for n in range(4)]
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(10):
        most: list[int] = []
        await asyncio.gather(*(bump(shards, f"t{n}", most) for n in range(4)))
    assert max(most) == 1
    await shards.close()


async def test_a_shard_that_cannot_be_opened_does_not_use_up_room(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 1)
    shards.path("bad").write_bytes(b"no database" * 1000)
    for _ in range(3):
        with pytest.raises(StoreCorrupt):
            await bump(shards, "bad", [])
    await bump(shards, "good", [])
    assert shards.open_count == 1
    await shards.close()
    with pytest.raises(StoreError, match="closed"):
        await bump(shards, "good", [])
