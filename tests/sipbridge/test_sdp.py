"""Session descriptions and their negotiation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipbridge.sdp import (
    Connection,
    Direction,
    MediaDescription,
    NotAcceptable,
    Origin,
    SdpError,
    SessionDescription,
    accept_answer,
    make_offer,
    negotiate,
    succeed,
)

WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)
VALUES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
ADDRESSES = st.ip_addresses(v=4).filter(lambda address: not address.is_multicast).map(str)
CONNECTIONS = st.builds(Connection, st.just("IP4"), ADDRESSES)
PORTS = st.integers(0, 65_535)
NAMED = st.sampled_from(
    ["PCMU/8000", "PCMA/8000", "pcmu/8000/1", "opus/48000/2", "telephone-event/8000", "G729/8000"]
)


@st.composite
def media(draw: st.DrawFn) -> MediaDescription:
    kind = draw(st.sampled_from(["audio", "audio", "video", "application"]))
    formats = tuple(str(n) for n in draw(st.lists(st.integers(0, 127), min_size=1, max_size=6, unique=True)))
    attributes: list[tuple[str, str | None]] = []
    for number in formats:
        if draw(st.booleans()):
            attributes.append(("rtpmap", f"{number} {draw(NAMED)}"))
    if draw(st.booleans()):
        attributes.append((draw(st.sampled_from(list(Direction))).value, None))
    attributes += draw(st.lists(st.tuples(WORDS.map(lambda w: f"x-{w}"), st.none() | VALUES), max_size=3))
    return MediaDescription(
        kind,
        draw(PORTS),
        draw(st.sampled_from(["RTP/AVP", "RTP/AVP", "RTP/SAVP", "UDP/TLS/RTP/SAVPF"])),
        formats,
        connection=draw(st.none() | CONNECTIONS),
        attributes=tuple(attributes),
        other=(("i", draw(VALUES)), ("b", "AS:64")) if draw(st.booleans()) else (),
    )


DESCRIPTIONS = st.builds(
    SessionDescription,
    origin=st.builds(Origin, WORDS, st.integers(0, 2**63), st.integers(0, 2**63), st.just("IP4"), ADDRESSES),
    media=st.lists(media(), max_size=5).map(tuple),
    name=VALUES,
    connection=st.none() | CONNECTIONS,
    attributes=st.lists(st.tuples(WORDS.map(lambda w: f"x-{w}"), st.none() | VALUES), max_size=3).map(tuple),
    times=st.sampled_from([(("t", "0 0"),), (("t", "1 2"), ("r", "7d 1h 0")), ()]),
    other=st.sampled_from([(), (("i", "x"), ("u", "http://example.org"), ("b", "AS:1"), ("z", "0 0"))]),
)


@given(DESCRIPTIONS)
def test_round_trip(description: SessionDescription) -> None:
    assert SessionDescription.parse(str(description)) == description
    assert SessionDescription.parse(str(description).encode()) == description


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: f"v=0\r\n{text}".encode()))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        description = SessionDescription.parse(data)
    except SdpError:
        return
    assert SessionDescription.parse(str(description)) == description


@given(DESCRIPTIONS)
def test_an_answer_has_a_place_for_every_stream(offer: SessionDescription) -> None:
    try:
        negotiated = negotiate(offer, address="192.0.2.1", port=6000)
    except NotAcceptable as refusal:
        assert refusal.status == 488
        assert 300 <= refusal.warning <= 399
        return
    answer = negotiated.answer
    assert len(answer.media) == len(offer.media)
    assert [m.kind for m in answer.media] == [m.kind for m in offer.media]
    accepted = [m for m in answer.media if m.port]
    assert len(accepted) == 1
    assert accepted[0].port == 6000
    at = answer.media.index(accepted[0])
    assert offer.media[at].port != 0
    assert set(accepted[0].formats) <= set(offer.media[at].formats)
    assert str(negotiated.payload_type) == accepted[0].formats[0]
    ours, theirs = answer.direction_of(accepted[0]), offer.direction_of(offer.media[at])
    assert not (ours.sends and not theirs.receives)
    assert not (ours.receives and not theirs.sends)
    assert (negotiated.send, negotiated.receive) == (ours.sends, ours.receives)
    assert SessionDescription.parse(str(answer)) == answer


@given(
    st.sampled_from([("PCMU",), ("PCMA",), ("PCMU", "PCMA"), ("PCMA", "PCMU")]),
    st.sampled_from([("PCMU", "PCMA"), ("PCMA", "PCMU"), ("PCMU",)]),
    st.sampled_from([None, 96, 101]),
)
def test_both_sides_agree(theirs: tuple[str, ...], ours: tuple[str, ...], event: int | None) -> None:
    offer = make_offer("198.51.100.7", 4000, theirs, event)
    try:
        answered = negotiate(offer, address="192.0.2.1", port=6000, codecs=ours)
    except NotAcceptable:
        assert not set(theirs) & set(ours)
        return
    accepted = accept_answer(offer, answered.answer)
    assert (accepted.codec, accepted.payload_type, accepted.telephone_event) == (
        answered.codec,
        answered.payload_type,
        answered.telephone_event,
    )
    assert accepted.codec == next(codec for codec in theirs if codec in ours)
    assert answered.remote == ("198.51.100.7", 4000)
    assert accepted.remote == ("192.0.2.1", 6000)
    assert accepted.send
    assert accepted.receive
    assert answered.telephone_event == event


def audio(
    lines: str, *, session: str = "c=IN IP4 198.51.100.7\n", first: str = "m=audio 4000 RTP/AVP 0\n"
) -> str:
    return f"v=0\no=x 7 3 IN IP4 198.51.100.7\ns=-\n{session}t=0 0\n{first}{lines}"


@pytest.mark.parametrize(
    ("text", "send", "receive", "direction"),
    [
        (audio(""), True, True, "sendrecv"),
        (audio("a=sendonly\n"), False, True, "recvonly"),
        (audio("a=recvonly\n"), True, False, "sendonly"),
        (audio("a=inactive\n"), False, False, "inactive"),
        (audio("", session="c=IN IP4 198.51.100.7\na=sendonly\n"), False, True, "recvonly"),
        (audio("", session="c=IN IP4 0.0.0.0\n"), False, True, "recvonly"),
        (audio("c=IN IP4 0.0.0.0\na=inactive\n"), False, False, "inactive"),
    ],
)
def test_hold(text: str, send: bool, receive: bool, direction: str) -> None:
    negotiated = negotiate(SessionDescription.parse(text), address="192.0.2.1", port=6000)
    assert (negotiated.send, negotiated.receive) == (send, receive)
    assert negotiated.answer.media[0].direction == Direction(direction)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("v=0\no=x 1 1 IN IP4 198.51.100.7\ns=-\nt=0 0\n", 304),
        (audio("", first="m=video 4000 RTP/AVP 0\n"), 304),
        (audio("", first="m=audio 0 RTP/AVP 0\n"), 304),
        (audio("", first="m=audio 4000 RTP/SAVP 0\n"), 302),
        (audio("", first="m=audio 4000 RTP/AVP 18 9\n"), 305),
        (audio("a=rtpmap:0 opus/48000/2\n"), 305),
        (audio("", session=""), 301),
        (audio("", session="c=IN IP4 phone.example.org\n"), 301),
        (audio("", session="c=IN IP4 224.2.1.1/127\n"), 301),
        (audio("", session="c=IN IP4 224.2.1.1\n"), 301),
    ],
)
def test_offers_that_cannot_be_answered(text: str, warning: int) -> None:
    with pytest.raises(NotAcceptable) as refusal:
        negotiate(SessionDescription.parse(text), address="192.0.2.1", port=6000)
    assert (refusal.value.status, refusal.value.warning) == (488, warning)


def test_a_dynamic_payload_type_is_answered_as_it_was_offered() -> None:
    offer = SessionDescription.parse(
        audio(
            "a=rtpmap:97 pcma/8000\na=rtpmap:98 TELEPHONE-EVENT/8000\na=ptime:30\n",
            first="m=audio 4000 RTP/AVP 111 97 98 0\n",
        )
    )
    negotiated = negotiate(offer, address="192.0.2.1", port=6000)
    assert (negotiated.codec, negotiated.payload_type, negotiated.telephone_event) == ("PCMA", 97, 98)
    assert negotiated.ptime_ms == 30
    assert negotiated.answer.media[0].formats == ("97", "98")


def test_the_second_audio_stream_is_taken_when_only_it_fits() -> None:
    offer = SessionDescription.parse(
        audio("m=audio 4002 RTP/AVP 8\n", first="m=audio 4000 RTP/AVP 18\n") + "m=video 4004 RTP/AVP 96\n"
    )
    negotiated = negotiate(offer, address="192.0.2.1", port=6000)
    assert [m.port for m in negotiated.answer.media] == [0, 6000, 0]
    assert negotiated.remote == ("198.51.100.7", 4002)
    accepted = accept_answer(offer, negotiated.answer)
    assert accepted.codec == "PCMA"


def test_an_answer_with_another_number_of_streams_is_refused() -> None:
    offer = make_offer("192.0.2.1", 6000, ("PCMU",))
    with pytest.raises(NotAcceptable):
        accept_answer(offer, replace(offer, media=(*offer.media, *offer.media)))
    with pytest.raises(NotAcceptable):
        accept_answer(offer, replace(offer, media=(replace(offer.media[0], port=0),)))


def test_the_version_follows_changes_only() -> None:
    first = make_offer("192.0.2.1", 6000, ("PCMU",))
    assert succeed(first, make_offer("192.0.2.1", 6000, ("PCMU",))).origin == first.origin
    second = succeed(first, make_offer("192.0.2.1", 6002, ("PCMU", "PCMA")))
    assert second.origin.session_id == first.origin.session_id
    assert second.origin.version == first.origin.version + 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=1\n",
        "v=0\ns=-\n",
        "v=0\no=x 1 1 IN IP4 a\no=x 1 1 IN IP4 a\n",
        "v=0\no=x 1 1 IN IP4\n",
        "v=0\no=x -1 1 IN IP4 a\n",
        "v=0\no=x 1 1 IN IP4 a\nc=IN IP4\n",
        audio("", first="m=audio 70000 RTP/AVP 0\n"),
        audio("", first="m=audio x RTP/AVP 0\n"),
        audio("", first="m=audio 4000 RTP/AVP\n"),
        audio("nonsense\n"),
        audio("m=audio 4000 RTP/AVP 0\n" * 40),
        audio("a=x\n" * 20_000),
    ],
)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(SdpError):
        SessionDescription.parse(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(SdpError):
        SessionDescription.parse(b"v=0\r\ns=\xff\r\n")
