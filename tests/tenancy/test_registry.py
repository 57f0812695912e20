"""From a called number to a pinned configuration, and what stays of a call."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.canonical import content_hash
from config.node import NodeConfig, PlatformProviders
from tenancy import (
    CallNotRouted,
    CallRecord,
    NumberTaken,
    Registry,
    StoreCorrupt,
    StoreError,
    TenantContext,
    TenantMoved,
    TenantStatus,
    UnknownTenant,
    UnknownVersion,
    open_registry,
)
from tenancy.call_log import MAX_PROVIDERS_BYTES, MAX_TRANSCRIPT_BYTES
from tenancy.routing import Home, Moved
from tests.tenancy.conftest import dialled, tenant

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)


async def put(registry: Registry, *args: str, greeting: str = "Hello.") -> int:
    return await registry.import_tenant(tenant(*args, greeting=greeting), author="test", reason="test")


def record(context: TenantContext, **changes: object) -> CallRecord:
    made = CallRecord(
        call_id=context.call_id,
        called=context.called_number,
        caller="sip:+4930@trunk.example",
        config_version=context.config_version,
        started_at=NOON,
        ended_at=NOON + timedelta(seconds=40),
        cause="caller hung up",
        transcript=[{"speaker": "caller", "text": "Hi", "at": NOON.isoformat(), "interrupted": False}],
        messages=[{"name": "Bo", "number": "+4930", "reason": "wants a call"}],
        providers=[{"service": "llm", "provider": "embedded", "outcome": "served", "reason": "", "times": 2}],
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def shard_file(directory: Path, tenant_id: str) -> Path:
    return directory / "tenants" / f"client-{tenant_id}.db"


# -- numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "called", ["+15550100", "15550100", "0015550100", "+1-555-0100", "+1(555)0100", "15550100;x=y"]
)
async def test_the_ways_in_which_trunks_write_a_number(registry: Registry, called: str) -> None:
    await put(registry, "a", "+15550100")
    found = await registry.resolve(dialled(called))
    assert (found.tenant_id, found.called_number) == ("a", "+15550100")


@pytest.mark.parametrize(
    "called",
    ["", "+", "5550100", "05550100", "+15550101", "++15550100", "+0015550100", "00 15550100", "a",
     "\u0661\u0665\u0665\u0665\u0660\u0661\u0660\u0660", "' OR 1=1 --", "1" * 70, "+1555010\x000", "\ud800"],
)  # fmt: skip
async def test_any_other_number_is_unknown_and_there_is_no_default(registry: Registry, called: str) -> None:
    await put(registry, "a", "+15550100")
    with pytest.raises(CallNotRouted, match=r"^(unknown|unreadable)"):
        await registry.context_for(dialled(called), call_id="c")


async def test_an_unknown_number_opens_no_tenants_file(sqlite_registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(CallNotRouted, match=r"^unknown"):
        await sqlite_registry.context_for(dialled("+15559999"), call_id="c")
    assert not shard_file(tmp_path, "a").exists()
    assert not shard_file(tmp_path, "a").parent.exists()


@pytest.mark.parametrize("tenant_id", ["", "..", "../a", "A", "a\x00", "\ud800", "a" * 100, "' OR 1=1 --"])
async def test_what_cannot_be_a_tenants_id_is_unknown(registry: Registry, tenant_id: str) -> None:
    await put(registry, "a", "+15550100")
    for ask in (registry.versions, registry.calls, registry.status):
        with pytest.raises(UnknownTenant):
            await ask(tenant_id)
    with pytest.raises(UnknownTenant):
        await registry.set_status(tenant_id, TenantStatus.SUSPENDED)


# -- configurations ------------------------------------------------------------------------------------


async def test_only_other_content_makes_a_version(registry: Registry) -> None:
    assert await put(registry, "a") == 1
    assert await put(registry, "a") == 1
    assert await put(registry, "a", greeting="Other.") == 2
    assert await put(registry, "a") == 3  # back to the old words is a change as well
    versions = await registry.versions("a")
    assert [(each.version, each.active, each.author) for each in versions] == [
        (3, True, "test"),
        (2, False, "test"),
        (1, False, "test"),
    ]
    assert versions[0].content_hash == versions[2].content_hash == content_hash(tenant("a"))


async def test_a_call_keeps_the_version_that_it_began_with(registry: Registry) -> None:
    await put(registry, "a")
    before = await registry.context_for(dialled("+15550100"), call_id="c")
    await put(registry, "a", greeting="Other.")
    after = await registry.context_for(dialled("+15550100"), call_id="d")
    assert (before.config.greeting, before.config_version) == ("Hello.", 1)
    assert (after.config.greeting, after.config_version) == ("Other.", 2)
    assert after.content_hash == content_hash(after.config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.config_version = 2  # type: ignore[misc]


async def test_a_call_hears_texts_with_their_variables_filled_in(registry: Registry) -> None:
    await put(registry, "a", "+15550100", greeting="'{business_name} on {number}, {{hello}}.'")
    context = await registry.context_for(dialled("+15550100"), call_id="1")
    assert context.config.greeting == f"{context.config.business_name} on +15550100, {{hello}}."
    # What is kept is what was written.
    assert await registry.restore_version("a", 1, author="test", reason="again") == 1


async def test_a_brace_that_was_stored_before_there_were_variables_is_a_brace(registry: Registry) -> None:
    written = tenant("a", "+15550100").model_copy(update={"greeting": "Hello {friend."})
    await registry.import_tenant(written, author="test", reason="an earlier program's")
    context = await registry.context_for(dialled("+15550100"), call_id="1")
    assert context.config.greeting == "Hello {friend."


async def test_an_earlier_version_is_restored_as_a_new_one(registry: Registry) -> None:
    await put(registry, "a", "+15550100", "+15550101")
    await put(registry, "a", "+15550100", greeting="Other.")
    assert await registry.restore_version("a", 1, author="op", reason="wrong greeting") == 3
    context = await registry.context_for(dialled("+15550101"), call_id="c")
    assert (context.config.greeting, context.config_version) == ("Hello.", 3)
    assert (await registry.versions("a"))[0].reason == "wrong greeting"
    with pytest.raises(UnknownVersion):
        await registry.restore_version("a", 9, author="op", reason="")
    with pytest.raises(UnknownTenant):
        await registry.restore_version("b", 1, author="op", reason="")


async def test_a_number_of_another_tenant_is_not_taken_and_nothing_changes(registry: Registry) -> None:
    await put(registry, "a", "+15550100")
    await put(registry, "b", "+15550101")
    with pytest.raises(NumberTaken, match=r"\+15550100 belongs to a; b cannot"):
        await put(registry, "b", "+15550102", "+15550100", greeting="Other.")
    assert (await registry.resolve(dialled("+15550100"))).tenant_id == "a"
    assert (await registry.context_for(dialled("+15550101"), call_id="c")).config.greeting == "Hello."
    with pytest.raises(CallNotRouted, match=r"^unknown"):
        await registry.resolve(dialled("+15550102"))


async def test_numbers_move_with_the_configuration(registry: Registry) -> None:
    await put(registry, "a", "+15550100")
    await put(registry, "a", "+15550101")
    with pytest.raises(CallNotRouted, match=r"^unknown"):
        await registry.resolve(dialled("+15550100"))
    await put(registry, "b", "+15550100")
    assert (await registry.resolve(dialled("+15550100"))).tenant_id == "b"


async def test_a_suspended_tenant_takes_no_calls_until_it_is_active_again(registry: Registry) -> None:
    await put(registry, "a")
    await registry.set_status("a", TenantStatus.SUSPENDED)
    await put(registry, "a", greeting="Other.")  # an import does not lift it
    with pytest.raises(CallNotRouted, match=r"^suspended"):
        await registry.context_for(dialled("+15550100"), call_id="c")
    assert await registry.active_tenants() == ()
    await registry.set_status("a", TenantStatus.ACTIVE)
    assert (await registry.context_for(dialled("+15550100"), call_id="c")).config.greeting == "Other."
    with pytest.raises(UnknownTenant):
        await registry.set_status("b", TenantStatus.ACTIVE)


async def test_a_tenant_that_has_moved_says_where_to(registry: Registry) -> None:
    await put(registry, "a")
    await registry.set_status("a", TenantStatus.SUSPENDED)
    await registry.set_status("a", TenantStatus.MOVED, moved_to="node2.example")
    with pytest.raises(CallNotRouted, match=r"^gone"):  # No URI that a call could be sent to.
        await registry.context_for(dialled("+15550100"), call_id="c")
    home = Home("sip:node2.example;transport=tcp", "https://node2.example")
    await registry.set_status("a", TenantStatus.MOVED, moved_to=str(home))
    with pytest.raises(CallNotRouted, match=r"^moved") as caught:
        await registry.context_for(dialled("+15550100"), call_id="c")
    assert caught.value.outcome == Moved("a", "+15550100", home)
    with pytest.raises(TenantMoved):
        await put(registry, "a", greeting="Other.")
    assert await registry.active_tenants() == ()
    assert len(await registry.versions("a")) == 1
    with pytest.raises(ValueError, match="has an address"):
        await registry.set_status("a", TenantStatus.MOVED)
    with pytest.raises(ValueError, match="has an address"):
        await registry.set_status("a", TenantStatus.ACTIVE, moved_to="node2.example")
    await registry.set_status("a", TenantStatus.ACTIVE)
    assert (await registry.context_for(dialled("+15550100"), call_id="c")).tenant_id == "a"


async def test_versions_cannot_be_changed_behind_our_back(sqlite_registry: Registry, tmp_path: Path) -> None:
    await put(sqlite_registry, "a")
    path = shard_file(tmp_path, "a")
    with sqlite3.connect(path) as other:
        for statement in ("UPDATE config_versions SET author = 'x'", "DELETE FROM config_versions"):
            with pytest.raises(sqlite3.IntegrityError, match="immutable"):
                other.execute(statement)
    other.close()


async def test_imports_at_once_give_one_winner_per_number_and_no_gaps(registry: Registry) -> None:
    async def attempt(n: int) -> bool:
        try:
            await put(
                registry, f"t{n % 5}", "+15550100" if n % 2 else f"+1555020{n % 5}", greeting=f"Hello {n}."
            )
        except NumberTaken:
            return False
        return True

    outcomes = await asyncio.gather(*(attempt(n) for n in range(40)))
    assert any(outcomes)
    tenants = await registry.active_tenants()
    numbers = [number for each in tenants for number in each.config.numbers]
    assert len(numbers) == len(set(numbers))
    for each in tenants:
        for number in each.config.numbers:
            assert (await registry.resolve(dialled(number))).tenant_id == each.config.tenant_id
        versions = [info.version for info in await registry.versions(each.config.tenant_id)]
        assert versions == list(range(len(versions), 0, -1))


async def test_lookups_see_only_whole_imports(registry: Registry) -> None:
    await put(registry, "a", "+15550100", greeting="Hello 0.")
    done = asyncio.Event()

    async def look() -> int:
        seen = 0
        while not done.is_set():
            context = await registry.context_for(dialled("+15550100"), call_id="c")
            assert context.content_hash == content_hash(context.config)
            seen += 1
        return seen

    looking = asyncio.create_task(look())
    for n in range(1, 20):
        await put(registry, "a", "+15550100", greeting=f"Hello {n}.")
    done.set()
    assert await looking > 0


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_a_cancelled_import_or_lookup_leaves_the_registry_usable(
    registry: Registry, steps: int
) -> None:
    await put(registry, "a", "+15550100")
    work = asyncio.gather(
        put(registry, "b", "+15550101"),
        put(registry, "a", "+15550100", greeting="Other."),
        registry.context_for(dialled("+15550100"), call_id="c"),
        return_exceptions=True,
    )
    for _ in range(steps):
        await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await put(registry, "b", "+15550102", greeting="Third.")
    assert (await registry.context_for(dialled("+15550102"), call_id="d")).config.greeting == "Third."
    assert (await registry.context_for(dialled("+15550100"), call_id="e")).config.greeting in (
        "Hello.",
        "Other.",
    )


# -- calls ---------------------------------------------------------------------------------------------


async def test_a_call_is_kept_once_and_comes_back_as_it_was(registry: Registry) -> None:
    await put(registry, "a")
    context = await registry.context_for(dialled("+15550100"), call_id="c@host")
    first = record(context)
    again = record(context, started_at=NOON + timedelta(hours=1))  # the same Call-ID, another call
    for each in (first, first, again):
        await registry.record_call(context, each)
    assert await registry.calls("a") == [again, first]
    assert await registry.calls("a", limit=1) == [again]
    with pytest.raises(UnknownTenant):
        await registry.calls("b")


async def test_calls_of_tenants_are_in_files_apart(sqlite_registry: Registry, tmp_path: Path) -> None:
    await put(sqlite_registry, "a", "+15550100")
    await put(sqlite_registry, "b", "+15550101")
    context = await sqlite_registry.context_for(dialled("+15550100"), call_id="c")
    await sqlite_registry.record_call(context, record(context))
    assert await sqlite_registry.calls("b") == []
    other = shard_file(tmp_path, "b")
    assert b"caller hung up" not in other.read_bytes()


async def test_of_a_transcript_beyond_the_limit_the_newest_lines_stay(registry: Registry) -> None:
    await put(registry, "a")
    context = await registry.context_for(dialled("+15550100"), call_id="c")
    lines: list[dict[str, object]] = [
        {"speaker": "caller", "text": f"{n} " + "x" * 10_000} for n in range(200)
    ]
    await registry.record_call(context, record(context, transcript=lines))
    (kept,) = await registry.calls("a")
    assert kept.transcript[1:] == lines[-len(kept.transcript) + 1 :]
    assert (
        kept.transcript[0]["text"] == f"{200 - len(kept.transcript) + 1} earlier lines were too long to keep"
    )
    assert 90 * 10_000 < sum(len(str(line["text"])) for line in kept.transcript) < MAX_TRANSCRIPT_BYTES


async def test_of_what_is_said_of_providers_the_first_stays(registry: Registry) -> None:
    await put(registry, "a")
    context = await registry.context_for(dialled("+15550100"), call_id="c")
    said: list[dict[str, object]] = [{"service": "llm", "reason": f"{n} " + "x" * 1_000} for n in range(200)]
    await registry.record_call(context, record(context, providers=said))
    (kept,) = await registry.calls("a")
    *first, note = kept.providers
    assert first == said[: len(first)]
    assert note == {"outcome": "not_kept", "times": 200 - len(first)}
    assert 60 * 1_000 < len(str(first)) < MAX_PROVIDERS_BYTES + 3_000


async def test_what_a_peer_sends_cannot_break_the_record(registry: Registry) -> None:
    await put(registry, "a")
    context = await registry.context_for(dialled("+15550100"), call_id="c\udcff\x00'")
    await registry.record_call(context, record(context, caller="\ud800"))
    (kept,) = await registry.calls("a")
    # Postgres has no NUL in texts.
    assert (kept.call_id, kept.caller) in (("c?\x00'", "?"), ("c??'", "?"))
    with pytest.raises(StoreError, match="not JSON"):
        await registry.record_call(context, record(context, call_id="d", messages=[{"name": "\ud800"}]))


# -- damage --------------------------------------------------------------------------------------------


async def test_one_tenants_damaged_file_costs_that_tenant(tmp_path: Path) -> None:
    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    await put(registry, "a", "+15550100")
    await put(registry, "b", "+15550101")
    await registry.close()
    path = shard_file(tmp_path, "a")
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    try:
        with pytest.raises(StoreCorrupt, match=r"client-a\.db: damaged"):
            await registry.context_for(dialled("+15550100"), call_id="c")
        assert [each.config.tenant_id for each in await registry.active_tenants()] == ["b"]
        assert (await registry.context_for(dialled("+15550101"), call_id="d")).tenant_id == "b"
    finally:
        await registry.close()


async def test_a_version_that_was_tampered_with_answers_no_call(tmp_path: Path) -> None:
    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    await put(registry, "a")
    await registry.close()
    path = shard_file(tmp_path, "a")
    with sqlite3.connect(path) as other:
        other.execute("DROP TRIGGER config_versions_stay")
        other.execute("UPDATE config_versions SET body = replace(body, 'Hello', 'Hullo')")
    other.close()
    registry = await Registry.open(tmp_path, PlatformProviders(), {})
    try:
        with pytest.raises(StoreCorrupt, match="not what was written"):
            await registry.context_for(dialled("+15550100"), call_id="c")
    finally:
        await registry.close()


async def test_a_node_imports_its_tenant_files_and_keeps_what_it_had(tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "config" / "demo"
    files = (folder / "bright_smile_dental.yaml", folder / "rapid_plumbing.yaml")
    node = NodeConfig(data_dir=tmp_path / "data", tenants=files)
    for _ in range(2):
        registry = await open_registry(node, {"OPENAI_API_KEY": "k"})
        try:
            context = await registry.context_for(dialled("+15550101"), call_id="c")
            assert (context.tenant_id, context.config_version) == ("rapid-plumbing", 1)
            assert [step.kind for step in context.llm] == ["openai", "embedded"]
            assert len(await registry.active_tenants()) == 2
        finally:
            await registry.close()
