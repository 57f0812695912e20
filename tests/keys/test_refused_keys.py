"""A tenant's own key that its provider refuses costs the caller no dead air, and the next call does not ask with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from config.node import FileKek, PlatformProviders, VaultConfig
from config.tenant import OpenAICompatible
from mediaserver.errors import StartupError
from mediaserver.key_reports import KeyReports
from mediaserver.providers.breaker import Stage
from mediaserver.providers.key_watch import KeyReport
from mediaserver.softphone.speech import Utterance
from mediaserver.telemetry.meters import Meters
from perf.simulators import Behaviour, Script, running
from tests.sim.node import RunningNode, running_node
from tests.sim.vault import keep, vault_config
from tests.telemetry.conftest import LogsTo
from tests.tenancy.conftest import dialled
from vault import KeyRef, Outcome, Service

BUDGET_MS = 3_000
DEAD_AIR_MS = 1_500
"""A refusal is answered by the next link at once: far below the budget that a silent provider would cost."""
KEY = "tenant-own-key-5d1c"
OWN_WORDS = "This is the tenant's own model."
PLATFORM_WORDS = "This is the platform's model."


@dataclass(frozen=True)
class Refusal:
    """How a provider refuses a key."""

    status: int
    state: str
    code: str | None = None
    retry_after: str | None = None

    def set(self, *behaviours: Behaviour) -> None:
        for each in behaviours:
            each.status, each.error_code, each.retry_after = self.status, self.code, self.retry_after


DENIED = Refusal(401, "denied")
UNPAID = Refusal(402, "out of quota")
EMPTY = Refusal(429, "out of quota", code="insufficient_quota")
HASTY = Refusal(429, "rate limited", retry_after="120")


def status(node: RunningNode) -> dict[str, object]:
    return node.node._status()


async def held(node: RunningNode, services: int) -> None:
    """Wait until so many services' keys are held off in the edge: a worker's report is on its way."""
    async with asyncio.timeout(5):
        while status(node)["keys_held_off"] != services:  # noqa: ASYNC110 - nothing tells of a report
            await asyncio.sleep(0.01)


async def ask(node: RunningNode, question: Utterance) -> tuple[list[int], list[str]]:
    """Call and ask; the waits for the answers, and what the receptionist said."""
    report = await node.call(question, quiet_ms=1_000)
    assert report.answered
    async with asyncio.timeout(10):
        await node.node.idle()
    record = (await node.node.registry.calls("bakery", 1))[0]
    said = [str(line["text"]) for line in record.transcript if line["speaker"] == "receptionist"]
    return report.latencies_ms, said


@pytest.mark.parametrize(
    ("workers", "stt", "llm", "tts"),
    [(0, DENIED, EMPTY, HASTY), (0, UNPAID, HASTY, DENIED), (1, HASTY, DENIED, EMPTY)],
)
async def test_a_refused_key_costs_no_dead_air_and_is_not_asked_with_again(
    workers: int,
    stt: Refusal,
    llm: Refusal,
    tts: Refusal,
    tmp_path: Path,
    question: Utterance,
    logs_to: LogsTo,
) -> None:
    log, _ = logs_to("INFO", "json")
    await keep(tmp_path, "bakery", own=KEY)
    own, shared = Script(replies=[OWN_WORDS]), Script(replies=[PLATFORM_WORDS])
    with running(own) as own_url, running(shared) as shared_url:
        mine = {"kind": "openai", "base_url": own_url, "model": "own", "key": "own"}
        theirs = OpenAICompatible(base_url=shared_url, model="shared")
        async with running_node(
            tmp_path,
            workers=workers,
            vault=vault_config(tmp_path),
            platform=PlatformProviders(stt=(theirs,), llm=(theirs,), tts=(theirs,)),
            budgets={
                "stt_final_ms": BUDGET_MS,
                "llm_first_token_ms": BUDGET_MS,
                "tts_first_audio_ms": BUDGET_MS,
            },
            providers={"stt": [mine], "llm": [mine], "tts": [mine]},
        ) as node:
            _, said = await ask(node, question)
            assert OWN_WORDS in " ".join(said), "the tenant's key serves as long as it is good"
            for refusal, behaviour in ((stt, own.transcription), (llm, own.chat), (tts, own.speech)):
                refusal.set(behaviour)
            before = dict(own.requests)
            waits, said = await ask(node, question)
            assert PLATFORM_WORDS in " ".join(said), "the next link answers in the same turn"
            assert waits
            assert max(waits) < DEAD_AIR_MS, waits
            asked = {api: own.requests[api] - before[api] for api in before}
            assert all(asked.values()), f"the key was tried: {asked}"
            await held(node, 3)
            before = dict(own.requests)
            waits, said = await ask(node, question)
            assert PLATFORM_WORDS in " ".join(said)
            assert max(waits) < DEAD_AIR_MS, waits
            assert own.requests == before, "nobody asks with it before its hold-off is over"
            # A key that is put anew is another key.
            Refusal(200, "").set(own.transcription, own.chat, own.speech)
            await keep(tmp_path, "bakery", own=f"{KEY}-anew")
            _, said = await ask(node, question)
            assert OWN_WORDS in " ".join(said)
            metrics, _ = node.node.telemetry.snapshot().expose("")
    lines = [orjson.loads(line) for line in log.getvalue().splitlines() if line.startswith("{")]
    refused = [line for line in lines if line.get("event") == "key_refused"]
    states = {"stt": stt.state, "llm": llm.state, "tts": tts.state}
    assert {line["message"].partition(":")[0] for line in refused} == set(states)
    for line in refused:
        assert f"key own version 1 is {states[line['message'].partition(':')[0]]}" in line["message"]
    assert all(line["tenant"] == "bakery" and line["call"] for line in refused)
    resolved = [line["message"] for line in lines if line.get("event") == "providers_resolved"]
    assert len(resolved) == 4
    assert (
        "llm: tenant own: named by the tenant, key from its vault; key own version 1 is usable" in resolved[0]
    )
    for service, state in states.items():
        assert f"{service}: tenant own: key own version 1 is {state} for" in resolved[2]
    assert "key own version 2 is usable" in resolved[3]
    assert KEY not in log.getvalue()
    for service, state in states.items():
        label = f'{{outcome="{state.replace(" ", "_")}",stage="{service}"}}'
        assert f"receptionist_key_refusals_total{label}" in metrics.decode()


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_calls_record_says_who_was_to_serve_it_and_what_became_of_that(
    workers: int, tmp_path: Path, question: Utterance
) -> None:
    await keep(tmp_path, "bakery", own=KEY)
    own, shared = Script(replies=[OWN_WORDS]), Script(replies=[PLATFORM_WORDS])
    with running(own) as own_url, running(shared) as shared_url:
        mine = {"kind": "openai", "base_url": own_url, "model": "own", "key": "own"}
        gone = {"kind": "openai", "base_url": own_url, "model": "gone", "key": "gone"}
        theirs = OpenAICompatible(base_url=shared_url, model="shared")
        async with running_node(
            tmp_path,
            workers=workers,
            vault=vault_config(tmp_path),
            platform=PlatformProviders(llm=(theirs,)),
            providers={"llm": [gone, mine], "stt": [mine], "tts": [mine]},
        ) as node:
            DENIED.set(own.chat)
            HASTY.set(shared.chat)
            await ask(node, question)
            (record,) = await node.node.registry.calls("bakery", 1)
            await held(node, 1)
            await ask(node, question)
            (later,) = await node.node.registry.calls("bakery", 1)
    host = own_url.partition("://")[2].partition("/")[0]
    shared_host = shared_url.partition("://")[2].partition("/")[0]
    tenants, platforms = f"tenant:{host}/own", f"platform:{shared_host}/shared"
    resolved = [each for each in record.providers if each["service"] == "llm" and "origin" in each]
    assert [(each["origin"], each["model"], each["outcome"]) for each in resolved] == [
        ("tenant", "gone", "left_out"),
        ("tenant", "own", "chosen"),
        ("platform", "shared", "chosen"),
        ("fallback", "embedded", "chosen"),
    ]
    assert resolved[0]["reason"] == "key gone is missing"
    assert str(resolved[1]["reason"]).startswith(
        "named by the tenant, key from its vault; key own version 1 is"
    )
    assert resolved[2]["reason"] == "named by the platform, without a key"
    assert [each.get("provider") for each in resolved[1:]] == [tenants, platforms, "receptionist"]
    went = [each for each in record.providers if each["service"] == "llm" and "times" in each]
    # An answer that is begun anew is asked of nobody with the refused key.
    passed = [each for each in went if each["outcome"] == "not_asked"]
    assert all((each["provider"], each["reason"]) == (tenants, "key_held_off") for each in passed)
    went = [each for each in went if each not in passed]
    assert [(each["provider"], each["outcome"], each["reason"]) for each in went] == [
        (tenants, "failed", "denied"),
        (platforms, "failed", "rate_limited"),
        ("receptionist", "served", ""),
    ]
    served = [each for each in record.providers if each["service"] in ("stt", "tts") and "times" in each]
    assert {(each["service"], each["provider"], each["outcome"]) for each in served} == {
        ("stt", tenants, "served"),
        ("tts", tenants, "served"),
    }
    # The next call is resolved without the key that was refused.
    (held_off,) = [
        each for each in later.providers if each.get("model") == "own" and each["service"] == "llm"
    ]
    assert held_off["outcome"] == "left_out"
    assert str(held_off["reason"]).startswith("key own version 1 is denied for")
    assert KEY not in str((record, later))


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_key_is_tried_again_when_its_provider_said(
    workers: int, tmp_path: Path, question: Utterance
) -> None:
    await keep(tmp_path, "bakery", own=KEY)
    own = Script(replies=[OWN_WORDS])
    with running(own) as own_url:
        mine = {"kind": "openai", "base_url": own_url, "model": "own", "key": "own"}
        async with running_node(
            tmp_path, workers=workers, vault=vault_config(tmp_path), providers={"llm": [mine]}
        ) as node:
            Refusal(429, "rate limited", retry_after="1").set(own.chat)
            await ask(node, question)
            await held(node, 1)
            Refusal(200, "").set(own.chat)
            said: list[str] = []
            async with asyncio.timeout(60):
                while OWN_WORDS not in " ".join(said):
                    _, said = await ask(node, question)
            await held(node, 0)


async def test_a_node_whose_key_encryption_key_is_gone_does_not_start_and_says_which(tmp_path: Path) -> None:
    await keep(tmp_path, "bakery", own=KEY)
    (tmp_path / "other").touch(0o600)
    (tmp_path / "other").write_text("5c" * 31 + "01")
    exchanged = VaultConfig(kek=FileKek(source="file", label="test", path=tmp_path / "other"))
    with pytest.raises(StartupError, match=r"vault of tenants' keys.*test:[0-9a-f]{8}, which is missing"):
        async with running_node(tmp_path, vault=exchanged):
            pass


async def test_a_vault_that_breaks_later_costs_the_tenants_key_and_no_call(
    tmp_path: Path, question: Utterance
) -> None:
    await keep(tmp_path, "bakery", own=KEY)
    own = Script(replies=[OWN_WORDS])
    with running(own) as own_url:
        mine = {"kind": "openai", "base_url": own_url, "model": "own", "key": "own"}
        async with running_node(tmp_path, vault=vault_config(tmp_path), providers={"llm": [mine]}) as node:
            keys = node.node.registry.keys
            assert keys is not None
            opened = keys._vault._envelopes.opened
            opened._kept.clear()
            opened._keks._keks.clear()  # type: ignore[attr-defined] # as if the service had lost it
            context = await node.node.registry.context_for(dialled("+15550199"), call_id="c")
            assert context.skipped_providers == ("llm: tenant own: key own is unreadable (KekMissing)",)
            _, said = await ask(node, question)
            assert OWN_WORDS not in " ".join(said)
            assert len(said) >= 2, "the built-in receptionist answered"


async def test_the_status_says_who_serves_a_call_and_why(tmp_path: Path, question: Utterance) -> None:
    await keep(tmp_path, "bakery", own=KEY)
    own = Script(replies=[OWN_WORDS])
    with running(own) as own_url:
        mine = {"kind": "openai", "base_url": own_url, "model": "own", "key": "own"}
        async with running_node(tmp_path, vault=vault_config(tmp_path), providers={"llm": [mine]}) as node:
            shown: list[Any] = []
            calling = asyncio.create_task(
                node.call(question, on_line=lambda _: shown.append(status(node)["calls"]))
            )
            await calling
            (call,) = next(calls for calls in shown if calls)
            assert call["tenant"] == "bakery"
            assert "llm: fallback embedded: the last step of every chain" in call["providers"]
            assert KEY not in str(call)


async def test_what_a_worker_says_of_another_tenants_key_is_not_taken(tmp_path: Path) -> None:
    await keep(tmp_path, "bakery", own=KEY)
    async with running_node(
        tmp_path,
        vault=vault_config(tmp_path),
        providers={"llm": [{"kind": "openai", "model": "own", "key": "own"}]},
    ) as node:
        keys = node.node.registry.keys
        assert keys is not None
        context = await node.node.registry.context_for(dialled("+15550199"), call_id="c")
        reports = KeyReports(keys, Meters())
        for stage, key in (
            (Stage.LLM, KeyRef("florist", "own")),
            (Stage.LLM, KeyRef(None, "OPENAI_API_KEY")),
            (Stage.LLM, KeyRef("bakery", "own", 2)),
            (Stage.TTS, KeyRef("bakery", "own")),
        ):
            reports.take(context, KeyReport(stage, key, Outcome.DENIED, 5))
        assert len(keys.resolver) == 0
        reports.take(context, KeyReport(Stage.LLM, KeyRef("bakery", "own"), Outcome.DENIED, 5))
        assert keys.resolver.held_off(Service.LLM, KeyRef("bakery", "own"), keys.now_ms())
