"""Offer and answer (RFC 3264): what two descriptions have in common, and the answer that says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address

from sipbridge.audio_formats import (
    CODECS,
    COMFORT_NOISE,
    DEFAULT_PTIME_MS,
    OPUS_EVENT_TYPE,
    AudioCodec,
    AudioFormat,
    OpusFormat,
    choose_format,
    codec_lines,
    known_codecs,
    offered_encodings,
    ptime_ms,
    takes_our_packets,
    telephone_event_lines,
)
from sipbridge.description import (
    Attribute,
    Connection,
    Direction,
    MediaDescription,
    Origin,
    SessionDescription,
)
from sipbridge.errors import NotAcceptable, UsageError
from sipbridge.rtcp_terms import NO_BANDWIDTH, RtcpTerms, rtcp_terms
from sipbridge.sdes import MasterKeys, SrtpKeys, SrtpPolicy, accept, agreed, usable

USERNAME = "-"
PLAIN_PROFILES = ("RTP/AVP", "RTP/AVPF")
"""RFC 3551, and RFC 4585, whose feedback messages nobody is obliged to send."""
SECURE_PROFILES = ("RTP/SAVP", "RTP/SAVPF")
"""RFC 3711 and RFC 5124."""

WARN_ADDRESS = 301
WARN_TRANSPORT = 302
WARN_MEDIA_TYPE = 304
WARN_FORMAT = 305
WARN_MISCELLANEOUS = 399


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on, seen from ours. ``answer`` is ours, or theirs after `accept_answer`."""

    answer: SessionDescription
    codec: str
    """"PCMU", "PCMA", "G722" or "opus"."""
    clock_hz: int
    """The RTP clock of the codec."""
    payload_type: int
    telephone_event: int | None
    """Payload type of telephone-event (RFC 4733)."""
    telephone_event_hz: int
    comfort_noise: int | None
    """Payload type of comfort noise (RFC 3389), where the peer may send it."""
    opus: OpusFormat | None
    """What the peer says about Opus, where that is the codec."""
    remote: tuple[str, int]
    send: bool
    receive: bool
    ptime_ms: int
    """The peer's wish; we send 20 ms."""
    srtp: SrtpKeys | None
    """None: plain RTP."""
    rtcp: RtcpTerms


def make_offer(
    address: str,
    port: int,
    codecs: Sequence[str],
    telephone_event: int | None = 101,
    *,
    srtp: SrtpPolicy = SrtpPolicy.OFF,
    keys: MasterKeys | None = None,
    rtcp: bool = True,
    rtcp_port: int | None = None,
) -> SessionDescription:
    """One audio stream with these codecs, in order of preference.

    `SrtpPolicy.REQUIRED` offers RTP/SAVP; `SrtpPolicy.OPTIONAL` offers keys under RTP/AVP, which a peer that knows
    nothing of them ignores (RFC 8643 3.1). Both take ``keys``. Without ``rtcp`` no bandwidth is left for it (RFC 3556).
    ``rtcp_port``: ours where it is not the one above ``port`` (RFC 3605).
    """
    known = known_codecs(codecs)
    events = [] if telephone_event is None else [(telephone_event, 8_000)]
    if telephone_event is not None and CODECS["opus"] in known:
        # Digits share the clock of the speech that they interrupt (RFC 4733 2.1), so each clock has its own type.
        events = [(OPUS_EVENT_TYPE, 48_000), *([] if known == (CODECS["opus"],) else events)]
    crypto = () if srtp is SrtpPolicy.OFF else _needed(keys).lines()
    media = MediaDescription(
        "audio",
        port,
        SECURE_PROFILES[0] if srtp is SrtpPolicy.REQUIRED else PLAIN_PROFILES[0],
        tuple(str(codec.payload_type) for codec in known) + tuple(str(number) for number, _ in events),
        attributes=(
            *(line for codec in known for line in codec_lines(codec, codec.payload_type)),
            *(line for number, clock_hz in events for line in telephone_event_lines(number, clock_hz)),
            ("ptime", str(DEFAULT_PTIME_MS)),
            *crypto,
            *_rtcp_port_line(port, rtcp_port),
            *((("rtcp-mux", None),) if rtcp else ()),
            ("sendrecv", None),
        ),
        other=() if rtcp else NO_BANDWIDTH,
    )
    connection = _connection(address)
    return SessionDescription(
        Origin(USERNAME, _session_id(address, port), 1, connection.address_type, address),
        (media,),
        connection=connection,
    )


def negotiate(
    offer: SessionDescription,
    *,
    address: str,
    port: int,
    codecs: Sequence[str] = ("PCMU", "PCMA"),
    ours_first: bool = False,
    srtp: SrtpPolicy = SrtpPolicy.OFF,
    keys: MasterKeys | None = None,
    previous: Negotiated | None = None,
    rtcp_port: int | None = None,
) -> Negotiated:
    """Answer an offer: the first audio stream that fits, every other stream refused (RFC 3264 6).

    ``address``: ours, of the offer's family. ``codecs``: those that we take; the peer's order decides, with
    ``ours_first`` ours. ``keys``: fresh ones, for every policy but off. ``previous``: what the session has agreed on so
    far, so that a repeated offer does not key the stream anew, and none makes an encrypted one plain. Raises
    `NotAcceptable` when nothing fits.
    """
    known = known_codecs(codecs)

    def judge(media: MediaDescription) -> _Terms:
        terms = _Terms.of(offer, media, codecs=known, ours_first=ours_first, address=address, srtp=srtp)
        _stays_encrypted(previous, encrypted=terms.encrypt)
        return terms

    index, terms = _first_stream(offer, judge)
    media = offer.media[index]
    crypto: tuple[Attribute, ...] = ()
    agreed_keys = None
    if terms.encrypt:
        accepted = accept(media, _needed(keys), previous.srtp if previous else None)
        if accepted is not None:
            crypto, agreed_keys = (accepted[0].line(),), accepted[1]
    theirs = offer.direction_of(media)
    send = theirs.receives and not terms.held
    receive = theirs.sends
    ours = MediaDescription(
        "audio",
        port,
        media.protocol,
        terms.audio.formats(),
        attributes=(
            *terms.audio.attributes(),
            ("ptime", str(DEFAULT_PTIME_MS)),
            *crypto,
            *_rtcp_port_line(port, None if terms.rtcp.mux else rtcp_port),
            *terms.rtcp.attributes(),
            (Direction.of(sends=send, receives=receive).value, None),
        ),
        other=terms.rtcp.bandwidths(),
    )
    connection = _connection(address)
    answer = SessionDescription(
        Origin(USERNAME, _session_id(address, port), 1, connection.address_type, address),
        tuple(ours if at == index else _refused(other) for at, other in enumerate(offer.media)),
        connection=connection,
        times=offer.times or (("t", "0 0"),),
    )
    return _negotiated(answer, media, terms, send=send, receive=receive, srtp=agreed_keys)


def accept_answer(
    offer: SessionDescription, answer: SessionDescription, previous: Negotiated | None = None
) -> Negotiated:
    """Read what an answer to our offer agrees on (RFC 3264 7); raises `NotAcceptable` if nothing.

    ``previous``: what the session has agreed on so far; what was encrypted stays so.
    """
    if len(answer.media) != len(offer.media):
        raise NotAcceptable(
            "the answer has another number of streams than the offer", warning=WARN_MEDIA_TYPE
        )
    for ours, theirs in zip(offer.media, answer.media, strict=True):
        if ours.kind != "audio" or theirs.kind != "audio" or ours.port == 0 or theirs.port == 0:
            continue
        srtp = agreed(ours, theirs)
        secure = ours.protocol.upper() in SECURE_PROFILES
        if theirs.protocol.upper() != ours.protocol.upper() or (secure and srtp is None):
            raise NotAcceptable(
                "the answer accepts none of our SRTP keys" if secure else "the answer has another transport",
                warning=WARN_TRANSPORT,
            )
        _stays_encrypted(previous, encrypted=srtp is not None)
        terms = _Terms.answered(ours, answer, theirs)
        direction, our = answer.direction_of(theirs), offer.direction_of(ours)
        send = direction.receives and our.sends and not terms.held
        return _negotiated(
            answer, theirs, terms, send=send, receive=direction.sends and our.receives, srtp=srtp
        )
    raise NotAcceptable("the answer accepts no audio stream", warning=WARN_MEDIA_TYPE)


def remote_host(offer: SessionDescription) -> str | None:
    """Return where the first audio stream of an offer is received, so that a local address can be chosen for it."""
    for media in offer.media:
        if media.kind == "audio" and media.port:
            try:
                return _remote(offer, media)[0][0]
            except NotAcceptable:
                continue
    return None


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


@dataclass(frozen=True, slots=True)
class _Terms:
    """What one stream of the peer comes to."""

    audio: AudioFormat
    remote: tuple[str, int]
    held: bool
    encrypt: bool
    rtcp: RtcpTerms

    @classmethod
    def of(
        cls,
        offer: SessionDescription,
        media: MediaDescription,
        *,
        codecs: tuple[AudioCodec, ...],
        ours_first: bool,
        address: str,
        srtp: SrtpPolicy,
    ) -> _Terms:
        """Judge an offered stream; raises `NotAcceptable`."""
        encrypt = _encrypts(media, srtp)
        audio = choose_format(media, codecs, ours_first=ours_first)
        if audio is None:
            raise NotAcceptable("no codec in common", warning=WARN_FORMAT)
        if not takes_our_packets(media):
            raise NotAcceptable(f"packets of {DEFAULT_PTIME_MS} ms are too long", warning=WARN_MISCELLANEOUS)
        remote, held = _remote(offer, media)
        if ip_address(remote[0]).version != ip_address(address).version:
            raise NotAcceptable("the c= line has an address of another family", warning=WARN_ADDRESS)
        return cls(audio, remote, held, encrypt, rtcp_terms(offer, media, remote, audio.numbers()))

    @classmethod
    def answered(cls, ours: MediaDescription, answer: SessionDescription, media: MediaDescription) -> _Terms:
        """Read the answer to a stream of ours; raises `NotAcceptable`."""
        offered = dict(offered_encodings(ours))
        codecs = [codec for codec in CODECS.values() if codec.encoding.upper() in offered.values()]
        audio = choose_format(media, codecs)
        if audio is None:
            raise NotAcceptable("no codec in common", warning=WARN_FORMAT)
        if f"TELEPHONE-EVENT/{audio.telephone_event_hz}" not in offered.values():
            audio = replace(audio, telephone_event=None, telephone_event_hz=8_000)
        if COMFORT_NOISE not in offered.values():
            audio = replace(audio, comfort_noise=None)
        remote, held = _remote(answer, media)
        rtcp = rtcp_terms(
            answer,
            media,
            remote,
            audio.numbers(),
            mux=ours.has("rtcp-mux"),
            reduced_size=ours.has("rtcp-rsize"),
        )
        return cls(audio, remote, held, False, rtcp)


def _first_stream(
    offer: SessionDescription, judge: Callable[[MediaDescription], _Terms]
) -> tuple[int, _Terms]:
    """Find the first audio stream that can be answered; raises what stood in the way of the last."""
    refusal = NotAcceptable("no audio stream offered", warning=WARN_MEDIA_TYPE)
    for index, media in enumerate(offer.media):
        if media.kind == "audio" and media.port:
            try:
                return index, judge(media)
            except NotAcceptable as error:
                refusal = error
    raise refusal


def _encrypts(media: MediaDescription, policy: SrtpPolicy) -> bool:
    """Whether a stream is encrypted; raises `NotAcceptable` where profile, keys and policy do not go together."""
    profile = media.protocol.upper()
    secure = profile in SECURE_PROFILES
    if not secure and profile not in PLAIN_PROFILES:
        raise NotAcceptable("no audio over RTP/AVP or RTP/SAVP offered", warning=WARN_TRANSPORT)
    if policy is SrtpPolicy.OFF:
        if secure:
            raise NotAcceptable("SRTP is switched off here", warning=WARN_TRANSPORT)
        return False
    keyed = bool(usable(media))
    if not keyed and (secure or policy is SrtpPolicy.REQUIRED):
        raise NotAcceptable("no SRTP key that can be used", warning=WARN_TRANSPORT)
    return keyed


def _stays_encrypted(previous: Negotiated | None, *, encrypted: bool) -> None:
    """Refuse to go plain in the middle of a session: whoever could ask for it could listen from then on."""
    if previous is not None and previous.srtp is not None and not encrypted:
        raise NotAcceptable("the session is encrypted and stays so", warning=WARN_TRANSPORT)


def _negotiated(
    answer: SessionDescription,
    media: MediaDescription,
    terms: _Terms,
    *,
    send: bool,
    receive: bool,
    srtp: SrtpKeys | None,
) -> Negotiated:
    audio = terms.audio
    return Negotiated(
        answer=answer,
        codec=audio.codec.name,
        clock_hz=audio.codec.clock_hz,
        payload_type=audio.payload_type,
        telephone_event=audio.telephone_event,
        telephone_event_hz=audio.telephone_event_hz,
        comfort_noise=audio.comfort_noise,
        opus=audio.opus,
        remote=terms.remote,
        send=send,
        receive=receive,
        ptime_ms=ptime_ms(media),
        srtp=srtp,
        rtcp=terms.rtcp,
    )


def _needed(keys: MasterKeys | None) -> MasterKeys:
    if keys is None:
        raise UsageError("SRTP needs keys")
    return keys


def _remote(description: SessionDescription, media: MediaDescription) -> tuple[tuple[str, int], bool]:
    """Where the other side receives, and whether the unspecified address says "do not send" (RFC 3264 8.4)."""
    connection = description.connection_of(media)
    if connection is None:
        raise NotAcceptable("no c= line for the audio stream", warning=WARN_ADDRESS)
    try:
        address = ip_address(connection.address)
    except ValueError as error:
        raise NotAcceptable("the c= line has no unicast IP address", warning=WARN_ADDRESS) from error
    if connection.address_type.upper() != f"IP{address.version}":
        raise NotAcceptable("the c= line has an address of another family than it says", warning=WARN_ADDRESS)
    if address.is_multicast:
        raise NotAcceptable("the c= line has a multicast address", warning=WARN_ADDRESS)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise NotAcceptable("the c= line has an address with a zone", warning=WARN_ADDRESS)
    return (str(address), media.port), address.is_unspecified


def _refused(media: MediaDescription) -> MediaDescription:
    """Refuse: a stream that is not wanted keeps its place with port 0 (RFC 3264 6)."""
    return MediaDescription(media.kind, 0, media.protocol, media.formats)


def _rtcp_port_line(port: int, rtcp_port: int | None) -> tuple[Attribute, ...]:
    return () if rtcp_port is None or rtcp_port == port + 1 else (("rtcp", str(rtcp_port)),)


def _connection(address: str) -> Connection:
    return Connection(f"IP{ip_address(address).version}", address)


def _session_id(address: str, port: int) -> int:
    """Make a session id without a clock: where we receive names the session while it is open."""
    number = int(ip_address(address)) & 0xFFFF_FFFF
    return (number << 16) | port
