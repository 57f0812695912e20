"""Session descriptions and their negotiation, under one name."""

from __future__ import annotations

from sipbridge.description import Connection, Direction, MediaDescription, Origin, SessionDescription
from sipbridge.errors import NotAcceptable, SdpError
from sipbridge.offer_answer import Negotiated, accept_answer, make_offer, negotiate, succeed

__all__ = [
    "Connection",
    "Direction",
    "MediaDescription",
    "Negotiated",
    "NotAcceptable",
    "Origin",
    "SdpError",
    "SessionDescription",
    "accept_answer",
    "make_offer",
    "negotiate",
    "succeed",
]
