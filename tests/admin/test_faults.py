"""A database that is held, full, damaged or gone: each ends in `Unavailable` with the place, and nothing is half done."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from admin.api_tokens import ApiTokens
from admin.audit import normal
from admin.backings import FILE, SqliteFile, open_admin_store
from admin.errors import StillRunning, Unavailable
from admin.idempotency_keys import IdempotencyKeys
from admin.opening import open_admin
from admin.ports import KeptAnswer
from admin.principals import Principal, Role
from admin.sql_store import SqlStore
from admin.throttle import LoginThrottle
from config.admin import AdminConfig, ApiTokensConfig, RateLimit
from config.node import NodeConfig, PostgresConfig, StoreConfig
from perf.postgres_server import NoPostgresError, postgres_server
from tenancy import database
from tests.admin.conftest import Backing, deed
from tests.admin.test_store_contract import row
from tests.admin.turned import Turned

ADA = Principal("ada", Role.OPERATOR, None)
NOW = datetime(2027, 1, 15, tzinfo=UTC)

Write = Callable[[SqlStore], Awaitable[object]]
WRITES: tuple[tuple[str, Write], ...] = (
    ("token", lambda store: store.add_token(row("new"), 99)),
    ("revocation", lambda store: store.revoke_token("old", tenant_id=None, by="ada", now_ms=1)),
    ("use", lambda store: store.use_once(b"u" * 32, until_ms=9, now_ms=1, size_max=9)),
    ("denial", lambda store: store.deny_token(b"d" * 32, until_ms=9, now_ms=1, size_max=9)),
    (
        "subject",
        lambda store: store.deny_subject(b"s" * 32, before_ms=1, until_ms=9, now_ms=1, size_max=9),
    ),
    ("key", lambda store: IdempotencyKeys(store, os.urandom).begin(ADA, "new", b"f", NOW)),
    ("audit", lambda store: store.append(normal(deed(2)))),
)


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    connection.close()
    return found


async def seeded(store: SqlStore) -> None:
    await store.add_token(row("old"), 99)
    await store.append(normal(deed(1)))
    keys = IdempotencyKeys(store, os.urandom)
    await keys.begin(ADA, "old", b"f", NOW)
    await keys.finish(ADA, "old", KeptAnswer(200, (), b"kept"), NOW)


@pytest.mark.parametrize(("write"), [each[1] for each in WRITES], ids=[each[0] for each in WRITES])
async def test_a_file_that_another_program_holds(
    file_store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    await seeded(file_store)
    await file_store._backing._writer.read(  # type: ignore[attr-defined]
        lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout = 10")
    )
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 10)
    before = content(tmp_path / FILE)
    holder = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Unavailable, match=r"^admin\.db: in use by another program") as caught:
            await write(file_store)
        assert str(tmp_path) not in str(caught.value), "where it is, is no client's business"
        assert content(tmp_path / FILE) == before
        # Who only reads is not held up.
        assert await file_store.token("old") == row("old")
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    await write(file_store)


async def test_a_full_disk(file_store: SqlStore, tmp_path: Path) -> None:
    await seeded(file_store)
    writer = file_store._backing._writer  # type: ignore[attr-defined]

    async def pragma(text: str) -> None:
        await writer.read(lambda connection: connection.exec_driver_sql(f"PRAGMA {text}"))

    await pragma("max_page_count = 1")  # no more than there are

    async def fill() -> None:
        for number in range(400):
            await file_store.append(normal(deed(number)))

    with pytest.raises(Unavailable, match=r"^admin\.db: no room is left on the disk"):
        await fill()
    # A token needs several pages' worth where its label is long.
    with pytest.raises(Unavailable, match=r"^admin\.db: no room is left on the disk"):
        await file_store.add_token(row("long", label="x" * 20_000), 99)
    keys = IdempotencyKeys(file_store, os.urandom)
    await keys.begin(ADA, "new", b"f", NOW)
    with pytest.raises(Unavailable, match=r"^admin\.db: no room is left on the disk"):
        await keys.finish(ADA, "new", KeptAnswer(200, (), bytes(100_000)), NOW)
    found = content(tmp_path / FILE)
    assert len(found["admin_audit"]) == found["admin_audit_head"][0][1]
    assert [each[0] for each in found["admin_tokens"]] == ["old"]
    assert await file_store.token("old") == row("old")
    await pragma("max_page_count = 100000")
    # What was done goes on to count as under way: it is not done once more.
    with pytest.raises(StillRunning):
        await keys.begin(ADA, "new", b"f", NOW)
    await keys.abandon(ADA, "new")
    for _, write in WRITES:
        await write(file_store)


@pytest.mark.parametrize("damage", [b"no database" * 1_000, b""])
async def test_a_file_that_is_no_database_of_ours(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    node = NodeConfig(data_dir=tmp_path, admin=AdminConfig())
    if not damage:
        # An empty file is a new database.
        await (await open_admin_store(node, {})).close()
        return
    for opened in (open_admin_store(node, {}), open_admin(node, {})):
        with pytest.raises(Unavailable, match=r"admin\.db: damaged, or not a database of ours"):
            await opened
    assert (tmp_path / FILE).read_bytes() == damage


async def test_pages_that_are_damaged(tmp_path: Path) -> None:
    store = SqlStore(await SqliteFile.open(tmp_path / FILE))
    await seeded(store)
    await store.close()
    connection = sqlite3.connect(tmp_path / FILE)
    query = "SELECT rootpage FROM sqlite_schema WHERE tbl_name IN ('admin_tokens', 'admin_audit', 'admin_audit_head')"
    pages = [page for (page,) in connection.execute(query) if page]
    connection.close()
    raw = bytearray((tmp_path / FILE).read_bytes())
    size = int.from_bytes(raw[16:18], "big")
    for page in pages:
        raw[(page - 1) * size : page * size] = bytes([0xA5]) * size
    (tmp_path / FILE).write_bytes(raw)
    store = SqlStore(await SqliteFile.open(tmp_path / FILE))
    try:
        for work in (
            store.token("old"),
            store.append(normal(deed(2))),
            store.ends(),
            store.add_token(row("new"), 9),
        ):
            with pytest.raises(Unavailable, match=r"^admin\.db: damaged"):
                await work
    finally:
        await store.close()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="file/below"):
        await open_admin_store(NodeConfig(data_dir=tmp_path / "file" / "below"), {})


async def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    store = await open_admin_store(NodeConfig(data_dir=tmp_path / "new"), {})
    await seeded(store)
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    await store.close()


async def test_a_newer_schema_is_left_alone(backing: Backing) -> None:
    store = await backing.open()
    await seeded(store)
    await store._write(
        lambda connection: connection.exec_driver_sql("UPDATE admin_schema SET version_num = 'admin_9999'")
    )
    if backing.name == "sqlite":
        await store._read(lambda connection: connection.exec_driver_sql("PRAGMA user_version = 9999"))
    await store.close()
    with pytest.raises(Exception, match="newer than this program's"):
        await backing.open()


async def test_several_nodes_make_one_schema(backing: Backing) -> None:
    stores = await asyncio.gather(*(backing.open() for _ in range(4)))
    for store in stores:
        await store.append(normal(deed()))
        await store.close()
    again = await backing.open()
    assert (await again.ends())[1] == 4
    await again.close()


async def test_a_postgres_that_is_gone_and_comes_back(turned: Turned) -> None:
    try:
        with postgres_server() as server:
            backing = Backing("postgres", Path(), server.new_database(), server)
            store = await backing.open()
            throttle = LoginThrottle(RateLimit())
            tokens = ApiTokens(store, ApiTokensConfig(), throttle, turned.clocks, os.urandom)
            made = await tokens.create(role=Role.OPERATOR, tenant_id=None, label="ci", created_by="ada")
            await tokens.authenticate(made.token.reveal(), "192.0.2.1")
            server.stop()
            turned.turn(1_000)
            for work in (
                tokens.authenticate(made.token.reveal(), "192.0.2.1"),
                store.append(normal(deed())),
                store.ends(),
            ):
                with pytest.raises(Unavailable, match=r"^postgres: cannot be reached$") as caught:
                    await work
                assert store.place in str(caught.value.__cause__)
            assert throttle.failures == 0
            server.start()
            assert (
                await tokens.authenticate(made.token.reveal(), "192.0.2.1")
            ).credential == made.info.public_id
            assert (await store.ends())[1] == 0
            await store.close()
    except NoPostgresError as error:
        pytest.skip(str(error))


async def test_a_postgres_that_is_not_named_or_not_there(tmp_path: Path) -> None:
    node = NodeConfig(
        data_dir=tmp_path,
        admin=AdminConfig(),
        store=StoreConfig(kind="postgres", postgres=PostgresConfig(url_env="DB", wait_ms=500)),
    )
    with pytest.raises(Unavailable, match="DB is not set"):
        await open_admin(node, {})
    with pytest.raises(Unavailable) as caught:
        await open_admin(node, {"DB": "postgresql://u:sk-secret@127.0.0.1:1/d"})
    assert "postgres 127.0.0.1/d" in str(caught.value)
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "sk-secret" not in str(cause)
        cause = cause.__cause__
