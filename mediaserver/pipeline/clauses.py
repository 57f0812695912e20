"""The first words of an answer go to synthesis early: its first clause, where the first sentence has one.

A model takes longer to write a sentence than a caller should wait, and is asked to begin with a short clause. Whoever speaks
makes a short pause where a clause ends, and the rest of the sentence is written and synthesised while the clause is heard.
Only the first piece of an answer is cut: what follows is there in time, and a sentence sounds better whole.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

from pipecat.utils.string import SENTENCE_ENDING_PUNCTUATION, match_endofsentence
from pipecat.utils.text.base_text_aggregator import Aggregation, TextType
from pipecat.utils.text.simple_text_aggregator import SimpleTextAggregator

SHORTEST_CLAUSE_CHARACTERS = 3
""""No," with the pause after it is half a second: in that time a model writes the rest of a sentence, and its synthesis begins."""
_CLAUSE_END = re.compile(r"(?<=[^\W\d])[,;]$|[,;](?=\s)|(?<=\s)[-\u2013\u2014](?=\s)|\u2014(?=\s)")


def clause_end(text: str) -> int | None:
    """Where to cut an incomplete sentence: after its last comma, semicolon or dash so far.

    What follows must be known where it may be that of a figure ("1,000").
    """
    bare = text.rstrip()
    if not bare or bare[-1] in SENTENCE_ENDING_PUNCTUATION:
        return None
    ends = [match.end() for match in _CLAUSE_END.finditer(text)]
    return ends[-1] if ends and ends[-1] >= SHORTEST_CLAUSE_CHARACTERS else None


def warm() -> None:
    """Have the rules of sentences compiled: 10 ms that the first answer of a process would wait for."""
    match_endofsentence("We open at eight. We close at six.")


class FirstClauseAggregator(SimpleTextAggregator):
    """Pipecat's sentence aggregation, and `clause_end` for the first piece of each answer.

    It cuts when a delta has been taken in and its sentence is still open: an answer that comes in one piece is never cut.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call] # Pipecat's
        self._clause_is_due = True

    async def aggregate(self, text: str) -> AsyncIterator[Aggregation]:
        """Take a delta in; the pieces that are complete."""
        async for piece in super().aggregate(text):
            self._clause_is_due = False
            yield piece
        if not self._clause_is_due:
            return
        end = clause_end(self._text)
        if end is not None:
            self._clause_is_due = False
            clause, self._text = self._text[:end], self._text[end:]
            yield Aggregation(text=clause.strip(), type=TextType.SENTENCE)

    async def flush(self) -> Aggregation | None:
        """The rest of the answer."""
        rest = await super().flush()
        self._clause_is_due = True
        return rest

    async def handle_interruption(self) -> None:
        """Forget the answer."""
        await super().handle_interruption()  # type: ignore[no-untyped-call] # Pipecat's
        self._clause_is_due = True

    async def reset(self) -> None:
        """Forget the answer."""
        await super().reset()  # type: ignore[no-untyped-call] # Pipecat's
        self._clause_is_due = True
