"""Site keys: what a web page names so that its visitors reach its tenant over WebRTC. Sans-IO.

``site_`` and 32 characters of base32 (RFC 4648 6, lower case): 16 random bytes and their CRC-32. A key is no secret, it
stands in the page; it is random so that nobody finds other tenants' keys by counting, and the checksum names a mistyped
or cut-off key at once: every change of up to three neighbouring characters is found, any other but for one in 2**32.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

PREFIX: Final = "site_"
RANDOM_BYTES: Final = 16
_CHARACTERS: Final = 32
_WRONG_CHARACTER: Final = re.compile(r"[^a-z2-7]")
MAX_ORIGIN_CHARACTERS: Final = 300
MAX_ORIGINS: Final = 100
_DEFAULT_PORTS: Final = (("http", 80), ("https", 443))
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\]")


class KeyFault(StrEnum):
    """What is wrong with a text that should be a site key."""

    PREFIX = f"it does not begin with {PREFIX}"
    LENGTH = f"it is not {len(PREFIX) + _CHARACTERS} characters long"
    CHARACTER = "it has a character other than a to z and 2 to 7"
    CHECKSUM = "it is mistyped: the checksum does not fit"


class OriginFault(StrEnum):
    """Why a page may not use a key."""

    MISSING = "the request has no Origin header"
    OPAQUE = "the page has no origin (null): a file, a sandboxed frame"
    MALFORMED = "the Origin header is not scheme://host[:port]"
    NOT_LISTED = "the page's origin is not on the tenant's list"


@dataclass(frozen=True, slots=True)
class SiteKey:
    """A well-formed site key."""

    text: str

    @classmethod
    def from_random(cls, random: bytes) -> SiteKey:
        """Make a key of `RANDOM_BYTES` bytes from a cryptographic source. Raises `ValueError` for another length."""
        if len(random) != RANDOM_BYTES:
            raise ValueError(f"random: {RANDOM_BYTES} bytes, not {len(random)}")
        return cls(PREFIX + base64.b32encode(random + _checksum(random)).decode("ascii").lower())

    @classmethod
    def parse(cls, text: str) -> SiteKey | KeyFault:
        """Read a key as a page sends it; nothing is corrected."""
        if not text.startswith(PREFIX):
            return KeyFault.PREFIX
        body = text.removeprefix(PREFIX)
        if len(body) != _CHARACTERS:
            return KeyFault.LENGTH
        if _WRONG_CHARACTER.search(body):
            return KeyFault.CHARACTER
        data = base64.b32decode(body.upper())
        if data[RANDOM_BYTES:] != _checksum(data[:RANDOM_BYTES]):
            return KeyFault.CHECKSUM
        return cls(text)

    def __str__(self) -> str:
        return self.text


def _checksum(data: bytes) -> bytes:
    return binascii.crc32(data).to_bytes(4, "little")


def origin_fault(origin: str | None, allowed: Collection[str]) -> OriginFault | None:
    """Why a request with this Origin header (RFC 6454 7) may not use a key; None: it may.

    ``allowed`` has origins as a browser writes them; there are no wildcards, and an empty list allows no page. A browser
    cannot lie about its page's origin, another client can: this keeps a key from being used on other people's pages, no more.
    """
    if not origin:
        return OriginFault.MISSING
    if origin == "null":
        return OriginFault.OPAQUE
    own = normal_origin(origin)
    if own is None:
        return OriginFault.MALFORMED
    return None if any(own == normal_origin(each) for each in allowed) else OriginFault.NOT_LISTED


def normal_origin(text: str) -> str | None:
    """An origin in lower case without its scheme's default port; None where the text is none."""
    if len(text) > MAX_ORIGIN_CHARACTERS or not (text.isascii() and text.isprintable()) or " " in text:
        return None
    try:
        parts = urlsplit(text.lower())
        port = parts.port
    except ValueError:
        return None
    scheme, host = parts.scheme, parts.netloc.removesuffix(f":{port}")
    if scheme not in ("http", "https") or not _HOST.fullmatch(host):
        return None
    if text.lower() not in (f"{scheme}://{host}", f"{scheme}://{host}:{port}"):
        return None
    return (
        f"{scheme}://{host}"
        if port is None or (scheme, port) in _DEFAULT_PORTS
        else f"{scheme}://{host}:{port}"
    )


def main() -> None:
    """Print a new key."""
    sys.stdout.write(f"{SiteKey.from_random(os.urandom(RANDOM_BYTES))}\n")


if __name__ == "__main__":
    main()
