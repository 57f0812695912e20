"""What holds for any words: no exception, a reply, a bounded state that survives its journal, no foreign fact."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.loader import load_tenant_config
from config.tenant import TenantConfig
from mediaserver.receptionist import (
    MAX_REPLY_CHARS,
    ConversationState,
    EndCall,
    MessageTaken,
    Receptionist,
    UnreadableState,
)
from tests.receptionist.tenants import DENTAL, PLUMBER, TUESDAY_10_AM
from tests.receptionist.test_topics import DENTAL_CASES, PLUMBER_CASES
from tests.receptionist.traces import DEMO

TENANTS = (DENTAL, PLUMBER, *(load_tenant_config(path) for path in sorted(DEMO.glob("*_*.yaml"))))
RECEPTIONISTS = tuple(Receptionist(config) for config in TENANTS)
SAID = tuple(
    text for cases in (DENTAL_CASES, PLUMBER_CASES) for utterances in cases.values() for text in utterances
)
ANSWERS = (
    "Anna Miller",
    "five five five oh one two three",
    "555",
    "no, the number is 212 555 0199",
    "it's about my crown",
    "yes",
    "no",
    "the name",
)
WORDS = st.one_of(
    st.sampled_from(SAID + ANSWERS), st.text(max_size=60), st.text("0123456789+-() ", max_size=30)
)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(RECEPTIONISTS), st.lists(WORDS, max_size=12), MOMENTS)
def test_any_conversation_is_answered(receptionist: Receptionist, words: list[str], now: datetime) -> None:
    state = ConversationState()
    for heard in words:
        reply = receptionist.reply(state, heard, now)
        assert reply.text.strip() == reply.text != ""
        assert len(reply.text) <= MAX_REPLY_CHARS
        assert reply.text == " ".join(reply.text.split())
        assert receptionist.reply(state, heard, now) == reply
        assert ConversationState.from_json(reply.state.to_json()) == reply.state
        assert len(reply.state.to_json()) < 4 * MAX_REPLY_CHARS
        for action in reply.actions:
            if isinstance(action, MessageTaken):
                assert re.fullmatch(r"\+?[0-9]{7,15}|", action.number)
                assert action.name or action.number or action.reason
        state = reply.state


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(RECEPTIONISTS), st.lists(st.sampled_from(SAID + ANSWERS), max_size=8))
def test_replies_are_bounded_and_speakable(receptionist: Receptionist, words: list[str]) -> None:
    """Nothing is left in figures that a voice would stumble over, and nothing runs on."""
    state = ConversationState()
    for heard in words:
        reply = receptionist.reply(state, heard, TUESDAY_10_AM)
        state = reply.state
        assert len(reply.text.split()) <= 110
        assert not re.search(r"\d{7,}|[$€£]|\d:\d\d", reply.text), reply.text


@given(st.text(max_size=200))
def test_an_unreadable_state_is_refused(text: str) -> None:
    try:
        state = ConversationState.from_json(text)
    except UnreadableState:
        return
    assert state == ConversationState.from_json(state.to_json())


@pytest.mark.parametrize("text", ["", "null", '{"misses": "many"}', '{"form": {"step": "dance"}}', "[1]"])
def test_states_of_the_wrong_shape(text: str) -> None:
    with pytest.raises(UnreadableState):
        ConversationState.from_json(text)


def test_silence_ends_the_call_in_bounded_time() -> None:
    receptionist, state = RECEPTIONISTS[0], ConversationState()
    turns, ended = 0, False
    while not ended and turns < 8:
        turns += 1
        reply = receptionist.reply(state, "", TUESDAY_10_AM)
        state = reply.state
        ended = EndCall() in reply.actions
    assert ended
    assert 4 <= turns <= 6


def test_a_form_that_gets_no_answer_ends() -> None:
    receptionist = RECEPTIONISTS[0]
    state = receptionist.reply(ConversationState(), "take a message", TUESDAY_10_AM).state
    turns = 0
    while state.form is not None and turns < 10:
        turns += 1
        state = receptionist.reply(state, "", TUESDAY_10_AM).state
    assert state.form is None
    assert 3 <= turns <= 6


FACTS = {
    "dental": "Maple|Albany|Patel|Delta|Cigna|whitening|library|ninety-five|Bright Smile|oh one nine nine|behind the building",
    "plumber": "Harbor|Chicago|Mike|Illinois|drain|heater|valve|Rapid|oh two nine nine|one hundred forty-nine",
}


@pytest.mark.parametrize(("config", "foreign"), [(DENTAL, FACTS["plumber"]), (PLUMBER, FACTS["dental"])])
def test_no_answer_contains_a_fact_of_the_other_tenant(config: TenantConfig, foreign: str) -> None:
    own, other = Receptionist(config), Receptionist(PLUMBER if config is DENTAL else DENTAL)
    for heard in SAID:
        other.reply(ConversationState(), heard, TUESDAY_10_AM)
        reply = own.reply(ConversationState(), heard, TUESDAY_10_AM)
        assert not re.search(foreign, reply.text), (heard, reply.text)
    assert any(
        re.search(foreign, other.reply(ConversationState(), heard, TUESDAY_10_AM).text) for heard in SAID
    )


def test_two_conversations_of_one_receptionist_do_not_mix() -> None:
    receptionist = RECEPTIONISTS[0]
    first = receptionist.reply(
        ConversationState(), "take a message, this is Anna Miller", TUESDAY_10_AM
    ).state
    receptionist.reply(
        ConversationState(), "take a message, this is Rob Roy", TUESDAY_10_AM + timedelta(hours=1)
    )
    assert "Anna Miller" in first.to_json()
    assert "Rob" not in receptionist.reply(first, "555 0123", TUESDAY_10_AM).state.to_json()
