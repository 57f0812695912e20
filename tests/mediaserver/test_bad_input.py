"""What must not happen: bad input from the network or from an operator that hurts a call or goes without an answer."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mediaserver.errors import StartupError
from mediaserver.softphone.speech import Utterance
from sipbridge import CallAnswered, CallFailed, SipAddress, SipEndpoint, SipEndpointConfig, SipEvent, SipUri
from tests.sim.node import NUMBER, RunningNode, running_node

SEED = 20_261_124
AUDIO_IN_G729 = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\n"
)
VIDEO_ONLY = AUDIO_IN_G729.replace("m=audio 4000 RTP/AVP 18", "m=video 4000 RTP/AVP 31")
TRUNCATED_INVITE = (
    b"INVITE sip:+15550199@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1\r\nFrom: <sip:a"
)


def _garbage(seed: int, count: int) -> list[bytes]:
    print(f"seed {seed}")
    source = random.Random(seed)
    return [source.randbytes(source.randrange(1, 1_400)) for _ in range(count)]


async def _pelt(target: tuple[str, int], datagrams: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.setblocking(False)
        loop = asyncio.get_running_loop()
        for datagram in datagrams:
            await loop.sock_sendto(stranger, datagram, target)


async def test_garbage_on_every_port_disturbs_no_call(tmp_path: Path, question: Utterance) -> None:
    async with running_node(tmp_path) as running:
        talking = asyncio.Event()
        call = asyncio.create_task(running.call(question, on_line=lambda _: talking.set()))
        async with asyncio.timeout(10):
            await talking.wait()
        garbage = [*_garbage(SEED, 200), TRUNCATED_INVITE, b"", b"\r\n\r\n", b"\x80\x00" + bytes(170)]
        await _pelt(("127.0.0.1", running.sip_port), garbage)
        for port in running.node.media_ports:
            await _pelt(("127.0.0.1", port), garbage)
        report = await call
        assert report.success, report
        assert report.packets_lost == 0
        stats = running.node.media_stats()
        dropped = sum(value for name, value in stats.items() if name.startswith("dropped_"))
        assert dropped >= len(running.node.media_ports) * 200
        assert (await running.call(question)).success


async def _invite(running: RunningNode, sdp: str) -> SipEvent:
    """What becomes of an INVITE with this body."""
    outcome: asyncio.Future[SipEvent] = asyncio.get_running_loop().create_future()

    def on_event(event: SipEvent) -> None:
        if isinstance(event, CallAnswered | CallFailed) and not outcome.done():
            outcome.set_result(event)

    endpoint = SipEndpoint(SipEndpointConfig(host="127.0.0.1", port=0), on_event)
    await endpoint.start()
    try:
        caller = SipAddress(None, SipUri("sip", "tester", "127.0.0.1"))
        endpoint.invite(SipUri("sip", NUMBER, "127.0.0.1", running.sip_port), caller, sdp)
        return await asyncio.wait_for(outcome, 5)
    finally:
        await endpoint.close()


@pytest.mark.parametrize("sdp", [AUDIO_IN_G729, VIDEO_ONLY])
async def test_a_session_without_a_codec_of_ours_is_not_acceptable(tmp_path: Path, sdp: str) -> None:
    async with running_node(tmp_path) as running:
        outcome = await _invite(running, sdp)
        assert isinstance(outcome, CallFailed)
        assert outcome.status == 488
        await running.node.idle()
        assert running.node.gate.snapshot().in_use == 0
        assert running.node.media_stats()["streams"] == 0


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_sip_port_in_use_is_named(tmp_path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"SIP cannot listen on 127.0.0.1:{port}.*sip.port"):
            async with running_node(tmp_path, sip_port=port):
                pytest.fail("the node started on a port that is taken")


async def test_an_http_port_in_use_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"HTTP cannot listen on 127.0.0.1:{port}.*http.port"):
            async with running_node(tmp_path, http_port=port):
                pytest.fail("the node started on a port that is taken")


def _mediaserver(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mediaserver", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_typo_in_the_configuration_is_shown_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    file.write_text("schema_version: 1\nsip:\n  prot: 5060\n")
    result = _mediaserver("serve", "--config", str(file))
    assert result.returncode == 2
    assert f"{file}:3" in result.stderr
    assert "port" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("call", "mailto:joe@example.com", "--say", "hello"), "not a SIP"),
        (("call", "sip:+15550100@127.0.0.1"), "nothing to say"),
        (("call", "--say", "hello"), "either a SIP URI or --webrtc"),
        (("call", "sip:+1@127.0.0.1", "--webrtc", "http://127.0.0.1"), "either a SIP URI or --webrtc"),
        (("call", "sip:+1@127.0.0.1", "--number", "+1", "--say", "hello"), "--number goes with --webrtc"),
        (("call", "--webrtc", "ftp://127.0.0.1", "--say", "hello"), "is not a URL"),
        (("call", "--webrtc", "http://127.0.0.1:8080/start", "--say", "hello"), "not the root"),
        (("call", "--webrtc", "http://127.0.0.1:1", "--say", "hello"), "http://127.0.0.1:1: "),
        (("call", "sip:+15550100@127.0.0.1", "--wav", "/nonexistent.wav"), "not a readable PCM WAV"),
    ],
)
def test_the_softphone_says_what_is_wrong(arguments: tuple[str, ...], words: str) -> None:
    result = _mediaserver(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
