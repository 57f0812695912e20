"""Calls with user agents that others wrote: SIPp and baresip."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
from pathlib import Path

import pytest

from sipbridge import (
    CallAnswered,
    CallEnded,
    CallRinging,
    EndCause,
    InviteConfirmed,
    InviteReceived,
    SipAddress,
    SipUri,
)
from sipbridge.sdp import MasterKeys, SrtpPolicy, negotiate
from tests.sipbridge.bench import OFFER
from tests.sipbridge.test_wire import HOST, party

BARESIP = shutil.which("baresip")
BARESIP_MODULES = next(iter(sorted(Path("/usr/lib").glob("**/baresip/modules"))), None)
BARESIP_CONFIG = """
sip_listen {host}:0
audio_player aubridge,nil
audio_source aubridge,nil
audio_alert aubridge,nil
module_path {modules}
module g711.so
module aubridge.so
module_app account.so
module_app menu.so
"""
SIPP = shutil.which("sipp")


@pytest.mark.skipif(SIPP is None, reason="sipp is not installed")
@pytest.mark.parametrize("transport", ["u1", "t1"])
async def test_sipp_calls_us(transport: str, tmp_path: Path) -> None:
    calls = 20
    async with party(answers=True) as callee:
        process = await asyncio.create_subprocess_exec(
            str(SIPP), "-sn", "uac", f"{HOST}:{callee.endpoint.local_port}", "-i", HOST, "-t", transport,
            "-m", str(calls), "-r", "40", "-d", "50", "-timeout", "20s", "-nostdin",
            cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode(errors="replace")[-2000:]
        ended: list[CallEnded] = []
        while not callee.events.empty():
            event = callee.events.get_nowait()
            if isinstance(event, CallEnded):
                ended.append(event)
        assert [event.cause for event in ended] == [EndCause.REMOTE_BYE] * calls
        stats = callee.endpoint.stats()
        assert stats["dialogs"] == 0
        assert stats["invites_received"] == calls


@pytest.mark.skipif(SIPP is None, reason="sipp is not installed")
async def test_we_call_sipp(tmp_path: Path) -> None:
    async with party() as caller, party() as free:
        port = free.endpoint.local_port
        await free.endpoint.close()
        process = await asyncio.create_subprocess_exec(
            str(SIPP), "-sn", "uas", "-i", HOST, "-p", str(port), "-m", "1", "-timeout", "20s", "-nostdin",
            cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        dialog = caller.endpoint.invite(
            SipUri("sip", "service", HOST, port), SipAddress(None, SipUri("sip", "a", HOST)), OFFER
        )
        await caller.expect(CallRinging)
        assert (await caller.expect(CallAnswered)).answer is not None
        caller.endpoint.hang_up(dialog)
        await caller.expect(CallEnded)
        async with asyncio.timeout(30):
            _, errors = await process.communicate()
        assert process.returncode == 0, errors.decode(errors="replace")[-2000:]


@pytest.mark.skipif(BARESIP is None or BARESIP_MODULES is None, reason="baresip is not installed")
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_baresip_calls_us_and_we_hang_up(transport: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(BARESIP_CONFIG.format(host=HOST, modules=BARESIP_MODULES))
    (tmp_path / "accounts").write_text(f"<sip:baresip@{HOST};transport={transport}>;regint=0\n")
    (tmp_path / "contacts").touch()
    async with party(answers=True) as callee:
        # baresip adds the transport of its account to the URI.
        target = f"sip:4930@{HOST}:{callee.endpoint.local_port}"
        process = await asyncio.create_subprocess_exec(
            str(BARESIP), "-f", str(tmp_path), "-e", f"/dial {target}", "-t", "3",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        received = await callee.expect(InviteReceived)
        assert received.transport == transport
        assert received.offer is not None
        await callee.expect(InviteConfirmed)
        callee.endpoint.hang_up(received.dialog)
        assert (await callee.expect(CallEnded)).cause is EndCause.LOCAL_BYE
        async with asyncio.timeout(20):
            await process.wait()
        assert callee.endpoint.stats()["byes_answered"] == 1
        assert callee.endpoint.stats()["dialogs"] == 0


@pytest.mark.skipif(BARESIP is None or BARESIP_MODULES is None, reason="baresip is not installed")
@pytest.mark.parametrize(
    ("account", "codec", "suite", "protocol", "packet_bytes"),
    [
        ("audio_codecs=opus/48000/2", "opus", None, "RTP/AVP", None),
        ("audio_codecs=G722/16000/1", "G722", None, "RTP/AVP", 12 + 160),
        # RTP/AVP with keys: taken or left.
        (
            "audio_codecs=PCMU/8000/1;mediaenc=srtp",
            "PCMU",
            "AES_CM_128_HMAC_SHA1_80",
            "RTP/AVP",
            12 + 160 + 10,
        ),
        (
            "audio_codecs=PCMA/8000/1;mediaenc=srtp-mand",
            "PCMA",
            "AES_CM_128_HMAC_SHA1_80",
            "RTP/SAVP",
            12 + 160 + 10,
        ),
    ],
)
async def test_baresip_agrees_with_us_on_codec_and_keys(
    account: str, codec: str, suite: str | None, protocol: str, packet_bytes: int | None, tmp_path: Path
) -> None:
    config = BARESIP_CONFIG.format(host=HOST, modules=BARESIP_MODULES)
    more = "".join(f"module {name}.so\n" for name in ("opus", "g722", "srtp"))
    (tmp_path / "config").write_text(config.replace("module g711.so\n", "module g711.so\n" + more))
    (tmp_path / "accounts").write_text(f"<sip:baresip@{HOST}>;regint=0;{account}\n")
    (tmp_path / "contacts").touch()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as media:
        media.bind((HOST, 0))
        media.setblocking(False)
        async with party() as callee:
            process = await asyncio.create_subprocess_exec(
                str(BARESIP), "-f", str(tmp_path), "-e", f"/dial sip:4930@{HOST}:{callee.endpoint.local_port}", "-t", "3",
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            received = await callee.expect(InviteReceived)
            assert received.offer is not None
            negotiated = negotiate(
                received.offer,
                address=HOST,
                port=media.getsockname()[1],
                codecs=("G722", "opus", "PCMU", "PCMA"),
                srtp=SrtpPolicy.OPTIONAL,
                keys=MasterKeys.draw(secrets.token_bytes),
            )
            assert (negotiated.codec, negotiated.srtp and negotiated.srtp.suite) == (codec, suite)
            assert negotiated.answer.media[0].protocol == protocol
            callee.endpoint.answer(received.dialog, str(negotiated.answer))
            await callee.expect(InviteConfirmed)
            # It sends what was agreed on; the tag of SRTP is 80 bits.
            async with asyncio.timeout(10):
                packet = await asyncio.get_running_loop().sock_recv(media, 2_048)
            assert packet[0] >> 6 == 2
            assert packet[1] & 0x7F == negotiated.payload_type
            assert packet_bytes in (None, len(packet))
            callee.endpoint.hang_up(received.dialog)
            assert (await callee.expect(CallEnded)).cause is EndCause.LOCAL_BYE
            async with asyncio.timeout(20):
                await process.wait()
