"""SRTP keys in offers and answers: what is chosen, what is ignored, and that nothing shows a key."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipbridge.description import MediaDescription
from sipbridge.sdes import MASTER_BYTES, Crypto, MasterKeys, accept, usable
from sipbridge.sdp import (
    Negotiated,
    NotAcceptable,
    SdpError,
    SessionDescription,
    SrtpPolicy,
    accept_answer,
    make_offer,
    negotiate,
)
from tests.sipbridge.test_interop_offers import KEY_28, KEY_30, keys

CODECS = ("PCMU", "PCMA", "G722", "opus")
SUITE = "AES_CM_128_HMAC_SHA1_80"
GCM = "AEAD_AES_128_GCM"
CODEC_LISTS = st.permutations(CODECS).flatmap(lambda order: st.integers(1, 4).map(lambda n: tuple(order[:n])))


def media(*lines: str) -> MediaDescription:
    return MediaDescription("audio", 4000, "RTP/SAVP", ("0",), attributes=tuple(("crypto", x) for x in lines))


@given(st.sampled_from(list(MASTER_BYTES)), st.integers(0, 999_999_999), st.data())
def test_a_line_round_trips(suite: str, tag: int, data: st.DataObject) -> None:
    raw = data.draw(st.binary(min_size=MASTER_BYTES[suite], max_size=MASTER_BYTES[suite]))
    crypto = Crypto(str(tag), suite, base64.b64encode(raw).decode())
    assert Crypto.parse(crypto.line()[1] or "") == crypto


@given(st.text(max_size=80) | st.text(max_size=40).map(lambda text: f"1 {SUITE} inline:{text}"))
def test_any_text_is_a_usable_line_or_none(text: str) -> None:
    found = Crypto.parse(text)
    if found is not None:
        assert len(base64.b64decode(found.inline_key, validate=True)) == MASTER_BYTES[found.suite]


@pytest.mark.parametrize(
    "line",
    [
        f"1 {SUITE} inline:{KEY_30}",
        f"1 {SUITE} inline:{KEY_30}|2^48",
        f"1 {SUITE} inline:{KEY_30}|2^18",
        f"1 {SUITE} inline:{KEY_30}|262144",
        f"1 {SUITE.lower()} INLINE:{KEY_30} WSH=128",
        f"1  {SUITE}  inline:{KEY_30} -future=1",
        f"1 {GCM} inline:{KEY_28}",
        f"1 {GCM} inline:{KEY_28.rstrip('=')}",
    ],
)
def test_lines_that_can_be_used(line: str) -> None:
    found = Crypto.parse(line)
    assert found is not None
    assert found.inline_key in (KEY_30, KEY_28)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1",
        f"1 {SUITE}",
        f"x {SUITE} inline:{KEY_30}",
        f"1234567890 {SUITE} inline:{KEY_30}",
        f"1 AES_256_CM_HMAC_SHA1_80 inline:{KEY_30}",
        f"1 {SUITE} inline:{KEY_28}",
        f"1 {GCM} inline:{KEY_30}",
        f"1 {SUITE} inline:{KEY_30[:-1]}*",
        f"1 {SUITE} uri:{KEY_30}",
        f"1 {SUITE} {KEY_30}",
        f"1 {SUITE} inline:{KEY_30}|2^20|1:4",
        f"1 {SUITE} inline:{KEY_30}|1:4",
        f"1 {SUITE} inline:{KEY_30};inline:{KEY_30}",
        f"1 {SUITE} inline:{KEY_30}|2^17",
        f"1 {SUITE} inline:{KEY_30}|0",
        f"1 {SUITE} inline:{KEY_30} KDR=1",
        f"1 {SUITE} inline:{KEY_30} UNENCRYPTED_SRTP",
        f"1 {SUITE} inline:{KEY_30} UNENCRYPTED_SRTCP",
        f"1 {SUITE} inline:{KEY_30} UNAUTHENTICATED_SRTP",
        f"1 {SUITE} inline:{KEY_30} FEC_ORDER=FEC_SRTP",
        f"1 {SUITE} inline:{KEY_30} future=1",
    ],
)
def test_lines_that_ask_for_what_we_do_not_have(line: str) -> None:
    assert Crypto.parse(line) is None


def test_the_first_usable_line_is_taken_and_a_tag_counts_once() -> None:
    offered = media(
        f"1 AES_256_CM_HMAC_SHA1_80 inline:{KEY_30}",
        f"2 AES_CM_128_HMAC_SHA1_32 inline:{KEY_30}",
        f"2 {SUITE} inline:{KEY_30}",
        f"1 {SUITE} inline:{KEY_30}",
        f"3 {SUITE} inline:{KEY_30}",
    )
    assert list(usable(offered)) == ["2", "3"]
    accepted = accept(offered, keys())
    assert accepted is not None
    assert (accepted[0].tag, accepted[0].suite) == ("2", "AES_CM_128_HMAC_SHA1_32")


@given(
    CODEC_LISTS,
    CODEC_LISTS,
    st.sampled_from(list(SrtpPolicy)),
    st.sampled_from(list(SrtpPolicy)),
    st.sampled_from([("192.0.2.1", "198.51.100.7"), ("2001:db8::1", "2001:db8::7")]),
)
def test_both_sides_agree_on_codec_keys_and_rtcp(
    theirs: tuple[str, ...],
    ours: tuple[str, ...],
    their_policy: SrtpPolicy,
    our_policy: SrtpPolicy,
    hosts: tuple[str, str],
) -> None:
    offer = make_offer(hosts[0], 4000, theirs, srtp=their_policy, keys=keys(1))
    assert SessionDescription.parse(str(offer)) == offer
    try:
        answered = negotiate(offer, address=hosts[1], port=6000, codecs=ours, srtp=our_policy, keys=keys(9))
    except NotAcceptable:
        policies = {their_policy, our_policy}
        assert not set(theirs) & set(ours) or policies == {SrtpPolicy.OFF, SrtpPolicy.REQUIRED}
        return
    accepted = accept_answer(offer, answered.answer)
    for name in ("codec", "clock_hz", "payload_type", "telephone_event", "telephone_event_hz"):
        assert getattr(accepted, name) == getattr(answered, name)
    assert accepted.telephone_event_hz == accepted.clock_hz
    assert accepted.codec == next(codec for codec in theirs if codec in ours)
    assert (accepted.rtcp.mux, answered.rtcp.mux) == (True, True)
    assert (accepted.rtcp.remote, answered.rtcp.remote) == ((hosts[1], 6000), (hosts[0], 4000))
    assert (
        (accepted.srtp is None) == (answered.srtp is None) == (SrtpPolicy.OFF in (their_policy, our_policy))
    )
    if accepted.srtp is not None and answered.srtp is not None:
        assert accepted.srtp.suite == answered.srtp.suite
        assert accepted.srtp.our_inline_key == answered.srtp.their_inline_key
        assert accepted.srtp.their_inline_key == answered.srtp.our_inline_key
        assert accepted.srtp.our_inline_key != accepted.srtp.their_inline_key


def test_a_repeated_offer_keeps_the_keys_and_a_new_key_brings_a_new_one() -> None:
    offer = make_offer("198.51.100.7", 4000, ("PCMU",), srtp=SrtpPolicy.REQUIRED, keys=keys(1))
    first = negotiate(offer, address="192.0.2.1", port=6000, srtp=SrtpPolicy.REQUIRED, keys=keys(20))
    again = negotiate(
        offer, address="192.0.2.1", port=6000, srtp=SrtpPolicy.REQUIRED, keys=keys(30), previous=first
    )
    assert again == first
    renewed = make_offer("198.51.100.7", 4000, ("PCMU",), srtp=SrtpPolicy.REQUIRED, keys=keys(5))
    other = negotiate(
        renewed, address="192.0.2.1", port=6000, srtp=SrtpPolicy.REQUIRED, keys=keys(40), previous=again
    )
    assert first.srtp is not None
    assert other.srtp is not None
    assert other.srtp.our_inline_key != first.srtp.our_inline_key
    assert other.srtp.their_inline_key != first.srtp.their_inline_key


@given(CODEC_LISTS, st.sampled_from(list(SrtpPolicy)), st.sampled_from(list(SrtpPolicy)), st.booleans())
def test_what_is_encrypted_is_never_plain_again(
    theirs: tuple[str, ...], first_policy: SrtpPolicy, later_policy: SrtpPolicy, ours_to_offer: bool
) -> None:
    """Whoever offers: the first agreement may be plain, a later one only where the one before was."""

    def agree(policy: SrtpPolicy, number: int, previous: Negotiated | None = None) -> Negotiated:
        if ours_to_offer:
            offer = make_offer("192.0.2.1", 6000, CODECS, srtp=SrtpPolicy.OPTIONAL, keys=keys(number))
            answer = negotiate(
                offer,
                address="198.51.100.7",
                port=4000,
                codecs=theirs,
                srtp=policy,
                keys=keys(number + 3),
            ).answer
            return accept_answer(offer, answer, previous)
        offer = make_offer("198.51.100.7", 4000, theirs, srtp=policy, keys=keys(number))
        return negotiate(
            offer,
            address="192.0.2.1",
            port=6000,
            codecs=CODECS,
            srtp=SrtpPolicy.OPTIONAL,
            keys=keys(number + 3),
            previous=previous,
        )

    first = agree(first_policy, 1)
    assert (first.srtp is None) == (first_policy is SrtpPolicy.OFF)
    if first.srtp is None or later_policy is not SrtpPolicy.OFF:
        assert (agree(later_policy, 11, first).srtp is None) == (later_policy is SrtpPolicy.OFF)
        return
    with pytest.raises(NotAcceptable, match="encrypted") as refusal:
        agree(later_policy, 11, first)
    assert (refusal.value.status, refusal.value.warning) == (488, 302)


def test_of_two_streams_the_one_that_keeps_the_session_encrypted_is_taken() -> None:
    secure = make_offer("198.51.100.7", 4000, ("PCMU",), srtp=SrtpPolicy.REQUIRED, keys=keys(1))
    plain = make_offer("198.51.100.7", 4002, ("PCMU",))
    first = negotiate(secure, address="192.0.2.1", port=6000, srtp=SrtpPolicy.OPTIONAL, keys=keys(9))
    both = replace(secure, media=(*plain.media, *secure.media))
    later = negotiate(
        both, address="192.0.2.1", port=6000, srtp=SrtpPolicy.OPTIONAL, keys=keys(9), previous=first
    )
    assert later.srtp == first.srtp
    assert [stream.port for stream in later.answer.media] == [0, 6000]


def test_an_answer_must_take_one_of_our_keys() -> None:
    offer = make_offer("192.0.2.1", 6000, ("PCMU",), srtp=SrtpPolicy.REQUIRED, keys=keys(1))
    good = negotiate(offer, address="198.51.100.7", port=4000, srtp=SrtpPolicy.REQUIRED, keys=keys(9)).answer
    (stream,) = good.media

    def with_crypto(*lines: str) -> SessionDescription:
        others = tuple(attribute for attribute in stream.attributes if attribute[0] != "crypto")
        changed = replace(stream, attributes=(*others, *(("crypto", line) for line in lines)))
        return replace(good, media=(changed,))

    assert accept_answer(offer, with_crypto(f"1 {SUITE} inline:{KEY_30}")).srtp is not None
    for lines in (
        (),
        (f"1 {GCM} inline:{KEY_28}",),
        (f"9 {SUITE} inline:{KEY_30}",),
        (f"1 {SUITE} inline:{KEY_30}", f"2 {GCM} inline:{KEY_28}"),
        (f"1 {SUITE} inline:{KEY_30}|2^20|1:4",),
    ):
        with pytest.raises(NotAcceptable) as refusal:
            accept_answer(offer, with_crypto(*lines))
        assert KEY_30 not in str(refusal.value)
    with pytest.raises(NotAcceptable):
        accept_answer(offer, replace(good, media=(replace(stream, protocol="RTP/AVP"),)))


def test_no_repr_and_no_error_shows_a_key() -> None:
    drawn = keys(1)
    offer = make_offer("198.51.100.7", 4000, ("PCMU",), srtp=SrtpPolicy.REQUIRED, keys=drawn)
    negotiated = negotiate(offer, address="192.0.2.1", port=6000, srtp=SrtpPolicy.REQUIRED, keys=keys(9))
    secrets = {*drawn.by_suite.values(), *keys(9).by_suite.values()}
    shown = [
        repr(each) for each in (drawn, offer, negotiated, negotiated.answer, *usable(offer.media[0]).values())
    ]
    assert "crypto" in repr(offer)
    with pytest.raises(SdpError) as refusal:
        SessionDescription.parse(str(offer).replace("a=crypto:1", "crypto:1"))
    shown.append(repr(refusal.value))
    assert not [text for text in shown for secret in secrets if secret[:12] in text]


def test_keys_are_drawn_for_each_suite() -> None:
    drawn = keys()
    lengths = {suite: len(base64.b64decode(key)) for suite, key in drawn.by_suite.items()}
    assert lengths == MASTER_BYTES
    assert len(set(drawn.by_suite.values())) == len(MASTER_BYTES)
    assert isinstance(drawn, MasterKeys)
