"""Whole nodes whose tenants' configurations change under them: from another process, from the watched folder, by a trial."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml
from loguru import logger

from mediaserver.softphone.speech import Utterance
from mediaserver.telemetry.schema import CONFIG_CHANGES, TRIALS_ENDED
from perf.simulators import Behaviour, Script
from tenancy.canary import CanaryPlan, Decision
from tenancy.lifecycle import Lifecycle
from tests.sim import forked
from tests.sim.node import GREETING, RunningNode, running_node, tenant

NEW_GREETING = "Good day, this is the bakery around the corner."
OLD_ADDRESS, NEW_ADDRESS = "1 Mill Lane", "22 Baker Street"
LONG_REPLY = "We have bread and rolls all day, and cakes in the afternoon. " * 3
NOTICED_S = 30
"""For what a node does within a second where the machine has nothing else to do."""


async def _until(condition: Callable[[], bool], seconds: float = NOTICED_S) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is the synchronisation
            await asyncio.sleep(0.005)


async def cli(directory: Path, *arguments: object) -> str:
    """``mediaserver config`` in a process of its own, on the node's store."""
    node = directory / "cli.yaml"
    node.write_text(yaml.safe_dump({"data_dir": str(directory / "data")}))
    done = await forked.start("config", *arguments, "--config", node, environ={"OPENAI_API_KEY": ""})
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def write(path: Path, url: str, **changes: object) -> None:
    """A tenant's file, whole and in one go."""
    path.with_suffix(".tmp").write_text(yaml.safe_dump(tenant(url, **changes).model_dump(mode="json")))
    path.with_suffix(".tmp").rename(path)


async def heard_of(running: RunningNode, question: Utterance, **options: object) -> None:
    report = await running.call(question, **options)  # type: ignore[arg-type] # passed through
    assert report.success, report.summary()
    async with asyncio.timeout(10):
        await running.node.idle()


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []
    number = logger.add(lines.append, format="{level} {message}")
    yield lines
    logger.remove(number)


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_another_process_activates_is_the_next_call_s_and_no_earlier_one_s(
    tmp_path: Path, question: Utterance, workers: int
) -> None:
    script = Script(replies=[LONG_REPLY])
    async with running_node(tmp_path, script=script, workers=workers) as running:
        changed = running.node.registry
        (before,) = await changed.active_tenants()
        config = before.config.model_dump(mode="json")
        (tmp_path / "new.yaml").write_text(
            yaml.safe_dump(config | {"greeting": NEW_GREETING, "address": NEW_ADDRESS})
        )
        await cli(tmp_path, "draft", tmp_path / "new.yaml")
        await cli(tmp_path, "validate", "--tenant", "bakery", "--version", 2)
        assert NEW_GREETING not in script.spoken  # A draft is nobody's.
        up = asyncio.create_task(running.call(question, question))
        await _until(lambda: bool(script.chats_seen))
        await cli(tmp_path, "activate", "bakery", 2, "--expected", 1)
        # The greeting is made before anybody calls.
        meters = running.node.telemetry.meters
        await _until(lambda: NEW_GREETING in script.spoken and meters.value(CONFIG_CHANGES, "prepared") > 0)
        assert not up.done()
        report = await up
        assert report.success, report.summary()
        async with asyncio.timeout(10):
            await running.node.idle()
        asked = len(script.chats_seen)
        assert all(OLD_ADDRESS in str(messages[0]) for messages in script.chats_seen)
        (first,) = await running.node.registry.calls("bakery")
        assert first.config_version == 1
        assert first.transcript[0]["text"] == GREETING

        made = script.spoken.count(NEW_GREETING)
        await heard_of(running, question)
        newest, _ = await running.node.registry.calls("bakery")
        assert newest.config_version == 2
        assert newest.transcript[0]["text"] == NEW_GREETING
        assert all(NEW_ADDRESS in str(messages[0]) for messages in script.chats_seen[asked:])
        assert script.spoken.count(NEW_GREETING) == made == 1


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_file_of_the_watched_folder_is_the_next_call_s_and_a_wrong_one_nobody_s(
    tmp_path: Path, question: Utterance, said: list[str], workers: int
) -> None:
    script = Script()
    folder = tmp_path / "watched"
    folder.mkdir()
    async with running_node(
        tmp_path, script=script, workers=workers, folder=folder, numbers=["+15550177"], tenant_id="baseline"
    ) as running:
        (before,) = await running.node.registry.active_tenants()
        (provider,) = before.config.model_dump(mode="json")["providers"]["llm"]
        url = provider["base_url"]
        root = f"http://127.0.0.1:{running.node.operator_port}"

        async def folder_status() -> dict[str, object]:
            async with httpx.AsyncClient() as client:
                found: dict[str, object] = (await client.get(f"{root}/status")).json()["tenant_folder"]
            return found

        file = folder / "bakery.yaml"
        write(file, url)
        await _until(lambda: any("bakery version 1 is active" in line for line in said))
        await _until(lambda: GREETING in script.spoken)
        await heard_of(running, question)

        write(file, url, greeting=NEW_GREETING)
        await _until(lambda: any("bakery version 2 is active" in line for line in said))
        await _until(lambda: NEW_GREETING in script.spoken)
        await heard_of(running, question)
        newest, oldest = await running.node.registry.calls("bakery")
        greetings = [each.transcript[0]["text"] for each in (oldest, newest)]
        assert greetings == [GREETING, NEW_GREETING]
        assert (await folder_status())["refused"] == 0

        text = file.read_text()
        line = 1 + text[: text.index("time_zone:")].count("\n")
        file.with_suffix(".tmp").write_text(text.replace("Europe/Berlin", "Europe/Berlyn"))
        file.with_suffix(".tmp").rename(file)
        why = f"bakery.yaml:{line}:1: time_zone: 'Europe/Berlyn' is not an IANA time zone"
        await _until(lambda: any("not in use, what ran goes on" in each and why in each for each in said))
        status = await folder_status()
        assert status["refused"] == 1
        refusals = status["refusals"]
        assert isinstance(refusals, dict)
        assert why in refusals["bakery.yaml"]
        await heard_of(running, question)
        newest, *_ = await running.node.registry.calls("bakery")
        assert (newest.config_version, newest.transcript[0]["text"]) == (2, NEW_GREETING)


async def test_a_trial_s_greeting_is_made_and_the_node_ends_the_trial_by_itself(
    tmp_path: Path, said: list[str]
) -> None:
    """No call comes, and nobody is asked but the one tenant."""
    script = Script()
    other = {"tenant_id": "florist", "numbers": ["+15550188"]}
    async with running_node(tmp_path, script=script, others=[other]) as running:
        registry = running.node.registry
        lifecycle = registry.lifecycle
        before = next(each for each in await registry.active_tenants() if each.config.tenant_id == "bakery")
        changed = before.config.model_copy(update={"greeting": NEW_GREETING})
        drafted = await lifecycle.draft(changed, lifecycle.origin("ada", "nicer words"))
        plan = CanaryPlan(version=drafted.version, baseline=1, max_duration_ms=60_000)
        await lifecycle.begin_trial("bakery", plan, lifecycle.origin("ada", "try it"))
        await _until(lambda: NEW_GREETING in script.spoken)
        # Its minute is over: the clock of whoever looks says so.
        ends_at_ms = (await registry.store.due_trials(2**62))[0].due_at_ms
        over = datetime.fromtimestamp(ends_at_ms / 1000, tz=UTC)
        registry.lifecycle = Lifecycle(registry.store, now=lambda: over)
        meters = running.node.telemetry.meters
        await _until(lambda: meters.value(TRIALS_ENDED, "roll_back") == 1)
        assert (await lifecycle.ledger("bakery")).trial is None
        (trial,) = await lifecycle.trials("bakery")
        assert trial.decision is Decision.ROLL_BACK
        logged = [line for line in said if "trial rolled back by canary" in line]
        assert len(logged) == 1
        assert logged[0].startswith("WARNING bakery version 2")
        async with httpx.AsyncClient() as client:
            status = (await client.get(f"http://127.0.0.1:{running.node.operator_port}/status")).json()
            metrics = (await client.get(f"http://127.0.0.1:{running.node.operator_port}/metrics")).text
        assert status["trials"]["ended"] == {"roll_back": 1}
        (shown,) = status["trials"]["latest"]
        assert (shown["tenant"], shown["version"], shown["decision"]) == ("bakery", 2, "roll_back")
        assert "neither shown in 60000 ms with 0 calls" in shown["reason"]
        assert 'receptionist_config_trials_ended_total{decision="roll_back"} 1' in metrics


async def test_a_tenant_whose_voice_hangs_keeps_no_other_from_its_phrases(tmp_path: Path) -> None:
    """And a change that is told in this process needs no look at the store."""
    script = Script()
    hanging = Script()
    from perf.simulators import running as simulating

    with simulating(hanging) as hanging_url:
        slow = {"kind": "openai", "base_url": hanging_url, "model": "simulated"}
        provided = {"stt": [slow], "llm": [slow], "tts": [slow]}
        other = {"tenant_id": "florist", "numbers": ["+15550188"], "providers": provided}
        async with running_node(tmp_path, script=script, others=[other]) as running:
            hanging.speech = Behaviour(hang=True)
            registry = running.node.registry
            for each in await registry.active_tenants():
                changed = each.config.model_copy(update={"greeting": NEW_GREETING})
                await registry.import_tenant(changed, author="op", reason="new words")
                if each.config.tenant_id == "florist":
                    asked = hanging.requests.get("speech", 0)
                    running.node.on_changed("florist")
                    await _until(lambda: hanging.requests.get("speech", 0) > asked)  # noqa: B023
            running.node.on_changed("bakery")
            await _until(lambda: NEW_GREETING in script.spoken, 10)
