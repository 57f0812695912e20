"""SIP over IPv6 on the loopback network: brackets in URIs, Via, Contact and Warning (RFC 5118)."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from mediaserver._native import SipMessage
from sipbridge import (
    CallAnswered,
    CallEnded,
    CallFailed,
    CallRinging,
    EndCause,
    InviteConfirmed,
    InviteReceived,
    SipAddress,
    SipEndpoint,
    SipEndpointConfig,
    SipEvent,
    SipUri,
)
from sipbridge.sdp import make_offer
from tests.sim.network import has_ipv6
from tests.sipbridge.test_wire import LIMIT_S, Party, party

HOST = "::1"


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


def call(caller: Party, callee: Party, transport: str) -> None:
    caller.endpoint.invite(
        SipUri.parse(f"sip:4930@[{HOST}]:{callee.endpoint.local_port}"),
        SipAddress("Caller", SipUri("sip", "caller", HOST)),
        str(make_offer(HOST, 4000, ("PCMU", "PCMA"))),
        transport=transport,
    )


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_call(transport: str) -> None:
    async with party(host=HOST) as caller, party(host=HOST, answers=True) as callee:
        call(caller, callee, transport)
        received = await callee.expect(InviteReceived)
        assert (received.source[0], received.transport) == (HOST, transport)
        assert (received.called.host, received.caller.uri.host) == (HOST, HOST)
        await caller.expect(CallRinging)
        answered = await caller.expect(CallAnswered)
        assert answered.answer is not None
        assert str(answered.answer.connection) == "IN IP6 ::1"
        # The ACK went to the Contact of the answer.
        await callee.expect(InviteConfirmed)
        callee.endpoint.hang_up(received.dialog)
        assert (await caller.expect(CallEnded)).cause is EndCause.REMOTE_BYE
        assert (await callee.expect(CallEnded)).cause is EndCause.LOCAL_BYE


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_call_on_the_loop_that_the_server_runs_on(transport: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_call(transport))


async def test_a_port_in_use_is_an_error() -> None:
    async with party(host=HOST) as first:
        second = SipEndpoint(SipEndpointConfig(host=HOST, port=first.endpoint.local_port), lambda _: None)
        with pytest.raises(OSError, match="in use"):
            await second.start()


async def test_what_stands_on_the_wire() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.bind((HOST, 0))
        peer.setblocking(False)
        async with party(host=HOST) as caller:
            caller.endpoint.invite(
                SipUri("sip", "x", HOST, peer.getsockname()[1]),
                SipAddress(None, SipUri("sip", "caller", HOST)),
                str(make_offer(HOST, 4000, ("PCMU",))),
            )
            async with asyncio.timeout(LIMIT_S):
                invite = SipMessage.parse(await loop.sock_recv(peer, 65_535))
            ours = caller.endpoint.local_port
            assert invite.uri == f"sip:x@[::1]:{peer.getsockname()[1]}"
            via = invite.top_via()
            assert via is not None
            assert (via[1].strip("[]"), via[2]) == (HOST, ours)
            assert f"[::1]:{ours}" in (invite.header("Via") or "")
            assert f"<sip:[::1]:{ours}" in (invite.header("Contact") or "")
            assert "c=IN IP6 ::1" in invite.body.decode()


async def test_a_refusal_names_its_agent_in_brackets_and_its_reason() -> None:
    events: list[SipEvent] = []
    loop = asyncio.get_running_loop()
    endpoint = SipEndpoint(SipEndpointConfig(host=HOST, port=0), events.append)
    await endpoint.start()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as peer:
        peer.bind((HOST, 0))
        peer.setblocking(False)
        ours, theirs = endpoint.local_port, peer.getsockname()[1]
        offer = str(make_offer(HOST, 4000, ("PCMU",)))
        request = (
            f"INVITE sip:x@[::1]:{ours} SIP/2.0\r\nVia: SIP/2.0/UDP [::1]:{theirs};branch=z9hG4bKa;rport\r\n"
            f"From: <sip:a@[::1]>;tag=1\r\nTo: <sip:x@[::1]>\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\n"
            f"Contact: <sip:a@[::1]:{theirs}>\r\nMax-Forwards: 70\r\nContent-Type: application/sdp\r\n"
            f"Content-Length: {len(offer)}\r\n\r\n{offer}"
        )
        try:
            await loop.sock_sendto(peer, request.encode(), (HOST, ours))
            async with asyncio.timeout(LIMIT_S):
                assert SipMessage.parse(await loop.sock_recv(peer, 65_535)).status == 100
                (received,) = [event for event in events if isinstance(event, InviteReceived)]
                endpoint.reject(received.dialog, 488, warning=(302, 'no "key" that fits\r\nX: y'))
                refusal = SipMessage.parse(await loop.sock_recv(peer, 65_535))
        finally:
            await endpoint.close()
        assert refusal.status == 488
        warning = refusal.header("Warning") or ""
        assert warning.startswith(f'302 [::1]:{ours} "no \\"key\\" that fits')
        assert refusal.header("X") is None


async def test_nobody_there() -> None:
    async with party(host=HOST, t1_ms=5) as caller, party(host=HOST) as gone:
        port = gone.endpoint.local_port
        await gone.endpoint.close()
        caller.endpoint.invite(
            SipUri("sip", "x", HOST, port),
            SipAddress(None, SipUri("sip", "caller", HOST)),
            str(make_offer(HOST, 4000, ("PCMU",))),
            transport="tcp",
        )
        assert (await caller.expect(CallFailed)).status == 503
