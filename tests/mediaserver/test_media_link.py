"""A link that moves to another stream: nothing that was to be heard is lost or said twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from mediaserver._native import DtmfDigit, MediaEngine, Played, SpeechAudio, SpeechStarted, SpeechStopped
from mediaserver.errors import LinkClosed
from mediaserver.media_link import MAX_PENDING_EVENTS, LegEvent, LocalMediaLink, MediaEvent

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


KINDS = ("audio", "key", "played", "started")


def _event(kind: str, number: int) -> MediaEvent:
    if kind == "audio":
        return SpeechAudio(stream=0, media_ms=number, pcm=b"")
    if kind == "key":
        return DtmfDigit(stream=0, digit="1", duration_ms=number)
    if kind == "started":
        return SpeechStarted(stream=0, media_ms=number, at_us=0, pcm=b"")
    return Played(stream=0, mark=number, played_ms=0, at_us=0)


async def _read(link: LocalMediaLink) -> list[MediaEvent]:
    link.close()
    events: list[MediaEvent] = []
    try:
        while True:
            events.append(await link.next_event())
    except LinkClosed:
        return events


@given(st.lists(st.sampled_from(KINDS), max_size=60))
async def test_an_unread_link_drops_audio_then_keys_and_keeps_the_order(kinds: list[str]) -> None:
    link = LocalMediaLink(cast("MediaEngine", Streams()), 0)
    kept: list[tuple[str, MediaEvent]] = []
    dropped = dict.fromkeys(KINDS, 0)
    with patch("mediaserver.media_link.MAX_PENDING_EVENTS", 8):
        for number, kind in enumerate(kinds):
            event = _event(kind, number)
            link.deliver(event)
            kept.append((kind, event))
            if len(kept) > 8:
                first = min(range(len(kept)), key=lambda at: (min(KINDS.index(kept[at][0]), 2), at))
                dropped[kept.pop(first)[0]] += 1
    assert link.counters.dropped_audio_events == dropped.pop("audio")
    assert link.counters.dropped_other_events == sum(dropped.values())
    assert [id(event) for event in await _read(link)] == [id(event) for _, event in kept]


async def test_a_page_that_presses_keys_costs_no_event_that_a_pipeline_hangs_on() -> None:
    link = LocalMediaLink(cast("MediaEngine", Streams()), 0)
    link.deliver(_event("started", 0))
    for number in range(3 * MAX_PENDING_EVENTS):
        link.deliver(_event("key", number))
    link.deliver(_event("played", 7))
    first, *keys, last = await _read(link)
    assert isinstance(first, SpeechStarted)
    assert isinstance(last, Played)
    assert len(keys) == MAX_PENDING_EVENTS - 2
