"""URIs and addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipbridge import SipAddress, SipUri, UriError

USERS = st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
HOSTS = (
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6, network="2001:db8::/32").map(str)
    | st.sampled_from(["example.org", "a-b.c"])
)


@given(st.sampled_from(["sip", "sips"]), USERS, HOSTS, st.none() | st.integers(1, 65_535))
def test_round_trip(scheme: str, user: str | None, host: str, port: int | None) -> None:
    uri = SipUri(scheme, user, host, port, (("transport", "tcp"), ("lr", None)))
    assert SipUri.parse(str(uri)) == uri


@pytest.mark.parametrize(
    "text",
    [
        "tel:+4930123456",
        "tel:7042;phone-context=example.com",
        "sip:[2001:db8::1]:5070;transport=tcp",
        "sip:a.b",
    ],
)
def test_text_round_trip(text: str) -> None:
    assert str(SipUri.parse(text)) == text


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        uri = SipUri.parse(text)
    except UriError:
        return
    assert uri.scheme in ("sip", "sips", "tel")


@pytest.mark.parametrize(
    "text", ["", "sip:", "http://example.org", "urn:service:sos", "sip:a b@c", "<sip:a@b>"]
)
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(UriError):
        SipUri.parse(text)


def test_addresses_quote_their_display_name() -> None:
    uri = SipUri("sip", "al", "example.org")
    assert (
        str(SipAddress('Al "the" \\ one', uri, "t")) == '"Al \\"the\\" \\\\ one" <sip:al@example.org>;tag=t'
    )
    assert str(SipAddress(None, uri)) == "<sip:al@example.org>"
