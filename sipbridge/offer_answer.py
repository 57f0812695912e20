"""Offer and answer (RFC 3264): what two descriptions have in common, and the answer that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from sipbridge.description import (
    RTP_AVP,
    Attribute,
    Connection,
    Direction,
    MediaDescription,
    Origin,
    SessionDescription,
)
from sipbridge.errors import NotAcceptable

STATIC_ENCODINGS = {"0": "PCMU/8000", "8": "PCMA/8000"}
"""Payload types that need no a=rtpmap (RFC 3551 6), of the codecs that the engine has."""
STATIC_TYPES = {"PCMU": 0, "PCMA": 8}
TELEPHONE_EVENT = "TELEPHONE-EVENT/8000"
DEFAULT_PTIME_MS = 20
USERNAME = "-"

WARN_ADDRESS = 301
WARN_TRANSPORT = 302
WARN_MEDIA_TYPE = 304
WARN_FORMAT = 305


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on, seen from ours. ``answer`` is ours, or theirs after `accept_answer`."""

    answer: SessionDescription
    codec: str
    payload_type: int
    telephone_event: int | None
    remote: tuple[str, int]
    send: bool
    receive: bool
    ptime_ms: int


def make_offer(
    address: str, port: int, codecs: Sequence[str], telephone_event: int | None = 101
) -> SessionDescription:
    """One audio stream with these codecs, in order of preference."""
    types = [(STATIC_TYPES[codec], codec) for codec in codecs]
    media = MediaDescription(
        "audio",
        port,
        RTP_AVP,
        tuple(str(number) for number, _ in types) + _optional(telephone_event),
        attributes=(
            *((("rtpmap", f"{number} {codec}/8000")) for number, codec in types),
            *_telephone_event_lines(telephone_event),
            ("ptime", str(DEFAULT_PTIME_MS)),
            ("sendrecv", None),
        ),
    )
    connection = _connection(address)
    return SessionDescription(
        Origin(USERNAME, _session_id(address, port), 1, connection.address_type, address),
        (media,),
        connection=connection,
    )


def negotiate(
    offer: SessionDescription, *, address: str, port: int, codecs: Sequence[str] = ("PCMU", "PCMA")
) -> Negotiated:
    """Answer an offer: the first audio stream with a common codec, every other stream refused (RFC 3264 6).

    Raises `NotAcceptable` when there is none.
    """
    index = _usable_stream(offer, codecs)
    media = offer.media[index]
    number, codec = _first_codec(media, codecs)
    event = _telephone_event(media)
    remote, held = _remote(offer, media)
    theirs = offer.direction_of(media)
    send = theirs.receives and not held
    receive = theirs.sends
    attributes: tuple[Attribute, ...] = (
        ("rtpmap", f"{number} {codec}/8000"),
        *_telephone_event_lines(event),
        ("ptime", str(DEFAULT_PTIME_MS)),
        (Direction.of(sends=send, receives=receive).value, None),
    )
    accepted = MediaDescription(
        "audio", port, media.protocol, (str(number), *_optional(event)), attributes=attributes
    )
    connection = _connection(address)
    answer = SessionDescription(
        Origin(USERNAME, _session_id(address, port), 1, connection.address_type, address),
        tuple(accepted if at == index else _refused(other) for at, other in enumerate(offer.media)),
        connection=connection,
        times=offer.times or (("t", "0 0"),),
    )
    return Negotiated(answer, codec, number, event, remote, send, receive, _ptime_ms(media))


def accept_answer(offer: SessionDescription, answer: SessionDescription) -> Negotiated:
    """Read what an answer to our offer agrees on (RFC 3264 7); raises `NotAcceptable` if nothing."""
    if len(answer.media) != len(offer.media):
        raise NotAcceptable(
            "the answer has another number of streams than the offer", warning=WARN_MEDIA_TYPE
        )
    offered = {name for media in offer.media for name in (_codec_of(media, f) for f in media.formats) if name}
    for ours, theirs in zip(offer.media, answer.media, strict=True):
        if ours.kind != "audio" or theirs.kind != "audio" or ours.port == 0 or theirs.port == 0:
            continue
        number, codec = _first_codec(theirs, tuple(offered))
        remote, held = _remote(answer, theirs)
        direction = answer.direction_of(theirs)
        our = offer.direction_of(ours)
        event = _telephone_event(theirs) if _telephone_event(ours) is not None else None
        return Negotiated(
            answer,
            codec,
            number,
            event,
            remote,
            send=direction.receives and our.sends and not held,
            receive=direction.sends and our.receives,
            ptime_ms=_ptime_ms(theirs),
        )
    raise NotAcceptable("the answer accepts no audio stream", warning=WARN_MEDIA_TYPE)


def succeed(previous: SessionDescription, description: SessionDescription) -> SessionDescription:
    """Make a description the next one of its session: same o= line, one version up if it says something new.

    RFC 3264 8: the origin identifies the session through the whole dialog.
    """
    same = replace(description, origin=previous.origin)
    if same == previous:
        return same
    return replace(same, origin=replace(previous.origin, version=previous.origin.version + 1))


def refusal_warning(offer: SessionDescription | None) -> int:
    """Return the Warning code that explains a 488: no audio, or none that we speak (RFC 3261 20.43)."""
    if offer is not None and not any(media.kind == "audio" and media.port for media in offer.media):
        return WARN_MEDIA_TYPE
    return WARN_FORMAT


def _usable_stream(offer: SessionDescription, codecs: Sequence[str]) -> int:
    audio = [
        (index, media) for index, media in enumerate(offer.media) if media.kind == "audio" and media.port
    ]
    if not audio:
        raise NotAcceptable("no audio stream offered", warning=WARN_MEDIA_TYPE)
    plain = [(index, media) for index, media in audio if media.protocol.upper() == RTP_AVP]
    if not plain:
        raise NotAcceptable(f"no audio over {RTP_AVP} offered", warning=WARN_TRANSPORT)
    for index, media in plain:
        if any(_codec_of(media, number) in codecs for number in media.formats):
            return index
    raise NotAcceptable("no codec in common", warning=WARN_FORMAT)


def _codec_of(media: MediaDescription, number: str) -> str | None:
    """Find the codec behind a payload type: a=rtpmap first, then the static table."""
    encoding = media.encodings().get(number) or STATIC_ENCODINGS.get(number)
    if encoding is None:
        return None
    name, _, rate = encoding.partition("/")
    return name if name in STATIC_TYPES and rate in ("8000", "8000/1") else None


def _first_codec(media: MediaDescription, codecs: Sequence[str]) -> tuple[int, str]:
    """Find the first common codec in the other side's order of preference (RFC 3264 6.1)."""
    for number in media.formats:
        codec = _codec_of(media, number)
        if codec in codecs and codec is not None and _payload_type(number) is not None:
            return int(number), codec
    raise NotAcceptable("no codec in common", warning=WARN_FORMAT)


def _payload_type(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 3 and int(text) < 128 else None


def _telephone_event(media: MediaDescription) -> int | None:
    encodings = media.encodings()
    for number in media.formats:
        if encodings.get(number) == TELEPHONE_EVENT:
            return _payload_type(number)
    return None


def _remote(description: SessionDescription, media: MediaDescription) -> tuple[tuple[str, int], bool]:
    """Where the other side receives, and whether 0.0.0.0 says "do not send" (RFC 3264 8.4)."""
    connection = description.connection_of(media)
    if connection is None:
        raise NotAcceptable("no c= line for the audio stream", warning=WARN_ADDRESS)
    try:
        address = ip_address(connection.address)
    except ValueError as error:
        raise NotAcceptable("the c= line has no unicast IP address", warning=WARN_ADDRESS) from error
    if address.is_multicast:
        raise NotAcceptable("the c= line has a multicast address", warning=WARN_ADDRESS)
    return (str(address), media.port), address.is_unspecified


def _ptime_ms(media: MediaDescription) -> int:
    text = (media.attribute("ptime") or "").strip()
    return int(text) if text.isascii() and text.isdigit() and 1 <= len(text) <= 3 else DEFAULT_PTIME_MS


def _refused(media: MediaDescription) -> MediaDescription:
    """Refuse: a stream that is not wanted keeps its place with port 0 (RFC 3264 6)."""
    return MediaDescription(media.kind, 0, media.protocol, media.formats)


def _telephone_event_lines(number: int | None) -> tuple[Attribute, ...]:
    if number is None:
        return ()
    return (("rtpmap", f"{number} telephone-event/8000"), ("fmtp", f"{number} 0-15"))


def _optional(number: int | None) -> tuple[str, ...]:
    return () if number is None else (str(number),)


def _connection(address: str) -> Connection:
    return Connection("IP6" if ":" in address else "IP4", address)


def _session_id(address: str, port: int) -> int:
    """Make a session id without a clock: where we receive names the session while it is open."""
    number = int(ip_address(address)) & 0xFFFF_FFFF
    return (number << 16) | port
