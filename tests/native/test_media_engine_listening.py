"""The media engine as a listener: whose packets count, what was said, which keys were pressed, what is recorded."""

from __future__ import annotations

import asyncio
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from mediaserver._native import (
    Activity,
    DtmfDigit,
    MediaEngine,
    MediaError,
    MediaTimeout,
    Played,
    SpeechAudio,
    SpeechStarted,
    SpeechStopped,
)
from tests.native.rtp_peer import FRAME, PCMU, TIMEOUT_S, Events, Peer, Samples, encode, now_us, open_peer
from tests.native.test_media_engine import call, tone
from tests.sim.network import has_ipv6


def silence(ms: int) -> Samples:
    return np.zeros(ms * 8, dtype=np.int16)


async def test_a_third_address_is_dropped_and_counted(engine: MediaEngine, peer: Peer) -> None:
    stream = call(engine, peer)
    await peer.say(silence(100))
    stranger = await open_peer()
    stranger.to = peer.to
    for _ in range(7):
        stranger.send(b"\xff" * FRAME)
    await peer.say(silence(100))
    await peer.packets(2)
    assert engine.stats()["dropped_unknown_source"] == 7
    assert engine.stream_stats(stream)["received"] == 10
    assert stranger.received == []
    await stranger.close()


async def test_garbage_is_counted_by_reason_and_locks_nothing(engine: MediaEngine, peer: Peer) -> None:
    stream = call(engine, peer)
    await peer.packets(1)
    stranger = await open_peer()
    for sender in (stranger, peer):
        for datagram in (
            b"\x80",
            b"\x80" * 11,
            b"\x00" * 40,  # STUN-like: version 0
            b"\x8f" + bytes(20),  # 15 CSRCs
            b"\x90" + bytes(11) + struct.pack("!HH", 0xBEDE, 99),
            b"\xa0" + bytes(12),
            struct.pack("!BBHI", 0x80, 200, 1, 0x5EED),  # RTCP
        ):
            sender.transport.sendto(datagram, peer.to)
    stranger.to = peer.to
    stranger.send(b"\xff" * FRAME, payload_type=97)
    await peer.say(silence(60))
    await peer.packets(2)
    stats = engine.stats()
    by_reason = ("truncated", "version", "csrc", "extension", "padding", "rtcp_body", "unknown_source")
    assert {reason: stats[f"dropped_{reason}"] for reason in by_reason} == {
        "truncated": 4,
        "version": 2,
        "csrc": 2,
        "extension": 2,
        "padding": 2,
        # A report of a stranger is nobody's; that of the peer is no report.
        "rtcp_body": 1,
        "unknown_source": 1,
    }
    assert stats["learnt_source"] == 0
    counters = engine.stream_stats(stream)
    assert (counters["received"], counters["dropped_payload_type"]) == (3, 1)
    engine.close_stream(stream)
    engine.stream_stats(engine.open_stream(remote=None)[0])  # answered behind the end of the first
    assert engine.stats()["ended_legs_payload_type"] == 1
    await stranger.close()


async def test_a_peer_behind_nat_is_learnt(engine: MediaEngine, peer: Peer) -> None:
    """Signalling names an address where nobody listens; the packets come from another."""
    stream, port = engine.open_stream(remote=("127.0.0.1", 9))
    peer.to = ("127.0.0.1", port)
    peer.send(b"\xff" * FRAME)
    async with asyncio.timeout(TIMEOUT_S):
        while engine.stats()["received"] == 0:  # noqa: ASYNC110 - a counter sets no event
            await asyncio.sleep(0.01)
    engine.connect_stream(stream, remote=("127.0.0.1", 9), codec="PCMU", payload_type=PCMU)
    # One packet may be anybody's; three in a row are learnt.
    for _ in range(3):
        assert engine.stats()["learnt_source"] == 0
        peer.send(b"\xff" * FRAME)
    await peer.packets(3)
    assert engine.stats()["learnt_source"] == 1
    assert engine.stream_stats(stream)["received"] == 3


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6_and_what_cannot_be_reached() -> None:
    engine = MediaEngine("::1", port_count=1)
    peer = await open_peer("::1")
    stream, port = engine.open_stream(remote=peer.address)
    peer.to = ("::1", port)
    engine.connect_stream(stream, remote=peer.address, codec="PCMU", payload_type=PCMU)
    await peer.say(silence(40))
    await peer.packets(2)
    assert engine.stream_stats(stream)["received"] == 2
    with pytest.raises(MediaError, match=r"on ::1 cannot reach 127\.0\.0\.1:4000"):
        engine.open_stream(remote=("127.0.0.1", 4000))
    engine.close()
    await peer.close()


async def test_a_reinvite_moves_the_media(engine: MediaEngine, peer: Peer) -> None:
    stream = call(engine, peer)
    await peer.say(silence(40))
    other = await open_peer()
    other.to = peer.to
    engine.connect_stream(stream, remote=other.address, codec="PCMU", payload_type=PCMU)
    await other.packets(1)
    peer.send(b"\xff" * FRAME)  # the old source lags behind, and is not taken for the new one
    await other.say(silence(40))
    await other.packets(2)
    assert engine.stats()["dropped_unknown_source"] == 1
    assert engine.stream_stats(stream)["received"] == 4
    await other.close()


async def test_speech_is_cut_out_with_preroll_and_its_end(
    engine: MediaEngine, events: Events, peer: Peer, speech: Samples
) -> None:
    call(engine, peer, speech_stop_ms=400)
    lead_ms, tail_ms = 1000, 1200
    audio = np.concatenate([silence(lead_ms), speech, silence(tail_ms)])
    sent_us = await peer.say(audio)
    before, started = await events.until(SpeechStarted)
    pieces, stopped = await events.until(SpeechStopped)

    assert before == []
    assert all(isinstance(piece, SpeechAudio) for piece in pieces)
    audible = [piece for piece in pieces if isinstance(piece, SpeechAudio)]
    assert abs(started.media_ms - lead_ms) < 150
    end_ms = lead_ms + len(speech) // 8
    assert abs(stopped.media_ms - end_ms) < 200
    # The pre-roll reaches back 300 ms, and 96 ms of speech made it certain.
    assert len(started.pcm) >= (300 + 96) * 32
    assert {len(piece.pcm) for piece in audible} == {200 * 32}
    ends_ms = [piece.media_ms + 200 for piece in audible]
    assert [piece.media_ms for piece in audible[1:]] == ends_ms[:-1]
    # What was handed over is what was said: it correlates with the source at the place where it must be.
    heard = np.frombuffer(started.pcm + b"".join(piece.pcm for piece in audible) + stopped.pcm, dtype="<i2")[
        ::2
    ]
    begins = audible[0].media_ms * 8 - len(started.pcm) // 4
    source = audio[begins - 16 : begins - 16 + len(heard)]
    assert np.corrcoef(heard[: len(source)], source)[0, 1] > 0.98
    # The packet in which speech ended, by the detector's windows of 32 ms and the model's idea of an end.
    said_last = sent_us[min(stopped.media_ms // 20, len(sent_us) - 1)]
    assert abs(stopped.last_speech_at_us - said_last) < 60_000
    assert stopped.last_speech_at_us < stopped.at_us
    assert started.at_us < stopped.at_us <= now_us()


async def test_speech_ends_when_the_packets_stop(
    engine: MediaEngine, events: Events, peer: Peer, speech: Samples
) -> None:
    """A caller who is muted in the middle of a word sends nothing more; the turn must end all the same."""
    call(engine, peer)
    await peer.say(np.concatenate([silence(600), speech[: 8 * 1000]]))
    await events.next(SpeechStarted)
    await events.next(SpeechStopped)


async def test_without_a_model_nobody_listens(peer: Peer, speech: Samples) -> None:
    engine = MediaEngine("127.0.0.1", port_count=1)
    try:
        stream = call(engine, peer)
        await peer.say(np.concatenate([silence(400), speech, silence(600)]))
        await peer.packets(1)
        assert engine.drain() == []
        assert engine.stream_stats(stream)["vad_windows"] == 0
    finally:
        engine.close()


async def test_keys(engine: MediaEngine, events: Events, peer: Peer) -> None:
    stream = call(engine, peer)
    await peer.say(silence(40))
    for code in (1, 1, 11, 0):
        peer.press(code)
        await peer.say(silence(60))
    digits = [await events.next(DtmfDigit) for _ in range(4)]
    assert [(digit.stream, digit.digit, digit.duration_ms) for digit in digits] == [
        (stream, digit, 100) for digit in "11#0"
    ]
    counters = engine.stream_stats(stream)
    assert (counters["lost"], counters["aside"]) == (0, 24)


async def test_activity_names_the_first_and_the_last_loud_packet(
    engine: MediaEngine, events: Events, peer: Peer
) -> None:
    call(engine, peer, report_activity=True)
    loud = np.frombuffer(tone(200, 8000), dtype="<i2")
    sent_us = await peer.say(np.concatenate([silence(100), loud, silence(100)]), speed=1)
    began = await events.next(Activity)
    ended = await events.next(Activity)
    assert (began.active, ended.active) == (True, False)
    assert sent_us[5] <= began.at_us < sent_us[6]
    assert sent_us[14] <= ended.at_us < sent_us[15]


async def test_a_silent_wire_is_reported_once(engine: MediaEngine, events: Events, peer: Peer) -> None:
    stream = call(engine, peer, media_timeout_ms=100)
    first = await events.next(MediaTimeout)
    assert (first.stream, 100 <= first.silent_ms < 1000) == (stream, True)
    await peer.packets(10)
    assert engine.drain() == []
    peer.send(b"\xff" * FRAME)
    assert (await events.next(MediaTimeout)).silent_ms >= 100


async def test_a_recording_holds_both_sides_on_one_timeline(
    engine: MediaEngine, events: Events, peer: Peer, tmp_path: Path
) -> None:
    path = tmp_path / "call.wav"
    stream = call(engine, peer)
    engine.record(stream, str(path))
    engine.play(stream, tone(600, 8000, 500), 8000, 1)
    await peer.say(np.frombuffer(tone(600, 8000, 1500), dtype="<i2"), speed=1)
    await events.next(Played)
    await peer.packets(8)
    engine.close_stream(stream)
    engine.close()  # waits for the disk
    left, right = _channels(path)

    for channel, frequency_hz in ((left, 1500), (right, 500)):
        loud = np.flatnonzero(np.abs(channel) > 1000)
        assert abs(len(channel[loud[0] : loud[-1]]) / 8 - 600) < 5
        middle = channel[loud[0] + 800 : loud[0] + 4000]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        assert abs(np.argmax(spectrum) * 8000 / len(middle) - frequency_hz) < 5
    # Each packet of the peer answered one of ours, so the two tones began together, give or take a tick.
    begin_left, begin_right = (np.flatnonzero(np.abs(channel) > 1000)[0] for channel in (left, right))
    assert abs(int(begin_left) - int(begin_right)) <= 3 * FRAME


def _channels(path: Path) -> tuple[Samples, Samples]:
    with wave.open(str(path), "rb") as recording:
        assert (recording.getnchannels(), recording.getsampwidth(), recording.getframerate()) == (2, 2, 8000)
        frames = recording.readframes(recording.getnframes())
    samples = np.frombuffer(frames, dtype="<i2").reshape(-1, 2)
    return samples[:, 0], samples[:, 1]


async def test_a_recording_that_cannot_be_made_is_refused(
    engine: MediaEngine, peer: Peer, tmp_path: Path
) -> None:
    stream = call(engine, peer)
    with pytest.raises(MediaError, match="cannot create the recording"):
        engine.record(stream, str(tmp_path / "absent" / "call.wav"))


@pytest.mark.parametrize("gain", [0.1, 0.4])
async def test_a_speakerphone_does_not_make_us_interrupt_ourselves(
    engine: MediaEngine, events: Events, peer: Peer, speech: Samples, gain: float
) -> None:
    """What we say comes back softer and 160 ms later; then the caller says the same, while we are silent."""
    stream = call(engine, peer)
    sentence = np.concatenate([speech, silence(300), speech])
    engine.play(stream, sentence.astype("<i2").tobytes(), 8000, 1)
    line = [np.zeros(FRAME, dtype=np.int16)] * 8
    for _ in range(len(sentence) // FRAME + 20):
        (packet,) = await peer.packets(1)
        line.append(packet.samples)
        heard = line.pop(0) * gain
        peer.send(encode(PCMU, heard.astype(np.int16)))
    before, _ = await events.until(Played)
    assert not [event for event in before if isinstance(event, SpeechStarted)]
    assert engine.stream_stats(stream)["vad_windows_echo"] > 20
    await peer.say(silence(1000))
    await peer.say(np.concatenate([np.asarray(speech * gain, dtype=np.int16), silence(500)]))
    assert (await events.next(SpeechStarted)).stream == stream
