"""Every fault of a provider, in every stage: the stage ends in its budget, the next provider serves, and only this call knows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from loguru import logger

from mediaserver.errors import FailureCause
from mediaserver.pipeline.openai_links import max_audio_bytes
from mediaserver.pipeline.providers import Budgets
from mediaserver.providers.asking import ProviderCare
from mediaserver.providers.breaker import Stage, State
from mediaserver.providers.connections import ProviderClient
from perf.provider_faults import Fault
from perf.simulators import Behaviour, Script, running, tone
from tests.providers.stages import BUDGETS, CANARY, FAILURE, PATIENT, SENTENCE, CallStages, provider

HANG_GUARD_S = 20.0
ENDS_BY_THE_CLOCK = frozenset(
    {Fault.SILENT, Fault.HEADERS_THEN_SILENT, Fault.SILENT_IN_ANSWER, Fault.ENORMOUS}
)
TRANSCRIPT = "When are you open?"
RIGHT: dict[Stage, str | bytes] = {
    Stage.STT: TRANSCRIPT,
    Stage.LLM: SENTENCE,
    Stage.TTS: tone(SENTENCE),
}
CAUSES = {
    Fault.RESET_AT_ACCEPT: {FailureCause.RESET, FailureCause.UNREACHABLE},
    Fault.RESET_BEFORE_ANSWER: {FailureCause.RESET},
    Fault.RESET_AFTER_HEADERS: {FailureCause.RESET},
    Fault.RESET_IN_ANSWER: {FailureCause.RESET},
    Fault.SILENT: {FailureCause.TIMEOUT},
    Fault.HEADERS_THEN_SILENT: {FailureCause.TIMEOUT},
    # A transcript comes in one piece: what stops before its end has not begun.
    Fault.SILENT_IN_ANSWER: {FailureCause.STALL, FailureCause.TIMEOUT},
    Fault.MALFORMED: {FailureCause.GARBAGE},
    # Chunks without a text in them are nothing, whatever else they are.
    Fault.WRONG_SHAPE: {FailureCause.GARBAGE, FailureCause.EMPTY},
    Fault.WRONG_KIND: {FailureCause.GARBAGE, FailureCause.EMPTY},
    Fault.NOISE: {FailureCause.GARBAGE, FailureCause.TOO_LARGE, FailureCause.EMPTY},
    Fault.ENORMOUS: {FailureCause.TOO_LARGE},
    Fault.PACKED: {FailureCause.GARBAGE},
    Fault.REPEATS_REQUEST: {FailureCause.DENIED},
}
BREAKS_OFF = {Fault.RESET_IN_ANSWER, Fault.SILENT_IN_ANSWER, Fault.ENORMOUS}
"""Faults after which the caller has heard a part of the answer, where it is one of several pieces."""


@pytest.fixture(scope="module")
def simulators() -> Iterator[tuple[tuple[Script, str], tuple[Script, str]]]:
    faulty = Script(transcripts=[TRANSCRIPT], replies=[SENTENCE])
    good = Script(transcripts=[TRANSCRIPT], replies=[SENTENCE])
    with running(faulty) as faulty_url, running(good) as good_url:
        yield (faulty, faulty_url), (good, good_url)


@pytest.fixture
async def http() -> AsyncIterator[ProviderClient]:
    client = ProviderClient()
    yield client
    await client.aclose()


def set_fault(script: Script, stage: Stage, fault: Fault | None) -> None:
    behaviours = {name: Behaviour() for name in ("transcription", "chat", "speech")}
    behaviours[{Stage.STT: "transcription", Stage.LLM: "chat", Stage.TTS: "speech"}[stage]].fault = fault
    for name, behaviour in behaviours.items():
        setattr(script, name, behaviour)


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("fault", list(Fault))
async def test_a_fault_is_answered_by_the_next_provider_and_touches_no_other_call(
    simulators: tuple[tuple[Script, str], tuple[Script, str]],
    http: ProviderClient,
    fault: Fault,
    stage: Stage,
) -> None:
    (script, faulty_url), (_, good_url) = simulators
    set_fault(script, stage, fault)
    care = ProviderCare.fresh()
    chain = [provider(faulty_url, "faulty"), provider(good_url, "good")]
    call = CallStages(chain, http, care, budgets=BUDGETS if fault in ENDS_BY_THE_CLOCK else PATIENT)
    other_calls = [CallStages([provider(good_url, "good")], http, care, budgets=PATIENT) for _ in range(3)]
    async with asyncio.timeout(HANG_GUARD_S):
        others = [asyncio.create_task(everything(other)) for other in other_calls]
        answer, apologies = await call.do(stage)
    assert await asyncio.gather(*others) == [(TRANSCRIPT, 0, SENTENCE, 0, tone(SENTENCE), 0)] * 3
    figures = care.stats.snapshot().providers[stage, chain[0].name]
    (cause,) = figures.failures
    assert figures.failures[cause] == figures.requests == 1
    assert cause in CAUSES[fault]
    right = RIGHT[stage]
    if stage is Stage.LLM and fault in BREAKS_OFF:
        # It ends where it broke: nobody wants to hear the beginning of another answer after it.
        assert isinstance(answer, str)
        assert apologies == 0
        assert SENTENCE.startswith(answer) or answer.startswith("and then")
        assert len(answer) <= 4_000
    else:
        assert apologies == apologies_for(fault, stage)
        assert answer[-len(right) :] == right
        if isinstance(answer, bytes):
            assert len(answer) - len(right) <= max_audio_bytes(SENTENCE)
        else:
            assert answer == right


def apologies_for(fault: Fault, stage: Stage) -> int:
    """A key that is refused is refused at once: whoever transcribes next is asked without a word."""
    return 0 if fault is Fault.REPEATS_REQUEST and stage is Stage.STT else 1


async def everything(call: CallStages) -> tuple[object, ...]:
    return (*await call.hear(), *await call.reply(), *await call.speak())


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.HEADERS_THEN_SILENT])
@pytest.mark.parametrize("stage", list(Stage))
async def test_a_hedge_spares_the_caller_the_apology(
    simulators: tuple[tuple[Script, str], tuple[Script, str]],
    http: ProviderClient,
    fault: Fault,
    stage: Stage,
) -> None:
    (script, faulty_url), (_, good_url) = simulators
    set_fault(script, stage, fault)
    care = ProviderCare.fresh()
    chain = [provider(faulty_url, "faulty"), provider(good_url, "good")]
    # A budget that would outlast the test: only the hedge can have brought the answer.
    budgets = Budgets(stt_final_ms=60_000, llm_first_token_ms=60_000, tts_first_audio_ms=60_000,
                      stt_hedge_ms=50, llm_hedge_ms=50, tts_hedge_ms=50)  # fmt: skip
    call = CallStages(chain, http, care, budgets=budgets)
    async with asyncio.timeout(HANG_GUARD_S):
        assert await call.do(stage) == (RIGHT[stage], 0)
    providers = care.stats.snapshot().providers
    assert providers[stage, chain[0].name].failures == {FailureCause.SLOW: 1}
    assert providers[stage, chain[1].name].hedges_won == 1


@pytest.mark.parametrize("stage", list(Stage))
async def test_without_another_provider_the_caller_is_told(
    simulators: tuple[tuple[Script, str], tuple[Script, str]], http: ProviderClient, stage: Stage
) -> None:
    (script, faulty_url), _ = simulators
    set_fault(script, stage, Fault.SILENT)
    call = CallStages([provider(faulty_url, "faulty")], http, ProviderCare.fresh())
    async with asyncio.timeout(HANG_GUARD_S):
        answer, apologies = await call.do(stage)
    expected: dict[Stage, tuple[str | bytes, int]] = {
        Stage.STT: ("", 1),
        Stage.LLM: ("Sorry.", 0),
        Stage.TTS: (FAILURE, 1),
    }
    assert (answer, apologies) == expected[stage]


@pytest.mark.parametrize("stage", list(Stage))
async def test_a_breaker_is_the_tenants_own_and_the_next_turns_do_not_wait(
    simulators: tuple[tuple[Script, str], tuple[Script, str]], http: ProviderClient, stage: Stage
) -> None:
    (script, faulty_url), (_, good_url) = simulators
    set_fault(script, stage, Fault.REPEATS_REQUEST)
    care = ProviderCare.fresh()
    call = CallStages([provider(faulty_url, "faulty"), provider(good_url, "good")], http, care)
    turns = [await call.do(stage) for _ in range(5)]
    apologies = apologies_for(Fault.REPEATS_REQUEST, stage)
    assert turns == [(RIGHT[stage], apologies)] * 3 + [(RIGHT[stage], 0)] * 2
    snapshot = care.stats.snapshot()
    assert snapshot.breaker_changes == {(stage, State.OPEN): 1}
    name = provider(faulty_url, "faulty").name
    assert (snapshot.providers[stage, name].requests, snapshot.providers[stage, name].skipped) == (3, 2)
    # Another tenant's key at the same provider is another matter.
    set_fault(script, stage, None)
    other = CallStages([provider(faulty_url, "faulty", "sk-another")], http, care)
    assert await other.do(stage) == (RIGHT[stage], 0)
    assert care.stats.snapshot().providers[stage, name].answered == 1


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("fault", list(Fault))
async def test_no_log_and_no_repr_has_the_key(
    simulators: tuple[tuple[Script, str], tuple[Script, str]],
    http: ProviderClient,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    stage: Stage,
) -> None:
    (script, faulty_url), _ = simulators
    set_fault(script, stage, fault)
    care = ProviderCare.fresh()
    written: list[str] = []
    sink = logger.add(written.append, level="TRACE", format="{message} {exception} {extra}", diagnose=False)
    try:
        with caplog.at_level(logging.INFO):
            call = CallStages([provider(faulty_url, "faulty")], http, care)
            async with asyncio.timeout(HANG_GUARD_S):
                await call.do(stage)
    finally:
        logger.remove(sink)
    assert any(provider(faulty_url, "faulty").name in line for line in written)
    shown = [*written, caplog.text, repr(care), repr(care.stats.snapshot()), repr(vars(call))]
    shown += [repr(key) for key in care.breakers._breakers]
    assert not [text for text in shown if CANARY in text]
