"""Offers as other systems make them: their attributes and payload types in minimal descriptions of our own."""

from __future__ import annotations

import pytest

from sipbridge.sdp import (
    MasterKeys,
    Negotiated,
    NotAcceptable,
    SessionDescription,
    SrtpPolicy,
    negotiate,
)

ALL = ("G722", "opus", "PCMU", "PCMA")
KEY_30 = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0"
KEY_28 = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMg=="
HEAD = "v=0\no=- 1 1 IN IP4 198.51.100.7\ns=-\nc=IN IP4 198.51.100.7\nt=0 0\n"

BARESIP = (
    "m=audio 4000 RTP/AVP 96 9 0 8 101\na=rtpmap:96 opus/48000/2\na=fmtp:96 stereo=0;sprop-stereo=0\n"
    "a=rtpmap:9 G722/8000\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\n"
    "a=fmtp:101 0-15\na=rtcp:4001\na=sendrecv\na=label:1\na=rtcp-rsize\na=ssrc:1 cname:x\na=ptime:20\n"
)
ASTERISK = (
    "m=audio 4000 RTP/AVP 0 8 9 101\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\na=rtpmap:9 G722/8000\n"
    "a=rtpmap:101 telephone-event/8000\na=fmtp:101 0-16\na=ptime:20\na=maxptime:150\na=sendrecv\n"
)
ASTERISK_SDES = (
    ASTERISK.replace("RTP/AVP", "RTP/SAVP") + f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}\n"
)
FREESWITCH = (
    "m=audio 4000 RTP/AVP 102 9 0 8 103 101 13\na=rtpmap:102 opus/48000/2\n"
    "a=fmtp:102 useinbandfec=1; maxaveragebitrate=30000; maxplaybackrate=16000; ptime=20; minptime=10; maxptime=40\n"
    "a=rtpmap:9 G722/8000\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\na=rtpmap:103 telephone-event/48000\n"
    "a=fmtp:103 0-15\na=rtpmap:101 telephone-event/8000\na=fmtp:101 0-15\na=rtpmap:13 CN/8000\na=ptime:20\n"
)
FREESWITCH_BOTH = (
    "m=audio 4000 RTP/SAVP 0 101 13\na=rtpmap:101 telephone-event/8000\na=rtpmap:13 CN/8000\n"
    f"a=crypto:1 AEAD_AES_256_GCM_8 inline:{KEY_30}\na=crypto:2 AEAD_AES_128_GCM_8 inline:{KEY_28}\n"
    f"a=crypto:3 AES_256_CM_HMAC_SHA1_80 inline:{KEY_30}\na=crypto:6 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}|2^31\n"
    f"a=crypto:7 AES_CM_128_HMAC_SHA1_32 inline:{KEY_30}\n"
    "m=audio 4000 RTP/AVP 0 101 13\na=rtpmap:101 telephone-event/8000\na=rtpmap:13 CN/8000\n"
)
TWILIO = (
    "m=audio 4000 RTP/AVP 0 8 101\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\n"
    "a=fmtp:101 0-16\na=ptime:20\na=maxptime:20\na=sendrecv\n"
)
TWILIO_SRTP = TWILIO.replace("RTP/AVP", "RTP/SAVP") + f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}\n"
LINPHONE = (
    "a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics\n"
    "m=audio 4000 RTP/AVPF 96 97 98 0 8 101 99\na=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1\n"
    "a=rtpmap:97 speex/16000\na=fmtp:97 vbr=on\na=rtpmap:98 speex/8000\na=fmtp:98 vbr=on\n"
    "a=rtpmap:101 telephone-event/48000\na=rtpmap:99 telephone-event/8000\na=rtcp-mux\n"
    "a=rtcp-fb:* trr-int 1000\na=rtcp-fb:* ccm tmmbr\n"
)
LINPHONE_SDES = LINPHONE.replace("AVPF", "SAVPF") + (
    f"a=crypto:1 AEAD_AES_128_GCM inline:{KEY_28}\na=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}\n"
)
SNOM_OPTIONAL = (
    "m=audio 4000 RTP/AVP 9 0 8 101\na=rtpmap:101 telephone-event/8000\na=ptime:20\n"
    f"a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:{KEY_30}\n"
)
CISCO_MKI = f"m=audio 4000 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30}|2^20|1:4\n"
DTLS = "m=audio 4000 UDP/TLS/RTP/SAVPF 111\na=rtpmap:111 opus/48000/2\na=fingerprint:sha-256 00\na=setup:actpass\n"
IPV6 = "c=IN IP6 2001:db8::7\n"


def keys(first: int = 1) -> MasterKeys:
    drawn = iter(range(first, first + 3))
    return MasterKeys.draw(lambda length: bytes([next(drawn)]) * length)


def answered(
    text: str, srtp: SrtpPolicy = SrtpPolicy.OPTIONAL, *, ours_first: bool = False, address: str = "192.0.2.1"
) -> Negotiated:
    return negotiate(
        SessionDescription.parse(HEAD + text),
        address=address,
        port=6000,
        codecs=ALL,
        ours_first=ours_first,
        srtp=srtp,
        keys=keys(),
    )


@pytest.mark.parametrize(
    ("text", "codec", "event", "noise", "suite", "protocol"),
    [
        (BARESIP, ("opus", 96), (101, 8_000), None, None, "RTP/AVP"),
        (ASTERISK, ("PCMU", 0), (101, 8_000), None, None, "RTP/AVP"),
        (ASTERISK_SDES, ("PCMU", 0), (101, 8_000), None, "AES_CM_128_HMAC_SHA1_80", "RTP/SAVP"),
        (FREESWITCH, ("opus", 102), (103, 48_000), None, None, "RTP/AVP"),
        (FREESWITCH_BOTH, ("PCMU", 0), (101, 8_000), 13, "AES_CM_128_HMAC_SHA1_80", "RTP/SAVP"),
        (TWILIO, ("PCMU", 0), (101, 8_000), None, None, "RTP/AVP"),
        (TWILIO_SRTP, ("PCMU", 0), (101, 8_000), None, "AES_CM_128_HMAC_SHA1_80", "RTP/SAVP"),
        (LINPHONE, ("opus", 96), (101, 48_000), None, None, "RTP/AVPF"),
        (LINPHONE_SDES, ("opus", 96), (101, 48_000), None, "AEAD_AES_128_GCM", "RTP/SAVPF"),
        (SNOM_OPTIONAL, ("G722", 9), (101, 8_000), None, "AES_CM_128_HMAC_SHA1_32", "RTP/AVP"),
    ],
)
def test_what_others_offer_is_answered(
    text: str,
    codec: tuple[str, int],
    event: tuple[int, int],
    noise: int | None,
    suite: str | None,
    protocol: str,
) -> None:
    negotiated = answered(text)
    assert (negotiated.codec, negotiated.payload_type) == codec
    assert (negotiated.telephone_event, negotiated.telephone_event_hz) == event
    assert negotiated.comfort_noise == noise
    assert (negotiated.srtp and negotiated.srtp.suite) == suite
    ours = negotiated.answer.media[0]
    assert (ours.protocol, ours.port, ours.has("crypto")) == (protocol, 6000, suite is not None)
    assert [media.port for media in negotiated.answer.media[1:]] == [0] * (len(negotiated.answer.media) - 1)
    assert SessionDescription.parse(str(negotiated.answer)) == negotiated.answer


def test_the_answer_to_freeswitch_word_by_word() -> None:
    assert str(answered(FREESWITCH).answer.media[0].direction) == "sendrecv"
    assert list(answered(FREESWITCH).answer.media[0].lines()) == [
        "m=audio 6000 RTP/AVP 102 103",
        "a=rtpmap:102 opus/48000/2",
        "a=fmtp:102 maxplaybackrate=16000;stereo=0;useinbandfec=1",
        "a=rtpmap:103 telephone-event/48000",
        "a=fmtp:103 0-15",
        "a=ptime:20",
        "a=sendrecv",
    ]
    opus = answered(FREESWITCH).opus
    assert opus is not None
    assert (opus.max_playback_rate_hz, opus.max_average_bitrate, opus.use_inband_fec) == (
        16_000,
        30_000,
        True,
    )
    assert (opus.use_dtx, opus.cbr, opus.stereo) == (False, False, False)


def test_our_order_decides_where_it_is_told_to() -> None:
    assert answered(ASTERISK, ours_first=True).codec == "G722"
    assert answered(FREESWITCH, ours_first=True).comfort_noise == 13
    assert answered(TWILIO, ours_first=True).codec == "PCMU"


def test_the_answer_has_the_tag_and_a_key_of_ours() -> None:
    negotiated = answered(FREESWITCH_BOTH)
    assert negotiated.srtp is not None
    assert negotiated.srtp.their_inline_key == KEY_30
    assert negotiated.srtp.our_inline_key == keys().by_suite["AES_CM_128_HMAC_SHA1_80"]
    line = negotiated.answer.media[0].attribute("crypto")
    assert line == f"6 AES_CM_128_HMAC_SHA1_80 inline:{negotiated.srtp.our_inline_key}"


def test_what_the_peer_says_about_rtcp() -> None:
    assert answered(BARESIP).rtcp.remote == ("198.51.100.7", 4001)
    assert answered(BARESIP).rtcp.reduced_size
    assert answered(BARESIP).answer.media[0].has("rtcp-rsize")
    linphone = answered(LINPHONE).rtcp
    assert (linphone.mux, linphone.remote, linphone.xr_voip_metrics) == (True, ("198.51.100.7", 4000), True)
    assert answered(LINPHONE).answer.media[0].has("rtcp-mux")
    assert not answered(ASTERISK).answer.media[0].has("rtcp-mux")


@pytest.mark.parametrize(
    ("text", "policy", "warning"),
    [
        (ASTERISK_SDES, SrtpPolicy.OFF, 302),
        (ASTERISK, SrtpPolicy.REQUIRED, 302),
        (CISCO_MKI, SrtpPolicy.OPTIONAL, 302),
        (CISCO_MKI, SrtpPolicy.REQUIRED, 302),
        (DTLS, SrtpPolicy.OPTIONAL, 302),
        (TWILIO.replace("maxptime:20", "maxptime:10"), SrtpPolicy.OPTIONAL, 399),
        (TWILIO + IPV6, SrtpPolicy.OPTIONAL, 301),
        (TWILIO + "c=IN IP6 198.51.100.7\n", SrtpPolicy.OPTIONAL, 301),
        (TWILIO + "c=IN IP6 fe80::1%eth0\n", SrtpPolicy.OPTIONAL, 301),
        (TWILIO + "c=IN IP6 ff02::1\n", SrtpPolicy.OPTIONAL, 301),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_reason(
    text: str, policy: SrtpPolicy, warning: int
) -> None:
    with pytest.raises(NotAcceptable) as refusal:
        answered(text, policy)
    assert (refusal.value.status, refusal.value.warning) == (488, warning)


def test_optional_keys_are_ignored_where_srtp_is_off() -> None:
    plain = answered(SNOM_OPTIONAL, SrtpPolicy.OFF)
    assert plain.srtp is None
    assert not plain.answer.media[0].has("crypto")
    assert answered(FREESWITCH_BOTH, SrtpPolicy.OFF).answer.media[0].port == 0
    assert answered(FREESWITCH_BOTH, SrtpPolicy.OFF).answer.media[1].port == 6000


@pytest.mark.parametrize("text", [BARESIP, TWILIO, LINPHONE_SDES])
def test_an_offer_on_ipv6_is_answered_on_ipv6(text: str) -> None:
    negotiated = answered(text + IPV6, address="2001:db8::1")
    assert negotiated.remote == ("2001:db8::7", 4000)
    assert negotiated.rtcp.remote[0] == "2001:db8::7"
    assert "c=IN IP6 2001:db8::1\r\n" in str(negotiated.answer)
    assert negotiated.answer.origin.address_type == "IP6"
