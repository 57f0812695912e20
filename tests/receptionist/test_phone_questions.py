"""What callers ask most, in their wordings and in a speech model's, at the demo tenants: what they then hear."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from config.loader import load_tenant_config
from config.tenant import TenantConfig
from mediaserver.receptionist import ConversationState, Receptionist
from tests.receptionist.traces import DEMO

NOW = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
"""A Tuesday: ten in the morning at the dentist, nine at the plumber."""
DENTIST = load_tenant_config(DEMO / "bright_smile_dental.yaml")
PLUMBER = load_tenant_config(DEMO / "rapid_plumbing.yaml")

QUESTIONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("What are your opening hours on Friday?", "what are your opening ours on fried day"),
        "On Friday we're open from eight a.m. to two p.m.",
        "On Friday we're open from seven a.m. to noon and from one p.m. to four p.m.",
    ),
    (
        ("When are you open tomorrow?", "when are you open to morrow"),
        "Tomorrow we're open from ten a.m. to seven p.m.",
        "Tomorrow we're open from seven a.m. to noon and from one p.m. to six p.m.",
    ),
    (("are you open right now",), "we're open now, until five p.m.", "we're open now, until noon."),
    (
        ("what time do you close today", "what time do you clothes today"),
        "We close today at five p.m.",
        "We close at noon, and we're open again today from one p.m. to six p.m.",
    ),
    (("are you open on sunday",), "On Sunday we're closed.", "On Sunday we're closed."),
    (("what hours are you open for appointments",), "We're open Monday,", "We're open Monday to Thursday"),
    (("where are you located", "wear are you located"), "Maple Street", "87 Foundry Road"),
    (("how do i get there",), "next to the public library", "off Highway 9"),
    (
        ("do you take insurance", "do you take insurence"),
        "most PPO dental plans",
        "don't have that information",
    ),
    (
        ("i'd like to leave a message",),
        "a message for Maria at the front desk",
        "a message for Dave in dispatch",
    ),
    (
        ("can i speak to someone",),
        "Maria at the front desk can call you back",
        "Dave in dispatch can call you",
    ),
    (("i have a toothache", "i have a tooth ache"), "for people in pain", "don't have that information"),
    (
        ("my kitchen pipe has burst", "my pipe burst"),
        "don't have that information",
        "close the main shut-off valve",
    ),
)
CASES = [
    pytest.param(config, heard, answer, id=f"{config.tenant_id}-{heard}")
    for wordings, at_dentist, at_plumber in QUESTIONS
    for config, answer in ((DENTIST, at_dentist), (PLUMBER, at_plumber))
    for heard in wordings
]


@pytest.mark.parametrize(("config", "heard", "answer"), CASES)
def test_the_caller_hears(config: TenantConfig, heard: str, answer: str) -> None:
    assert answer in Receptionist(config).reply(ConversationState(), heard, NOW).text


FOREIGN = {
    DENTIST.tenant_id: r"Rapid|Foundry|Millbrook|Dave|oh one (oh one|one one|one nine)",
    PLUMBER.tenant_id: r"Bright|Maple|Springfield|Maria|oh one (oh oh|one oh)",
}
"""Names, addresses and the ends of the numbers of the other tenant, as they would be spoken."""


@pytest.mark.parametrize("config", [DENTIST, PLUMBER], ids=lambda config: config.tenant_id)
def test_nothing_of_the_other_demo_tenant_is_said(config: TenantConfig) -> None:
    said = [heard for wordings, _, _ in QUESTIONS for heard in wordings]
    said += ["who are you", "what is the number for Dave", "what is the number for Maria", "bye"]
    for heard in said:
        text = Receptionist(config).reply(ConversationState(), heard, NOW).text
        assert not re.search(FOREIGN[config.tenant_id], text), (heard, text)
    other = PLUMBER if config is DENTIST else DENTIST
    spoken = " ".join(Receptionist(other).reply(ConversationState(), heard, NOW).text for heard in said)
    assert re.search(FOREIGN[config.tenant_id], spoken)
