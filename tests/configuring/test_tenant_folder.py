"""A watched folder: what changes is in use at the next call, what is wrong is refused with its line, and what ran goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.node import PlatformProviders, TenantFolderConfig
from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import TENANT_FILES
from mediaserver.tenant_folder import TenantFolder
from tenancy import Registry
from tenancy.folder import MAX_FILES, FolderWatch, Signature
from tests.tenancy.conftest import dialled, tenant


def write(path: Path, tenant_id: str, *numbers: str, greeting: str = "Hello.", **changes: object) -> None:
    """As a careful writer does: whole, and in one go."""
    document = tenant(tenant_id, *numbers, greeting=greeting).model_dump(mode="json") | changes
    path.with_suffix(".tmp").write_text(yaml.safe_dump(document))
    path.with_suffix(".tmp").rename(path)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = await Registry.open(tmp_path / "data", PlatformProviders(), {})
    yield registry
    await registry.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    files = tmp_path / "tenants"
    files.mkdir()
    return files


def folder(files: Path, registry: Registry, **options: object) -> TenantFolder:
    return TenantFolder(TenantFolderConfig(path=files), registry.lifecycle, Meters(), **options)  # type: ignore[arg-type]


async def greeting(registry: Registry, number: str = "+15550100") -> tuple[str, int]:
    context = await registry.context_for(dialled(number), call_id="c")
    return context.config.greeting, context.config_version


async def test_what_changes_is_in_use_at_the_next_call(files: Path, registry: Registry) -> None:
    watched = folder(files, registry)
    write(files / "a.yaml", "a", greeting="One.")
    assert await watched.look() == 0  # It may still be in writing.
    assert await watched.look() == 1
    assert await greeting(registry) == ("One.", 1)
    running = await registry.context_for(dialled("+15550100"), call_id="up")
    write(files / "a.yaml", "a", greeting="Two.")
    await watched.look()
    assert await watched.look() == 1
    assert await greeting(registry) == ("Two.", 2)
    assert (running.config.greeting, running.config_version) == ("One.", 1)
    assert await watched.look() == 0
    lines = await registry.lifecycle.log("a")
    assert [(each.origin.author, each.origin.reason) for each in lines] == [("tenant folder", "a.yaml")] * 2


async def test_a_wrong_file_is_refused_with_its_line_and_what_ran_goes_on(
    files: Path, registry: Registry
) -> None:
    meters = Meters()
    watched = TenantFolder(TenantFolderConfig(path=files), registry.lifecycle, meters)
    write(files / "a.yaml", "a", greeting="One.")
    write(files / "b.yaml", "b", "+15550199", greeting="Other.")
    await watched.look(at_once=True)
    text = (files / "a.yaml").read_text()
    (files / "a.yaml").write_text(text.replace("time_zone: Europe/Berlin", "time_zone: Europe/Berlyn"))
    line = 1 + text[: text.index("time_zone:")].count("\n")
    for _ in range(3):
        await watched.look()
    assert await greeting(registry) == ("One.", 1)
    status = watched.status()
    assert status["refused"] == 1
    refusals = status["refusals"]
    assert isinstance(refusals, dict)
    assert f"a.yaml:{line}:1: time_zone: 'Europe/Berlyn' is not an IANA time zone" in refusals["a.yaml"]
    assert meters.value(TENANT_FILES, "refused") == 1  # Told once, however often it is looked at.
    assert await greeting(registry, "+15550199") == ("Other.", 1)
    write(files / "a.yaml", "a", greeting="Three.")
    await watched.look()
    await watched.look()
    assert await greeting(registry) == ("Three.", 2)
    assert watched.status()["refused"] == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"greeting: [", "not valid YAML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a: 1\na: 2\n", "given twice"),
        (b"x: " + b"y" * (1024 * 1024 + 1), "larger than 1048576 bytes"),
        (b"", "the file is empty"),
        (b"greeting: hello\n", "tenant_id"),
    ],
)
async def test_each_kind_of_wrong_file(files: Path, registry: Registry, content: bytes, reason: str) -> None:
    watched = folder(files, registry)
    (files / "a.yml").write_bytes(content)
    assert await watched.look(at_once=True) == 0
    refusals = watched.status()["refusals"]
    assert isinstance(refusals, dict)
    assert reason in refusals["a.yml"]


async def test_a_file_that_goes_does_nothing_and_one_that_comes_back_neither(
    files: Path, registry: Registry
) -> None:
    watched = folder(files, registry)
    write(files / "a.yaml", "a", greeting="One.")
    await watched.look(at_once=True)
    (files / "a.yaml").rename(files / "kept")
    assert await watched.look(at_once=True) == 0
    assert await greeting(registry) == ("One.", 1)
    (files / "kept").rename(files / "a.yaml")
    assert await watched.look(at_once=True) == 0
    assert await greeting(registry) == ("One.", 1)


async def test_a_file_that_did_not_change_takes_no_rollback_back(files: Path, registry: Registry) -> None:
    write(files / "a.yaml", "a", greeting="One.")
    await folder(files, registry).look(at_once=True)
    write(files / "a.yaml", "a", greeting="Two.")
    await folder(files, registry).look(at_once=True)
    lifecycle = registry.lifecycle
    await lifecycle.roll_back("a", 1, lifecycle.origin("op", "bad words"))
    # As after a restart: everything is read anew.
    assert await folder(files, registry).look(at_once=True) == 0
    assert await greeting(registry) == ("One.", 3)
    # A file that goes back to what it said once is a change.
    write(files / "a.yaml", "a", greeting="One.", address="2 Main Street")
    assert await folder(files, registry).look(at_once=True) == 1


async def test_two_files_of_one_tenant_and_a_number_that_is_another_s(
    files: Path, registry: Registry
) -> None:
    watched = folder(files, registry, reserved=["c"])
    write(files / "a.yaml", "a", greeting="First.")
    write(files / "a2.yaml", "a", greeting="Second.")
    write(files / "b.yaml", "b", "+15550100")
    write(files / "c.yaml", "c", "+15550177")
    await watched.look(at_once=True)
    refusals = watched.status()["refusals"]
    assert isinstance(refusals, dict)
    assert set(refusals) == {"a2.yaml", "b.yaml", "c.yaml"}
    assert "'a' is already used in a.yaml" in refusals["a2.yaml"]
    assert "+15550100 belongs to a" in refusals["b.yaml"]
    assert "under 'tenants' in the node's configuration" in refusals["c.yaml"]
    assert await greeting(registry) == ("First.", 1)
    # The number becomes free: the other file is in use without having changed.
    write(files / "a.yaml", "a", "+15550122", greeting="First.")
    await watched.look()
    await watched.look()
    assert (await registry.context_for(dialled("+15550100"), call_id="c")).tenant_id == "b"


async def test_it_looks_until_it_is_cancelled(files: Path, registry: Registry) -> None:
    """The shell, with the test in the clock's place; a folder that cannot be read is no end of it."""
    beats: asyncio.Queue[None] = asyncio.Queue()
    looked: asyncio.Queue[float] = asyncio.Queue()

    async def pause(seconds: float) -> None:
        looked.put_nowait(seconds)
        await beats.get()

    changed = asyncio.Event()

    async def on_change() -> None:
        changed.set()

    watched = folder(files, registry, pause=pause, on_change=on_change)
    task = asyncio.create_task(watched.run())
    assert await looked.get() == 0.4
    moved = files.with_name("elsewhere")
    await asyncio.to_thread(files.rename, moved)
    beats.put_nowait(None)
    await looked.get()
    assert "No such file" in str(watched.status()["error"])
    await asyncio.to_thread(moved.rename, files)
    write(files / "a.yaml", "a", greeting="One.")
    for _ in range(2):
        beats.put_nowait(None)
        await looked.get()
    assert changed.is_set()
    assert watched.status()["error"] is None
    assert await greeting(registry) == ("One.", 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_too_many_files_are_left_out_by_name() -> None:
    watch = FolderWatch()
    found = {f"{n:06}.yaml": Signature(n, 1, 1) for n in range(MAX_FILES + 3)}
    assert len(watch.looked(found, at_once=True)) == MAX_FILES
    assert watch.left_out == 3


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3), min_size=1, max_size=12)
)
def test_a_file_is_read_once_for_each_state_in_which_it_rests(looks: list[dict[str, int]]) -> None:
    watch = FolderWatch()
    before: dict[str, int] = {}
    last_read: dict[str, int] = {}
    for look in looks:
        due = watch.looked({name: Signature(1, 1, state) for name, state in look.items()})
        last_read = {name: state for name, state in last_read.items() if name in look}
        expected = [
            name
            for name in sorted(look)
            if before.get(name) == look[name] and last_read.get(name) != look[name]
        ]
        assert list(due) == expected
        for name in due:
            last_read[name] = look[name]
            watch.taken(name, name)
        before = look
