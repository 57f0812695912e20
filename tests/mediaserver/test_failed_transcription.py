"""A transcription that fails while the caller is still speaking costs a request, and nothing that anybody hears."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perf.simulators import Behaviour, Script
from tests.sim.conversation import conversation, eventually
from tests.sim.node import GREETING

FAILS = Behaviour(status=500)


async def test_a_failure_in_a_pause_is_not_apologised_for_while_the_caller_goes_on(tmp_path: Path) -> None:
    first = Script(transcription=FAILS)
    script = Script(transcripts=["When are you open?"], replies=["From nine to five."])
    async with conversation(tmp_path, script, first_stt=first) as talk:
        for _ in range(4):
            talk.starts()
            asked = script.requests.get("transcriptions", 0)
            talk.pauses()
            await eventually(lambda asked=asked: script.requests.get("transcriptions", 0) > asked)  # type: ignore[misc]
            talk.resumes()
        talk.pauses()
        await talk.heard_out()
        assert talk.notes.lines[0] == ("receptionist", GREETING)
        assert talk.notes.lines[-1] == ("receptionist", "From nine to five.")
        assert [text for who, text in talk.notes.lines if who == "receptionist"] == [
            GREETING,
            "From nine to five.",
        ]
        assert not [said for said in script.spoken if "trouble" in said]


@pytest.mark.parametrize("delay_ms", [0, 2_500])
async def test_a_caller_who_waits_for_words_is_apologised_to_once_and_answered(
    tmp_path: Path, delay_ms: int
) -> None:
    first = Script(transcription=FAILS)
    script = Script(
        transcripts=["When are you open?"],
        replies=["From nine to five."],
        transcription=Behaviour(delay_ms=delay_ms),
    )
    async with conversation(tmp_path, script, first_stt=first) as talk:
        talk.starts()
        talk.pauses()
        async with asyncio.timeout(10):
            await talk.heard_out()
        assert talk.notes.lines[1] == ("caller", "When are you open?")
        apologies = [said for said in script.spoken if "trouble" in said]
        assert len(apologies) == (delay_ms > 0)
