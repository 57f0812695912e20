"""A call's life as a table.

Rules (RFC 3261 12 to 15):

* A state is *live* or *released*. `CallEnded` is told exactly when a call leaves the live states, and nothing
  leads back, so the application hears it exactly once, whoever ends the call and however long the wire takes.
* A caller's invitation (INVITED, RINGING) gets one final response: the trigger that sends it leaves these
  states.
* After our 2xx we may not send BYE before the ACK has come or is overdue (15): CLOSING waits for it.
* Our own invitation (CALLING, PROCEEDING) is cancelled, not abandoned; a 2xx that crosses the CANCEL is
  acknowledged and hung up (CANCELLING to LEAVING).
* LEAVING waits for the answer to our BYE. GONE is not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from ipaddress import ip_address

from mediaserver._native import SipKey, SipMessage
from sipbridge.description import SessionDescription
from sipbridge.errors import UriError
from sipbridge.events import DialogId
from sipbridge.uri import SipUri
from sipbridge.wire import Flow, Header, cseq_of, flow_towards


class CallState(Enum):
    """Where a call is."""

    INVITED = auto()
    RINGING = auto()
    ANSWERED = auto()
    CALLING = auto()
    PROCEEDING = auto()
    CONFIRMED = auto()
    CANCELLING = auto()
    CLOSING = auto()
    LEAVING = auto()
    GONE = auto()

    @property
    def live(self) -> bool:
        """Whether the application still holds the call."""
        return self in _LIVE

    @property
    def awaits_us(self) -> bool:
        """Whether the caller waits for a final response."""
        return self in (CallState.INVITED, CallState.RINGING)

    @property
    def awaits_them(self) -> bool:
        """Whether we wait for a final response to our INVITE."""
        return self in (CallState.CALLING, CallState.PROCEEDING, CallState.CANCELLING)


class Trigger(Enum):
    """What moves a call."""

    RING = auto()
    ANSWER = auto()
    REFUSE = auto()
    """A final response other than 2xx to the caller's INVITE, whatever the reason."""
    ACK = auto()
    ACK_OVERDUE = auto()
    PROVISIONAL = auto()
    SUCCESS = auto()
    FAILURE = auto()
    """A final response other than 2xx to our INVITE, or none at all."""
    HANG_UP = auto()
    REMOTE_BYE = auto()
    BYE_DONE = auto()


_LIVE = frozenset(
    {
        CallState.INVITED,
        CallState.RINGING,
        CallState.ANSWERED,
        CallState.CALLING,
        CallState.PROCEEDING,
        CallState.CONFIRMED,
    }
)

TRANSITIONS: dict[tuple[CallState, Trigger], CallState] = {
    (CallState.INVITED, Trigger.RING): CallState.RINGING,
    (CallState.INVITED, Trigger.ANSWER): CallState.ANSWERED,
    (CallState.INVITED, Trigger.REFUSE): CallState.GONE,
    (CallState.RINGING, Trigger.RING): CallState.RINGING,
    (CallState.RINGING, Trigger.ANSWER): CallState.ANSWERED,
    (CallState.RINGING, Trigger.REFUSE): CallState.GONE,
    (CallState.ANSWERED, Trigger.ACK): CallState.CONFIRMED,
    (CallState.ANSWERED, Trigger.ACK_OVERDUE): CallState.LEAVING,
    (CallState.ANSWERED, Trigger.HANG_UP): CallState.CLOSING,
    (CallState.ANSWERED, Trigger.REMOTE_BYE): CallState.GONE,
    (CallState.CALLING, Trigger.PROVISIONAL): CallState.PROCEEDING,
    (CallState.CALLING, Trigger.SUCCESS): CallState.CONFIRMED,
    (CallState.CALLING, Trigger.FAILURE): CallState.GONE,
    (CallState.CALLING, Trigger.HANG_UP): CallState.CANCELLING,
    (CallState.PROCEEDING, Trigger.PROVISIONAL): CallState.PROCEEDING,
    (CallState.PROCEEDING, Trigger.SUCCESS): CallState.CONFIRMED,
    (CallState.PROCEEDING, Trigger.FAILURE): CallState.GONE,
    (CallState.PROCEEDING, Trigger.HANG_UP): CallState.CANCELLING,
    (CallState.CONFIRMED, Trigger.HANG_UP): CallState.LEAVING,
    (CallState.CONFIRMED, Trigger.ACK_OVERDUE): CallState.LEAVING,
    (CallState.CONFIRMED, Trigger.REMOTE_BYE): CallState.GONE,
    (CallState.CANCELLING, Trigger.PROVISIONAL): CallState.CANCELLING,
    (CallState.CANCELLING, Trigger.SUCCESS): CallState.LEAVING,
    (CallState.CANCELLING, Trigger.FAILURE): CallState.GONE,
    (CallState.CLOSING, Trigger.ACK): CallState.LEAVING,
    (CallState.CLOSING, Trigger.ACK_OVERDUE): CallState.LEAVING,
    (CallState.CLOSING, Trigger.REMOTE_BYE): CallState.GONE,
    (CallState.LEAVING, Trigger.REMOTE_BYE): CallState.LEAVING,
    (CallState.LEAVING, Trigger.BYE_DONE): CallState.GONE,
}


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that waits for the application: the INVITE, a re-INVITE or an UPDATE."""

    key: SipKey
    request: SipMessage
    offer: SessionDescription | None
    initial: bool


@dataclass(slots=True)
class Unacknowledged:
    """Our 2xx, repeated until its ACK comes (RFC 3261 13.3.1.4)."""

    cseq: int
    key: SipKey
    data: bytes
    interval_ms: int
    answer_due: bool
    """Whether the ACK must carry the answer to our offer."""
    initial: bool


@dataclass(slots=True)
class Invitation:
    """Our INVITE: what CANCEL and ACK must repeat."""

    key: SipKey
    uri: str
    headers: tuple[Header, ...]
    """Via, From, To and Call-ID as the INVITE had them."""
    cseq: int
    flow: Flow
    cancel_sent: bool = False
    acks: dict[str, tuple[Flow, bytes]] = field(default_factory=dict)
    """By To tag: the ACK to repeat for a repeated 2xx, of the dialog and of extra forks."""


@dataclass(slots=True)
class Call:
    """A dialog (RFC 3261 12) and the state of its call."""

    dialog: DialogId
    state: CallState
    call_id: str
    local_tag: str
    remote_tag: str | None
    local: str
    """Our From (or To) without tag, as it goes on the wire."""
    remote: str
    target: str
    """The peer's Contact: where requests go."""
    flow: Flow
    """Where the peer was last heard from."""
    routes: tuple[str, ...] = ()
    local_cseq: int = 0
    remote_cseq: int = -1
    proxied: bool = False
    """Whether the peer was heard through a proxy."""
    description: SessionDescription | None = None
    """Our side of the session as sent last."""
    pending: Pending | None = None
    unacknowledged: Unacknowledged | None = None
    invitation: Invitation | None = None
    last_ring: int = 180

    def heard(self, message: SipMessage, flow: Flow) -> None:
        """Take from a dialog's request: where the peer is and which sequence number it has come to."""
        self.flow = flow
        self.remote_cseq = cseq_of(message)

    def next_hop(self) -> tuple[Flow, str, list[Header]]:
        """Flow, Request-URI and Route headers of the next request (RFC 3261 12.2.1.1)."""
        uri, routes = self.target, list(self.routes)
        if routes and SipUri.parse(routes[0]).param("lr") is None:
            # A strict router takes its own address as the Request-URI and the target as the last route.
            uri, routes = routes[0], [*routes[1:], self.target]
            hop = uri
        else:
            hop = routes[0] if routes else uri
        if self.flow.connection is not None:
            return self.flow, uri, [("Route", f"<{route}>") for route in routes]
        flow = flow_towards(SipUri.parse(hop), self.flow.transport)
        if not self.routes and not self.proxied and _behind_nat(flow, self.flow):
            flow = self.flow
        return flow, uri, [("Route", f"<{route}>") for route in routes]


def _behind_nat(stated: Flow, seen: Flow) -> bool:
    """Say whether the stated address is private and not the one seen: only the one seen can be reached."""
    try:
        address = ip_address(stated.host)
    except ValueError:
        return False
    return seen.transport == "udp" and address.is_private and stated.host != seen.host


def contact_of(message: SipMessage) -> str | None:
    """Return the Contact that a dialog is made with: one sip URI, or None."""
    values = message.header_values("Contact")
    if not values or values[0].strip() == "*":
        return None
    uri = message.addresses("Contact")[0][1]
    try:
        parsed = SipUri.parse(uri)
    except UriError:
        return None
    return uri if parsed.scheme in ("sip", "sips") else None


def recorded_routes(message: SipMessage) -> tuple[str, ...]:
    """Return the Record-Route URIs in the order of the message; raises `UriError` or `SipParseError`."""
    routes = tuple(uri for _, uri, _ in message.addresses("Record-Route"))
    for route in routes:
        if SipUri.parse(route).scheme not in ("sip", "sips"):
            raise UriError(f"{route!r} cannot be routed through")
    return routes
