"""When keys are fetched, in virtual time; and whatever an issuer says for keys."""

from __future__ import annotations

import itertools
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.key_sets import KEYS_MAX, BadKeySet, KeySet, Refreshing

STEP = st.tuples(st.sampled_from(["known", "unknown", "fails"]), st.integers(0, 50_000))


@given(st.lists(STEP, max_size=80), st.integers(1, 60_000))
def test_fetches_are_never_closer_than_allowed(steps: list[tuple[str, int]], min_ms: int) -> None:
    """Whatever tokens come, and whether fetching works."""
    refreshing = Refreshing(refresh_ms=60_000, min_ms=min_ms, stale_ms=200_000)
    now, began = 0, []
    for kind, passed in steps:
        now += passed
        wanted = refreshing.is_due(now) or (kind != "known" and refreshing.may_fetch(now))
        if wanted:
            refreshing.began(now)
            began.append(now)
            if kind != "fails":
                refreshing.succeeded(now)
    assert all(later - earlier >= min_ms for earlier, later in itertools.pairwise(began))
    assert len(began) <= 1 + now // min_ms


@given(st.lists(STEP, max_size=40))
def test_keys_are_used_for_a_day_and_no_longer(steps: list[tuple[str, int]]) -> None:
    refreshing = Refreshing(refresh_ms=60_000, min_ms=1_000, stale_ms=200_000)
    now, had = 0, None
    for kind, passed in steps:
        now += passed
        assert refreshing.usable(now) == (had is not None and now - had < 200_000)
        if had is None or now - had >= 60_000:
            assert refreshing.is_due(now) == refreshing.may_fetch(now)
        else:
            assert not refreshing.is_due(now)
        if refreshing.is_due(now):
            refreshing.began(now)
            if kind != "fails":
                refreshing.succeeded(now)
                had = now


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
VALUE = st.one_of(JSON, st.sampled_from(["AQAB", "AA", "", "sig", "RS256", "ES256", "x" * 342]))
JWK = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC", "OKP", "oct", "", 7])},
    optional=dict.fromkeys(
        ("n", "e", "x", "y", "d", "k", "kid", "use", "alg", "key_ops", "p", "oth", "x5c"), VALUE
    )
    | {"crv": st.sampled_from(["P-256", "P-384", "P-521", "Ed25519", "secp256k1", "Ed448", 1])},
)


@given(st.lists(st.one_of(JWK, JSON), max_size=5) | JSON)
def test_any_json_is_a_key_set_or_is_refused(keys: object) -> None:
    raw = json.dumps({"keys": keys}).encode()
    try:
        found = KeySet.read(raw, ("RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"))
    except BadKeySet:
        return
    assert 1 <= len(found) <= KEYS_MAX


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(raw: bytes) -> None:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        with pytest.raises(BadKeySet, match="no JWK Set"):
            KeySet.read(raw, ("RS256",))
