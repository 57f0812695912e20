"""The sessions of callers in a browser: no session, no call. Sans-IO: token and time are arguments.

Rules:

- a token names one number of one tenant and buys one call; it is useless after `LIFE_MS` when it bought none;
- of several offers with one token at a time, one gets the call; a refusal for want of room leaves the token good;
- while its call is up, the token is what renegotiates and trickles candidates; with the call it ends;
- both tables are bounded: the book of sessions refuses, that of sources forgets who was quiet longest.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum

LIFE_MS = 120_000
"""From `issue` to the offer: the time in which somebody answers the browser's question about the microphone."""
MAX_SESSIONS = 10_000
MAX_SOURCES = 10_000
BURST = 20
"""Tokens that one source may ask for at once."""
REFILL_MS = 3_000
"""After this it may ask for one more."""


class SessionState(Enum):
    """Where a session stands."""

    FRESH = "fresh"
    CLAIMED = "claimed"
    """An offer is being answered."""
    IN_CALL = "in call"
    OVER = "over"


@dataclass(slots=True)
class Session:
    """One caller's permission for one call."""

    token: str = field(repr=False)
    number: str
    tenant_id: str
    expires_ms: int
    state: SessionState = SessionState.FRESH
    pc_id: str | None = None


class SessionBookFull(Exception):  # noqa: N818 - names the outcome
    """More sessions are waiting for their call than the book holds."""


@dataclass(slots=True)
class SessionBook:
    """All sessions of a node."""

    max_sessions: int = MAX_SESSIONS
    _sessions: OrderedDict[str, Session] = field(default_factory=OrderedDict)
    """In the order of issue, which is the order of expiry."""

    def __len__(self) -> int:
        return len(self._sessions)

    def issue(self, token: str, number: str, tenant_id: str, now_ms: int) -> Session:
        """Open a session under an unguessable token. Raises `SessionBookFull`."""
        self._forget_expired(now_ms)
        if len(self._sessions) >= self.max_sessions:
            raise SessionBookFull
        session = self._sessions[token] = Session(token, number, tenant_id, now_ms + LIFE_MS)
        return session

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
        """Begin to answer an offer; False when the session has its call or an offer already."""
        if session.state is not SessionState.FRESH:
            return False
        session.state = SessionState.CLAIMED
        return True

    def unclaim(self, session: Session) -> None:
        """No call came of the offer: the token stays good."""
        if session.state is SessionState.CLAIMED:
            session.state = SessionState.FRESH

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

    def _forget_expired(self, now_ms: int) -> None:
        for session in list(self._sessions.values()):
            if session.expires_ms > now_ms:
                break
            if session.state is SessionState.FRESH:
                self.close(session)


@dataclass(slots=True)
class SourceLimit:
    """How often one source may ask for a token: a bucket of `BURST`, refilled by one every `REFILL_MS`."""

    max_sources: int = MAX_SOURCES
    _empty_ms: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """By source: the time at which its bucket would be full again."""

    def wait_ms(self, host: str, now_ms: int) -> int:
        """Take one: 0, or how long to wait before the next attempt, and nothing is taken."""
        source = source_of(host)
        full_at_ms = max(now_ms, self._empty_ms.pop(source, now_ms)) + REFILL_MS
        excess_ms = full_at_ms - now_ms - BURST * REFILL_MS
        if excess_ms > 0:
            full_at_ms -= REFILL_MS
        self._empty_ms[source] = full_at_ms
        while len(self._empty_ms) > self.max_sources:
            self._empty_ms.popitem(last=False)
        return max(0, excess_ms)


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 one, which is what a customer is given."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)
