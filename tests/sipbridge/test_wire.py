"""Endpoints on the loopback network: UDP and TCP, good peers and bad ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
import uvloop

from mediaserver._native import SipMessage
from sipbridge import (
    CallAnswered,
    CallEnded,
    CallFailed,
    CallRinging,
    DialogId,
    EndCause,
    InviteConfirmed,
    InviteReceived,
    OfferReceived,
    SipAddress,
    SipEndpoint,
    SipEndpointConfig,
    SipEvent,
    SipUri,
    UsageError,
)
from sipbridge.sdp import make_offer, negotiate
from tests.sipbridge.bench import OFFER

HOST = "127.0.0.1"
LIMIT_S = 10.0
EventT = TypeVar("EventT")
OPTIONS = (
    b"OPTIONS sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/%s 127.0.0.1:9;branch=z9hG4bK%d;rport\r\n"
    b"From: <sip:a@b>;tag=1\r\nTo: <sip:x@127.0.0.1>\r\nCall-ID: %d\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class Party:
    """An endpoint whose events queue up, and which answers calls if it is told to."""

    def __init__(self, *, answers: bool = False, host: str = HOST, **settings: object) -> None:
        self.events: asyncio.Queue[SipEvent] = asyncio.Queue(maxsize=1_000)
        self.answers = answers
        self.host = host
        self.endpoint = SipEndpoint(SipEndpointConfig(host=host, port=0, **settings), self.heard)  # type: ignore[arg-type]

    def heard(self, event: SipEvent) -> None:
        self.events.put_nowait(event)
        if self.answers and isinstance(event, InviteReceived | OfferReceived):
            if isinstance(event, InviteReceived):
                self.endpoint.ring(event.dialog)
            offer = event.offer
            description = (
                make_offer(self.host, 6000, ("PCMU",))
                if offer is None
                else negotiate(offer, address=self.host, port=6000).answer
            )
            self.endpoint.answer(event.dialog, str(description))

    async def expect(self, kind: type[EventT]) -> EventT:
        async with asyncio.timeout(LIMIT_S):
            event = await self.events.get()
        assert isinstance(event, kind), event
        return event

    def call(self, other: Party, transport: str) -> DialogId:
        return self.endpoint.invite(
            SipUri("sip", "4930", HOST, other.endpoint.local_port),
            SipAddress("Caller", SipUri("sip", "caller", HOST)),
            str(make_offer(HOST, 4000, ("PCMU", "PCMA"))),
            transport=transport,
        )


@asynccontextmanager
async def party(*, answers: bool = False, host: str = HOST, **settings: object) -> AsyncIterator[Party]:
    one = Party(answers=answers, host=host, **settings)
    await one.endpoint.start()
    try:
        yield one
    finally:
        await one.endpoint.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds: sockets offer no signal for what a test wants to see."""
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("who_hangs_up", ["caller", "callee"])
async def test_a_call(transport: str, who_hangs_up: str) -> None:
    async with party() as caller, party(answers=True) as callee:
        dialog = caller.call(callee, transport)
        received = await callee.expect(InviteReceived)
        assert received.called.user == "4930"
        assert received.transport == transport
        assert received.caller.display == "Caller"
        assert (await caller.expect(CallRinging)).status == 180
        answered = await caller.expect(CallAnswered)
        assert answered.dialog == dialog
        assert answered.answer is not None
        await callee.expect(InviteConfirmed)
        if who_hangs_up == "caller":
            caller.endpoint.hang_up(dialog)
            causes = EndCause.LOCAL_BYE, EndCause.REMOTE_BYE
        else:
            callee.endpoint.hang_up(received.dialog)
            causes = EndCause.REMOTE_BYE, EndCause.LOCAL_BYE
        ended = await caller.expect(CallEnded), await callee.expect(CallEnded)
        assert tuple(event.cause for event in ended) == causes
        await until(lambda: callee.endpoint.stats()["dialogs"] == 0 == caller.endpoint.stats()["dialogs"])


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_refused_call(transport: str) -> None:
    async with party() as caller, party() as callee:
        caller.call(callee, transport)
        received = await callee.expect(InviteReceived)
        callee.endpoint.reject(received.dialog, 503, "all lines are busy", retry_after_s=5)
        failed = await caller.expect(CallFailed)
        assert (failed.status, failed.reason) == (503, "all lines are busy")
        assert (await caller.expect(CallEnded)).cause is EndCause.FAILED
        assert (await callee.expect(CallEnded)).cause is EndCause.REJECTED


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_cancelled_call(transport: str) -> None:
    async with party() as caller, party() as callee:
        dialog = caller.call(callee, transport)
        received = await callee.expect(InviteReceived)
        callee.endpoint.ring(received.dialog)
        await caller.expect(CallRinging)
        caller.endpoint.hang_up(dialog)
        assert (await caller.expect(CallEnded)).cause is EndCause.CANCELLED
        assert (await callee.expect(CallEnded)).cause is EndCause.CANCELLED
        await until(lambda: caller.endpoint.stats()["dialogs"] == 0)


async def test_closing_hangs_up_and_tells() -> None:
    async with party(answers=True) as callee:
        async with party() as caller:
            caller.call(callee, "udp")
            await callee.expect(InviteReceived)
            await caller.expect(CallRinging)
            await caller.expect(CallAnswered)
            await callee.expect(InviteConfirmed)
        assert (await caller.expect(CallEnded)).cause is EndCause.LOCAL_BYE
        assert (await callee.expect(CallEnded)).cause is EndCause.REMOTE_BYE


async def test_nobody_listens_on_tcp() -> None:
    async with party() as gone:
        port = gone.endpoint.local_port
    async with party() as caller:
        caller.endpoint.invite(
            SipUri("sip", "x", HOST, port), SipAddress(None, SipUri("sip", "a", HOST)), OFFER, transport="tcp"
        )
        assert (await caller.expect(CallFailed)).status == 503
        assert (await caller.expect(CallEnded)).cause is EndCause.TRANSPORT_FAILED


async def test_nobody_listens_on_udp() -> None:
    async with party() as gone:
        port = gone.endpoint.local_port
    async with party(t1_ms=5) as caller:
        caller.endpoint.invite(
            SipUri("sip", "x", HOST, port), SipAddress(None, SipUri("sip", "a", HOST)), OFFER
        )
        assert (await caller.expect(CallFailed)).status == 408


async def test_a_name_is_resolved() -> None:
    async with party() as caller, party(answers=True) as callee:
        port = callee.endpoint.local_port
        caller.endpoint.invite(
            SipUri("sip", "x", "localhost", port), SipAddress(None, SipUri("sip", "a", HOST)), OFFER
        )
        await caller.expect(CallRinging)
        await caller.expect(CallAnswered)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_uvloop_does_as_well(transport: str) -> None:
    """The server runs on uvloop, whose transports differ in detail."""
    uvloop.run(test_a_call(transport, "callee"))
    uvloop.run(test_a_cancelled_call(transport))
    if transport == "tcp":
        uvloop.run(test_a_stream_is_cut_anywhere_and_pings_are_answered())
        uvloop.run(test_connections_are_bounded())
        uvloop.run(test_a_call_outlives_its_connection())
        uvloop.run(test_nobody_listens_on_tcp())


async def test_an_endpoint_that_is_not_started_says_so() -> None:
    with pytest.raises(UsageError):
        Party().endpoint.hang_up(DialogId("x"))


async def test_an_application_that_raises_stops_nothing() -> None:
    """Its error goes to the event loop; messages, timers and later events are not lost."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    async with party() as caller, party(answers=True) as callee:
        ring = callee.heard

        def heard(event: SipEvent) -> None:
            ring(event)
            raise LookupError(type(event).__name__)

        callee.endpoint._on_event = heard
        dialog = caller.call(callee, "udp")
        await caller.expect(CallRinging)
        await caller.expect(CallAnswered)
        await callee.expect(InviteReceived)
        await callee.expect(InviteConfirmed)
        caller.endpoint.hang_up(dialog)
        await callee.expect(CallEnded)
    assert [str(error) for error in errors] == ["InviteReceived", "InviteConfirmed", "CallEnded"]


async def test_a_taken_port_is_an_error() -> None:
    async with party() as one:
        config = SipEndpointConfig(host=HOST, port=one.endpoint.local_port)
        with pytest.raises(OSError, match=r".+"):
            await SipEndpoint(config, lambda _: None).start()


# -- TCP peers -------------------------------------------------------------------------------------------


async def read_message(reader: asyncio.StreamReader) -> SipMessage:
    async with asyncio.timeout(LIMIT_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        return SipMessage.parse(head + await reader.readexactly(length))


async def test_a_stream_is_cut_anywhere_and_pings_are_answered() -> None:
    async with party() as callee:
        reader, writer = await asyncio.open_connection(HOST, callee.endpoint.local_port)
        stream = b"\r\n" + OPTIONS % (b"TCP", 1, 1) + OPTIONS % (b"TCP", 2, 2)
        for at in range(0, len(stream), 7):
            writer.write(stream[at : at + 7])
            await writer.drain()
            await asyncio.sleep(0)
        assert [(await read_message(reader)).header("Call-ID") for _ in range(2)] == ["1", "2"]
        writer.write(b"\r\n\r\n")
        async with asyncio.timeout(LIMIT_S):
            assert await reader.readexactly(2) == b"\r\n"
        writer.close()
        await writer.wait_closed()


async def test_lost_framing_closes_the_connection() -> None:
    async with party() as callee:
        reader, writer = await asyncio.open_connection(HOST, callee.endpoint.local_port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(LIMIT_S):
            assert await reader.read() == b""
        writer.close()
        assert callee.endpoint.stats()["malformed_streams"] == 1
        await until(lambda: callee.endpoint.stats()["connections"] == 0)


@pytest.mark.parametrize("sent", [b"", b"OPTIONS sip:x SIP/2.0\r\n"], ids=["silent", "half a message"])
async def test_a_peer_that_says_nothing_more_loses_its_connection(sent: bytes) -> None:
    async with party(idle_timeout_s=0.05, message_timeout_s=0.05) as callee:
        reader, writer = await asyncio.open_connection(HOST, callee.endpoint.local_port)
        writer.write(sent)
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert callee.endpoint.stats()["connection_timeouts"] == 1


async def test_connections_are_bounded() -> None:
    async with party(max_connections=1) as callee:
        port = callee.endpoint.local_port
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(OPTIONS % (b"TCP", 1, 1))
        assert (await read_message(reader)).status == 200
        refused, other = await asyncio.open_connection(HOST, port)
        async with asyncio.timeout(LIMIT_S):
            with contextlib.suppress(ConnectionResetError):
                assert await refused.read() == b""
        assert callee.endpoint.stats()["refused_connections"] == 1
        writer.write(OPTIONS % (b"TCP", 2, 2))
        assert (await read_message(reader)).status == 200
        for one in (writer, other):
            one.close()


async def test_a_call_outlives_its_connection() -> None:
    async with party(answers=True) as callee, party() as caller:
        caller.call(callee, "tcp")
        received = await callee.expect(InviteReceived)
        await caller.expect(CallRinging)
        await caller.expect(CallAnswered)
        await callee.expect(InviteConfirmed)
        caller.endpoint._pool.close_all()
        await until(
            lambda: callee.endpoint.stats()["connections"] == 0 == caller.endpoint.stats()["connections"]
        )
        assert callee.events.empty()
        assert caller.events.empty()
        callee.endpoint.hang_up(received.dialog)
        assert (await callee.expect(CallEnded)).cause is EndCause.LOCAL_BYE
        assert (await caller.expect(CallEnded)).cause is EndCause.REMOTE_BYE


async def test_a_datagram_that_is_too_long_is_dropped() -> None:
    async with party(max_message_bytes=600) as callee:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(HOST, callee.endpoint.local_port)
        )
        transport.sendto(OPTIONS % (b"UDP", 1, 1) + b"x" * 600)
        await until(lambda: callee.endpoint.stats().get("malformed_datagrams") == 1)
        transport.close()
