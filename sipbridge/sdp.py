"""Session descriptions and their negotiation, under one name."""

from __future__ import annotations

from sipbridge.audio_formats import CODECS, OpusFormat
from sipbridge.description import Connection, Direction, MediaDescription, Origin, SessionDescription
from sipbridge.errors import NotAcceptable, SdpError
from sipbridge.offer_answer import (
    Negotiated,
    accept_answer,
    make_offer,
    negotiate,
    remote_host,
    succeed,
)
from sipbridge.rtcp_terms import RtcpTerms
from sipbridge.sdes import MasterKeys, SrtpKeys, SrtpPolicy

__all__ = [
    "CODECS",
    "Connection",
    "Direction",
    "MasterKeys",
    "MediaDescription",
    "Negotiated",
    "NotAcceptable",
    "OpusFormat",
    "Origin",
    "RtcpTerms",
    "SdpError",
    "SessionDescription",
    "SrtpKeys",
    "SrtpPolicy",
    "accept_answer",
    "make_offer",
    "negotiate",
    "remote_host",
    "succeed",
]
