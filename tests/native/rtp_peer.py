"""The other end of the wire: an RTP endpoint on a real socket, and an awaitable reader of the engine's events."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from mediaserver._native import MediaEngine
from mediaserver.media_link import EngineEvent

Samples = npt.NDArray[np.int16]
E = TypeVar("E")

TIMEOUT_S = 10.0
FRAME = 160
PCMU, PCMA = 0, 8
TELEPHONE_EVENT = 101


def now_us() -> int:
    return time.monotonic_ns() // 1000


def _mu_table() -> Samples:
    """G.711 table 2: inverted on the line, segments double from a bias of 132."""
    code = ~np.arange(256) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 132) << ((code >> 4) & 7)) - 132
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _a_table() -> Samples:
    """G.711 table 1: even bits inverted on the line, the first two segments share a step."""
    code = np.arange(256) ^ 0x55
    step, segment = (code & 0x0F) << 4, (code >> 4) & 7
    magnitude = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


TABLES = {PCMU: _mu_table(), PCMA: _a_table()}


def decode(payload_type: int, payload: bytes) -> Samples:
    return TABLES[payload_type][np.frombuffer(payload, dtype=np.uint8)]


def encode(payload_type: int, samples: Samples) -> bytes:
    """The nearest code of each sample."""
    table = TABLES[payload_type].astype(np.int32)
    order = np.argsort(table, kind="stable")
    ordered = table[order]
    places = np.clip(np.searchsorted(ordered, samples), 1, 255)
    lower = np.abs(samples - ordered[places - 1]) <= np.abs(samples - ordered[places])
    return bytes(order[places - lower].astype(np.uint8))


@dataclass(frozen=True, slots=True)
class Packet:
    arrival_us: int
    marker: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes

    @property
    def samples(self) -> Samples:
        return decode(self.payload_type, self.payload)

    @property
    def sounds(self) -> bool:
        return bool(np.any(np.abs(self.samples) > 8))


def parse(datagram: bytes) -> Packet:
    first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", datagram)
    assert first == 0x80, "version 2, no padding, extension or CSRC"
    return Packet(now_us(), bool(second & 0x80), second & 0x7F, sequence, timestamp, ssrc, datagram[12:])


class Peer(asyncio.DatagramProtocol):
    """Sends and receives RTP. Nothing here sleeps: what is sent is clocked by the packets that come in."""

    transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        self.received: list[Packet] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.sequence, self.timestamp, self.ssrc = 65_500, 0xFFFF_0000, 0x5EED
        self.to = ("127.0.0.1", 0)
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:  # noqa: ARG002 - the protocol's signature
        self.received.append(parse(data))
        for count, future in self._waiting:
            if len(self.received) >= count and not future.done():
                future.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._closed.set()

    async def close(self) -> None:
        self.transport.close()
        await self._closed.wait()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.transport.get_extra_info("sockname")[:2]
        return str(host), int(port)

    async def packets(self, more: int) -> Sequence[Packet]:
        """The next packets to come in."""
        start = len(self.received)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((start + more, future))
        await asyncio.wait_for(future, TIMEOUT_S)
        return self.received[start : start + more]

    def send(
        self, payload: bytes, payload_type: int = PCMU, *, marker: bool = False, timestamp: int | None = None
    ) -> None:
        """Send the next packet; with a ``timestamp`` of its own it takes no media time."""
        at = self.timestamp if timestamp is None else timestamp
        header = struct.pack("!BBHII", 0x80, marker << 7 | payload_type, self.sequence, at, self.ssrc)
        self.transport.sendto(header + payload, self.to)
        self.sequence = (self.sequence + 1) & 0xFFFF
        if timestamp is None:
            self.timestamp = (self.timestamp + len(payload)) & 0xFFFF_FFFF

    async def say(self, samples: Samples, payload_type: int = PCMU, *, speed: int = 5) -> list[int]:
        """Send ``speed`` packets for each that comes in; returns when each was sent."""
        codes = encode(payload_type, samples)
        frames = [codes[at : at + FRAME] for at in range(0, len(codes), FRAME)]
        sent_us = []
        for at in range(0, len(frames), speed):
            await self.packets(1)
            for frame in frames[at : at + speed]:
                sent_us.append(now_us())
                self.send(frame, payload_type)
        return sent_us

    def press(self, code: int, *, updates: int = 3, duration: int = 800) -> None:
        """A key press as RFC 4733 sends it: updates, then three end packets, all with one timestamp."""
        for index in range(updates):
            elapsed = duration * (index + 1) // (updates + 1)
            payload = struct.pack("!BBH", code, 10, elapsed)
            self.send(payload, TELEPHONE_EVENT, marker=index == 0, timestamp=self.timestamp)
        for _ in range(3):
            self.send(
                struct.pack("!BBH", code, 0x80 | 10, duration), TELEPHONE_EVENT, timestamp=self.timestamp
            )
        self.timestamp += duration


async def open_peer(host: str = "127.0.0.1") -> Peer:
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_datagram_endpoint(Peer, local_addr=(host, 0))
    return peer


class Events:
    """Reads an engine's events as the server does: one descriptor, one drain for all streams."""

    def __init__(self, engine: MediaEngine) -> None:
        self._engine = engine
        self._pending: deque[EngineEvent] = deque()
        self._came = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(engine.fileno(), self._drain)

    def _drain(self) -> None:
        self._pending.extend(self._engine.drain())
        self._came.set()

    async def next(self, kind: type[E]) -> E:
        """The next event of this kind; earlier ones of other kinds are passed over."""
        return (await self.until(kind))[1]

    async def until(self, kind: type[E]) -> tuple[list[EngineEvent], E]:
        """All events before the next one of this kind, and that one."""
        before: list[EngineEvent] = []
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                while self._pending:
                    event = self._pending.popleft()
                    if isinstance(event, kind):
                        return before, event
                    before.append(event)
                self._came.clear()
                await self._came.wait()

    def close(self) -> None:
        self._loop.remove_reader(self._engine.fileno())
