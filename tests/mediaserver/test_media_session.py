"""What the engine is told of an agreement, and which address of ours a peer is told."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import count

import pytest

from config.node import MediaConfig
from mediaserver.media_session import (
    MediaPolicy,
    StreamArguments,
    media_threads,
    stream_arguments,
    thread_arguments,
    unconfirmed_arguments,
)
from sipbridge.sdp import SessionDescription, SrtpPolicy

KEY = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVoxMjM0"
HEAD = "v=0\no=- 1 1 IN IP4 198.51.100.7\ns=-\nc=IN IP4 198.51.100.7\nt=0 0\nm=audio 4000 "


def policy(**changes: object) -> MediaPolicy:
    numbers = count(1)
    values: dict[str, object] = {
        "host": "0.0.0.0",
        "codecs": ("G722", "opus", "PCMU", "PCMA"),
        "srtp": SrtpPolicy.OPTIONAL,
        "random_bytes": lambda length: bytes([next(numbers)]) * length,
    }
    return MediaPolicy(**(values | changes))  # type: ignore[arg-type]


def told(stream: str, **changes: object) -> StreamArguments:
    offer = SessionDescription.parse(HEAD + stream)
    return stream_arguments(policy(**changes).answer(offer, "192.0.2.1", 6000))


PLAIN: StreamArguments = {
    "remote": ("198.51.100.7", 4000),
    "codec": "PCMU",
    "payload_type": 0,
    "telephone_event": None,
    "send": True,
    "receive": True,
}


@pytest.mark.parametrize(
    ("stream", "more"),
    [
        ("RTP/AVP 0\n", {}),
        ("RTP/AVP 0\na=sendonly\n", {"send": False}),
        ("RTP/AVP 0 13\n", {"comfort_noise": 13}),
        ("RTP/AVP 0 101\na=rtpmap:101 telephone-event/8000\n", {"telephone_event": 101}),
        (
            "RTP/AVP 96 101\na=rtpmap:96 opus/48000/2\na=rtpmap:101 telephone-event/48000\n",
            {"codec": "opus", "payload_type": 96, "telephone_event": 101, "telephone_event_hz": 48_000},
        ),
        ("RTP/AVP 9\na=rtcp:4001\n", {"codec": "G722", "payload_type": 9}),
        ("RTP/AVP 0\na=rtcp:5000\n", {"rtcp_remote": ("198.51.100.7", 5000)}),
        ("RTP/AVP 0\na=rtcp:5000\na=rtcp-mux\n", {"rtcp_mux": True}),
        ("RTP/AVP 0\na=rtcp-rsize\na=rtcp-xr:voip-metrics\n", {"rtcp_xr": True, "rtcp_reduced_size": True}),
        ("RTP/AVP 0\nb=RS:0\nb=RR:0\na=rtcp-mux\n", {"rtcp": False}),
        (
            f"RTP/SAVP 0\na=crypto:4 AES_CM_128_HMAC_SHA1_32 inline:{KEY}\n",
            # The third key of the three that were drawn.
            {"srtp": ("AES_CM_128_HMAC_SHA1_32", "AwMD" * 10, KEY)},
        ),
    ],
)
def test_the_engine_is_told_what_differs_from_its_defaults(stream: str, more: dict[str, object]) -> None:
    assert told(stream) == {**PLAIN, **more}


@pytest.mark.parametrize("direction", ["sendrecv", "sendonly", "recvonly", "inactive"])
@pytest.mark.parametrize(
    "reports",
    ["", "a=rtcp-mux\n", "a=rtcp:5000\n", "b=RS:0\nb=RR:0\n", "a=rtcp-rsize\n", "a=rtcp-xr:voip-metrics\n"],
)
def test_before_the_ack_the_engine_listens_and_sends_nothing(direction: str, reports: str) -> None:
    offer = SessionDescription.parse(
        HEAD + f"RTP/AVP 0 101\n{reports}a=rtpmap:101 telephone-event/8000\na={direction}\n"
    )
    negotiated = policy().answer(offer, "192.0.2.1", 6000)
    agreed, unconfirmed = stream_arguments(negotiated), unconfirmed_arguments(negotiated)
    assert (unconfirmed["send"], unconfirmed["rtcp"]) == (False, False)
    assert unconfirmed["receive"] == agreed["receive"]
    assert {**unconfirmed, **agreed} == {**agreed, "rtcp": agreed.get("rtcp", False)}


def test_the_configuration_becomes_the_policy() -> None:
    config = MediaConfig(
        codecs=("opus", "PCMA"),
        codec_order="ours",
        srtp="required",
        threads=0,
        realtime="off",
        advertised_host="203.0.113.1",
        advertised_host_ipv6="2001:db8::1",
    )
    made = MediaPolicy.of(config)
    assert (made.codecs, made.ours_first, made.srtp) == (("opus", "PCMA"), True, SrtpPolicy.REQUIRED)
    assert thread_arguments(config, 3) == {
        "threads": 2,
        "realtime": False,
        "public_addresses": ["203.0.113.1", "2001:db8::1"],
    }
    assert thread_arguments(MediaConfig(threads=1, host="192.0.2.1"), 2) == {}
    assert made.offer("192.0.2.1", 6000).media[0].protocol == "RTP/SAVP"


@pytest.mark.parametrize(
    ("configured", "ports", "cores", "threads"),
    [(0, 8, 1, 1), (0, 8, 2, 1), (0, 8, 8, 7), (0, 8, 64, 8), (0, 256, 256, 64), (2, 8, 2, 2), (3, 8, 1, 3)],
)
def test_a_core_is_left_to_the_rest_unless_the_operator_wants_it(
    configured: int, ports: int, cores: int, threads: int
) -> None:
    assert media_threads(MediaConfig(threads=configured, port_count=ports), cores) == threads


def test_browsers_are_told_an_address_that_can_be_reached() -> None:
    arguments = thread_arguments(MediaConfig(threads=1), 2)
    (address,) = arguments["public_addresses"]
    assert not ip_address(address).is_unspecified


def test_every_agreement_has_keys_of_its_own() -> None:
    one = MediaPolicy("127.0.0.1", srtp=SrtpPolicy.REQUIRED)
    first, second = one.offer("127.0.0.1", 6000), one.offer("127.0.0.1", 6000)
    assert first.media[0].attribute("crypto") != second.media[0].attribute("crypto")


@pytest.mark.parametrize(
    ("host", "public", "peer", "address"),
    [
        ("127.0.0.1", (), "127.0.0.9", "127.0.0.1"),
        ("192.0.2.1", (), "198.51.100.7", "192.0.2.1"),
        ("192.0.2.1", ("203.0.113.1",), "198.51.100.7", "203.0.113.1"),
        ("::", ("203.0.113.1", "2001:db8::1"), "198.51.100.7", "203.0.113.1"),
        ("::", ("203.0.113.1", "2001:db8::1"), "2001:db8::7", "2001:db8::1"),
        ("0.0.0.0", (), "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", (), "2001:db8::7", "127.0.0.1"),
        ("192.0.2.1", (), "2001:db8::7", "192.0.2.1"),
        ("::", (), "127.0.0.1", "127.0.0.1"),
    ],
)
def test_the_address_that_a_peer_is_told(host: str, public: tuple[str, ...], peer: str, address: str) -> None:
    assert policy(host=host, public_addresses=public).address_towards(peer) == address
