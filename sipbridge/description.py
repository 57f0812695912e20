"""A session description as a value (RFC 8866): ``parse`` reads it, ``str`` writes it, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from sipbridge.errors import SdpError

MAX_BYTES = 16_384
MAX_MEDIA = 32
MAX_LINES = 512

Attribute = tuple[str, str | None]
SECRET_ATTRIBUTES = frozenset({"crypto", "key-mgmt"})
"""Attributes with keys in them (RFC 4568, RFC 4567): written to the peer, never into a log."""


class Direction(StrEnum):
    """Which way media flows, seen from the side that says it (RFC 3264 5.1)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        """Whether the side that says it sends."""
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        """Whether the side that says it receives."""
        return self in (Direction.SENDRECV, Direction.RECVONLY)

    @classmethod
    def of(cls, *, sends: bool, receives: bool) -> Direction:
        """Return the direction with these two halves."""
        if sends:
            return cls.SENDRECV if receives else cls.SENDONLY
        return cls.RECVONLY if receives else cls.INACTIVE


@dataclass(frozen=True, slots=True)
class Origin:
    """The o= line: which session and which version of it."""

    username: str
    session_id: int
    version: int
    address_type: str
    address: str

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read the value of an o= line."""
        words = text.split()
        if len(words) != 6 or words[3] != "IN":
            raise SdpError(f"malformed o= line: {text!r}")
        return cls(words[0], _number(words[1], "o="), _number(words[2], "o="), words[4], words[5])

    def __str__(self) -> str:
        return f"{self.username} {self.session_id} {self.version} IN {self.address_type} {self.address}"


@dataclass(frozen=True, slots=True)
class Connection:
    """A c= line."""

    address_type: str
    address: str

    @classmethod
    def parse(cls, text: str) -> Connection:
        """Read the value of a c= line."""
        words = text.split()
        if len(words) != 3 or words[0] != "IN":
            raise SdpError(f"malformed c= line: {text!r}")
        return cls(words[1], words[2])

    def __str__(self) -> str:
        return f"IN {self.address_type} {self.address}"


@dataclass(frozen=True, slots=True, repr=False)
class MediaDescription:
    """One m= section."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    connection: Connection | None = None
    attributes: tuple[Attribute, ...] = ()
    port_count: int | None = None
    other: tuple[tuple[str, str], ...] = ()
    """i=, b= and k= lines as they were."""

    @classmethod
    def parse(cls, text: str) -> MediaDescription:
        """Read the value of an m= line."""
        words = text.split()
        if len(words) < 4:
            raise SdpError(f"malformed m= line: {text!r}")
        port, slash, count = words[1].partition("/")
        number = _number(port, "m=")
        if number > 65_535:
            raise SdpError(f"port out of range in m= line: {text!r}")
        return cls(
            words[0], number, words[2], tuple(words[3:]), port_count=_number(count, "m=") if slash else None
        )

    def attribute(self, name: str) -> str | None:
        """Return the first value of an attribute, empty where it is a flag."""
        return next((value or "" for key, value in self.attributes if key == name), None)

    @property
    def direction(self) -> Direction | None:
        """The media-level direction where one is stated."""
        return _direction(self.attributes)

    def has(self, name: str) -> bool:
        """Whether an attribute is there, with or without a value."""
        return any(key == name for key, _ in self.attributes)

    def fmtp(self, payload_type: int) -> str:
        """Format parameters of a payload type, empty where there are none."""
        for key, value in self.attributes:
            number, _, parameters = (value or "").strip().partition(" ")
            if key == "fmtp" and number == str(payload_type):
                return parameters
        return ""

    def encodings(self) -> dict[str, str]:
        """Payload type to ``name/rate`` as a=rtpmap says, names upper case."""
        found = {}
        for key, value in self.attributes:
            if key == "rtpmap" and value:
                payload_type, _, encoding = value.strip().partition(" ")
                found[payload_type] = encoding.strip().upper()
        return found

    def lines(self) -> Iterable[str]:
        """Yield the section as it is written, in the order of RFC 8866 5."""
        count = "" if self.port_count is None else f"/{self.port_count}"
        yield f"m={self.kind} {self.port}{count} {self.protocol} {' '.join(self.formats)}"
        yield from (f"{letter}={value}" for letter, value in self.other if letter == "i")
        if self.connection is not None:
            yield f"c={self.connection}"
        yield from (f"{letter}={value}" for letter, value in self.other if letter != "i")
        yield from map(_attribute_line, self.attributes)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' | '.join(map(_without_keys, self.lines()))}>"


@dataclass(frozen=True, slots=True, repr=False)
class SessionDescription:
    """A whole description."""

    origin: Origin
    media: tuple[MediaDescription, ...] = ()
    name: str = "-"
    connection: Connection | None = None
    attributes: tuple[Attribute, ...] = ()
    times: tuple[tuple[str, str], ...] = (("t", "0 0"),)
    """t= and r= lines, in order."""
    other: tuple[tuple[str, str], ...] = ()
    """i=, u=, e=, p=, b=, z= and k= lines as they were."""

    @classmethod
    def parse(cls, data: bytes | str) -> SessionDescription:
        """Read a description; raises `SdpError`."""
        return _read(_lines(data))

    @property
    def direction(self) -> Direction | None:
        """The session-level direction where one is stated."""
        return _direction(self.attributes)

    def connection_of(self, media: MediaDescription) -> Connection | None:
        """Where a stream is received: its own c= line or the session's."""
        return media.connection or self.connection

    def direction_of(self, media: MediaDescription) -> Direction:
        """Return a stream's direction: its own, the session's, or sendrecv (RFC 3264 5.1)."""
        return media.direction or self.direction or Direction.SENDRECV

    def bandwidth_of(self, media: MediaDescription, kind: str) -> int | None:
        """A b= line's number for a stream: its own, the session's, or None (RFC 8866 5.8)."""
        for letter, value in (*media.other, *self.other):
            name, _, number = value.partition(":")
            if letter == "b" and name == kind:
                return whole_number(number, 0, 10**9)
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' | '.join(map(_without_keys, str(self).splitlines()))}>"

    def __str__(self) -> str:
        lines = ["v=0", f"o={self.origin}", f"s={self.name}"]
        lines += [f"{letter}={value}" for letter, value in self.other if letter in "iuep"]
        if self.connection is not None:
            lines.append(f"c={self.connection}")
        lines += [f"{letter}={value}" for letter, value in self.other if letter == "b"]
        lines += [f"{letter}={value}" for letter, value in self.times]
        lines += [f"{letter}={value}" for letter, value in self.other if letter in "zk"]
        lines += map(_attribute_line, self.attributes)
        for media in self.media:
            lines += media.lines()
        return "\r\n".join(lines) + "\r\n"


def _attribute_line(attribute: Attribute) -> str:
    name, value = attribute
    return f"a={name}" if value is None else f"a={name}:{value}"


def _direction(attributes: tuple[Attribute, ...]) -> Direction | None:
    return next((Direction(name) for name, _ in attributes if name in set(Direction)), None)


def whole_number(text: str | None, low: int, high: int) -> int | None:
    """Read a number of an optional attribute; None where there is none or it is out of range."""
    text = (text or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    return int(text) if low <= int(text) <= high else None


def _without_keys(line: str) -> str:
    """Return a line as it may be shown: k= and the attributes with keys lose their value."""
    name = line[2:].partition(":")[0]
    if line.startswith("k=") or (line.startswith("a=") and name.lower() in SECRET_ATTRIBUTES):
        return f"{line[:2]}{name if line[0] == 'a' else ''}..."
    return line


def _number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise SdpError(f"{text!r} in {where} is not a number")
    return int(text)


def _lines(data: bytes | str) -> list[tuple[str, str]]:
    """Split into (letter, value). A bare LF ends a line too: RFC 8866 5 asks parsers to take it."""
    if len(data) > MAX_BYTES:
        raise SdpError(f"longer than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise SdpError("not UTF-8") from error
    found: list[tuple[str, str]] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line:
            continue
        letter, equals, value = line.partition("=")
        if not equals or len(letter) != 1 or not letter.isalpha() or "\r" in value or "\0" in value:
            # Not the line itself: it may be a damaged a=crypto, and errors reach logs.
            raise SdpError(f"line {len(found) + 1} is not an SDP line")
        found.append((letter, value))
    if len(found) > MAX_LINES:
        raise SdpError(f"more than {MAX_LINES} lines")
    return found


def _read(lines: list[tuple[str, str]]) -> SessionDescription:
    if not lines or lines[0] != ("v", "0"):
        raise SdpError("does not begin with v=0")
    first_media = next((index for index, (letter, _) in enumerate(lines) if letter == "m"), len(lines))
    session = lines[1:first_media]
    origins = [value for letter, value in session if letter == "o"]
    if len(origins) != 1:
        raise SdpError("must have one o= line")
    connections = [value for letter, value in session if letter == "c"]
    return SessionDescription(
        origin=Origin.parse(origins[0]),
        media=tuple(_read_media(lines[first_media:])),
        name=next((value for letter, value in session if letter == "s"), "-"),
        connection=Connection.parse(connections[0]) if connections else None,
        attributes=_attributes(session),
        times=tuple(line for line in session if line[0] in "tr"),
        other=_sorted_other(session, "iuepbzk"),
    )


def _read_media(lines: list[tuple[str, str]]) -> Iterable[MediaDescription]:
    starts = [index for index, (letter, _) in enumerate(lines) if letter == "m"]
    if len(starts) > MAX_MEDIA:
        raise SdpError(f"more than {MAX_MEDIA} m= lines")
    for start, end in pairwise([*starts, len(lines)]):
        media = MediaDescription.parse(lines[start][1])
        section = lines[start + 1 : end]
        connections = [value for letter, value in section if letter == "c"]
        yield MediaDescription(
            media.kind,
            media.port,
            media.protocol,
            media.formats,
            connection=Connection.parse(connections[0]) if connections else None,
            attributes=_attributes(section),
            port_count=media.port_count,
            other=_sorted_other(section, "ibk"),
        )


def _attributes(section: list[tuple[str, str]]) -> tuple[Attribute, ...]:
    found: list[Attribute] = []
    for letter, value in section:
        if letter == "a":
            name, colon, rest = value.partition(":")
            found.append((name, rest if colon else None))
    return tuple(found)


def _sorted_other(section: list[tuple[str, str]], order: str) -> tuple[tuple[str, str], ...]:
    """Lines of these letters in the order in which they are written, so that a round trip is the identity."""
    return tuple(
        sorted((line for line in section if line[0] in order), key=lambda line: order.index(line[0]))
    )
