"""What crosses between the edge and a call worker, and its octets. Sans-IO.

A frame is its length, the kind of message, the call it belongs to (0: none), and a body: a JSON array of the message's fields
and, where it carries any, the octets of its `blob` behind it:

    u32 length of what follows | u8 kind | u32 call | u32 length of the JSON | JSON | blob

Both ends are one installation, so that there are no versions; a frame that cannot be read is a fault of the peer, and the
edge ends a worker that sends one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Final, get_type_hints

import orjson

from mediaserver._native import (
    Activity,
    BackgroundEnded,
    DtmfDigit,
    Flushed,
    MarkReached,
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
)
from mediaserver.errors import MediaServerError
from mediaserver.media_link import MediaEvent

MAX_FRAME_OCTETS: Final = 8 * 1024 * 1024
"""The longest: a chunk of speech of two minutes at 24 kHz is 5.8 MB."""
_HEAD: Final = struct.Struct("<IBII")
_LENGTH: Final = struct.Struct("<I")
_BODY_HEAD: Final = struct.Struct("<BII")
_BODY_HEAD_OCTETS: Final = _BODY_HEAD.size


class WireError(MediaServerError):
    """Octets that are no frame of this protocol."""


# -- edge to worker ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenCall:
    """Take a call: its tenant and, where another worker had it before, what to go on from (JSON documents)."""

    tenant: str
    restored: str
    first_mark: int
    """Marks up to here were used by others."""


@dataclass(frozen=True, slots=True)
class Greet:
    """Both sides can be heard."""


@dataclass(frozen=True, slots=True)
class CancelCall:
    """End the pipeline; the call is over."""

    why: str


@dataclass(frozen=True, slots=True)
class LinkEnded:
    """There will be no further media event of this call."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Say that you live."""

    number: int


@dataclass(frozen=True, slots=True)
class KeepPhrase:
    """Audio that was made ahead of its use."""

    digest: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Retire:
    """Take no further calls, and end when the last one has."""


# -- worker to edge ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker takes calls."""

    pid: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a `Ping`."""

    number: int


@dataclass(frozen=True, slots=True)
class StandsStill:
    """The worker looks for garbage, and answers nothing meanwhile."""


@dataclass(frozen=True, slots=True)
class CallTaken:
    """The call's pipeline runs in this worker."""


@dataclass(frozen=True, slots=True)
class Play:
    """`MediaLink.play`."""

    mark: int
    rate_hz: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """`MediaLink.pause`."""


@dataclass(frozen=True, slots=True)
class Resume:
    """`MediaLink.resume`."""


@dataclass(frozen=True, slots=True)
class Flush:
    """`MediaLink.flush`."""


@dataclass(frozen=True, slots=True)
class CallerSaid:
    """A turn of the caller is complete."""

    text: str


@dataclass(frozen=True, slots=True)
class ReceptionistSaid:
    """A turn of the receptionist is over, as it was heard."""

    text: str
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Speaking:
    """Somebody began to speak or has finished."""

    caller: bool
    active: bool


@dataclass(frozen=True, slots=True)
class SentenceQueued:
    """A sentence of the present reply is on its way to the playout."""

    text: str


@dataclass(frozen=True, slots=True)
class ReplyQueued:
    """The present reply has no further sentence."""


@dataclass(frozen=True, slots=True)
class SentenceBegins:
    """The first packet of a sentence goes out."""

    text: str


@dataclass(frozen=True, slots=True)
class TurnLatency:
    """The wire latency of an answered turn, and its parts as a JSON object."""

    latency_ms: int
    parts: str


@dataclass(frozen=True, slots=True)
class Acted:
    """Something that the receptionist wants done: the action's kind, and its fields as JSON."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class ReceptionistState:
    """What the built-in receptionist will remember if its present reply is heard."""

    state: str


@dataclass(frozen=True, slots=True)
class MediaEnded:
    """The pipeline takes the caller's media to have ended."""

    why: str


@dataclass(frozen=True, slots=True)
class CallOver:
    """The pipeline has ended by itself or as asked."""

    why: str
    failed: bool


@dataclass(frozen=True, slots=True)
class TurnsCounted:
    """What became of the call's turns, as a JSON object."""

    counters: str


@dataclass(frozen=True, slots=True)
class KeyTold:
    """What a request of the call says about the key that it was made with (`KeyReport`)."""

    stage: str
    owner: str
    """The tenant; empty: the platform."""
    name: str
    version: int
    outcome: str
    took_ms: int
    retry_after_ms: int
    """-1: the provider does not say."""


@dataclass(frozen=True, slots=True)
class UsageTold:
    """What a request of the call has used (`tenancy.spending.Usage`)."""

    service: str
    provider: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    audio_ms: int
    characters: int
    estimated: bool


@dataclass(frozen=True, slots=True)
class ProviderTold:
    """What became of a provider in the call (`ProviderEvent`)."""

    stage: str
    provider: str
    happened: str
    reason: str
    times: int


@dataclass(frozen=True, slots=True)
class Meters:
    """What the worker counted since the last time."""

    blob: bytes


ToWorker = OpenCall | Greet | CancelCall | LinkEnded | Ping | KeepPhrase | Retire | MediaEvent
ToEdge = (
    Ready
    | Pong
    | StandsStill
    | CallTaken
    | Play
    | Pause
    | Resume
    | Flush
    | CallerSaid
    | ReceptionistSaid
    | Speaking
    | SentenceQueued
    | ReplyQueued
    | SentenceBegins
    | TurnLatency
    | Acted
    | ReceptionistState
    | MediaEnded
    | CallOver
    | Meters
    | TurnsCounted
    | KeyTold
    | UsageTold
    | ProviderTold
)
Message = ToWorker | ToEdge


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one class of messages is taken apart and put together."""

    code: int
    build: Callable[..., Any]
    names: tuple[str, ...]
    types: tuple[type, ...]
    blob: str | None
    of_engine: bool


def _own(code: int, cls: type) -> _Kind:
    hints = get_type_hints(cls)
    names = tuple(field.name for field in fields(cls) if field.name != "blob")
    types = tuple(hints[name] for name in names)
    return _Kind(code, cls, names, types, "blob" if "blob" in hints else None, of_engine=False)


def _engine(code: int, cls: type, numbers: str, texts: str = "", blob: str | None = None) -> _Kind:
    """An event of the engine: its fields but the stream, which is another at each end."""
    names = (*numbers.split(), *texts.split())
    types = (*(int for _ in numbers.split()), *(str for _ in texts.split()))
    return _Kind(code, cls, names, types, blob, of_engine=True)


def _kinds() -> tuple[tuple[type, _Kind], ...]:
    """The table of messages."""
    return (
        (OpenCall, _own(1, OpenCall)),
        (Greet, _own(2, Greet)),
        (CancelCall, _own(3, CancelCall)),
        (LinkEnded, _own(4, LinkEnded)),
        (Ping, _own(5, Ping)),
        (KeepPhrase, _own(6, KeepPhrase)),
        (Retire, _own(7, Retire)),
        (SpeechStarted, _engine(16, SpeechStarted, "media_ms at_us", blob="pcm")),
        (SpeechAudio, _engine(17, SpeechAudio, "media_ms", blob="pcm")),
        (SpeechStopped, _engine(18, SpeechStopped, "media_ms at_us last_speech_at_us", blob="pcm")),
        (PlayoutStarted, _engine(19, PlayoutStarted, "mark at_us")),
        (Played, _engine(20, Played, "mark played_ms at_us")),
        (MarkReached, _engine(21, MarkReached, "mark played_ms at_us")),
        (BackgroundEnded, _engine(22, BackgroundEnded, "mark at_us")),
        (Flushed, _engine(23, Flushed, "mark heard_ms chunk_ms played_ms dropped_ms at_us")),
        (DtmfDigit, _engine(24, DtmfDigit, "duration_ms", "digit")),
        (MediaTimeout, _engine(25, MediaTimeout, "silent_ms")),
        (Activity, _engine(26, Activity, "active at_us")),
        (RecordingFailed, _engine(27, RecordingFailed, "", "reason")),
        (StreamFailed, _engine(28, StreamFailed, "", "reason")),
        (Ready, _own(64, Ready)),
        (Pong, _own(65, Pong)),
        (StandsStill, _own(84, StandsStill)),
        (Play, _own(66, Play)),
        (Pause, _own(67, Pause)),
        (Resume, _own(68, Resume)),
        (Flush, _own(69, Flush)),
        (CallerSaid, _own(70, CallerSaid)),
        (ReceptionistSaid, _own(71, ReceptionistSaid)),
        (Speaking, _own(72, Speaking)),
        (SentenceQueued, _own(73, SentenceQueued)),
        (ReplyQueued, _own(74, ReplyQueued)),
        (SentenceBegins, _own(75, SentenceBegins)),
        (TurnLatency, _own(76, TurnLatency)),
        (Acted, _own(77, Acted)),
        (ReceptionistState, _own(78, ReceptionistState)),
        (MediaEnded, _own(79, MediaEnded)),
        (CallOver, _own(80, CallOver)),
        (Meters, _own(81, Meters)),
        (CallTaken, _own(82, CallTaken)),
        (TurnsCounted, _own(83, TurnsCounted)),
        (KeyTold, _own(85, KeyTold)),
        (UsageTold, _own(87, UsageTold)),
        (ProviderTold, _own(86, ProviderTold)),
        (SpeechPaused, _engine(29, SpeechPaused, "media_ms at_us last_speech_at_us", blob="pcm")),
        (SpeechResumed, _engine(30, SpeechResumed, "media_ms at_us")),
    )


_KINDS: Final = _kinds()
_BY_CODE: Final = {kind.code: kind for _, kind in _KINDS}
_BY_CLASS: Final = {cls: kind for cls, kind in _KINDS}  # noqa: C416 - read by the test of module state


def encode(call: int, message: Message) -> bytes:
    """One frame. Raises `WireError` for what is too long."""
    kind = _BY_CLASS[type(message)]
    text = orjson.dumps([getattr(message, name) for name in kind.names])
    blob: bytes = getattr(message, kind.blob) if kind.blob is not None else b""
    length = _BODY_HEAD_OCTETS + len(text) + len(blob)
    if length > MAX_FRAME_OCTETS:
        raise WireError(f"a {type(message).__name__} of {length} octets; {MAX_FRAME_OCTETS} are allowed")
    return b"".join((_HEAD.pack(length, kind.code, call, len(text)), text, blob))


def decode(frame: memoryview) -> tuple[int, Message]:
    """The call and the message of a frame, without its length. Raises `WireError`."""
    if len(frame) < _BODY_HEAD_OCTETS:
        raise WireError(f"a frame of {len(frame)} octets")
    code, call, text_octets = _BODY_HEAD.unpack_from(frame)
    kind = _BY_CODE.get(code)
    if kind is None:
        raise WireError(f"no message has the kind {code}")
    if text_octets > len(frame) - _BODY_HEAD_OCTETS:
        raise WireError(f"{kind.build.__name__}: the frame ends within its fields")
    blob_at = _BODY_HEAD_OCTETS + text_octets
    try:
        values = orjson.loads(frame[_BODY_HEAD_OCTETS:blob_at])
    except orjson.JSONDecodeError as error:
        raise WireError(f"{kind.build.__name__}: {error}") from None
    arguments = _fields(kind, values)
    if kind.blob is not None:
        arguments[kind.blob] = bytes(frame[blob_at:])
    elif blob_at != len(frame):
        raise WireError(f"{kind.build.__name__} carries no octets")
    if kind.of_engine:
        arguments["stream"] = call
    try:
        return call, kind.build(**arguments)
    except (OverflowError, ValueError, TypeError) as error:
        raise WireError(f"{kind.build.__name__}: {error}") from None


def _fields(kind: _Kind, values: object) -> dict[str, Any]:
    """A message's fields by name, each of its type."""
    if not isinstance(values, list) or len(values) != len(kind.names):
        raise WireError(f"{kind.build.__name__} has the fields {', '.join(kind.names) or '(none)'}")
    for name, value, wanted in zip(kind.names, values, kind.types, strict=True):
        if not isinstance(value, wanted):
            raise WireError(f"{kind.build.__name__}.{name} is no {wanted.__name__}")
    return dict(zip(kind.names, values, strict=True))


class FrameReader:
    """Puts a stream of octets, cut anywhere, together to messages. It holds at most one frame."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, octets: bytes) -> Iterator[tuple[int, Message]]:
        """The messages that are complete now. Raises `WireError`, after which the stream cannot be read on."""
        self._held += octets
        at = 0
        try:
            while len(self._held) - at >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._held, at)
                if length > MAX_FRAME_OCTETS:
                    raise WireError(f"a frame of {length} octets; {MAX_FRAME_OCTETS} are allowed")
                end = at + _LENGTH.size + length
                if len(self._held) < end:
                    return
                frame = memoryview(bytes(self._held[at + _LENGTH.size : end]))
                at = end
                yield decode(frame)
        finally:
            del self._held[:at]
