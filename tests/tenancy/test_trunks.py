"""From where a call came to its trunk, and from a configuration to what the store keeps."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from config.errors import ConfigError, InvalidConfigError
from config.loader import parse_node_config, parse_tenant_config
from config.node import NodeConfig
from config.site_keys import SiteKey
from config.tenant import SipAddress
from tenancy import CalledUri, NumberTaken, Registry, Trunks
from tenancy.called import Refusal, Unreadable, sip_address
from tenancy.numbers import Candidates
from tenancy.routing import Home
from tenancy.trunks import IMPLIED, WEB
from tests.tenancy.conftest import tenant

KEY = str(SiteKey.from_random(b"k" * 16))


def trunks(*listed: tuple[str, list[str], list[str]]) -> Trunks:
    described = [
        {"id": name, "sources": tuple(sources), "transports": tuple(transports)}
        for name, sources, transports in listed
    ]
    return Trunks.of(NodeConfig.model_validate({"trunks": tuple(described)}))


BOTH = ["udp", "tcp"]


def test_without_a_list_there_is_one_trunk_for_everybody() -> None:
    none = Trunks.of(NodeConfig())
    assert none.from_source("192.0.2.1", "udp") is none.from_source("2001:db8::1", "tcp") is IMPLIED
    assert none.web is IMPLIED
    assert none.ids == {"any"}


def test_the_smallest_network_that_has_the_source_counts() -> None:
    listed = trunks(
        ("wide", ["0.0.0.0/0"], BOTH),
        ("narrow", ["192.0.2.0/24", "2001:db8::/32"], BOTH),
        ("one", ["192.0.2.7"], ["udp"]),
    )
    found = {
        (source, transport): trunk and trunk.trunk_id
        for source in (
            "192.0.2.7",
            "192.0.2.8",
            "198.51.100.1",
            "2001:db8::1",
            "2001:db9::1",
            "::ffff:192.0.2.7",
        )
        for transport in BOTH
        for trunk in (listed.from_source(source, transport),)
    }
    assert [found[source, "udp"] for source in ("192.0.2.7", "::ffff:192.0.2.7")] == ["one", "one"]
    assert found["192.0.2.7", "tcp"] == found["192.0.2.8", "udp"] == found["2001:db8::1", "udp"] == "narrow"
    assert found["198.51.100.1", "udp"] == "wide"
    assert found["2001:db9::1", "udp"] is None
    assert listed.web is WEB
    assert listed.ids == {"wide", "narrow", "one", "web"}


NETWORKS = st.builds(
    lambda value, length: ipaddress.ip_network((value, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(st.lists(NETWORKS, unique=True, min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_it_is_the_smallest_of_any_networks(networks: list[ipaddress.IPv4Network], value: int) -> None:
    listed = trunks(*((f"t{n}", [str(network)], BOTH) for n, network in enumerate(networks)))
    address = ipaddress.ip_address(value)
    containing = [(network.prefixlen, n) for n, network in enumerate(networks) if address in network]
    found = listed.from_source(str(address), "udp")
    assert (found and found.trunk_id) == (f"t{max(containing)[1]}" if containing else None)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("[{id: a, sources: [192.0.2.1]}, {id: b, sources: [192.0.2.1/32]}]", r"192\.0\.2\.1/32 over udp is a source of 'a' and 'b'"),
        ("[{id: a, sources: [192.0.2.1, 192.0.2.1]}]", "a source of 'a', twice"),
        ("[{id: a, sources: [192.0.2.1]}, {id: a, sources: [192.0.2.2]}]", "the id 'a' stands there twice"),
        ("[{id: any, sources: [192.0.2.1]}]", "'any' is taken"),
        ("[{id: web, sources: [192.0.2.1]}]", "'web' is taken"),
        ("[{id: a, sources: []}]", r"trunks\[0\]\.sources"),
        ("[{id: a, sources: [192.0.2.1/24]}]", "has host bits set"),
        ("[{id: a, sources: [carrier.example]}]", "not an IPv4 or IPv6 network"),
        ("[{id: a, sources: [192.0.2.1], transports: [tls]}]", "transports"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_when_it_is_read(listed: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_node_config(f"trunks: {listed}".encode(), "node.yaml", {})


def test_the_same_source_may_be_two_trunks_over_two_transports() -> None:
    listed = trunks(("a", ["192.0.2.1"], ["udp"]), ("b", ["192.0.2.1"], ["tcp"]))
    assert [getattr(listed.from_source("192.0.2.1", each), "trunk_id", None) for each in BOTH] == ["a", "b"]


def test_a_country_brings_its_plan_and_the_trunk_says_what_differs() -> None:
    listed = parse_node_config(
        b"""
trunks:
  - id: a
    sources: [192.0.2.1]
    notation: {country: DE, technical_prefixes: ["77"], without_plus: true}
""",
        "node.yaml",
        {},
    )
    notation = Trunks.of(listed).listed[0].notation
    assert (notation.country, notation.national_prefix, notation.international_prefixes) == (
        "DE",
        "0",
        ("00",),
    )
    assert (notation.technical_prefixes, notation.without_plus) == (("77",), True)


# -- what is called ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "reading"),
    [
        ("sip:+15550100@node", Candidates(("+15550100",))),
        ("tel:+1-555-0100", Candidates(("+15550100",))),
        ("sip:Front.Desk@Shop.Example:5060;transport=tcp", Candidates(("sip:Front.Desk@shop.example",), Refusal.NAME)),
        ("sips:front.desk@shop.example", Candidates(("sip:front.desk@shop.example",), Refusal.NAME)),
    ],
)  # fmt: skip
def test_a_request_uri_is_a_number_or_an_address(uri: str, reading: Candidates) -> None:
    assert CalledUri(IMPLIED, uri).reading(IMPLIED) == reading


@pytest.mark.parametrize("uri", ["sip:node", "http://shop.example", "sip:a%zz@node", "sip:@node", "x" * 600])
def test_what_is_neither_says_why(uri: str) -> None:
    assert isinstance(CalledUri(IMPLIED, uri).reading(IMPLIED), Unreadable)


SIP_ADDRESS = TypeAdapter(SipAddress)


@given(st.from_regex(r"sip:[A-Za-z0-9._~!*'&=+$,/-]{0,20}[A-Za-z][A-Za-z0-9._-]{0,9}@[a-z0-9][a-z0-9.-]{0,20}[a-z0-9]", fullmatch=True))  # fmt: skip
def test_an_address_in_a_configuration_is_its_own_key_and_no_number(address: str) -> None:
    assert SIP_ADDRESS.validate_python(address) == sip_address(address) == address
    assert CalledUri(IMPLIED, address).reading(IMPLIED) == Candidates((address,), Refusal.NAME)


@pytest.mark.parametrize(
    "text",
    ["sip:100@shop.example", "sip:desk@Shop.example", "sips:desk@shop.example", "sip:desk@shop.example:5060",
     "sip:desk@shop.example;x=y", "desk@shop.example", "sip:d%65sk@shop.example", "sip:shop.example", "sip:a b@shop.example"],
)  # fmt: skip
def test_an_address_has_one_spelling_in_configurations(text: str) -> None:
    with pytest.raises(ValidationError):
        SIP_ADDRESS.validate_python(text)


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (f"site_keys: [{{key: {KEY[:-1]}a, origins: [https://a.example]}}]", "the checksum does not fit"),
        (f"site_keys: [{{key: {KEY}, origins: []}}]", "origins"),
        (f"site_keys: [{{key: {KEY}, origins: [a.example]}}]", "is not an origin"),
        (f"site_keys: [{{key: {KEY}, origins: [https://a.example]}}, {{key: {KEY}, origins: [https://b.example]}}]", "each key may stand there once"),
        ("trunks: [a, a]", "a stands there twice"),
        ("trunks: [A]", r"trunks\[0\]"),
        ("sip_addresses: ['sip:100@shop.example']", r"sip_addresses\[0\]"),
    ],
)  # fmt: skip
def test_a_wrong_address_is_named_with_its_line(added: str, words: str) -> None:
    text = f"""
tenant_id: a
business_name: A
business_kind: shop
numbers: ["+15550100"]
time_zone: Europe/Berlin
greeting: Hello.
address: 1 Main Street
hours: {{}}
human: {{name: Ada}}
{added}
"""
    with pytest.raises(InvalidConfigError, match=words) as caught:
        parse_tenant_config(text.encode(), "a.yaml")
    assert str(caught.value).startswith("a.yaml:11:")


async def test_addresses_and_keys_are_one_tenants_too(registry: Registry) -> None:
    more = {
        "sip_addresses": ("sip:desk@a.example",),
        "site_keys": ({"key": KEY, "origins": ("https://a.example",)},),
    }
    first = type(tenant()).model_validate({**tenant("a").model_dump(), **more})
    await registry.import_tenant(first, author="t", reason="t")
    for name, value in more.items():
        other = type(first).model_validate({**tenant("b", "+15550101").model_dump(), name: value})
        with pytest.raises(NumberTaken, match="belongs to a; b cannot have it"):
            await registry.import_tenant(other, author="t", reason="t")
    uri = CalledUri(IMPLIED, "sip:desk@a.example")
    assert (await registry.resolve(uri)).tenant_id == "a"


# -- where a tenant has moved to -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "key", "contact"),
    [
        ("sip:cell.example", "+4930123456", "sip:+4930123456@cell.example"),
        ("sips:[2001:db8::1]:5071;transport=tcp", "+4930123456", "sips:+4930123456@[2001:db8::1]:5071;transport=tcp"),
        ("sip:cell.example:5070;transport=tcp", "sip:desk@a.example", "sip:desk@a.example:5070;maddr=cell.example;transport=tcp"),
        ("sip:[2001:db8::1]", "sip:desk@a.example", "sip:desk@a.example;maddr=[2001:db8::1]"),
    ],
)  # fmt: skip
def test_a_contact_goes_there_with_what_was_called(root: str, key: str, contact: str) -> None:
    home = Home(root, "https://cell.example")
    assert home.contact(key) == contact
    assert Home.read(str(home)) == home


@pytest.mark.parametrize("text", ["", "node2", "node2 https://cell.example", "sip:cell.example", "a b c"])
def test_what_names_no_root_is_no_home(text: str) -> None:
    assert Home.read(text) is None
