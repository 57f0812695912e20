"""Cut anew, an answer is what it was, and its first piece is early."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.pipeline.pieces import (
    FIRST_CHUNK_BYTES,
    MAX_CHUNK_BYTES,
    MAX_JOINED_CHARACTERS,
    MAX_JOINED_MS,
    AudioCutter,
    DeltaJoiner,
)

DELTAS = st.lists(st.text(alphabet="ab ,.?", min_size=1, max_size=6), max_size=60)


@given(DELTAS, st.lists(st.integers(0, 300), min_size=60, max_size=60))
def test_joined_deltas_are_the_reply(deltas: list[str], gaps_ms: list[int]) -> None:
    joiner, now_ms, out = DeltaJoiner(), 0, []
    held_since_ms, held = 0, ""
    for delta, gap_ms in zip(deltas, gaps_ms, strict=False):
        now_ms += gap_ms
        if not held:
            held_since_ms = now_ms
        text = joiner.feed(delta, now_ms)
        out.append(text)
        held = "" if text else held + delta
        assert len(held) < MAX_JOINED_CHARACTERS
        assert not held or now_ms - held_since_ms < MAX_JOINED_MS
    assert "".join(out) + joiner.rest() == "".join(deltas)
    assert joiner.rest() == ""
    if deltas:
        assert out[0] == deltas[0]


def test_what_may_end_a_clause_goes_on_with_what_follows_it() -> None:
    joiner = DeltaJoiner()
    words = [
        "Yes",
        " we",
        " do,",
        " for",
        " number",
        " 12",
        ",",
        " open",
        " at",
        " 8",
        " a.m",
        ".",
        " Shall",
        " I",
    ]
    out = [joiner.feed(word, 0) for word in words]
    assert [text for text in out if text] == ["Yes", " we do,", " for number 12, open", " at 8 a.m. Shall"]
    assert joiner.rest() == " I"


@given(st.lists(st.binary(min_size=1, max_size=9_000), max_size=60))
def test_cut_audio_is_the_audio(pieces: list[bytes]) -> None:
    cutter = AudioCutter()
    chunks = [chunk for piece in pieces for chunk in cutter.feed(piece)]
    whole = b"".join(pieces)
    rest = cutter.rest()
    assert b"".join(chunks) + rest == whole[: len(whole) // 2 * 2]
    sent = 0
    for chunk in chunks:
        assert len(chunk) % 2 == 0
        # Never more than half of what is on its way, so that it is there before that has been played.
        assert len(chunk) <= max(FIRST_CHUNK_BYTES, min(MAX_CHUNK_BYTES, sent // 2))
        sent += len(chunk)
    assert len(rest) < MAX_CHUNK_BYTES
