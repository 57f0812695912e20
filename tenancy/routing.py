"""Whose call it is: one decision from what was called and what the registry has. Sans-IO.

Rules:

- only a registration decides; there is no default, no nearest match and no fallback;
- what the trunk may not reach does not exist on it: another tenant's registration elsewhere changes no call here;
- the trunk is looked at before the tenant's state, so a trunk learns nothing of tenants that are not its own;
- two readings of one text that are both registered on the trunk are ambiguous, whosever they are.

Answers (RFC 3261 21): an outcome has one SIP answer and one HTTP answer, and only the outcome, which goes to logs and
metrics, tells unknown from not on this trunk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from config.site_keys import KeyFault, OriginFault, SiteKey, origin_fault
from tenancy.called import Refusal, Unreadable
from tenancy.numbers import Candidates

_SIP_ROOT: Final = re.compile(
    r"sips?:(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?(?:;[A-Za-z0-9=.;-]{1,200})?"
)
_HTTP_ROOT: Final = re.compile(
    r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]{0,200}[A-Za-z0-9._~-])?"
)


class Standing(StrEnum):
    """Whether a tenant's calls are taken here."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    MOVED = "moved"


LEFT_FOR_GOOD: Final = "gone"
"""In place of a `Home`: the tenant is on no node that its callers could be sent to."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a tenant that has moved is answered. Raises `ValueError`, which names the field."""

    sip_uri: str
    """A SIP or SIPS URI without a user part, for example ``sip:cell-2.example.com;transport=tcp``."""
    http_url: str
    """The root of that node's HTTP API, without a slash at its end."""

    def __post_init__(self) -> None:
        if not _SIP_ROOT.fullmatch(self.sip_uri):
            raise ValueError(f"sip_uri: {self.sip_uri[:60]!r} is not a URI such as 'sip:cell-2.example.com'")
        if not _HTTP_ROOT.fullmatch(self.http_url):
            raise ValueError(
                f"http_url: {self.http_url[:60]!r} is not a root such as 'https://cell-2.example.com'"
            )

    @classmethod
    def read(cls, text: str) -> Home | None:
        """The inverse of ``str``; None where the text is no such pair."""
        try:
            return cls(*text.split())
        except (TypeError, ValueError):
            return None

    def __str__(self) -> str:
        return f"{self.sip_uri} {self.http_url}"

    @staticmethod
    def checked(text: str) -> str:
        """What may be said of where a tenant has moved. Raises `ValueError`: with a slip in it, its callers were told that it is gone."""
        if text != LEFT_FOR_GOOD and Home.read(text) is None:
            raise ValueError(
                f"{text[:100]!r} is neither a node's SIP URI and HTTP root, such as 'sip:cell-2.example.com"
                f" https://cell-2.example.com', nor the word {LEFT_FOR_GOOD!r}"
            )
        return text

    def contact(self, key: str) -> str:
        """The Contact that sends a call for a number or a SIP address there (RFC 3261 8.1.3.4).

        A SIP address keeps its host, which is part of it, and goes there by ``maddr`` (19.1.1).
        """
        scheme, _, rest = self.sip_uri.partition(":")
        if not key.startswith("sip:"):
            return f"{scheme}:{key}@{rest}"
        place, *parameters = rest.split(";")
        host, port = place, ""
        if (numbered := re.fullmatch(r"(.*):([0-9]+)", place)) is not None and not place.endswith("]"):
            host, port = numbered[1], f":{numbered[2]}"
        return ";".join((f"{scheme}:{key.removeprefix('sip:')}{port}", f"maddr={host}", *parameters))


@dataclass(frozen=True, slots=True)
class Registration:
    """What the registry has under a number or a site key."""

    key: str
    """The number in E.164, the SIP address, or the site key."""
    tenant_id: str
    standing: Standing
    trunks: frozenset[str] = frozenset()
    """The trunks that may reach it. None listed: no trunk may."""
    origins: frozenset[str] = frozenset()
    """The web pages that may use a site key."""
    home: Home | None = None
    """Of a tenant that has moved; None: it has left for good."""


@dataclass(frozen=True, slots=True)
class Routed:
    """The call is this tenant's."""

    tenant_id: str
    key: str
    """The number or site key, as the registry has it."""


@dataclass(frozen=True, slots=True)
class NoTrunk:
    """The call came from where no trunk is."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody has it."""

    doubt: Refusal | None = None
    """What may be wrong with how it was written."""


@dataclass(frozen=True, slots=True)
class NotOnThisTrunk:
    """Somebody has it, and not for this trunk."""

    tenant_id: str
    trunk_id: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The text has several readings that are registered on the trunk."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Suspended:
    """The tenant takes no calls."""

    tenant_id: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The tenant is answered elsewhere, or nowhere any more."""

    tenant_id: str
    key: str
    home: Home | None


@dataclass(frozen=True, slots=True)
class MalformedKey:
    """The site key is mistyped."""

    fault: KeyFault


@dataclass(frozen=True, slots=True)
class OriginRefused:
    """The page may not use the site key."""

    tenant_id: str
    fault: OriginFault


Refused = (
    Unreadable
    | NoTrunk
    | Unknown
    | NotOnThisTrunk
    | Ambiguous
    | Suspended
    | Moved
    | MalformedKey
    | OriginRefused
)
Outcome = Routed | Refused


@dataclass(frozen=True, slots=True)
class Answer:
    """How a refusal is said."""

    code: str
    """For metrics and for programs; fixed words."""
    sip_status: int
    sip_reason: str
    http_status: int
    text: str
    """For whoever called: names no tenant."""
    contact: str | None = None
    """Of 302: the Contact."""
    location: str | None = None
    """Of 307: the root that the request's path is put behind."""


UNKNOWN: Final = Answer("unknown", 404, "Not Found", 404, "there is no such number or key here")
INCOMPLETE: Final = Answer(
    "unknown", 484, "Address Incomplete", 404, "there is no such number; digits are missing"
)
NOT_ON_THIS_TRUNK: Final = Answer("not_on_this_trunk", 404, "Not Found", 404, UNKNOWN.text)
"""404 and no 403, which would tell a trunk which numbers exist on other trunks."""
NO_TRUNK: Final = Answer("no_trunk", 403, "Forbidden", 403, "calls are not taken from this address")
"""The same for every number: a stranger learns nothing of them."""
AMBIGUOUS: Final = Answer("ambiguous", 485, "Ambiguous", 409, "the number can be read in two ways")
"""Without 21.4.23's list of choices: it would name numbers."""
SUSPENDED: Final = Answer("suspended", 480, "Temporarily Unavailable", 403, "no calls are taken at present")
"""Not 503: a proxy may then keep every tenant's calls from the node (21.5.4), and HTTP proxies do alike."""
MOVED: Final = Answer("moved", 302, "Moved Temporarily", 307, "calls are taken elsewhere")
"""Not 301: a proxy may keep that for good (21.3.2), and a tenant may move again."""
GONE: Final = Answer("gone", 410, "Gone", 410, "calls are not taken here any more")


FIXED_ANSWERS: Final = MappingProxyType(
    {NoTrunk: NO_TRUNK, NotOnThisTrunk: NOT_ON_THIS_TRUNK, Ambiguous: AMBIGUOUS, Suspended: SUSPENDED}
)


def route(trunk_id: str, called: Candidates | Unreadable, found: Mapping[str, Registration]) -> Outcome:
    """Decide on a call from a trunk. ``found`` has the candidates that are registered, under their number."""
    if isinstance(called, Unreadable):
        return called
    registered = [found[number] for number in called.numbers if number in found]
    here = [each for each in registered if trunk_id in each.trunks]
    if not here:
        return NotOnThisTrunk(registered[0].tenant_id, trunk_id) if registered else Unknown(called.doubt)
    if len(here) > 1:
        return Ambiguous(tuple(each.key for each in here))
    return _standing(here[0])


def route_site(key: SiteKey | KeyFault, found: Registration | None, origin: str | None) -> Outcome:
    """Decide on a browser's call. ``found`` is what the registry has under the key; ``origin`` is the Origin header."""
    if isinstance(key, KeyFault):
        return MalformedKey(key)
    if found is None or found.key != key.text:
        return Unknown()
    fault = origin_fault(origin, found.origins)
    return _standing(found) if fault is None else OriginRefused(found.tenant_id, fault)


def _standing(found: Registration) -> Outcome:
    match found.standing:
        case Standing.ACTIVE:
            return Routed(found.tenant_id, found.key)
        case Standing.SUSPENDED:
            return Suspended(found.tenant_id)
        case Standing.MOVED:
            return Moved(found.tenant_id, found.key, found.home)
        case _:
            assert_never(found.standing)


def answer(outcome: Refused) -> Answer:
    """What a refused caller is told, in SIP and in HTTP."""
    match outcome:
        case Unreadable():
            return _unreadable(outcome.refusal)
        case Unknown():
            short = outcome.doubt in (Refusal.LOCAL, Refusal.SHORT)
            return INCOMPLETE if short else UNKNOWN
        case NoTrunk() | NotOnThisTrunk() | Ambiguous() | Suspended():
            return FIXED_ANSWERS[type(outcome)]
        case Moved():
            home = outcome.home
            if home is None:
                return GONE
            return replace(MOVED, contact=home.contact(outcome.key), location=home.http_url)
        case MalformedKey() | OriginRefused():
            return _browser(outcome)
        case _:
            assert_never(outcome)


def _browser(outcome: MalformedKey | OriginRefused) -> Answer:
    if isinstance(outcome, MalformedKey):
        return Answer("malformed_key", 400, "Bad Request", 400, f"the site key is wrong: {outcome.fault}")
    return Answer("origin_refused", 403, "Forbidden", 403, f"this page may not call: {outcome.fault}")


def _unreadable(refusal: Refusal) -> Answer:
    text = f"what was called cannot be read: {refusal}"
    match refusal:
        case Refusal.SCHEME:
            return Answer("unreadable", 416, "Unsupported URI Scheme", 400, text)
        case Refusal.TOO_LONG:
            return Answer("unreadable", 414, "Request-URI Too Long", 400, text)
        case Refusal.ESCAPE | Refusal.CHARACTERS:
            return Answer("unreadable", 400, "Bad Request", 400, text)
        case Refusal.SHORT | Refusal.LOCAL | Refusal.EMPTY:
            return Answer("unreadable", 484, "Address Incomplete", 404, text)
        case Refusal.NAME | Refusal.CONTEXT | Refusal.NO_COUNTRY | Refusal.NOTATION | Refusal.LENGTH:
            return Answer("unreadable", 404, "Not Found", 404, text)
        case _:
            assert_never(refusal)
