"""Looks into files that nobody has open: they see what is committed, or they say that they cannot tell."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.node import PlatformProviders
from tenancy import Registry, StoreError, glance
from tenancy.database import PreparedQuery, open_database
from tenancy.glance import AT_ONCE, MAX_REMEMBERED, SETTLED_S, Glances, Look, Remembered, look, stamp_of
from tenancy.schema_history import SchemaHistory
from tenancy.shards import Shards
from tenancy.sqlite_store import SqliteStore
from tenancy.store import Serving, ServingTexts, VersionKey
from tests.tenancy.conftest import dialled, tenant
from tests.tenancy.test_store_contract import digest, version

TENANT = SchemaHistory("tenant")
VERSIONS = "SELECT count(*) FROM config_versions"


def later() -> int:
    """As if everything had been written long ago."""
    return time.time_ns() + int((SETTLED_S + 1) * 1e9)


@pytest.fixture
def settled() -> Iterator[None]:
    with patch.object(glance, "time_ns", later):
        yield


def until_the_clock_ticks(path: Path) -> None:
    """Whatever is written from now on has another time than the file."""
    scratch = path.with_name("tick")
    scratch.touch()
    while scratch.stat().st_mtime_ns <= path.stat().st_ctime_ns:
        scratch.touch()


async def make(path: Path) -> Path:
    await (await open_database(path, TENANT)).close()
    until_the_clock_ticks(path)
    return path


def add(path: Path, *, checkpoint: bool = True) -> sqlite3.Connection:
    """Commit a version, as another program; closed, it is in the file itself."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(
        "INSERT INTO config_versions SELECT count(*) + 1, 'h', 1, 'a', 'r', 't', '{}' FROM config_versions"
    )
    if checkpoint:
        connection.close()
    return connection


def beside(directory: Path) -> list[str]:
    """The file and what SQLite made beside it."""
    return [each.name for each in directory.glob("x*")]


def seen(path: Path) -> int | None:
    found = look(path, TENANT.head, VERSIONS, [])
    return None if found is None else int(found.rows[0][0])


@pytest.mark.usefixtures("settled")
async def test_a_file_that_nobody_has_open_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    path = await make(tmp_path / "x ?#%.db")
    before = path.stat()
    assert seen(path) == 0
    assert beside(tmp_path) == [path.name]
    assert path.stat().st_ctime_ns == before.st_ctime_ns


async def test_what_was_written_just_now_cannot_be_told(tmp_path: Path) -> None:
    path = await make(tmp_path / "x.db")
    assert seen(path) is None
    # A time that is set back does not help: the file's status has changed then.
    os.utime(path, (1, 1))
    assert seen(path) is None
    with patch.object(glance, "time_ns", later):
        assert seen(path) == 0
    # Nor does one from the future.
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    with patch.object(glance, "time_ns", later):
        assert seen(path) is None


@pytest.mark.usefixtures("settled")
async def test_what_has_to_be_opened_is_not_looked_into(tmp_path: Path) -> None:
    path = await make(tmp_path / "x.db")
    opened = add(path, checkpoint=False)
    assert seen(path) is None
    opened.close()
    assert seen(path) == 1
    journal = path.with_name("x.db-journal")
    journal.touch()
    assert seen(path) is None
    journal.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA user_version = {TENANT.head + 1}")
    assert seen(path) is None
    path.write_bytes(b"no database" * 1000)
    assert seen(path) is None
    assert seen(tmp_path / "nobody.db") is None
    assert not (tmp_path / "nobody.db").exists()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("moment", ["before it is read", "after it was read"])
async def test_a_writer_that_comes_and_goes_meanwhile_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = await make(tmp_path / "x.db")

    class Late(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            if moment.startswith("before"):
                add(path)
            super().__init__(*args, **options)

        def close(self) -> None:
            super().close()
            if moment.startswith("after"):
                add(path)

    connect = sqlite3.connect
    monkeypatch.setattr(
        "tenancy.glance.sqlite3.connect",
        lambda *args, **options: connect(
            *args, **{"factory": Late, **options} if "uri" in options else options
        ),
    )
    assert seen(path) is None
    monkeypatch.undo()
    with patch.object(glance, "time_ns", later):
        assert seen(path) == 1


@pytest.mark.usefixtures("settled")
async def test_a_file_in_its_place_is_another(tmp_path: Path) -> None:
    path, other = await make(tmp_path / "x.db"), await make(tmp_path / "y.db")
    add(other)
    before = stamp_of(path)
    assert before is not None
    other.replace(path)
    assert stamp_of(path) not in (before, None)
    assert seen(path) == 1


async def test_the_locks_of_who_has_the_file_open_are_kept(tmp_path: Path) -> None:
    path = await make(tmp_path / "x.db")
    holder = sqlite3.connect(path, isolation_level=None)
    other = (
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=0)\n"
        "try: print(c.execute('PRAGMA journal_mode = DELETE').fetchone()[0])\n"
        "except sqlite3.OperationalError as error: print(error)"
    )
    try:
        holder.execute(VERSIONS).fetchall()
        # A look that lost the race: the file was opened after its journal was looked for.
        with patch.object(glance, "stamp_of", lambda _: (0, 0, 0, 0, 0)):
            assert seen(path) == 0
        said = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", other, str(path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.strip() == "database is locked"
    finally:
        holder.close()


# -- the store -----------------------------------------------------------------------------------------


def rest(directory: Path) -> None:
    for path in (directory / "tenants").glob("client-*.db"):
        until_the_clock_ticks(path)


Step = tuple[str, int, str, str]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["import", "import", "context", "context", "keep", "put back", "edit"]),
        st.integers(0, 1),
        st.sampled_from("ab"),
        st.sampled_from(["Hello.", "Good day.", "Yes?"]),
    ),
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(STEPS)
async def test_a_context_is_of_what_was_activated_last_whoever_did_it(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder, patch.object(glance, "time_ns", later):
        await _compared(Path(folder), steps)


async def _compared(directory: Path, steps: list[Step]) -> None:
    """Two nodes' stores on the same files, one of which keeps few open and so looks into most, beside a model."""
    registries = [await Registry.open(directory, PlatformProviders(), {}, limit) for limit in (1, 2)]
    active: dict[str, tuple[str, int]] = {}
    kept: dict[str, tuple[str, int]] = {}
    try:
        for what, which, name, greeting in steps:
            rest(directory)
            registry, number = registries[which], "+1555010" + "ab".index(name).__str__()
            store = registry.store
            assert isinstance(store, SqliteStore)
            path, copy = store.shards.path(name), directory / f"{name}.copy"
            if what == "import":
                config = tenant(name, number, greeting=greeting)
                made = await registry.import_tenant(config, author="op", reason="test")
                active[name] = (greeting, made)
            elif name not in active:
                continue
            elif what == "edit":
                first = await _greeting(registry, name, 1)
                if active[name][0] != first:
                    origin = registry.lifecycle.origin("op", "test")
                    version = await registry.lifecycle.roll_back(name, 1, origin)
                    active[name] = (first, version.version)
            elif what == "keep":
                for each in registries:
                    assert isinstance(each.store, SqliteStore)
                    async with each.store.shards.closed(name):
                        pass
                shutil.copy(path, copy)
                kept[name] = active[name]
            elif what == "put back" and name in kept:
                for each in registries:
                    assert isinstance(each.store, SqliteStore)
                    async with each.store.shards.closed(name):
                        pass
                copy.replace(path)
                active[name] = kept.pop(name)
            for each in registries:
                context = await each.context_for(dialled(number), call_id="c")
                assert (context.config.greeting, context.config_version) == active[name]
                assert isinstance(each.store, SqliteStore)
                assert each.store.shards.open_count <= 2
    finally:
        for each in registries:
            await each.close()


async def _greeting(registry: Registry, name: str, number: int) -> str:
    return (await registry._load_version(name, number)).greeting


@pytest.mark.usefixtures("settled")
async def test_what_another_process_activates_serves_the_next_call(tmp_path: Path) -> None:
    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    other = (
        "import asyncio, pathlib, sys\n"
        "from config.node import PlatformProviders\nfrom tenancy import Registry\n"
        "from tests.tenancy.conftest import tenant\n"
        "async def main():\n"
        "    registry = await Registry.open(pathlib.Path(sys.argv[1]), PlatformProviders(), {})\n"
        "    new = tenant('a', '+15550100', greeting=sys.argv[2])\n"
        "    print(await registry.import_tenant(new, author='other', reason='test'))\n"
        "    await registry.close()\n"
        "asyncio.run(main())\n"
    )
    try:
        await registry.import_tenant(tenant("a", "+15550100"), author="op", reason="test")
        assert isinstance(registry.store, SqliteStore)
        async with registry.store.shards.closed("a") as path:
            pass
        for number, greeting in ((2, "Second."), (3, "Third.")):
            context = await registry.context_for(dialled("+15550100"), call_id="c")
            for _ in range(2):
                context = await registry.context_for(dialled("+15550100"), call_id="c")
            assert context.config_version == number - 1
            assert registry.store.shards.open_count == 0  # it was looked into
            until_the_clock_ticks(path)
            said = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", other, str(tmp_path), greeting],
                capture_output=True,
                text=True,
                check=True,
            )
            assert said.stdout.split() == [str(number)]
            context = await registry.context_for(dialled("+15550100"), call_id="c")
            assert (context.config.greeting, context.config_version) == (greeting, number)
    finally:
        await registry.close()


@pytest.mark.usefixtures("settled")
async def test_what_is_remembered_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SqliteStore.open(tmp_path)
    looked: list[Path] = []

    def counted(path: Path, *args: Any) -> Look | None:
        looked.append(path)
        return look(path, *args)

    try:
        await store.import_version(version("a", "one", "+1"))
        async with store.shards.closed("a") as path:
            pass
        monkeypatch.setattr(glance, "look", counted)
        serving = Serving(VersionKey(1, digest("one")))
        for _ in range(2):
            assert await store.serving_texts("a", ()) == ServingTexts(serving, {digest("one"): "one"})
        for _ in range(3):
            assert await store.serving_texts("a", (digest("one"),)) == ServingTexts(serving, {})
        assert looked == [path, path]  # a body that is asked for is not kept
    finally:
        await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.serving_texts("a", (digest("one"),))


async def test_few_are_remembered(tmp_path: Path) -> None:
    remembered: Remembered[int] = Remembered()
    paths = [tmp_path / str(n) for n in range(MAX_REMEMBERED + 1)]
    for each in paths:
        each.touch()
    with patch.object(glance, "time_ns", later):
        for n, each in enumerate(paths):
            remembered.put(each, stamp_of(each), n)
        assert [remembered.get(each) for each in paths] == [None, *range(1, MAX_REMEMBERED + 1)]
        remembered.put(paths[5], None, 5)
        assert remembered.get(paths[5]) is None
    # Nothing can be told of what was written just now.
    assert remembered.get(paths[7]) is None


# -- bounds --------------------------------------------------------------------------------------------


def open_files(directory: Path) -> int:
    """Descriptors of ours on tenants' files and what is beside them."""
    found = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            found += str(each.readlink()).startswith(str(directory / "client-"))
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("limit", [1, 4, 32])
async def test_descriptors_stay_within_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    shards = Shards(tmp_path, limit)
    names = [f"t{n}" for n in range(40)]
    most: list[int] = []
    at_once: list[int] = []
    inside = 0
    lock = threading.Lock()

    def counted(*args: Any) -> Look | None:
        nonlocal inside
        with lock:
            inside += 1
            at_once.append(inside)
        found = look(*args)
        most.append(open_files(tmp_path))
        with lock:
            inside -= 1
        return found

    async def write(name: str) -> None:
        async with shards.use(name) as shard:
            most.append(open_files(tmp_path))
            assert shards.open_count <= limit
            await shard.fetch(PREPARED)

    try:
        for name in names:
            await make(shards.path(name))
        monkeypatch.setattr(glance, "look", counted)
        for _ in range(3):
            looks = [shards.fetch(name, PREPARED) for name in names]
            writes = [write(name) for name in names[::3]]
            await asyncio.gather(*looks, *writes)
        assert max(at_once) <= AT_ONCE
        assert max(most) <= 3 * limit + AT_ONCE
    finally:
        await shards.close()
    assert open_files(tmp_path) == 0


PREPARED = PreparedQuery(VERSIONS, ())


async def test_room_is_made_before_it_is_asked_for(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 32)
    try:
        for n in range(40):
            async with shards.use(f"t{n}"):
                assert shards.open_count <= 32
        async with asyncio.timeout(10):
            while shards.open_count > 30:  # noqa: ASYNC110 - the condition is the synchronisation
                await asyncio.sleep(0)
        # The most recently used are those that stay.
        assert [name for name in (f"t{n}" for n in range(40)) if name in shards._shards] == [
            f"t{n}" for n in range(10, 40)
        ]
    finally:
        await shards.close()
    assert open_files(tmp_path) == 0


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("steps", range(0, 12, 2))
async def test_who_is_cancelled_leaves_nothing_behind(tmp_path: Path, steps: int) -> None:
    shards = Shards(tmp_path, 2)
    for n in range(6):
        await make(shards.path(f"t{n}"))
    tasks = [asyncio.create_task(shards.fetch(f"t{n}", PREPARED)) for n in range(6)]
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*(shards.fetch(f"t{n}", PREPARED) for n in range(6))) == [[(0,)]] * 6
    await shards.close()
    assert open_files(tmp_path) == 0
    assert not [each for each in threading.enumerate() if each.name.startswith("glance")]


async def test_nothing_is_looked_into_after_the_end(tmp_path: Path) -> None:
    glances = Glances(TENANT.head)
    await glances.close()
    with pytest.raises(StoreError, match="closed"):
        await glances.fetch(tmp_path / "x.db", PREPARED)


async def test_a_file_is_opened_when_the_looks_into_it_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else SQLite would keep the look's descriptor until the file is closed: beside the three that a shard may have."""
    shards = Shards(tmp_path, 1)
    path = await make(shards.path("a"))
    inside, go = threading.Event(), threading.Event()

    def slow(*_: Any) -> Look | None:
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            connection.execute(VERSIONS).fetchall()
            inside.set()
            go.wait(10)
        return None

    async def use() -> int:
        async with shards.use("a") as shard:
            await shard.fetch(PREPARED)
            return open_files(tmp_path)

    monkeypatch.setattr(glance, "look", slow)
    looking = asyncio.create_task(shards.fetch("a", PREPARED))
    await asyncio.to_thread(inside.wait, 10)
    looking.cancel()
    using = asyncio.create_task(use())
    for _ in range(20):
        await asyncio.sleep(0)
    assert shards.open_count == 0
    go.set()
    try:
        assert await using <= 3
    finally:
        await asyncio.gather(looking, return_exceptions=True)
        await shards.close()
