"""What a conversation remembers between turns, and what a reply may ask the server to do.

The state goes into the call journal, so that another worker can go on with the call: it is plain data with a
JSON form, and everything in it is bounded.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from mediaserver.errors import MediaServerError

MAX_FIELD_CHARS = 400


class UnreadableState(MediaServerError):  # noqa: N818 - names what is wrong with the journal's entry
    """A journalled state that this version cannot read."""


class Step(StrEnum):
    """What the message form waits for."""

    NAME = "name"
    NUMBER = "number"
    REASON = "reason"
    CONFIRM = "confirm"


class Offer(StrEnum):
    """What the last reply offered, so that a bare "yes" or "no" has a meaning."""

    NOTHING = "nothing"
    MESSAGE = "message"
    MORE_HELP = "more help"


@dataclass(frozen=True, slots=True)
class MessageForm:
    """A message while it is being taken. None: not asked yet; empty: the caller would or could not say."""

    step: Step = Step.NAME
    name: str | None = None
    number: str | None = None
    reason: str | None = None
    partial_digits: str = ""
    """The beginning of a number whose end has not been said yet."""
    misses: int = 0
    """Answers to the present step that could not be used."""


@dataclass(frozen=True, slots=True)
class ConversationState:
    """Everything that the next reply depends on, besides the configuration, the words and the time."""

    form: MessageForm | None = None
    offer: Offer = Offer.NOTHING
    last_reply: str = ""
    subject: str = ""
    """The service last spoken of, for "and how much is it?"."""
    misses: int = 0
    """Turns in a row that were silent or could not be understood."""
    small_talk: int = 0
    emergency_told: bool = False
    messages_taken: int = 0

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ConversationState:
        """The inverse of `to_json`; raises `UnreadableState`."""
        try:
            return _STATE.validate_json(text)
        except ValidationError as error:
            raise UnreadableState(f"conversation state cannot be read: {error}") from error


_STATE = TypeAdapter(ConversationState)


@dataclass(frozen=True, slots=True)
class MessageTaken:
    """The caller confirmed a message. An empty field was not given."""

    name: str
    number: str
    reason: str


@dataclass(frozen=True, slots=True)
class HumanRequested:
    """The caller asked for a person."""


@dataclass(frozen=True, slots=True)
class EndCall:
    """Goodbyes have been said: hang up when the reply has been heard."""


Action = MessageTaken | HumanRequested | EndCall


@dataclass(frozen=True, slots=True)
class Reply:
    """What to say, what to remember, what to do."""

    text: str
    state: ConversationState
    actions: tuple[Action, ...] = ()
