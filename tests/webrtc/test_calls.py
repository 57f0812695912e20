"""Whole calls over WebRTC on the loopback: aiortc as the browser, a real node, simulated providers."""

from __future__ import annotations

import asyncio
import json
import wave
from pathlib import Path

import httpx2
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame

from mediaserver.softphone.speech import Utterance
from perf.simulators import Behaviour, Script
from tenancy import CallRecord
from tenancy.routing import UNKNOWN
from tests.sim.node import GREETING, NUMBER, RunningNode, running_node

FAST_BUDGETS = {"stt_final_ms": 400, "llm_first_token_ms": 400, "tts_first_audio_ms": 400}


async def _record(running: RunningNode) -> CallRecord:
    async with asyncio.timeout(5):
        await running.node.idle()
    snapshot = running.node.gate.snapshot()
    assert (snapshot.in_use, snapshot.double_releases, running.node.media_stats()["streams"]) == (0, 0, 0)
    (record,) = await running.node.registry.calls("bakery")
    return record


def _said(record: CallRecord, speaker: str) -> list[str]:
    return [str(line["text"]) for line in record.transcript if line["speaker"] == speaker]


async def test_a_call_is_greeted_heard_answered_and_recorded(tmp_path: Path, question: Utterance) -> None:
    script = Script(transcripts=["When are you open?"], replies=["We open at eight. We close at six."])
    async with running_node(tmp_path, script=script) as running:
        phone = running.web_phone(question, record=tmp_path / "call.wav")
        report = await phone.call()
        assert report.success, report
        assert report.packets_lost == 0
        record = await _record(running)
    assert _said(record, "receptionist") == [GREETING, "We open at eight. We close at six."]
    assert _said(record, "caller") == ["When are you open?"]
    assert record.caller == "web:127.0.0.1"
    assert record.cause == "remote_close: the caller hung up"
    told = [(message["type"], message.get("data")) for message in phone.told]
    kinds = [kind for kind, _ in told]
    assert kinds[0] == "bot-ready"
    assert ("bot-transcription", {"text": GREETING}) in told
    assert ("bot-transcription", {"text": "We open at eight. We close at six."}) in told
    assert {
        "user-started-speaking",
        "user-stopped-speaking",
        "bot-started-speaking",
        "bot-stopped-speaking",
    } <= set(kinds)
    with wave.open(str(tmp_path / "call.wav")) as audio:
        assert (audio.getnchannels(), audio.getframerate()) == (2, 16_000)
        assert audio.getnframes() > 5 * 16_000


async def test_the_receptionist_hangs_up_after_goodbye(tmp_path: Path, question: Utterance) -> None:
    script = Script(transcripts=["Thank you, goodbye."], chat=Behaviour(status=500))
    async with running_node(tmp_path, script=script, budgets=FAST_BUDGETS) as running:
        phone = running.web_phone(question, question)
        report = await phone.call()
        assert report.answered
        record = await _record(running)
    assert record.cause == "local_close: conversation over"
    assert phone.told[-1] == {"type": "signalling", "message": {"type": "peerLeft"}}


async def test_an_unknown_number_and_a_full_node_are_reported(tmp_path: Path, question: Utterance) -> None:
    async with running_node(tmp_path, slots=1) as running:
        report = await running.web_phone(question, number="+15559999").call()
        assert (report.answered, report.status, report.reason) == (False, 404, UNKNOWN.text)
        talking = asyncio.Event()
        first = asyncio.create_task(running.call(question, on_line=lambda _: talking.set()))
        async with asyncio.timeout(10):
            await talking.wait()
        report = await running.web_phone(question).call()
        assert (report.answered, report.status) == (False, 503)
        assert (await first).success


async def test_one_token_one_call_and_a_caller_who_vanishes_is_wound_up(tmp_path: Path) -> None:
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTransceiver("audio")
    # No video, unlike Pipecat's clients: aiortc waits for the ICE of declined sections as well, for ever.
    connection.createDataChannel("chat")
    await connection.setLocalDescription(await connection.createOffer())
    offer = {"sdp": connection.localDescription.sdp, "type": "offer"}
    async with running_node(tmp_path) as running:
        base_url = f"http://127.0.0.1:{running.node.http_port}"
        async with httpx2.AsyncClient(base_url=base_url) as client:
            token = (await client.post("/start", json={"number": NUMBER})).json()["sessionId"]
            bearer = {"Authorization": f"Bearer {token}"}
            answer = (await client.post("/api/offer", json=offer, headers=bearer)).json()
            again = await client.post("/api/offer", json=offer, headers=bearer)
            assert (again.status_code, "pc_id" in again.text) == (409, True)
            stranger = await client.post("/api/offer", json={**offer, "pc_id": "guessed"}, headers=bearer)
            assert stranger.status_code == 404
            candidates = {
                "pc_id": answer["pc_id"],
                "candidates": [{"candidate": ""}, {"candidate": "nonsense"}],
            }
            trickled = await client.patch("/api/offer", json=candidates, headers=bearer)
            assert trickled.json() == {"status": "success"}
            connected = asyncio.Event()
            connection.on("connectionstatechange", connected.set)
            await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
            async with asyncio.timeout(10):
                while connection.connectionState != "connected":
                    connected.clear()
                    await connected.wait()
            await connection.close()
            record = await _record(running)
            assert record.cause
            over = await client.post("/api/offer", json=offer, headers=bearer)
            assert (over.status_code, "its call is over" in over.text) == (404, True)


async def test_a_call_that_is_up_when_the_node_stops_is_ended_and_recorded(
    tmp_path: Path, question: Utterance
) -> None:
    async with running_node(tmp_path) as running:
        talking = asyncio.Event()
        phone = running.web_phone(question, on_line=lambda _: talking.set())
        calling = asyncio.create_task(phone.call())
        async with asyncio.timeout(20):
            await talking.wait()
        running.node.request_stop()
        assert (await calling).answered
    assert json.dumps(phone.told[-1]) == '{"type": "signalling", "message": {"type": "peerLeft"}}'


async def _connection() -> tuple[RTCPeerConnection, dict[str, object]]:
    """A browser's connection that listens, and its offer."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTransceiver("audio")
    connection.createDataChannel("chat")
    await connection.setLocalDescription(await connection.createOffer())
    return connection, {"sdp": connection.localDescription.sdp, "type": "offer"}


async def _hears_something(connection: RTCPeerConnection, answer: dict[str, str]) -> None:
    tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
    connection.on("track", tracks.put_nowait)
    await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    async with asyncio.timeout(10):
        track = await tracks.get()
        while True:
            frame = await track.recv()
            assert isinstance(frame, AudioFrame)
            if np.abs(frame.to_ndarray()).max() > 1_000:
                return


async def test_a_browser_that_lost_its_connection_goes_on_with_a_new_one(tmp_path: Path) -> None:
    greeting = "Welcome to the test bakery. " + "We have fresh bread and rolls every morning. " * 6
    async with running_node(tmp_path, greeting=greeting.strip()) as running:
        base_url = f"http://127.0.0.1:{running.node.http_port}"
        async with httpx2.AsyncClient(base_url=base_url) as client:
            session = (await client.post("/start", json={"number": NUMBER})).json()["sessionId"]
            path = f"/sessions/{session}/api/offer"
            lost, offer = await _connection()
            answer = (await client.post(path, json=offer)).json()
            await _hears_something(lost, answer)
            new, offer = await _connection()
            restart = {**offer, "pc_id": answer["pc_id"], "restart_pc": True}
            restarted = (await client.post(path, json=restart)).json()
            assert restarted["pc_id"] == answer["pc_id"]
            await _hears_something(new, restarted)
            assert running.node.gate.snapshot().in_use == 1
            await new.close()
            await lost.close()
            record = await _record(running)
    assert record.cause
