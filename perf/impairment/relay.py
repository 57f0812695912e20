"""The bad network between two UDP endpoints on the loopback interface: ``python -m perf.impairment.relay --help``.

The caller sends to the relay's front, the engine to its back; each side learns the other by the relay alone, as across
a NAT. One socket each way, in one asyncio loop; the links between them are sans-IO.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import cast

from perf.impairment.link import Link
from perf.impairment.models import Bernoulli, Constant, Impairment, read_trace

Address = tuple[str, int]
SECONDS_MAX = 3600.0
BACKWARDS = 0x5EED
"""The other direction draws from another seed."""


def now_us() -> int:
    """The relay's clock."""
    return time.monotonic_ns() // 1000


class _Way(asyncio.DatagramProtocol):
    """What comes in at one socket goes through a link and out at the other."""

    transport: asyncio.DatagramTransport

    def __init__(self, link: Link) -> None:
        self.link = link
        self.out: _Way | None = None
        self.source: Address | None = None
        """Who sent last: where the other way's packets go."""
        self.unaddressed = 0
        """Packets that came out before anybody was known to want them."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.source = addr
        self.link.push(now_us(), data)
        self.deliver()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._closed.set()

    def deliver(self) -> None:
        """Let out what is due, and come back for the next."""
        for datagram in self.link.pop(now_us()):
            if self.out is None or self.out.source is None:
                self.unaddressed += 1
            else:
                self.out.transport.sendto(datagram, self.out.source)
        if self._timer is not None:
            self._timer.cancel()
        due_us = self.link.due_us
        if due_us is None:
            self._timer = None
        else:
            self._timer = self._loop.call_later(max(0, due_us - now_us()) / 1e6, self.deliver)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.transport.close()
        await self._closed.wait()


class Relay:
    """Two sockets and the links between them; made by `relay`."""

    def __init__(self, forwards: _Way, backwards: _Way) -> None:
        self._forwards, self._backwards = forwards, backwards

    @property
    def front(self) -> Address:
        """Where the caller sends."""
        return _bound(self._forwards)

    @property
    def back(self) -> Address:
        """Where the engine hears the caller from, and answers."""
        return _bound(self._backwards)

    @property
    def forwards(self) -> Link:
        """From the caller to the engine."""
        return self._forwards.link

    @property
    def backwards(self) -> Link:
        """From the engine to the caller."""
        return self._backwards.link

    def connect(self, *, engine: Address, caller: Address | None = None) -> None:
        """Where the engine is; and the caller, if the engine may speak before the caller has sent anything."""
        self._backwards.source = engine
        self._forwards.source = caller


def _bound(way: _Way) -> Address:
    host, port = way.transport.get_extra_info("sockname")[:2]
    return str(host), int(port)


@asynccontextmanager
async def relay(
    forwards: Impairment, backwards: Impairment, seed: int, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Relay]:
    """A relay while inside, in the running loop; `host` must be a loopback address."""
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"{host} is not on the loopback interface")
    loop = asyncio.get_running_loop()
    _, front = await loop.create_datagram_endpoint(
        lambda: _Way(Link(forwards, seed)), local_addr=(host, port)
    )
    _, back = await loop.create_datagram_endpoint(
        lambda: _Way(Link(backwards, seed ^ BACKWARDS)), local_addr=(host, 0)
    )
    front.out, back.out = back, front
    try:
        yield Relay(front, back)
    finally:
        await front.close()
        await back.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.impairment.relay", description=__doc__)
    parser.add_argument("--to", required=True, help="HOST:PORT of the engine")
    parser.add_argument("--host", default="127.0.0.1", help="the loopback address of the relay")
    parser.add_argument("--port", type=int, default=0, help="the port that the caller sends to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help=f"how long, at most {SECONDS_MAX:g}")
    parser.add_argument(
        "--trace", type=Path, help="a file of tests/traces_network, for the way to the engine"
    )
    parser.add_argument("--delay-ms", type=float, default=0.0, help="both ways; not beside a trace")
    for share in ("loss", "reorder", "duplicate", "corrupt"):
        parser.add_argument(f"--{share}", type=float, default=0.0, help="share of packets, both ways")
    parser.add_argument("--rate-bps", type=int, default=0, help="both ways; 0: no cap")
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> None:
    host, _, port = options.to.rpartition(":")
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"{host} is not on the loopback interface")
    backwards = Impairment(
        loss=Bernoulli(options.loss),
        delay=Constant(options.delay_ms),
        reorder=options.reorder,
        duplicate=options.duplicate,
        corrupt=options.corrupt,
        rate_bps=options.rate_bps,
    )
    forwards = backwards
    if options.trace is not None:
        forwards = Impairment(
            loss=backwards.loss,
            delay=read_trace(options.trace),
            reorder=options.reorder,
            duplicate=options.duplicate,
            corrupt=options.corrupt,
            rate_bps=options.rate_bps,
        )
    async with relay(forwards, backwards, options.seed, host=options.host, port=options.port) as network:
        network.connect(engine=(host, int(port)))
        print(json.dumps({"front": network.front, "back": network.back}), flush=True)
        await asyncio.sleep(min(options.seconds, SECONDS_MAX))
        stats = {"forwards": asdict(network.forwards.stats), "backwards": asdict(network.backwards.stats)}
        print(json.dumps(stats), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(_options()))
