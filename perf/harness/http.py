"""HTTP/1.1 for the simulated providers: as little as hundreds of calls' requests need, at a few microseconds each.

What a general server spends on a request would compete with the generator for its core. Requests have a Content-Length;
responses are whole or chunked. One request at a time per connection, which is what clients of these APIs do.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

HEAD_MAX = 16_384
BODY_MAX = 8 << 20

OK_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    """A response of JSON."""
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def chunk(piece: bytes) -> bytes:
    """A piece of a chunked response (RFC 9112 7.1)."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


class Exchange:
    """One request and the connection to answer on."""

    __slots__ = ("_connection", "body", "method", "path")

    def __init__(self, connection: Connection, method: str, path: str, body: bytes) -> None:
        self._connection = connection
        self.method = method
        self.path = path
        self.body = body

    def write(self, octets: bytes) -> None:
        """Send octets of the response, if there is anybody still."""
        if self._connection.transport is not None:
            self._connection.transport.write(octets)

    def end(self, octets: bytes = b"") -> None:
        """Send the last octets and take the next request."""
        self.write(octets)
        self._connection.answered()

    def reset(self) -> None:
        """Break the connection off as a crashed host would: a reset, not an end."""
        if (transport := self._connection.transport) is not None:
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            transport.abort()

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        return self._connection.transport is None


class Connection(asyncio.Protocol):
    """Reads requests and hands them over one by one."""

    def __init__(self, serve: Callable[[Exchange], None]) -> None:
        self._serve = serve
        self._buffer = bytearray()
        self._busy = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > HEAD_MAX + BODY_MAX and self.transport is not None:
            self.transport.abort()
        self._next()

    def answered(self) -> None:
        """The response is complete."""
        self._busy = False
        self._next()

    def _next(self) -> None:
        if self._busy or self.transport is None:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > HEAD_MAX:
                self.transport.abort()
            return
        head = bytes(self._buffer[:end]).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        length = headers.get("content-length", "0")
        words = first.split(" ")
        if len(words) != 3 or not length.isdigit() or "transfer-encoding" in headers:
            self.transport.write(whole(b"{}", b"400 Bad Request"))
            self.transport.close()
            return
        until = end + 4 + int(length)
        if len(self._buffer) < until:
            return
        body = bytes(self._buffer[end + 4 : until])
        del self._buffer[:until]
        self._busy = True
        self._serve(Exchange(self, words[0], words[1], body))
