"""The files below the registry: settings, schema, and a bounded number of them open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from config.node import PlatformProviders
from tenancy import (
    CallNotRouted,
    Registry,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    TenantStatus,
    database,
)
from tenancy.database import Database, open_database
from tenancy.repository import TenantRepository
from tenancy.schema_history import SchemaHistory
from tenancy.shards import Shards
from tenancy.store import NewVersion
from tests.tenancy.conftest import dialled, tenant

FILES = Path(__file__).parent / "files"
"""Files as the program wrote them before it used Alembic: two tenants, three versions, a call."""
TENANT = SchemaHistory("tenant")


async def pragma(opened: Database, name: str) -> object:
    async def work(connection: AsyncConnection) -> object:
        return (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()

    return await opened.read(work)


async def count(opened: Database, table: str = "config_versions") -> int:
    async def work(connection: AsyncConnection) -> int:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())

    return await opened.read(work)


async def add_version(connection: AsyncConnection) -> None:
    await connection.execute(
        text(
            "INSERT INTO config_versions SELECT count(*) + 1, 'h', 1, 'a', 'r', 't', '{}' FROM config_versions"
        )
    )


async def test_settings_and_schema_version(tmp_path: Path) -> None:
    opened = await open_database(tmp_path / "new" / "x.db", TENANT)
    try:
        assert await pragma(opened, "journal_mode") == "wal"
        assert await pragma(opened, "foreign_keys") == 1
        assert await pragma(opened, "synchronous") == 1
        assert await pragma(opened, "busy_timeout") == database.BUSY_TIMEOUT_MS
        assert await pragma(opened, "user_version") == TENANT.head
    finally:
        await opened.close()


# -- schema --------------------------------------------------------------------------------------------


def made_before_alembic(path: Path, version: int) -> None:
    """A tenant's file at one of the schema versions that had no Alembic."""
    shutil.copy(FILES / "client-a.db", path)
    connection = sqlite3.connect(path, isolation_level=None)
    if version == 1:
        for statement in (
            "DROP TRIGGER config_versions_stay",
            "DROP TRIGGER config_versions_remain",
            "DROP INDEX calls_once",
            "PRAGMA user_version = 1",
        ):
            connection.execute(statement)
    connection.close()


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    tables = ("config_versions", "active_version", "calls")
    rows = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables}
    with contextlib.suppress(sqlite3.OperationalError):
        # Nothing is said of the providers of calls from before that was kept.
        assert connection.execute("SELECT DISTINCT providers FROM calls").fetchall() == [("[]",)]
        rows["calls"] = [row[:-1] for row in rows["calls"]]
    connection.close()
    return rows


@pytest.mark.parametrize("version", [1, 2])
async def test_a_file_from_before_alembic_is_taken_over_with_its_content(
    tmp_path: Path, version: int
) -> None:
    path = tmp_path / "x.db"
    made_before_alembic(path, version)
    before = content(path)
    assert [len(rows) for rows in before.values()] == [2, 1, 1]
    for _ in range(2):
        opened = await open_database(path, TENANT)
        try:
            assert await pragma(opened, "user_version") == TENANT.head
            assert await count(opened, "tenant_schema") == 1
            for statement in ("DELETE FROM config_versions", "UPDATE config_versions SET author = 'x'"):
                with pytest.raises(StoreError, match="immutable"):
                    await opened.write(
                        lambda connection, statement=statement: connection.execute(text(statement))  # type: ignore[misc]
                    )
        finally:
            await opened.close()
    assert content(path) == before


async def test_schemas_are_the_same_taken_over_or_new(tmp_path: Path) -> None:
    schemas = []
    for version in (0, 1, 2):
        path = tmp_path / f"{version}.db"
        if version:
            made_before_alembic(path, version)
        await _closed(path, TENANT)
        connection = sqlite3.connect(path)
        query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"
        rows = connection.execute(query).fetchall()
        schemas.append([(*row[:3], " ".join((row[3] or "").split())) for row in rows])
        connection.close()
    assert schemas[0] == schemas[1] == schemas[2]


async def test_a_folder_from_before_alembic_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "tenants").mkdir()
    shutil.copy(FILES / "shared.db", tmp_path)
    for name in ("client-a.db", "client-b.db"):
        shutil.copy(FILES / name, tmp_path / "tenants")
    # A configuration of today spells out fields that were not there then: it is another version, once.
    for reasons in (["second", "first"], ["same", "second", "first"]):
        registry = await Registry.open(tmp_path, PlatformProviders(), {})
        try:
            context = await registry.context_for(dialled("+15550100"), call_id="c")
            assert (context.config.greeting, context.config_version) == ("Other.", len(reasons))
            assert [each.reason for each in await registry.versions("a")] == reasons
            (call,) = await registry.calls("a")
            assert (call.call_id, call.messages[0]["name"]) == ("c@host", "Bo")
            assert (await registry.status("b")).status is TenantStatus.SUSPENDED
            with pytest.raises(CallNotRouted, match=r"^suspended"):
                await registry.context_for(dialled("+15550102"), call_id="d")
            assert (
                await registry.import_tenant(
                    tenant("a", "+15550100", greeting="Other."), author="op", reason="same"
                )
                == 3
            )
        finally:
            await registry.close()


async def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await _closed(path, TENANT)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA user_version = {TENANT.head + 1}")
    connection.close()
    with pytest.raises(StoreError, match=f"newer than this program's {TENANT.head}"):
        await open_database(path, TENANT)


async def _closed(path: Path, history: SchemaHistory) -> None:
    await (await open_database(path, history)).close()


def history_of(directory: Path, *upgrades: str) -> SchemaHistory:
    """A history of our own: each revision executes one line."""
    versions = directory / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(upgrades, 1):
        (versions / f"v{number}.py").write_text(
            f"revision = 'r{number}'\n"
            f"down_revision = {f'r{number - 1}' if number > 1 else None!r}\n"
            f"def upgrade(op):\n    {line}\n"
        )
    return SchemaHistory("own", directory)


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    once = "op.execute('CREATE TABLE one (a)')"
    with pytest.raises(StoreError, match=r"x\.db: table one already exists"):
        await open_database(path, history_of(tmp_path / "bad", once, once))
    await _closed(path, history_of(tmp_path / "good", once))


async def test_a_revision_is_added_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    lines = ("op.execute('CREATE TABLE one (a)')", "op.execute('INSERT INTO one VALUES (1)')")
    await _closed(path, history_of(tmp_path / "first", lines[0]))
    opened = await open_database(path, history_of(tmp_path / "both", *lines))
    try:
        assert await count(opened, "one") == 1
    finally:
        await opened.close()


async def test_several_openers_migrate_once(tmp_path: Path) -> None:
    # Many rounds: which of them finds another in the middle of the change to WAL is the scheduler's choice.
    for number in range(20):
        path = tmp_path / f"{number}.db"
        await asyncio.gather(*(_closed(path, TENANT) for _ in range(8)))


# -- faults --------------------------------------------------------------------------------------------


async def test_what_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreCorrupt, match=r"x\.db"):
        await open_database(path, TENANT)
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(StoreError, match=r"folder\.db"):
        await open_database(tmp_path / "folder.db", TENANT)
    with pytest.raises(StoreError, match=r"x\.db"):
        await open_database(path / "below" / "a-file.db", TENANT)


async def test_a_file_that_another_program_holds_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 10)
    path = tmp_path / "x.db"
    opened = await open_database(path, TENANT)
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match=r"x\.db: in use by another program"):
            await opened.write(add_version)
        assert await count(opened) == 0  # who only reads is not held up
        holder.execute("ROLLBACK")
        await opened.write(add_version)
        assert await count(opened) == 1
    finally:
        holder.close()
        await opened.close()


async def test_two_programs_that_write_at_once_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    both = [await open_database(path, TENANT) for _ in range(2)]
    try:
        await asyncio.gather(*(each.write(add_version) for each in both for _ in range(20)))
        assert await count(both[0]) == 40
    finally:
        for each in both:
            await each.close()


async def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path: Path) -> None:
    opened = await open_database(tmp_path / "x.db", TENANT)
    repository = TenantRepository()

    def new(greeting: str) -> NewVersion:
        return NewVersion("a", (), greeting[:9], 1, "a", "r", datetime.now(UTC), greeting)

    try:
        await opened.write(lambda connection: repository.add_version(connection, new("small")))
        pages = await pragma(opened, "page_count")
        assert isinstance(pages, int)
        await pragma(opened, f"max_page_count = {pages + 4}")
        for _ in range(2):
            with pytest.raises(StoreFull, match=r"x\.db: no room is left"):
                await opened.write(lambda connection: repository.add_version(connection, new("x" * 200_000)))
        assert await count(opened) == 1
        await pragma(opened, f"max_page_count = {pages + 400}")
        assert (
            await opened.write(lambda connection: repository.add_version(connection, new("y" * 200_000))) == 2
        )
    finally:
        await opened.close()


async def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    opened = await open_database(tmp_path / "x.db", TENANT)

    async def work(connection: AsyncConnection) -> None:
        await add_version(connection)
        await connection.execute(text("INSERT INTO config_versions VALUES (1, 'h', 1, 'a', 'r', 't', '{}')"))

    try:
        with pytest.raises(StoreError, match="UNIQUE"):
            await opened.write(work)
        assert await count(opened) == 0
    finally:
        await opened.close()


async def test_an_error_does_not_repeat_what_was_to_be_written(tmp_path: Path) -> None:
    opened = await open_database(tmp_path / "x.db", TENANT)
    repository = TenantRepository()
    new = NewVersion("a", (), "h", 1, "a", "r", datetime.now(UTC), "sk-secret")
    try:
        await opened.write(lambda connection: connection.execute(text("DROP TABLE active_version")))
        with pytest.raises(StoreError) as caught:
            await opened.write(lambda connection: repository.add_version(connection, new))
        cause: BaseException | None = caught.value
        while cause is not None:
            assert "sk-secret" not in str(cause)
            cause = cause.__cause__
    finally:
        await opened.close()


# -- shards --------------------------------------------------------------------------------------------


async def bump(shards: Shards, tenant_id: str, most: list[int]) -> None:
    async with shards.use(tenant_id) as shard:
        most.append(shards.open_count)
        await shard.write(add_version)


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
            assert await count(shard) == 5
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


async def test_many_tenants_need_few_file_descriptors(tmp_path: Path) -> None:
    used = os.dup(0)  # descriptors are given out from below
    os.close(used)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_shards = 8
    # What each of the open ones takes at most, the shared file's connections, and a few to work with.
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3 * open_shards + 40, before[1]))
    try:
        registry = await Registry.open(tmp_path, PlatformProviders(), {}, max_open_shards=open_shards)
        try:
            configs = [tenant(f"t{n}", f"+1555{n:07}") for n in range(100)]
            imports = [registry.import_tenant(each, author="test", reason="test") for each in configs]
            assert await asyncio.gather(*imports) == [1] * 100
            looks = [registry.context_for(dialled(each.numbers[0]), call_id="c") for each in configs]
            contexts = await asyncio.gather(*looks)
            assert [each.tenant_id for each in contexts] == [each.tenant_id for each in configs]
        finally:
            await registry.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
