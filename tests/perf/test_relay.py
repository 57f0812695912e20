"""The relay on real sockets: both ways, by the addresses that it learns or is told, on the loopback interface alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from perf.impairment import Bernoulli, Constant, Impairment
from perf.impairment.relay import Address, relay

TIMEOUT_S = 10.0


class End(asyncio.DatagramProtocol):
    """A socket that keeps what comes."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.heard.put_nowait((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self.closed.set()

    @property
    def address(self) -> Address:
        host, port = self.transport.get_extra_info("sockname")[:2]
        return str(host), int(port)

    async def next(self) -> tuple[bytes, Address]:
        return await asyncio.wait_for(self.heard.get(), TIMEOUT_S)


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End]]:
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_datagram_endpoint(End, local_addr=("127.0.0.1", 0)))[1] for _ in range(2)]
    yield opened[0], opened[1]
    for end in opened:
        end.transport.close()
        await end.closed.wait()


async def test_packets_pass_both_ways() -> None:
    async with ends() as (caller, engine), relay(Impairment(), Impairment(), 1) as network:
        network.connect(engine=engine.address)
        caller.transport.sendto(b"there", network.front)
        assert await engine.next() == (b"there", network.back)
        # The caller is known by now.
        engine.transport.sendto(b"back", network.back)
        assert await caller.next() == (b"back", network.front)
    assert network.forwards.stats.delivered == network.backwards.stats.delivered == 1


async def test_the_engine_may_speak_first() -> None:
    async with ends() as (caller, engine), relay(Impairment(), Impairment(), 1) as network:
        network.connect(engine=engine.address, caller=caller.address)
        engine.transport.sendto(b"first", network.back)
        assert await caller.next() == (b"first", network.front)


async def test_late_packets_come_without_new_ones_to_push_them() -> None:
    slow = Impairment(delay=Constant(30))
    async with ends() as (caller, engine), relay(slow, Impairment(loss=Bernoulli(1)), 1) as network:
        network.connect(engine=engine.address)
        for index in range(20):
            caller.transport.sendto(bytes([index]), network.front)
        assert [(await engine.next())[0][0] for _ in range(20)] == list(range(20))
        engine.transport.sendto(b"nothing comes back", network.back)
        caller.transport.sendto(b"end", network.front)
        assert (await engine.next())[0] == b"end"
    assert network.backwards.stats.lost == 1
    assert caller.heard.empty()


async def test_only_the_loopback_interface() -> None:
    with pytest.raises(ValueError, match="loopback"):
        async with relay(Impairment(), Impairment(), 1, host="0.0.0.0"):
            pass
