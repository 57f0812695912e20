"""What every store does: whole changes or none, each naming what it replaces, under one audit trail."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vault.conftest import Interrupted
from vault import (
    AuditBroken,
    Conflict,
    SqliteStore,
    VaultFull,
    VaultStoreCorrupt,
    VaultStoreError,
    VaultStoreLocked,
)
from vault import sqlite as vault_sqlite
from vault.audit import Action, Appended, Chain, Deed, Head
from vault.records import (
    AddDataKey,
    DataKeyRow,
    Found,
    RetireDataKey,
    RewrapDataKey,
    SecretRow,
    SecretStore,
    Write,
    WriteSecret,
)
from vault.sealing import KeyMaterial, KeyPlace, WrappedKey

CHAIN = Chain(KeyMaterial(bytes(range(32))))
AT = "2025-03-03T12:00:00.000000+00:00"


def link(count: int = 1) -> Callable[[Head | None], Appended]:
    return lambda head: CHAIN.append(head, [Deed(AT, "ada", Action.PUT, "a", "n", 1)] * count)


def key(tenant: str = "a", generation: int = 1, kek: str = "k1", blob: bytes = b"w") -> DataKeyRow:
    return DataKeyRow(KeyPlace(tenant, generation), WrappedKey(kek, blob), AT)


def row(tenant: str = "a", name: str = "n", version: int = 1, generation: int = 1) -> SecretRow:
    return SecretRow(tenant, name, version, b"sealed %d" % version, generation, "f" * 16, AT, "ada")


def new(made: SecretRow, names_max: int = 9) -> WriteSecret:
    return WriteSecret(made, None, names_max)


async def state(store: SecretStore) -> tuple[object, ...]:
    """All of it, as reading shows it."""
    tenants = await store.tenants("", 100)
    return (
        [(await store.data_keys(each), await store.secrets(each)) for each in tenants],
        await store.head(),
        await store.entries(0, 100),
    )


async def refused(store: SecretStore, error: type[Exception], *writes: Write) -> None:
    before = await state(store)
    with pytest.raises(error):
        await store.commit(writes, link())
    assert await state(store) == before, "a refused change left something behind"


async def test_an_empty_store_has_nothing(store: SecretStore) -> None:
    assert await state(store) == ([], None, ())
    assert await store.secret("a", "n") is None
    assert await store.secrets("a") == ()
    assert await store.data_keys_not_under("k1", None, 9) == ()


async def test_what_is_committed_is_read(store: SecretStore) -> None:
    await store.commit([AddDataKey(key()), new(row()), new(row(name="m"))], link(2))
    found = await store.secret("a", "n")
    assert found is not None
    assert (found.secret, found.data_key) == (row(), key())
    assert [each.name for each in await store.secrets("a")] == ["m", "n"]
    assert await store.secrets("b") == ()
    assert [entry.sequence for entry in await store.entries(0, 9)] == [1, 2]
    assert [entry.sequence for entry in await store.entries(1, 9)] == [2]
    assert [entry.sequence for entry in await store.entries(0, 1)] == [1]
    head = await store.head()
    assert head is not None
    assert CHAIN.vouches(head)


async def test_several_are_read_at_once(store: SecretStore) -> None:
    revoked = replace(row(name="r"), sealed=None, generation=None, revoked_at=AT)
    second = replace(row(name="m"), generation=2)
    writes: list[Write] = [
        AddDataKey(key()),
        AddDataKey(key(generation=2)),
        new(row()),
        new(second),
        new(revoked),
    ]
    await store.commit(writes, link(2))
    await store.commit([AddDataKey(key("b")), new(row("b", "other"))], link(2))
    found = await store.several("a", ("n", "m", "r", "other", "", "n' OR 1=1 --", '"'))
    assert found == {
        "n": Found(row(), key()),
        "m": Found(second, key(generation=2)),
        "r": Found(revoked, None),
    }
    assert await store.several("a", ()) == {}
    assert await store.several("nobody", ("n",)) == {}


async def test_a_secret_is_replaced_only_as_it_was_read(store: SecretStore) -> None:
    await store.commit([AddDataKey(key()), new(row())], link())
    await refused(store, Conflict, new(row(version=2)))
    await refused(store, Conflict, WriteSecret(row(version=3), (2, 1), 9))
    await refused(store, Conflict, WriteSecret(row(version=2), (1, 2), 9))
    await refused(store, Conflict, WriteSecret(row(name="m", version=2), (1, 1), 9))
    await store.commit([WriteSecret(row(version=2), (1, 1), 9)], link())
    revoked = replace(row(version=2), sealed=None, generation=None, revoked_at=AT)
    await store.commit([WriteSecret(revoked, (2, 1), 9)], link())
    found = await store.secret("a", "n")
    assert found is not None
    assert (found.secret, found.data_key) == (revoked, None)
    await store.commit([WriteSecret(row(version=3), (2, None), 9)], link())


async def test_a_secret_names_a_data_key_that_is_there(store: SecretStore) -> None:
    await refused(store, Conflict, new(row()))
    await store.commit([AddDataKey(key())], link())
    await refused(store, Conflict, new(row(generation=2)))
    await refused(store, Conflict, new(row(tenant="b")))


async def test_a_tenant_has_so_many_names(store: SecretStore) -> None:
    await store.commit(
        [AddDataKey(key()), AddDataKey(key("b")), new(row(), 2), new(row(name="m"), 2)], link()
    )
    await refused(store, VaultFull, new(row(name="o"), 2))
    await store.commit([WriteSecret(row(version=2), (1, 1), 2), new(row("b"), 2)], link())


async def test_a_data_key_is_added_once(store: SecretStore) -> None:
    await store.commit([AddDataKey(key())], link())
    await refused(store, Conflict, AddDataKey(key(blob=b"other")))
    await store.commit([AddDataKey(key(generation=2)), AddDataKey(key("b"))], link())
    assert await store.data_keys("a") == (key(), key(generation=2))


async def test_a_data_key_is_rewrapped_only_as_it_was_read(store: SecretStore) -> None:
    await store.commit([AddDataKey(key())], link())
    better = WrappedKey("k2", b"w2")
    await refused(store, Conflict, RewrapDataKey(KeyPlace("a", 1), WrappedKey("k1", b"x"), better))
    await refused(store, Conflict, RewrapDataKey(KeyPlace("a", 1), WrappedKey("k0", b"w"), better))
    await refused(store, Conflict, RewrapDataKey(KeyPlace("b", 1), WrappedKey("k1", b"w"), better))
    await store.commit([RewrapDataKey(KeyPlace("a", 1), WrappedKey("k1", b"w"), better)], link())
    assert await store.data_keys("a") == (replace(key(), wrapped=better),)


async def test_a_data_key_is_retired_when_nothing_names_it_and_a_newer_is_there(store: SecretStore) -> None:
    await store.commit([AddDataKey(key()), AddDataKey(key("b", 2)), new(row())], link())
    await refused(store, Conflict, RetireDataKey(KeyPlace("a", 1)))
    await store.commit([AddDataKey(key(generation=2))], link())
    await refused(store, Conflict, RetireDataKey(KeyPlace("a", 1)))
    await refused(store, Conflict, RetireDataKey(KeyPlace("a", 2)))
    await refused(store, Conflict, RetireDataKey(KeyPlace("a", 3)))
    await store.commit([WriteSecret(row(generation=2), (1, 1), 9), RetireDataKey(KeyPlace("a", 1))], link())
    assert await store.data_keys("a") == (key(generation=2),)


async def test_a_change_is_whole_or_not_at_all(store: SecretStore) -> None:
    await store.commit([AddDataKey(key()), new(row())], link())
    await refused(store, Conflict, new(row(name="m")), AddDataKey(key("b")), new(row()))

    def broken(_: Head | None) -> Appended:
        raise Interrupted

    before = await state(store)
    with pytest.raises(Interrupted):
        await store.commit([new(row(name="m"))], broken)
    assert await state(store) == before
    await store.commit([new(row(name="m"))], link())


async def test_stale_data_keys_come_in_pages(store: SecretStore) -> None:
    rows = [key(tenant, generation, kek) for tenant in "abc" for generation, kek in ((1, "old"), (2, "new"))]
    await store.commit([AddDataKey(each) for each in rows], link())
    stale = rows[::2]
    assert await store.data_keys_not_under("new", None, 9) == tuple(stale)
    assert await store.data_keys_not_under("new", None, 2) == tuple(stale[:2])
    assert await store.data_keys_not_under("new", stale[1].place, 2) == tuple(stale[2:])
    assert await store.data_keys_not_under("other", KeyPlace("b", 1), 9) == tuple(rows[3:])
    assert await store.tenants("", 2) == ("a", "b")
    assert await store.tenants("b", 2) == ("c",)


async def test_two_that_change_the_same_are_told_apart(store: SecretStore) -> None:
    await store.commit([AddDataKey(key()), new(row())], link())
    writes: Sequence[WriteSecret] = [WriteSecret(row(version=2), (1, 1), 9) for _ in range(5)]
    ends = await asyncio.gather(*(store.commit([each], link()) for each in writes), return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["Conflict"] * 4 + ["NoneType"]
    assert [entry.sequence for entry in await store.entries(0, 9)] == [1, 2]


# -- the file ------------------------------------------------------------------------------------------


def tamper(path: Path, *statements: str) -> None:
    """As somebody who can write the file would: without the triggers, and they are put back."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()


async def opened(path: Path) -> SqliteStore:
    store = await SqliteStore.open(path)
    await store.commit([AddDataKey(key()), new(row())], link(2))
    return store


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE audit SET actor = 'eve' WHERE sequence = 1", "not changed"),
        ("DELETE FROM audit WHERE sequence = 2", "not deleted"),
        (
            "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE sequence = 1",
            "appended one after the other",
        ),
        (
            "REPLACE INTO audit SELECT 9, at, actor, action, tenant_id, name, version, kek_id, hash FROM audit",
            "app",
        ),
        ("UPDATE audit_head SET sequence = 1", "forward only"),
        ("DELETE FROM audit_head", "not deleted"),
        ("UPDATE secrets SET version = 0", "forward only"),
        ("DELETE FROM secrets", "not deleted"),
        ("DELETE FROM data_keys", "FOREIGN KEY"),
        ("UPDATE secrets SET sealed = NULL", "CHECK"),
        ("UPDATE secrets SET name = 7.5, version = 'x'", "cannot store"),
    ],
)
async def test_statements_cannot_rewrite_history(tmp_path: Path, statement: str, why: str) -> None:
    path = tmp_path / "vault.db"
    await (await opened(path)).aclose()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys = ON")
    with pytest.raises(sqlite3.IntegrityError, match=why):
        connection.execute(statement)
    connection.close()


async def test_the_file_is_its_owners_alone_and_keeps_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "vault.db"
    store = await opened(path)
    assert {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == dict.fromkeys(
        ("vault.db", "vault.db-wal", "vault.db-shm"), 0o600
    )
    before = await state(store)
    await store.aclose()
    again = await SqliteStore.open(path)
    assert await state(again) == before
    await again.aclose()


async def test_a_reader_sees_nothing_of_a_change_that_is_under_way(tmp_path: Path) -> None:
    store = await opened(tmp_path / "vault.db")
    before = await state(store)
    seen = []

    class Looks(Exception):  # noqa: N818
        pass

    def slow(_: Head | None) -> Appended:
        # A second program reads while this transaction is open; the writes are made already.
        other = sqlite3.connect(tmp_path / "vault.db")
        seen.append(other.execute("SELECT version FROM secrets").fetchall())
        other.close()
        raise Looks

    with pytest.raises(Looks):
        await store.commit([WriteSecret(row(version=2), (1, 1), 9)], slow)
    assert seen == [[(1,)]]
    assert await state(store) == before
    await store.aclose()


async def test_reads_during_a_change_that_fails_never_show_it(store: SecretStore) -> None:
    await store.commit([AddDataKey(key()), new(row())], link())

    def broken(_: Head | None) -> Appended:
        raise Interrupted

    writes = [WriteSecret(row(version=2), (1, 1), 99), *(new(row(name=f"m{n}"), 99) for n in range(20))]
    changing = asyncio.create_task(store.commit(writes, broken))
    while not changing.done():
        found = await store.secret("a", "n")
        assert found is not None
        assert found.secret.version == 1
        assert len(await store.secrets("a")) == 1
        await asyncio.sleep(0)
    with pytest.raises(Interrupted):
        await changing


async def test_a_change_goes_on_to_its_end_when_its_task_is_cancelled(tmp_path: Path) -> None:
    store = await opened(tmp_path / "vault.db")
    for yields in range(12):
        found = await store.secret("a", "n")
        assert found is not None
        version = found.secret.version
        write = WriteSecret(row(version=version + 1), (version, 1), 9)
        task = asyncio.create_task(store.commit([write], link()))
        for _ in range(yields):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Whole or not at all, and the next change finds no transaction left open.
        now = await store.secret("a", "n")
        head = await store.head()
        assert now is not None
        assert head is not None
        assert (now.secret.version - 1, 2) == (head.sequence - 2, 2)
        await store.commit(
            [WriteSecret(row(version=now.secret.version + 1), (now.secret.version, 1), 9)], link()
        )
    await store.aclose()


async def test_two_programs_open_a_new_file_at_once(tmp_path: Path) -> None:
    for number in range(10):
        stores = await asyncio.gather(*(SqliteStore.open(tmp_path / f"{number}.db") for _ in range(6)))
        await stores[0].commit([AddDataKey(key())], link())
        await stores[1].commit([new(row())], link())
        for store in stores:
            assert await store.secrets("a") == (row(),)
            await store.aclose()


async def test_a_file_that_another_program_holds_is_locked_and_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault_sqlite, "BUSY_TIMEOUT_MS", 10)
    path = tmp_path / "vault.db"
    store = await opened(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    await refused(store, VaultStoreLocked, new(row(name="m")))
    holder.execute("ROLLBACK")
    holder.close()
    await store.commit([new(row(name="m"))], link())
    await store.aclose()


async def test_a_full_disk_ends_in_a_named_error_and_no_change(tmp_path: Path) -> None:
    store = await opened(tmp_path / "vault.db")
    ((pages,),) = await store._writer.execute_fetchall("PRAGMA page_count")
    await store._writer.execute(f"PRAGMA max_page_count = {pages}")
    big = [new(replace(row(name=f"n{number}"), sealed=bytes(8_000)), 99) for number in range(9)]
    before = await state(store)
    with pytest.raises(VaultStoreError, match=r"vault\.db: database or disk is full"):
        await store.commit(big, link())
    assert await state(store) == before
    await store._writer.execute("PRAGMA max_page_count = 100000")
    await store.commit(big, link())
    await store.aclose()


async def test_what_is_no_vault_says_so(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(VaultStoreCorrupt, match=r"vault\.db"):
        await SqliteStore.open(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(VaultStoreError, match="folder"):
        await SqliteStore.open(tmp_path / "folder")
    newer = tmp_path / "newer.db"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(VaultStoreError, match="99 is newer than this program's 2"):
        await SqliteStore.open(newer)


async def test_nothing_is_added_to_a_trail_whose_end_was_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    store = await opened(path)
    tamper(path, "DELETE FROM audit WHERE sequence = 2")
    await refused(store, AuditBroken, new(row(name="m")))
    tamper(path, "DELETE FROM audit_head")
    await refused(store, AuditBroken, new(row(name="m")))
    tamper(path, "INSERT INTO audit_head VALUES (1, 1, zeroblob(32), zeroblob(32))")
    await refused(store, AuditBroken, new(row(name="m")))
    await store.aclose()
