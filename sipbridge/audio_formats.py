"""Audio formats in a session description: payload types, clocks and format parameters (RFC 3551, RFC 7587)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sipbridge.description import Attribute, MediaDescription, whole_number
from sipbridge.errors import UsageError

DEFAULT_PTIME_MS = 20
"""What we send and ask for. RFC 8866 6.4 makes a=ptime a wish, so that another one of the peer's is no ground to refuse."""
COMFORT_NOISE = "CN/8000"
EVENT_CLOCKS_HZ = (8_000, 48_000, 16_000)
"""Clocks on which telephone-event is taken where the codec's own is not offered."""
OPUS_EVENT_TYPE = 110
"""Our payload type for telephone-event on Opus's clock."""
HEARD_RATE_HZ = 16_000
"""Speech recognition hears no more, so we ask Opus encoders for no more (RFC 7587 6.1, maxplaybackrate)."""


@dataclass(frozen=True, slots=True)
class AudioCodec:
    """A codec of the media engine. ``clock_hz`` is the RTP clock, which is not always the sampling rate."""

    name: str
    payload_type: int
    """The static type, or the dynamic one that our offers use."""
    clock_hz: int
    channels: int = 1

    @property
    def encoding(self) -> str:
        """As a=rtpmap writes it; one channel goes without saying (RFC 8866 6.6)."""
        return f"{self.name}/{self.clock_hz}" + (f"/{self.channels}" if self.channels > 1 else "")


CODECS = {
    codec.name: codec
    for codec in (
        AudioCodec("PCMU", 0, 8_000),
        AudioCodec("PCMA", 8, 8_000),
        AudioCodec(
            "G722", 9, 8_000
        ),  # Samples at 16 kHz; the clock of 8 kHz is an old mistake (RFC 3551 4.5.2).
        AudioCodec("opus", 111, 48_000, 2),  # Always written as 48000/2, whatever is sent (RFC 7587 7).
    )
}
_BY_ENCODING = {codec.encoding.upper(): codec for codec in CODECS.values()}
STATIC_ENCODINGS = {"0": "PCMU/8000", "8": "PCMA/8000", "9": "G722/8000", "13": COMFORT_NOISE}
"""Payload types that need no a=rtpmap (RFC 3551 6), of the formats that the engine has."""


@dataclass(frozen=True, slots=True)
class OpusFormat:
    """What a peer says about the Opus that it wants to receive (RFC 7587 6.1), with the defaults that stand there."""

    max_playback_rate_hz: int = 48_000
    max_average_bitrate: int | None = None
    """Bits per second; None: no limit stated."""
    use_inband_fec: bool = False
    use_dtx: bool = False
    cbr: bool = False
    stereo: bool = False

    @classmethod
    def parse(cls, parameters: str) -> OpusFormat:
        """Read the parameters of an a=fmtp line. What is unknown or out of range is ignored (RFC 7587 6.1)."""
        values: dict[str, str] = {}
        for part in parameters.split(";"):
            name, equals, value = part.strip().partition("=")
            if equals:
                values.setdefault(name.strip().lower(), value.strip())
        return cls(
            max_playback_rate_hz=whole_number(values.get("maxplaybackrate"), 8_000, 48_000) or 48_000,
            max_average_bitrate=whole_number(values.get("maxaveragebitrate"), 6_000, 510_000),
            use_inband_fec=values.get("useinbandfec") == "1",
            use_dtx=values.get("usedtx") == "1",
            cbr=values.get("cbr") == "1",
            stereo=values.get("stereo") == "1",
        )


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """A codec with all that goes with it in one stream."""

    codec: AudioCodec
    payload_type: int
    telephone_event: int | None = None
    telephone_event_hz: int = 8_000
    comfort_noise: int | None = None
    opus: OpusFormat | None = None

    def numbers(self) -> tuple[int, ...]:
        """The payload types, the codec's first."""
        numbers = (self.payload_type, self.comfort_noise, self.telephone_event)
        return tuple(number for number in numbers if number is not None)

    def formats(self) -> tuple[str, ...]:
        """The payload types as the m= line lists them."""
        return tuple(map(str, self.numbers()))

    def attributes(self) -> tuple[Attribute, ...]:
        """The a=rtpmap and a=fmtp lines of an answer with this format."""
        noise = self.comfort_noise
        return (
            *codec_lines(self.codec, self.payload_type),
            *(() if noise is None else (("rtpmap", f"{noise} {COMFORT_NOISE}"),)),
            *telephone_event_lines(self.telephone_event, self.telephone_event_hz),
        )


def known_codecs(names: Sequence[str]) -> tuple[AudioCodec, ...]:
    """Return the codecs of these names; raises `UsageError` for another name or none at all."""
    unknown = [name for name in names if name not in CODECS]
    if unknown or not names:
        raise UsageError(f"no codecs: {', '.join(unknown) or 'none given'}; there are {', '.join(CODECS)}")
    return tuple(CODECS[name] for name in names)


def choose_format(
    media: MediaDescription, codecs: Sequence[AudioCodec], *, ours_first: bool = False
) -> AudioFormat | None:
    """Find the common codec and what is offered beside it.

    The order of the peer decides, as RFC 3264 6.1 recommends: it knows what the far end of the call was, and a gateway
    puts the codec that it need not transcode first. ``ours_first`` lets the order of ``codecs`` decide.
    """
    offered = offered_encodings(media)
    common = [(number, _BY_ENCODING[name]) for number, name in offered if _BY_ENCODING.get(name) in codecs]
    if not common:
        return None
    if ours_first:
        common.sort(key=lambda found: codecs.index(found[1]))
    number, codec = common[0]
    event, event_hz = _telephone_event(offered, codec)
    # Opus has silence of its own (RFC 7587 3.1.3); noise on another clock than the speech has no place in time.
    noise = (number for number, name in offered if name == COMFORT_NOISE and codec.clock_hz == 8_000)
    opus = OpusFormat.parse(media.fmtp(number)) if codec.name == "opus" else None
    return AudioFormat(codec, number, event, event_hz, next(noise, None), opus)


def offered_encodings(media: MediaDescription) -> list[tuple[int, str]]:
    """Payload types in the order of the m= line with their encodings in upper case: a=rtpmap, else the static table."""
    mapped = media.encodings()
    found = []
    for text in media.formats:
        encoding = mapped.get(text) or STATIC_ENCODINGS.get(text)
        number = whole_number(text, 0, 127)
        if encoding is not None and number is not None:
            found.append((number, encoding.removesuffix("/1")))
    return found


def codec_lines(codec: AudioCodec, number: int) -> tuple[Attribute, ...]:
    """The lines that describe a codec in an offer or an answer of ours."""
    lines: tuple[Attribute, ...] = (("rtpmap", f"{number} {codec.encoding}"),)
    if codec.name == "opus":
        # No usedtx: a detector of speech is best served by packets that do not stop.
        lines += (("fmtp", f"{number} maxplaybackrate={HEARD_RATE_HZ};stereo=0;useinbandfec=1"),)
    return lines


def telephone_event_lines(number: int | None, clock_hz: int) -> tuple[Attribute, ...]:
    """The lines of telephone-event: the sixteen digits of DTMF (RFC 4733 2.4.1)."""
    if number is None:
        return ()
    return (("rtpmap", f"{number} telephone-event/{clock_hz}"), ("fmtp", f"{number} 0-15"))


def ptime_ms(media: MediaDescription) -> int:
    """Packet time that a peer wishes for, in milliseconds; what cannot be read is no wish."""
    return whole_number(media.attribute("ptime"), 1, 999) or DEFAULT_PTIME_MS


def takes_our_packets(media: MediaDescription) -> bool:
    """Whether packets of 20 ms are within a=maxptime, which unlike a=ptime is a limit (RFC 8866 6.4)."""
    return (whole_number(media.attribute("maxptime"), 1, 99_999) or DEFAULT_PTIME_MS) >= DEFAULT_PTIME_MS


def _telephone_event(offered: list[tuple[int, str]], codec: AudioCodec) -> tuple[int | None, int]:
    """Find the event type on the codec's clock (RFC 4733 2.1); digits on another clock are better than none."""
    by_encoding: dict[str, int] = {}
    for number, name in offered:
        by_encoding.setdefault(name, number)
    for clock_hz in (codec.clock_hz, *EVENT_CLOCKS_HZ):
        if (event := by_encoding.get(f"TELEPHONE-EVENT/{clock_hz}")) is not None:
            return event, clock_hz
    return None, EVENT_CLOCKS_HZ[0]
