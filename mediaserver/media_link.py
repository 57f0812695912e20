"""The media link: all that a call's pipeline may ask of its leg, and all that it is told.

The same interface serves a pipeline in the edge's own process and, later, one behind a Unix socket in a call
worker. Commands are coarse (whole chunks), events are what the media engine reports; nothing crosses per packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mediaserver._native import (
    Activity,
    BackgroundEnded,
    ChannelMessage,
    ChannelOpened,
    DtmfDigit,
    Flushed,
    MarkReached,
    MediaEngine,
    MediaError,
    MediaTimeout,
    Played,
    PlayoutStarted,
    RecordingFailed,
    SpeechAudio,
    SpeechPaused,
    SpeechResumed,
    SpeechStarted,
    SpeechStopped,
    StreamFailed,
    WebRtcConnected,
    WebRtcEnded,
)
from mediaserver.errors import LinkClosed

MediaEvent = (
    SpeechStarted
    | SpeechAudio
    | SpeechPaused
    | SpeechResumed
    | SpeechStopped
    | PlayoutStarted
    | Played
    | MarkReached
    | BackgroundEnded
    | Flushed
    | DtmfDigit
    | MediaTimeout
    | StreamFailed
    | Activity
    | RecordingFailed
)

LegEvent = WebRtcConnected | ChannelOpened | ChannelMessage | WebRtcEnded
"""What a WebRTC leg reports to its edge; no business of the pipeline."""

EngineEvent = MediaEvent | LegEvent
"""All that an engine reports."""

MAX_PENDING_EVENTS = 1024
"""Events that one call may leave unread: 200 s of speech chunks. Past it the oldest audio goes first, then keys."""


class MediaLink(Protocol):
    """One leg's audio, as a pipeline sees it. PCM is signed 16-bit little-endian mono."""

    def next_mark(self) -> int:
        """A mark that this link has not used yet."""
        ...

    def play(self, pcm: bytes, rate_hz: int, mark: int) -> None:
        """Append a whole chunk to the playout; `Played` with ``mark`` follows when it has gone out."""
        ...

    def pause(self) -> None:
        """Fade out and hold what is queued."""
        ...

    def resume(self) -> None:
        """Go on where `pause` stopped."""
        ...

    def flush(self) -> None:
        """Stop and drop what is queued; `Flushed` says how much of the current chunk was heard."""
        ...

    async def next_event(self) -> MediaEvent:
        """The next event of this leg; raises `LinkClosed` when there will be none."""
        ...


@dataclass(slots=True)
class LinkCounters:
    """What a link had to drop."""

    dropped_audio_events: int = 0
    dropped_other_events: int = 0


class _Pending:
    """Events that wait to be read, in the order in which they came; to drop one takes as long however many wait.

    They stand in lanes, first what can be missed most easily: audio, then keys, then what a pipeline's state hangs on
    (where speech begins and ends, what was played).
    """

    def __init__(self) -> None:
        self._lanes: tuple[deque[tuple[int, MediaEvent]], ...] = (deque(), deque(), deque())
        """Each with the event's number."""
        self._next = 0

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes)

    def append(self, event: MediaEvent) -> None:
        lane = 0 if isinstance(event, SpeechAudio) else 1 if isinstance(event, DtmfDigit) else 2
        self._lanes[lane].append((self._next, event))
        self._next += 1

    def popleft(self) -> MediaEvent:
        """Take the oldest. Raises `ValueError` when there is none."""
        lane = min((lane for lane in self._lanes if lane), key=lambda lane: lane[0][0])
        return lane.popleft()[1]

    def drop(self) -> MediaEvent:
        """Take the oldest of those that can be missed most easily. Raises `StopIteration` when there is none."""
        return next(lane for lane in self._lanes if lane).popleft()[1]


class LocalMediaLink:
    """A `MediaLink` to a media engine in this process.

    A link with ``on_leg_event`` can move to another stream (a browser that lost its connection makes a new one): it keeps
    what was not played to its end, plays it again there, and ends speech whose end the lost stream will not report.
    """

    def __init__(
        self, engine: MediaEngine, stream: int, on_leg_event: Callable[[LegEvent], None] | None = None
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._on_leg_event = on_leg_event
        self._mark = 0
        self._events = _Pending()
        self._wake = asyncio.Event()
        self._closed = False
        self._unplayed: dict[int, tuple[bytes, int]] = {}
        self._paused = False
        self._speech: SpeechStarted | SpeechAudio | None = None
        """The last event of the speech that goes on."""
        self.counters = LinkCounters()
        self.first_playout_at_us: int | None = None
        """When the first packet of anything that was played went out."""

    @property
    def stream(self) -> int:
        """The engine's number for this leg."""
        return self._stream

    def next_mark(self) -> int:
        self._mark += 1
        return self._mark

    def play(self, pcm: bytes, rate_hz: int, mark: int) -> None:
        if not self._closed:
            self._engine.play(self._stream, pcm, rate_hz, mark)
            if self._on_leg_event is not None:
                self._unplayed[mark] = (pcm, rate_hz)

    def pause(self) -> None:
        self._paused = True
        if not self._closed:
            self._engine.pause(self._stream)

    def resume(self) -> None:
        self._paused = False
        if not self._closed:
            self._engine.resume(self._stream)

    def flush(self) -> None:
        self._paused = False
        self._unplayed.clear()
        if not self._closed:
            self._engine.flush(self._stream)

    def move(self, stream: int) -> None:
        """Go on with another stream of the engine; `EngineHub.move` calls it. On `MediaError` it stays where it was."""
        for mark, (pcm, rate_hz) in self._unplayed.items():
            self._engine.play(stream, pcm, rate_hz, mark)
        if self._paused:
            self._engine.pause(stream)
        self._stream = stream
        if self._speech is not None:
            self.deliver(_end_of(self._speech))

    def send_message(self, text: str) -> None:
        """Send text over the leg's data channel. Raises `MediaError` when there is none or its queue is full."""
        if not self._closed:
            self._engine.send_message(self._stream, text)

    def leg_event(self, event: LegEvent) -> None:
        """Hand an event of the connection to the edge."""
        if self._on_leg_event is not None and not self._closed:
            self._on_leg_event(event)

    def deliver(self, event: MediaEvent) -> None:
        """Take an event from the engine's drain, or from the leg's edge."""
        if self._closed:
            return
        if isinstance(event, Played):
            self._unplayed.pop(event.mark, None)
        elif isinstance(event, SpeechStarted | SpeechAudio):
            self._speech = event
        elif isinstance(event, SpeechStopped):
            self._speech = None
        elif isinstance(event, PlayoutStarted) and self.first_playout_at_us is None:
            self.first_playout_at_us = event.at_us
        self._events.append(event)
        if len(self._events) > MAX_PENDING_EVENTS:
            self._drop_one()
        self._wake.set()

    def _drop_one(self) -> None:
        if isinstance(self._events.drop(), SpeechAudio):
            self.counters.dropped_audio_events += 1
        else:
            self.counters.dropped_other_events += 1

    async def next_event(self) -> MediaEvent:
        while not self._events:
            if self._closed:
                raise LinkClosed("the call's media has ended")
            self._wake.clear()
            await self._wake.wait()
        return self._events.popleft()

    def close(self) -> None:
        """End the link: pending events can still be read, then `LinkClosed`."""
        self._closed = True
        self._wake.set()


def _end_of(speech: SpeechStarted | SpeechAudio) -> SpeechStopped:
    """The end of speech that was cut off with its stream."""
    now_us = time.monotonic_ns() // 1000
    return SpeechStopped(
        stream=speech.stream, media_ms=speech.media_ms, at_us=now_us, last_speech_at_us=now_us, pcm=b""
    )


class EngineHub:
    """Drains one media engine for all calls: one wake-up, one `drain`, one dispatch by stream."""

    def __init__(self, engine: MediaEngine) -> None:
        self.engine = engine
        self._links: dict[int, LocalMediaLink] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._orphan_events = 0
        """Events of legs that were closed while the events were on their way."""
        self._dropped = LinkCounters()
        """What the links that are gone had to drop."""

    def stats(self) -> dict[str, int]:
        """Counters of the engine and of what its links, past and present, had to drop."""
        links = [self._dropped, *(link.counters for link in self._links.values())]
        return {
            **self.engine.stats(),
            "orphan_events": self._orphan_events,
            "dropped_link_audio_events": sum(link.dropped_audio_events for link in links),
            "dropped_link_other_events": sum(link.dropped_other_events for link in links),
        }

    def start(self) -> None:
        """Register with the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.engine.fileno(), self._drain)

    def attach(self, stream: int, on_leg_event: Callable[[LegEvent], None] | None = None) -> LocalMediaLink:
        """Make the link of a stream that was opened; ``on_leg_event`` is the edge's, for what concerns the leg alone."""
        link = LocalMediaLink(self.engine, stream, on_leg_event)
        self._links[stream] = link
        return link

    def move(self, link: LocalMediaLink, stream: int) -> None:
        """Put a new stream in the place of the link's own, which is closed. On `MediaError` the link keeps its own."""
        old = link.stream
        link.move(stream)
        del self._links[old]
        self._links[stream] = link
        with contextlib.suppress(MediaError):  # It is gone already.
            self.engine.close_stream(old)

    def detach(self, link: LocalMediaLink) -> None:
        """Close the stream and its link. Safe to call twice."""
        if self._links.pop(link.stream, None) is None:
            return
        link.close()
        self._dropped.dropped_audio_events += link.counters.dropped_audio_events
        self._dropped.dropped_other_events += link.counters.dropped_other_events
        try:
            self.engine.close_stream(link.stream)
        except MediaError:
            # The engine was shut down first; its streams went with it.
            return

    def close(self) -> None:
        """Stop draining and end every link."""
        if self._loop is not None:
            self._loop.remove_reader(self.engine.fileno())
            self._loop = None
        for link in list(self._links.values()):
            self.detach(link)
        self.engine.close()

    def _drain(self) -> None:
        for event in self.engine.drain():
            link = self._links.get(event.stream)
            if link is None:
                self._orphan_events += 1
            elif isinstance(event, LegEvent):
                link.leg_event(event)
            else:
                link.deliver(event)
