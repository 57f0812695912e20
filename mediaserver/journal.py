"""The call journal: what a fresh worker needs to go on with a call. Sans-IO.

It follows a call by what crosses its media link and by what its pipeline reports, and can say at any moment where the
conversation stands as the caller knows it.

Rules:

* a turn of the caller counts when its words are known; what was heard since the last such turn is kept as audio, to be heard
  again by whoever goes on;
* a reply counts as far as it was heard, in whole sentences. What was queued and not heard is said again; a reply that was not
  complete is asked for again, from the caller's words on;
* the built-in receptionist's state counts when the reply that it came with is complete and has begun to be heard, or when the
  caller has spoken again; until then the one before it does, so that no answer is taken for two;
* an action (a message taken) counts at once, and once: the same action of a reply that is asked for again is dropped;
* everything is bounded. The oldest turns go first, then the oldest audio.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from mediaserver._native import SpeechAudio, SpeechPaused, SpeechResumed, SpeechStarted, SpeechStopped
from mediaserver.errors import MediaServerError
from mediaserver.media_link import MediaEvent

MAX_TURNS = 200
MAX_TURN_CHARACTERS = 4_000
MAX_UNHEARD_OCTETS = 2 * 1024 * 1024
"""Of the caller's speech since the last turn: a minute of 16 kHz."""
MAX_SENTENCES = 100
MAX_ACTIONS = 20


class UnreadableJournal(MediaServerError):  # noqa: N818 - names what is wrong
    """A journal that this version cannot read."""


class Role(StrEnum):
    """Whose turn it is, in the words of chat APIs."""

    CALLER = "user"
    RECEPTIONIST = "assistant"


class Next(StrEnum):
    """What the conversation waits for."""

    GREETING = "greeting"
    """The connection: nothing was said."""
    LISTEN = "listen"
    ANSWER = "answer"
    """The caller's last turn has no answer."""
    SAY = "say"
    """The rest of what was being said."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A conversation as a fresh worker gets it."""

    turns: tuple[tuple[Role, str], ...] = ()
    """As heard, oldest first."""
    next: Next = Next.GREETING
    say: tuple[str, ...] = ()
    """Sentences, with `Next.SAY`."""
    receptionist: str = ""
    """The built-in receptionist's state as JSON; empty: none yet."""
    closing: bool = False
    """The call ends when what is said has been heard."""

    def to_json(self) -> str:
        """One line of JSON."""
        return _RESTORED.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Restored:
        """The inverse of `to_json`; raises `UnreadableJournal`."""
        try:
            return _RESTORED.validate_json(text)
        except ValidationError as error:
            raise UnreadableJournal(f"a journal cannot be read: {error}") from None


_RESTORED = TypeAdapter(Restored)


@dataclass(slots=True)
class _Reply:
    """What is being said: its sentences, how many of them have begun, and whether there are more to come."""

    sentences: list[str] = field(default_factory=list)
    begun: int = 0
    complete: bool = False
    again: list[str] = field(default_factory=list)
    """What a fresh worker has yet to queue of a reply that another one broke off."""


@dataclass(slots=True)
class CallJournal:
    """The journal of one call."""

    _turns: deque[tuple[Role, str]] = field(default_factory=lambda: deque(maxlen=MAX_TURNS))
    _next: Next = Next.GREETING
    _reply: _Reply = field(default_factory=_Reply)
    _state: str = ""
    _coming_state: str = ""
    _closing: bool = False
    _coming_closing: bool = False
    _actions: list[str] = field(default_factory=list)
    """Of the reply that is not heard yet."""
    _unheard: deque[MediaEvent] = field(default_factory=deque)
    _unheard_octets: int = 0
    dropped_octets: int = 0
    """Of the caller's speech, for want of room."""

    # -- what the media link carries -------------------------------------------------------------------

    def event(self, event: MediaEvent) -> None:
        """Keep the caller's speech until it is words."""
        if not isinstance(event, SpeechStarted | SpeechAudio | SpeechPaused | SpeechResumed | SpeechStopped):
            return
        self._unheard.append(event)
        self._unheard_octets += _octets(event)
        while self._unheard_octets > MAX_UNHEARD_OCTETS:
            self._drop_oldest_audio()

    def _drop_oldest_audio(self) -> None:
        """Shorten the beginning; that speech began, and that it ended, stays."""
        for place, event in enumerate(self._unheard):
            if event_octets := _octets(event):
                self._unheard_octets -= event_octets
                self.dropped_octets += event_octets
                if isinstance(event, SpeechAudio):
                    del self._unheard[place]
                else:
                    self._unheard[place] = _without_audio(event)
                return

    @property
    def unheard(self) -> tuple[MediaEvent, ...]:
        """The caller's speech since the last turn, to be delivered again."""
        return tuple(self._unheard)

    @property
    def is_caller_speaking(self) -> bool:
        """Whether the caller's speech goes on."""
        return bool(self._unheard) and not isinstance(self._unheard[-1], SpeechStopped)

    @property
    def turns(self) -> tuple[tuple[Role, str], ...]:
        """The conversation as heard, oldest first."""
        return tuple(self._turns)

    @property
    def next(self) -> Next:
        """What the conversation waits for."""
        return self._next

    @property
    def is_heard(self) -> bool:
        """Whether a sentence of the present reply can be heard."""
        return self._next is Next.SAY and self._reply.begun > 0

    # -- what the pipeline reports ---------------------------------------------------------------------

    def caller_said(self, text: str) -> None:
        """A turn of the caller is complete: its audio is words now, but for speech that has begun since."""
        # The pipeline has said already what was heard of a reply that the caller interrupted.
        self._reply = _Reply()
        self._commit()
        self._closing = False
        self._turn(Role.CALLER, text)
        self._next = Next.ANSWER
        begun = [place for place, event in enumerate(self._unheard) if isinstance(event, SpeechStarted)]
        keep_from = begun[-1] if begun and self.is_caller_speaking else len(self._unheard)
        for _ in range(keep_from):
            self._unheard_octets -= _octets(self._unheard.popleft())

    def sentence_queued(self, text: str) -> None:
        """A sentence goes to the playout."""
        reply = self._reply
        if text in reply.again:
            reply.again.remove(text)
        else:
            reply.complete = False
        if len(reply.sentences) < MAX_SENTENCES:
            reply.sentences.append(text[:MAX_TURN_CHARACTERS])
        self._next = Next.SAY

    def sentence_begins(self, text: str) -> None:
        """A sentence can be heard from now on."""
        reply = self._reply
        for place in range(reply.begun, len(reply.sentences)):
            if reply.sentences[place] == text[:MAX_TURN_CHARACTERS]:
                reply.begun = place + 1
                break
        self._settle_state()

    def reply_queued(self) -> None:
        """There is no further sentence."""
        self._reply.complete = True
        self._settle_state()

    def _settle_state(self) -> None:
        if self._reply.complete and self._reply.begun:
            self._commit()

    def receptionist_said(self, text: str) -> None:
        """A turn of the receptionist is over; ``text`` is what was heard of it."""
        self._commit()
        self._turn(Role.RECEPTIONIST, text)
        self._reply = _Reply()
        self._next = Next.LISTEN

    def receptionist_state(self, state: str) -> None:
        """The built-in receptionist's state after the reply that is about to come."""
        self._coming_state = state

    def acted(self, action: str, *, closes: bool = False) -> bool:
        """An action of the reply that is about to come; False when it was taken already."""
        self._coming_closing = self._coming_closing or closes
        if action in self._actions:
            return False
        if len(self._actions) < MAX_ACTIONS:
            self._actions.append(action)
        return True

    # -- a worker is lost ------------------------------------------------------------------------------

    def lost(self) -> tuple[Restored, str]:
        """Where a fresh worker begins, and what was heard of the reply that broke off, for the record."""
        reply, heard = self._reply, ""
        if self._next is Next.SAY and (reply.complete or reply.again):
            whole = max(0, reply.begun - 1)
            heard = " ".join(reply.sentences[:whole])
            self._turn(Role.RECEPTIONIST, heard)
            self._reply = _Reply(complete=True, again=[*reply.sentences[whole:], *reply.again])
        elif self._next is Next.SAY:
            self._reply = _Reply()
            self._next = Next.ANSWER if self._has_question() else Next.GREETING
        return self._restored(), heard

    def _has_question(self) -> bool:
        return any(role is Role.CALLER for role, _ in self._turns)

    def _restored(self) -> Restored:
        say = tuple(self._reply.again) if self._next is Next.SAY else ()
        return Restored(tuple(self._turns), self._next, say, self._state, self._closing)

    def _commit(self) -> None:
        if self._coming_state:
            self._state, self._coming_state = self._coming_state, ""
        self._closing = self._closing or self._coming_closing
        self._coming_closing = False
        self._actions.clear()

    def _turn(self, role: Role, text: str) -> None:
        if text.strip():
            self._turns.append((role, text.strip()[:MAX_TURN_CHARACTERS]))


def _octets(event: MediaEvent) -> int:
    """Of audio."""
    with_audio = SpeechStarted | SpeechAudio | SpeechPaused | SpeechStopped
    return len(event.pcm) if isinstance(event, with_audio) else 0


def _without_audio(event: MediaEvent) -> MediaEvent:
    if isinstance(event, SpeechStarted):
        return SpeechStarted(stream=event.stream, media_ms=event.media_ms, at_us=event.at_us, pcm=b"")
    if isinstance(event, SpeechPaused):
        return SpeechPaused(
            stream=event.stream,
            media_ms=event.media_ms,
            at_us=event.at_us,
            last_speech_at_us=event.last_speech_at_us,
            pcm=b"",
        )
    assert isinstance(event, SpeechStopped)
    return SpeechStopped(
        stream=event.stream,
        media_ms=event.media_ms,
        at_us=event.at_us,
        last_speech_at_us=event.last_speech_at_us,
        pcm=b"",
    )
