"""The calls of a user agent and what every part of it does with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from mediaserver._native import SipKey, SipMessage
from sipbridge.dialog import TRANSITIONS, Call, CallState, Trigger
from sipbridge.events import CallEnded, DialogId, EndCause
from sipbridge.transactions import Transactions
from sipbridge.uri import bracketed
from sipbridge.wire import ALLOW, SDP_TYPE, Flow, Header, Reply, via_header, write_request, write_response

MAX_DETAIL = 200


@dataclass(frozen=True, slots=True)
class UserAgentConfig:
    """Who we are on the wire and how much we take on."""

    host: str
    port: int
    user_agent: str = "sipbridge"
    max_dialogs: int = 2_000
    max_transactions: int = 10_000
    max_message_bytes: int = 65_535
    retry_after_s: int = 5
    decision_ms: int = 20_000
    """How long the application may leave an InviteReceived without ring, answer or reject; then 500."""
    ringing_ms: int = 180_000
    """How long a call may ring, in either direction; then 408 (or CANCEL)."""
    offer_decision_ms: int = 5_000
    """How long the application may leave an OfferReceived unanswered; then 500."""
    t1_ms: int = 500
    t2_ms: int = 4_000
    t4_ms: int = 5_000


class CallTimer(Enum):
    """Deadlines of a call."""

    DECISION = auto()
    RING_AGAIN = auto()
    EXPIRES = auto()
    RESEND = auto()
    ACK = auto()
    RINGING = auto()
    CANCEL = auto()


@dataclass(frozen=True, slots=True)
class CallDeadline:
    """Names a deadline of a call."""

    dialog: DialogId
    timer: CallTimer


class Purpose(Enum):
    """What a client transaction is for."""

    INVITE = auto()
    CANCEL = auto()
    BYE = auto()
    FORK_BYE = auto()


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose client transaction it is."""

    dialog: DialogId
    purpose: Purpose


@dataclass(slots=True)
class CallTable:
    """Calls by id and by dialog, and the words that they share."""

    config: UserAgentConfig
    tokens: Callable[[], str]
    transactions: Transactions
    calls: dict[DialogId, Call] = field(default_factory=dict)
    _by_tag: dict[tuple[str, str], Call] = field(default_factory=dict)

    # -- the table -------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether no further call is taken on."""
        return len(self.calls) >= self.config.max_dialogs

    def add(self, call: Call) -> None:
        """Take a call on."""
        self.calls[call.dialog] = call
        self._by_tag[call.call_id, call.local_tag] = call

    def find(self, call_id: str, local_tag: str, remote_tag: str | None) -> Call | None:
        """Find the call of a dialog (RFC 3261 12.2.2). Before an answer the peer's tag is not settled."""
        call = self._by_tag.get((call_id, local_tag))
        if call is None or (call.remote_tag != remote_tag and not call.state.awaits_them):
            return None
        return call

    def by_invite(self, key: SipKey) -> Call | None:
        """Find the call whose INVITE or re-INVITE this is, answered or not."""
        return self.by_pending(key) or next(
            (call for call in self.calls.values() if call.unacknowledged and call.unacknowledged.key == key),
            None,
        )

    def by_pending(self, key: SipKey) -> Call | None:
        """Find the call whose INVITE, re-INVITE or UPDATE waits for the application under this key."""
        return next((call for call in self.calls.values() if call.pending and call.pending.key == key), None)

    def move(self, call: Call, trigger: Trigger, cause: EndCause | None = None, detail: str = "") -> bool:
        """Move a call by the table; False where the table knows no such move.

        Tells the application when the call leaves its hands.
        """
        state = TRANSITIONS.get((call.state, trigger))
        if state is None:
            return False
        was_live, call.state = call.state.live, state
        if was_live and not state.live:
            self.transactions.deliver(
                CallEnded(call.dialog, cause or EndCause.LOCAL_BYE, detail[:MAX_DETAIL])
            )
        if state is CallState.GONE:
            self._remove(call)
        return True

    def _remove(self, call: Call) -> None:
        for timer in CallTimer:
            self.clear(call, timer)
        self.calls.pop(call.dialog, None)
        self._by_tag.pop((call.call_id, call.local_tag), None)

    # -- deadlines -------------------------------------------------------------------------------------

    def set(self, call: Call, timer: CallTimer, after_ms: int) -> None:
        """Set a deadline of a call."""
        deadline = CallDeadline(call.dialog, timer)
        self.transactions.deadlines.set(deadline, self.transactions.now_ms + after_ms)

    def clear(self, call: Call, timer: CallTimer) -> None:
        """Clear a deadline of a call."""
        self.transactions.deadlines.clear(CallDeadline(call.dialog, timer))

    def count(self, what: str) -> None:
        """Count something worth knowing."""
        self.transactions.counters[what] += 1

    # -- messages --------------------------------------------------------------------------------------

    def contact(self, transport: str) -> Header:
        """Where we want the peer's requests."""
        suffix = f";transport={transport}" if transport != "udp" else ""
        return ("Contact", f"<sip:{bracketed(self.config.host)}:{self.config.port}{suffix}>")

    def abilities(self) -> tuple[Header, ...]:
        """Say what we can do, as 2xx responses say it."""
        return (("Allow", ALLOW), ("Supported", ""), ("Server", self.config.user_agent))

    def capabilities(self) -> Reply:
        """Write the answer to OPTIONS (RFC 3261 11.2)."""
        allow, supported, _ = self.abilities()
        return Reply(200, headers=(allow, ("Accept", SDP_TYPE), ("Accept-Encoding", "identity"), supported))

    def response(self, request: SipMessage, reply: Reply, tag: str | None) -> bytes:
        """Write a response that makes no dialog."""
        server = ("Server", self.config.user_agent)
        return write_response(request, reply, tag=tag, extra=(server,))

    def respond(self, key: SipKey, request: SipMessage, reply: Reply, tag: str | None = None) -> None:
        """Answer a request through its transaction."""
        tag = None if reply.status == 100 else tag or self.tokens()
        self.transactions.respond(key, self.response(request, reply, tag))

    def via(self, transport: str) -> Header:
        """Make a Via of ours with a fresh branch."""
        return via_header(transport, self.config.host, self.config.port, self.tokens())

    def dialog_request(self, call: Call, method: str, cseq: int) -> tuple[Flow, bytes]:
        """Write a request inside a dialog (RFC 3261 12.2.1.1)."""
        flow, uri, routes = call.next_hop()
        remote = call.remote if call.remote_tag is None else f"{call.remote};tag={call.remote_tag}"
        headers = [
            self.via(flow.transport),
            *routes,
            ("From", f"{call.local};tag={call.local_tag}"),
            ("To", remote),
            ("Call-ID", call.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("User-Agent", self.config.user_agent),
        ]
        return flow, write_request(method, uri, headers)

    def send_bye(self, call: Call, purpose: Purpose = Purpose.BYE) -> None:
        """Hang up on the wire."""
        call.local_cseq += 1
        flow, data = self.dialog_request(call, "BYE", call.local_cseq)
        self.transactions.request(data, flow, Owner(call.dialog, purpose))
