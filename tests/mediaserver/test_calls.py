"""Whole calls on the loopback: a real softphone, a real node, simulated providers."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

from mediaserver.providers.breaker import Stage
from mediaserver.softphone.speech import SPEECH_RATE_HZ, Utterance
from perf.simulators import Behaviour, Script
from tenancy import CallRecord
from tests.sim.node import GREETING, NUMBER, RunningNode, running_node

FAST_BUDGETS = {"stt_final_ms": 400, "llm_first_token_ms": 400, "tts_first_audio_ms": 400}
APOLOGY = "Sorry, I'm having a little trouble. One moment please."


async def _record(running: RunningNode) -> CallRecord:
    """The record of the only call, once it is written."""
    await _wound_up(running)
    (record,) = await running.node.registry.calls("bakery")
    return record


async def _wound_up(running: RunningNode) -> None:
    """Every call has given back what it held; a node that has stopped has no media engine to ask."""
    async with asyncio.timeout(5):
        await running.node.idle()
    snapshot = running.node.gate.snapshot()
    streams = running.node.media_stats().get("streams", 0)
    assert (snapshot.in_use, snapshot.double_releases, streams) == (0, 0, 0)


def _said(record: CallRecord, speaker: str) -> list[str]:
    return [str(line["text"]) for line in record.transcript if line["speaker"] == speaker]


async def test_a_call_is_greeted_heard_answered_and_recorded(tmp_path: Path, question: Utterance) -> None:
    script = Script(transcripts=["When are you open?"], replies=["We open at eight. We close at six."])
    async with running_node(tmp_path, script=script) as running:
        report = await running.call(question, record=tmp_path / "call.wav")
        assert report.answered
        assert report.success, report
        assert report.packets_lost == 0
        record = await _record(running)
        assert _said(record, "receptionist") == [GREETING, "We open at eight. We close at six."]
        assert _said(record, "caller") == ["When are you open?"]
        assert record.config_version == 1
        assert record.cause.startswith("remote_bye")
        await _wound_up(running)
    system, *conversation = script.chats_seen[-1]
    assert "Test Bakery" in str(system["content"])
    assert [(message["role"], message["content"]) for message in conversation] == [
        ("assistant", GREETING),
        ("user", "When are you open?"),
    ]
    assert (tmp_path / "call.wav").stat().st_size > 16_000


async def test_a_language_model_that_hangs_costs_an_apology_and_not_the_answer(
    tmp_path: Path, question: Utterance
) -> None:
    script = Script(transcripts=["What is your address?"], chat=Behaviour(hang=True))
    async with running_node(tmp_path, script=script, budgets=FAST_BUDGETS) as running:
        report = await running.call(question)
        assert report.success, report
        answer = _said(await _record(running), "receptionist")[-1]
    assert answer.startswith(APOLOGY)
    assert "Mill Lane" in answer


async def test_a_language_model_that_refuses_is_followed_by_the_receptionist(
    tmp_path: Path, question: Utterance
) -> None:
    script = Script(transcripts=["What is your address?"], chat=Behaviour(status=400))
    async with running_node(tmp_path, script=script) as running:
        report = await running.call(question)
        assert report.success, report
        answer = _said(await _record(running), "receptionist")[-1]
    assert answer.startswith(APOLOGY)
    assert "Mill Lane" in answer


async def test_a_calls_providers_are_warmed_before_it_speaks_and_counted_by_stage(
    tmp_path: Path, question: Utterance
) -> None:
    async with running_node(tmp_path) as running:
        assert running.node._care.stats.snapshot().connections_warmed == 0
        report = await running.call(question)
        assert report.success, report
        await _wound_up(running)
        snapshot = running.node._care.stats.snapshot()
    assert (snapshot.connections_warmed, snapshot.warmings_failed) == (1, 0)
    assert {stage for stage, _ in snapshot.providers} == set(Stage)
    for figures in snapshot.providers.values():
        # A pause inside the question has its own attempts, which are given up when the caller goes on.
        assert figures.requests == figures.answered + figures.abandoned
        assert 0 < figures.answered <= figures.first_ms.count <= figures.requests
        assert not figures.failures


async def test_transcription_that_hangs_is_apologised_for(tmp_path: Path, question: Utterance) -> None:
    script = Script(transcription=Behaviour(hang=True))
    async with running_node(tmp_path, script=script, budgets=FAST_BUDGETS) as running:
        report = await running.call(question)
        assert report.success, report  # an apology is an answer; dead air is not


async def test_synthesis_that_fails_during_the_call_is_covered_by_cached_phrases(
    tmp_path: Path, question: Utterance
) -> None:
    async with running_node(tmp_path, budgets=FAST_BUDGETS) as running:
        running.script.speech.hang = True
        report = await running.call(question)
        assert report.greeting_ms is not None
        assert report.success, report


async def test_an_unknown_number_is_refused_before_anything_is_built(
    tmp_path: Path, question: Utterance
) -> None:
    async with running_node(tmp_path) as running:
        report = await running.call(question, number="+15559999")
        assert (report.answered, report.status) == (False, 404)
        assert running.node.gate.snapshot().admitted == 0
        assert running.node.media_stats()["streams"] == 0


async def test_above_capacity_the_caller_is_told_when_to_try_again(
    tmp_path: Path, question: Utterance
) -> None:
    async with running_node(tmp_path, slots=1) as running:
        talking = asyncio.Event()
        first = asyncio.create_task(running.call(question, on_line=lambda _: talking.set()))
        async with asyncio.timeout(10):
            await talking.wait()
        second = await running.call(question)
        assert (second.answered, second.status) == (False, 503)
        assert (await first).success
        await _wound_up(running)


async def test_ten_calls_at_once_all_get_their_answers(tmp_path: Path, question: Utterance) -> None:
    async with running_node(tmp_path) as running:
        reports = await asyncio.gather(*(running.call(question) for _ in range(10)))
        assert [report.success for report in reports] == [True] * 10
        assert [report.packets_lost for report in reports] == [0] * 10
        await _wound_up(running)


async def test_barge_in_leaves_only_what_was_heard_in_the_context(
    tmp_path: Path, question: Utterance
) -> None:
    long_greeting = "Welcome to the test bakery. " + "We have fresh bread and rolls every morning. " * 6
    script = Script(transcripts=["Stop, when are you open?"])
    async with running_node(tmp_path, script=script, greeting=long_greeting.strip()) as running:
        report = await running.call(question, interrupt_greeting_ms=800)
        assert report.success, report
        record = await _record(running)
    heard = str(script.chats_seen[-1][1]["content"])
    assert script.chats_seen[-1][1]["role"] == "assistant"
    assert long_greeting.startswith(heard)
    assert 0 < len(heard) < len(long_greeting) - 20
    assert record.transcript[0]["interrupted"] is True
    assert record.transcript[0]["text"] == heard


async def test_the_receptionist_hangs_up_after_goodbye(tmp_path: Path, question: Utterance) -> None:
    script = Script(transcripts=["Thank you, goodbye."], chat=Behaviour(status=500))
    async with running_node(tmp_path, script=script, budgets=FAST_BUDGETS) as running:
        report = await running.call(question, question)
        assert report.answered
        record = await _record(running)
        assert record.cause.startswith("local_bye")
        await _wound_up(running)


async def test_a_caller_who_has_one_more_question_is_not_hung_up_on(
    tmp_path: Path, question: Utterance
) -> None:
    pause = bytes(2 * SPEECH_RATE_HZ * 3 // 2)
    script = Script(transcripts=["Thank you, goodbye.", "Wait, where are you?"], chat=Behaviour(status=400))
    async with running_node(tmp_path, script=script) as running:
        # The second half is spoken into the goodbye that answers the first.
        report = await running.call(Utterance(None, question.pcm + pause + question.pcm))
        assert report.success, report
        record = await _record(running)
    assert record.cause.startswith("remote_bye")
    assert _said(record, "caller") == ["Thank you, goodbye.", "Wait, where are you?"]
    said = [line for line in record.transcript if line["speaker"] == "receptionist"]
    assert said[1]["interrupted"]
    assert "Mill Lane" in str(said[2]["text"])


async def test_a_silent_caller_is_asked_and_then_let_go(tmp_path: Path, question: Utterance) -> None:
    script = Script(replies=["We open at eight."])
    async with running_node(tmp_path, script=script, turn_taking={"silence_prompt_ms": 1_000}) as running:
        report = await running.call(question, quiet_ms=6_000)
        assert report.answered
        record = await _record(running)
        assert record.cause.startswith("local_bye")
    said = _said(record, "receptionist")
    assert said[0] == GREETING
    assert "Are you still there?" in said
    assert said[-1].endswith("Goodbye!")


async def test_a_call_that_is_never_acknowledged_has_a_record_when_the_node_stops(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.bind(("127.0.0.1", 0))
        caller.setblocking(False)
        port = caller.getsockname()[1]
        sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
        async with running_node(tmp_path) as running:
            invite = (
                f"INVITE sip:{NUMBER}@127.0.0.1:{running.sip_port} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKsilent\r\nMax-Forwards: 70\r\n"
                f"From: <sip:silent@127.0.0.1>;tag=1\r\nTo: <sip:{NUMBER}@127.0.0.1>\r\n"
                f"Call-ID: never-acknowledged\r\nCSeq: 1 INVITE\r\nContact: <sip:silent@127.0.0.1:{port}>\r\n"
                f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
            )
            await loop.sock_sendto(caller, invite.encode(), ("127.0.0.1", running.sip_port))
            async with asyncio.timeout(5):
                while not (await loop.sock_recv(caller, 4_096)).startswith(b"SIP/2.0 200"):
                    pass
        await _wound_up(running)
    with closing(sqlite3.connect(tmp_path / "data" / "tenants" / "client-bakery.db")) as shard:
        assert [(row[0], bool(row[1])) for row in shard.execute("SELECT call_id, cause FROM calls")] == [
            ("never-acknowledged", True)
        ]
