"""Where answers are cut for synthesis."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from pipecat.utils.text.simple_text_aggregator import SimpleTextAggregator

from mediaserver.pipeline.clauses import (
    SHORTEST_CLAUSE_CHARACTERS,
    FirstClauseAggregator,
    clause_end,
)

LONG = "We are open from nine to five on weekdays, from ten to two on Saturdays, and closed on Sundays."


async def pieces_of(deltas: list[str], aggregator: SimpleTextAggregator) -> list[str]:
    found = []
    for delta in deltas:
        found += [piece.text async for piece in aggregator.aggregate(delta)]
    rest = await aggregator.flush()
    return [*found, *([rest.text] if rest is not None else [])]


def words(text: str) -> list[str]:
    first, *others = text.split(" ")
    return [first, *(" " + word for word in others)]


async def test_a_first_sentence_is_cut_after_its_first_clause() -> None:
    assert await pieces_of(words(LONG), FirstClauseAggregator()) == [
        "We are open from nine to five on weekdays,",
        "from ten to two on Saturdays, and closed on Sundays.",
    ]


async def test_the_clause_does_not_wait_for_the_sentence() -> None:
    aggregator = FirstClauseAggregator()
    taken = ""
    for delta in words(LONG):
        taken += delta
        if [piece async for piece in aggregator.aggregate(delta)]:
            break
    assert taken == "We are open from nine to five on weekdays,"


async def test_a_clause_may_be_a_single_word() -> None:
    assert await pieces_of(words("Yes, we can do that, indeed. When?"), FirstClauseAggregator()) == [
        "Yes,",
        "we can do that, indeed.",
        "When?",
    ]
    assert await pieces_of(words("I, too, think so."), FirstClauseAggregator()) == ["I, too,", "think so."]
    assert await pieces_of(words("Of course, we can do that."), FirstClauseAggregator()) == [
        "Of course,",
        "we can do that.",
    ]


async def test_only_the_first_piece_of_an_answer_is_cut_and_every_answer_has_one() -> None:
    aggregator = FirstClauseAggregator()
    assert await pieces_of(words("Hello there. " + LONG), aggregator) == ["Hello there.", LONG]
    assert len(await pieces_of(words(LONG), aggregator)) == 2
    async for _ in aggregator.aggregate(LONG[:70]):
        pass
    await aggregator.handle_interruption()
    assert len(await pieces_of(words(LONG), aggregator)) == 2


async def test_an_answer_in_one_piece_is_cut_as_pipecat_cuts_it() -> None:
    for text in (LONG, LONG + " " + LONG, "Yes. " + LONG):
        plain = SimpleTextAggregator()  # type: ignore[no-untyped-call]
        assert await pieces_of([text], FirstClauseAggregator()) == await pieces_of([text], plain)


def test_figures_names_and_hyphens_are_no_clauses() -> None:
    assert clause_end("It costs 1,000,000 or a well-known amount of money that nobody pays") is None
    assert clause_end("No, we never do anything like that on any day of the whole week") == 3
    assert clause_end("We would love to help you with that \u2014 and there is much that we can do") == 37


@given(
    st.lists(st.sampled_from(["so", "we", "open,", "nine;", "or", "-", "end.", "1,5", "Dr."]), max_size=60)
)
def test_no_word_is_lost_and_the_first_piece_is_no_crumb(said: list[str]) -> None:
    text = " ".join(said)
    deltas = words(text)
    pieces = asyncio.run(pieces_of(deltas, FirstClauseAggregator()))
    assert " ".join(pieces).split() == text.split()
    plain = asyncio.run(pieces_of(deltas, SimpleTextAggregator()))  # type: ignore[no-untyped-call]
    if pieces and pieces != plain:
        assert len(pieces[0]) >= SHORTEST_CLAUSE_CHARACTERS - 1
