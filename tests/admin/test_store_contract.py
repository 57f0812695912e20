"""What both backings do alike. Where several nodes share a database, they are several stores here."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from admin.audit import EMPTY, Head, normal
from admin.errors import KeyReused, StillRunning, Throttled, Unavailable
from admin.idempotency import FREED_AFTER_MS, KEPT_MS, KeyUse, decide
from admin.ports import KeptAnswer
from admin.principals import Role
from admin.sql_store import SqlStore
from admin.store import TOKENS_STAY_MS, Denials, TokenRow, Use
from tests.admin.conftest import Backing, deed
from tests.admin.turned import NOON_MS

DAY_MS = 86_400_000


def row(public_id: str, tenant_id: str | None = None, **fields: object) -> TokenRow:
    made = TokenRow(
        public_id=public_id,
        hash=f"$argon2id$of-{public_id}",
        role=Role.OPERATOR if tenant_id is None else Role.TENANT,
        tenant_id=tenant_id,
        label="ünïcode",
        created_by="cli:ada",
        created_ms=NOON_MS,
        expires_ms=NOON_MS + DAY_MS,
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


# -- API tokens ----------------------------------------------------------------------------------------


async def test_tokens_are_kept_as_they_are(store: SqlStore) -> None:
    rows = [row("b"), row("a", "acme"), row("c", "other"), row("d", "acme")]
    for each in rows:
        assert await store.add_token(each, 10)
        assert await store.token(each.public_id) == each
    assert await store.token("e") is None
    assert [each.public_id for each in await store.tokens(tenant_id=None, after="", limit=10)] == [
        "a",
        "b",
        "c",
        "d",
    ]
    assert [each.public_id for each in await store.tokens(tenant_id=None, after="b", limit=1)] == ["c"]
    assert [each.public_id for each in await store.tokens(tenant_id="acme", after="", limit=10)] == ["a", "d"]
    assert await store.tokens(tenant_id="nobody", after="", limit=10) == ()


async def test_a_token_is_revoked_once_and_by_its_tenant_alone(backing: Backing) -> None:
    here, there = await backing.open(), await backing.open()
    try:
        await here.add_token(row("a", "acme"), 10)
        assert await there.revoke_token("a", tenant_id="other", by="eve", now_ms=NOON_MS) is None
        assert await there.token("a") == row("a", "acme")
        revoked = await there.revoke_token("a", tenant_id="acme", by="ada", now_ms=NOON_MS + 1)
        assert revoked == row("a", "acme", revoked_ms=NOON_MS + 1, revoked_by="ada")
        assert await here.token("a") == revoked
        assert await here.revoke_token("a", tenant_id=None, by="bo", now_ms=NOON_MS + 2) == revoked
        assert await here.revoke_token("b", tenant_id=None, by="bo", now_ms=NOON_MS) is None
    finally:
        await here.close()
        await there.close()


async def test_good_tokens_are_counted_for_each_tenant(store: SqlStore) -> None:
    assert await store.add_token(row("a", "acme"), 2)
    assert await store.add_token(row("b", "acme"), 2)
    assert not await store.add_token(row("c", "acme"), 2)
    assert await store.token("c") is None
    assert await store.add_token(row("d", "other"), 1)
    assert await store.add_token(row("e"), 1)
    assert not await store.add_token(row("f"), 1)
    await store.revoke_token("a", tenant_id=None, by="ada", now_ms=NOON_MS)
    assert await store.add_token(row("c", "acme"), 2)
    # Those that have expired count no more, and are listed for a while.
    later = NOON_MS + DAY_MS
    assert await store.add_token(row("g", "acme", created_ms=later, expires_ms=later + 1), 1)
    assert await store.token("b") is not None
    much_later = later + TOKENS_STAY_MS + 1
    assert await store.add_token(row("h", created_ms=much_later, expires_ms=much_later + 1), 1)
    assert await store.token("b") is None


async def test_one_id_is_one_token_s(store: SqlStore) -> None:
    await store.add_token(row("a"), 10)
    with pytest.raises(Unavailable) as caught:
        await store.add_token(row("a", hash="$argon2id$of-eve"), 10)
    assert "of-eve" not in str(caught.value)
    assert await store.token("a") == row("a")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE admin_tokens SET hash = 'x'",
        "UPDATE admin_tokens SET role = 'operator', tenant_id = NULL",
        "UPDATE admin_tokens SET tenant_id = 'other'",
        "UPDATE admin_tokens SET expires_ms = expires_ms + 1",
        "UPDATE admin_tokens SET revoked_ms = NULL, revoked_by = NULL",
        "INSERT INTO admin_tokens SELECT * FROM admin_tokens",
    ],
)
async def test_the_database_refuses_to_change_a_token(store: SqlStore, statement: str) -> None:
    await store.add_token(row("a", "acme"), 10)
    revoked = await store.revoke_token("a", tenant_id=None, by="ada", now_ms=NOON_MS)
    with pytest.raises(Unavailable):
        await store._write(lambda connection: connection.exec_driver_sql(statement))
    assert await store.token("a") == revoked


# -- JWTs ----------------------------------------------------------------------------------------------


async def test_what_is_good_once_is_used_once_by_all_nodes(backing: Backing) -> None:
    nodes = [await backing.open() for _ in range(3)]
    try:
        uses = await asyncio.gather(
            *(
                node.use_once(bytes([number % 4]) * 32, until_ms=NOON_MS + 10, now_ms=NOON_MS, size_max=100)
                for number in range(24)
                for node in nodes
            )
        )
        assert [uses.count(use) for use in (Use.FIRST, Use.AGAIN)] == [4, 68]
    finally:
        for each in nodes:
            await each.close()


async def test_what_was_used_is_remembered_till_its_end_and_no_further(store: SqlStore) -> None:
    async def use(number: int, at_ms: int) -> Use:
        return await store.use_once(bytes([number]) * 32, until_ms=NOON_MS + 10, now_ms=at_ms, size_max=2)

    assert await use(1, NOON_MS) is Use.FIRST
    assert await use(2, NOON_MS) is Use.FIRST
    assert await use(3, NOON_MS) is Use.FULL
    assert await use(3, NOON_MS + 10) is Use.FULL
    assert await use(1, NOON_MS + 10) is Use.AGAIN
    assert await use(3, NOON_MS + 11) is Use.FIRST


async def test_denials(backing: Backing) -> None:
    here, there = await backing.open(), await backing.open()
    jti, subject, other = b"j" * 32, b"s" * 32, b"o" * 32
    try:
        assert await here.denials(jti, subject) == Denials(False, None)
        assert await there.deny_token(jti, until_ms=NOON_MS + 10, now_ms=NOON_MS, size_max=1)
        assert await here.denials(jti, other) == Denials(True, None)
        assert await here.denials(other, other) == await here.denials(None, other) == Denials(False, None)
        assert not await here.deny_token(other, until_ms=NOON_MS + 10, now_ms=NOON_MS, size_max=1)
        assert await here.deny_token(jti, until_ms=NOON_MS + 20, now_ms=NOON_MS, size_max=1)
        assert not await here.deny_token(other, until_ms=NOON_MS + 30, now_ms=NOON_MS + 20, size_max=1)
        assert await here.deny_token(other, until_ms=NOON_MS + 30, now_ms=NOON_MS + 21, size_max=1)

        async def deny(before_ms: int, whose: bytes = subject) -> bool:
            return await here.deny_subject(
                whose, before_ms=before_ms, until_ms=before_ms + 10, now_ms=NOON_MS, size_max=1
            )

        assert await deny(NOON_MS)
        assert await deny(NOON_MS + 5)
        assert await deny(NOON_MS + 1)
        assert await there.denials(None, subject) == Denials(False, NOON_MS + 5)
        assert not await deny(NOON_MS, other)
    finally:
        await here.close()
        await there.close()


# -- idempotency ---------------------------------------------------------------------------------------

ANSWER = KeptAnswer(201, (("etag", '"3"'), ("location", "/ü")), b"\x00body\xff")


async def begin(
    store: SqlStore,
    key: bytes = b"k" * 32,
    *,
    claim: bytes = b"c",
    at_ms: int = NOON_MS,
    fingerprint: bytes = b"f",
    runs_here: bool = False,
    keys_max: int = 10,
    owner: bytes = b"o" * 32,
) -> KeptAnswer | None:
    def judge(found: KeyUse | None) -> KeptAnswer | None:
        return decide(found, fingerprint, at_ms, runs_here=runs_here)

    return await store.begin_key(key, owner, KeyUse(fingerprint, claim, at_ms, None), judge, keys_max)


async def test_an_answer_is_kept_and_repeated(store: SqlStore) -> None:
    assert await begin(store) is None
    with pytest.raises(StillRunning):
        await begin(store, claim=b"d")
    assert await store.finish_key(b"k" * 32, b"c", ANSWER)
    assert await begin(store, claim=b"e", at_ms=NOON_MS + KEPT_MS - 1) == ANSWER
    with pytest.raises(KeyReused):
        await begin(store, fingerprint=b"g")
    assert not await store.finish_key(b"k" * 32, b"c", dataclasses.replace(ANSWER, status=500))
    assert not await store.abandon_key(b"k" * 32, b"c")
    assert await begin(store) == ANSWER
    assert await begin(store, at_ms=NOON_MS + KEPT_MS, claim=b"h") is None


async def test_whoever_is_gone_frees_the_key_and_comes_too_late(store: SqlStore) -> None:
    await begin(store)
    freed_at = NOON_MS + FREED_AFTER_MS
    with pytest.raises(StillRunning):
        await begin(store, at_ms=freed_at, runs_here=True)
    with pytest.raises(StillRunning):
        await begin(store, at_ms=freed_at - 1)
    assert await begin(store, claim=b"d", at_ms=freed_at) is None
    assert not await store.finish_key(b"k" * 32, b"c", ANSWER)
    assert not await store.abandon_key(b"k" * 32, b"c")
    assert await store.finish_key(b"k" * 32, b"d", ANSWER)
    assert await begin(store, at_ms=freed_at) == ANSWER


async def test_a_key_that_was_given_up_is_free(store: SqlStore) -> None:
    await begin(store)
    assert await store.abandon_key(b"k" * 32, b"c")
    assert await begin(store, fingerprint=b"g", claim=b"d") is None


async def test_one_of_many_at_once_is_the_first(backing: Backing) -> None:
    nodes = [await backing.open() for _ in range(3)]

    async def one(number: int) -> bool:
        try:
            return await begin(nodes[number % 3], claim=bytes([number])) is None
        except StillRunning:
            return False

    try:
        assert sum(await asyncio.gather(*map(one, range(24)))) == 1
    finally:
        for each in nodes:
            await each.close()


async def test_keys_of_one_owner_are_bounded(store: SqlStore) -> None:
    for number in range(3):
        assert await begin(store, bytes([number]) * 32, keys_max=3) is None
    with pytest.raises(Throttled, match="3 idempotency keys"):
        await begin(store, bytes([9]) * 32, keys_max=3)
    assert await begin(store, bytes([9]) * 32, keys_max=3, owner=b"p" * 32) is None
    over = NOON_MS + KEPT_MS + 1
    assert await begin(store, bytes([8]) * 32, keys_max=3, at_ms=over) is None
    assert await store.forget_keys(over) == 1, "the other owner's"


# -- audit ---------------------------------------------------------------------------------------------


async def test_entries_are_chained_and_read_back(store: SqlStore) -> None:
    assert await store.ends() == (EMPTY, 0)
    deeds = [
        normal(each)
        for each in (
            deed(1),
            deed(2, "b"),
            deed(3, None, target=None, detail="forbidden"),
            deed(4, "a", principal="ü\0"),
        )
    ]
    heads = [await store.append(each) for each in deeds]
    entries = await store.entries(tenant_id=None, after=0, limit=10)
    assert [each.deed for each in entries] == deeds
    assert [each.sequence for each in entries] == [1, 2, 3, 4]
    assert await store.ends() == (heads[-1], 4) == (Head(4, entries[-1].hash), 4)
    mine = await store.entries(tenant_id="a", after=0, limit=10)
    assert [each.sequence for each in mine] == [1, 4]
    assert [each.sequence for each in await store.entries(tenant_id="a", after=1, limit=1)] == [4]


async def test_nodes_that_write_at_once_make_one_chain(backing: Backing) -> None:
    nodes = [await backing.open() for _ in range(3)]
    try:
        heads = await asyncio.gather(*(node.append(normal(deed(n))) for n in range(10) for node in nodes))
        assert sorted(head.sequence for head in heads) == list(range(1, 31))
        entries = await nodes[0].entries(tenant_id=None, after=0, limit=100)
        assert [each.sequence for each in entries] == list(range(1, 31))
        assert len({each.hash for each in entries}) == 30
    finally:
        for each in nodes:
            await each.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE admin_audit SET principal = 'eve' WHERE sequence = 1",
        "UPDATE admin_audit SET sequence = 9 WHERE sequence = 2",
        "DELETE FROM admin_audit WHERE sequence = 2",
        "DELETE FROM admin_audit",
        "INSERT INTO admin_audit SELECT 7, at, principal, credential, source, action, tenant_id, target, status,"
        " request_id, detail, hash FROM admin_audit WHERE sequence = 1",
        "INSERT INTO admin_audit SELECT * FROM admin_audit WHERE sequence = 1",
        "UPDATE admin_audit_head SET sequence = 1",
        "UPDATE admin_audit_head SET sequence = 7",
        "DELETE FROM admin_audit_head",
        "REPLACE INTO admin_audit SELECT * FROM admin_audit WHERE sequence = 1",
        "REPLACE INTO admin_audit_head SELECT * FROM admin_audit_head",
        "TRUNCATE admin_audit",
        "TRUNCATE admin_audit_head",
        "TRUNCATE admin_audit CASCADE",
    ],
)
async def test_the_database_refuses_to_change_the_trail(
    backing: Backing, store: SqlStore, statement: str
) -> None:
    if statement.startswith("REPLACE" if backing.name == "postgres" else "TRUNCATE"):
        pytest.skip("the other backing's statement")
    for number in (1, 2):
        await store.append(normal(deed(number)))
    before = (await store.entries(tenant_id=None, after=0, limit=9), await store.ends())
    with pytest.raises(Unavailable) as caught:
        await store._write(lambda connection: connection.exec_driver_sql(statement))
    assert "append-only" in str(caught.value.__cause__)
    assert (await store.entries(tenant_id=None, after=0, limit=9), await store.ends()) == before
    await store.append(normal(deed(3)))


# -- all of it -----------------------------------------------------------------------------------------


async def test_a_closed_store_says_so(backing: Backing) -> None:
    store = await backing.open()
    await store.close()
    for work in (store.token("a"), store.add_token(row("a"), 9), store.ends(), store.append(normal(deed()))):
        with pytest.raises(Unavailable) as caught:
            await work
        assert "closed" in str(caught.value.__cause__)


async def test_what_was_written_is_there_when_it_is_opened_again(backing: Backing) -> None:
    store = await backing.open()
    await store.add_token(row("a"), 9)
    head = await store.append(normal(deed()))
    await begin(store)
    await store.close()
    again = await backing.open()
    try:
        assert await again.token("a") == row("a")
        assert await again.ends() == (head, 1)
        with pytest.raises(StillRunning):
            await begin(again)
    finally:
        await again.close()


async def test_a_request_that_is_given_up_midway_is_whole(store: SqlStore) -> None:
    """A client that hangs up cancels its request: what was begun is carried out, or was not begun."""
    for steps in range(0, 24, 2):
        before, _ = await store.ends()
        task = asyncio.create_task(store.append(normal(deed(steps))))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        head, last = await store.ends()
        assert head.sequence == last
        assert head.sequence - before.sequence in (0, 1)
