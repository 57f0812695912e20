"""What became of a call's providers: told once for each kind, counted to the end, bounded."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.errors import FailureCause
from mediaserver.providers.breaker import Stage
from mediaserver.providers.trail import (
    MAX_KINDS,
    MAX_NAME_CHARACTERS,
    Happened,
    Passed,
    ProviderEvent,
    ProviderHistory,
    ProviderTrail,
    provider_entries,
)
from mediaserver.workers.messages import ProviderTold, WireError, decode, encode
from mediaserver.workers.provider_told import event_of, told_of_provider
from tenancy.providers import ProviderStep
from vault.resolver import Origin

served = st.just((Happened.SERVED, None))
failed = st.tuples(st.just(Happened.FAILED), st.sampled_from(FailureCause))
passed = st.tuples(st.just(Happened.NOT_ASKED), st.sampled_from(Passed))
notes = st.tuples(
    st.sampled_from(Stage), st.sampled_from(["own", "shared", "embedded"]), served | failed | passed
)


@given(st.lists(notes, max_size=200), st.integers(0, 199))
def test_every_event_is_counted_across_a_wire_and_a_first_one_is_told_at_once(
    noted: list[tuple[Stage, str, tuple[Happened, FailureCause | Passed | None]]], lost_at: int
) -> None:
    history, expected = ProviderHistory(), Counter[tuple[str, ...]]()

    def tell(event: ProviderEvent) -> None:
        call, message = decode(memoryview(encode(7, told_of_provider(event)))[4:])
        assert call == 7
        assert isinstance(message, ProviderTold)
        history.take(event_of(message))

    trail = ProviderTrail(tell)
    for at, (stage, provider, (happened, reason)) in enumerate(noted):
        if at == lost_at:
            trail.flush()
            trail = ProviderTrail(tell)  # Another worker has the call from here on.
        trail.note(stage, provider, happened, reason)
        expected[stage, provider, happened, reason or ""] += 1
        assert set(expected) == {
            (each.stage, each.provider, each.happened, each.reason) for each in history.events
        }
    trail.flush()
    trail.flush()
    counted = {(each.stage, each.provider, each.happened, each.reason): each.times for each in history.events}
    assert counted == expected
    assert list(counted) == list(expected), "in the order in which each happened first"


def test_a_call_keeps_no_more_kinds_than_its_bound_and_no_longer_names() -> None:
    told: list[ProviderEvent] = []
    trail, history = ProviderTrail(told.append), ProviderHistory()
    for number in range(MAX_KINDS + 10):
        trail.note(Stage.LLM, f"{number}" * MAX_NAME_CHARACTERS, Happened.SERVED)
    assert len(told) == MAX_KINDS
    assert all(len(each.provider) == MAX_NAME_CHARACTERS for each in told)
    for number in range(MAX_KINDS + 10):
        history.take(ProviderEvent(Stage.LLM, f"p{number}", Happened.SERVED, "", 3))
    assert (len(history.events), history.dropped) == (MAX_KINDS, 30)


@pytest.mark.parametrize(
    "wrong",
    [
        ProviderTold("vision", "p", "served", "", 1),
        ProviderTold("llm", "p", "sold", "", 1),
        ProviderTold("llm", "p", "failed", "sk-secret", 1),
        ProviderTold("llm", "p", "served", "timeout", 1),
        ProviderTold("llm", "p", "not_asked", "timeout", 1),
        ProviderTold("llm", "p", "served", "", 0),
        ProviderTold("llm", "p", "served", "", 2**31),
        ProviderTold("llm", "p" * (MAX_NAME_CHARACTERS + 1), "served", "", 1),
    ],
)
def test_what_no_worker_says_is_no_event(wrong: ProviderTold) -> None:
    with pytest.raises(WireError, match="ProviderTold"):
        event_of(wrong)


def test_a_record_says_who_was_to_serve_and_why_and_then_what_became_of_it() -> None:
    steps = (
        ProviderStep("llm", Origin.TENANT, "own", "key own was revoked"),
        ProviderStep("llm", Origin.FALLBACK, "embedded", "the last step of every chain", "embedded"),
    )
    history = ProviderHistory()
    history.take(ProviderEvent(Stage.LLM, "embedded", Happened.FAILED, FailureCause.RESET, 2))
    assert provider_entries(steps, history) == [
        {
            "service": "llm",
            "origin": "tenant",
            "model": "own",
            "outcome": "left_out",
            "reason": "key own was revoked",
        },
        {
            "service": "llm",
            "origin": "fallback",
            "model": "embedded",
            "outcome": "chosen",
            "reason": "the last step of every chain",
            "provider": "receptionist",
        },
        {"service": "llm", "provider": "embedded", "outcome": "failed", "reason": "reset", "times": 2},
    ]
