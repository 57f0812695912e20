"""API tokens of a store: made, shown once, checked, revoked; and how little a guesser gets."""

from __future__ import annotations

import asyncio
import os
import re

import pytest
from argon2 import extract_parameters

from admin.api_tokens import (
    DAY_MS,
    LANES,
    MEMORY_KIB,
    PASSES,
    WAITING_MAX,
    ApiTokens,
    BadToken,
    TooManyTokens,
)
from admin.authentication import Authentication
from admin.errors import NotFound, Throttled, Unauthenticated, Unavailable
from admin.jwt_tokens import JwtTokens
from admin.principals import Role
from admin.sql_store import SqlStore
from admin.throttle import LoginThrottle
from admin.tokens import ApiToken, _check
from admin.verified import ENTRIES_MAX, FITS_MS, RECHECK_MS, VerifiedTokens
from config.admin import ApiTokensConfig, RateLimit
from tests.admin.conftest import Backing
from tests.admin.test_store_contract import row
from tests.admin.turned import Turned

HERE = "192.0.2.1"


class Node:
    """A node's tokens and its login."""

    def __init__(self, store: SqlStore, turned: Turned, burst: int = 5) -> None:
        self.store = store
        self.throttle = LoginThrottle(RateLimit(per_minute=6, burst=burst))
        config = ApiTokensConfig(life_days=10, life_max_days=20, per_tenant_max=3)
        self.tokens = ApiTokens(store, config, self.throttle, turned.clocks, os.urandom)
        issued = JwtTokens(store, (), {}, self.throttle, turned.clocks)
        self.login = Authentication(self.tokens, issued, self.throttle, turned.clocks)

    async def make(self, tenant_id: str | None = None, label: str = "ci") -> ApiToken:
        role = Role.OPERATOR if tenant_id is None else Role.TENANT
        made = await self.tokens.create(role=role, tenant_id=tenant_id, label=label, created_by="ada")
        return made.token

    async def refused(self, text: str, source: str = HERE) -> str:
        with pytest.raises(Unauthenticated) as caught:
            await self.login.authenticate(f"Bearer {text}", source)
        assert text not in str(caught.value)
        return str(caught.value)


@pytest.fixture
async def node(file_store: SqlStore, turned: Turned) -> Node:
    node = Node(file_store, turned)
    await node.tokens.prepare()
    return node


async def test_a_token_says_whose_it_is(node: Node) -> None:
    operator, tenant = await node.make(), await node.make("acme", "shop")
    found = await node.login.authenticate(f"Bearer {operator.reveal()}", HERE)
    assert (found.role, found.tenant_id, found.issuer) == (Role.OPERATOR, None, "local")
    assert (found.subject, found.credential) == (f"ci [{operator.public_id}]", operator.public_id)
    found = await node.login.authenticate(f"bearer  {tenant.reveal()} ", HERE)
    assert (found.role, found.tenant_id) == (Role.TENANT, "acme")


async def test_only_the_hash_is_kept_with_the_parameters_that_are_documented(node: Node) -> None:
    token = await node.make()
    kept = await node.store.token(token.public_id)
    assert kept is not None
    parameters = extract_parameters(kept.hash)
    assert kept.hash.startswith("$argon2id$")
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (
        MEMORY_KIB,
        PASSES,
        LANES,
    )
    assert (MEMORY_KIB, PASSES, LANES) == (19_456, 2, 1), "OWASP's"
    listed = await node.tokens.list(tenant_id=None)
    assert [each.public_id for each in listed] == [token.public_id]
    for text in (repr(listed), repr(kept), repr(token)):
        assert kept.hash not in text
        assert token.reveal() not in text


async def test_a_secret_that_is_another_s_is_refused(node: Node) -> None:
    one, other = await node.make(), await node.make()
    for public_id in (one.public_id, "0" * 13):
        forged = _forged(other, public_id)
        assert await node.refused(forged) == await node.refused(_forged(other, "z" * 13))


def _forged(token: ApiToken, public_id: str) -> str:
    """The secret of a token under another id, with a checksum that fits."""
    body = f"mst_{public_id}_{token.reveal()[18:-6]}"
    return body + _check(body)


async def test_an_unknown_token_costs_what_a_known_one_costs(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = await node.make()
    hashed: list[str] = []
    original = node.tokens._fits

    def counted(hash_: str, token: ApiToken) -> bool:
        hashed.append(hash_)
        return original(hash_, token)

    monkeypatch.setattr(node.tokens, "_fits", counted)
    await node.refused(_forged(known, "0" * 13))
    await node.refused(_forged(ApiToken.from_random(bytes(32)), known.public_id))
    await node.login.authenticate(f"Bearer {known.reveal()}", HERE)
    assert len(hashed) == node.tokens.checks == 3
    parameters = {str(extract_parameters(each)) for each in hashed}
    assert len(parameters) == 1


async def test_a_checked_token_is_not_hashed_again_for_a_while(node: Node, turned: Turned) -> None:
    token = await node.make()
    for _ in range(5):
        await node.login.authenticate(f"Bearer {token.reveal()}", HERE)
        turned.turn(RECHECK_MS)
    assert node.tokens.checks == 1
    turned.turn(FITS_MS)
    await node.login.authenticate(f"Bearer {token.reveal()}", HERE)
    assert node.tokens.checks == 2


async def test_many_requests_with_a_new_token_are_checked_once(node: Node) -> None:
    token = await node.make()
    found = await asyncio.gather(
        *(node.login.authenticate(f"Bearer {token.reveal()}", HERE) for _ in range(20))
    )
    assert len(set(found)) == 1
    # As many as have a turn at once begin before anybody has finished.
    assert node.tokens.checks <= 2


async def test_a_revoked_token_is_refused_at_once_here_and_within_a_second_elsewhere(
    backing: Backing, turned: Turned
) -> None:
    here, there = Node(await backing.open(), turned), Node(await backing.open(), turned)
    try:
        token = await here.make()
        for each in (here, there):
            await each.login.authenticate(f"Bearer {token.reveal()}", HERE)
        info = await here.tokens.revoke(token.public_id, tenant_id=None, by="ada")
        assert info.revoked_by == "ada"
        assert await here.refused(token.reveal()) == "the API token was revoked"
        turned.turn(RECHECK_MS - 1)
        await there.login.authenticate(f"Bearer {token.reveal()}", HERE)
        turned.turn(1)
        assert RECHECK_MS <= 1_000
        assert await there.refused(token.reveal()) == "the API token was revoked"
        assert there.tokens.checks == 1, "and that cost no hash"
    finally:
        await here.store.close()
        await there.store.close()


async def test_a_token_expires_even_while_it_is_remembered(node: Node, turned: Turned) -> None:
    token = await node.make()
    turned.turn(10 * DAY_MS - 1)
    await node.login.authenticate(f"Bearer {token.reveal()}", HERE)
    turned.turn(1)
    assert await node.refused(token.reveal()) == "the API token has expired"


async def test_a_store_that_fails_lets_nobody_in(node: Node, turned: Turned) -> None:
    token = await node.make()
    await node.login.authenticate(f"Bearer {token.reveal()}", HERE)
    await node.store.close()
    turned.turn(RECHECK_MS)
    with pytest.raises(Unavailable):
        await node.login.authenticate(f"Bearer {token.reveal()}", HERE)


async def test_failures_of_a_source_are_throttled_before_anything_is_hashed(
    node: Node, turned: Turned
) -> None:
    token, unused = await node.make(), await node.make()
    await node.login.authenticate(f"Bearer {token.reveal()}", HERE)
    guesses = [
        _forged(token, "0" * 13),  # unknown
        token.reveal()[:-1] + "_",  # mistyped
        "nonsense",
        "a.b.c",
        _forged(unused, token.public_id),
    ]
    for guess in guesses:
        await node.refused(guess, "2001:db8::1")
    checks = node.tokens.checks
    for text in (*guesses, unused.reveal()):
        with pytest.raises(Throttled) as caught:
            await node.login.authenticate(f"Bearer {text}", "2001:db8::2")
        assert caught.value.retry_after_s == 10
    assert node.tokens.checks == checks
    # Others are not concerned, nor is a token that was checked lately.
    await node.login.authenticate(f"Bearer {token.reveal()}", "2001:db8::1")
    await node.login.authenticate(f"Bearer {unused.reveal()}", "2001:db8:0:1::1")
    turned.turn(10_000)
    await node.refused("nonsense", "2001:db8::3")


async def test_who_fails_many_times_at_once_gets_few_hashes(node: Node) -> None:
    token = await node.make()
    outcomes = await asyncio.gather(
        *(
            node.login.authenticate(f"Bearer {_forged(token, f'{n:013d}')}", HERE)
            for n in range(WAITING_MAX + 20)
        ),
        return_exceptions=True,
    )
    assert {type(each) for each in outcomes} == {Unauthenticated, Throttled}
    # The burst, and those that were under way when it was used up.
    assert node.tokens.checks <= 5 + 2
    assert await node.tokens.list(tenant_id=None) != ()


@pytest.mark.parametrize(
    "header", ["", "Basic YTpi", "mst_", "Bearer", "Bearer ", "Bearer " + "x" * 100_000, "Bearer a.b"]
)
async def test_what_is_no_token_is_refused_and_told_what_would_be_one(node: Node, header: str) -> None:
    with pytest.raises(Unauthenticated, match="Authorization: Bearer TOKEN"):
        await node.login.authenticate(header, HERE)
    assert node.throttle.failures == 1


async def test_no_token_is_no_failure(node: Node) -> None:
    for _ in range(20):
        with pytest.raises(Unauthenticated, match="Authorization: Bearer TOKEN") as caught:
            await node.login.authenticate(None, HERE)
        assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")
    assert node.throttle.failures == 0


async def test_a_client_that_hangs_up_gives_its_turn_back(node: Node) -> None:
    token = await node.make()
    tasks = [
        asyncio.create_task(node.login.authenticate(f"Bearer {token.reveal()}", f"192.0.2.{n}"))
        for n in range(10)
    ]
    await asyncio.sleep(0)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(20):
        assert (await node.login.authenticate(f"Bearer {token.reveal()}", HERE)).role is Role.OPERATOR


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"tenant_id": "acme"}, "names none"),
        ({"role": Role.TENANT}, "names its tenant"),
        ({"role": Role.TENANT, "tenant_id": "../x"}, "lower-case"),
        ({"label": ""}, "1 to 64"),
        ({"label": "a\nb"}, "printable"),
        ({"label": "x" * 65}, "1 to 64"),
        ({"label": "mst_0123456789abc_0123456789abc"}, "no token"),
        ({"life_days": 0}, "1 to 20 days"),
        ({"life_days": 21}, "1 to 20 days"),
    ],
)
async def test_what_cannot_be_made_says_what_can(node: Node, fields: dict[str, object], text: str) -> None:
    wanted = {"role": Role.OPERATOR, "tenant_id": None, "label": "ci", "created_by": "ada"} | fields
    with pytest.raises(BadToken, match=text):
        await node.tokens.create(**wanted)  # type: ignore[arg-type]
    assert await node.tokens.list(tenant_id=None) == ()


async def test_tokens_of_a_tenant_are_bounded_and_its_own(node: Node) -> None:
    made = [await node.make("acme") for _ in range(3)]
    with pytest.raises(TooManyTokens, match="tenant acme has 3"):
        await node.make("acme")
    await node.make("other")
    with pytest.raises(NotFound):
        await node.tokens.revoke(made[0].public_id, tenant_id="other", by="eve")
    assert len(await node.tokens.list(tenant_id="acme")) == 3
    assert len(await node.tokens.list(tenant_id="other")) == 1
    await node.tokens.revoke(made[0].public_id, tenant_id="acme", by="ada")
    await node.make("acme")


async def test_a_token_pasted_in_place_of_its_id_is_not_repeated(node: Node) -> None:
    token = await node.make()
    with pytest.raises(NotFound) as caught:
        await node.tokens.revoke(token.reveal(), tenant_id=None, by="ada")
    assert not re.search(re.escape(token.reveal()[:20]), str(caught.value))


def test_what_is_remembered_is_bounded() -> None:
    verified = VerifiedTokens(3)
    for number in range(10):
        verified.fitted(bytes([number]), row(str(number)), 0, 0)
        verified.find(bytes([0]), 0)
    assert len(verified) == 3
    assert verified.find(bytes([1]), 0) is None
    assert ENTRIES_MAX <= 10_000


def test_an_answer_that_was_overtaken_does_not_bring_a_revoked_token_back() -> None:
    verified = VerifiedTokens()
    good, revoked = row("a"), row("a", revoked_ms=1, revoked_by="ada")
    verified.fitted(b"d", good, 0, 0)
    assert verified.reread(b"d", revoked, 1_500)
    assert verified.reread(b"d", good, 1_400)
    known = verified.find(b"d", 1_600)
    assert known is not None
    assert known.row == revoked
    assert not verified.reread(b"d", None, 3_000)
    assert verified.find(b"d", 3_000) is None
