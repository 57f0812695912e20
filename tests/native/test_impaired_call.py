"""A call across a bad network: what the engine makes up is what the network lost, and both count the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mediaserver._native import MediaEngine
from perf.impairment import Impairment, Trace, read_trace
from perf.impairment.relay import Relay, relay
from tests.native.rtp_peer import FRAME, Peer, Samples

WIFI = Path(__file__).parents[1] / "traces_network" / "wifi.txt"
PACKETS = 200


def worst_part(trace: Trace) -> Trace:
    """The stretch that loses most, of those that lose neither their first packet nor their last ones."""

    def losses(begin: int) -> int:
        part = trace.delays_ms[begin : begin + PACKETS]
        return -1 if part[0] is None or None in part[-5:] else part.count(None)

    return trace.part(max(range(len(trace.delays_ms) - PACKETS), key=losses), PACKETS)


async def call_across(engine: MediaEngine, peer: Peer, network: Relay) -> dict[str, int]:
    """Say some seconds of a tone through the network; the stream's counters when all has come."""
    stream, port = engine.open_stream(remote=network.back)
    engine.connect_stream(stream, remote=network.back, codec="PCMU", payload_type=0, rtcp=False)
    network.connect(engine=("127.0.0.1", port), caller=peer.address)
    peer.to = network.front
    tone: Samples = (np.sin(np.arange(PACKETS * FRAME) / 5) * 6000).astype(np.int16)
    await peer.say(tone, speed=1)
    while network.forwards.due_us is not None:
        await peer.packets(1)
    # A loss is declared 20 ms after a later packet.
    await peer.packets(5)
    return engine.stream_stats(stream)


async def test_concealment_is_the_networks_loss_on_wifi(engine: MediaEngine, peer: Peer) -> None:
    trace = worst_part(read_trace(WIFI))
    async with relay(Impairment(delay=trace), Impairment(), 1) as network:
        stats = await call_across(engine, peer, network)
    there = network.forwards.stats
    assert there.offered == PACKETS
    assert there.lost == trace.delays_ms.count(None)
    assert there.lost >= 4
    assert stats["lost"] == there.lost
    assert stats["received"] == stats["released"] == there.delivered == PACKETS - there.lost
    assert stats["late"] == stats["reordered"] == stats["duplicate"] == stats["reset"] == 0


async def test_reordering_and_duplication_add_no_loss(engine: MediaEngine, peer: Peer) -> None:
    trace = worst_part(read_trace(WIFI))
    worse = Impairment(delay=trace, reorder=0.1, reorder_ms=30, duplicate=0.1)
    async with relay(worse, Impairment(), 2) as network:
        stats = await call_across(engine, peer, network)
    there = network.forwards.stats
    assert min(there.held_back, there.duplicated) > 5
    assert stats["received"] == there.delivered
    # Every packet counts once: heard, too late, or a copy. What came too late had been declared lost.
    assert stats["released"] + stats["late"] + stats["duplicate"] == stats["received"]
    assert stats["duplicate"] == there.duplicated
    assert stats["lost"] - stats["late"] == there.lost
