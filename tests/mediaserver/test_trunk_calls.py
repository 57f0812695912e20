"""Calls from two trunks, each with its own country and tenants: who is reached, and what everybody else is told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from config.errors import ConfigError
from config.node import NodeConfig
from config.site_keys import SiteKey
from mediaserver.node import Node
from mediaserver.telemetry.schema import CALLS_REFUSED
from tenancy import TenantStatus
from tenancy.routing import Home
from tests.sim.node import RunningNode, running_node
from tests.sim.raw_sip import raw_peer, status_of

BERLIN, CHICAGO, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.4"
TRUNKS = (
    {"id": "spree", "sources": ["127.0.0.2/32"], "notation": {"country": "DE"}},
    {"id": "lake", "sources": ["127.0.0.0/30"], "notation": {"country": "US"}},
)
"""The second's network contains the first's: the smaller one counts."""
SHOP = "https://bakery.example"
KEY = str(SiteKey.from_random(bytes(16)))
OTHERS = (
    {"tenant_id": "dentist", "numbers": ["+13125550123"], "trunks": ["lake", "web"]},
    {"tenant_id": "closed", "numbers": ["+4930888888"], "trunks": ["spree"]},
    {"tenant_id": "moved", "numbers": ["+4930777777"], "trunks": ["spree", "web"]},
    {"tenant_id": "left", "numbers": ["+4930666666"], "trunks": ["spree"]},
)
HOME = Home("sip:cell-2.example.com;transport=tcp", "https://cell-2.example.com")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[RunningNode]:
    bakery = {
        "numbers": ["+4930123456"],
        "sip_addresses": ["sip:front.desk@bakery.example"],
        "site_keys": [{"key": KEY, "origins": [SHOP]}],
    }
    async with running_node(
        tmp_path, node_trunks=TRUNKS, others=(*OTHERS, {"tenant_id": "baker", "trunks": ["spree"], **bakery})
    ) as running:
        registry = running.node.registry
        await registry.set_status("closed", TenantStatus.SUSPENDED)
        await registry.set_status("moved", TenantStatus.MOVED, moved_to=str(HOME))
        await registry.set_status("left", TenantStatus.MOVED, moved_to="elsewhere")
        yield running


async def _answered(running: RunningNode, source: str, uri: str, transport: str = "udp") -> str:
    """The final response to an INVITE for a Request-URI; one that is taken is hung up."""
    async with raw_peer(running.sip_port, uri, source=source, transport=transport) as peer:
        await peer.send("INVITE", peer.sdp)
        response = await peer.final()
        if status_of(response) == 200:
            assert await peer.hang_up() == 200
            await running.node.idle()
    return response


async def _called(running: RunningNode, tenant_id: str) -> list[str]:
    return [each.called for each in reversed(await running.node.registry.calls(tenant_id))]


async def test_each_trunk_reaches_its_tenants_in_its_own_notation(running: RunningNode) -> None:
    assert status_of(await _answered(running, BERLIN, "sip:030123456@node")) == 200
    assert status_of(await _answered(running, BERLIN, "sip:+4930123456@node")) == 200
    assert status_of(await _answered(running, BERLIN, "sip:front.desk@bakery.example")) == 200
    assert status_of(await _answered(running, CHICAGO, "sip:3125550123@node")) == 200
    assert status_of(await _answered(running, CHICAGO, "sip:13125550123;npdi@node;user=phone")) == 200
    assert await _called(running, "baker") == ["+4930123456", "+4930123456", "sip:front.desk@bakery.example"]
    assert await _called(running, "dentist") == ["+13125550123"] * 2
    assert await _called(running, "bakery") == []


async def test_over_tcp_a_trunk_is_its_peers_address_too(running: RunningNode) -> None:
    for source, uri, status in (
        (BERLIN, "sip:030123456@node;transport=tcp", 200),
        (CHICAGO, "sip:030123456@node;transport=tcp", 484),
        (STRANGER, "sip:030123456@node;transport=tcp", 403),
    ):
        assert status_of(await _answered(running, source, uri, "tcp")) == status
    assert await _called(running, "baker") == ["+4930123456"]


@pytest.mark.parametrize(
    ("source", "called", "status", "reason"),
    [
        # National numbers of the other trunk's country mean nothing here, in full they are not for this trunk.
        (BERLIN, "sip:+13125550123@node", 404, "not_on_this_trunk"),
        (BERLIN, "sip:0013125550123@node", 404, "not_on_this_trunk"),
        (CHICAGO, "sip:011493012345@node", 404, "unknown"),
        (CHICAGO, "sip:0114930123456@node", 404, "not_on_this_trunk"),
        (CHICAGO, "sip:front.desk@bakery.example", 404, "not_on_this_trunk"),
        (BERLIN, "sip:front.desk@dentist.example", 404, "unknown"),
        (BERLIN, "sip:030999999@node", 404, "unknown"),
        (BERLIN, "sip:12@node", 484, "unreadable"),
        # The same for every number: known, suspended, nobody's.
        (STRANGER, "sip:+4930123456@node", 403, "no_trunk"),
        (STRANGER, "sip:+4930888888@node", 403, "no_trunk"),
        (STRANGER, "sip:+4930999999@node", 403, "no_trunk"),
        (BERLIN, "sip:030888888@node", 480, "suspended"),
        (CHICAGO, "sip:0114930888888@node", 404, "not_on_this_trunk"),
        (BERLIN, "sip:030777777@node", 302, "moved"),
        (BERLIN, "sip:030666666@node", 410, "gone"),
        # A tenant that names no trunk is reached where the node lists none.
        (BERLIN, "sip:+15550199@node", 404, "not_on_this_trunk"),
    ],
)
async def test_everybody_else_is_told_why_and_nobody_elses_tenant_answers(
    running: RunningNode, source: str, called: str, status: int, reason: str
) -> None:
    response = await _answered(running, source, called)
    assert status_of(response) == status
    contact = re.search(r"^Contact: (.*)\r$", response, re.MULTILINE)
    moved = "<sip:+4930777777@cell-2.example.com;transport=tcp>"
    assert (contact and contact[1]) == (moved if status == 302 else None)
    meters = running.node.telemetry.meters
    assert meters.value(CALLS_REFUSED, reason) == 1
    await running.node.idle()
    for tenant_id in ("bakery", "baker", "dentist", "closed", "moved", "left"):
        assert await _called(running, tenant_id) == []


async def test_a_browser_calls_on_the_web_trunk_or_by_a_site_key(running: RunningNode) -> None:
    url = f"http://127.0.0.1:{running.node.http_port}"
    other = str(SiteKey.from_random(b"x" * 16))
    async with httpx2.AsyncClient(base_url=url) as client:

        async def start(origin: str | None = None, **body: str) -> tuple[int, str | None, str | None]:
            headers = {} if origin is None else {"Origin": origin}
            response = await client.post("/start", json=body, headers=headers)
            names = ("Location", "Access-Control-Allow-Origin")
            location, readable = (response.headers.get(name) for name in names)
            return response.status_code, location, readable

        assert await start(number="+13125550123") == (200, None, None)
        assert await start(number="+4930123456") == (404, None, None)
        assert await start(number="+4930777777") == (307, "https://cell-2.example.com/start", None)
        assert await start(SHOP, site_key=KEY) == (200, None, SHOP)
        assert await start("https://other.example", site_key=KEY) == (403, None, "https://other.example")
        assert await start(site_key=KEY) == (403, None, None)
        assert await start(SHOP, site_key=other) == (404, None, SHOP)
        assert await start(SHOP, site_key=KEY[:-1] + "z") == (400, None, SHOP)
        assert await start(SHOP, number="+13125550123") == (403, None, None)
        await running.node.registry.set_status("baker", TenantStatus.SUSPENDED)
        assert await start(SHOP, site_key=KEY) == (403, None, SHOP)
        meters = running.node.telemetry.meters
        told = ("origin_refused", "malformed_key", "suspended", "unknown", "moved", "not_on_this_trunk")
        assert [meters.value(CALLS_REFUSED, each) for each in told] == [2, 1, 1, 1, 1, 1]


async def test_a_session_is_its_pages_alone(running: RunningNode) -> None:
    url = f"http://127.0.0.1:{running.node.http_port}"
    async with httpx2.AsyncClient(base_url=url) as client:
        body = {"body": {"site_key": KEY}}  # As Pipecat's clients send the application's own fields.
        token = (await client.post("/start", json=body, headers={"Origin": SHOP})).json()["sessionId"]
        path, offer = f"/sessions/{token}/api/offer", {"sdp": "v=0", "type": "offer"}
        for headers in ({}, {"Origin": "https://other.example"}, {"Origin": url}):
            assert (await client.post(path, json=offer, headers=headers)).status_code == 403
        response = await client.post(path, json=offer, headers={"Origin": SHOP})
        assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (422, SHOP)


async def test_a_number_that_two_readings_give_reaches_nobody(tmp_path: Path) -> None:
    """On a trunk that leaves out plus and national prefix, 4930123456 is +49 30 123456 and +1 493 012 3456."""
    notation = {"country": "US", "without_plus": True, "without_national_prefix": True}
    trunk = {"id": "lax", "sources": ["127.0.0.0/8"], "notation": notation}
    other = {"tenant_id": "other", "numbers": ["+14930123456"], "trunks": ["lax"]}
    async with running_node(
        tmp_path, node_trunks=(trunk,), others=(other,), numbers=["+4930123456"], trunks=["lax"]
    ) as running:
        assert status_of(await _answered(running, BERLIN, "sip:4930123456@node")) == 485
        assert status_of(await _answered(running, BERLIN, "sip:+4930123456@node")) == 200


@pytest.mark.parametrize(
    ("notation", "words"),
    [
        ({"country": "XX"}, r"trunks\[0\] \(a\): notation\.country: 'XX' is not"),
        ({"national_prefix": "0"}, r"notation\.country: national numbers need one"),
        ({"extension_digits": 2}, r"notation\.base_number and extension_digits: both or neither"),
    ],
)
def test_a_notation_that_contradicts_itself_is_refused_at_the_start(
    notation: dict[str, object], words: str
) -> None:
    trunk = {"id": "a", "sources": ("192.0.2.0/24",), "notation": notation}
    with pytest.raises(ConfigError, match=words):
        Node(NodeConfig.model_validate({"trunks": (trunk,)}))
