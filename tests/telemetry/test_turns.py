"""The parts of a turn's latency: what was waited for, and what is left as our own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.schema import BARGE_INS, SPECULATIONS, TURN_EVENTS, TURN_SECONDS
from mediaserver.telemetry.turns import Stage, TurnClock, TurnParts, TurnWaits, count_turns, observe_turn

MS = 1000


def test_a_plain_turn() -> None:
    clock = TurnClock()
    clock.speech_ended(0)
    clock.waited("stt", 210 * MS, 290 * MS)
    clock.turn_ended(450 * MS)
    clock.waited("llm", 451 * MS, 601 * MS)
    clock.waited("tts", 602 * MS, 682 * MS)
    assert clock.answered(690 * MS) == TurnParts(
        end_of_turn_ms=450, stt_ms=80, llm_ms=150, tts_ms=80, own_ms=690 - 450 - 150 - 80
    )
    assert clock.answered(700 * MS) == TurnParts()


def test_an_answer_that_was_begun_early_waits_for_the_turn_alone() -> None:
    clock = TurnClock()
    clock.speech_ended(1000 * MS)
    clock.waited("stt", 1210 * MS, 1250 * MS)
    clock.waited("llm", 1250 * MS, 1300 * MS)
    clock.waited("tts", 1300 * MS, 1340 * MS)
    clock.turn_ended(1450 * MS)
    assert clock.answered(1453 * MS) == TurnParts(
        end_of_turn_ms=450, stt_ms=40, llm_ms=50, tts_ms=40, own_ms=3
    )


def test_what_was_waited_for_before_the_last_word_is_not_of_this_turn() -> None:
    clock = TurnClock()
    clock.speech_ended(0)
    clock.waited("stt", 0, 80 * MS)
    clock.speech_began()
    assert clock.answered(90 * MS) == TurnParts()
    clock.speech_ended(200 * MS)
    clock.waited("stt", 150 * MS, 230 * MS)
    assert clock.answered(250 * MS) == TurnParts(stt_ms=30, own_ms=20)


STAGES: tuple[Stage, ...] = ("stt", "llm", "tts")


@given(
    st.integers(0, 10**9),
    st.lists(st.tuples(st.sampled_from(STAGES), st.integers(-(10**6), 10**7), st.integers(-(10**6), 10**7)), max_size=20),
    st.none() | st.integers(0, 10**7),
    st.integers(0, 10**7),
)  # fmt: skip
def test_no_part_is_longer_than_the_whole_and_own_is_what_nobody_was_waited_for(
    began_us: int, waits: list[tuple[Stage, int, int]], turn_us: int | None, total_us: int
) -> None:
    clock = TurnClock()
    clock.speech_ended(began_us)
    for stage, from_us, to_us in waits:
        clock.waited(stage, began_us + from_us, began_us + to_us)
    if turn_us is not None:
        clock.turn_ended(began_us + turn_us)
    parts = clock.answered(began_us + total_us)
    waited = [
        part for part in (parts.end_of_turn_ms, parts.stt_ms, parts.llm_ms, parts.tts_ms) if part is not None
    ]
    assert all(0 <= part <= total_us // 1000 for part in waited)
    assert parts.own_ms is not None
    assert 0 <= parts.own_ms <= total_us // 1000
    assert parts.own_ms + sum(waited) >= total_us // 1000 - 1 - len(waited)
    assert parts.own_ms + max(waited, default=0) <= total_us // 1000 + 1


def test_a_request_is_waited_for_until_its_first_byte() -> None:
    clock, times = TurnClock(), iter((100 * MS, 180 * MS))
    clock.speech_ended(0)
    first_byte = TurnWaits(clock, lambda: next(times)).asked("llm")
    first_byte()
    first_byte()
    assert clock.answered(200 * MS) == TurnParts(llm_ms=80, own_ms=120)


def test_a_turn_is_observed_with_the_parts_that_it_has() -> None:
    meters = Meters()
    observe_turn(meters, 500, TurnParts(end_of_turn_ms=450, own_ms=50))
    counted = {
        stage: meters.count(TURN_SECONDS, stage) for stage in ("total", "end_of_turn", "stt", "llm", "own")
    }
    assert counted == {"total": 1, "end_of_turn": 1, "stt": 0, "llm": 0, "own": 1}


def test_what_the_turn_taking_counts_is_added() -> None:
    meters = Meters()
    count_turns(
        meters, {"speculations": 3, "speculations_discarded": 1, "resumed": 2, "turns": 5, "a_new_one": 7}
    )
    assert meters.value(SPECULATIONS, "started") == 3
    assert meters.value(SPECULATIONS, "discarded") == 1
    assert meters.value(BARGE_INS, "let_pass") == 2
    assert meters.value(TURN_EVENTS, "turn") == 5
    assert meters.value(TURN_EVENTS, "other") == 7
