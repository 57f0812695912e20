"""What `tenancy.store` says, on every backing."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenancy import NumberTaken, StoreError, TenantMoved, TenantRow, TenantStatus
from tenancy.canary import CanaryPlan
from tenancy.store import (
    MAX_ASKED,
    Address,
    CallRow,
    NewVersion,
    OwnedAddress,
    Store,
    VersionContent,
    VersionKey,
)
from tenancy.versions import Origin
from tests.tenancy.conftest import Backing

NOON = datetime(2025, 3, 3, 12, tzinfo=UTC)
TRUNKS = frozenset({"any"})


def addresses(*numbers: str) -> tuple[Address, ...]:
    return tuple(Address(number, TRUNKS) for number in numbers)


def version(tenant_id: str, body: str, *numbers: str) -> NewVersion:
    digest = hashlib.sha256(body.encode()).hexdigest()
    return NewVersion(tenant_id, addresses(*numbers), digest, 1, "op", f"because of {body}", NOON, body)


async def owner_of(store: Store, number: str) -> TenantRow | None:
    found = await store.registered((number,))
    assert all(each.address.address == number for each in found)
    return found[0].tenant if found else None


async def numbers_of(store: Store, tenant_id: str) -> tuple[str, ...]:
    return tuple(each.address for each in await store.addresses_of(tenant_id))


def call(call_id: str, minute: int = 0) -> CallRow:
    start = NOON + timedelta(minutes=minute, microseconds=minute)
    end, served = start + timedelta(seconds=9), '[{"service":"llm","provider":"embedded","times":1}]'
    return CallRow(call_id, "+1", "sip:b", 1, start, end, "hung up", '[{"a":"b"}]', "[]", served)


def origin(author: str = "ada", minute: int = 0) -> Origin:
    return Origin(author, "because", NOON + timedelta(minutes=minute))


def digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


async def add_valid(store: Store, tenant_id: str, body: str) -> int:
    """A validated version; returns its number."""
    edit = await store.edit(tenant_id, lambda ledger: ledger.draft(digest(body), 1, body, origin()))
    number = edit.version.version
    await store.edit(tenant_id, lambda ledger: ledger.validate(number, origin()))
    return number


async def begin_trial(store: Store, tenant_id: str, **changes: object) -> CanaryPlan:
    """A second version on trial against the first, and a file that is followed."""
    number = await add_valid(store, tenant_id, f"trial of {tenant_id}")
    active = await store.active(tenant_id)
    assert active is not None
    plan = CanaryPlan(version=number, baseline=active.version, share=5_000, **changes)  # type: ignore[arg-type]
    await store.edit(tenant_id, lambda ledger: ledger.begin_trial(plan, origin()))
    content = await store.content(tenant_id, active.version)
    assert content is not None
    numbers = await numbers_of(store, tenant_id)
    await store.import_version(replace(version(tenant_id, content.body, *numbers), followed=True))
    return plan


@pytest.fixture
async def store(backing: Backing) -> AsyncIterator[Store]:
    store = await backing.open()
    yield store
    await store.close()


async def test_everything_is_there_after_opening_again(backing: Backing) -> None:
    store = await backing.open()
    await store.import_version(version("a", "one", "+1", "+2"))
    await store.import_version(version("a", "two", "+1", "+3"))
    await store.import_version(version("b", "other", "+4"))
    await store.set_status("b", TenantStatus.MOVED, "node2")
    await store.add_call("a", call("c", 1))
    await store.close()
    store = await backing.open()
    try:
        assert await owner_of(store, "+1") == TenantRow("a", TenantStatus.ACTIVE)
        assert await owner_of(store, "+2") is None
        assert await owner_of(store, "+4") == TenantRow("b", TenantStatus.MOVED, "node2")
        assert await numbers_of(store, "a") == ("+1", "+3")
        assert await store.tenant_ids() == ("a", "b")
        assert await store.tenant_ids(TenantStatus.ACTIVE) == ("a",)
        assert await store.tenant_ids(TenantStatus.MOVED) == ("b",)
        assert await store.tenant_ids(TenantStatus.SUSPENDED) == ()
        two = hashlib.sha256(b"two").hexdigest()
        assert await store.active("a") == VersionKey(2, two)
        assert await store.content("a", 2) == VersionContent(two, "two")
        assert await store.content("a", 3) is None
        newest, first = await store.versions("a")
        assert (newest.version, newest.active, newest.created_at) == (2, True, NOON)
        assert (first.version, first.active, first.reason) == (1, False, "because of one")
        assert await store.newest_calls("a", 9) == (call("c", 1),)
        assert await store.newest_calls("b", 9) == ()
    finally:
        await store.close()


async def test_addresses_keep_their_trunks_and_pages_and_take_new_ones(store: Store) -> None:
    number = Address("+1", frozenset({"b", "a"}))
    site = Address("site_x", origins=frozenset({"https://a.example", "https://b.example:8443"}))
    new = version("a", "one")
    await store.import_version(dataclasses.replace(new, addresses=(number, site)))
    assert await store.addresses_of("a") == (number, site)
    assert set(await store.registered(("+9", "site_x", "+1", "+1"))) == {
        OwnedAddress(number, TenantRow("a", TenantStatus.ACTIVE)),
        OwnedAddress(site, TenantRow("a", TenantStatus.ACTIVE)),
    }
    # The same content with other trunks: no version, and from now on the other trunks.
    other = dataclasses.replace(number, trunks=frozenset({"c"}))
    assert await store.import_version(dataclasses.replace(new, addresses=(other,))) == 1
    assert await store.addresses_of("a") == (other,)
    # What is another's stays as it was.
    with pytest.raises(NumberTaken):
        await store.import_version(dataclasses.replace(version("b", "one"), addresses=(number,)))
    assert await store.addresses_of("a") == (other,)
    assert await store.registered(("site_x",)) == ()


async def test_so_many_addresses_are_looked_up_at_once(store: Store) -> None:
    await store.import_version(version("a", "one", *(f"+{n}" for n in range(MAX_ASKED + 1))))
    asked = [f"+{n}" for n in range(MAX_ASKED)]
    assert sorted(each.address.address for each in await store.registered(asked)) == sorted(asked)
    for wrong in ((), [*asked, "+16"]):
        with pytest.raises(ValueError, match="1 to 16 addresses"):
            await store.registered(wrong)


async def test_a_tenant_that_is_not_there_has_nothing(store: Store) -> None:
    assert await store.tenant("a") is None
    assert await owner_of(store, "+1") is None
    assert await numbers_of(store, "a") == ()
    assert not await store.set_status("a", TenantStatus.ACTIVE)
    assert await store.active("a") is None
    assert await store.versions("a") == ()
    assert await store.newest_calls("a", 9) == ()


async def test_a_refused_import_changes_nothing(store: Store) -> None:
    await store.import_version(version("a", "one", "+1"))
    await store.import_version(version("b", "one", "+2"))
    with pytest.raises(NumberTaken, match=r"\+1 belongs to a; b cannot have it"):
        await store.import_version(version("b", "two", "+3", "+1"))
    with pytest.raises(NumberTaken):
        await store.import_version(version("c", "one", "+1"))
    await store.set_status("b", TenantStatus.MOVED, "node2")
    with pytest.raises(TenantMoved):
        await store.import_version(version("b", "two", "+3"))
    assert await store.tenant_ids() == ("a", "b")
    assert await numbers_of(store, "b") == ("+2",)
    assert len(await store.versions("b")) == 1


async def test_status_before_a_move_is_there_after_it(store: Store) -> None:
    await store.import_version(version("a", "one", "+1"))
    await store.set_status("a", TenantStatus.SUSPENDED)
    await store.set_status("a", TenantStatus.MOVED, "node2")
    assert await store.tenant("a") == TenantRow("a", TenantStatus.MOVED, "node2")
    await store.set_status("a", TenantStatus.SUSPENDED)
    assert await store.tenant("a") == TenantRow("a", TenantStatus.SUSPENDED)


async def test_calls_come_newest_first_and_once(store: Store) -> None:
    await store.import_version(version("a", "one", "+1"))
    calls = [call(f"c{minute}", minute) for minute in range(12)]
    await asyncio.gather(*(store.add_call("a", each) for each in (*calls, *calls)))
    assert await store.newest_calls("a", 100) == tuple(reversed(calls))
    assert await store.newest_calls("a", 2) == (calls[11], calls[10])


async def test_two_writers_at_once_share_out_the_numbers(backing: Backing) -> None:
    """Two programs (SQLite), two nodes (Postgres): one wins each number, no version is lost, none is there twice."""
    stores = [await backing.open(), await backing.open()]
    try:

        async def attempt(n: int) -> bool:
            new = version(f"t{n % 4}", f"body {n}", f"+{n % 4}", *(f"+9{k}" for k in (n % 3, n % 2)))
            try:
                await stores[n % 2].import_version(new)
            except NumberTaken:
                return False
            return True

        done = await asyncio.gather(*(attempt(n) for n in range(60)))
        assert any(done)
        assert not all(done)
        seen: set[str] = set()
        versions = 0
        for tenant_id in await stores[0].tenant_ids():
            numbers = await numbers_of(stores[0], tenant_id)
            assert seen.isdisjoint(numbers)
            seen.update(numbers)
            infos = await stores[1].versions(tenant_id)
            assert [each.version for each in infos] == list(range(len(infos), 0, -1))
            assert [each.active for each in infos].count(True) == 1
            versions += len(infos)
        assert versions == sum(done)
    finally:
        for each in stores:
            await each.close()


async def test_two_activations_at_once_are_one_after_the_other(backing: Backing) -> None:
    stores = [await backing.open(), await backing.open()]
    try:
        news = [version("a", f"body {n}", f"+{n}") for n in range(12)]
        given_versions = await asyncio.gather(
            *(store.import_version(new) for new, store in zip(news, itertools.cycle(stores), strict=False))
        )
        assert sorted(given_versions) == list(range(1, 13))
        last = news[given_versions.index(12)]
        assert await stores[0].active("a") == VersionKey(12, last.content_hash)
        # Its numbers came with it: nothing of another version's is left.
        assert await stores[1].addresses_of("a") == last.addresses
    finally:
        for each in stores:
            await each.close()


async def test_what_is_closed_says_so(backing: Backing) -> None:
    store = await backing.open()
    await store.import_version(version("a", "one", "+1"))
    await store.close()
    for ask in (owner_of(store, "+1"), store.active("a"), store.add_call("a", call("c"))):
        with pytest.raises(StoreError):
            await ask
    with pytest.raises(StoreError):
        await store.import_version(version("a", "two", "+1"))


@pytest.mark.parametrize("steps", range(0, 60, 4))
async def test_a_cancelled_import_is_done_or_not_begun(store: Store, steps: int) -> None:
    await store.import_version(version("a", "one", "+1"))
    task = asyncio.create_task(store.import_version(version("a", "two", "+2")))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done = await asyncio.gather(task, return_exceptions=True)
    active = await store.active("a")
    assert active is not None
    numbers = await numbers_of(store, "a")
    assert (active.version, numbers) in ((1, ("+1",)), (2, ("+2",)))
    if not isinstance(done[0], BaseException):
        assert active.version == 2
    assert await store.import_version(version("a", "three", "+3")) == active.version + 1


# -- any order of operations ---------------------------------------------------------------------------

TENANTS = ("a", "b")
NONE: frozenset[str] = frozenset()
Operation = tuple[str, str, str, frozenset[str]]
OPERATION: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(
        st.just("import"),
        st.sampled_from(TENANTS),
        st.sampled_from(("x", "y", "z")),
        st.frozensets(st.sampled_from(("1", "2", "3")), min_size=1),
    ),
    st.tuples(
        st.just("status"),
        st.sampled_from(TENANTS),
        st.sampled_from(tuple(TenantStatus)),
        st.just(NONE),
    ),
    st.tuples(st.just("call"), st.sampled_from(TENANTS), st.sampled_from(("p", "q")), st.just(NONE)),
)


class Model:
    """What the store ought to hold."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[str]] = {}
        self.numbers: dict[str, str] = {}
        self.moved: set[str] = set()
        self.status: dict[str, TenantStatus] = {}
        self.calls: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}

    def accepts(self, tenant: str, numbers: frozenset[str]) -> bool:
        return tenant not in self.moved and all(
            self.numbers.get(number, tenant) == tenant for number in numbers
        )

    def imported(self, tenant: str, body: str, numbers: frozenset[str]) -> None:
        bodies = self.bodies.setdefault(tenant, [])
        if not bodies or bodies[-1] != body:
            bodies.append(body)
        self.status.setdefault(tenant, TenantStatus.ACTIVE)
        kept = {number: owner for number, owner in self.numbers.items() if owner != tenant}
        self.numbers = kept | dict.fromkeys(numbers, tenant)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATION, max_size=14))
def test_any_order_of_operations_leaves_what_it_says(backing: Backing, operations: list[Operation]) -> None:
    asyncio.run(play(backing, operations))


_EXAMPLES = itertools.count()


async def play(backing: Backing, operations: list[Operation]) -> None:
    prefix = f"e{next(_EXAMPLES)}"  # Examples share the database: each has tenants and numbers of its own.
    names = {tenant: f"{prefix}-{tenant}" for tenant in TENANTS}
    model = Model()
    store = await backing.open()
    try:
        for kind, tenant, what, some in operations:
            name = names[tenant]
            if kind == "import":
                new = version(name, what, *(f"+{prefix}{number}" for number in some))
                if model.accepts(tenant, some):
                    model.imported(tenant, what, some)
                    assert await store.import_version(new) == len(model.bodies[tenant])
                else:
                    with pytest.raises((NumberTaken, TenantMoved)):
                        await store.import_version(new)
            elif kind == "status":
                status = TenantStatus(what)
                moved_to = "node2" if status is TenantStatus.MOVED else None
                assert await store.set_status(name, status, moved_to) == (tenant in model.status)
                if tenant in model.status:
                    model.moved = (model.moved | {tenant}) if moved_to else (model.moved - {tenant})
                    if not moved_to:
                        model.status[tenant] = status
            elif tenant in model.status:
                await store.add_call(name, call(what))
                if what not in model.calls[tenant]:
                    model.calls[tenant].append(what)
        await compare(store, model, names, prefix)
    finally:
        await store.close()


async def compare(store: Store, model: Model, names: dict[str, str], prefix: str) -> None:
    for tenant, name in names.items():
        row = await store.tenant(name)
        status = TenantStatus.MOVED if tenant in model.moved else model.status.get(tenant)
        assert (row and row.status) == status
        infos = await store.versions(name)
        contents = [await store.content(name, info.version) for info in reversed(infos)]
        assert [each and each.body for each in contents] == model.bodies.get(tenant, [])
        mine = {number for number, owner in model.numbers.items() if owner == tenant}
        assert set(await numbers_of(store, name)) == {f"+{prefix}{number}" for number in mine}
        for number in mine:
            owner = await owner_of(store, f"+{prefix}{number}")
            assert owner is not None
            assert owner.tenant_id == name
        assert sorted(each.call_id for each in await store.newest_calls(name, 9)) == sorted(
            model.calls[tenant]
        )
