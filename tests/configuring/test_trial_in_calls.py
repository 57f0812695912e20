"""A trial decided by calls: a real node, simulated providers, callers that speak."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mediaserver.softphone.speech import Utterance
from mediaserver.telemetry.schema import TRIAL_CALLS, TRIALS_ENDED
from mediaserver.telemetry.trial_outcome import trial_outcome
from perf.simulators import Behaviour, Script, running
from tenancy.canary import Bound, CanaryPlan, Decision, Metric
from tenancy.ledger import Deed
from tenancy.versions import VersionState
from tests.sim.node import GREETING, running_node, tenant

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


def test_what_a_call_shows() -> None:
    outcome = trial_outcome(3, "conversation over", range(100, 2_100, 100), human_requested=True)
    assert (outcome.version, outcome.failed, outcome.transferred) == (3, False, True)
    assert (outcome.turn_latency_ms, outcome.turn_latency_p95_ms, outcome.cost_micros) == (1_000, 1_900, None)
    assert trial_outcome(3, "pipeline failed", [], human_requested=False).failed
    assert trial_outcome(3, "pipeline failed", [], human_requested=False).turn_latency_ms is None
    one = trial_outcome(3, "server stopping", [250], human_requested=False)
    assert (one.failed, one.turn_latency_ms, one.turn_latency_p95_ms) == (False, 250, 250)
