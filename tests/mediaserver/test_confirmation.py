"""What a caller without a SIP stack may bring about: no media before the ACK, and no plain media after encrypted ones."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim.node import NUMBER, RunningNode, running_node

HOST = "127.0.0.1"
PLAIN_BYTES = 12 + 160
"""RTP header and 20 ms of G.711."""
TAG_BYTES = 10
REPEATED_ANSWERS = 3
KEY = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0"
SECURE = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n"


def _bound() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((HOST, 0))
    bound.setblocking(False)
    return bound


def _port(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


@dataclass
class RawCaller:
    """One dialog, written by hand: signalling on one socket, media and reports that come to it on two others."""

    running: RunningNode
    name: str
    more: str = ""
    """Further lines of its descriptions."""
    sip: socket.socket = field(default_factory=_bound)
    rtp: socket.socket = field(default_factory=_bound)
    rtcp: socket.socket = field(default_factory=_bound)
    to_tag: str = ""
    cseq: int = 0

    def close(self) -> None:
        for each in (self.sip, self.rtp, self.rtcp):
            each.close()

    def description(self, more: str | None = None) -> str:
        """One stream of G.711; reports go to a port of their own unless it says something else."""
        return (
            f"v=0\r\no=- 1 1 IN IP4 {HOST}\r\ns=-\r\nc=IN IP4 {HOST}\r\nt=0 0\r\n"
            f"m=audio {_port(self.rtp)} RTP/AVP 0\r\na=rtcp:{_port(self.rtcp)}\r\n{self.more if more is None else more}"
        )

    async def send(self, method: str, sdp: str = "") -> None:
        self.cseq += method != "ACK"
        uri = f"sip:{NUMBER}@{HOST}:{self.running.sip_port}"
        kind = "Content-Type: application/sdp\r\n" if sdp else ""
        text = (
            f"{method} {uri} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {HOST}:{_port(self.sip)};branch=z9hG4bK{self.name}{method}{self.cseq}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self.name}@{HOST}>;tag=1\r\nTo: <sip:{NUMBER}@{HOST}>{self.to_tag}\r\n"
            f"Call-ID: {self.name}\r\nCSeq: {self.cseq} {method}\r\nContact: <sip:{self.name}@{HOST}:{_port(self.sip)}>\r\n"
            f"{kind}Content-Length: {len(sdp)}\r\n\r\n{sdp}"
        )
        target = (HOST, self.running.sip_port)
        await asyncio.get_running_loop().sock_sendto(self.sip, text.encode(), target)

    async def response(self, status: int) -> str:
        """The next response with this status to the last request."""
        async with asyncio.timeout(10):
            while True:
                text = (await asyncio.get_running_loop().sock_recv(self.sip, 4_096)).decode()
                if text.startswith(f"SIP/2.0 {status} ") and f"CSeq: {self.cseq} " in text:
                    break
        found = re.search(r"^To:.*(;tag=\S+)", text, re.MULTILINE)
        self.to_tag = self.to_tag or (found[1] if found else "")
        return text

    async def packets(self, count: int) -> list[bytes]:
        """The next media packets."""
        async with asyncio.timeout(10):
            return [await asyncio.get_running_loop().sock_recv(self.rtp, 2_048) for _ in range(count)]

    def waiting(self) -> list[bytes]:
        """What has come to the media sockets and was not read."""
        return [datagram for each in (self.rtp, self.rtcp) for datagram in _unread(each)]


def _unread(bound: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield bound.recv(2_048)
        except BlockingIOError:
            return


@contextmanager
def _calling(running: RunningNode, name: str, more: str = "") -> Iterator[RawCaller]:
    caller = RawCaller(running, name, more)
    try:
        yield caller
    finally:
        caller.close()


async def _hang_up(caller: RawCaller) -> None:
    await caller.send("BYE")
    await caller.response(200)


async def test_nothing_is_sent_to_the_address_of_an_offer_before_the_ack(tmp_path: Path) -> None:
    async def call(running: RunningNode, name: str, more: str) -> None:
        with _calling(running, name, more) as caller:
            await caller.send("INVITE", caller.description())
            # The repeated answers pass the time: 3.5 s, in which 175 packets of media and a report would go out.
            for _ in range(1 + REPEATED_ANSWERS):
                await caller.response(200)
            assert caller.waiting() == []
            await caller.send("ACK")
            await caller.packets(50)
            await _hang_up(caller)
            # With the call ends what it told of itself: the reports were not refused, they waited.
            async with asyncio.timeout(10):
                reports = caller.rtp if "mux" in more else caller.rtcp
                while (await asyncio.get_running_loop().sock_recv(reports, 2_048))[1] not in (200, 201):
                    pass

    async with running_node(tmp_path) as running:
        await asyncio.gather(
            call(running, "plain", ""),
            call(running, "multiplexed", "a=rtcp-mux\r\n"),
            call(running, "metrics", "a=rtcp-xr:voip-metrics\r\n"),
            call(running, "encrypted", SECURE),
        )


async def test_an_offer_before_the_ack_waits_for_it_and_brings_no_media(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        with _calling(running, "hasty") as caller:
            await caller.send("INVITE", caller.description())
            await caller.response(200)
            await caller.send("INVITE", caller.description())
            await caller.response(491)
            assert caller.waiting() == []
            caller.cseq -= 1
            await caller.response(200)
            assert caller.waiting() == []
            await caller.send("ACK")
            await caller.packets(10)
            caller.cseq += 1
            await _hang_up(caller)


async def test_a_hold_from_the_first_offer_on_stays_one_after_the_ack(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        with _calling(running, "held", "a=sendonly\r\n") as caller:
            await caller.send("INVITE", caller.description())
            await caller.response(200)
            await caller.send("ACK")
            await caller.send("INVITE", caller.description())
            assert "a=recvonly" in await caller.response(200)
            await caller.send("ACK")
            assert list(_unread(caller.rtp)) == []
            await caller.send("INVITE", caller.description(""))
            assert "a=sendrecv" in await caller.response(200)
            await caller.send("ACK")
            # What was queued has waited: the greeting begins.
            await caller.packets(10)
            await _hang_up(caller)


async def test_an_encrypted_call_does_not_become_plain(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        with _calling(running, "downgrade", SECURE) as caller:
            await caller.send("INVITE", caller.description())
            assert "a=crypto:1 " in await caller.response(200)
            await caller.send("ACK")
            await caller.packets(5)

            await caller.send("INVITE", caller.description(""))
            refusal = await caller.response(488)
            assert re.search(
                r'^Warning: 302 \S+ "the session is encrypted and stays so"', refusal, re.MULTILINE
            )
            await caller.send("ACK")
            caller.waiting()
            assert {len(packet) for packet in await caller.packets(25)} == {PLAIN_BYTES + TAG_BYTES}

            await caller.send("INVITE")
            assert "a=crypto:1 " in await caller.response(200)
            await caller.send("ACK", caller.description(""))
            # The next request is answered after the ACK was taken; it changes nothing itself.
            await caller.send("OPTIONS")
            await caller.response(200)
            caller.waiting()
            assert {len(packet) for packet in await caller.packets(25)} == {PLAIN_BYTES + TAG_BYTES}
            await _hang_up(caller)
