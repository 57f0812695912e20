"""A SIP peer written by hand, from any address of the loopback, over UDP or TCP."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

PATIENCE_S = 10
MAX_BYTES = 65_535


@dataclass
class RawPeer:
    """One dialog."""

    source: str
    target: tuple[str, int]
    uri: str
    transport: str
    call_id: str
    rtp: socket.socket
    line: socket.socket
    tag: str = ""
    cseq: int = 0
    _unread: bytearray = field(default_factory=bytearray)

    @property
    def sdp(self) -> str:
        """One stream of G.711."""
        port = self.rtp.getsockname()[1]
        where = f"IN IP4 {self.source}"
        return f"v=0\r\no=- 1 1 {where}\r\ns=-\r\nc={where}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"

    async def send(self, method: str, body: str = "", uri: str | None = None) -> None:
        """Send a request of the dialog; ``uri``: with another Request-URI."""
        self.cseq += method != "ACK"
        port = self.line.getsockname()[1]
        kind = "Content-Type: application/sdp\r\n" if body else ""
        text = (
            f"{method} {uri or self.uri} SIP/2.0\r\n"
            f"Via: SIP/2.0/{self.transport.upper()} {self.source}:{port};branch=z9hG4bK{self.call_id}{method}{self.cseq}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:peer@{self.source}>;tag=1\r\nTo: <{self.uri}>{self.tag}\r\n"
            f"Call-ID: {self.call_id}\r\nCSeq: {self.cseq} {method}\r\n"
            f"Contact: <sip:peer@{self.source}:{port};transport={self.transport}>\r\n"
            f"{kind}Content-Length: {len(body)}\r\n\r\n{body}"
        )
        loop = asyncio.get_running_loop()
        if self.transport == "tcp":
            await loop.sock_sendall(self.line, text.encode())
        else:
            await loop.sock_sendto(self.line, text.encode(), self.target)

    async def final(self) -> str:
        """The final response to the last request; one to an INVITE is acknowledged."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                text = await self._message()
                mine = f"CSeq: {self.cseq} " in text
                if mine and text.startswith("SIP/2.0 ") and not text.startswith("SIP/2.0 1"):
                    break
        found = re.search(r"^To:.*(;tag=\S+)", text, re.MULTILINE)
        self.tag = self.tag or (found[1] if found else "")
        if f"CSeq: {self.cseq} INVITE" in text:
            await self.send("ACK")
        return text

    async def invite(self, uri: str | None = None) -> int:
        """The status that an invitation, or a further one in the dialog, is answered with."""
        await self.send("INVITE", self.sdp, uri)
        return status_of(await self.final())

    async def hang_up(self) -> int:
        """End the call."""
        await self.send("BYE")
        return status_of(await self.final())

    async def _message(self) -> str:
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            return (await loop.sock_recv(self.line, MAX_BYTES)).decode()
        while True:
            head, end, rest = bytes(self._unread).partition(b"\r\n\r\n")
            length = re.search(rb"^Content-Length: ([0-9]+)", head, re.MULTILINE)
            if end and len(rest) >= (size := int(length[1]) if length else 0):
                del self._unread[: len(head) + len(end) + size]
                return (head + end + rest[:size]).decode()
            received = await loop.sock_recv(self.line, MAX_BYTES)
            if not received:
                raise ConnectionResetError("the server has closed the connection")
            self._unread += received


def status_of(response: str) -> int:
    """The status of a response."""
    return int(response.split(" ", 2)[1])


@asynccontextmanager
async def raw_peer(
    port: int, uri: str, *, source: str = "127.0.0.1", transport: str = "udp"
) -> AsyncIterator[RawPeer]:
    """A peer at ``source`` for one dialog with the server on a port of 127.0.0.1."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with (
        socket.socket(socket.AF_INET, kind) as line,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
    ):
        for each in (line, rtp):
            each.bind((source, 0))
            each.setblocking(False)
        target = ("127.0.0.1", port)
        if transport == "tcp":
            await asyncio.get_running_loop().sock_connect(line, target)
        call_id = f"{transport}-{source}-{line.getsockname()[1]}"
        yield RawPeer(source, target, uri, transport, call_id, rtp, line)
