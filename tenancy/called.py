"""What was called, as a Request-URI or its user part writes it: the number's characters and the context. Sans-IO.

Only the writing is undone here (RFC 3261 19.1, RFC 3966): scheme, percent-escapes, visual separators, parameters. What
the characters mean on a trunk is `tenancy.numbers`. Nothing is passed over that could be part of a number: what is not
understood is refused by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote_to_bytes

MAX_URI_CHARACTERS: Final = 512
MAX_NUMBER_CHARACTERS: Final = 64
MAX_CONTEXT_CHARACTERS: Final = 255
_MAX_SHOWN = 40
_SEPARATORS: Final = re.compile(r"[-.()]")
"""RFC 3966's visual separators, which mean nothing."""
_NUMBER: Final = re.compile(r"[0-9*#]*\+?[0-9*#]+")
"""A technical prefix may stand before the plus."""
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)


class Refusal(StrEnum):
    """Why what was called can be no number of a tenant."""

    EMPTY = "empty"
    TOO_LONG = "too long"
    ESCAPE = "a percent-escape that is none"
    CHARACTERS = "characters outside printable ASCII"
    SCHEME = "a scheme other than sip, sips and tel"
    NAME = "a name, not a number"
    CONTEXT = "a phone-context that the trunk does not have"
    SHORT = "too short, and no extension of the trunk"
    LOCAL = "the area code is missing"
    NO_COUNTRY = "a national number on a trunk without a country"
    NOTATION = "a notation that the trunk does not use"
    LENGTH = "a length that no number has"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What was called cannot be a number on this trunk."""

    refusal: Refusal
    shown: str
    """What was called, escaped and shortened for a log line."""


@dataclass(frozen=True, slots=True)
class CalledText:
    """A number as it was written, without separators."""

    text: str
    """Digits, ``*`` and ``#``, and at most one plus; 1 to `MAX_NUMBER_CHARACTERS`."""
    context: str | None = None
    """RFC 3966 5.1.5: ``+`` and digits, or a domain in lower case."""


def read_uri(uri: str) -> CalledText | Unreadable:
    """Read a Request-URI; its host is of no concern here."""
    if len(uri) > MAX_URI_CHARACTERS:
        return unreadable(Refusal.TOO_LONG, uri)
    split = _SCHEME.fullmatch(uri)
    scheme = split[1].lower() if split else ""
    if split is None or scheme not in ("sip", "sips", "tel"):
        return unreadable(Refusal.SCHEME if uri else Refusal.EMPTY, uri)
    if scheme == "tel":
        return _read_escaped(split[2], uri)
    userinfo, at, _ = split[2].rpartition("@")
    if not at:
        return unreadable(Refusal.EMPTY, uri)
    # A password (RFC 3261 19.1.1) is no part of the number.
    return _read_escaped(userinfo.partition(":")[0], uri)


def read_user(user: str, context: str | None = None) -> CalledText | Unreadable:
    """Read a user part whose percent-escapes are undone; it may have RFC 3966's parameters behind it.

    ``context`` is the phone-context where a parser has already split it off. Parameters that do not say what the number
    is relative to (``ext``, ``isub``, ``tgrp``, what carriers add) change nothing: the number is the one before them.
    """
    number, *parameters = user.split(";")
    text = _SEPARATORS.sub("", number)
    refusal = _fault(user, number, text)
    if refusal is not None:
        return unreadable(refusal, user)
    contexts = {} if context is None else {context: None}
    for name, _, value in (each.partition("=") for each in parameters):
        if name.lower() == "phone-context":
            contexts[value] = None
    if len(contexts) > 1 or any(not 0 < len(each) <= MAX_CONTEXT_CHARACTERS for each in contexts):
        return unreadable(Refusal.CONTEXT, user)
    for given in contexts:
        # A global number is the same everywhere; RFC 3966 5.1.5 gives it no context.
        if not text.startswith("+"):
            return CalledText(text, _SEPARATORS.sub("", given) if given.startswith("+") else given.lower())
    return CalledText(text)


def _fault(user: str, number: str, text: str) -> Refusal | None:
    if len(user) > MAX_URI_CHARACTERS or len(number) > MAX_NUMBER_CHARACTERS:
        return Refusal.TOO_LONG
    if not (user.isascii() and user.isprintable()):
        return Refusal.CHARACTERS
    if not text:
        return Refusal.EMPTY
    return None if _NUMBER.fullmatch(text) else Refusal.NAME


def sip_address(uri: str) -> str | Unreadable:
    """The key of a SIP or SIPS URI that is an address of its own, for example ``sip:front.desk@example.com``.

    The user part keeps its case and the host loses it (RFC 3261 19.1.4); port, password and parameters are no part of whose
    address it is.
    """
    if len(uri) > MAX_URI_CHARACTERS:
        return unreadable(Refusal.TOO_LONG, uri)
    split = _SCHEME.fullmatch(uri)
    if split is None or split[1].lower() not in ("sip", "sips"):
        return unreadable(Refusal.SCHEME, uri)
    userinfo, at, rest = split[2].rpartition("@")
    user = _unescaped(userinfo.partition(":")[0], uri)
    if isinstance(user, Unreadable):
        return user
    host = re.sub(r"(\]|^[^\[\]:]*):[0-9]*$", r"\1", re.split(r"[;?]", rest, maxsplit=1)[0]).lower()
    if not (at and user and re.fullmatch(r"[a-z0-9.-]+|\[[0-9a-f:.]+\]", host)):
        return unreadable(Refusal.EMPTY if not user else Refusal.NAME, uri)
    if re.search(r"[\s@:<>\"]", user):
        return unreadable(Refusal.CHARACTERS, uri)
    return f"sip:{user}@{host}"


def unreadable(refusal: Refusal, called: str) -> Unreadable:
    """Build a refusal; what was called reaches logs escaped and shortened."""
    shown = called[:_MAX_SHOWN].encode("unicode_escape", "backslashreplace").decode("ascii")
    return Unreadable(refusal, shown if len(called) <= _MAX_SHOWN else f"{shown}...")


def _read_escaped(user: str, uri: str) -> CalledText | Unreadable:
    text = _unescaped(user, uri)
    return text if isinstance(text, Unreadable) else read_user(text)


def _unescaped(user: str, uri: str) -> str | Unreadable:
    """Undo percent-escapes once; ASCII comes out, or a refusal."""
    if _BAD_ESCAPE.search(user):
        return unreadable(Refusal.ESCAPE, uri)
    try:
        text = unquote_to_bytes(user).decode("ascii")
    except UnicodeError:
        return unreadable(Refusal.CHARACTERS, uri)
    return text if text.isprintable() else unreadable(Refusal.CHARACTERS, uri)
