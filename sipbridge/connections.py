"""Stream connections of an endpoint: framing, keep-alive, limits.

A slow or silent peer costs one slot, for a while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Protocol, cast

from mediaserver._native import SipMessage, SipParseError, SipStreamParser
from sipbridge.wire import Flow

PONG = b"\r\n"
MAX_WRITE_BUFFER = 256 * 1024


class Receiver(Protocol):
    """Who connections report to."""

    def message_received(self, message: SipMessage, flow: Flow) -> None:
        """Take a whole message."""

    def connection_lost(self, flow: Flow) -> None:
        """Note that the connection is gone."""


class Connection(asyncio.Protocol):
    """One TCP connection."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._parser = SipStreamParser(pool.max_message_bytes)
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reading = False
        self.flow: Flow | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection or, over the limit, close it."""
        # Not checked: the event loops' own classes do not all descend from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer is None or not self._pool.admit():
            self._pool.counters["refused_connections"] += 1
            self._transport.abort()
            return
        self.flow = Flow("tcp", str(peer[0]), int(peer[1]), self._pool.add(self))
        self._wait(self._pool.idle_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Frame messages out of the stream. Lost framing cannot be found again: close."""
        if self.flow is None:
            return
        try:
            messages = self._parser.push(data)
        except SipParseError:
            self._pool.counters["malformed_streams"] += 1
            self.close()
            return
        if self._parser.take_keepalives() >= 2:
            # RFC 5626 4.4.1: a double CRLF asks for a single one.
            self._pool.counters["keepalives"] += 1
            self.send(PONG)
        # A message that has begun must end soon (a half-open or deliberately slow peer).
        waiting = self._parser.pending > 0
        self._wait(self._pool.message_timeout_s if waiting else self._pool.idle_timeout_s, keep=waiting)
        for message in messages:
            self._pool.receiver.message_received(message, self.flow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report it once."""
        del exc
        if self._deadline is not None:
            self._deadline.cancel()
        if self.flow is not None:
            self._pool.remove(self)
            self._pool.receiver.connection_lost(self.flow)

    def send(self, data: bytes) -> None:
        """Write; a peer that does not read loses its connection rather than our memory."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_WRITE_BUFFER:
            self._pool.counters["slow_readers"] += 1
            self._transport.abort()
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close after what is written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _wait(self, timeout_s: float, *, keep: bool = False) -> None:
        """Close when nothing comes in time; ``keep`` leaves a running message deadline as it is."""
        if keep and self._deadline is not None and self._reading:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._reading = keep
        self._deadline = asyncio.get_running_loop().call_later(timeout_s, self._timed_out)

    def _timed_out(self) -> None:
        self._pool.counters["connection_timeouts"] += 1
        self.abort()


class ConnectionPool:
    """The open connections, by id and by peer."""

    def __init__(
        self,
        receiver: Receiver,
        counters: Counter[str],
        *,
        max_connections: int,
        max_message_bytes: int,
        idle_timeout_s: float,
        message_timeout_s: float,
    ) -> None:
        self.receiver = receiver
        self.counters = counters
        self.max_message_bytes = max_message_bytes
        self.idle_timeout_s = idle_timeout_s
        self.message_timeout_s = message_timeout_s
        self._max_connections = max_connections
        self._open: dict[int, Connection] = {}
        self._by_peer: dict[tuple[str, int], Connection] = {}
        self._ids = count(1)

    def __len__(self) -> int:
        return len(self._open)

    def factory(self) -> Callable[[], Connection]:
        """Return what asyncio calls for each connection."""
        return lambda: Connection(self)

    def admit(self) -> bool:
        """Whether another connection fits."""
        return len(self._open) < self._max_connections

    def add(self, connection: Connection) -> int:
        """Take a connection in and give it a number."""
        number = next(self._ids)
        self._open[number] = connection
        return number

    def name(self, connection: Connection, peer: tuple[str, int]) -> None:
        """Remember a connection that we made, for the next message to the same peer."""
        self._by_peer[peer] = connection

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection.flow is not None and connection.flow.connection is not None:
            self._open.pop(connection.flow.connection, None)
        for peer in [peer for peer, known in self._by_peer.items() if known is connection]:
            del self._by_peer[peer]

    def find(self, flow: Flow) -> Connection | None:
        """Find the connection that a flow names, or one that we made to its peer."""
        if flow.connection is not None:
            return self._open.get(flow.connection)
        return self._by_peer.get((flow.host, flow.port))

    def close_all(self) -> None:
        """Close every connection."""
        for connection in list(self._open.values()):
            connection.close()
