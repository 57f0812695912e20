"""Attributes of a stream: formats, packet times, RTCP; and that nothing a peer writes there breaks us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipbridge.errors import UsageError
from sipbridge.sdp import (
    CODECS,
    Negotiated,
    NotAcceptable,
    OpusFormat,
    SessionDescription,
    SrtpPolicy,
    make_offer,
    negotiate,
)
from tests.sipbridge.test_interop_offers import HEAD, answered, keys

NUMBERS = st.sampled_from(["0", "8", "9", "13", "96", "97", "64", "72", "127", "128", "x"])
VALUES = {
    "rtpmap": st.tuples(NUMBERS, st.sampled_from(["opus/48000/2", "OPUS/48000", "G722/8000", "G722/16000",
        "telephone-event/8000", "telephone-event/48000", "telephone-event", "CN/8000", "CN/16000", "PCMU/8000/2", "/", ""])
    ).map(" ".join),
    "fmtp": st.tuples(NUMBERS, st.text(";=/ 01useinbandfcxrt", max_size=30)).map(" ".join),
    "crypto": st.text("0123 AES_CM128HMSH:inline|^=", max_size=60),
    "rtcp": st.text("0123456789 INP46.:", max_size=30),
    "rtcp-xr": st.text("voip-metrics= ", max_size=30),
    "ptime": st.text("0123456789.-", max_size=6),
    "maxptime": st.text("0123456789.-", max_size=6),
    "rtcp-mux": st.just(""),
    "rtcp-rsize": st.just(""),
}  # fmt: skip
LINES = st.sampled_from(list(VALUES)).flatmap(
    lambda name: VALUES[name].map(lambda value: f"a={name}:{value}")
)


@given(
    st.lists(NUMBERS, min_size=1, max_size=6),
    st.sampled_from(["RTP/AVP", "RTP/SAVP", "rtp/avpf", "RTP/SAVPF"]),
    st.lists(LINES | st.sampled_from(["b=RS:0", "b=RR:0", "b=RS:x", "b=RR:800"]), max_size=12),
    st.sampled_from([4000, 65_535]),
    st.sampled_from(list(SrtpPolicy)),
)
def test_any_attributes_are_answered_or_refused(
    formats: list[str], protocol: str, lines: list[str], port: int, policy: SrtpPolicy
) -> None:
    body = "\n".join([f"m=audio {port} {protocol} {' '.join(formats)}", *lines, ""])
    try:
        negotiated = answered(body, policy)
    except NotAcceptable as refusal:
        assert (refusal.status, refusal.warning in (301, 302, 305, 399)) == (488, True)
        return
    ours = negotiated.answer.media[0]
    assert SessionDescription.parse(str(negotiated.answer)) == negotiated.answer
    assert set(ours.formats) <= set(formats)
    assert negotiated.clock_hz == CODECS[negotiated.codec].clock_hz
    assert (negotiated.srtp is not None) == ours.has("crypto")
    assert 0 <= negotiated.rtcp.remote[1] <= 65_535
    assert negotiated.rtcp.mux == ours.has("rtcp-mux")
    if negotiated.rtcp.mux:
        assert not {64 <= int(number) < 96 for number in ours.formats} & {True}


def stream(*lines: str, formats: str = "0") -> Negotiated:
    return answered("\n".join([f"m=audio 4000 RTP/AVP {formats}", *lines, ""]))


@pytest.mark.parametrize(
    ("lines", "remote", "enabled"),
    [
        ((), ("198.51.100.7", 4001), True),
        (("a=rtcp:5000",), ("198.51.100.7", 5000), True),
        (("a=rtcp:5000 IN IP4 198.51.100.9",), ("198.51.100.9", 5000), True),
        (("a=rtcp:9 IN IP4 0.0.0.0",), ("198.51.100.7", 9), True),
        (("a=rtcp:5000 IN IP6 2001:db8::1",), ("198.51.100.7", 4001), True),
        (("a=rtcp:5000 IN IP4 phone",), ("198.51.100.7", 4001), True),
        (("a=rtcp:70000",), ("198.51.100.7", 4001), True),
        (("a=rtcp:0",), ("198.51.100.7", 4001), True),
        (("a=rtcp",), ("198.51.100.7", 4001), True),
        (("a=rtcp-mux", "a=rtcp:5000"), ("198.51.100.7", 4000), True),
        (("b=RS:0", "b=RR:0"), ("198.51.100.7", 4001), False),
        (("b=RS:0",), ("198.51.100.7", 4001), True),
        (("b=RS:0", "b=RR:600"), ("198.51.100.7", 4001), True),
    ],
)
def test_where_rtcp_goes(lines: tuple[str, ...], remote: tuple[str, int], enabled: bool) -> None:
    negotiated = stream(*lines)
    assert (negotiated.rtcp.remote, negotiated.rtcp.enabled) == (remote, enabled)
    assert ("b=RS:0" in str(negotiated.answer)) is not enabled


def test_bandwidth_of_the_session_counts_where_the_stream_says_nothing() -> None:
    head = HEAD.replace("t=0 0", "b=RS:0\nb=RR:0\nt=0 0")
    silent = SessionDescription.parse(head + "m=audio 4000 RTP/AVP 0\n")
    assert not negotiate(silent, address="192.0.2.1", port=6000).rtcp.enabled
    loud = SessionDescription.parse(head + "m=audio 4000 RTP/AVP 0\nb=RS:800\n")
    assert negotiate(loud, address="192.0.2.1", port=6000).rtcp.enabled


def test_the_last_port_has_none_above_it() -> None:
    offer = SessionDescription.parse(HEAD + "m=audio 65535 RTP/AVP 0\n")
    assert not negotiate(offer, address="192.0.2.1", port=6000).rtcp.enabled


def test_payload_types_that_look_like_rtcp_are_not_multiplexed() -> None:
    negotiated = stream("a=rtpmap:72 opus/48000/2", "a=rtcp-mux", formats="72")
    assert (negotiated.payload_type, negotiated.rtcp.mux) == (72, False)


def test_an_offer_without_rtcp_gets_none() -> None:
    offer = make_offer("198.51.100.7", 4000, ("PCMU",), rtcp=False)
    answered = negotiate(offer, address="192.0.2.1", port=6000)
    assert not answered.rtcp.enabled
    assert SessionDescription.parse(str(offer)) == offer


def test_our_rtcp_port_is_said_where_it_is_another() -> None:
    offer = make_offer("198.51.100.7", 4000, ("PCMU",), rtcp_port=4000)
    assert offer.media[0].attribute("rtcp") == "4000"
    assert make_offer("198.51.100.7", 4000, ("PCMU",), rtcp_port=4001).media[0].attribute("rtcp") is None
    plain = SessionDescription.parse(HEAD + "m=audio 4000 RTP/AVP 0\n")
    ours = negotiate(plain, address="192.0.2.1", port=6000, rtcp_port=6100).answer.media[0]
    assert ours.attribute("rtcp") == "6100"


@pytest.mark.parametrize(
    ("lines", "formats", "event", "noise"),
    [
        ((), "0 13", (None, 8_000), 13),
        (("a=rtpmap:98 CN/8000",), "9 98", (None, 8_000), 98),
        (("a=rtpmap:98 CN/16000",), "9 98", (None, 8_000), None),
        (("a=rtpmap:96 opus/48000/2",), "96 13", (None, 8_000), None),
        (("a=rtpmap:101 telephone-event/8000", "a=rtpmap:96 opus/48000/2"), "96 101", (101, 8_000), None),
        (
            ("a=rtpmap:101 telephone-event/48000", "a=rtpmap:102 telephone-event/8000"),
            "9 101 102",
            (102, 8_000),
            None,
        ),
        (("a=rtpmap:101 telephone-event/44100",), "0 101", (None, 8_000), None),
    ],
)
def test_what_goes_with_the_codec(
    lines: tuple[str, ...], formats: str, event: tuple[int | None, int], noise: int | None
) -> None:
    negotiated = stream(*lines, formats=formats)
    assert (negotiated.telephone_event, negotiated.telephone_event_hz) == event
    assert negotiated.comfort_noise == noise


@pytest.mark.parametrize(
    ("limit", "fits"), [("20", True), ("60", True), ("10", False), ("0", True), ("x", True)]
)
def test_a_wish_for_another_packet_time_is_heard_and_a_limit_below_ours_refused(
    limit: str, fits: bool
) -> None:
    assert stream("a=ptime:30").ptime_ms == 30
    assert stream("a=ptime:30").answer.media[0].attribute("ptime") == "20"
    if fits:
        assert stream(f"a=maxptime:{limit}").ptime_ms == 20
        return
    with pytest.raises(NotAcceptable, match="20 ms"):
        stream(f"a=maxptime:{limit}")


def test_opus_parameters() -> None:
    assert OpusFormat.parse("") == OpusFormat()
    assert OpusFormat.parse(
        " MaxPlaybackRate=8000 ;usedtx=1;cbr=1; stereo=1;;x=y;useinbandfec = 1"
    ) == OpusFormat(8_000, None, True, True, True, True)
    assert OpusFormat.parse("maxplaybackrate=1;maxaveragebitrate=999999;usedtx=2") == OpusFormat()


def test_our_offer_has_a_telephone_event_on_each_clock() -> None:
    offer = make_offer("192.0.2.1", 6000, ("opus", "G722", "PCMU"), srtp=SrtpPolicy.OPTIONAL, keys=keys())
    lines = list(offer.media[0].lines())
    assert lines[0] == "m=audio 6000 RTP/AVP 111 9 0 110 101"
    assert "a=rtpmap:110 telephone-event/48000" in lines
    assert "a=rtpmap:101 telephone-event/8000" in lines
    assert "a=rtcp-mux" in lines
    assert len([line for line in lines if line.startswith("a=crypto:")]) == 3


def test_a_codec_that_is_none_of_ours_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(UsageError, match="G729"):
        make_offer("192.0.2.1", 6000, ("G729",))
    with pytest.raises(UsageError, match="none given"):
        make_offer("192.0.2.1", 6000, ())
    with pytest.raises(UsageError, match="keys"):
        make_offer("192.0.2.1", 6000, ("PCMU",), srtp=SrtpPolicy.REQUIRED)
