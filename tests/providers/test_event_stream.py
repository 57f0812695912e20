"""Events come out of a body as they went in, wherever it is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.providers.event_stream import MAX_EVENT_BYTES, EventStream
from mediaserver.providers.failures import AnswerTooLarge

LINE = st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"").replace(b"\r", b""))
EVENT = st.lists(LINE, min_size=1, max_size=3)


@given(
    st.lists(EVENT, max_size=6),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"data: ", b"data:"]),
    st.lists(st.sampled_from([b": keep-alive", b"event: delta", b"id: 7", b"retry: 9", b"database: x"])),
    st.lists(st.integers(0, 400), max_size=12),
)
def test_events_are_what_was_sent(
    events: list[list[bytes]], end: bytes, prefix: bytes, noise: list[bytes], cuts: list[int]
) -> None:
    body = b""
    for number, lines in enumerate(events):
        body += b"".join(one + end for one in noise[number : number + 1])
        # One space after the colon is not part of the data: where none is written, the data must not begin with one.
        body += b"".join(
            b"data: " + line + end if line[:1] == b" " else prefix + line + end for line in lines
        )
        body += end
    stream = EventStream()
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    told = [event for a, b in pairwise(edges) for event in stream.feed(body[a:b])]
    assert told == [b"\n".join(lines) for lines in events]


def test_an_event_without_an_end_is_none() -> None:
    stream = EventStream()
    assert stream.feed(b"data: one\n\ndata: tw") == [b"one"]
    assert stream.feed(b"o\n") == []


@pytest.mark.parametrize("piece", [b"x" * 1_000, b"data: " + b"x" * 1_000 + b"\n"])
def test_an_event_has_a_limit(piece: bytes) -> None:
    stream = EventStream()
    for _ in range(MAX_EVENT_BYTES // len(piece)):
        assert stream.feed(piece) == []
    with pytest.raises(AnswerTooLarge):
        [stream.feed(piece) for _ in range(10)]
