"""What is sealed opens at its place and nowhere else, and not when a byte of it is another."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import traceback

import orjson
import pytest
from fastapi.encoders import jsonable_encoder
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from vault import BadInput, SealBroken, Secret
from vault.sealing import (
    KeyMaterial,
    KeyPlace,
    SecretPlace,
    from_payload,
    payload,
    seal,
    sealed_generation,
    unseal,
    unwrap_locally,
    wrap_locally,
)
from vault.secret import SECRET_BYTES_MAX

KEYS = st.binary(min_size=32, max_size=32).map(KeyMaterial)
NONCES = st.binary(min_size=12, max_size=12)
SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
TENANTS = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
NAMES = st.from_regex(r"[a-z0-9.]{1,8}", fullmatch=True)
GENERATIONS = st.integers(0, 2**32 - 1)
PLACES = st.builds(SecretPlace, TENANTS, NAMES, st.integers(1, 2**31))
KEY_PLACES = st.builds(KeyPlace, TENANTS, GENERATIONS)


@given(SECRETS, KEYS, GENERATIONS, PLACES, NONCES)
def test_a_secret_comes_back(text: str, key: KeyMaterial, gen: int, place: SecretPlace, nonce: bytes) -> None:
    sealed = seal(Secret(text), key, gen, place, nonce)
    assert sealed_generation(sealed) == gen
    assert unseal(sealed, key, place).reveal() == text
    assert text.encode() not in sealed or len(text.encode()) < 4


@given(SECRETS, KEYS, GENERATIONS, PLACES, NONCES, st.data())
def test_no_byte_of_a_sealed_secret_can_be_another(
    text: str, key: KeyMaterial, gen: int, place: SecretPlace, nonce: bytes, data: st.DataObject
) -> None:
    sealed = bytearray(seal(Secret(text), key, gen, place, nonce))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        unseal(bytes(sealed), key, place)


def test_every_byte_of_one_sealed_secret() -> None:
    key, place = KeyMaterial(bytes(range(32))), SecretPlace("a", "openai", 1)
    sealed = seal(Secret("sk-1"), key, 7, place, bytes(12))
    for at in range(len(sealed)):
        for flipped in (1, 128, 255):
            broken = sealed[:at] + bytes([sealed[at] ^ flipped]) + sealed[at + 1 :]
            with pytest.raises(SealBroken):
                unseal(broken, key, place)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            unseal(sealed[:length], key, place)
    with pytest.raises(SealBroken):
        unseal(sealed + b"\0", key, place)


@given(SECRETS, KEYS, KEYS, PLACES, PLACES, NONCES)
def test_a_sealed_secret_opens_at_no_other_place_and_under_no_other_key(
    text: str, key: KeyMaterial, other: KeyMaterial, place: SecretPlace, elsewhere: SecretPlace, nonce: bytes
) -> None:
    sealed = seal(Secret(text), key, 1, place, nonce)
    if elsewhere != place:
        with pytest.raises(SealBroken, match=f"{elsewhere.name} version {elsewhere.version} does not open"):
            unseal(sealed, key, elsewhere)
    if other.reveal() != key.reveal():
        with pytest.raises(SealBroken):
            unseal(sealed, other, place)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (SecretPlace("ab", "c", 1), SecretPlace("a", "bc", 1)),
        (SecretPlace("a", "b1", 1), SecretPlace("a", "b", 11)),
    ],
)
def test_places_that_read_alike_are_kept_apart(one: SecretPlace, other: SecretPlace) -> None:
    key = KeyMaterial(bytes(32))
    with pytest.raises(SealBroken):
        unseal(seal(Secret("x"), key, 1, one, bytes(12)), key, other)


@given(KEYS, KEYS, KEY_PLACES, KEY_PLACES, NONCES, st.data())
def test_a_wrapped_data_key_opens_as_it_is_where_it_is(
    key: KeyMaterial,
    kek: KeyMaterial,
    place: KeyPlace,
    elsewhere: KeyPlace,
    nonce: bytes,
    data: st.DataObject,
) -> None:
    wrapped = wrap_locally(key, kek, "k:1", place, nonce)
    assert unwrap_locally(wrapped, kek, "k:1", place).reveal() == key.reveal()
    at = data.draw(st.integers(0, len(wrapped) - 1))
    broken = wrapped[:at] + bytes([wrapped[at] ^ data.draw(st.integers(1, 255))]) + wrapped[at + 1 :]
    with pytest.raises(SealBroken):
        unwrap_locally(broken, kek, "k:1", place)
    with pytest.raises(SealBroken):
        unwrap_locally(wrapped, kek, "k:2", place)
    if elsewhere != place:
        with pytest.raises(SealBroken):
            unwrap_locally(wrapped, kek, "k:1", elsewhere)


@given(KEYS, KEY_PLACES, KEY_PLACES, st.binary(max_size=80))
def test_what_a_key_service_wraps_says_whose_it_is(
    key: KeyMaterial, place: KeyPlace, elsewhere: KeyPlace, other: bytes
) -> None:
    plain = payload(key, place)
    found = from_payload(plain, place)
    assert found is not None
    assert found.reveal() == key.reveal()
    assert elsewhere == place or from_payload(plain, elsewhere) is None
    assert other == plain or from_payload(other, place) is None
    assert from_payload(None, place) is None


# -- the type ------------------------------------------------------------------------------------------

VALUE = "sk-canary-1234567890"


class Model(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    secret: Secret


@dataclasses.dataclass
class Holder:
    secret: Secret


def test_no_text_of_a_secret_shows_it() -> None:
    secret = Secret(VALUE)
    texts = [
        repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", f"{secret:>40}", "%s" % (secret,),  # noqa: UP031
        repr([secret]), repr(Holder(secret)), repr(Model(secret=secret)), str(dataclasses.asdict(Holder(secret))),
        json.dumps({"a": secret}, default=str), orjson.dumps(secret, default=repr).decode(),
        str(Model(secret=secret).model_dump()), repr(copy.deepcopy(Holder(secret))),
        repr(KeyMaterial(VALUE.encode()[:16] * 2)),
    ]  # fmt: skip
    assert not [text for text in texts if "canary" in text]


@pytest.mark.parametrize("made", [Secret(VALUE), KeyMaterial(VALUE.encode()[:16] * 2)])
def test_nothing_packs_a_secret(made: object) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(made, protocol)
    with pytest.raises(TypeError):
        json.dumps(made)
    with pytest.raises(TypeError):
        orjson.dumps(made)
    with pytest.raises(TypeError):
        vars(made)
    with pytest.raises(ValueError, match="not iterable") as caught:
        jsonable_encoder(made)
    assert "canary" not in str(caught.value)


def test_a_model_with_a_secret_has_no_json() -> None:
    with pytest.raises(Exception, match="Unable to serialize"):
        Model(secret=Secret(VALUE)).model_dump_json()


def test_secrets_compare_and_are_in_no_table() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    with pytest.raises(TypeError):
        hash(Secret("a"))
    assert copy.deepcopy(Secret("a")).reveal() == copy.copy(Secret("a")).reveal() == "a"


@pytest.mark.parametrize("bad", ["", "x" * (SECRET_BYTES_MAX + 1), "ü" * SECRET_BYTES_MAX, "canary\ud800"])
def test_what_is_no_secret_is_refused_and_not_told(bad: str) -> None:
    with pytest.raises(BadInput) as caught:
        Secret(bad)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    # The caller's own frame holds it; none of the vault's does.
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    inner = [frame for frame in frames if "vault/secret.py" in frame.filename]
    assert inner
    assert not [frame for frame in inner if "canary" in str(frame.locals) or "xxx" in str(frame.locals)]
    assert "canary" not in str(error)


def test_the_longest_secret_is_kept() -> None:
    key, place = KeyMaterial(bytes(32)), SecretPlace("a", "n", 1)
    longest = "x" * SECRET_BYTES_MAX
    assert unseal(seal(Secret(longest), key, 1, place, bytes(12)), key, place).reveal() == longest
