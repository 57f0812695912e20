"""What the Rust crates offer to Python. `stubtest` holds this file against the built module."""

from typing import final

# ---- media engine (native/src/media.rs) -------------------------------------------------------------

@final
class MediaError(Exception): ...

@final
class MediaEngine:
    """One media thread with its UDP sockets. It never attaches to the interpreter.

    Times called ``*_at_us`` are microseconds of CLOCK_MONOTONIC (``time.monotonic_ns() // 1000``).
    PCM is signed 16-bit little-endian mono.
    """

    def __new__(
        cls,
        host: str,
        *,
        first_port: int = 0,
        port_count: int = 8,
        vad_model: bytes | None = None,
        max_streams: int = 1000,
        event_capacity: int = 65536,
    ) -> MediaEngine: ...
    def fileno(self) -> int: ...
    def ports(self) -> list[int]: ...
    def open_stream(
        self,
        *,
        remote: tuple[str, int] | None,
        vad_threshold: float = 0.5,
        speech_start_ms: int = 96,
        speech_stop_ms: int = 200,
        preroll_ms: int = 300,
        chunk_ms: int = 200,
        media_timeout_ms: int = 0,
        max_playout_ms: int = 120_000,
        report_activity: bool = False,
    ) -> tuple[int, int]:
        """Reserve (stream id, local port). No packet is sent until `connect_stream`."""
    def connect_stream(
        self,
        stream: int,
        *,
        remote: tuple[str, int],
        codec: str,
        payload_type: int,
        telephone_event: int | None = None,
        send: bool = True,
        receive: bool = True,
    ) -> None:
        """Begin (or, after a re-INVITE, change) media: 20 ms RTP both ways. codec: "PCMU" or "PCMA"."""
    def close_stream(self, stream: int) -> None: ...
    def play(self, stream: int, pcm: bytes, rate_hz: int, mark: int) -> None:
        """Append a whole chunk; rates 8000, 16000, 24000, 48000. `Played` with the mark when it has gone out."""
    def flush(self, stream: int) -> None:
        """Stop within 20 ms (10 ms fade) and drop what is queued. Answered by `Flushed`."""
    def pause(self, stream: int) -> None: ...
    def resume(self, stream: int) -> None: ...
    def record(self, stream: int, path: str) -> None:
        """Write a stereo WAV (8 kHz; left: received, right: sent) on one media timeline until the stream closes."""
    def drain(self) -> list[Event]:
        """Take all pending events of all streams and re-arm the wake-up."""
    def stats(self) -> dict[str, int]:
        """Engine counters: packets, drops by reason, queue drops, tick lateness."""
    def stream_stats(self, stream: int) -> dict[str, int]: ...
    def close(self) -> None: ...

@final
class SpeechStarted:
    """Speech began. `pcm` (16 kHz) is the pre-roll with the onset."""

    stream: int
    media_ms: int
    at_us: int
    pcm: bytes

@final
class SpeechAudio:
    """The next stretch of caller audio while somebody speaks, 16 kHz."""

    stream: int
    media_ms: int
    pcm: bytes

@final
class SpeechStopped:
    """Speech ended `speech_stop_ms` ago. `pcm` is what was not handed over yet.

    `last_speech_at_us`: arrival of the last packet that the detector counts as speech.
    """

    stream: int
    media_ms: int
    at_us: int
    last_speech_at_us: int
    pcm: bytes

@final
class PlayoutStarted:
    """The first packet of `mark` went out after the playout was idle."""

    stream: int
    mark: int
    at_us: int

@final
class Played:
    """The last sample of the chunk `mark` went out. `played_ms`: total played on this stream so far."""

    stream: int
    mark: int
    played_ms: int
    at_us: int

@final
class Flushed:
    """Answer to `flush`: the mark that was playing and how much of that chunk was heard."""

    stream: int
    mark: int
    heard_ms: int
    chunk_ms: int
    played_ms: int
    dropped_ms: int
    at_us: int

@final
class DtmfDigit:
    stream: int
    digit: str
    duration_ms: int

@final
class MediaTimeout:
    stream: int
    silent_ms: int

@final
class Activity:
    """`report_activity`: received audio rose above (active) or fell below the threshold; `at_us` is the
    arrival of the first (or last) packet above it."""

    stream: int
    active: bool
    at_us: int

@final
class RecordingFailed:
    stream: int
    reason: str

Event = (
    SpeechStarted | SpeechAudio | SpeechStopped | PlayoutStarted | Played | Flushed | DtmfDigit | MediaTimeout
    | Activity | RecordingFailed
)

# ---- SIP (native/src/sip.rs) ------------------------------------------------------------------------
