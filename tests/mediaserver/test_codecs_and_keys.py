"""Whole calls by codec, by encryption, and on IPv6."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediaserver.softphone.speech import Utterance
from sipbridge.sdp import SrtpPolicy
from tests.sim.network import has_ipv6
from tests.sim.node import running_node


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
async def test_a_call_on_ipv6(tmp_path: Path, question: Utterance) -> None:
    async with running_node(tmp_path, host="::1") as running:
        report = await running.call(question)
    assert report.success, report
    assert report.packets_received > 50


async def test_the_codec_that_is_offered_is_used(tmp_path: Path, question: Utterance) -> None:
    async with running_node(tmp_path) as running:
        report = await running.call(question, codecs=("PCMA",))
    assert report.success, report
    assert (report.codec, report.encrypted) == ("PCMA", False)


@pytest.mark.parametrize("codec", ["PCMU", "G722", "opus"])
@pytest.mark.parametrize("srtp", [SrtpPolicy.OFF, SrtpPolicy.REQUIRED])
async def test_wideband_and_encrypted_calls(
    tmp_path: Path, question: Utterance, codec: str, srtp: SrtpPolicy
) -> None:
    async with running_node(tmp_path) as running:
        report = await running.call(question, codecs=(codec,), srtp=srtp)
    assert report.success, report
    assert (report.codec, report.encrypted) == (codec, srtp is SrtpPolicy.REQUIRED)
