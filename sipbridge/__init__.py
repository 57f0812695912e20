"""SIP for the media server: dialogs, offer/answer, and the network shell. It knows no tenants.

`SipEndpoint` is the shell, `UserAgent` the sans-IO core under it, `sipbridge.sdp` the session descriptions.
"""

from __future__ import annotations

from sipbridge.call_table import UserAgentConfig
from sipbridge.endpoint import SipEndpoint, SipEndpointConfig
from sipbridge.errors import NotAcceptable, SdpError, SipError, UriError, UsageError
from sipbridge.events import (
    CallAnswered,
    CallEnded,
    CallFailed,
    CallRinging,
    DialogId,
    EndCause,
    InviteConfirmed,
    InviteReceived,
    OfferReceived,
    SipEvent,
)
from sipbridge.uri import SipAddress, SipUri
from sipbridge.user_agent import UserAgent

__all__ = [
    "CallAnswered",
    "CallEnded",
    "CallFailed",
    "CallRinging",
    "DialogId",
    "EndCause",
    "InviteConfirmed",
    "InviteReceived",
    "NotAcceptable",
    "OfferReceived",
    "SdpError",
    "SipAddress",
    "SipEndpoint",
    "SipEndpointConfig",
    "SipError",
    "SipEvent",
    "SipUri",
    "UriError",
    "UsageError",
    "UserAgent",
    "UserAgentConfig",
]
