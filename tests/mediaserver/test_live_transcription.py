"""Calls of a tenant whose transcription listens while the caller speaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mediaserver.softphone.speech import SPEECH_RATE_HZ, Utterance
from perf.live_stt import BYTES_PER_S, LiveStt
from perf.simulators import Script
from tests.sim.node import GREETING, running_node

REPLY = "From eight to six, on Sundays never."
SENTENCES = ("When are you open?", "And on Sunday?")


class SentenceEar:
    """Understands the first sentence when most of the question has been said, the second when it was said twice, and so on."""

    def __init__(self, question: Utterance) -> None:
        self._question_s = len(question.pcm) / 2 / SPEECH_RATE_HZ
        self._heard_s = 0.0
        self._told = 0

    def hear(self, pcm: bytes) -> None:
        self._heard_s += len(pcm) / BYTES_PER_S

    def words(self) -> str:
        if self._told == len(SENTENCES) or self._heard_s < (self._told + 0.6) * self._question_s:
            return ""
        self._told += 1
        return SENTENCES[self._told - 1]


@pytest.fixture
async def stt(question: Utterance) -> AsyncIterator[tuple[LiveStt, str]]:
    server = LiveStt(lambda: SentenceEar(question))
    async with server.serving() as url:
        yield server, url


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_call_is_understood_over_one_connection_without_any_recording_being_sent(
    tmp_path: Path, question: Utterance, stt: tuple[LiveStt, str], workers: int
) -> None:
    server, url = stt
    script = Script(replies=[REPLY])
    async with running_node(tmp_path, script=script, listener_url=url, workers=workers) as running:
        report = await running.call(question, question)
        assert report.success, report
        await running.node.idle()
        (record,) = await running.node.registry.calls("bakery")
    assert [line["text"] for line in record.transcript] == [
        GREETING,
        "When are you open?",
        REPLY,
        "And on Sunday?",
        REPLY,
    ]
    assert server.counts["handshakes"] == 1
    assert "transcription" not in script.requests
    async with asyncio.timeout(5):
        await server.until(lambda one: not one.sockets)


async def test_a_recogniser_that_is_deployed_anew_in_a_call_costs_no_turn(
    tmp_path: Path, question: Utterance, stt: tuple[LiveStt, str]
) -> None:
    server, url = stt
    script = Script(replies=[REPLY])
    hung_up: list[asyncio.Task[None]] = []

    def hang_up(_: str) -> None:
        if not hung_up:
            hung_up.append(asyncio.get_running_loop().create_task(server.hang_up()))

    async with running_node(tmp_path, script=script, listener_url=url) as running:
        report = await running.call(question, question, on_line=hang_up)
        assert report.success, report
        await running.node.idle()
        (record,) = await running.node.registry.calls("bakery")
    said = [line["text"] for line in record.transcript if line["speaker"] == "caller"]
    assert len(said) == 2
    assert set(said) <= set(SENTENCES)
    assert "transcription" not in script.requests
    assert server.counts["handshakes"] >= 2
