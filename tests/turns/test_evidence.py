"""What words say about the end of a turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.turns.evidence import Evidence, is_backchannel, judge

COMPLETE = [
    "What are your opening hours?",
    "what are your opening hours",
    "Do you have a table for two tomorrow?",
    "I'd like to book an appointment.",
    "Yes.",
    "No, thank you.",
    "Thank you, goodbye.",
    "My number is 555 867 5309, extension 22 please.",
    "What is it for?",
    "Where are you?",
    "That's all.",
    "It is 0 1 5 1 2 3 4 5 6 7 8.",
]
DOUBT = [
    "",
    "Hello.",
    "a table by the window",
    "That is the place I was looking for.",
    "Sunday",
    "555-0199",
    "[BLANK_AUDIO]",
]
UNFINISHED = [
    "My name is.",
    "My number is",
    "I was wondering if",
    "I'd like to book a table and",
    "I would like",
    "Well, um...",
    "Can I get a,",
    "five five five",
    "It's 0 1 5 1",
    "Do you have any tables on Saturday or",
    "Let me think.",
    "Hold on.",
    "I live at",
    "The thing is that",
]


@pytest.mark.parametrize(
    ("text", "evidence"),
    [(text, Evidence.COMPLETE) for text in COMPLETE]
    + [(text, Evidence.DOUBT) for text in DOUBT]
    + [(text, Evidence.UNFINISHED) for text in UNFINISHED],
)
def test_judged(text: str, evidence: Evidence) -> None:
    assert judge(text) is evidence


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Uh-huh.",
        "Mm-hmm",
        "Okay, right.",
        "yeah",
        "[cough]",
        "(static)",
        "Oh, I see.",
        "All right, got it",
        "Mhm, yes",
    ],
)
def test_backchannels(text: str) -> None:
    assert is_backchannel(text)


@pytest.mark.parametrize(
    "text",
    [
        "No.",
        "Stop.",
        "Wait",
        "Okay, when are you open",
        "Really?",
        "Hello?",
        "Sorry",
        "Yes, I have a question",
        "Right, tomorrow",
        "yeah yeah yeah yeah yeah",
    ],
)
def test_words_that_ask_for_something(text: str) -> None:
    assert not is_backchannel(text)


@given(st.text(max_size=300))
def test_any_text_is_judged(text: str) -> None:
    assert judge(text) in Evidence
    assert is_backchannel(text) in {True, False}
