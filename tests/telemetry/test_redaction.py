"""Values that were registered are in no text, however many there are and however alike they begin."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from admin.tokens import ApiToken
from mediaserver.telemetry.redaction import HIDDEN, Redactor

secrets = st.lists(st.text(alphabet="ab", min_size=8, max_size=14), min_size=1, max_size=12)


@given(secrets, st.data())
def test_no_registered_value_is_left(values: list[str], data: st.DataObject) -> None:
    redactor = Redactor()
    for value in values:
        redactor.register(value)
    pieces = st.lists(st.sampled_from(values) | st.text(alphabet="ab.", max_size=5), max_size=8)
    text = "".join(data.draw(pieces))
    hidden = redactor(text)
    assert not any(value in hidden for value in values)
    if not any(value in text for value in values):
        assert hidden == text


def test_one_that_begins_with_another_leaves_no_rest() -> None:
    redactor = Redactor()
    for value in ("key-1234", "key-1234-and-more", "key-1234-and-more"):
        redactor.register(value)
    assert redactor("x key-1234-and-more key-1234 y") == f"x {HIDDEN} {HIDDEN} y"


def test_a_word_is_no_secret() -> None:
    redactor = Redactor()
    redactor.register("short")
    redactor.register(None)
    assert redactor("short") == "short"


@given(st.binary(min_size=32, max_size=32))
def test_an_api_token_is_hidden_by_its_form(random: bytes) -> None:
    token = ApiToken.from_random(random).reveal()
    assert Redactor()(f"x={token}, y") == f"x={HIDDEN}, y"
    assert token[18:-6] not in Redactor()(f"tokens: {token[:-8]}") or token[18:-6] in token[:18]
