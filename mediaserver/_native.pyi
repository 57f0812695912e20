"""What the Rust crates offer to Python. `stubtest` holds this file against the built module."""

from typing import TypeAlias, final

__all__ = [
    "Activity",
    "BackgroundEnded",
    "ChannelMessage",
    "ChannelOpened",
    "DtmfDigit",
    "Flushed",
    "MarkReached",
    "MediaEngine",
    "MediaError",
    "MediaTimeout",
    "Played",
    "PlayoutStarted",
    "RecordingFailed",
    "SileroVad",
    "SipKey",
    "SipMessage",
    "SipOutput",
    "SipParseError",
    "SipStreamParser",
    "SipTransactions",
    "SpeechAudio",
    "SpeechPaused",
    "SpeechResumed",
    "SpeechStarted",
    "SpeechStopped",
    "StreamFailed",
    "StreamQuality",
    "WebRtcConnected",
    "WebRtcEnded",
    "sip_uri_parts",
]

# ---- media engine (native/src/media.rs) -------------------------------------------------------------

class MediaError(Exception):
    """The media engine refused or cannot do something; the text says what and what is allowed."""

@final
class MediaEngine:
    """The media threads with their UDP sockets. They never attach to the interpreter.

    Times called ``*_at_us`` are microseconds of CLOCK_MONOTONIC (``time.monotonic_ns() // 1000``).
    PCM is signed 16-bit little-endian mono. ``host``: an IPv4 or IPv6 address to bind; ``first_port``: the first
    of ``port_count`` even ports, each with the odd one after it for RTCP; 0 for any free ones. They are dealt out among
    ``threads`` media threads. ``realtime``: SCHED_FIFO where the system permits it. ``public_addresses``: where browsers
    reach the ports, if not at ``host``; at most one a family. Without ``vad_model`` there are no speech events. Every method
    but `fileno`, `ports`, `drain`, `stats` and `close` raises `MediaError` once the engine is closed.
    """

    def __new__(
        cls,
        host: str,
        *,
        first_port: int = 0,
        port_count: int = 8,
        threads: int = 1,
        realtime: bool = True,
        public_addresses: list[str] | None = None,
        vad_model: bytes | None = None,
        max_streams: int = 1000,
        event_capacity: int = 65536,
    ) -> MediaEngine: ...
    def fileno(self) -> int: ...
    def ports(self) -> list[int]: ...
    def alive(self) -> bool:
        """Whether any media thread runs. One that fails takes its own streams with it (`StreamFailed`) and no others."""
    def realtime_refused(self) -> str | None:
        """Why the system gave no real-time scheduling; None where it did, or was not asked."""

    def open_stream(
        self,
        *,
        remote: tuple[str, int] | None,
        origin: str | None = None,
        beside: int | None = None,
        vad_threshold: float = 0.5,
        speech_start_ms: int = 96,
        speech_stop_ms: int = 200,
        preroll_ms: int = 300,
        chunk_ms: int = 200,
        pause_ms: int = 0,
        media_timeout_ms: int = 0,
        max_playout_ms: int = 120_000,
        report_activity: bool = False,
    ) -> tuple[int, int]:
        """Reserve (stream id, local port). No packet is sent, taken or learnt from until `connect_stream`.

        ``beside``: on the media thread of that stream, so that both can share a room. Media are learnt from the host of `remote`, and from `origin`: where signalling came from (a caller behind NAT).
        Streams with one remote address need a port each, and so do those whose remote address is not known yet.
        """
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
        comfort_noise: int | None = None,
        telephone_event_hz: int = 8000,
        srtp: tuple[str, str, str] | None = None,
        rtcp_remote: tuple[str, int] | None = None,
        rtcp_mux: bool = False,
        rtcp_xr: bool = False,
        rtcp_reduced_size: bool = False,
        rtcp: bool = True,
    ) -> None:
        """Begin (or, after a re-INVITE, change) media: 20 ms RTP both ways. codec: "PCMU", "PCMA", "G722" or "opus".

        `comfort_noise`: payload type of RFC 3389. `srtp`: (suite, our key, their key), keys as after ``inline:`` in
        RFC 4568; None is plain RTP. RTCP goes to `rtcp_remote` (None: the port above `remote`'s) or, with `rtcp_mux`,
        where RTP goes; with `rtcp_xr` it has VoIP metrics, without `rtcp` there is none.

        The first valid packet locks the stream to its source (symmetric RTP), until another ``remote`` is given.
        Without ``send`` what is queued waits; without ``receive`` there is no media timeout.
        """
    def open_webrtc(
        self,
        *,
        offer: str,
        vad_threshold: float = 0.5,
        speech_start_ms: int = 96,
        speech_stop_ms: int = 200,
        preroll_ms: int = 300,
        chunk_ms: int = 200,
        pause_ms: int = 0,
        max_playout_ms: int = 120_000,
        report_activity: bool = False,
    ) -> tuple[int, str]:
        """Open a WebRTC leg: (stream id, SDP answer). ICE-lite, DTLS-SRTP, Opus, one data channel.

        `WebRtcConnected` when media can flow, `WebRtcEnded` when the peer closed it or is gone; `close_stream` follows.
        """
    def reoffer_webrtc(self, stream: int, offer: str) -> str:
        """The SDP answer to a renegotiation or an ICE restart."""
    def send_message(self, stream: int, text: str) -> None:
        """Send text over the data channel; it waits until one is open. Raises for more than 16 KiB."""
    def close_stream(self, stream: int) -> None: ...
    def play(
        self,
        stream: int,
        pcm: bytes,
        rate_hz: int,
        mark: int,
        *,
        marks: list[tuple[int, int]] | None = None,
        gain_db: float = 0.0,
    ) -> None:
        """Append a whole chunk; rates 8000, 16000, 24000, 48000. `Played` with the mark when it has gone out.

        ``marks``: places within it (sample, mark), at most 64, each reported as `MarkReached`; ``gain_db``: -60 to 12.
        Marks are not negative; 0 also stands for "none" in `Flushed`. Raises when ``max_playout_ms`` would be exceeded.
        """
    def flush(self, stream: int) -> None:
        """Stop within 20 ms (10 ms fade) and drop what is queued, not what is played later; ends a pause.

        Answered by one `Flushed`, which also stands for other flushes before the fade.
        """
    def play_loop(self, stream: int, pcm: bytes, rate_hz: int, mark: int, *, gain_db: float = 0.0) -> None:
        """Play this over and over while nothing else is (hold music, ring-back); `BackgroundEnded` when it has stopped."""
    def stop_loop(self, stream: int) -> None: ...
    def set_gain(self, stream: int, gain_db: float) -> None:
        """Everything that is played louder or softer, -60 to 12 dB."""
    def press(self, stream: int, digit: str, duration_ms: int = 100) -> None:
        """Press a key at the peer (RFC 4733), after those that wait; 40 to 60000 ms."""
    def open_room(self, beside: int) -> int:
        """A room on the media thread of a stream: its members hear each other. It is gone with its last member."""
    def join_room(self, room: int, stream: int, *, listen_only: bool = False) -> None:
        """Let a stream into a room (at most 8), out of the one where it was; raises when its media thread is another."""
    def leave_room(self, stream: int) -> None: ...
    def set_hearing(self, listener: int, speaker: int, factor: float) -> None:
        """How loudly a member of a room hears another: 0 (not at all) to 4."""
    def pause(self, stream: int) -> None: ...
    def resume(self, stream: int) -> None: ...
    def record(self, stream: int, path: str, rate_hz: int = 8000) -> None:
        """Write a stereo WAV (8, 16, 24 or 48 kHz; left: received, right: sent) on one media timeline until the stream closes."""
    def drain(self) -> list[_Event]:
        """Take all pending events of all streams and re-arm the wake-up."""
    def stats(self) -> dict[str, int]:
        """Engine counters: packets, drops by reason, queue drops, tick lateness."""
    def stream_stats(self, stream: int) -> dict[str, int]:
        """Counters of one stream: packets sent, received, lost, dropped by reason, played, queued, windows judged."""
    def stream_quality(self, stream: int) -> StreamQuality | None:
        """How good a stream is, both ways; None before it is connected."""
    def close(self) -> None:
        """Stop the threads; returns when every recording is on the disk. What was not drained still can be."""

@final
class StreamQuality:
    """Loss, jitter and round trip of a stream (RFC 3550), and what the E-model makes of them (ITU-T G.107).

    ``discarded``: packets that came too late. ``peer_*``: our stream as the peer reports it. None: no report has told yet.
    """

    @property
    def received(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def discarded(self) -> int: ...
    @property
    def fraction_lost(self) -> float: ...
    @property
    def jitter_ms(self) -> float: ...
    @property
    def round_trip_ms(self) -> float | None: ...
    @property
    def peer_fraction_lost(self) -> float | None: ...
    @property
    def peer_jitter_ms(self) -> float | None: ...
    @property
    def r_factor(self) -> float | None: ...
    @property
    def mos_lq(self) -> float | None: ...
    @property
    def mos_cq(self) -> float | None: ...

@final
class SpeechStarted:
    """Speech began at `media_ms`; `at_us` is the arrival that made it certain.

    `pcm` (16 kHz) is the pre-roll with the onset, without what an earlier stretch of speech handed over.
    """

    def __new__(cls, *, stream: int, media_ms: int, at_us: int, pcm: bytes) -> SpeechStarted: ...
    @property
    def stream(self) -> int: ...
    @property
    def media_ms(self) -> int: ...
    @property
    def at_us(self) -> int: ...
    @property
    def pcm(self) -> bytes: ...

@final
class SpeechAudio:
    """The next stretch of caller audio while somebody speaks, 16 kHz; it begins at `media_ms`."""

    def __new__(cls, *, stream: int, media_ms: int, pcm: bytes) -> SpeechAudio: ...
    @property
    def stream(self) -> int: ...
    @property
    def media_ms(self) -> int: ...
    @property
    def pcm(self) -> bytes: ...

@final
class SpeechPaused:
    """Nothing audible has come for `pause_ms` within speech: a gap in a word, or its end. One until it resumes or stops.

    `media_ms`: where the last audible packet ended. `pcm` is what was not handed over yet; what follows begins after it.
    """

    def __new__(
        cls, *, stream: int, media_ms: int, at_us: int, last_speech_at_us: int, pcm: bytes
    ) -> SpeechPaused: ...
    @property
    def stream(self) -> int: ...
    @property
    def media_ms(self) -> int: ...
    @property
    def at_us(self) -> int: ...
    @property
    def last_speech_at_us(self) -> int: ...
    @property
    def pcm(self) -> bytes: ...

@final
class SpeechResumed:
    """Speech goes on after a pause; the window that shows it begins at `media_ms`."""

    def __new__(cls, *, stream: int, media_ms: int, at_us: int) -> SpeechResumed: ...
    @property
    def stream(self) -> int: ...
    @property
    def media_ms(self) -> int: ...
    @property
    def at_us(self) -> int: ...

@final
class SpeechStopped:
    """Speech ended `speech_stop_ms` ago. `pcm` is what was not handed over yet.

    `last_speech_at_us`: arrival of the last audible packet of what the detector counts as speech.
    """

    def __new__(
        cls, *, stream: int, media_ms: int, at_us: int, last_speech_at_us: int, pcm: bytes
    ) -> SpeechStopped: ...
    @property
    def stream(self) -> int: ...
    @property
    def media_ms(self) -> int: ...
    @property
    def at_us(self) -> int: ...
    @property
    def last_speech_at_us(self) -> int: ...
    @property
    def pcm(self) -> bytes: ...

@final
class PlayoutStarted:
    """The first packet of `mark` went out after the playout was idle."""

    def __new__(cls, *, stream: int, mark: int, at_us: int) -> PlayoutStarted: ...
    @property
    def stream(self) -> int: ...
    @property
    def mark(self) -> int: ...
    @property
    def at_us(self) -> int: ...

@final
class MarkReached:
    """The sample with a mark within a chunk went out. `played_ms`: all that was played on this stream before it."""

    def __new__(cls, *, stream: int, mark: int, played_ms: int, at_us: int) -> MarkReached: ...
    @property
    def stream(self) -> int: ...
    @property
    def mark(self) -> int: ...
    @property
    def played_ms(self) -> int: ...
    @property
    def at_us(self) -> int: ...

@final
class BackgroundEnded:
    """What sounded while nothing was said has ended; `mark` is that of its chunk."""

    def __new__(cls, *, stream: int, mark: int, at_us: int) -> BackgroundEnded: ...
    @property
    def stream(self) -> int: ...
    @property
    def mark(self) -> int: ...
    @property
    def at_us(self) -> int: ...

@final
class Played:
    """The last sample of the chunk `mark` went out. `played_ms`: all that was played on this stream so far."""

    def __new__(cls, *, stream: int, mark: int, played_ms: int, at_us: int) -> Played: ...
    @property
    def stream(self) -> int: ...
    @property
    def mark(self) -> int: ...
    @property
    def played_ms(self) -> int: ...
    @property
    def at_us(self) -> int: ...

@final
class Flushed:
    """Answer to `flush`: the mark that was playing, or else the first that waited (0: none).

    `heard_ms` of that chunk were heard; the chunks after it were dropped unheard.
    """

    def __new__(
        cls,
        *,
        stream: int,
        mark: int,
        heard_ms: int,
        chunk_ms: int,
        played_ms: int,
        dropped_ms: int,
        at_us: int,
    ) -> Flushed: ...
    @property
    def stream(self) -> int: ...
    @property
    def mark(self) -> int: ...
    @property
    def heard_ms(self) -> int: ...
    @property
    def chunk_ms(self) -> int: ...
    @property
    def played_ms(self) -> int: ...
    @property
    def dropped_ms(self) -> int: ...
    @property
    def at_us(self) -> int: ...

@final
class DtmfDigit:
    """A key that was pressed: 0 to 9, *, #, A to D."""

    def __new__(cls, *, stream: int, digit: str, duration_ms: int) -> DtmfDigit: ...
    @property
    def stream(self) -> int: ...
    @property
    def digit(self) -> str: ...
    @property
    def duration_ms(self) -> int: ...

@final
class MediaTimeout:
    """Nothing has come for `media_timeout_ms`; once until packets come again."""

    def __new__(cls, *, stream: int, silent_ms: int) -> MediaTimeout: ...
    @property
    def stream(self) -> int: ...
    @property
    def silent_ms(self) -> int: ...

@final
class StreamFailed:
    """The engine has lost the stream by a mistake of its own: it is closed, and its place given back."""

    def __new__(cls, *, stream: int, reason: str) -> StreamFailed: ...
    @property
    def stream(self) -> int: ...
    @property
    def reason(self) -> str: ...

@final
class Activity:
    """`report_activity`: received audio became audible or, after 300 ms of quiet, silent.

    `at_us` is the arrival of the first (or last) audible packet.
    """

    def __new__(cls, *, stream: int, active: bool, at_us: int) -> Activity: ...
    @property
    def stream(self) -> int: ...
    @property
    def active(self) -> bool: ...
    @property
    def at_us(self) -> int: ...

@final
class RecordingFailed:
    """The recording has stopped; the call goes on."""

    def __new__(cls, *, stream: int, reason: str) -> RecordingFailed: ...
    @property
    def stream(self) -> int: ...
    @property
    def reason(self) -> str: ...

@final
class WebRtcConnected:
    """A WebRTC leg can carry media: ICE and DTLS are done."""

    def __new__(cls, *, stream: int, at_us: int) -> WebRtcConnected: ...
    @property
    def stream(self) -> int: ...
    @property
    def at_us(self) -> int: ...

@final
class ChannelOpened:
    """The peer's data channel is open."""

    def __new__(cls, *, stream: int) -> ChannelOpened: ...
    @property
    def stream(self) -> int: ...

@final
class ChannelMessage:
    """Text came over the data channel."""

    def __new__(cls, *, stream: int, text: str) -> ChannelMessage: ...
    @property
    def stream(self) -> int: ...
    @property
    def text(self) -> str: ...

@final
class WebRtcEnded:
    """The peer closed the connection, never completed it, or no longer answers."""

    def __new__(cls, *, stream: int, reason: str) -> WebRtcEnded: ...
    @property
    def stream(self) -> int: ...
    @property
    def reason(self) -> str: ...

_Event: TypeAlias = (
    SpeechStarted
    | SpeechAudio
    | SpeechStopped
    | PlayoutStarted
    | Played
    | Flushed
    | DtmfDigit
    | MediaTimeout
    | StreamFailed
    | Activity
    | RecordingFailed
    | WebRtcConnected
    | ChannelOpened
    | ChannelMessage
    | WebRtcEnded
)

# ---- SIP (native/src/sip.rs) ------------------------------------------------------------------------

class SipParseError(Exception):
    """Bytes that are no SIP message, or a value that is none."""

_UriParts: TypeAlias = tuple[str, str | None, str, int | None, list[tuple[str, str | None]]]

def sip_uri_parts(uri: str) -> _UriParts:
    """Scheme, user (decoded), host, port and parameters of a sip, sips or tel URI; raises `SipParseError`."""

@final
class SipMessage:
    """A parsed message. Headers are found by any spelling, compact forms too."""

    @staticmethod
    def parse(data: bytes, max_message_bytes: int = 65536) -> SipMessage: ...
    def problems(self) -> list[tuple[int, str, bool]]:
        """What RFC 3261 8.1.1 forbids in it: (status that answers it, words, whether it may be overlooked)."""
    @property
    def method(self) -> str | None: ...
    @property
    def uri(self) -> str | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def supported_version(self) -> bool: ...
    @property
    def body(self) -> bytes: ...
    def header(self, name: str) -> str | None:
        """The first row of a header, unfolded."""
    def header_values(self, name: str) -> list[str]:
        """Every row of a header, in order, unfolded."""
    def addresses(self, name: str) -> list[tuple[str | None, str, str | None]]:
        """(display name, URI, tag) of every address in every row; raises `SipParseError`."""
    def top_via(self) -> tuple[str, str, int | None, str | None, bool] | None:
        """(transport, host, port, branch, rport asked for) of the topmost Via."""
    def encode(self) -> bytes: ...

@final
class SipStreamParser:
    """Frames messages out of a TCP stream; an error is final for the connection."""

    def __new__(cls, max_message_bytes: int) -> SipStreamParser: ...
    def push(self, chunk: bytes) -> list[SipMessage]: ...
    def take_keepalives(self) -> int: ...
    @property
    def pending(self) -> int: ...

@final
class SipKey:
    """Names a transaction; hashable."""

    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class SipOutput:
    """What a transaction wants done.

    `kind`: send (`data`), set_timer (`timer`, `after_ms`), clear_timer (`timer`), request, response, ack (`message`),
    timeout, transport_error, terminated.
    """

    @property
    def kind(self) -> str: ...
    @property
    def data(self) -> bytes | None: ...
    @property
    def message(self) -> SipMessage | None: ...
    @property
    def timer(self) -> str | None: ...
    @property
    def after_ms(self) -> int | None: ...

@final
class SipTransactions:
    """The transaction layer of RFC 3261 17 with RFC 6026, sans-IO: the driver keeps the timers."""

    def __new__(cls, *, t1_ms: int = 500, t2_ms: int = 4000, t4_ms: int = 5000) -> SipTransactions: ...
    def receive(
        self, message: SipMessage, source: str, port: int, reliable: bool
    ) -> tuple[str, SipKey | None, SipMessage | None, list[SipOutput]]:
        """("created" | "matched" | "unmatched", key, the unmatched message, outputs)."""
    def send_request(self, data: bytes, reliable: bool) -> tuple[SipKey, list[SipOutput]]: ...
    def send_response(self, key: SipKey, data: bytes) -> list[SipOutput]: ...
    def on_timer(self, key: SipKey, timer: str) -> list[SipOutput]: ...
    def on_transport_error(self, key: SipKey) -> list[SipOutput]: ...
    def abandon(self, key: SipKey) -> bool: ...
    @staticmethod
    def cancelled(cancel: SipMessage) -> SipKey | None:
        """The key of the INVITE that a CANCEL names (RFC 3261 9.1)."""
    def counts(self) -> tuple[int, int]:
        """Client and server transactions in flight."""

# ---- voice activity (native/src/vad.rs) -------------------------------------------------------------

@final
class SileroVad:
    """The engine's speech detector on one stream of audio. `model`: the bytes of ``silero_vad.onnx``."""

    def __new__(cls, model: bytes, *, gated: bool = False) -> SileroVad:
        """`gated`: windows too quiet for speech are not inferred and count as 0.0. ValueError: not the model."""
    def infer(self, pcm16k: bytes) -> list[float]:
        """The probability of speech of each 32 ms window completed by this audio; a remainder is kept."""
    def reset(self) -> None:
        """Begin another stream."""
