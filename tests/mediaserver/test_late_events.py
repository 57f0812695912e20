"""A loop that was held up: what the engine heard meanwhile counts when it was heard, not when it is learned of."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from mediaserver._native import SpeechResumed
from mediaserver.pipeline.speech_gate import GateState
from perf.simulators import Script
from tests.sim.conversation import conversation, eventually
from tests.sim.node import GREETING

WAIT_MS = 400
"""Longer than the simulators need for an answer."""
HELD_UP_S = 0.7


def hold_up() -> None:
    """Keep the loop from everything, as a machine that stands still does."""
    time.sleep(HELD_UP_S)


@pytest.mark.parametrize("timer_first", [False, True])
async def test_a_caller_who_went_on_while_nobody_looked_is_not_answered(
    tmp_path: Path, *, timer_first: bool
) -> None:
    script = Script(transcripts=["When are you open?"], replies=["From nine to five."])
    turns = {"complete_wait_ms": WAIT_MS, "turn_model": "off"}
    async with conversation(tmp_path, script, turn_taking=turns) as talk:
        talk.starts()
        talk.pauses()
        paused_at_us = time.monotonic_ns() // 1000
        gate = talk.pipeline._transport.output()._speech_gate
        await eventually(lambda: gate.state is GateState.HOLDING)
        resumed = SpeechResumed(stream=1, media_ms=2_500, at_us=paused_at_us + 1_000 * (WAIT_MS - 100))
        if timer_first:
            # Due after the end of the turn would be, but before the loop is free.
            asyncio.get_running_loop().call_later(HELD_UP_S - 0.05, talk.link.deliver, resumed)
        hold_up()
        if not timer_first:
            talk.link.deliver(resumed)
        await eventually(lambda: talk.counters.speculations_discarded == 1)
        assert talk.notes.lines == [("receptionist", GREETING)]


async def test_a_turn_that_is_over_is_over_although_the_loop_was_held_up(tmp_path: Path) -> None:
    script = Script(transcripts=["When are you open?"], replies=["From nine to five."])
    turns = {"complete_wait_ms": WAIT_MS, "turn_model": "off"}
    async with conversation(tmp_path, script, turn_taking=turns) as talk:
        talk.starts()
        talk.pauses()
        gate = talk.pipeline._transport.output()._speech_gate
        await eventually(lambda: gate.state is GateState.HOLDING)
        hold_up()
        await talk.heard_out()
        assert talk.notes.lines[1:] == [
            ("caller", "When are you open?"),
            ("receptionist", "From nine to five."),
        ]
