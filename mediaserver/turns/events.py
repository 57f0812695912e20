"""What the turn-taking core is told, and what it wants done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Answered:
    """The call is connected and the greeting is on its way."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller makes a sound that counts as speech; ``for_ms`` of it have gone by.

    ``left_ms``: how much the receptionist still has to say, of what is known.
    """

    for_ms: int = 0
    left_ms: int = 0


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """Nothing audible has come for ``silent_ms``: a gap within a word, or the end."""

    silent_ms: int = 0


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """Speech goes on after a pause."""

    left_ms: int = 0
    """As of `SpeechStarted`."""


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The detector is sure: speech ended ``silent_ms`` ago.

    ``said_more``: there was speech after the last pause that was reported, too quiet to be audible.
    """

    silent_ms: int = 0
    said_more: bool = False


@dataclass(frozen=True, slots=True)
class SpeechCut:
    """Speech goes on for so long that what was said so far is an utterance of its own."""


@dataclass(frozen=True, slots=True)
class Transcribed:
    """The words of transcription ``number``; empty for a sound without words and for a failure."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class ModelJudged:
    """The turn model's probability that the caller had finished when transcription ``number`` was taken."""

    number: int
    probability: float


@dataclass(frozen=True, slots=True)
class PlayoutStarted:
    """The receptionist became audible."""


@dataclass(frozen=True, slots=True)
class PlayoutEnded:
    """All that she had to say was heard, or was flushed."""


@dataclass(frozen=True, slots=True)
class FarewellDue:
    """What she is about to say is her goodbye: the call ends when it was heard, unless the caller has more to say."""


@dataclass(frozen=True, slots=True)
class KeyPressed:
    """The caller pressed a key: somebody is there."""


Event = (
    Answered
    | SpeechStarted
    | SpeechPaused
    | SpeechResumed
    | SpeechStopped
    | SpeechCut
    | Transcribed
    | ModelJudged
    | PlayoutStarted
    | PlayoutEnded
    | FarewellDue
    | KeyPressed
)


@dataclass(frozen=True, slots=True)
class Hold:
    """Silence the playout at once, and keep what is queued."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on where the playout was held."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The held playout is dropped: the caller has the floor, and a turn begins."""


@dataclass(frozen=True, slots=True)
class BeginTurn:
    """The caller's turn begins while nothing is said."""


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe the present utterance up to here; what was asked for it before is void."""

    number: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Transcription ``number`` is void: its utterance goes on."""

    number: int


@dataclass(frozen=True, slots=True)
class AskModel:
    """Ask the turn model about the utterance as it was for transcription ``number``."""

    number: int


@dataclass(frozen=True, slots=True)
class Speculate:
    """Begin the reply to this text; nothing of it may be heard or remembered before `Confirm`."""

    text: str


@dataclass(frozen=True, slots=True)
class Discard:
    """The speculation is void: as if it had never been."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """The turn is over with this text (empty: nothing was understood); ``speculated``: its reply has been begun."""

    text: str
    speculated: bool


@dataclass(frozen=True, slots=True)
class AskWhetherThere:
    """The caller has been silent for long."""


class Why(StrEnum):
    """Why a goodbye is said unasked."""

    SILENCE = "silence"
    TIME_UP = "time up"


@dataclass(frozen=True, slots=True)
class SayGoodbye:
    """Say goodbye; for `Why.TIME_UP` drop whatever else is being said or done."""

    why: Why


@dataclass(frozen=True, slots=True)
class HangUp:
    """The conversation is over."""


Action = (
    Hold
    | Resume
    | Interrupt
    | BeginTurn
    | Transcribe
    | Withdraw
    | AskModel
    | Speculate
    | Discard
    | Confirm
    | AskWhetherThere
    | SayGoodbye
    | HangUp
)
