"""The media engine over real sockets: what it says, when it stops, and how it accounts for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from mediaserver._native import (
    Flushed,
    MediaEngine,
    MediaError,
    Played,
    PlayoutStarted,
)
from tests.native.rtp_peer import FRAME, PCMA, PCMU, TELEPHONE_EVENT, Events, Peer, Samples, open_peer

CODECS = {PCMU: "PCMU", PCMA: "PCMA"}


def call(engine: MediaEngine, peer: Peer, payload_type: int = PCMU, **options: object) -> int:
    """Open a stream to ``peer`` and connect it."""
    stream, port = engine.open_stream(remote=peer.address, **options)  # type: ignore[arg-type] # passed through
    peer.to = ("127.0.0.1", port)
    engine.connect_stream(
        stream,
        remote=peer.address,
        codec=CODECS[payload_type],
        payload_type=payload_type,
        telephone_event=TELEPHONE_EVENT,
    )
    return stream


def tone(ms: int, rate_hz: int, frequency_hz: float = 1000.0, level: float = 8000.0) -> bytes:
    time_s = np.arange(ms * rate_hz // 1000) / rate_hz
    return np.asarray(level * np.sin(2 * np.pi * frequency_hz * time_s), dtype="<i2").tobytes()


def power_at(samples: Samples, frequency_hz: float) -> float:
    """Share of the power that lies within 50 Hz of the frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / 8000) - frequency_hz) < 50
    return float(spectrum[near].sum() / spectrum.sum())


@pytest.mark.parametrize("payload_type", [PCMU, PCMA])
@pytest.mark.parametrize("rate_hz", [8000, 16_000, 24_000, 48_000])
async def test_a_greeting_goes_out_whole(
    engine: MediaEngine, events: Events, peer: Peer, payload_type: int, rate_hz: int
) -> None:
    stream = call(engine, peer, payload_type)
    await peer.packets(3)
    engine.play(stream, tone(500, rate_hz), rate_hz, 7)
    started = await events.next(PlayoutStarted)
    played = await events.next(Played)
    await peer.packets(3)

    assert (started.stream, started.mark) == (stream, 7)
    assert (played.stream, played.mark, played.played_ms) == (stream, 7, 500)
    packets = peer.received
    assert {packet.payload_type for packet in packets} == {payload_type}
    assert {len(packet.payload) for packet in packets} == {FRAME}
    assert len({packet.ssrc for packet in packets}) == 1
    for before, after in pairwise(packets):
        assert (after.sequence - before.sequence) & 0xFFFF == 1
        assert (after.timestamp - before.timestamp) & 0xFFFF_FFFF == FRAME
    spoken = [packet for packet in packets if packet.sounds]
    # 25 frames; the conversion's 2 ms of ringing may reach into one more.
    assert len(spoken) in (25, 26)
    assert [packet.marker for packet in packets] == [packet is spoken[0] for packet in packets]
    assert power_at(np.concatenate([packet.samples for packet in spoken]), 1000) > 0.99
    assert started.at_us <= spoken[0].arrival_us
    # The first and the last of 25 packets are 24 frames apart on the engine's clock, whatever the machine is doing.
    assert abs(played.at_us - started.at_us - 480_000) < 150_000


async def test_played_ms_counts_samples(engine: MediaEngine, events: Events, peer: Peer) -> None:
    stream = call(engine, peer)
    chunks = [(30, 24_000), (70, 8000), (5, 16_000), (95, 48_000), (33, 24_000), (0, 8000)]
    for mark, (ms, rate_hz) in enumerate(chunks, 1):
        engine.play(stream, tone(ms, rate_hz), rate_hz, mark)
    total_ms = 0
    for mark, (ms, _) in enumerate(chunks, 1):
        played = await events.next(Played)
        total_ms += ms
        assert (played.mark, played.played_ms) == (mark, total_ms)
    assert engine.stream_stats(stream)["played_ms"] == total_ms
    assert engine.stream_stats(stream)["queued_ms"] == 0


async def test_a_flush_stops_within_60_ms_and_reports_what_was_heard(
    engine: MediaEngine, events: Events, peer: Peer
) -> None:
    stream = call(engine, peer)
    engine.play(stream, tone(1000, 8000, 400), 8000, 1)
    engine.play(stream, tone(1000, 8000, 400), 8000, 2)
    await events.next(PlayoutStarted)
    await peer.packets(10)
    sent_before = engine.stream_stats(stream)["sent"]
    engine.flush(stream)
    before, flushed = await events.until(Flushed)
    tail = await peer.packets(8)

    assert before == []
    spoken = [packet for packet in peer.received if packet.sounds]
    position = peer.received.index(spoken[-1])
    # Of the packets after the flush at most three: one that was due at once, the fade, and one for a busy machine.
    assert position + 1 - sent_before <= 3
    assert not any(packet.sounds for packet in tail[4:])
    heard_ms = (len(spoken) - 1) * 20 + 10
    assert (flushed.mark, flushed.heard_ms, flushed.chunk_ms) == (1, heard_ms, 1000)
    assert (flushed.played_ms, flushed.dropped_ms) == (heard_ms, 2000 - heard_ms)
    fade = spoken[-1].samples
    assert not np.any(fade[FRAME // 2 :])
    assert np.max(np.abs(fade[:20])) > 4 * np.max(np.abs(fade[60:80])) > 0
    assert engine.stream_stats(stream)["queued_ms"] == 0


async def test_what_is_played_after_a_flush_is_not_flushed(
    engine: MediaEngine, events: Events, peer: Peer
) -> None:
    stream = call(engine, peer)
    engine.play(stream, tone(1000, 8000), 8000, 1)
    await events.next(PlayoutStarted)
    engine.flush(stream)
    engine.play(stream, tone(40, 8000), 8000, 2)
    assert (await events.next(Flushed)).mark == 1
    assert (await events.next(PlayoutStarted)).mark == 2
    assert (await events.next(Played)).mark == 2


async def test_a_flush_of_nothing_is_answered(engine: MediaEngine, events: Events, peer: Peer) -> None:
    stream = call(engine, peer)
    engine.flush(stream)
    flushed = await events.next(Flushed)
    assert (flushed.mark, flushed.heard_ms, flushed.chunk_ms, flushed.dropped_ms) == (0, 0, 0, 0)


async def test_a_pause_holds_the_rest(engine: MediaEngine, events: Events, peer: Peer) -> None:
    stream = call(engine, peer)
    engine.play(stream, tone(400, 8000), 8000, 1)
    await events.next(PlayoutStarted)
    engine.pause(stream)
    quiet = (await peer.packets(12))[4:]
    assert not any(packet.sounds for packet in quiet)
    engine.resume(stream)
    before, played = await events.until(Played)
    assert (before, played.mark, played.played_ms) == ([], 1, 400)


async def test_one_way_media(engine: MediaEngine, events: Events, peer: Peer) -> None:
    """On hold nothing is sent, what is queued waits, and a flush is answered all the same."""
    stream, _ = engine.open_stream(remote=peer.address)
    engine.play(stream, tone(40, 8000), 8000, 1)
    engine.connect_stream(stream, remote=peer.address, codec="PCMU", payload_type=0, send=False)
    engine.flush(stream)
    assert (await events.next(Flushed)).mark == 1
    engine.play(stream, tone(40, 8000), 8000, 2)
    assert peer.received == []
    engine.connect_stream(stream, remote=peer.address, codec="PCMU", payload_type=0)
    assert (await events.next(Played)).mark == 2
    assert engine.stream_stats(stream)["sent"] >= 2


async def test_ten_streams_keep_their_pace(
    engine: MediaEngine, events: Events, record_property: Callable[[str, object], None]
) -> None:
    peers = [await open_peer() for _ in range(10)]
    streams = [call(engine, peer) for peer in peers]
    for stream in streams:
        engine.play(stream, tone(1000, 24_000), 24_000, 1)
    played = [await events.next(Played) for _ in streams]
    assert {(event.stream, event.played_ms) for event in played} == {(stream, 1000) for stream in streams}
    await asyncio.gather(*(peer.packets(2) for peer in peers))
    late_us = []
    for peer in peers:
        spoken = [packet for packet in peer.received if packet.sounds]
        assert len(spoken) in (50, 51)
        for before, after in pairwise(peer.received):
            assert (after.sequence - before.sequence) & 0xFFFF == 1
            assert (after.timestamp - before.timestamp) & 0xFFFF_FFFF == FRAME
            late_us.append(abs(after.arrival_us - before.arrival_us - 20_000))
        await peer.close()
    # Reported, not asserted: it is the machine's doing as much as the engine's.
    record_property("spacing_error_us_p50", int(np.percentile(late_us, 50)))
    record_property("spacing_error_us_p99", int(np.percentile(late_us, 99)))
    record_property("tick_lateness_max_us", engine.stats()["tick_lateness_max_us"])


async def test_a_full_playout_says_so(engine: MediaEngine, peer: Peer) -> None:
    stream, _ = engine.open_stream(remote=peer.address, max_playout_ms=1000)
    engine.play(stream, tone(900, 16_000), 16_000, 1)
    with pytest.raises(MediaError, match=r"900 ms wait, this chunk has 200 ms, max_playout_ms is 1000"):
        engine.play(stream, tone(200, 16_000), 16_000, 2)
    engine.play(stream, tone(100, 16_000), 16_000, 2)
    stats = engine.stream_stats(stream)
    assert (stats["queued_ms"], stats["refused_chunks"], engine.stats()["refused_chunks"]) == (1000, 1, 1)


async def test_mistakes_are_named(engine: MediaEngine, peer: Peer, weights: bytes) -> None:
    stream, _ = engine.open_stream(remote=peer.address)
    with pytest.raises(MediaError, match="no stream 999"):
        engine.play(999, b"", 8000, 1)
    with pytest.raises(MediaError, match="no stream 999"):
        engine.close_stream(999)
    with pytest.raises(MediaError, match="11025 Hz: allowed are 8000, 16000, 24000 and 48000"):
        engine.play(stream, b"", 11_025, 1)
    with pytest.raises(MediaError, match="3 bytes"):
        engine.play(stream, b"abc", 8000, 1)
    with pytest.raises(MediaError, match=r'"G729" is none of PCMU, PCMA'):
        engine.connect_stream(stream, remote=peer.address, codec="G729", payload_type=18)
    with pytest.raises(MediaError, match="not an IPv4 or IPv6 address"):
        engine.open_stream(remote=("example.org", 1))
    with pytest.raises(MediaError, match="preroll_ms 9000 is not within 0 to 2000"):
        engine.open_stream(remote=None, preroll_ms=9000)
    with pytest.raises(MediaError, match=r"ends in the middle|not protobuf"):
        MediaEngine("127.0.0.1", vad_model=weights[:1000])
    with pytest.raises(MediaError, match="cannot open UDP port"):
        MediaEngine("127.0.0.1", first_port=engine.ports()[0], port_count=1)


async def test_the_limit_of_streams_and_ports_is_named(engine: MediaEngine) -> None:
    for _ in engine.ports():
        engine.open_stream(remote=("10.0.0.1", 4000))
    with pytest.raises(
        MediaError, match=r"10\.0\.0\.1:4000 already has a stream on each of the 2 local ports"
    ):
        engine.open_stream(remote=("10.0.0.1", 4000))
    for port in range(engine.stats()["streams"], 16):
        engine.open_stream(remote=("10.0.0.2", 4000 + port))
    with pytest.raises(MediaError, match="16 streams are open"):
        engine.open_stream(remote=("10.0.0.3", 4000))
    assert engine.stats()["refused_streams"] == 1


def test_a_closed_engine_refuses_and_frees_its_ports() -> None:
    engine = MediaEngine("127.0.0.1", port_count=1)
    descriptor, (port,) = engine.fileno(), engine.ports()
    stream, _ = engine.open_stream(remote=None)
    engine.close()
    engine.close()
    with pytest.raises(MediaError, match="closed"):
        engine.play(stream, b"", 8000, 1)
    with pytest.raises(MediaError, match="closed"):
        engine.open_stream(remote=None)
    assert engine.drain() == []
    os.fstat(descriptor)  # still ours, so that a reader can be removed after the close
    MediaEngine("127.0.0.1", first_port=port, port_count=1).close()
