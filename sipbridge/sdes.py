"""SRTP keys in a session description: a=crypto (RFC 4568), with the suites of RFC 3711 and RFC 7714.

Keys are secrets: nothing here shows them in a ``repr`` or an error, and they are drawn outside (`MasterKeys.draw`).
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sipbridge.description import Attribute, MediaDescription

MASTER_BYTES = {
    "AES_CM_128_HMAC_SHA1_80": 30,
    "AEAD_AES_128_GCM": 28,
    "AES_CM_128_HMAC_SHA1_32": 30,
}
"""Suites in the order of our offers, with the length of master key and salt: 16 bytes, and 14 or (GCM) 12.

The one that RFC 4568 6.2 makes everybody have comes first; the short tag comes last.
"""
MIN_LIFETIME_PACKETS = 1 << 18
"""A key must last for 87 minutes at 50 packets a second, which is more than the longest call."""
_LIFETIME = re.compile(r"(2\^)?([0-9]{1,15})", re.ASCII)
_TAG = re.compile(r"[0-9]{1,9}", re.ASCII)


class SrtpPolicy(StrEnum):
    """Whether media are encrypted."""

    OFF = "off"
    """Plain RTP alone: keys of the peer are ignored, RTP/SAVP is refused."""
    OPTIONAL = "optional"
    """Encrypted wherever the peer gives a key, under RTP/AVP too (RFC 8643); plain otherwise."""
    REQUIRED = "required"
    """Encrypted or refused."""


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """What encrypts a stream in both directions. Keys are master key and salt in base64, as after ``inline:``."""

    suite: str
    our_inline_key: str = field(repr=False)
    """Of what we send."""
    their_inline_key: str = field(repr=False)
    """Of what they send."""


@dataclass(frozen=True, slots=True)
class MasterKeys:
    """One fresh key of ours for each suite."""

    by_suite: Mapping[str, str] = field(repr=False)

    @classmethod
    def draw(cls, random_bytes: Callable[[int], bytes]) -> MasterKeys:
        """Take keys from a source of unguessable bytes, such as ``secrets.token_bytes``."""
        return cls(
            {suite: b64encode(random_bytes(length)).decode() for suite, length in MASTER_BYTES.items()}
        )

    def lines(self) -> tuple[Attribute, ...]:
        """The a=crypto lines of an offer, tags from 1."""
        return tuple(
            Crypto(str(tag), suite, key).line()
            for tag, (suite, key) in enumerate(self.by_suite.items(), start=1)
        )


@dataclass(frozen=True, slots=True)
class Crypto:
    """An a=crypto line that we can use: one key, no MKI, nothing switched off."""

    tag: str
    suite: str
    inline_key: str = field(repr=False)

    @classmethod
    def parse(cls, value: str) -> Crypto | None:
        """Read the value of a line; None where it is malformed or asks for what we do not have (RFC 4568 5.1.2)."""
        words = value.split()
        if len(words) < 3 or not _TAG.fullmatch(words[0]):
            return None
        suite = words[1].upper()
        key = _inline_key(words[2], MASTER_BYTES.get(suite, 0))
        if key is None or not all(map(_harmless, words[3:])):
            return None
        return cls(words[0], suite, key)

    def line(self) -> Attribute:
        """The attribute as it is written."""
        return ("crypto", f"{self.tag} {self.suite} inline:{self.inline_key}")


def usable(media: MediaDescription) -> dict[str, Crypto]:
    """The a=crypto lines that we can use by tag, the peer's most preferred first; a tag stands for its first line."""
    found: dict[str, Crypto | None] = {}
    for name, value in media.attributes:
        if name == "crypto":
            crypto = Crypto.parse(value or "")
            tag = (value or "").split(" ", 1)[0]
            found.setdefault(tag, crypto)
    return {tag: crypto for tag, crypto in found.items() if crypto is not None}


def accept(
    media: MediaDescription, keys: MasterKeys, previous: SrtpKeys | None = None
) -> tuple[Crypto, SrtpKeys] | None:
    """Choose the first line that we can use; returns our line with the same tag, and the keys of both (RFC 4568 5.1.2).

    ``previous``: what the stream has used so far. A peer that repeats its key in a new offer gets ours again, and
    nothing is keyed anew; with a new key of theirs comes a new one of ours.
    """
    theirs = next(iter(usable(media).values()), None)
    if theirs is None:
        return None
    ours = keys.by_suite[theirs.suite]
    if previous is not None and (previous.suite, previous.their_inline_key) == (
        theirs.suite,
        theirs.inline_key,
    ):
        ours = previous.our_inline_key
    return Crypto(theirs.tag, theirs.suite, ours), SrtpKeys(theirs.suite, ours, theirs.inline_key)


def agreed(offer: MediaDescription, answer: MediaDescription) -> SrtpKeys | None:
    """Read which of our lines an answer accepts: one line with a tag and the suite of ours (RFC 4568 5.1.3)."""
    theirs = list(usable(answer).values())
    ours = usable(offer).get(theirs[0].tag) if len(theirs) == 1 else None
    if ours is None or ours.suite != theirs[0].suite:
        return None
    return SrtpKeys(ours.suite, ours.inline_key, theirs[0].inline_key)


def _inline_key(parameter: str, length: int) -> str | None:
    """Read ``inline:key[|lifetime]``. An MKI, or several keys, which need one, would be in every packet: not ours."""
    method, colon, info = parameter.partition(":")
    text, *rest = info.split("|")
    if method.lower() != "inline" or not colon or len(rest) > 1 or not all(map(_long_enough, rest)):
        return None
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError):
        return None
    return b64encode(key).decode() if length and len(key) == length else None


def _long_enough(lifetime: str) -> bool:
    found = _LIFETIME.fullmatch(lifetime)
    if found is None:
        return False
    number = int(found[2])
    return number >= MIN_LIFETIME_PACKETS.bit_length() - 1 if found[1] else number >= MIN_LIFETIME_PACKETS


def _harmless(parameter: str) -> bool:
    """Whether a session parameter changes nothing for us: a window hint, or one that may be ignored (RFC 4568 6.3)."""
    return parameter.upper().startswith("WSH=") or parameter.startswith("-")
