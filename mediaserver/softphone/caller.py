"""The caller of a test call: follows a `Dialogue`, prints it as it goes, and fills the report; whatever carries the call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import assert_never

from mediaserver.softphone.dialogue import Dialogue, DialogueAction, HangUp, Heard, Say, Unanswered
from mediaserver.softphone.listening import Ear
from mediaserver.softphone.report import CallReport, Exchange
from mediaserver.softphone.speech import Utterance


class Caller:
    """Says the utterances in turn and notes what came back."""

    def __init__(
        self,
        utterances: tuple[Utterance, ...],
        report: CallReport,
        say: Callable[[str], None],
        *,
        ear: Ear | None,
        quiet_ms: int,
        interrupt_greeting_ms: int | None = None,
    ) -> None:
        self.ear = ear
        """Turns what was heard into text; none: nobody asks for the words."""
        self.dialogue = Dialogue(
            len(utterances), quiet_ms=quiet_ms, interrupt_greeting_ms=interrupt_greeting_ms
        )
        self._utterances = utterances
        self._report = report
        self._print = say

    async def poll(self, now_us: int, play: Callable[[bytes], None]) -> bool:
        """Do what is due; ``play`` sends speech. True when the caller wants to hang up."""
        over = False
        for action in self.dialogue.poll(now_us):
            over = await self._act(action, play) or over
        return over

    async def remote_hung_up(self) -> None:
        """The other side ended the call."""
        for action in self.dialogue.remote_hung_up():
            await self._act(action, None)
        self._print("the other side hung up")

    async def _act(self, action: DialogueAction, play: Callable[[bytes], None] | None) -> bool:
        """Carry an action out; True when the call is over."""
        match action:
            case Say(index=index):
                utterance = self._utterances[index]
                self._print(f"you: {utterance.text or '(recording)'}")
                self._report.exchanges.append(Exchange(utterance.text or "(recording)", None, None))
                if play is not None:
                    play(utterance.pcm)
                return False
            case Heard(index=None, latency_ms=latency_ms):
                self._report.greeting = await self._heard()
                self._report.greeting_ms = latency_ms
                self._print(f"receptionist: {self._report.greeting}")
                return False
            case Heard(latency_ms=latency_ms):
                exchange = self._report.exchanges[-1]
                exchange.heard = await self._heard()
                exchange.latency_ms = latency_ms
                self._print(f"receptionist ({latency_ms} ms): {exchange.heard}")
                return False
            case Unanswered():
                self._print("receptionist: (no answer)")
                return False
            case HangUp():
                return True
            case _:
                assert_never(action)

    async def _heard(self) -> str:
        return await self.ear.transcribe() if self.ear is not None else "(not transcribed)"


def now_us() -> int:
    """The clock of the media engine's ``*_at_us`` fields."""
    return time.monotonic_ns() // 1000
