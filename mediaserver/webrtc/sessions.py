"""The sessions of callers in a browser: no session, no call. Sans-IO: token and time are arguments.

Rules:

- a token names one number or site key of one tenant and buys one call; it is useless after `LIFE_MS` when it bought none;
- of several offers with one token at a time, one gets the call; a refusal for want of room leaves the token good;
- while its call is up, the token is what renegotiates, one offer at a time, and trickles candidates; with the call it ends;
- a session may make `MAX_OFFERS` in `OFFERS_MS`, those that failed included, and trickle candidates at `CANDIDATE_RATE`;
- all tables are bounded: in a full book the oldest unused session of the network with the most of them gives way, so that
  one customer's /48 keeps nobody else out; that of sources forgets who was quiet longest.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum

from mediaserver.webrtc.rates import Rate
from tenancy.trunks import Called, CalledSite

LIFE_MS = 120_000
"""From `issue` to the offer: the time in which somebody answers the browser's question about the microphone."""
MAX_SESSIONS = 10_000
MAX_SOURCES = 10_000
BURST = 20
"""Tokens that one source may ask for at once."""
REFILL_MS = 3_000
"""After this it may ask for one more."""
SOURCE_RATE = Rate(BURST, REFILL_MS)
NETWORK_RATE = Rate(10 * BURST, REFILL_MS // 10)
"""Of all sources of a network together: 600 sessions can wait for their call, a fraction of the book."""
MAX_OFFERS = 10
OFFERS_MS = 60_000
CANDIDATE_RATE = Rate(256, 500)
"""Candidates that a session may trickle; a browser on many networks has dozens, and again at a restart of ICE."""


class SessionState(Enum):
    """Where a session stands."""

    FRESH = "fresh"
    CLAIMED = "claimed"
    """An offer is being answered."""
    IN_CALL = "in call"
    RENEGOTIATING = "renegotiating"
    """In its call, and a further offer is being answered."""
    OVER = "over"


@dataclass(slots=True)
class Session:
    """One caller's permission for one call."""

    token: str = field(repr=False)
    called: Called
    tenant_id: str
    network: str
    """Where it was asked for: `network_of` its source."""
    expires_ms: int
    state: SessionState = SessionState.FRESH
    pc_id: str | None = None
    _offers_ms: tuple[int, ...] = ()
    _candidates_full_at_ms: int = 0

    @property
    def origin(self) -> str | None:
        """The page that the session belongs to, where a site key admitted it."""
        return self.called.origin if isinstance(self.called, CalledSite) else None

    def offer_wait_ms(self, now_ms: int) -> int:
        """Count an offer: 0, or how long to wait before the next one, and this one does not count."""
        recent = tuple(at_ms for at_ms in self._offers_ms if at_ms > now_ms - OFFERS_MS)
        if len(recent) >= MAX_OFFERS:
            return recent[0] + OFFERS_MS - now_ms
        self._offers_ms = (*recent, now_ms)
        return 0

    def candidates_wait_ms(self, count: int, now_ms: int) -> int:
        """Count trickled candidates: 0, or how long to wait before they may come, and these do not count."""
        count = max(count, 1)  # A request without any is work too.
        wait_ms = CANDIDATE_RATE.wait_ms(self._candidates_full_at_ms, now_ms, count)
        if not wait_ms:
            self._candidates_full_at_ms = CANDIDATE_RATE.taken(self._candidates_full_at_ms, now_ms, count)
        return wait_ms


class SessionBookFull(Exception):  # noqa: N818 - names the outcome
    """The book is full of sessions that have their call or are about to."""


@dataclass(slots=True)
class SessionBook:
    """All sessions of a node."""

    max_sessions: int = MAX_SESSIONS
    _sessions: OrderedDict[str, Session] = field(default_factory=OrderedDict)
    """In the order of issue, which is the order of expiry."""
    _unused: dict[str, OrderedDict[str, Session]] = field(default_factory=dict)
    """Those that are fresh, by network and token."""

    def __len__(self) -> int:
        return len(self._sessions)

    def issue(self, token: str, called: Called, tenant_id: str, host: str, now_ms: int) -> Session:
        """Open a session under an unguessable token for who asks from ``host``. Raises `SessionBookFull`."""
        self._forget_expired(now_ms)
        if len(self._sessions) >= self.max_sessions:
            self._make_room()
        session = Session(token, called, tenant_id, network_of(host), now_ms + LIFE_MS)
        self._sessions[token] = session
        self._enter_unused(session)
        return session

    def _make_room(self) -> None:
        """Close the oldest unused session of the network that has the most."""
        if not self._unused:
            raise SessionBookFull
        busiest = max(self._unused.values(), key=len)
        self.close(next(iter(busiest.values())))

    def _enter_unused(self, session: Session) -> None:
        self._unused.setdefault(session.network, OrderedDict())[session.token] = session

    def _leave_unused(self, session: Session) -> None:
        unused = self._unused.get(session.network)
        if unused is not None and unused.pop(session.token, None) is not None and not unused:
            del self._unused[session.network]

    def find(self, token: str, now_ms: int) -> Session | None:
        """The session of a token; none when it was never issued, has expired, or its call is over."""
        session = self._sessions.get(token)
        if session is None:
            return None
        if session.state is SessionState.FRESH and session.expires_ms <= now_ms:
            self.close(session)
            return None
        return session

    def claim(self, session: Session) -> bool:
        """Begin to answer an offer, the first or a further one; False while another is being answered."""
        if session.state is SessionState.FRESH:
            session.state = SessionState.CLAIMED
            self._leave_unused(session)
            return True
        if session.state is SessionState.IN_CALL:
            session.state = SessionState.RENEGOTIATING
            return True
        return False

    def unclaim(self, session: Session) -> None:
        """The offer is answered or refused. Where no call came of it the token stays good."""
        if session.state is SessionState.CLAIMED:
            session.state = SessionState.FRESH
            self._enter_unused(session)
        elif session.state is SessionState.RENEGOTIATING:
            session.state = SessionState.IN_CALL

    def begin(self, session: Session, pc_id: str) -> None:
        """The claimed session has its call."""
        if session.state is not SessionState.CLAIMED:
            raise ValueError(f"a {session.state.value} session begins no call")
        session.state = SessionState.IN_CALL
        session.pc_id = pc_id

    def close(self, session: Session) -> None:
        """The session's call is over. Safe to call twice."""
        session.state = SessionState.OVER
        self._sessions.pop(session.token, None)
        self._leave_unused(session)

    def _forget_expired(self, now_ms: int) -> None:
        for session in list(self._sessions.values()):
            if session.expires_ms > now_ms:
                break
            if session.state is SessionState.FRESH:
                self.close(session)


@dataclass(slots=True)
class SourceLimit:
    """How often one source, and all sources of one network, may ask for a token."""

    max_sources: int = MAX_SOURCES
    _sources: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """By source: the time at which its bucket would be full again."""
    _networks: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def wait_ms(self, host: str, now_ms: int) -> int:
        """Take one: 0, or how long to wait before the next attempt, and nothing is taken."""
        buckets = (
            (self._sources, source_of(host), SOURCE_RATE),
            (self._networks, network_of(host), NETWORK_RATE),
        )
        wait_ms = max(rate.wait_ms(table.get(key, 0), now_ms) for table, key, rate in buckets)
        for table, key, rate in buckets:
            full_at_ms = table.pop(key, 0)
            table[key] = full_at_ms if wait_ms else rate.taken(full_at_ms, now_ms)
            while len(table) > self.max_sources:
                table.popitem(last=False)
        return wait_ms


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 one, which is what a customer's network has."""
    return _network(host, ipv4_bits=32, ipv6_bits=64)


def network_of(host: str) -> str:
    """Whose sources count together: an IPv4 /24, or an IPv6 /48, which one customer may have (RFC 6177)."""
    return _network(host, ipv4_bits=24, ipv6_bits=48)


def _network(host: str, *, ipv4_bits: int, ipv6_bits: int) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(address), ipv6_bits), strict=False))
        address = address.ipv4_mapped
    return str(ipaddress.IPv4Network((int(address), ipv4_bits), strict=False))
