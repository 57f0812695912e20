"""Turn-taking in a real pipeline: what is begun too early is neither heard nor remembered, and what was heard is."""

from __future__ import annotations

from pathlib import Path

from mediaserver.pipeline.speech_gate import GateState
from mediaserver.receptionist import EndCall
from perf.simulators import Behaviour, Script
from tests.sim.conversation import Conversation, conversation, eventually
from tests.sim.node import GREETING


def _talk(talk: Conversation) -> list[tuple[str, str]]:
    """The conversation after the greeting, as the model was told of it last."""
    system, greeting, *rest = talk.script.chats_seen[-1]
    assert system["role"] == "system"
    assert greeting["content"] == GREETING
    return [(str(message["role"]), str(message["content"])) for message in rest]


def _requests(talk: Conversation, api: str) -> int:
    return talk.script.requests.get(api, 0)


async def _answer_waits(talk: Conversation, spoken: int) -> None:
    """An answer is synthesised and waits at the gate."""
    gate = talk.pipeline._transport.output()._speech_gate
    await eventually(lambda: _requests(talk, "speech") == spoken and len(gate._held) > 3)
    assert gate.state is GateState.HOLDING


async def test_an_answer_is_begun_in_the_pause_and_heard_when_the_turn_is_over(tmp_path: Path) -> None:
    script = Script(
        transcripts=["When are you open?", "Thanks."], replies=["From nine to five.", "You're welcome."]
    )
    async with conversation(tmp_path, script, turn_taking={"complete_wait_ms": 900}) as talk:
        talk.starts()
        talk.pauses()
        await _answer_waits(talk, spoken=2)
        assert talk.link.queue == []
        assert talk.notes.lines == [("receptionist", GREETING)]
        await talk.heard_out()
        assert talk.notes.lines[1:] == [
            ("caller", "When are you open?"),
            ("receptionist", "From nine to five."),
        ]
        assert _talk(talk) == [("user", "When are you open?")]
        talk.stops()
        await talk.says()
        await talk.heard_out()
        assert _talk(talk) == [
            ("user", "When are you open?"),
            ("assistant", "From nine to five."),
            ("user", "Thanks."),
        ]
        assert (_requests(talk, "transcriptions"), _requests(talk, "chat")) == (2, 2)
    assert talk.notes.counters is not None
    assert talk.notes.counters.speculations_confirmed == 2
    assert len(talk.notes.latencies_ms) == 2


async def test_an_answer_begun_too_early_is_neither_heard_nor_remembered(tmp_path: Path) -> None:
    script = Script(transcripts=["I'd like a table."], replies=["Too early.", "For how many?"])
    async with conversation(tmp_path, script, turn_taking={"complete_wait_ms": 600}) as talk:
        talk.starts()
        talk.pauses()
        await _answer_waits(talk, spoken=2)
        talk.resumes()
        await eventually(lambda: talk.counters.speculations_discarded == 1)
        talk.pauses()
        await talk.heard_out()
        assert talk.notes.lines[1:] == [("caller", "I'd like a table."), ("receptionist", "For how many?")]
        assert _talk(talk) == [("user", "I'd like a table.")]
        talk.stops()
        await talk.says()
        assert [role for role, _ in _talk(talk)] == ["user", "assistant", "user"]
    assert talk.counters.speculations == 3


async def test_without_speculation_the_model_is_asked_once_the_turn_is_over(tmp_path: Path) -> None:
    script = Script(transcripts=["When are you open?"], replies=["From nine to five."])
    turns = {"speculation": False, "complete_wait_ms": 400}
    async with conversation(tmp_path, script, turn_taking=turns) as talk:
        talk.starts()
        talk.pauses()
        await eventually(lambda: _requests(talk, "transcriptions") == 1)
        assert _requests(talk, "chat") == 0
        await talk.heard_out()
        assert talk.notes.lines[1:] == [
            ("caller", "When are you open?"),
            ("receptionist", "From nine to five."),
        ]
    assert talk.counters.speculations == 0


async def test_an_uh_huh_holds_the_receptionist_and_does_not_stop_her(tmp_path: Path) -> None:
    script = Script(
        transcripts=["Tell me all.", "Uh-huh.", "Bye now."], replies=["It began long ago.", "Bye."]
    )
    async with conversation(tmp_path, script) as talk:
        await talk.says()
        await talk.sounds()
        talk.stops()
        talk.starts(ms=150)
        talk.pauses()
        await eventually(lambda: talk.link.commands == ["pause", "resume"])
        talk.stops()
        await talk.heard_out()
        assert talk.notes.lines[1:] == [("caller", "Tell me all."), ("receptionist", "It began long ago.")]
        assert talk.notes.interrupted == []
        await talk.says()
        assert _talk(talk) == [
            ("user", "Tell me all."),
            ("assistant", "It began long ago."),
            ("user", "Bye now."),
        ]
    assert (talk.counters.holds, talk.counters.resumed, talk.counters.interrupted) == (1, 1, 0)


async def test_words_that_ask_interrupt_and_the_context_has_what_was_heard(tmp_path: Path) -> None:
    reply = "We have bread and rolls and cakes every day."
    script = Script(
        transcripts=["What have you got?", "Stop, when are you open?"], replies=[reply, "From nine."]
    )
    async with conversation(tmp_path, script) as talk:
        await talk.says()
        await talk.sounds()
        talk.stops()
        talk.starts(ms=300)
        talk.pauses()
        await talk.flushed(heard_ms=100)
        await talk.heard_out()
        (heard,) = talk.notes.interrupted or [""]
        assert reply.startswith(heard)
        assert len(heard) < len(reply)
        said = [("assistant", heard)] if heard else []
        assert _talk(talk) == [("user", "What have you got?"), *said, ("user", "Stop, when are you open?")]
        assert talk.notes.lines[-2:] == [
            ("caller", "Stop, when are you open?"),
            ("receptionist", "From nine."),
        ]


async def test_an_interruption_that_is_also_the_whole_turn_tells_the_model_what_was_heard(
    tmp_path: Path,
) -> None:
    reply = "We have bread and rolls and cakes every day."
    script = Script(transcripts=["What have you got?", "No, thanks."], replies=[reply, "Goodbye then."])
    # Slow transcription: she goes on for want of words, and is interrupted late.
    async with conversation(tmp_path, script, turn_taking={"barge_in_decision_ms": 200}) as talk:
        await talk.says()
        await talk.sounds()
        talk.stops()
        script.transcription.delay_ms = 500
        talk.starts(ms=300)
        talk.pauses()
        talk.stops()
        await eventually(lambda: talk.link.commands == ["pause", "resume"])
        await talk.flushed(heard_ms=1_500)
        await talk.heard_out()
        assert talk.counters.late_interruptions == 1
        assert [role for role, _ in _talk(talk)] == ["user", "assistant", "user"]
        assert reply.startswith(_talk(talk)[1][1])


async def test_the_built_in_receptionist_does_nothing_for_an_answer_that_is_not_given(tmp_path: Path) -> None:
    script = Script(transcripts=["Thank you, goodbye."], chat=Behaviour(status=400))
    async with conversation(tmp_path, script, turn_taking={"complete_wait_ms": 600}) as talk:
        talk.starts()
        talk.pauses()
        await eventually(lambda: talk.pipeline._receptionist._unsettled is not None)
        state = talk.pipeline._receptionist._state
        talk.resumes()
        await eventually(lambda: talk.pipeline._receptionist._unsettled is None)
        assert talk.notes.actions == []
        assert talk.pipeline._receptionist._state is state
        talk.pauses()
        await talk.heard_out()
        assert talk.notes.actions == [EndCall()]
        await eventually(talk.task.done)


async def test_a_silent_caller_is_asked_and_then_let_go(tmp_path: Path) -> None:
    async with conversation(tmp_path, Script(), turn_taking={"silence_prompt_ms": 1_000}) as talk:
        await talk.heard_out()
        assert talk.notes.lines[-1] == ("receptionist", "Are you still there?")
        await talk.heard_out()
        assert talk.notes.lines[-1][1].endswith("Goodbye!")
        await eventually(talk.task.done)


async def test_when_the_time_is_up_goodbye_is_said_whatever_is_going_on(tmp_path: Path) -> None:
    script = Script(transcripts=["Tell me all."], replies=["It began long ago."])
    async with conversation(tmp_path, script, max_call_s=9) as talk:
        talk.starts()
        await talk.heard_out()
        assert talk.notes.lines[-1][1].endswith("Goodbye!")
        await eventually(talk.task.done)
