"""One tenant as a file: nothing is lost by bringing it back, and nobody else is touched."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from config.canonical import content_hash
from config.node import PlatformProviders
from tenancy import (
    CallNotRouted,
    NumberTaken,
    Registry,
    RestoreRefused,
    StoreCorrupt,
    StoreError,
    TenantMoved,
    TenantStatus,
    UnknownTenant,
)
from tenancy.backup import arrive, backup, check, export, restore
from tenancy.canary import CanaryPlan
from tenancy.sqlite_store import SqliteStore
from tenancy.store import Serving, VersionKey
from tenancy.versions import Origin
from tests.tenancy.conftest import dialled, tenant
from tests.tenancy.test_registry import NOON, put, record, shard_file


class Node:
    """A node's registry and store over one folder."""

    def __init__(self, directory: Path, store: SqliteStore) -> None:
        self.directory = directory
        self.store = store
        self.registry = Registry(store, PlatformProviders(), {})

    async def call(self, number: str, minute: int) -> None:
        context = await self.registry.context_for(dialled(number), call_id=f"c{minute}")
        await self.registry.record_call(context, record(context, started_at=NOON + timedelta(minutes=minute)))


async def node_at(directory: Path) -> Node:
    return Node(directory, await SqliteStore.open(directory))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    node = await node_at(tmp_path / "one")
    await put(node.registry, "a", "+15550100", greeting="First.")
    await put(node.registry, "b", "+15550101")
    await node.call("+15550100", 1)
    yield node
    await node.store.close()


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Node]:
    node = await node_at(tmp_path / "two")
    yield node
    await node.store.close()


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_file()}


async def greetings(node: Node, tenant_id: str = "a") -> list[str]:
    bodies = []
    for info in reversed(await node.registry.versions(tenant_id)):
        content = await node.store.content(tenant_id, info.version)
        assert content is not None
        bodies.append(content.body.partition('"greeting":"')[2].partition('"')[0])
    return bodies


# -- check ---------------------------------------------------------------------------------------------


async def test_a_sound_file_has_no_problems(node: Node) -> None:
    assert await check(node.store, "a") == ()
    with pytest.raises(UnknownTenant):
        await check(node.store, "c")


async def test_a_damaged_page_is_found_and_costs_its_tenant_alone(tmp_path: Path) -> None:
    node = await node_at(tmp_path)
    await put(node.registry, "a", "+15550100", greeting="x" * 300)
    await put(node.registry, "b", "+15550101")
    await node.store.close()
    path = shard_file(tmp_path, "a")
    data = bytearray(path.read_bytes())
    for offset in range(8192, len(data), 64):
        data[offset] ^= 0xFF
    path.write_bytes(data)
    node = await node_at(tmp_path)
    try:
        assert await check(node.store, "a")
        assert await check(node.store, "b") == ()
        with pytest.raises(StoreCorrupt):
            await backup(node.store, "a", tmp_path / "a.backup")
        assert not (tmp_path / "a.backup").exists()
        await backup(node.store, "b", tmp_path / "b.backup")
    finally:
        await node.store.close()


async def test_what_was_written_behind_our_back_is_found(node: Node) -> None:
    with sqlite3.connect(shard_file(node.directory, "a")) as other:
        other.execute("DROP TRIGGER config_versions_stay")
        other.execute("UPDATE config_versions SET body = replace(body, 'First', 'Fjrst')")
    other.close()
    assert await check(node.store, "a") == ("version 1 is not what was written",)


async def test_another_tenants_file_is_found(node: Node) -> None:
    async with node.store.shards.closed("b") as of_b, node.store.shards.closed("a") as of_a:
        shutil.copy(of_b, of_a)
    assert await check(node.store, "a") == ("version 1 is b's, not a's",)
    with pytest.raises(StoreCorrupt, match="version 1 is b's, not a's"):
        await node.registry.context_for(dialled("+15550100"), call_id="c")


# -- backup and restore --------------------------------------------------------------------------------


async def test_a_backup_is_made_while_calls_are_recorded(node: Node, tmp_path: Path) -> None:
    async def calls() -> None:
        for minute in range(2, 40):
            await node.call("+15550100", minute)

    async def backups() -> list[int]:
        return [(await backup(node.store, "a", tmp_path / f"{n}.backup")).calls for n in range(5)]

    counts, _ = await asyncio.gather(backups(), calls())
    assert counts == sorted(counts)
    assert len(await node.registry.calls("a")) == 39
    assert files_in(tmp_path) == {f"{n}.backup" for n in range(5)}


async def test_a_backup_replaces_no_file(node: Node, tmp_path: Path) -> None:
    await backup(node.store, "a", tmp_path / "a.backup")
    before = (tmp_path / "a.backup").read_bytes()
    with pytest.raises(StoreError, match="is there already"):
        await backup(node.store, "a", tmp_path / "a.backup")
    assert (tmp_path / "a.backup").read_bytes() == before
    with pytest.raises(StoreError, match="no such folder"):
        await backup(node.store, "a", tmp_path / "nowhere" / "a.backup")
    with pytest.raises(UnknownTenant):
        await backup(node.store, "c", tmp_path / "c.backup")


async def test_an_older_backup_leaves_a_longer_history(node: Node, tmp_path: Path) -> None:
    await backup(node.store, "a", tmp_path / "a.backup")
    await put(node.registry, "a", "+15550102", greeting="Second.")
    await node.call("+15550102", 2)
    info = await restore(node.store, tmp_path / "a.backup", author="ada")
    assert (info.active_version, info.added_versions, info.added_calls) == (3, 1, 0)
    assert await greetings(node) == ["First.", "Second.", "First."]
    newest = (await node.registry.versions("a"))[0]
    assert (newest.author, newest.reason[:28]) == ("ada", "restored from the backup of ")
    # The numbers are those of what is active; the call that the backup does not have is still there.
    assert (await node.registry.context_for(dialled("+15550100"), call_id="c")).config_version == 3
    with pytest.raises(CallNotRouted, match=r"^unknown"):
        await node.registry.resolve(dialled("+15550102"))
    assert len(await node.registry.calls("a")) == 2
    # A second time there is nothing to do.
    again = await restore(node.store, tmp_path / "a.backup", author="ada")
    assert (again.active_version, again.added_versions, again.added_calls) == (3, 0, 0)


async def test_a_lost_file_comes_back_whole(node: Node, tmp_path: Path) -> None:
    await put(node.registry, "a", "+15550100", greeting="Second.")
    await backup(node.store, "a", tmp_path / "a.backup")
    async with node.store.shards.closed("a") as path:
        path.unlink()
    info = await restore(node.store, tmp_path / "a.backup", author="ada")
    assert (info.active_version, info.added_versions, info.added_calls, info.damaged_file) == (2, 2, 1, None)
    assert await greetings(node) == ["First.", "Second."]
    assert [each.author for each in await node.registry.versions("a")] == ["test", "test"]


@pytest.mark.parametrize("known_numbers", [True, False])
async def test_a_damaged_file_is_set_aside(node: Node, tmp_path: Path, *, known_numbers: bool) -> None:
    await backup(node.store, "a", tmp_path / "a.backup")
    path = shard_file(node.directory, "a")
    async with node.store.shards.closed("a"):
        path.write_bytes(b"this is not a database" * 1000)
    if not known_numbers:
        # Another tenant has got the number meanwhile: nothing is changed then, not even the damaged file.
        await node.store.claim_for("a", (), lambda: asyncio.sleep(0))
        await put(node.registry, "b", "+15550100")
        with pytest.raises(NumberTaken):
            await restore(node.store, tmp_path / "a.backup", author="ada")
        assert path.read_bytes().startswith(b"this is not")
        return
    info = await restore(node.store, tmp_path / "a.backup", author="ada")
    assert info.damaged_file is not None
    assert info.damaged_file.read_bytes().startswith(b"this is not")
    assert (await node.registry.context_for(dialled("+15550100"), call_id="c")).config.greeting == "First."
    assert await check(node.store, "a") == ()


async def test_a_file_that_another_program_puts_in_place_is_used(node: Node, tmp_path: Path) -> None:
    """The command line restores; the node has the old file open."""
    await backup(node.store, "a", tmp_path / "a.backup")
    path = shard_file(node.directory, "a")
    assert (await node.registry.context_for(dialled("+15550100"), call_id="c")).config.greeting == "First."
    path.rename(tmp_path / "old.db")  # under the open connection
    second = await node_at(node.directory)
    try:
        await restore(second.store, tmp_path / "a.backup", author="ada")
        await put(second.registry, "a", "+15550100", greeting="Second.")
    finally:
        await second.store.close()
    assert (await node.registry.context_for(dialled("+15550100"), call_id="c")).config.greeting == "Second."


async def test_what_is_no_backup_is_refused(node: Node, tmp_path: Path) -> None:
    path = tmp_path / "x.backup"
    with pytest.raises(StoreError, match="no such file"):
        await restore(node.store, path, author="ada")
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(RestoreRefused, match="no backup of a tenant"):
        await restore(node.store, path, author="ada")
    shutil.copy(Path(__file__).parent / "files" / "client-a.db", tmp_path / "file.backup")
    with pytest.raises(RestoreRefused, match="no backup of a tenant"):
        await restore(node.store, tmp_path / "file.backup", author="ada")
    await backup(node.store, "a", tmp_path / "a.backup")
    for statement, words in (
        ("UPDATE backup SET tenant_id = '../../x'", "can be no tenant's id"),
        ("UPDATE backup SET tenant_id = 'b'", "version 1 is a's, not b's"),
        ("DELETE FROM backup", "no backup of a tenant"),
        ("DELETE FROM active_version", "no configuration is active"),
    ):
        changed = tmp_path / "changed.backup"
        shutil.copy(tmp_path / "a.backup", changed)
        with sqlite3.connect(changed) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(RestoreRefused, match=words):
            await restore(node.store, changed, author="ada")
    assert await greetings(node) == ["First."]
    assert not list(node.directory.rglob("*incoming*"))


async def test_another_history_is_refused(node: Node, other: Node, tmp_path: Path) -> None:
    await put(other.registry, "a", "+15550100", greeting="Elsewhere.")
    await backup(other.store, "a", tmp_path / "a.backup")
    with pytest.raises(RestoreRefused, match="version 1 is here and in the backup with different content"):
        await restore(node.store, tmp_path / "a.backup", author="ada")
    assert await greetings(node) == ["First."]
    assert len(await node.registry.calls("a")) == 1


# -- moving to another node ----------------------------------------------------------------------------


async def test_a_tenant_moves_and_comes_back(node: Node, other: Node, tmp_path: Path) -> None:
    await node.registry.set_status("a", TenantStatus.SUSPENDED)
    context = await other_context(node)
    info = await export(node.store, "a", tmp_path / "1.tenant", "node2.example")
    assert (info.versions, info.calls, info.suspended) == (1, 1, True)
    with pytest.raises(CallNotRouted, match=r"^gone"):
        await node.registry.context_for(dialled("+15550100"), call_id="c")
    with pytest.raises(TenantMoved):
        await restore(node.store, tmp_path / "1.tenant", author="ada")
    await arrive(other.store, tmp_path / "1.tenant", author="ada")
    assert (await other.registry.status("a")).status is TenantStatus.SUSPENDED
    await other.registry.set_status("a", TenantStatus.ACTIVE)
    assert (await other.registry.context_for(dialled("+15550100"), call_id="c")).config.greeting == "First."
    # A call that was up when its tenant moved is recorded where it was taken, and comes after.
    await node.registry.record_call(context, record(context, call_id="late", started_at=NOON))
    await export(node.store, "a", tmp_path / "2.tenant", "node2.example")
    late = await arrive(other.store, tmp_path / "2.tenant", author="ada")
    assert (late.added_calls, late.added_versions) == (1, 0)
    assert [each.call_id for each in await other.registry.calls("a")] == ["c1", "late"]
    assert (await other.registry.status("a")).status is TenantStatus.ACTIVE
    # And back, with what it became there.
    await put(other.registry, "a", "+15550109", greeting="Second.")
    await export(other.store, "a", tmp_path / "3.tenant", "node1.example")
    await arrive(node.store, tmp_path / "3.tenant", author="ada")
    assert (await node.registry.context_for(dialled("+15550109"), call_id="c")).config.greeting == "Second."
    assert await greetings(node) == ["First.", "Second."]


async def other_context(node: Node):  # type: ignore[no-untyped-def]
    await node.registry.set_status("a", TenantStatus.ACTIVE)
    context = await node.registry.context_for(dialled("+15550100"), call_id="late")
    await node.registry.set_status("a", TenantStatus.SUSPENDED)
    return context


async def test_numbers_of_others_are_not_taken_by_an_arrival(node: Node, other: Node, tmp_path: Path) -> None:
    await put(other.registry, "c", "+15550100")
    await export(node.store, "a", tmp_path / "a.tenant", "node2.example")
    with pytest.raises(NumberTaken, match=r"\+15550100 belongs to c; a cannot"):
        await arrive(other.store, tmp_path / "a.tenant", author="ada")
    assert await other.store.tenant_ids() == ("c",)


async def test_an_export_that_fails_moves_nobody(node: Node, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await export(node.store, "a", tmp_path / "nowhere" / "a.tenant", "node2.example")
    assert (await node.registry.context_for(dialled("+15550100"), call_id="c")).tenant_id == "a"
    with pytest.raises(UnknownTenant):
        await export(node.store, "c", tmp_path / "c.tenant", "node2.example")


async def test_a_tenant_with_the_same_content_has_one_version_more_only_where_needed(
    node: Node, tmp_path: Path
) -> None:
    assert (
        await node.registry.import_tenant(
            tenant("a", "+15550100", greeting="First."), author="test", reason="same"
        )
        == 1
    )
    await backup(node.store, "a", tmp_path / "a.backup")
    assert (await restore(node.store, tmp_path / "a.backup", author="ada")).added_versions == 0


# -- what becomes of versions --------------------------------------------------------------------------

ADA = Origin("ada", "because", NOON)


async def drafted(node: Node, greeting: str) -> int:
    lifecycle = node.registry.lifecycle
    return (await lifecycle.draft(tenant("a", "+15550100", greeting=greeting), ADA)).version


async def on_trial(node: Node, greeting: str) -> int:
    number = await drafted(node, greeting)
    active = await node.store.active("a")
    assert active is not None
    plan = CanaryPlan(version=number, baseline=active.version, share=5_000)
    await node.registry.lifecycle.begin_trial("a", plan, ADA)
    return number


async def states(node: Node) -> list[str]:
    return [each.state.value for each in (await node.store.ledger("a")).history.versions]


async def deeds(node: Node) -> list[tuple[str, int]]:
    return [(each.deed.value, each.version) for each in reversed(await node.store.config_log("a", 99))]


async def test_the_log_and_the_states_come_back_and_no_trial_to_life(node: Node, tmp_path: Path) -> None:
    followed = tenant("a", "+15550100", greeting="First.")
    await node.registry.lifecycle.follow(followed, author="test", reason="file")
    await node.registry.lifecycle.reject("a", await drafted(node, "Second."), ADA)
    trial = await on_trial(node, "Third.")
    before = await deeds(node)
    await backup(node.store, "a", tmp_path / "a.backup")
    async with node.store.shards.closed("a") as path:
        path.unlink()
    await restore(node.store, tmp_path / "a.backup", author="ada")
    assert await deeds(node) == [*before, ("restored", 1), ("trial rolled back", trial)]
    assert await states(node) == ["active", "refused", "refused"]
    assert await node.store.serving("a") == Serving(VersionKey(1, content_hash(followed)))
    (ended,) = await node.store.trials("a", 9)
    assert ended.verdict is not None
    assert ended.verdict.reason.startswith("it ran when the backup of ")
    assert (await node.store.ledger("a")).trial is None
    # The file that is followed is known: it takes nothing back.
    assert await node.registry.lifecycle.is_followed(followed)
    # A second time nothing is changed.
    log = await deeds(node)
    await restore(node.store, tmp_path / "a.backup", author="ada")
    assert (await deeds(node), await states(node)) == (log, ["active", "refused", "refused"])


async def test_a_trial_that_runs_here_goes_on_unless_its_baseline_is_replaced(
    node: Node, tmp_path: Path
) -> None:
    await backup(node.store, "a", tmp_path / "before.backup")
    await on_trial(node, "Second.")
    await backup(node.store, "a", tmp_path / "during.backup")
    await node.call("+15550100", 5)
    running = await node.store.ledger("a")
    for name in ("before", "during"):
        await restore(node.store, tmp_path / f"{name}.backup", author="ada")
        assert await node.store.ledger("a") == running
    await put(node.registry, "a", "+15550100", greeting="Third.")
    await on_trial(node, "Fourth.")
    await restore(node.store, tmp_path / "before.backup", author="ada")
    ledger = await node.store.ledger("a")
    assert ledger.trial is None
    assert await states(node) == ["superseded", "refused", "superseded", "refused", "active"]
    assert (await deeds(node))[-2:] == [("imported", 5), ("trial rolled back", 4)]


async def test_what_was_done_elsewhere_comes_back_with_its_tenant(
    node: Node, other: Node, tmp_path: Path
) -> None:
    """A draft and a trial leave; there, the trial ends and the draft is activated; both are so when they come back."""
    draft = await drafted(node, "Second.")
    trial = await on_trial(node, "Third.")
    before = await deeds(node)
    await export(node.store, "a", tmp_path / "1.tenant", "node2.example")
    await arrive(other.store, tmp_path / "1.tenant", author="ada")
    assert (await other.store.ledger("a")).trial is None
    # What ended on the first node meanwhile comes after, and does not bring the trial back.
    await export(node.store, "a", tmp_path / "2.tenant", "node2.example")
    await arrive(other.store, tmp_path / "2.tenant", author="ada")
    assert await states(other) == ["active", "draft", "refused"]
    made = await other.registry.lifecycle.activate("a", draft, other.registry.lifecycle.origin("bo", "new"))
    assert made.version == draft
    await export(other.store, "a", tmp_path / "3.tenant", "node1.example")
    info = await arrive(node.store, tmp_path / "3.tenant", author="ada")
    assert (info.active_version, info.added_versions) == (draft, 0)
    assert await states(node) == ["superseded", "active", "refused"]
    assert await deeds(node) == [
        *before,
        ("restored", 1),
        ("trial rolled back", trial),
        ("validated", draft),
        ("activated", draft),
        ("restored", draft),
    ]
    assert (await node.store.ledger("a")).trial is None
    (ended,) = await node.store.trials("a", 9)
    assert ended.verdict is not None


async def test_lines_of_both_logs_are_kept_once(node: Node, tmp_path: Path) -> None:
    await drafted(node, "Second.")
    await backup(node.store, "a", tmp_path / "early.backup")
    await node.registry.lifecycle.reject("a", 2, ADA)
    await backup(node.store, "a", tmp_path / "late.backup")
    async with node.store.shards.closed("a") as path:
        path.unlink()
    await restore(node.store, tmp_path / "early.backup", author="ada")
    assert await states(node) == ["active", "draft"]
    await restore(node.store, tmp_path / "late.backup", author="ada")
    # Not the draft, which it was before (both changes say the same time), and the line that only the later backup has is added.
    assert await states(node) == ["active", "refused"]
    assert await deeds(node) == [("imported", 1), ("drafted", 2), ("restored", 1), ("rejected", 2)]
