"""A vault goes from its file to Postgres and back, as it is, while its keys are read and put."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from perf.postgres_server import PostgresServer
from tests.vault.conftest import ADA, NOON, Interrupted, local, on_postgres, put, value, vault_over
from tests.vault.test_rotation import everything_is_readable, filled
from tests.vault.test_store import state, tamper
from vault import (
    KekMissing,
    MoveRefused,
    OtherVault,
    SecretMissing,
    SecretRevoked,
    SqliteStore,
    VaultElsewhere,
    VaultStoreError,
    VaultStoreUnavailable,
    moving,
)
from vault.audit import Entry
from vault.following import FollowingStore
from vault.moving import Outcome, move
from vault.postgres import PostgresSecretStore
from vault.records import MovableStore, Place, Rows, SecretStore

T = TypeVar("T")


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "vault.db")
    yield made
    await made.aclose()


@pytest.fixture
async def another(tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[SqliteStore]]]:
    """More files."""
    made: list[SqliteStore] = []

    async def make(name: str) -> SqliteStore:
        made.append(await SqliteStore.open(tmp_path / name))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresSecretStore]:
    made = await on_postgres(url)
    yield made
    await made.aclose()


@pytest.fixture(params=["to postgres", "back"])
def sides(
    request: pytest.FixtureRequest, file: SqliteStore, database: PostgresSecretStore
) -> tuple[MovableStore, MovableStore]:
    return (file, database) if request.param == "to postgres" else (database, file)


async def place(store: MovableStore) -> Place:
    return await store.alone(lambda rows: rows.place())


async def lived(store: SecretStore) -> None:
    """Something of everything: versions, a revoked key, retired data keys, other key-encryption keys."""
    await filled(store, local("k0"))
    vault = vault_over(store, local("k1", "k0"))
    await put(vault, "a", "k1", "a k1")
    await vault.rotate_data_key("b", actor=ADA, at=NOON)
    await vault.rotate_kek(actor=ADA, at=NOON, limit=2)
    await put(vault, "d", "gone", "soon")
    await vault.revoke("d", "gone", actor=ADA, at=NOON)


KEKS = ("k1", "k0")


async def test_all_of_it_is_there_afterwards_and_unchanged(sides: tuple[MovableStore, MovableStore]) -> None:
    source, target = sides
    await lived(source)
    before = await state(source)
    anchor = await source.head()
    report = await move(source, target, local(*KEKS))
    assert (report.outcome, report.data_keys, report.secrets) == (Outcome.MOVED, 5, 10)
    assert anchor is not None
    assert report.entries == anchor.sequence
    assert len(report.checksum) == 64
    assert await state(target) == before
    assert (await place(source), await place(target)) == (Place.ELSEWHERE, Place.HERE)
    await everything_is_readable(target, local(*KEKS))
    assert await vault_over(target, local(*KEKS)).verify_audit(anchor) is None
    with pytest.raises(SecretRevoked):
        await value(vault_over(target, local(*KEKS)), "d", "gone")
    assert (await move(source, target, local(*KEKS))).outcome is Outcome.ALREADY_THERE
    # Nothing is read or written where it was: a key that is revoked now would go on to be used.
    for refused in (
        source.secret("a", "k1"),
        source.secrets("a"),
        source.data_keys("a"),
        source.tenants("", 9),
        source.head(),
        source.entries(0, 9),
        source.data_keys_not_under("x", None, 9),
        put(vault_over(source, local(*KEKS)), "a", "k1", "x"),
    ):
        with pytest.raises(VaultElsewhere):
            await refused


async def test_there_and_back_again_with_changes_on_either_side(
    sides: tuple[MovableStore, MovableStore],
) -> None:
    one, other = sides
    await lived(one)
    for turn in range(3):
        await move(one, other, local(*KEKS))
        vault = vault_over(other, local(*KEKS), seed=90 + turn)
        await put(vault, "a", "k1", f"a k1 {turn}")
        await put(vault, f"new{turn}", "k1", "x")
        await vault.rotate_data_key("b", actor=ADA, at=NOON)
        await vault.revoke("c", f"k{turn + 1}", actor=ADA, at=NOON)
        before = await state(other)
        assert (await move(other, one, local(*KEKS))).outcome is Outcome.MOVED
        assert await state(one) == before
        assert await vault_over(one, local(*KEKS)).verify_audit() is None
        assert await value(vault_over(one, local(*KEKS)), "a", "k1") == f"a k1 {turn}"


async def test_a_vault_without_keys_begins_at_the_other_side(
    sides: tuple[MovableStore, MovableStore],
) -> None:
    source, target = sides
    for one, other in ((source, target), (target, source), (source, target)):
        assert (await move(one, other, local())).outcome is Outcome.EMPTY
    with pytest.raises(VaultElsewhere):
        await put(vault_over(source), "a", "k", "x")
    await put(vault_over(target), "a", "k", "x")
    assert await value(vault_over(target), "a", "k") == "x"


async def test_a_vault_with_another_root_key_is_left_alone(sides: tuple[MovableStore, MovableStore]) -> None:
    source, target = sides
    await filled(source, local("k1"))
    other = vault_over(target, local("k1", seed=77), seed=78)
    await put(other, "z", "k", "of another node")
    before = await state(source), await state(target)
    with pytest.raises(OtherVault, match="a vault with another root key"):
        await move(source, target, local("k1"))
    assert (await state(source), await state(target)) == before
    assert (await place(source), await place(target)) == (Place.HERE, Place.HERE)


async def test_the_beginning_of_another_vault_is_left_alone(
    sides: tuple[MovableStore, MovableStore], another: Callable[[str], Awaitable[SqliteStore]]
) -> None:
    source, target = sides
    await filled(source)
    third = await another("third.db")
    await put(vault_over(third, local("k1", seed=77), seed=78), "z", "k", "of another node")
    with pytest.raises(Interrupted):
        await move(third, Stopped(target, after=1), local("k1"))  # type: ignore[arg-type]
    for other in (source, await another("empty.db")):
        with pytest.raises(MoveRefused, match="whose move has not ended"):
            await move(other, target, local("k1"))
        assert await place(other) is Place.HERE
    assert (await move(third, target, local("k1"))).outcome is Outcome.MOVED


async def test_a_root_key_that_cannot_be_opened_moves_nothing(
    sides: tuple[MovableStore, MovableStore],
) -> None:
    source, target = sides
    await filled(source, local("k1"))
    with pytest.raises(KekMissing):
        await move(source, target, local("k2"))
    assert (await place(source), await place(target)) == (Place.HERE, Place.HERE)
    await everything_is_readable(source, local("k1"))


# -- ended in the middle -----------------------------------------------------------------------------------


class Stopped:
    """A store on which a move ends with its n-th transaction, just after that was committed, or in its midst."""

    def __init__(self, inner: MovableStore, after: int, *, within: bool = False) -> None:
        self.inner = inner
        self.left = after
        self.within = within

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    async def alone(self, work: Callable[[Rows], Awaitable[T]]) -> T:
        self.left -= 1

        async def cut(rows: Rows) -> T:
            await work(rows)
            raise Interrupted

        if self.left == 0 and self.within:
            return await self.inner.alone(cut)
        done = await self.inner.alone(work)
        if self.left == 0:
            raise Interrupted
        return done


@pytest.mark.parametrize("within", [False, True], ids=["after", "within"])
@pytest.mark.parametrize("which", ["source", "target"])
async def test_a_move_that_is_ended_anywhere_goes_on(
    sides: tuple[MovableStore, MovableStore], which: str, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "ROWS_AT_ONCE", 5)
    source, target = sides
    await lived(source)
    before = await state(source)
    stops = 0
    for at in range(1, 12):
        stopped: MovableStore = Stopped(source if which == "source" else target, at, within=within)  # type: ignore[assignment]
        ends = (stopped, target) if which == "source" else (source, stopped)
        try:
            await move(*ends, local(*KEKS))
        except Interrupted:
            stops += 1
            counts = source if await place(source) is Place.HERE else target
            assert await state(counts) == before, "it is in one place, whole"
    assert stops >= 1
    assert (await move(source, target, local(*KEKS))).outcome in (Outcome.MOVED, Outcome.ALREADY_THERE)
    assert await state(target) == before
    assert (await place(source), await place(target)) == (Place.ELSEWHERE, Place.HERE)


async def arrived_and_not_told(source: MovableStore, target: MovableStore) -> None:
    """End a move between its two commits: both say that they have the vault."""

    class Deaf:
        def __init__(self, rows: Rows) -> None:
            self.rows = rows

        def __getattr__(self, name: str) -> object:
            return getattr(self.rows, name)

        async def set_place(self, _: Place) -> None:
            raise Interrupted

    class Ends:
        def __getattr__(self, name: str) -> object:
            return getattr(source, name)

        async def alone(self, work: Callable[[Rows], Awaitable[T]]) -> T:
            return await source.alone(lambda rows: work(Deaf(rows)))  # type: ignore[arg-type]

    with pytest.raises(Interrupted):
        await move(Ends(), target, local(*KEKS))  # type: ignore[arg-type]
    assert (await place(source), await place(target)) == (Place.HERE, Place.HERE)


@pytest.mark.parametrize("changed", ["nothing", "source", "target", "both", "both alike"])
async def test_ended_between_its_two_commits_the_newer_side_counts(
    sides: tuple[MovableStore, MovableStore], changed: str
) -> None:
    source, target = sides
    await lived(source)
    await arrived_and_not_told(source, target)
    if changed in ("source", "both"):
        await put(vault_over(source, local(*KEKS), seed=5), "a", "k1", "on the source")
    if changed in ("target", "both"):
        await put(vault_over(target, local(*KEKS), seed=6), "a", "k2", "on the target")
    if changed == "both alike":
        # At one moment, by one person: their trails are the same.
        for seed, store in ((5, source), (6, target)):
            await put(vault_over(store, local(*KEKS), seed=seed), "a", "k1", f"{seed}")
    if changed.startswith("both"):
        before = await state(source), await state(target)
        with pytest.raises(MoveRefused, match=r"changed on both sides|not the same on the two sides"):
            await move(source, target, local(*KEKS))
        assert (await state(source), await state(target)) == before
        return
    newer = await state(target if changed == "target" else source)
    assert (await move(source, target, local(*KEKS))).outcome is Outcome.MOVED
    assert await state(target) == newer
    assert await vault_over(target, local(*KEKS)).verify_audit() is None


async def test_a_file_that_was_put_back_does_not_undo_what_came_after(
    tmp_path: Path, database: PostgresSecretStore, another: Callable[[str], Awaitable[SqliteStore]]
) -> None:
    path = tmp_path / "vault.db"
    file = await another("vault.db")
    await lived(file)
    await file.aclose()
    backup = path.read_bytes()
    file = await another("vault.db")
    await move(file, database, local(*KEKS))
    await put(vault_over(database, local(*KEKS)), "a", "k1", "later")
    await file.aclose()
    path.write_bytes(backup)
    file = await another("vault.db")
    assert (await move(file, database, local(*KEKS))).outcome is Outcome.MOVED
    assert await value(vault_over(database, local(*KEKS)), "a", "k1") == "later"
    # And where the database has been left meanwhile, it says so.
    await move(database, file, local(*KEKS))
    await put(vault_over(file, local(*KEKS)), "a", "k1", "last")
    await file.aclose()
    path.write_bytes(backup)
    file = await another("vault.db")
    with pytest.raises(MoveRefused, match="put back to an earlier state"):
        await move(file, database, local(*KEKS))


async def test_a_trail_that_was_tampered_with_is_not_brought_along(
    tmp_path: Path, file: SqliteStore, database: PostgresSecretStore
) -> None:
    await lived(file)
    tamper(tmp_path / "vault.db", "UPDATE audit SET actor = 'eve' WHERE sequence = 2")
    with pytest.raises(MoveRefused, match="not sound at entry 2"):
        await move(file, database, local(*KEKS))
    assert (await place(file), await place(database)) == (Place.HERE, Place.ELSEWHERE)


@pytest.mark.parametrize(
    ("statement", "error", "words"),
    [
        ("UPDATE vault_secrets SET version = 9 WHERE tenant_id = 'a'", VaultStoreError, "forward only"),
        (
            "INSERT INTO vault_secrets VALUES ('a', 'extra', 1, NULL, NULL, 'f', 't', 'p', 't')",
            MoveRefused,
            r"SecretRow \('a', 'extra'\) is not the same",
        ),
    ],
)
async def test_a_target_that_was_tampered_with_is_not_taken(
    url: str,
    file: SqliteStore,
    database: PostgresSecretStore,
    statement: str,
    error: type[Exception],
    words: str,
) -> None:
    await lived(file)
    await move(file, database, local(*KEKS))
    await move(database, file, local(*KEKS))
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("SELECT set_config('app.tenant_id', 'a', false)")
        session.execute(statement.encode())
    with pytest.raises(error, match=words):
        await move(file, database, local(*KEKS))
    assert await place(file) is Place.HERE
    await everything_is_readable(file, local(*KEKS))


@pytest.mark.parametrize("direction", ["to postgres", "back"])
async def test_a_server_that_goes_in_the_middle_is_named_and_the_move_goes_on(
    own_server: PostgresServer, file: SqliteStore, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await on_postgres(own_server.new_database(), wait_ms=2_000)
    source, target = (file, database) if direction == "to postgres" else (database, file)
    await lived(source)
    before = await state(source)

    async def stops(ours: Rows, theirs: Rows) -> None:
        del ours, theirs
        await asyncio.to_thread(own_server.stop, signal.SIGQUIT)

    monkeypatch.setattr(moving, "_copy_rows", stops)
    with pytest.raises(VaultStoreUnavailable, match="postgres"):
        await move(source, target, local(*KEKS))
    monkeypatch.undo()
    if direction == "to postgres":
        assert await state(file) == before, "who reads the file does not notice"
    await asyncio.to_thread(own_server.start)
    assert await state(source) == before
    assert (await move(source, target, local(*KEKS))).outcome is Outcome.MOVED
    assert await state(target) == before
    await database.aclose()


# -- a node that follows -----------------------------------------------------------------------------------


@dataclass
class Opened:
    """How often a node has opened its database."""

    url: str
    times: int = 0

    async def __call__(self) -> SecretStore:
        self.times += 1
        return await on_postgres(self.url)


@pytest.fixture
async def opened(url: str) -> Opened:
    return Opened(url)


@pytest.fixture
async def node(tmp_path: Path, opened: Opened) -> AsyncIterator[FollowingStore]:
    """A node with connections of its own."""
    made = FollowingStore(await SqliteStore.open(tmp_path / "vault.db"), opened)
    yield made
    await made.aclose()


async def test_keys_are_read_and_put_all_the_time(
    node: FollowingStore, opened: Opened, file: SqliteStore, database: PostgresSecretStore
) -> None:
    """Beside the moves of another program."""
    await filled(file)
    await everything_is_readable(node)
    assert opened.times == 0, "a database that nobody needs is not asked"
    moved = asyncio.Event()
    reads, puts = 0, 0

    async def reading() -> None:
        nonlocal reads
        vault = vault_over(node)
        while not moved.is_set():
            for name in ("k1", "k2"):
                assert await value(vault, "b", name) == f"b {name}"
                reads += 1

    async def putting() -> None:
        nonlocal puts
        vault = vault_over(node, seed=44)
        while not moved.is_set():
            await put(vault, "a", "k3", f"{puts}")
            assert await value(vault, "a", "k3") == f"{puts}"
            puts += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(reading())
        group.create_task(putting())
        for _ in range(3):
            for source, target in ((file, database), (database, file)):
                assert (await move(source, target, local())).outcome is Outcome.MOVED
        await move(file, database, local())
        moved.set()
    assert opened.times == 1
    assert reads > 10
    assert puts > 5
    assert await value(vault_over(database), "a", "k3") == f"{puts - 1}"
    assert [e.action for e in await all_entries(database)].count("put") == 9 + puts
    assert await vault_over(node).verify_audit() is None
    with pytest.raises(SecretMissing):
        await value(vault_over(node), "nobody", "k")


async def all_entries(store: SecretStore) -> Sequence[Entry]:
    return [entry for after in range(0, 100_000, 1_000) for entry in await store.entries(after, 1_000)]


async def test_a_vault_that_is_nowhere_is_told(
    node: FollowingStore, file: SqliteStore, database: PostgresSecretStore
) -> None:
    await filled(file)
    await database.alone(lambda rows: rows.set_place(Place.ELSEWHERE))
    await file.alone(lambda rows: rows.set_place(Place.ELSEWHERE))
    with pytest.raises(VaultElsewhere, match="the vault is in a node's file"):
        await node.secrets("a")
    with pytest.raises(VaultElsewhere, match="neither side has the vault"):
        await move(file, database, local())


async def test_a_program_of_before_writes_nothing_into_a_file_that_was_left(
    tmp_path: Path, file: SqliteStore, database: PostgresSecretStore
) -> None:
    await filled(file)
    await move(file, database, local())
    old = sqlite3.connect(tmp_path / "vault.db")
    with pytest.raises(sqlite3.IntegrityError, match="the vault was brought to Postgres"):
        old.execute(
            "INSERT INTO audit SELECT max(sequence) + 1, '', '', '', '', '', 1, '', zeroblob(32) FROM audit"
        )
    old.close()
