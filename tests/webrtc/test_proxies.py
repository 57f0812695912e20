"""Whose request it is, behind proxies and behind those who claim to be."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.webrtc.proxies import source_behind

TRUSTED = (ip_network("127.0.0.0/8"), ip_network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "source"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),  # nobody's proxy
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # what the client wrote itself
        ("127.0.0.1", ["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9, 2001:db8::7"], "203.0.113.9"),  # two proxies
        ("127.0.0.1", ["203.0.113.9, 127.0.0.2:4000"], "203.0.113.9"),
        ("2001:db8::1", ["[2001:db9::5]:443"], "2001:db9::5"),
        ("::ffff:127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", ["203.0.113.9, unknown"], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("unknown", ["203.0.113.9"], "unknown"),
    ],
)
def test_the_source_is_what_a_trusted_proxy_saw(peer: str, forwarded: list[str], source: str) -> None:
    assert source_behind(peer, forwarded, TRUSTED) == source


@given(st.ip_addresses().map(str), st.lists(st.text(max_size=40), max_size=4))
def test_without_trusted_proxies_nothing_that_a_client_writes_counts(peer: str, forwarded: list[str]) -> None:
    assert source_behind(peer, forwarded, ()) == source_behind(peer, [], ())


@given(st.lists(st.text(alphabet="0123456789.:,[] x", max_size=60), max_size=4))
def test_any_header_gives_an_address(forwarded: list[str]) -> None:
    assert source_behind("127.0.0.1", forwarded, TRUSTED)
