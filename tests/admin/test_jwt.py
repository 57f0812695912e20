"""JWTs of a provider that runs: what is good, a table of attacks, replays, denials, and a provider that misbehaves."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from jwt.algorithms import RSAAlgorithm

from admin.errors import Forbidden, NotFound, Throttled, Unauthenticated
from admin.principals import Principal, Role
from admin.sql_store import SqlStore
from tests.admin.conftest import Backing
from tests.admin.issuer import (
    AUDIENCE,
    DISCOVERY,
    Issuer,
    Keys,
    b64,
    public_jwk,
    raw_token,
)
from tests.admin.jwt_node import Node, config
from tests.admin.turned import NOON_MS, Turned

NOON_S = NOON_MS // 1000


# -- what is good --------------------------------------------------------------------------------------


async def test_a_good_token_says_whose_it_is(node: Node, issuer: Issuer) -> None:
    assert await node.who(issuer.token()) == Principal("ada", Role.OPERATOR, None, issuer.url, "t-1")
    tenant = issuer.token(roles=["other", "shop"], tenant_id="acme", jti=None)
    assert await node.who(tenant) == Principal("ada", Role.TENANT, "acme", issuer.url, "")
    assert issuer.requests == [DISCOVERY, "/keys"], "and the keys were fetched once"


@pytest.mark.parametrize(("key", "algorithm"), [("rsa", "PS256"), ("ec", "ES256"), ("ed", "EdDSA")])
async def test_each_kind_of_signature(node: Node, issuer: Issuer, key: str, algorithm: str) -> None:
    token = issuer.token(getattr(issuer.keys, key), algorithm, {"kid": key})
    assert (await node.who(token)).subject == "ada"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["other", AUDIENCE]},
        {"roles": "openid admin"},
        {"nbf": None},
        {"exp": NOON_S + 86_400},
        {"exp": NOON_S + 0.5},
        {"iat": NOON_S + 30, "nbf": NOON_S + 30},
        {"iat": NOON_S - 300, "exp": NOON_S - 29},
        {"sub": "ü" * 128},
    ],
)
async def test_good_claims(node: Node, issuer: Issuer, claims: dict[str, Any]) -> None:
    assert (await node.who(issuer.token(**claims))).role is Role.OPERATOR


@pytest.mark.parametrize("kind", ["at+jwt", "application/at+jwt", "jwt"])
async def test_good_types(node: Node, issuer: Issuer, kind: str) -> None:
    assert await node.takes(issuer.token(headers={"kid": "rsa", "typ": kind}))


async def test_claims_within_claims(file_store: SqlStore, turned: Turned, issuer: Issuer) -> None:
    node = Node(
        file_store,
        turned,
        config(
            issuer,
            roles_claim=("realm_access", "roles"),
            tenant_claim=("https://example.com/tenant",),
            tenants=("acme",),
        ),
    )
    nested: dict[str, Any] = {"realm_access": {"roles": ["shop"]}, "https://example.com/tenant": "acme"}
    assert (await node.who(issuer.token(**nested))).tenant_id == "acme"
    for wrong, text in (
        ({"realm_access": ["shop"]}, "no role"),
        ({"realm_access": {"roles": {"shop": True}}}, "no role"),
        ({"https://example.com/tenant": "other"}, "does not speak for"),
        ({"https://example.com/tenant": None}, "names no tenant"),
        ({"https://example.com/tenant": "../etc"}, "names no tenant"),
        ({"https://example.com/tenant": ["acme"]}, "names no tenant"),
        ({"realm_access": {"roles": ["shop", "admin"]}}, "both"),
    ):
        with pytest.raises(Forbidden, match=text):
            await node.who(issuer.token(**(nested | wrong)))
    await node.issued.aclose()


# -- attacks -------------------------------------------------------------------------------------------


def _tampered(issuer: Issuer) -> str:
    header, _, signature = issuer.token().split(".")
    return ".".join((header, b64(json.dumps(issuer.claims(sub="eve")).encode()), signature))


def _hmac_with_the_public_key(issuer: Issuer) -> str:
    """The classic: the verifier's public key as an HMAC secret (RFC 8725 2.1)."""
    pem = issuer.keys.rsa.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{b64(json.dumps({'alg': 'HS256', 'typ': 'JWT', 'kid': 'rsa'}).encode())}.{b64(json.dumps(issuer.claims()).encode())}"
    return f"{signed}.{b64(hmac.digest(pem, signed.encode(), hashlib.sha256))}"


def _rs256_in_an_ec_name(issuer: Issuer) -> str:
    """An RSA signature under a header that names another kind of key."""
    header, payload = {"alg": "RS256", "kid": "ec"}, issuer.claims()
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(payload).encode())}"
    signature = issuer.keys.rsa.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{b64(signature)}"


def _with_header(issuer: Issuer, key: RSAPrivateKey | None = None, **fields: object) -> str:
    """A header that the library refuses to write, or a key that it refuses to sign with."""
    header = {"alg": "RS256", "kid": "rsa", **fields}
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(issuer.claims()).encode())}"
    signature = (key or issuer.keys.rsa).sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{b64(signature)}"


def _with_its_own_key(issuer: Issuer) -> str:
    mine = public_jwk(issuer.keys.other_rsa, kid="rsa")
    return issuer.token(
        issuer.keys.other_rsa,
        headers={"kid": "rsa", "jwk": mine, "jku": "https://eve.example/keys", "x5u": "x"},
    )


Attack = Callable[[Issuer], str] | str
ATTACKS: tuple[tuple[str, Attack, str], ...] = (
    ("tampered", _tampered, "signature is not its issuer's"),
    ("cut off", lambda i: i.token()[:-10], "signature is not its issuer's|cannot be read"),
    ("no signature", lambda i: ".".join(i.token().split(".")[:2]) + ".", "not a signed JWT"),
    ("padded", lambda i: i.token() + "==", "not a signed JWT"),
    ("alg none", lambda i: raw_token({"alg": "none"}, i.claims()), "algorithm is not allowed"),
    ("alg none, unsigned", lambda i: raw_token({"alg": "none"}, i.claims(), b""), "not a signed JWT"),
    ("alg None", lambda i: raw_token({"alg": "nOnE", "typ": "JWT"}, i.claims()), "algorithm is not allowed"),
    ("no alg", lambda i: raw_token({"typ": "JWT"}, i.claims()), "names no algorithm"),
    ("alg a list", lambda i: raw_token({"alg": ["RS256"]}, i.claims()), "names no algorithm"),
    ("HS256 with the public key", _hmac_with_the_public_key, "algorithm is not allowed"),
    ("RS512", lambda i: i.token(algorithm="RS512"), "algorithm is not allowed"),
    ("another kind of key", _rs256_in_an_ec_name, "a key that its issuer does not have"),
    ("another's key", lambda i: i.token(i.keys.other_rsa), "signature is not its issuer's"),
    ("brings its own key", _with_its_own_key, "signature is not its issuer's"),
    ("unknown kid", lambda i: i.token(headers={"kid": "eve"}), "does not have"),
    ("kid a path", lambda i: i.token(headers={"kid": "../../../../dev/null"}), "does not have"),
    ("kid a query", lambda i: i.token(headers={"kid": "x' UNION SELECT 'k"}), "does not have"),
    ("kid a URL", lambda i: i.token(headers={"kid": "https://eve.example/k"}), "does not have"),
    ("kid a number", lambda i: _with_header(i, kid=7), "kid is not a text"),
    ("kid empty", lambda i: _with_header(i, kid=""), "kid is not a text"),
    ("kid long", lambda i: _with_header(i, kid="k" * 300), "kid is not a text"),
    ("crit", lambda i: _with_header(i, crit=["exp"]), "'crit', which is not supported"),
    ("crit empty", lambda i: _with_header(i, crit=[]), "'crit', which is not supported"),
    ("b64", lambda i: _with_header(i, b64=False), "'b64', which is not supported"),
    ("zip", lambda i: _with_header(i, zip="DEF"), "'zip', which is not supported"),
    ("typ of a logout token", lambda i: _with_header(i, typ="logout+jwt"), "for another purpose"),
    ("typ of a proof", lambda i: _with_header(i, typ="dpop+jwt"), "for another purpose"),
    ("typ null", lambda i: _with_header(i, typ=None), "for another purpose"),
    ("another's audience", lambda i: i.token(aud="other"), "for somebody else"),
    ("audience in part", lambda i: i.token(aud=AUDIENCE[:-1]), "for somebody else"),
    ("no audience", lambda i: i.token(aud=None), "no aud|for somebody else"),
    ("audience a mapping", lambda i: i.token(aud={AUDIENCE: True}), "for somebody else|cannot be read"),
    ("another issuer", lambda i: i.token(iss="https://eve.example"), "none that this node believes"),
    ("issuer with a slash", lambda i: i.token(iss=i.url + "/"), "none that this node believes"),
    ("no issuer", lambda i: i.token(iss=None), "names no issuer"),
    (
        "issuer a list",
        lambda i: raw_token({"alg": "RS256"}, i.claims() | {"iss": [i.url]}),
        "names no issuer",
    ),
    ("expired", lambda i: i.token(iat=NOON_S - 300, exp=NOON_S - 30), "has expired"),
    ("no exp", lambda i: i.token(exp=None), "no exp"),
    ("no iat", lambda i: i.token(iat=None), "no iat"),
    ("exp a text", lambda i: i.token(exp=str(NOON_S + 60)), "no exp, or one that is no time"),
    ("exp true", lambda i: i.token(exp=True), "no exp, or one that is no time"),
    ("exp negative", lambda i: i.token(exp=-1), "no exp, or one that is no time"),
    ("exp without end", lambda i: i.token(exp=float("inf")), "not a JSON object|cannot be read"),
    ("exp huge", lambda i: i.token(exp=10**30), "no exp, or one that is no time|not a JSON"),
    ("too long a life", lambda i: i.token(exp=NOON_S + 86_401), "longer than 86400 s"),
    ("ends before it begins", lambda i: i.token(exp=NOON_S), "expires before it was issued"),
    ("issued in the future", lambda i: i.token(iat=NOON_S + 31, exp=NOON_S + 99), "issued in the future"),
    ("not good yet", lambda i: i.token(nbf=NOON_S + 31), "not good yet"),
    ("nbf a text", lambda i: raw_signed(i, nbf="soon"), "no nbf, or one that is no time"),
    ("no subject", lambda i: i.token(sub=None), "no sub"),
    ("subject a number", lambda i: raw_signed(i, sub=7), "cannot be read|sub is not"),
    ("subject empty", lambda i: i.token(sub=""), "sub is not a text"),
    ("subject with a line end", lambda i: i.token(sub="ada\nroot"), "sub is not a text"),
    ("subject long", lambda i: i.token(sub="x" * 129), "sub is not a text"),
    ("jti a number", lambda i: raw_signed(i, jti=7), "cannot be read|jti is not"),
    ("two parts", lambda i: i.token().rpartition(".")[0], "no token of a kind"),
    ("five parts, encrypted", "a.b.c.d.e", "no token of a kind"),
    ("not base64url", lambda i: "!!!." + i.token().split(".", 1)[1], "not a signed JWT"),
    ("header no JSON", f"{b64(b'nonsense')}.{b64(b'{}')}.x", "header is not a JSON object"),
    ("header a list", f"{b64(b'[]')}.{b64(b'{}')}.x", "header is not a JSON object"),
    ("payload no object", raw_token({"alg": "RS256"}, ["x"]), "payload is not a JSON object"),  # type: ignore[arg-type]
    ("nested a thousand times", f"{b64(b'[' * 2_000)}.{b64(b'{}')}.x", "not a JSON object"),
    ("huge", "x" * 20_000, "no token of a kind"),
    ("huge with dots", f"{'x' * 9_000}.{'x' * 9_000}.x", "no token of a kind"),
)


def raw_signed(issuer: Issuer, **claims: object) -> str:
    """Claims that the library refuses to sign."""
    signed = f"{b64(json.dumps({'alg': 'RS256', 'kid': 'rsa'}).encode())}.{b64(json.dumps(issuer.claims() | claims).encode())}"
    signature = issuer.keys.rsa.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{b64(signature)}"


@pytest.mark.parametrize(("attack", "why"), [each[1:] for each in ATTACKS], ids=[each[0] for each in ATTACKS])
async def test_attacks_end_in_a_named_refusal(node: Node, issuer: Issuer, attack: Attack, why: str) -> None:
    token = attack if isinstance(attack, str) else attack(issuer)
    text = await node.refused(token)
    assert re.search(why, text), text
    assert node.throttle.failures == 1
    assert (await node.who(issuer.token())).subject == "ada", "and what is good goes on"


async def test_a_signature_by_a_key_that_is_too_short(node: Node, issuer: Issuer, keys: Keys) -> None:
    issuer.jwks.append(public_jwk(keys.small_rsa, kid="small"))
    assert "cannot be read" in await node.refused(_with_header(issuer, key=keys.small_rsa, kid="small"))


@pytest.mark.parametrize(
    "fields",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "RS512"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"d": "AQAB"},
    ],
)
async def test_a_key_that_is_not_for_this_is_passed_over(
    node: Node, issuer: Issuer, keys: Keys, fields: dict[str, Any]
) -> None:
    issuer.jwks.append(public_jwk(keys.other_rsa, kid="other") | fields)
    assert "does not have" in await node.refused(issuer.token(keys.other_rsa, headers={"kid": "other"}))


async def test_a_private_key_that_is_published_is_passed_over(node: Node, issuer: Issuer, keys: Keys) -> None:
    issuer.jwks.append(
        RSAAlgorithm.to_jwk(keys.other_rsa, as_dict=True) | {"kid": "other", "key_ops": ["verify"]}
    )
    assert "does not have" in await node.refused(issuer.token(keys.other_rsa, headers={"kid": "other"}))


async def test_a_token_without_kid_needs_the_only_key_of_its_kind(
    node: Node, issuer: Issuer, keys: Keys, turned: Turned
) -> None:
    assert await node.takes(issuer.token(headers={}))
    issuer.jwks.append(public_jwk(keys.other_rsa, kid="other"))
    turned.steady_ms += 3_600_000
    await node.refused(issuer.token(headers={"kid": "unknown"}))
    assert "names none of several" in await node.refused(issuer.token(headers={}))


@pytest.mark.parametrize("position", range(0, 600, 37))
async def test_every_changed_character_is_refused(node: Node, issuer: Issuer, position: int) -> None:
    token = issuer.token()
    position %= len(token)
    other = "A" if token[position] != "A" else "B"
    changed = token[:position] + other + token[position + 1 :]
    try:
        await node.who(changed)
    except Unauthenticated:
        return
    pytest.fail(f"a token that was changed at {position} was taken")


async def test_a_flood_of_unknown_keys_is_one_fetch(node: Node, issuer: Issuer, turned: Turned) -> None:
    await node.who(issuer.token())
    issuer.requests.clear()
    turned.steady_ms += 10_000
    tokens = [issuer.token(headers={"kid": f"k{n}"}) for n in range(50)]
    await asyncio.gather(*map(node.refused, tokens))
    for token in tokens[:10]:
        await node.refused(token)
    assert issuer.requests == [DISCOVERY, "/keys"]
    turned.steady_ms += 9_999
    await node.refused(tokens[0])
    assert len(issuer.requests) == 2
    turned.steady_ms += 1
    await node.refused(tokens[0])
    assert len(issuer.requests) == 4


async def test_a_new_key_of_the_issuer_is_found(
    node: Node, issuer: Issuer, keys: Keys, turned: Turned
) -> None:
    await node.who(issuer.token())
    issuer.jwks = [public_jwk(keys.other_rsa, kid="new")]
    turned.steady_ms += 10_000
    assert await node.takes(issuer.token(keys.other_rsa, headers={"kid": "new"}))
    assert "does not have" in await node.refused(issuer.token()), "and the old one is gone"


async def test_failures_are_throttled(file_store: SqlStore, turned: Turned, issuer: Issuer) -> None:
    node = Node(file_store, turned, config(issuer), burst=3)
    for _ in range(3):
        await node.refused(_tampered(issuer))
    with pytest.raises(Throttled):
        await node.who(issuer.token())
    turned.turn(1_000)
    assert await node.takes(issuer.token())
    await node.issued.aclose()


# -- replays and denials -------------------------------------------------------------------------------


async def test_a_token_that_is_good_once_is_used_once_by_all_nodes(
    backing: Backing, turned: Turned, issuer: Issuer
) -> None:
    stores = [await backing.open() for _ in range(2)]
    nodes = [Node(store, turned, config(issuer, one_use=True)) for store in stores]
    token = issuer.token(jti="once")

    async def one(node: Node) -> bool:
        try:
            return bool(await node.who(token))
        except Unauthenticated as error:
            assert "was used before" in str(error)
            return False

    try:
        assert sum(await asyncio.gather(*(one(node) for _ in range(5) for node in nodes))) == 1
        assert await nodes[1].takes(issuer.token(jti="twice"))
        assert "no id (jti)" in await nodes[0].refused(issuer.token(jti=None))
        # To the last moment that it would be good in.
        turned.turn(300_000 + 30_000 - 1)
        assert "was used before" in await nodes[0].refused(token)
        turned.turn(1)
        assert "has expired" in await nodes[0].refused(token)
    finally:
        for node, store in zip(nodes, stores, strict=True):
            await node.issued.aclose()
            await store.close()


async def test_a_refused_token_is_not_used_up(file_store: SqlStore, turned: Turned, issuer: Issuer) -> None:
    node = Node(file_store, turned, config(issuer, one_use=True))
    later = issuer.token(nbf=NOON_S + 60)
    await node.refused(later)
    with pytest.raises(Forbidden):
        await node.who(issuer.token(roles=[]))
    turned.turn(60_000)
    assert await node.takes(later)
    assert "was used before" in await node.refused(issuer.token())
    await node.issued.aclose()


async def test_denials_hold_on_all_nodes(backing: Backing, turned: Turned, issuer: Issuer) -> None:
    stores = [await backing.open() for _ in range(2)]
    here, there = (Node(store, turned, config(issuer)) for store in stores)
    try:
        one, other, bo = issuer.token(jti="1"), issuer.token(jti="2"), issuer.token(sub="bo", jti=None)
        for token in (one, other, bo):
            await there.who(token)
        await here.issued.deny_token(issuer.url, "1")
        assert await there.refused(one) == "the token was revoked"
        assert await there.takes(other)
        await here.issued.deny_subject(issuer.url, "bo")
        assert await there.refused(bo) == "the token was revoked"
        assert await there.takes(other)
        # One that was issued afterwards is good, as soon as no clock that is within the leeway can be the reason.
        turned.turn(30_000)
        fresh = issuer.token(sub="bo", iat=NOON_S + 30, exp=NOON_S + 99)
        assert await there.takes(fresh)
        with pytest.raises(NotFound, match=issuer.url):
            await here.issued.deny_token("https://eve.example", "1")
        with pytest.raises(NotFound, match="1 to 128"):
            await here.issued.deny_subject(issuer.url, "")
    finally:
        for node, store in zip((here, there), stores, strict=True):
            await node.issued.aclose()
            await store.close()
