"""``mediaserver config`` as a person runs it: in processes of its own, on a store that another process has open."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from config.node import PlatformProviders
from perf.provider_faults import Fault
from perf.simulators import Behaviour, Script, running
from tenancy import CallRecord, Registry
from tenancy.canary import Bound, CallOutcome
from tests.sim import forked
from tests.tenancy.conftest import dialled, tenant


class Cli:
    """The command line, with a node's configuration of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = directory / "node.yaml"
        self.node.write_text(yaml.safe_dump({"data_dir": str(directory / "data")}))

    def file(self, name: str, **changes: object) -> Path:
        path = self.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(tenant("a").model_dump(mode="json") | changes))
        return path

    def __call__(self, *arguments: object, status: int = 0) -> str:
        done = forked.run("config", *arguments, "--config", self.node, environ={"OPENAI_API_KEY": ""})
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return (done.stdout if status in (0, 1) else done.stderr).decode()

    async def open(self) -> Registry:
        return await Registry.open(self.directory / "data", PlatformProviders(), {})


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


async def test_a_version_s_life_reaches_a_process_that_runs_at_its_next_call(cli: Cli) -> None:
    registry = await cli.open()
    try:
        await registry.import_tenant(tenant("a", greeting="One."), author="op", reason="first")
        up = await registry.context_for(dialled("+15550100"), call_id="up")

        async def next_call() -> tuple[str, int]:
            context = await registry.context_for(dialled("+15550100"), call_id="next")
            return context.config.greeting, context.config_version

        assert await next_call() == ("One.", 1)
        by = ("--author", "ada", "--reason", "nicer words")
        assert "a version 2 is a draft" in cli("draft", cli.file("two", greeting="Two."), *by)
        assert await next_call() == ("One.", 1)
        assert '~ greeting: "One." -> "Two."' in cli("diff", "a", 1, 2)
        assert "a version 2 is active" in cli("activate", "a", 2, "--expected", 1, *by)
        assert await next_call() == ("Two.", 2)
        assert (up.config.greeting, up.config_version) == ("One.", 1)
        # Somebody else, who saw version 1 active.
        cli("draft", cli.file("three", greeting="Three."))
        refused = cli("activate", "a", 3, "--expected", 1, status=3)
        assert "version 2 is active by now, not 1" in refused
        assert await next_call() == ("Two.", 2)
        assert "version 4 is active, with the content of version 1" in cli("rollback", "a", 1, *by)
        assert await next_call() == ("One.", 4)
        short = cli("history", "a", "--limit", 1)
        assert ("and 3 older ones" in short, short.splitlines()[-1]) == (
            True,
            "  and what was before (--limit)",
        )
        told = cli("history", "a")
        assert "version 2 activated by ada: nicer words" in told
        assert "rolled_back" in told
        assert "(the content of 1)" in told
        assert "version 3 is draft; it must be active" in cli("rollback", "a", 3, status=3)
        assert "refused for good" in cli("reject", "a", 3)
        assert "version 3 is refused; it must be validated" in cli("activate", "a", 3, status=3)
    finally:
        await registry.close()


async def test_validation_says_field_reason_and_line(cli: Cli) -> None:
    registry = await cli.open()
    await registry.import_tenant(tenant("a"), author="op", reason="first")
    await registry.close()
    assert cli("validate", cli.file("good")).endswith("good.yaml: valid\n")
    bad = cli.file("bad", greeting="Hello {nobody}.")
    line = 1 + bad.read_text().split("greeting:")[0].count("\n")
    refused = cli("validate", bad, status=2)
    assert f"bad.yaml:{line}:1: greeting: '{{nobody}}' is no variable; allowed:" in refused
    cli("draft", bad, status=2)
    assert "version 2" not in cli("history", "a")
    cli("draft", cli.file("two", greeting="Two."))
    assert "a version 2: valid" in cli("validate", "--tenant", "a", "--version", 2)
    assert "validated" in cli("history", "a")
    provider = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    away = cli.file("away", providers={"llm": [provider]})
    assert cli("validate", away).endswith("valid\n")
    unreached = cli("validate", away, "--reachability", status=1)
    assert "error: http://127.0.0.1:9/v1: cannot be reached" in unreached
    huge = cli.file(
        "huge",
        faq=[{"question": f"Question {n}?", "answer": "x" * 1900} for n in range(80)],
    )
    assert "the system prompt has" in cli("validate", huge, status=1)
    cli("draft", huge)
    assert "the system prompt has" in cli("activate", "a", 3, status=3)
    assert "refused" in cli("history", "a")


def test_wrong_commands_say_what_is_allowed(cli: Cli) -> None:
    assert "name either a FILE, or --tenant and --version" in cli("validate", status=2)
    assert "no tenant 'nobody'" in cli("history", "nobody", status=2)
    assert "no tenant" in cli("activate", "../../x", 1, status=2)
    assert "is not a number from 1 to" in cli("diff", "a", 0, 1, status=2)
    assert "is not a number above 0" in cli("canary", "a", 2, "--share", "-1", status=2)
    assert "No such file" in cli("draft", cli.directory / "none.yaml", status=2)


async def test_a_trial_is_begun_and_ended(cli: Cli) -> None:
    registry = await cli.open()
    try:
        await registry.import_tenant(tenant("a", greeting="One."), author="op", reason="first")
        cli("draft", cli.file("two", greeting="Two."))
        cli("draft", cli.file("moved", greeting="Two.", numbers=["+15550188"]))
        assert "share_percent: Input should be" in cli("canary", "a", 2, "--share", 60, status=2)
        assert "has other numbers, addresses, trunks or origins than 1 (+15550100, +15550188)" in cli(
            "canary", "a", 3, status=3
        )
        assert "trial of version 2 against 1, 50 % of the calls" in cli("canary", "a", 2, "--share", 50)
        given = [
            (await registry.context_for(dialled("+15550100"), call_id=f"call-{n}")).config_version
            for n in range(60)
        ]
        assert 15 < given.count(2) < 45
        assert set(given) == {1, 2}
        assert "0 calls, 0 failed" in cli("history", "a")
        cli("reject", "a", 2)
        given = [
            (await registry.context_for(dialled("+15550100"), call_id=f"call-{n}")).config_version
            for n in range(60)
        ]
        assert set(given) == {1}
        assert "version 2 was rejected by" in cli("history", "a")
    finally:
        await registry.close()


async def test_recorded_calls_show_what_would_be_said_differently(cli: Cli) -> None:
    registry = await cli.open()
    await registry.import_tenant(tenant("a", greeting="Hello."), author="op", reason="first")
    context = await registry.context_for(dialled("+15550100"), call_id="c1")
    at = datetime(2025, 3, 3, 9, tzinfo=UTC)

    def line(speaker: str, text: str) -> dict[str, object]:
        return {"speaker": speaker, "text": text, "at": at.isoformat(), "interrupted": False}

    from mediaserver.receptionist import ConversationState, Receptionist

    questions = ("Where are you?", "When are you open on Monday?")
    replier, state, lines = (
        Receptionist(context.config),
        ConversationState(),
        [line("receptionist", "Hello.")],
    )
    for question in questions:
        reply = replier.reply(state, question, at)
        state = reply.state
        lines += [line("caller", question), line("receptionist", reply.text)]
    await registry.record_call(context, CallRecord("c1", "+15550100", "sip:x", 1, at, at, "hung up", lines))
    await registry.close()
    assert "0 of 3 replies would differ, in 0 of 1 calls" in cli("try", "a", 1)
    cli("draft", cli.file("two", greeting="Good day.", address="7 New Street"))
    told = cli("try", "a", 2)
    assert "2 of 3 replies would differ, in 1 of 1 calls" in told
    assert "caller: (the greeting)" in told
    assert "- Hello." in told
    assert "+ Good day." in told
    assert "caller: Where are you?" in told
    assert "7 New Street" in told
    assert "When are you open" not in told


async def recorded_call(cli: Cli) -> None:
    """A tenant with one call in which one question was asked."""
    registry = await cli.open()
    await registry.import_tenant(tenant("a", greeting="Hello."), author="op", reason="first")
    context = await registry.context_for(dialled("+15550100"), call_id="c1")
    at = datetime(2025, 3, 3, 9, tzinfo=UTC)
    lines: list[dict[str, object]] = [
        {"speaker": speaker, "text": text, "at": at.isoformat(), "interrupted": False}
        for speaker, text in (
            ("receptionist", "Hello."),
            ("caller", "Do you sell rolls?"),
            ("receptionist", "We sell rolls."),
            ("caller", "And cakes?"),
            ("receptionist", "And cakes."),
        )
    ]
    await registry.record_call(context, CallRecord("c1", "+15550100", "sip:x", 1, at, at, "hung up", lines))
    await registry.close()


async def test_a_version_s_own_model_is_asked_where_that_is_wanted(cli: Cli) -> None:
    """Each line is asked in the conversation as it would have gone, with the version's own prompt."""
    await recorded_call(cli)
    script = Script(replies=["We sell rolls.", "No cakes at all."])
    with running(script) as url:
        models = [{"kind": "openai", "base_url": url, "model": "simulated"}]
        cli("draft", cli.file("two", greeting="Hello.", address="7 New Street", providers={"llm": models}))
        told = cli("try", "a", 2)
        assert script.requests.get("chat", 0) == 0
        assert "answered by the built-in receptionist" in told
        assert "/simulated first, which --ask-models asks" in told
        told = cli("try", "a", 2, "--ask-models")
    assert script.requests == {"chat": 2}
    first, second = script.chats_seen
    assert "7 New Street" in str(first[0]["content"])
    assert [each["content"] for each in first[1:]] == ["Hello.", "Do you sell rolls?"]
    # What the model itself said before, not what was heard then.
    assert [each["content"] for each in second[1:]] == [
        "Hello.", "Do you sell rolls?", "We sell rolls.", "And cakes?",
    ]  # fmt: skip
    assert "1 of 3 replies would differ, in 1 of 1 calls" in told
    assert "- And cakes." in told
    assert "+ No cakes at all." in told
    assert "/simulated: 1 of 3" in told


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (Behaviour(status=500), "/simulated: HTTP 500"),
        (Behaviour(status=401), "/simulated: HTTP 401"),
        (Behaviour(break_off_after=1), "/simulated: "),
        (Behaviour(fault=Fault.WRONG_SHAPE), "/simulated: "),
        (Behaviour(fault=Fault.RESET_BEFORE_ANSWER), "/simulated: "),
    ],
)
async def test_a_model_that_does_not_answer_is_said_in_a_line(
    cli: Cli, behaviour: Behaviour, why: str
) -> None:
    await recorded_call(cli)
    with running(Script(chat=behaviour)) as url:
        models = [{"kind": "openai", "base_url": url, "model": "simulated"}]
        cli("draft", cli.file("two", greeting="Hello.", providers={"llm": models}))
        told = cli("try", "a", 2, "--ask-models", status=2)
    assert told.startswith("mediaserver: ")
    assert why in told
    assert told.count("\n") == 1


async def test_a_model_whose_key_is_not_there_is_said_instead_of_another_s_answers(cli: Cli) -> None:
    await recorded_call(cli)
    models = [{"kind": "openai", "model": "m", "key": "ours"}]
    cli("draft", cli.file("two", providers={"llm": models}))
    told = cli("try", "a", 2, "--ask-models", status=2)
    assert (
        "no language model can be asked: llm: tenant m: key ours is missing: this node has no vault" in told
    )
    assert "no language model can be asked: the version names none" in cli(
        "try", "a", 1, "--ask-models", status=2
    )


async def test_a_bound_on_cost_needs_prices_and_the_command_says_whose(cli: Cli) -> None:
    registry = await cli.open()
    await registry.import_tenant(tenant("a", greeting="One."), author="op", reason="first")
    await registry.close()
    model: dict[str, object] = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
    cli("draft", cli.file("two", providers={"llm": [model]}))
    refused = cli("canary", "a", 2, "--max-cost", 20, status=3)
    assert "there can be no bound on it: no price is stated for providers.llm.0 (m)" in refused
    assert "trial begun" not in cli("history", "a")
    assert "cost per call is not compared: no price is stated for providers.llm.0 (m)" in cli(
        "canary", "a", 2
    )
    cli("reject", "a", 2)
    price = {"usd_per_million_input_tokens": 0.4, "usd_per_million_output_tokens": 1.6}
    cli("draft", cli.file("three", providers={"llm": [model | {"price": price}]}))
    begun = cli("canary", "a", 3, "--max-cost", 20, "--cost-cap", 0.5)
    assert "not compared" not in begun
    registry = await cli.open()
    trial = (await registry.lifecycle.ledger("a")).trial
    assert trial is not None
    assert trial.plan.cost == Bound(relative=0.2)
    assert trial.plan.cost_cap_micros == 500_000
    await registry.lifecycle.end_call("a", CallOutcome(3, cost_micros=12_300, cost_estimated=True))
    await registry.close()
    assert "0.0123 USD a call, 1 of 1 estimated" in cli("history", "a")
    assert "is not a number above 0" in cli("canary", "a", 3, "--max-cost", "none", status=2)
    wrong = cli.file("wrong", providers={"llm": [model | {"price": {"usd_per_minute": 1.0}}]})
    assert "a language model is charged by usd_per_million_input_tokens" in cli("validate", wrong, status=2)
