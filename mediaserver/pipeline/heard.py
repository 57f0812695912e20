"""What the caller has heard of what was to be said.

Sans-IO. The output transport feeds it, in order, the sentences, chunks and frames that the pipeline produced; the
media link's `Played` and `Flushed` events come in; frames that may go on come out. Rules:

- A frame goes on only when every chunk before it has been played.
- A sentence's text counts as heard when its last chunk has been played.
- On an interruption the sentence that was playing counts for as many whole words as its played share; later ones for none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

F = TypeVar("F")

TYPICAL_MS_PER_CHARACTER = 65
"""Speaking rate assumed for a sentence whose synthesis is not complete (about 15 characters a second)."""


@dataclass(slots=True)
class _Sentence:
    text: str
    queued_ms: int = 0
    played_ms: int = 0
    complete: bool = False

    def heard_words(self, played_ms: int) -> str:
        """The words of this sentence that lie within its first ``played_ms``."""
        total_ms = self.queued_ms
        if not self.complete:
            total_ms = max(total_ms, len(self.text) * TYPICAL_MS_PER_CHARACTER)
        if total_ms <= 0 or played_ms <= 0:
            return ""
        if played_ms >= total_ms:
            return self.text
        characters = len(self.text) * played_ms // total_ms
        # A word counts when it was spoken to its end: cut back to the last boundary at or before the mark.
        if self.text[characters : characters + 1].isspace():
            return self.text[:characters].rstrip()
        return self.text[:characters].rpartition(" ")[0].rstrip()


@dataclass(frozen=True, slots=True)
class _Chunk:
    mark: int
    duration_ms: int
    sentence: _Sentence | None


@dataclass(frozen=True, slots=True)
class Interrupted(Generic[F]):
    """The outcome of an interruption."""

    heard: str
    """What was heard of the sentence that was cut off, in whole words; may be empty."""
    kept: tuple[F, ...]
    """Frames that were waiting, in order, for the caller to judge (most are discarded)."""


@dataclass(slots=True)
class HeardLedger(Generic[F]):
    """The order of speech and frames of one call's playout."""

    _queue: deque[_Chunk | F] = field(default_factory=deque)
    _sentence: _Sentence | None = None

    @property
    def pending_chunks(self) -> int:
        """Chunks queued and not yet reported as played."""
        return sum(1 for item in self._queue if isinstance(item, _Chunk))

    @property
    def pending_ms(self) -> int:
        """How long they take to play."""
        return sum(item.duration_ms for item in self._queue if isinstance(item, _Chunk))

    def begin_sentence(self, text: str) -> None:
        """The chunks that follow speak ``text``."""
        self._sentence = _Sentence(text)

    def end_sentence(self) -> None:
        """All chunks of the current sentence are queued."""
        if self._sentence is not None:
            self._sentence.complete = True

    def chunk(self, mark: int, duration_ms: int) -> None:
        """A chunk was handed to the playout."""
        if self._sentence is not None:
            self._sentence.queued_ms += duration_ms
        self._queue.append(_Chunk(mark, duration_ms, self._sentence))

    def frame(self, frame: F) -> tuple[F, ...]:
        """A frame that must stay in step; returned at once when nothing is playing before it."""
        if not self._queue:
            return (frame,)
        self._queue.append(frame)
        return ()

    def played(self, mark: int) -> tuple[F, ...]:
        """The chunk ``mark`` has gone out: the frames that may go on now. Unknown marks release nothing."""
        if not any(isinstance(item, _Chunk) and item.mark == mark for item in self._queue):
            return ()
        released: list[F] = []
        while self._queue:
            item = self._queue.popleft()
            if not isinstance(item, _Chunk):
                released.append(item)
                continue
            if item.sentence is not None:
                item.sentence.played_ms += item.duration_ms
            if item.mark == mark:
                break
        while self._queue and not isinstance(self._queue[0], _Chunk):
            head = self._queue.popleft()
            assert not isinstance(head, _Chunk)
            released.append(head)
        return tuple(released)

    def interrupted(self, mark: int | None, heard_ms: int) -> Interrupted[F]:
        """Everything queued was dropped while ``mark`` was playing (None: nothing was)."""
        heard = ""
        for item in self._queue:
            if isinstance(item, _Chunk):
                if item.mark == mark and item.sentence is not None:
                    heard = item.sentence.heard_words(item.sentence.played_ms + heard_ms)
                    break
                if item.sentence is not None and mark is not None:
                    item.sentence.played_ms += item.duration_ms
        kept = tuple(item for item in self._queue if not isinstance(item, _Chunk))
        self._queue.clear()
        self._sentence = None
        return Interrupted(heard, kept)
