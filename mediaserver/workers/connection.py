"""One end of the socket between the edge and a worker: messages in and out, within bounds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from mediaserver.workers.messages import FrameReader, Message, WireError, encode

MAX_UNSENT_OCTETS = 16 * 1024 * 1024
"""What the peer may leave unread. A worker that reads nothing for so long is stuck; an edge that does is gone."""


class Connection(asyncio.Protocol):
    """Frames over a stream socket. ``on_message`` and ``on_lost`` are called from the loop; the latter once."""

    def __init__(self, on_message: Callable[[int, Message], None], on_lost: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._why: str | None = None
        self._is_lost = False

    @classmethod
    async def open(
        cls,
        sock: socket.socket,
        on_message: Callable[[int, Message], None],
        on_lost: Callable[[str], None],
    ) -> Connection:
        """Take over a connected socket."""
        _, protocol = await asyncio.get_running_loop().create_connection(
            lambda: cls(on_message, on_lost), sock=sock
        )
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; `send` bounds what it holds."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_OCTETS)

    def data_received(self, data: bytes) -> None:
        """Hand over what is complete."""
        try:
            for call, message in self._reader.feed(data):
                self._on_message(call, message)
                if self._transport is None:
                    return
        except WireError as error:
            self.close(f"it sends what is no message: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        self._transport = None
        if not self._is_lost:
            self._is_lost = True
            self._on_lost(self._why or (f"its socket broke: {exc}" if exc else "its socket was closed"))

    def send(self, call: int, message: Message) -> None:
        """Send, or close the connection where the peer no longer reads. After that nothing is sent."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(encode(call, message))
        if transport.get_write_buffer_size() > MAX_UNSENT_OCTETS:
            self.close("it does not read")

    def close(self, why: str) -> None:
        """End the connection at once, without sending what waits; `on_lost` follows with ``why``."""
        if self._transport is not None:
            self._why = self._why or why
            self._transport.abort()
