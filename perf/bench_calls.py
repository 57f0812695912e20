"""Whole calls: a node in this process, callers and simulated providers in processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import sys
import time
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
import yaml
from loguru import logger

from config.node import CapacityConfig, HttpConfig, MediaConfig, ModelsConfig, NodeConfig, SipConfig
from config.tenant import TenantConfig
from mediaserver._native import MediaEngine
from mediaserver.media_link import EngineHub
from mediaserver.node import Node
from mediaserver.phrase_cache import PhraseCache
from mediaserver.pipeline.call_pipeline import CallPipeline, PipelineResources
from mediaserver.pipeline.providers import Budgets
from mediaserver.pipeline.services import Embedded, ProviderAccess
from mediaserver.pipeline.transport import TurnMeasured
from mediaserver.providers.connections import ProviderClient
from mediaserver.providers.trail import ProviderEvent
from mediaserver.receptionist import Action
from mediaserver.softphone.speech import SPEECH_RATE_HZ, Utterance
from mediaserver.turns import TurnCounters
from perf.cpu import thread_cpu_s
from perf.examples import ROOT
from perf.load import MEDIA_THREAD
from perf.results import Row, percentile
from tenancy import CalledNumber, Trunks
from tenancy.spending import Usage

NUMBER = "+15550199"
CALLS_AT_ONCE = 10
TURNS_EACH = 2
TURN_EVERY_S = 8.0
SLEEP_S = 15.0
QUIET_CALLS = 2
QUIET_TURNS = 8
BARGE_IN_CALLS = 2
BARGE_INS = 8
BUILDS = 15
PROCESS_START_S = 30.0
PROCESS_RUN_S = 120.0
SHARE_BAR_MS = 60.0
GREETING_BAR_MS = 100.0
SPACING_BAR_MS = 10.0
SILENCE_BAR_MS = 60.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What the measurements share."""

    node: Node
    tenant: TenantConfig
    models_url: str
    wavs: tuple[str, ...]
    directory: Path

    @property
    def end_of_turn_ms(self) -> int:
        """The wait that is configured and not ours."""
        return self.tenant.turn_taking.end_of_turn_ms


def measure(utterances: Sequence[Utterance]) -> list[Row]:
    """Everything about whole calls."""
    return uvloop.run(_measure(utterances))


async def _measure(utterances: Sequence[Utterance]) -> list[Row]:
    with TemporaryDirectory() as path:
        async with _bench(Path(path), utterances) as bench:
            return [
                *await _pipeline_build(bench),
                *await _quiet(bench),
                *await _ten_at_once(bench),
                *await _barge_in(bench),
            ]


# -- what runs ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def _bench(directory: Path, utterances: Sequence[Utterance]) -> AsyncIterator[Bench]:
    logger.remove()
    # As many log lines as a server writes, to nowhere.
    logger.add(os.devnull, level="INFO")
    async with _simulators() as url:
        tenant = _tenant(url)
        file = directory / "tenant.yaml"
        file.write_text(yaml.safe_dump(tenant.model_dump(mode="json")))
        node = Node(
            NodeConfig(
                sip=SipConfig(host="127.0.0.1", port=0),
                media=MediaConfig(host="127.0.0.1", first_port=0),
                http=HttpConfig(port=0),
                data_dir=directory / "data",
                capacity=CapacityConfig(slots=2 * CALLS_AT_ONCE),
                tenants=(file,),
                models=ModelsConfig(url=url),
            )
        )
        await node.start()
        running = asyncio.create_task(node.run())
        try:
            yield Bench(node, tenant, url, tuple(_write(directory, utterances)), directory)
        finally:
            node.request_stop()
            await running


@asynccontextmanager
async def _simulators() -> AsyncIterator[str]:
    """Providers that answer without delay; yields the API's root."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perf.simulators", "--port", str(port), cwd=ROOT
    )
    try:
        await _accepts(port)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        await process.wait()


async def _accepts(port: int) -> None:
    """Wait until a process that was started listens; nothing but trying tells."""
    async with asyncio.timeout(PROCESS_START_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


def _tenant(url: str) -> TenantConfig:
    provider = {"kind": "openai", "base_url": url, "model": "simulated"}
    return TenantConfig.model_validate(
        {
            "tenant_id": "bakery",
            "business_name": "Bench Bakery",
            "business_kind": "bakery",
            "numbers": [NUMBER],
            "time_zone": "Europe/Berlin",
            "greeting": "Hello, this is the bench bakery.",
            "address": "1 Mill Lane",
            "hours": {"monday": [{"opens": "08:00", "closes": "18:00"}]},
            "human": {"name": "Rosa"},
            "voice": {"name": "alloy"},
            "providers": {"stt": [provider], "llm": [provider], "tts": [provider]},
            "max_concurrent_calls": CALLS_AT_ONCE,
        }
    )


def _write(directory: Path, utterances: Sequence[Utterance]) -> list[str]:
    paths = []
    for number, utterance in enumerate(utterances):
        path = str(directory / f"question-{number}.wav")
        with wave.open(path, "wb") as recording:
            recording.setnchannels(1)
            recording.setsampwidth(2)
            recording.setframerate(SPEECH_RATE_HZ)
            recording.writeframes(utterance.pcm)
        paths.append(path)
    return paths


# -- building a pipeline -----------------------------------------------------------------------------------


class _Nobody:
    """An observer of a conversation that never takes place."""

    def caller_said(self, text: str) -> None: ...

    def receptionist_said(self, text: str, *, interrupted: bool) -> None: ...

    def caller_speaking(self, *, active: bool) -> None: ...

    def receptionist_speaking(self, *, active: bool) -> None: ...

    def sentence_begins(self, text: str) -> None: ...

    def sentence_queued(self, text: str) -> None: ...

    def reply_queued(self) -> None: ...

    def receptionist_state(self, state: str) -> None: ...

    def turn_measured(self, turn: TurnMeasured) -> None: ...

    def action(self, action: Action) -> None: ...

    def media_ended(self, why: str) -> None: ...

    def turns_counted(self, counters: TurnCounters) -> None: ...

    def spent(self, service: str, provider: str, usage: Usage) -> None: ...
    def provider_event(self, event: ProviderEvent) -> None: ...


async def _pipeline_build(bench: Bench) -> list[Row]:
    """CPU time of building a call's pipeline, without running it."""
    context = await bench.node.registry.context_for(CalledNumber(Trunks().web, NUMBER), call_id="bench")
    hub = EngineHub(MediaEngine("127.0.0.1", port_count=1, max_streams=1))
    stream, _ = hub.engine.open_stream(remote=("127.0.0.1", 9))
    link = hub.attach(stream)
    async with ProviderClient() as http:
        resources = PipelineResources(
            providers=ProviderAccess(Embedded(bench.models_url), http),
            budgets=Budgets(),
            phrases=PhraseCache(bench.directory / "phrases"),
            clock=lambda: datetime.now(UTC),
        )
        spent_ms = []
        for _ in range(BUILDS):
            began = time.thread_time()
            CallPipeline(context, link, resources, _Nobody())
            spent_ms.append((time.thread_time() - began) * 1000)
            # What a build leaves to the loop is not part of the next one.
            await asyncio.sleep(0)
    hub.close()
    return [
        Row(
            "pipeline build",
            statistics.median(spent_ms),
            "CPU-ms",
            design="2.6 without models, 9 with services",
        )
    ]


# -- calls one beside the other, nearly idle ---------------------------------------------------------------


async def _quiet(bench: Bench) -> list[Row]:
    """The server's own share of an answer, as the softphone finds it from outside."""
    arguments = [
        "perf.phones",
        str(bench.node.sip_port),
        NUMBER,
        str(QUIET_CALLS),
        str(QUIET_TURNS),
        *bench.wavs,
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PROCESS_RUN_S):
        printed, _ = await process.communicate()
    reports = json.loads(printed)
    latencies_ms = [latency for report in reports for latency in report["latencies_ms"]]
    if len(latencies_ms) < QUIET_CALLS * QUIET_TURNS:
        raise RuntimeError(f"only {len(latencies_ms)} of {QUIET_CALLS * QUIET_TURNS} questions were answered")
    wait_ms = bench.end_of_turn_ms
    await bench.node.idle()
    return [
        Row(
            f"turn, softphone's last speech packet to answer: median of {len(latencies_ms)}",
            statistics.median(latencies_ms),
            "ms",
        ),
        Row(
            f"turn, the same minus {wait_ms} ms end-of-turn wait: median",
            statistics.median(latencies_ms) - wait_ms,
            "ms",
            bar=SHARE_BAR_MS,
        ),
        Row(
            f"turn, the same minus {wait_ms} ms end-of-turn wait: p90",
            percentile(latencies_ms, 90) - wait_ms,
            "ms",
        ),
        Row(
            "call, softphone's ACK to greeting: median",
            statistics.median(report["greeting_ms"] for report in reports),
            "ms",
            bar=GREETING_BAR_MS,
        ),
        Row("call set-up, INVITE to 200: median", statistics.median(r["setup_ms"] for r in reports), "ms"),
    ]


# -- ten calls at once -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time of the node's process between the callers' begin and end."""

    lasted_s: float
    process_s: float
    media_s: float


async def _raw_callers(
    bench: Bench, mode: str, calls: int, turns: int, period_s: float
) -> tuple[dict[str, list[float]], Spent]:
    arguments = [mode, str(bench.node.sip_port), NUMBER, str(calls), str(turns), str(period_s), *bench.wavs]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "perf.raw_callers",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PROCESS_RUN_S):
        await _line(process.stdout, "begin")
        began_s, process_s, media_s = time.monotonic(), time.process_time(), thread_cpu_s(MEDIA_THREAD)
        await _line(process.stdout, "end")
        spent = Spent(
            time.monotonic() - began_s, time.process_time() - process_s, thread_cpu_s(MEDIA_THREAD) - media_s
        )
        measured = json.loads(await process.stdout.readline())
        await process.wait()
    await bench.node.idle()
    if measured.pop("unanswered") > 0:
        raise RuntimeError(f"{mode}: not every turn was answered")
    return measured, spent


async def _line(stream: asyncio.StreamReader, expected: str) -> None:
    line = (await stream.readline()).decode().strip()
    if line != expected:
        raise RuntimeError(f"the callers said {line!r} instead of {expected!r}")


async def _ten_at_once(bench: Bench) -> list[Row]:
    """Ten conversations: what they cost, how evenly they are heard, how long answers take then."""
    sleeper = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perf.sleeper", str(SLEEP_S), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    measured, spent = await _raw_callers(bench, "in-turn", CALLS_AT_ONCE, TURNS_EACH, TURN_EVERY_S)
    slept = json.loads((await sleeper.communicate())[0])
    call_s = CALLS_AT_ONCE * spent.lasted_s
    per_second = "CPU-ms per call-second"
    answer, detected = measured["answer"], measured["answer_after_detected"]
    wait_ms, spacing = bench.end_of_turn_ms, measured["spacing_error"]
    return [
        Row(
            "ten calls: node process",
            spent.process_s * 1000 / call_s,
            per_second,
            design="3.5-3.8 + 1 (stock 107-131)",
        ),
        Row("ten calls: of it the media thread", spent.media_s * 1000 / call_s, per_second, design="about 1"),
        Row("ten calls: call-seconds per turn", call_s / len(answer), "s", design="10"),
        Row(
            "ten calls: ACK to greeting, median",
            statistics.median(measured["greeting"]),
            "ms",
            bar=GREETING_BAR_MS,
        ),
        Row(
            "ten calls: ACK to greeting, worst",
            max(measured["greeting"]),
            "ms",
            bar=GREETING_BAR_MS,
            worst=True,
        ),
        Row(
            "ten calls: last packet to answer minus wait, median",
            statistics.median(answer) - wait_ms,
            "ms",
            bar=SHARE_BAR_MS,
        ),
        Row(
            "ten calls: last detected speech to answer minus wait, median",
            statistics.median(detected) - wait_ms,
            "ms",
            bar=SHARE_BAR_MS,
        ),
        Row(
            "ten calls: detector's last speech before the last packet, median",
            statistics.median(b - a for a, b in zip(answer, detected, strict=True)),
            "ms",
        ),
        Row(
            "ten calls: silence when the detector decides (200 configured), median",
            statistics.median(measured["stop_decision"]),
            "ms",
        ),
        Row(
            "ten calls: playout spacing error p50", percentile(spacing, 50), "ms", peer=percentile(slept, 50)
        ),
        Row(
            "ten calls: playout spacing error p99",
            percentile(spacing, 99),
            "ms",
            peer=percentile(slept, 99),
            bar=SPACING_BAR_MS,
        ),
        Row("ten calls: playout spacing error worst", max(spacing), "ms", peer=max(slept), worst=True),
    ]


async def _barge_in(bench: Bench) -> list[Row]:
    """The caller speaks over the answer."""
    measured, _ = await _raw_callers(bench, "barge-in", BARGE_IN_CALLS, BARGE_INS, 0)
    silence, detected = measured["silence"], measured["silence_after_detected"]
    return [
        Row("barge-in: first speech packet to last audible packet, median", statistics.median(silence), "ms"),
        Row(
            "barge-in: speech detected to last audible packet, median",
            statistics.median(detected),
            "ms",
            bar=SILENCE_BAR_MS,
        ),
        Row(
            "barge-in: speech detected to last audible packet, worst",
            max(detected),
            "ms",
            bar=SILENCE_BAR_MS,
            worst=True,
        ),
    ]
