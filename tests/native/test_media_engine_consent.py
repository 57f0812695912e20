"""Media that nobody answers stop, and begin again with the first sign of the peer."""

from __future__ import annotations

import asyncio

from mediaserver._native import MediaEngine
from tests.native.rtp_peer import FRAME, PCMU, TIMEOUT_S, Peer

UNHEARD_S = 5
WITHHELD = 5
"""Frames after which nothing is on its way any more."""
SOUND = b"\x00\x20" * 8_000 * 8


async def test_a_peer_without_a_sign_is_sent_five_seconds(engine: MediaEngine, peer: Peer) -> None:
    stream, port = engine.open_stream(remote=peer.address, media_timeout_ms=30_000)
    peer.to = ("127.0.0.1", port)
    engine.connect_stream(stream, remote=peer.address, codec="PCMU", payload_type=PCMU)
    engine.play(stream, SOUND, 8_000, 1)
    async with asyncio.timeout(TIMEOUT_S):
        while engine.stream_stats(stream)["withheld_frames"] < WITHHELD:  # noqa: ASYNC110 - a counter sets no event
            await asyncio.sleep(0.02)
    sent = list(peer.received)
    assert UNHEARD_S * 50 - 10 <= len(sent) <= UNHEARD_S * 50 + 1
    assert engine.stats()["sending_stopped"] == 1

    peer.send(b"\xff" * FRAME)
    first = (await peer.packets(1))[0]
    assert (first.sequence - sent[-1].sequence) & 0xFFFF == 1
    # Our clock went on, and so did the playout from where it stopped.
    assert (first.timestamp - sent[-1].timestamp) & 0xFFFF_FFFF > FRAME
    assert first.sounds
    assert engine.stats()["sending_stopped"] == 1
    counters = engine.stream_stats(stream)
    assert UNHEARD_S * 1000 - 200 <= counters["played_ms"] <= UNHEARD_S * 1000 + 200
