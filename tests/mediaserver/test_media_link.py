"""A link that moves to another stream: nothing that was to be heard is lost or said twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from mediaserver._native import MediaEngine, Played, SpeechStarted, SpeechStopped
from mediaserver.media_link import LegEvent, LocalMediaLink

IGNORE: Callable[[LegEvent], None] = lambda _: None  # noqa: E731 - an edge that does not care


@dataclass
class Streams:
    """What each stream of an engine was told to play and has not played."""

    queued: dict[int, list[int]] = field(default_factory=dict)
    paused: set[int] = field(default_factory=set)

    def play(self, stream: int, _pcm: bytes, _rate_hz: int, mark: int) -> None:
        self.queued.setdefault(stream, []).append(mark)

    def flush(self, stream: int) -> None:
        self.queued[stream] = []
        self.paused.discard(stream)

    def pause(self, stream: int) -> None:
        self.paused.add(stream)

    def resume(self, stream: int) -> None:
        self.paused.discard(stream)


@given(st.lists(st.sampled_from(["play", "played", "flush", "pause", "resume", "move"]), max_size=60))
def test_what_was_not_heard_is_queued_again_in_order_and_a_hold_stays_one(steps: list[str]) -> None:
    streams = Streams()
    link = LocalMediaLink(cast("MediaEngine", streams), 0, IGNORE)
    for step in steps:
        stream = link.stream
        queue = streams.queued.setdefault(stream, [])
        if step == "play":
            link.play(b"\0\0", 8_000, link.next_mark())
        elif step == "played" and queue and stream not in streams.paused:
            link.deliver(Played(stream=stream, mark=queue.pop(0), played_ms=0, at_us=0))
        elif step in ("flush", "pause", "resume"):
            {"flush": link.flush, "pause": link.pause, "resume": link.resume}[step]()
        elif step == "move":
            link.move(stream + 1)
            assert streams.queued.get(stream + 1, []) == queue
            assert (stream + 1 in streams.paused) == (stream in streams.paused)


async def test_speech_that_is_cut_off_ends() -> None:
    link = LocalMediaLink(cast("MediaEngine", Streams()), 0, IGNORE)
    link.deliver(SpeechStarted(stream=0, media_ms=40, at_us=1, pcm=b""))
    link.move(1)
    link.move(2)
    assert isinstance(await link.next_event(), SpeechStarted)
    assert isinstance(await link.next_event(), SpeechStopped)
    link.close()


def test_a_link_that_never_moves_keeps_no_audio() -> None:
    link = LocalMediaLink(cast("MediaEngine", Streams()), 0)
    link.play(b"\0\0", 8_000, link.next_mark())
    assert not link._unplayed
