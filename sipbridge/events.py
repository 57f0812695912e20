"""What SIP tells the application.

`CallEnded` is the last event of every dialog, exactly once, whoever ended it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from sipbridge.description import SessionDescription
from sipbridge.uri import SipAddress, SipUri

DialogId = NewType("DialogId", str)
"""Names a dialog for the application, from `InviteReceived` or `invite` to `CallEnded`."""


class EndCause(StrEnum):
    """Why a dialog ended."""

    REMOTE_BYE = "remote_bye"
    LOCAL_BYE = "local_bye"
    CANCELLED = "cancelled"
    """The caller gave up before an answer (also: we did)."""
    REJECTED = "rejected"
    """We refused the invitation."""
    FAILED = "failed"
    """Our invitation was refused; `CallFailed` came before."""
    UNANSWERED = "unanswered"
    """The application did not decide, or rang, for longer than allowed."""
    ACK_TIMEOUT = "ack_timeout"
    TRANSPORT_FAILED = "transport_failed"
    SESSION_FAILED = "session_failed"
    """Signalling worked, the session description did not."""


@dataclass(frozen=True, slots=True)
class InviteReceived:
    """A call for us: reply with ring, answer or reject."""

    dialog: DialogId
    called: SipUri
    request_uri: str
    """``called`` as it was written."""
    caller: SipAddress
    offer: SessionDescription | None
    source: tuple[str, int]
    transport: str
    """What it came over: ``udp`` or ``tcp``."""
    call_id: str


@dataclass(frozen=True, slots=True)
class InviteConfirmed:
    """The ACK of our answer. ``sdp``: the peer's answer where its INVITE had no offer."""

    dialog: DialogId
    sdp: SessionDescription | None
    initial: bool = True
    """False for the ACK of a re-INVITE without offer, which brings the answer to the offer in our 200."""


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """A re-INVITE or UPDATE: reply with answer or reject. Without an offer it asks for ours."""

    dialog: DialogId
    offer: SessionDescription | None


@dataclass(frozen=True, slots=True)
class CallRinging:
    """A provisional response above 100 to our INVITE."""

    dialog: DialogId
    status: int


@dataclass(frozen=True, slots=True)
class CallAnswered:
    """The first 2xx to our INVITE; its ACK has been sent."""

    dialog: DialogId
    answer: SessionDescription | None


@dataclass(frozen=True, slots=True)
class CallFailed:
    """Our INVITE was refused: the final status, 408 for silence, 503 for a dead transport."""

    dialog: DialogId
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The dialog is over."""

    dialog: DialogId
    cause: EndCause
    detail: str


SipEvent = (
    InviteReceived | InviteConfirmed | OfferReceived | CallRinging | CallAnswered | CallFailed | CallEnded
)
