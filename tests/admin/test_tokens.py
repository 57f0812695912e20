"""API tokens as text: made, read, and damaged in every way that a typo or a cut does."""

from __future__ import annotations

import binascii
import copy
import pickle
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.tokens import (
    ID_BYTES,
    PREFIX,
    SECRET_BYTES,
    TOKEN_CHARACTERS,
    ApiToken,
    TokenFault,
    without_tokens,
)

RANDOM = st.binary(min_size=ID_BYTES + SECRET_BYTES, max_size=ID_BYTES + SECRET_BYTES)
LETTERS = string.ascii_letters + string.digits


@given(RANDOM)
def test_a_token_is_read_back(random: bytes) -> None:
    token = ApiToken.from_random(random)
    text = token.reveal()
    again = ApiToken.parse(text)
    assert isinstance(again, ApiToken)
    assert (again.reveal(), again.public_id) == (text, token.public_id)
    assert len(text) == TOKEN_CHARACTERS
    assert text.isascii()


@given(RANDOM, RANDOM)
def test_other_bytes_are_another_token(one: bytes, other: bytes) -> None:
    a, b = ApiToken.from_random(one), ApiToken.from_random(other)
    assert (a.reveal() == b.reveal()) == (one == other)
    assert (a.public_id == b.public_id) == (one[:ID_BYTES] == other[:ID_BYTES])


def test_the_secret_has_the_bits_that_it_says() -> None:
    assert SECRET_BYTES * 8 >= 160
    highest = ApiToken.from_random(b"\xff" * (ID_BYTES + SECRET_BYTES)).reveal()
    lowest = ApiToken.from_random(bytes(ID_BYTES + SECRET_BYTES)).reveal()
    assert len(highest) == len(lowest) == TOKEN_CHARACTERS
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        ApiToken.from_random(bytes(31))


@given(RANDOM, st.data())
def test_every_change_of_one_character_is_refused(random: bytes, data: st.DataObject) -> None:
    text = ApiToken.from_random(random).reveal()
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.one_of(st.sampled_from(LETTERS), st.characters()).filter(lambda c: c != text[at]))
    assert isinstance(ApiToken.parse(text[:at] + other + text[at + 1 :]), TokenFault)


def test_every_change_of_one_character_of_one_token_is_refused() -> None:
    text = ApiToken.from_random(bytes(range(32))).reveal()
    for at in range(len(text)):
        for other in LETTERS + "_":
            if other != text[at]:
                assert isinstance(ApiToken.parse(text[:at] + other + text[at + 1 :]), TokenFault)


@given(RANDOM, st.data())
def test_swapped_missing_and_added_characters_are_refused(random: bytes, data: st.DataObject) -> None:
    text = ApiToken.from_random(random).reveal()
    at = data.draw(st.integers(0, len(text) - 2))
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    assert swapped == text or isinstance(ApiToken.parse(swapped), TokenFault)
    assert isinstance(ApiToken.parse(text[:at] + text[at + 1 :]), TokenFault)
    assert isinstance(ApiToken.parse(text[:at] + "x" + text[at:]), TokenFault)


@given(st.text(max_size=80))
def test_any_text_is_a_token_or_a_fault(text: str) -> None:
    assert isinstance(ApiToken.parse(text), TokenFault)
    assert isinstance(ApiToken.parse(PREFIX + text), TokenFault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", TokenFault.PREFIX),
        ("Mst_", TokenFault.PREFIX),
        ("mst_", TokenFault.LENGTH),
        ("mst_" + "a" * (TOKEN_CHARACTERS - 4), TokenFault.FORM),
        ("mst_" + "a" * 13 + "_" + "a" * 39, TokenFault.CHECKSUM),
    ],
)
def test_faults_are_named_and_repeat_nothing(text: str, fault: TokenFault) -> None:
    assert ApiToken.parse(text) is fault
    assert "aaa" not in fault


def test_the_checksum_is_what_is_documented() -> None:
    text = ApiToken.from_random(bytes(range(32))).reveal()
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    number = 0
    for character in text[-6:]:
        number = number * 62 + digits.index(character)
    assert number == binascii.crc32(text[:-6].encode())


def test_a_token_shows_itself_to_nobody() -> None:
    token = ApiToken.from_random(bytes(range(32)))
    secret = token.reveal()[len(PREFIX) + 14 :]
    for text in (repr(token), str(token), f"{token}", f"{token!r:>60}", "%s" % token):  # noqa: UP031
        assert secret not in text
        assert token.public_id in text
    for careless in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled"):
            careless(token)


@given(st.text(max_size=30), RANDOM, st.text(max_size=30))
def test_tokens_are_taken_out_of_texts(before: str, random: bytes, after: str) -> None:
    text = ApiToken.from_random(random).reveal()
    assert text[:19] not in without_tokens(before + text + after)
    # Half of one as well.
    assert text[:19] not in without_tokens(before + text[:40])


def test_jwts_are_taken_out_of_texts_and_nothing_else() -> None:
    assert without_tokens("a eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln b") == "a eyJ… b"
    assert without_tokens("3 config.activate mst_ eyJ") == "3 config.activate mst_ eyJ"
