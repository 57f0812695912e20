"""A running node's metrics and probes, by real calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from mediaserver.softphone.speech import Utterance
from perf.simulators import Script
from tests.sim.node import RunningNode, running_node

Samples = dict[str, float]


@asynccontextmanager
async def _operator(running: RunningNode) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the listener that has the probes and the metrics."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{running.node.operator_port}") as client:
        yield client


async def _scrape(client: httpx2.AsyncClient) -> Samples:
    response = await client.get("/metrics")
    assert response.status_code == 200
    return {
        f"{sample.name.removeprefix('receptionist_')}{sorted(sample.labels.values())}": sample.value
        for family in parse_classic(response.text)
        for sample in family.samples
    }


async def test_a_call_is_counted_and_measured(tmp_path: Path, question: Utterance) -> None:
    script = Script(transcripts=["When are you open?"], replies=["We open at eight. We close at six."])
    async with running_node(tmp_path, script=script, slots=3) as running, _operator(running) as client:
        before = await _scrape(client)
        assert (before["calls_active[]"], before["call_slots[]"], before["call_slots_taken[]"]) == (0, 3, 0)
        assert before["calls_total['caller_hung_up']"] == 0
        calling = asyncio.create_task(running.call(question))
        async with asyncio.timeout(20):
            while (during := await _scrape(client))["calls_active[]"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert during["media_streams[]"] == 1
        report = await calling
        assert report.success, report
        async with asyncio.timeout(5):
            await running.node.idle()
        after = await _scrape(client)
    assert after["calls_active[]"] == after["call_slots_taken[]"] == after["media_streams[]"] == 0
    assert after["calls_admitted_total[]"] == 1
    assert after["calls_total['caller_hung_up']"] == 1
    assert after["answer_seconds_count['sip']"] == 1
    assert 0 < after["answer_seconds_sum['sip']"] < 5
    assert after["greeting_seconds_count[]"] == 1
    assert 0 < after["greeting_seconds_sum[]"] < 2
    assert after["turn_latency_seconds_count['total']"] == 1
    total_s = after["turn_latency_seconds_sum['total']"]
    assert 0.2 < total_s < 10
    parts = {
        stage: after[f"turn_latency_seconds_sum['{stage}']"]
        for stage in ("end_of_turn", "stt", "llm", "tts", "own")
        if f"turn_latency_seconds_count['{stage}']" in after
    }
    # An answer that was begun in the pause may have waited for no provider since the caller's last word.
    assert {"end_of_turn", "own"} <= parts.keys()
    assert all(after[f"turn_latency_seconds_count['{stage}']"] == 1 for stage in parts)
    assert all(0 < part <= total_s for part in parts.values()), parts
    assert parts["end_of_turn"] > 0.2
    assert parts.keys() != {"end_of_turn", "stt", "llm", "tts", "own"} or total_s - 0.01 <= sum(
        parts.values()
    )
    assert after["barge_ins_total['interruption']"] == 0
    # The media of the call, at its end.
    assert after["media_loss_ratio_bucket['0.0', 'received']"] == 1
    assert after["media_jitter_seconds_count['received']"] == 1
    assert after["media_packets_lost_total['lost']"] == 0
    # The parts that count for themselves.
    assert after["media_packets_total['received']"] > 50
    assert after["media_packets_total['sent']"] > 50
    assert (
        after["media_tick_lateness_seconds_bucket['+Inf']"]
        > before["media_tick_lateness_seconds_bucket['+Inf']"]
    )
    assert after["event_loop_lag_seconds_count['edge']"] > 10
    assert after["scrape_failures_total[]"] == 0
    falling = {
        name
        for name, value in before.items()
        if value > after.get(name, 0)
        and not name.startswith(("process_", "call_slots", "sip_open", "media_streams"))
    }
    assert not falling


async def test_refusals_are_counted_by_why(tmp_path: Path) -> None:
    async with running_node(tmp_path, slots=1) as running, _operator(running) as client:
        callers = f"http://127.0.0.1:{running.node.http_port}"
        for number in ("+15559999", "+15559998"):
            assert (await client.post(f"{callers}/start", json={"number": number})).status_code == 404
        full = running.node.gate.request("bakery", 10, 0)
        assert hasattr(full, "lease")
        report = await running.call()
        assert not report.answered
        samples = await _scrape(client)
        assert samples["calls_refused_total['unknown']"] == 2
        assert samples["calls_refused_total['slots']"] == 1
        running.node.gate.release(full.lease, 0)
        switchboard = running.node._switchboard
        assert switchboard is not None
        switchboard.drain()
        report = await running.call()
        assert not report.answered
        assert (await _scrape(client))["calls_refused_total['draining']"] == 1


async def test_each_condition_of_readiness_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_node(tmp_path) as running, _operator(running) as client:
        response = await client.get("/readyz")
        names = ("started", "not_draining", "media", "workers", "models")
        assert (response.status_code, response.json()["checks"]) == (200, dict.fromkeys(names, True))
        assert (await client.get("/healthz")).json() == {
            "status": "ok",
            "checks": {"event_loop": True, "media": True},
        }
        switchboard = running.node._switchboard
        assert switchboard is not None
        switchboard.drain()
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "not ready")
        assert response.json()["checks"] == {**dict.fromkeys(names, True), "not_draining": False}
        assert (await client.get("/healthz")).status_code == 200  # It drains, it is not ill.
        monkeypatch.setattr("mediaserver.node_parts.ENGINE_WATCH_S", 60)
        hub = running.node._hub
        assert hub is not None
        hub.engine.close()
        for path in ("/readyz", "/healthz"):
            response = await client.get(path)
            assert response.status_code == 503
            assert response.json()["checks"]["media"] is False
