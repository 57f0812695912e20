"""The octets between the edge and a worker: whatever is sent arrives, and nothing else is taken for a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver._native import (
    DtmfDigit,
    Flushed,
    MediaTimeout,
    Played,
    SpeechAudio,
    SpeechStarted,
    SpeechStopped,
    StreamFailed,
)
from mediaserver.workers.messages import (
    MAX_FRAME_OCTETS,
    CallerSaid,
    FrameReader,
    Message,
    OpenCall,
    Pause,
    Ping,
    Play,
    ReceptionistSaid,
    WireError,
    encode,
)

NUMBERS = st.integers(0, 2**32 - 1)
TIMES = st.integers(0, 2**53)
TEXTS = st.text(max_size=200)
PCM = st.binary(max_size=2_000)


def _messages() -> st.SearchStrategy[Message]:
    return st.one_of(
        st.builds(Ping, NUMBERS),
        st.builds(OpenCall, TEXTS, TEXTS, NUMBERS),
        st.just(Pause()),
        st.builds(Play, NUMBERS, st.sampled_from([8_000, 24_000]), PCM),
        st.builds(CallerSaid, TEXTS),
        st.builds(ReceptionistSaid, TEXTS, st.booleans()),
        st.builds(SpeechStarted, stream=st.just(7), media_ms=TIMES, at_us=TIMES, pcm=PCM),
        st.builds(SpeechAudio, stream=st.just(7), media_ms=TIMES, pcm=PCM),
        st.builds(
            SpeechStopped, stream=st.just(7), media_ms=TIMES, at_us=TIMES, last_speech_at_us=TIMES, pcm=PCM
        ),
        st.builds(Played, stream=st.just(7), mark=NUMBERS, played_ms=TIMES, at_us=TIMES),
        st.builds(
            Flushed,
            stream=st.just(7),
            mark=NUMBERS,
            heard_ms=TIMES,
            chunk_ms=TIMES,
            played_ms=TIMES,
            dropped_ms=TIMES,
            at_us=TIMES,
        ),
        st.builds(DtmfDigit, stream=st.just(7), digit=st.sampled_from("0123456789*#"), duration_ms=NUMBERS),
        st.builds(StreamFailed, stream=st.just(7), reason=TEXTS),
        st.builds(MediaTimeout, stream=st.just(7), silent_ms=TIMES),
    )


@given(st.lists(_messages(), max_size=8), st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_what_is_sent_arrives_however_it_is_cut(messages: list[Message], cuts: list[int]) -> None:
    octets = b"".join(encode(7, message) for message in messages)
    reader, got, at, turn = FrameReader(), [], 0, 0
    while at < len(octets):
        step = cuts[turn % len(cuts)]
        got += list(reader.feed(octets[at : at + step]))
        at, turn = at + step, turn + 1
    assert [call for call, _ in got] == [7] * len(messages)
    # The engine's events know no equality; their octets do.
    assert [encode(7, message) for _, message in got] == [encode(7, message) for message in messages]
    assert [type(message) for _, message in got] == [type(message) for message in messages]


@given(st.binary(max_size=300))
def test_any_octets_are_messages_or_an_error(octets: bytes) -> None:
    reader = FrameReader()
    try:
        for _call, message in reader.feed(octets):
            encode(0, message)
    except WireError as error:
        assert str(error)


def test_what_is_wrong_is_named() -> None:
    def taking(octets: bytes) -> str:
        with pytest.raises(WireError) as caught:
            list(FrameReader().feed(octets))
        return str(caught.value)

    frame = encode(1, Ping(5))
    assert "200" in taking(frame[:4] + bytes([200]) + frame[5:])
    assert f"{MAX_FRAME_OCTETS} are allowed" in taking(b"\xff\xff\xff\xff")
    assert "Ping.number is no int" in taking(encode(1, Ping("five")))  # type: ignore[arg-type] # the fault
    with pytest.raises(WireError, match="a Play of"):
        encode(1, Play(1, 8_000, bytes(MAX_FRAME_OCTETS)))
