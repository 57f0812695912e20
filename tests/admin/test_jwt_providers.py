"""JWTs of providers that misbehave, or of several."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from admin.errors import Forbidden, Unavailable
from admin.jwks import ANSWER_BYTES_MAX
from admin.sql_store import SqlStore
from tests.admin.issuer import (
    DISCOVERY,
    Issuer,
    Keys,
    public_jwk,
    running_issuer,
    saying,
)
from tests.admin.jwt_node import Node, config
from tests.admin.turned import NOON_MS, Turned

NOON_S = NOON_MS // 1000


async def _hang(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def _trickle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(20):
        await response.write(b" " * 65_536)
    return response


async def _cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("path", "answer", "why"),
    [
        ("/keys", saying("no", 500), "status 500"),
        ("/keys", saying("", 302, Location="https://eve.example/keys"), "status 302"),
        ("/keys", saying("nonsense"), "no JWK Set"),
        ("/keys", saying("[]"), "no JWK Set"),
        ("/keys", saying('{"keys": {}}'), "no JWK Set"),
        ("/keys", saying('{"keys": []}'), "no public key for any of"),
        (
            "/keys",
            saying('{"keys": [1, null, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": 1}]}'),
            "no public key",
        ),
        ("/keys", saying(json.dumps({"keys": [{}] * 101})), "at most 100"),
        ("/keys", _trickle, f"over {ANSWER_BYTES_MAX} bytes"),
        ("/keys", _cut_off, "ServerDisconnectedError"),
        (DISCOVERY, saying("no", 404), "status 404"),
        (DISCOVERY, saying("nonsense"), "names another issuer"),
        (DISCOVERY, saying('{"issuer": "https://eve.example", "jwks_uri": "x"}'), "names another issuer"),
    ],
)
async def test_keys_that_cannot_be_had_are_named(
    node: Node, issuer: Issuer, turned: Turned, path: str, answer: Any, why: str
) -> None:
    issuer.answers[path] = answer
    for _ in range(2):
        with pytest.raises(Unavailable, match=why) as caught:
            await node.who(issuer.token())
        assert issuer.url in str(caught.value)
    assert issuer.requests.count(DISCOVERY) == 1, "who asks again does not make the node ask again"
    assert node.throttle.failures == 0
    issuer.answers.clear()
    turned.turn(10_000)
    assert await node.takes(issuer.token())


async def test_where_a_discovery_document_may_point(node: Node, issuer: Issuer, turned: Turned) -> None:
    for url in (
        "ftp://127.0.0.1/keys",
        "http://192.0.2.1/keys",
        "file:///etc/passwd",
        "https://a@eve.example/",
        7,
        None,
    ):
        issuer.answers[DISCOVERY] = saying(json.dumps({"issuer": issuer.url, "jwks_uri": url}))
        with pytest.raises(Unavailable):
            await node.who(issuer.token())
        turned.turn(10_000)
    assert set(issuer.requests) == {DISCOVERY}


async def test_a_provider_that_does_not_answer_costs_its_time_limit_once(
    file_store: SqlStore, turned: Turned, issuer: Issuer
) -> None:
    issuer.answers["/keys"] = _hang
    node = Node(file_store, turned, config(issuer, timeout_ms=100))
    tokens = [issuer.token(jti=str(n)) for n in range(20)]
    outcomes = await asyncio.gather(*map(node.who, tokens), return_exceptions=True)
    assert {str(each) for each in outcomes} == {
        f"the keys of {issuer.url} cannot be had: no answer within 100 ms"
    }
    assert issuer.requests.count("/keys") == 1
    await node.issued.aclose()


async def test_old_keys_serve_while_no_newer_ones_can_be_had(
    node: Node, issuer: Issuer, turned: Turned
) -> None:
    await node.who(issuer.token())
    issuer.answers["/keys"] = _hang
    turned.steady_ms += 3_600_000
    # Nobody waits for it.
    async with asyncio.timeout(1):
        assert await node.takes(issuer.token())
    turned.steady_ms += 82_800_000
    with pytest.raises(Unavailable):
        await node.who(issuer.token())


async def test_whoever_stops_waiting_does_not_end_the_fetch(node: Node, issuer: Issuer) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        arrived.set()
        await go.wait()
        return web.json_response({"keys": issuer.jwks})

    issuer.answers["/keys"] = slow
    first, second = (asyncio.create_task(node.who(issuer.token())) for _ in range(2))
    async with asyncio.timeout(5):
        await arrived.wait()
        first.cancel()
        await asyncio.wait([first])
        go.set()
        assert (await second).subject == "ada"


async def test_keys_from_a_file(
    file_store: SqlStore, turned: Turned, issuer: Issuer, tmp_path: Path, keys: Keys
) -> None:
    path = tmp_path / "jwks.json"
    node = Node(file_store, turned, config(issuer, jwks_file=path))
    with pytest.raises(Unavailable, match="FileNotFoundError"):
        await node.who(issuer.token())
    path.write_text(json.dumps({"keys": issuer.jwks}))
    turned.turn(10_000)
    assert await node.takes(issuer.token())
    path.write_text(json.dumps({"keys": [public_jwk(keys.ec, kid="e2")]}))
    turned.turn(10_000)
    assert await node.takes(issuer.token(keys.ec, "ES256", {"kid": "e2"}))
    path.write_bytes(b" " * (ANSWER_BYTES_MAX + 1))
    assert issuer.requests == []
    await node.issued.aclose()


async def test_keys_from_a_url(file_store: SqlStore, turned: Turned, issuer: Issuer) -> None:
    node = Node(file_store, turned, config(issuer, jwks_url=f"{issuer.url}/keys"))
    assert await node.takes(issuer.token())
    assert issuer.requests == ["/keys"]
    await node.issued.aclose()


async def test_two_issuers_are_kept_apart(file_store: SqlStore, turned: Turned, issuer: Issuer) -> None:
    async with running_issuer(Keys()) as other:
        node = Node(file_store, turned, config(issuer), config(other, operator_role=None))
        assert await node.takes(issuer.token())
        # The other one's key under this one's name, and the other way round.
        assert "signature" in await node.refused(issuer.token(other.keys.rsa))
        assert "signature" in await node.refused(other.token(issuer.keys.rsa))
        with pytest.raises(Forbidden):
            await node.who(other.token())
        shop = other.token(roles=["shop"], tenant_id="acme")
        assert (await node.who(shop)).tenant_id == "acme"
        await node.issued.deny_subject(issuer.url, "ada")
        assert await node.takes(shop), "of the same name"
        await node.issued.aclose()
