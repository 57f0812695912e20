"""The utterances of a turn and what is known of their words.

Each transcription has a number. An utterance is transcribed at each of its pauses; only the newest counts, and none while
speech goes on after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Utterance:
    number: int = 0
    """Of the transcription that will count; 0: none has been asked for."""
    text: str | None = None


@dataclass(slots=True)
class Utterances:
    """What the caller has said since the last turn."""

    last: int = 0
    """The transcription that was asked for last."""
    _said: list[_Utterance] = field(default_factory=list)

    def clear(self) -> None:
        """A new turn: what is still outstanding is of no interest any more."""
        self._said.clear()

    def begin(self) -> None:
        """A stretch of speech begins."""
        self._said.append(_Utterance())

    def ask(self) -> int:
        """The number of a new transcription of the newest utterance."""
        if not self._said:
            self.begin()
        self.last += 1
        self._said[-1].number = self.last
        self._said[-1].text = None
        return self.last

    def withdraw(self) -> int | None:
        """The newest utterance goes on: its transcription is void. Returns the number if it was outstanding."""
        if not self._said or not self._said[-1].number:
            return None
        utterance = self._said[-1]
        number = utterance.number if utterance.text is None else None
        utterance.number, utterance.text = 0, None
        return number

    def put(self, number: int, text: str) -> bool:
        """Note the words of a transcription; False when it is void."""
        for utterance in self._said:
            if utterance.number == number and utterance.text is None:
                utterance.text = text.strip()
                return True
        return False

    def is_last(self, number: int) -> bool:
        """Whether the transcription is that of the newest utterance as it stands."""
        return bool(self._said) and self._said[-1].number == number

    def text(self) -> str | None:
        """All words, or None while a transcription is outstanding."""
        if any(utterance.text is None for utterance in self._said):
            return None
        return self.known()

    def known(self) -> str:
        """The words that are known by now."""
        return " ".join(utterance.text for utterance in self._said if utterance.text)
