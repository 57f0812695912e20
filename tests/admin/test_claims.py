"""Whatever a token says: it is read, or refused by name; and who comes out of it may be no more than it says."""

from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from admin.claims import announced, identity
from admin.errors import Forbidden, Unauthenticated
from admin.principals import Principal, Role
from config.admin import IssuerConfig
from tests.admin.turned import NOON_MS

NOON_S = NOON_MS // 1000
ISSUER = IssuerConfig(
    issuer="https://idp.example",
    audience="x",
    operator_role="op",
    tenant_role="shop",
    tenants=("acme", "other"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
TIMES = st.one_of(JSON, st.integers(NOON_S - 90_000, NOON_S + 90_000), st.floats(NOON_S - 100, NOON_S + 100))
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "iat": TIMES,
        "exp": TIMES,
        "nbf": TIMES,
        "sub": JSON | st.just("ada"),
        "jti": JSON | st.just("t"),
        "roles": JSON
        | st.lists(st.sampled_from(["op", "shop", "x"]), max_size=3)
        | st.sampled_from(["op", "x shop"]),
        "tenant_id": JSON | st.sampled_from(["acme", "eve", "../acme", "ACME", "acme\n"]),
    },
)
GOOD_TIMES = st.fixed_dictionaries(
    {"iat": st.just(NOON_S), "exp": st.just(NOON_S + 60), "sub": st.just("ada")}
)


@given(CLAIMS, GOOD_TIMES | st.just({}))
def test_any_claims_are_somebody_s_or_are_refused(claims: dict[str, object], good: dict[str, object]) -> None:
    claims = claims | good
    if good:
        claims.pop("nbf", None)
    try:
        found = identity(claims, ISSUER, NOON_MS)
    except (Unauthenticated, Forbidden):
        return
    Principal(found.subject, found.role, found.tenant_id, ISSUER.issuer)
    roles = claims["roles"]
    assert isinstance(roles, str | list)
    named = roles.split() if isinstance(roles, str) else roles
    assert ("op" in named) != ("shop" in named)
    assert (found.role is Role.OPERATOR) == ("op" in named)
    assert found.tenant_id in ((None,) if found.role is Role.OPERATOR else ("acme", "other"))
    assert found.tenant_id in (None, claims.get("tenant_id"))
    assert found.expires_ms + 30_000 > NOON_MS
    assert found.issued_ms <= NOON_MS + 30_000
    assert found.expires_ms - found.issued_ms <= 86_400_000 + 2


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for each in (text, f"{text}.{text}.{text}", "." * 2 + text):
        try:
            announced(each)
        except Unauthenticated as error:
            assert len(text) < 8 or text not in str(error)


@given(JSON, JSON)
def test_any_header_and_payload_are_read_or_refused(header: object, payload: object) -> None:
    parts = (
        base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode()
        for each in (header, payload)
    )
    try:
        said = announced(".".join((*parts, "c2ln")))
    except Unauthenticated:
        return
    assert isinstance(header, dict)
    assert isinstance(payload, dict)
    assert (said.algorithm, said.issuer) == (header["alg"], payload["iss"])
