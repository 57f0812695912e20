"""A trial decided by calls: a real node, simulated providers, callers that speak."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from loguru import logger

from config.tenant import TenantConfig
from mediaserver.softphone.speech import Utterance
from mediaserver.telemetry.schema import TRIAL_CALLS, TRIALS_ENDED
from mediaserver.telemetry.trial_outcome import trial_outcome
from perf.simulators import Behaviour, Script, running
from tenancy.canary import Bound, CanaryPlan, Decision, Metric
from tenancy.ledger import Deed
from tenancy.versions import VersionState
from tests.sim.node import GREETING, running_node, tenant

if TYPE_CHECKING:
    from loguru import Message

SLOW_MS = 2_000
AT_ONCE = 8
MOST_CALLS = 96


async def test_a_slow_version_is_rolled_back_by_its_calls(tmp_path: Path, question: Utterance) -> None:
    """The version on trial asks a language model that takes its time; the calls themselves end it, and no caller is refused."""
    slow = Script(chat=Behaviour(delay_ms=SLOW_MS))
    with running(slow) as slow_url:
        async with running_node(tmp_path) as node:
            registry = node.node.registry
            lifecycle = registry.lifecycle
            (before,) = await registry.active_tenants()
            provider = {"kind": "openai", "base_url": slow_url, "model": "simulated"}
            providers = before.config.providers.model_dump(mode="json") | {"llm": [provider]}
            changed = tenant(slow_url, providers=providers, greeting=GREETING)
            drafted = await lifecycle.draft(changed, lifecycle.origin("ada", "another model"))
            plan = CanaryPlan(
                version=drafted.version,
                baseline=before.config_version,
                share=5_000,
                turn_latency=Bound(absolute=300.0),
                failures=None,
                transfers=None,
                cost=None,
            )
            await lifecycle.begin_trial("bakery", plan, lifecycle.origin("ada", "half of the calls"))
            placed = 0
            while (await lifecycle.ledger("bakery")).trial is not None:
                assert placed < MOST_CALLS, await lifecycle.trials("bakery")
                reports = await asyncio.gather(*(node.call(question) for _ in range(AT_ONCE)))
                assert all(report.success for report in reports), [report.summary() for report in reports]
                placed += AT_ONCE
                await node.node.idle()
            (trial,) = await lifecycle.trials("bakery")
            assert trial.verdict is not None
            assert (trial.decision, trial.verdict.metric) == (Decision.ROLL_BACK, Metric.TURN_LATENCY)
            assert trial.canary.calls + trial.baseline.calls + trial.late <= placed
            ledger = await lifecycle.ledger("bakery")
            assert [each.state for each in ledger.history.versions] == [
                VersionState.ACTIVE, VersionState.REFUSED,
            ]  # fmt: skip
            (line, *_) = await lifecycle.log("bakery")
            assert (line.deed, line.origin.author) == (Deed.TRIAL_ROLLED_BACK, "canary")
            assert "turn_latency_ms" in line.origin.reason
            meters = node.node.telemetry.meters
            assert meters.value(TRIALS_ENDED, "roll_back") == 1
            counted = [meters.value(TRIAL_CALLS, arm) for arm in ("baseline", "canary")]
            assert counted == [trial.baseline.calls, trial.canary.calls]
            # The next caller has the version that stayed.
            asked = sum(slow.requests.values())
            report = await node.call(question)
            assert report.success
            assert sum(slow.requests.values()) == asked


CHEAP = {
    "stt": {"usd_per_minute": 0.006},
    "llm": {"usd_per_million_input_tokens": 0.1, "usd_per_million_output_tokens": 0.4},
    "tts": {"usd_per_million_characters": 15.0},
}
DEAR = CHEAP | {"llm": {"usd_per_million_input_tokens": 900.0, "usd_per_million_output_tokens": 900.0}}
CAP_USD = 1


def priced(config: TenantConfig, prices: Mapping[str, Mapping[str, float]]) -> TenantConfig:
    """The configuration with the prices of each service's providers."""
    document = config.model_dump(mode="json")
    for service, price in prices.items():
        document["providers"][service] = [each | {"price": price} for each in document["providers"][service]]
    return TenantConfig.model_validate(document)


def records(sink: list[Mapping[str, object]]) -> int:
    """Collect what is logged of calls that ended; returns what takes the collector away."""

    def take(message: Message) -> None:
        extra = message.record["extra"]
        if extra.get("event") == "call_ended":
            sink.append(extra)

    return logger.add(take)


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_dear_version_is_rolled_back_for_what_its_calls_cost(
    tmp_path: Path, question: Utterance, workers: int
) -> None:
    """Only the price of the language model differs: what calls use is measured where they run, and priced at the edge."""
    script = Script(usage=(1_000, 20))
    ended: list[Mapping[str, object]] = []
    collector = records(ended)
    try:
        async with running_node(tmp_path, script=script, workers=workers) as node:
            registry = node.node.registry
            lifecycle = registry.lifecycle
            (first,) = await registry.active_tenants()
            origin = lifecycle.origin("ada", "prices")
            await registry.import_tenant(priced(first.config, CHEAP), author="op", reason="prices")
            drafted = await lifecycle.draft(priced(first.config, DEAR), origin)
            plan = CanaryPlan(
                version=drafted.version,
                baseline=2,
                share=5_000,
                cost=Bound(relative=0.25),
                cost_cap_micros=CAP_USD * 1_000_000,
                failures=None,
                transfers=None,
                turn_latency=None,
            )
            await lifecycle.begin_trial("bakery", plan, origin)
            placed = 0
            while (await lifecycle.ledger("bakery")).trial is not None:
                assert placed < MOST_CALLS, await lifecycle.trials("bakery")
                reports = await asyncio.gather(*(node.call(question) for _ in range(AT_ONCE)))
                assert all(report.success for report in reports), [report.summary() for report in reports]
                placed += AT_ONCE
                await node.node.idle()
            (trial,) = await lifecycle.trials("bakery")
            assert trial.verdict is not None
            assert (trial.decision, trial.verdict.metric) == (Decision.ROLL_BACK, Metric.COST)
            assert "cost_micros" in trial.verdict.reason
            assert 0 < trial.baseline.cost.mean < 0.01
            assert trial.canary.cost.mean > 0.5
            assert trial.canary.cost.n == trial.canary.calls
            active = (await lifecycle.ledger("bakery")).history.active
            assert active is not None
            assert active.version == 2
            assert node.node.telemetry.meters.value(TRIALS_ENDED, "roll_back") == 1
    finally:
        logger.remove(collector)
    # What is recorded of each call is what its requests used, at its version's price.
    assert len(ended) == placed
    assert any("tts" in str(extra["usage"]) for extra in ended)
    for extra in ended:
        usage = extra["usage"]
        assert isinstance(usage, dict)
        used = {name.split(" ")[0]: each for name, each in usage.items()}
        # What was said before may be in memory.
        used.setdefault("tts", {"characters": 0})
        assert set(used) == {"stt", "llm", "tts"}
        assert used["llm"]["input_tokens"] > 0
        assert extra["usage_estimated"] or used["llm"]["input_tokens"] % 1_000 == 0
        assert used["stt"]["audio_ms"] > 1_000
        micros = extra["cost_micros"]
        assert isinstance(micros, int)
        tokens = used["llm"]["input_tokens"], used["llm"]["output_tokens"]
        other = used["stt"]["audio_ms"] * 0.1 + used["tts"]["characters"] * 15
        prices = (other + tokens[0] * 0.1 + tokens[1] * 0.4, other + 900 * sum(tokens))
        assert min(abs(micros - each) for each in prices) <= 1


def test_what_a_call_shows() -> None:
    outcome = trial_outcome(3, "conversation over", range(100, 2_100, 100), human_requested=True)
    assert (outcome.version, outcome.failed, outcome.transferred) == (3, False, True)
    assert (outcome.turn_latency_ms, outcome.turn_latency_p95_ms, outcome.cost_micros) == (1_000, 1_900, None)
    costly = trial_outcome(3, "", [], human_requested=False, cost_micros=12, cost_estimated=True)
    assert (costly.cost_micros, costly.cost_estimated) == (12, True)
    assert trial_outcome(3, "pipeline failed", [], human_requested=False).failed
    assert trial_outcome(3, "pipeline failed", [], human_requested=False).turn_latency_ms is None
    one = trial_outcome(3, "server stopping", [250], human_requested=False)
    assert (one.failed, one.turn_latency_ms, one.turn_latency_p95_ms) == (False, 250, 250)
