"""A call's turns: what their latency was made of, and what became of them. Times are microseconds of CLOCK_MONOTONIC.

The parts are what the caller waited for: that the turn had ended, and each provider's first byte. They may overlap (the
transcript is made while the end of the turn is awaited; an answer may be begun before it), so they do not add up to the
total. Our own share is what is left of the total where nobody was waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from mediaserver.telemetry.meters import Meters
from mediaserver.telemetry.metric_kinds import CounterMetric
from mediaserver.telemetry.schema import BARGE_INS, SPECULATIONS, TURN_EVENTS, TURN_SECONDS

Stage = Literal["stt", "llm", "tts"]
MAX_WAITS = 100
"""Of one turn; an answer that takes more requests to its first packet keeps its last."""


@dataclass(frozen=True, slots=True)
class TurnParts:
    """What a turn's latency was made of, in milliseconds; None: not waited for."""

    end_of_turn_ms: int | None = None
    stt_ms: int | None = None
    llm_ms: int | None = None
    tts_ms: int | None = None
    own_ms: int | None = None


def observe_turn(meters: Meters, latency_ms: int, parts: TurnParts) -> None:
    """Count an answered turn."""
    meters.observe(TURN_SECONDS, latency_ms / 1000, "total")
    for stage, part_ms in (
        ("end_of_turn", parts.end_of_turn_ms),
        ("stt", parts.stt_ms),
        ("llm", parts.llm_ms),
        ("tts", parts.tts_ms),
        ("own", parts.own_ms),
    ):
        if part_ms is not None:
            meters.observe(TURN_SECONDS, part_ms / 1000, stage)


@dataclass(slots=True)
class TurnClock:
    """Follows one call's turns; one at a time."""

    _speech_ended_us: int | None = None
    _turn_ended_us: int | None = None
    _waits: list[tuple[str, int, int]] = field(default_factory=list)
    """Stage, from and to."""

    def speech_ended(self, at_us: int) -> None:
        """The last packet with the caller's speech came; the turn may have more to come."""
        self._speech_ended_us = at_us
        self._turn_ended_us = None
        self._waits.clear()

    def speech_began(self) -> None:
        """The caller goes on: nothing is measured until they have ended."""
        self._speech_ended_us = None

    def turn_ended(self, at_us: int) -> None:
        """It was decided that the turn is over."""
        self._turn_ended_us = at_us

    def waited(self, stage: Stage, from_us: int, to_us: int) -> None:
        """A provider was asked, and its first byte came."""
        self._waits.append((stage, from_us, to_us))
        del self._waits[:-MAX_WAITS]

    def answered(self, at_us: int) -> TurnParts:
        """The first packet of the answer went out; the turn is over."""
        began_us, turn_ended_us = self._speech_ended_us, self._turn_ended_us
        self._speech_ended_us = self._turn_ended_us = None
        if began_us is None:
            return TurnParts()
        spans = [
            (stage, max(began_us, from_us), min(at_us, to_us))
            for stage, from_us, to_us in self._waits
            if to_us > began_us and from_us < at_us
        ]
        self._waits.clear()
        if turn_ended_us is not None:
            spans.append(("end_of_turn", began_us, min(at_us, turn_ended_us)))
        lengths_ms = {
            stage: _covered_us([span for span in spans if span[0] == stage]) // 1000
            for stage in {span[0] for span in spans}
        }
        own_ms = max(0, at_us - began_us - _covered_us(spans)) // 1000
        return TurnParts(
            end_of_turn_ms=lengths_ms.get("end_of_turn"),
            stt_ms=lengths_ms.get("stt"),
            llm_ms=lengths_ms.get("llm"),
            tts_ms=lengths_ms.get("tts"),
            own_ms=own_ms,
        )


def _covered_us(spans: list[tuple[str, int, int]]) -> int:
    """The time that spans cover together, each moment once."""
    covered_us, end_us = 0, None
    for _, from_us, to_us in sorted(spans, key=lambda span: span[1]):
        if end_us is not None:
            from_us = max(from_us, end_us)  # noqa: PLW2901 - what lies before it was counted
        if to_us > from_us:
            covered_us += to_us - from_us
            end_us = to_us
    return covered_us


class TurnWaits:
    """A turn's clock for those who wait for providers: they say when they ask and when something came."""

    def __init__(self, clock: TurnClock, now_us: Callable[[], int]) -> None:
        self._clock = clock
        self._now_us = now_us

    def asked(self, stage: Stage) -> Callable[[], None]:
        """A request begins; call what is returned when its first byte is there (more often does no harm)."""
        from_us = self._now_us()
        answered = False

        def first_byte() -> None:
            nonlocal answered
            if not answered:
                answered = True
                self._clock.waited(stage, from_us, self._now_us())

        return first_byte


COUNTS: Final = {
    "speculations": (SPECULATIONS, "started"),
    "speculations_confirmed": (SPECULATIONS, "confirmed"),
    "speculations_discarded": (SPECULATIONS, "discarded"),
    "interrupted": (BARGE_INS, "interruption"),
    "late_interruptions": (BARGE_INS, "late_interruption"),
    "resumed": (BARGE_INS, "let_pass"),
    "turns": (TURN_EVENTS, "turn"),
    "empty_turns": (TURN_EVENTS, "empty_turn"),
    "transcriptions": (TURN_EVENTS, "transcription"),
    "transcriptions_withdrawn": (TURN_EVENTS, "transcription_withdrawn"),
    "holds": (TURN_EVENTS, "hold"),
    "model_asked": (TURN_EVENTS, "model_asked"),
    "silence_prompts": (TURN_EVENTS, "silence_prompt"),
}
"""The counters of a call's turn-taking, by name."""


def count_turns(meters: Meters, counters: Mapping[str, int]) -> None:
    """Add what a call's turn-taking has counted, once when the call is over."""
    for name, count in counters.items():
        metric: CounterMetric
        metric, event = COUNTS.get(name, (TURN_EVENTS, name))
        meters.inc(metric, event, by=count)
