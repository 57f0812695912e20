"""API tokens as text: ``mst_ID_SECRET``. Sans-IO.

ID is 13 characters of base36, 8 random bytes: it names the token in lists and audit trails and is no secret. SECRET is 33
characters of base62, 24 random bytes (192 bits), followed by six more: the CRC-32 of everything before. So a scanner that
looks for leaked secrets recognises a token without asking anybody, and a mistyped or cut-off one is refused before anything
is hashed: every change of up to four neighbouring characters is found, any other but for one in 2**32.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from enum import StrEnum
from typing import Final, NoReturn

PREFIX: Final = "mst_"
ID_BYTES: Final = 8
SECRET_BYTES: Final = 24
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE62: Final = _BASE36 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ID_CHARACTERS: Final = 13
_SECRET_CHARACTERS: Final = 33
_CHECK_CHARACTERS: Final = 6
TOKEN_CHARACTERS: Final = len(PREFIX) + _ID_CHARACTERS + 1 + _SECRET_CHARACTERS + _CHECK_CHARACTERS
_FORM: Final = re.compile(
    rf"{PREFIX}([0-9a-z]{{{_ID_CHARACTERS}}})_[0-9A-Za-z]{{{_SECRET_CHARACTERS}}}([0-9A-Za-z]{{{_CHECK_CHARACTERS}}})"
)
PUBLIC_ID: Final = re.compile(rf"[0-9a-z]{{{_ID_CHARACTERS}}}")
"""What names a token."""
_ANY_TOKEN: Final = re.compile(
    # Also one that is cut off or longer: half a secret is one. And JSON Web Tokens (RFC 7519 3), whose header begins with {".
    rf"({PREFIX}[0-9a-z]{{{_ID_CHARACTERS}}}_)[0-9A-Za-z]+|(eyJ)[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_=.-]+"
)


class TokenFault(StrEnum):
    """What is wrong with a text that should be an API token."""

    PREFIX = f"an API token begins with {PREFIX}"
    LENGTH = f"an API token is {TOKEN_CHARACTERS} characters long: this one is cut off, or has more behind it"
    FORM = f"an API token has the form {PREFIX}ID_SECRET, of letters and digits"
    CHECKSUM = "the API token is mistyped: its checksum does not fit"


class ApiToken:
    """A well-formed token; whether anybody knows it is another question. It shows itself to nobody who does not ask by name."""

    __slots__ = ("__text", "public_id")

    def __init__(self, text: str, public_id: str) -> None:
        self.__text = text
        self.public_id: Final = public_id

    @classmethod
    def from_random(cls, random: bytes) -> ApiToken:
        """Make a token of `ID_BYTES` + `SECRET_BYTES` bytes from a cryptographic source. Raises `ValueError` for another length."""
        if len(random) != ID_BYTES + SECRET_BYTES:
            raise ValueError(f"random: {ID_BYTES + SECRET_BYTES} bytes, not {len(random)}")
        public_id = _digits(int.from_bytes(random[:ID_BYTES], "big"), _BASE36, _ID_CHARACTERS)
        secret = _digits(int.from_bytes(random[ID_BYTES:], "big"), _BASE62, _SECRET_CHARACTERS)
        body = f"{PREFIX}{public_id}_{secret}"
        return cls(body + _check(body), public_id)

    @classmethod
    def parse(cls, text: str) -> ApiToken | TokenFault:
        """Read a token as a client sends it; nothing is corrected."""
        if not text.startswith(PREFIX):
            return TokenFault.PREFIX
        if len(text) != TOKEN_CHARACTERS:
            return TokenFault.LENGTH
        form = _FORM.fullmatch(text)
        if form is None:
            return TokenFault.FORM
        if form[2] != _check(text[:-_CHECK_CHARACTERS]):
            return TokenFault.CHECKSUM
        return cls(text, form[1])

    def reveal(self) -> str:
        """The token, for its owner and for hashing."""
        return self.__text

    def digest(self) -> bytes:
        """SHA-256 of the token: what it may be remembered by while the process runs. Nobody can try 2**192 secrets against it."""
        return hashlib.sha256(self.__text.encode()).digest()

    def __repr__(self) -> str:
        return f"ApiToken({self.public_id}, …)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a token is not pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a token is not pickled")


def without_tokens(text: str) -> str:
    """The text with the secret part of whatever looks like a token taken out, of ours or a JSON Web Token."""
    return _ANY_TOKEN.sub(lambda found: f"{found[1] or found[2]}…", text)


def _digits(number: int, alphabet: str, count: int) -> str:
    digits = []
    for _ in range(count):
        number, digit = divmod(number, len(alphabet))
        digits.append(alphabet[digit])
    return "".join(reversed(digits))


def _check(body: str) -> str:
    return _digits(binascii.crc32(body.encode()), _BASE62, _CHECK_CHARACTERS)
