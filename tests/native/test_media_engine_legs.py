"""Two and more legs of one engine, connected to each other over real sockets: codecs, keys, reports, rooms."""

from __future__ import annotations

import base64
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mediaserver._native import (
    BackgroundEnded,
    DtmfDigit,
    Flushed,
    MarkReached,
    MediaEngine,
    MediaError,
    Played,
    PlayoutStarted,
)
from tests.native.rtp_peer import Events
from tests.native.test_media_engine import tone

HOST = "127.0.0.1"
CODECS = {"PCMU": 0, "PCMA": 8, "G722": 9, "opus": 111}
SUITES = {"AES_CM_128_HMAC_SHA1_80": 30, "AES_CM_128_HMAC_SHA1_32": 30, "AEAD_AES_128_GCM": 28}
"""Octets of master key and salt together (RFC 4568 6.1, RFC 7714 14.2)."""


def key(suite: str, seed: int) -> str:
    return base64.b64encode(bytes((seed + index) % 256 for index in range(SUITES[suite]))).decode()


@pytest.fixture
async def engine() -> AsyncIterator[MediaEngine]:
    """Without a model: nobody listens for speech here."""
    engine = MediaEngine(HOST, port_count=8, threads=2)
    yield engine
    engine.close()


class Pair:
    """Two legs that call each other; what each hears is recorded."""

    def __init__(
        self, engine: MediaEngine, folder: Path, codec: str, suite: str | None = None, **terms: object
    ) -> None:
        self._engine = engine
        opened = [engine.open_stream(remote=None)]
        # On the other thread, or at least on another port.
        opened.append(engine.open_stream(remote=None))
        self.streams = tuple(stream for stream, _ in opened)
        self.tapes = tuple(folder / f"{stream}.wav" for stream in self.streams)
        ports = [port for _, port in opened]
        for index, stream in enumerate(self.streams):
            keys = None
            if suite is not None:
                keys = (suite, key(suite, index), key(suite, 1 - index))
            engine.connect_stream(
                stream,
                remote=(HOST, ports[1 - index]),
                codec=codec,
                payload_type=CODECS[codec],
                telephone_event=101,
                telephone_event_hz=48_000 if codec == "opus" else 8000,
                srtp=keys,
                **terms,  # type: ignore[arg-type] # passed through
            )
            engine.record(stream, str(self.tapes[index]), 16_000)

    def close(self) -> None:
        for stream in self.streams:
            self._engine.close_stream(stream)
        # Waits for the recordings.
        self._engine.close()


def heard(tape: Path) -> npt.NDArray[np.float64]:
    with wave.open(str(tape), "rb") as wav:
        assert (wav.getnchannels(), wav.getframerate()) == (2, 16_000)
        samples = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2")
    return samples.reshape(-1, 2)[:, 0].astype(np.float64)


def share_at(samples: npt.NDArray[np.float64], frequency_hz: float) -> float:
    """Share of the power that lies within 30 Hz of a frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(samples), 1 / 16_000) - frequency_hz) < 30
    return float(spectrum[near].sum() / max(spectrum.sum(), 1.0))


@pytest.mark.parametrize("suite", [None, *SUITES])
@pytest.mark.parametrize("codec", CODECS)
async def test_a_tone_arrives_in_every_codec_under_every_suite(
    engine: MediaEngine, tmp_path: Path, codec: str, suite: str | None
) -> None:
    events, pair = Events(engine), Pair(engine, tmp_path, codec, suite)
    one, other = pair.streams
    engine.play(one, tone(600, 24_000, 440), 24_000, 1)
    engine.play(other, tone(600, 16_000, 1800), 16_000, 2)
    await events.next(Played)
    await events.next(Played)
    # A little more, so that all of it has arrived.
    for stream in pair.streams:
        engine.play(stream, bytes(2 * 1600), 8000, 3)
    await events.next(Played)
    await events.next(Played)
    stats = engine.stream_stats(other)
    assert stats["lost"] == stats["undecodable"] == 0
    assert not any(count for name, count in engine.stats().items() if name.startswith("dropped_srtp"))
    pair.close()
    events.close()
    assert share_at(heard(pair.tapes[1]), 440) > 0.95
    assert share_at(heard(pair.tapes[0]), 1800) > 0.95


async def test_what_another_key_protects_is_dropped_and_counted(engine: MediaEngine) -> None:
    suite = "AES_CM_128_HMAC_SHA1_80"
    events = Events(engine)
    (one, one_port), (other, other_port) = (engine.open_stream(remote=None) for _ in range(2))
    for stream, port, keys in ((one, other_port, (1, 2)), (other, one_port, (2, 3))):
        srtp = (suite, key(suite, keys[0]), key(suite, keys[1]))
        engine.connect_stream(stream, remote=(HOST, port), codec="PCMU", payload_type=0, srtp=srtp)
    engine.play(one, tone(200, 8000), 8000, 1)
    await events.next(Played)
    assert engine.stream_stats(other)["received"] == 0
    assert engine.stream_stats(one)["received"] > 5
    assert engine.stats()["dropped_srtp_authentication"] > 5
    events.close()


@pytest.mark.parametrize("inline", ["c2VjcmV0", "!", "", "A" * 40 + "|2^20|1:4"])
async def test_unusable_keys_are_refused_and_not_repeated(engine: MediaEngine, inline: str) -> None:
    stream, _ = engine.open_stream(remote=None)
    with pytest.raises(MediaError, match='SRTP suite "none" is none of AEAD_AES_128_GCM, AES_CM'):
        engine.connect_stream(
            stream, remote=(HOST, 9), codec="PCMU", payload_type=0, srtp=("none", inline, inline)
        )
    srtp = ("AES_CM_128_HMAC_SHA1_80", inline, inline)
    with pytest.raises(MediaError) as refused:
        engine.connect_stream(stream, remote=(HOST, 9), codec="PCMU", payload_type=0, srtp=srtp)
    assert not inline or inline not in str(refused.value)


@pytest.mark.parametrize("codec", ["PCMU", "opus"])
async def test_keys_are_pressed_at_the_other_side(engine: MediaEngine, tmp_path: Path, codec: str) -> None:
    events, pair = Events(engine), Pair(engine, tmp_path, codec)
    one, other = pair.streams
    for digit in "19#":
        engine.press(one, digit, 80)
    digits = [await events.next(DtmfDigit) for _ in range(3)]
    assert [(event.stream, event.digit) for event in digits] == [(other, "1"), (other, "9"), (other, "#")]
    assert all(60 <= event.duration_ms <= 100 for event in digits)
    engine.press(one, "x")
    engine.press(one, "1", 5)
    # The commands have been taken when this is answered.
    engine.stream_stats(one)
    assert engine.stats()["refused_keys"] == 2
    pair.close()
    events.close()


@pytest.mark.parametrize(("mux", "suite"), [(False, None), (True, "AEAD_AES_128_GCM")])
async def test_reports_go_both_ways(
    engine: MediaEngine, tmp_path: Path, mux: bool, suite: str | None
) -> None:
    events, pair = Events(engine), Pair(engine, tmp_path, "PCMU", suite, rtcp_mux=mux, rtcp_xr=True)
    # A report within 3.1 s, and the next, which echoes the peer's, within 6.2 more; silence by the second is the clock.
    for _ in range(12):
        engine.play(pair.streams[0], bytes(2 * 8000), 8000, 4)
        await events.next(Played)
        reports = [engine.stream_quality(stream) for stream in pair.streams]
        if all(report is not None and report.round_trip_ms is not None for report in reports):
            break
    for stream in pair.streams:
        quality = engine.stream_quality(stream)
        assert quality is not None
        assert (quality.lost, quality.fraction_lost, quality.peer_fraction_lost) == (0, 0.0, 0.0)
        assert quality.received > 50
        assert quality.jitter_ms < 10
        assert quality.round_trip_ms is not None
        assert quality.round_trip_ms < 100
        assert quality.r_factor is not None
        assert quality.mos_lq is not None
        assert quality.r_factor > 85
        assert 4.0 < quality.mos_lq <= 4.5
    stats = engine.stats()
    assert stats["rtcp_received"] >= 2
    assert not any(count for name, count in stats.items() if name.startswith("dropped_rtcp"))
    pair.close()
    events.close()


async def test_marks_within_a_chunk_are_reported_in_their_place(engine: MediaEngine, tmp_path: Path) -> None:
    events, pair = Events(engine), Pair(engine, tmp_path, "PCMU")
    one, _ = pair.streams
    engine.play(
        one, tone(600, 16_000), 16_000, 10, marks=[(0, 11), (16 * 200, 12), (16 * 400, 13)], gain_db=-6.0
    )
    reached = [await events.next(MarkReached) for _ in range(3)]
    assert [(event.mark, event.played_ms) for event in reached] == [(11, 0), (12, 200), (13, 400)]
    assert (await events.next(Played)).played_ms == 600
    with pytest.raises(MediaError, match="64"):
        engine.play(one, tone(20, 8000), 8000, 14, marks=[(0, 15)] * 65)
    pair.close()
    events.close()


async def test_music_gives_way_to_speech_and_returns(engine: MediaEngine, tmp_path: Path) -> None:
    events, pair = Events(engine), Pair(engine, tmp_path, "G722")
    one, other = pair.streams
    engine.play_loop(one, tone(100, 16_000, 600), 16_000, 20)
    engine.play(other, bytes(2 * 400 * 8), 8000, 21)
    await events.next(Played)
    engine.play(one, tone(400, 16_000, 1500), 16_000, 22)
    assert (await events.next(PlayoutStarted)).mark in (21, 22)
    assert (await events.next(Played)).mark == 22
    engine.play(other, bytes(2 * 400 * 8), 8000, 23)
    await events.next(Played)
    engine.stop_loop(one)
    assert (await events.next(BackgroundEnded)).mark == 20
    engine.flush(one)
    await events.next(Flushed)
    pair.close()
    events.close()
    tape = heard(pair.tapes[1])
    loud = np.flatnonzero(np.abs(tape) > 1000)
    sounding = tape[loud[0] : loud[-1]]
    begin, end = sounding[: 16 * 250], sounding[-16 * 250 :]
    assert share_at(begin, 600) > 0.9
    assert share_at(end, 600) > 0.9
    assert share_at(sounding, 1500) > 0.25


async def test_a_conference_hears_everybody_but_oneself(engine: MediaEngine, tmp_path: Path) -> None:
    """Three callers, each with a tone of its own, meet; a fourth only listens."""
    events = Events(engine)
    tones = (500, 1100, 2300, 0)
    inside: list[int] = []
    phones: list[tuple[int, Path]] = []
    for index, frequency_hz in enumerate(tones):
        beside = inside[0] if inside else None
        leg, leg_port = engine.open_stream(remote=None, beside=beside)
        phone, phone_port = engine.open_stream(remote=None)
        codec = list(CODECS)[index]
        for stream, port in ((leg, phone_port), (phone, leg_port)):
            engine.connect_stream(stream, remote=(HOST, port), codec=codec, payload_type=CODECS[codec])
        tape = tmp_path / f"{index}.wav"
        engine.record(phone, str(tape), 16_000)
        if frequency_hz:
            engine.play(phone, tone(2500, 16_000, frequency_hz, 4000), 16_000, 1)
        inside.append(leg)
        phones.append((phone, tape))
    room = engine.open_room(inside[0])
    for leg in inside:
        engine.join_room(room, leg, listen_only=leg == inside[3])
    for _ in range(3):
        await events.next(Played)
    for leg in inside:
        engine.leave_room(leg)
    for stream in [*inside, *(phone for phone, _ in phones)]:
        engine.close_stream(stream)
    engine.close()
    events.close()
    for index, (_, tape) in enumerate(phones):
        # The middle of it: everybody is there, and no buffer is still filling.
        samples = heard(tape)
        middle = samples[len(samples) // 3 : 2 * len(samples) // 3]
        for other, frequency_hz in enumerate(tones[:3]):
            share = share_at(middle, frequency_hz)
            assert (share > 0.2) is (other != index), (index, other, share)


async def test_rooms_are_of_one_thread(engine: MediaEngine) -> None:
    legs = [engine.open_stream(remote=None)[0] for _ in range(2)]
    assert legs[0] % 2 != legs[1] % 2
    room = engine.open_room(legs[0])
    with pytest.raises(MediaError, match="runs on another media thread"):
        engine.join_room(room, legs[1])
