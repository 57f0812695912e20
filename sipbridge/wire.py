"""Where messages go and how they are written. Reading is the business of `mediaserver._native`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mediaserver._native import SipMessage
from sipbridge.events import SipEvent
from sipbridge.uri import DEFAULT_PORT, SipUri, bracketed

Header = tuple[str, str]

ALLOWED = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE")
ALLOW = ", ".join(ALLOWED)
SDP_TYPE = "application/sdp"
MAX_REASON = 128

REASONS = {
    100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
    200: "OK", 300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout", 410: "Gone",
    413: "Request Entity Too Large", 415: "Unsupported Media Type", 416: "Unsupported URI Scheme",
    420: "Bad Extension", 480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist",
    482: "Loop Detected", 483: "Too Many Hops", 484: "Address Incomplete", 486: "Busy Here",
    487: "Request Terminated", 488: "Not Acceptable Here", 491: "Request Pending",
    500: "Server Internal Error", 501: "Not Implemented", 503: "Service Unavailable",
    504: "Server Time-out", 505: "Version Not Supported", 600: "Busy Everywhere", 603: "Decline",
    604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}  # fmt: skip

_CONTROLS = {code: " " for code in (*range(0x20), 0x7F) if chr(code) != "\t"}


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a message came from or goes to. ``connection`` names an open stream connection."""

    transport: str
    host: str
    port: int
    connection: int | None = None

    @property
    def reliable(self) -> bool:
        """Whether the transport retransmits for us."""
        return self.transport != "udp"

    def without_connection(self, port: int) -> Flow:
        """Return the same peer at its listening port, over a connection yet to be made (RFC 3261 18.2.2)."""
        return replace(self, port=port, connection=None)


@dataclass(frozen=True, slots=True)
class Send:
    """Action: put these bytes on the wire."""

    flow: Flow
    data: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """Action: tell the application."""

    event: SipEvent


Action = Send | Deliver


@dataclass(frozen=True, slots=True)
class Reply:
    """A response yet to be written."""

    status: int
    reason: str | None = None
    headers: tuple[Header, ...] = ()
    body: bytes = b""

    @property
    def phrase(self) -> str:
        """The reason phrase, safe on a status line."""
        return clean(self.reason) if self.reason else REASONS.get(self.status, "Unknown")


def clean(text: str) -> str:
    """Text for one line of a message: no control characters, bounded."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:MAX_REASON]


def write_response(
    request: SipMessage, reply: Reply, *, tag: str | None, extra: Iterable[Header] = ()
) -> bytes:
    """Answer a request (RFC 3261 8.2.6); ``tag`` completes a To that has none."""
    to = request.header("To") or ""
    if tag is not None and ";tag=" not in to.rpartition(">")[2].lower().replace(" ", ""):
        to = f"{to};tag={tag}"
    headers: list[Header] = [("Via", via) for via in request.header_values("Via")]
    headers += [
        ("From", request.header("From") or ""),
        ("To", to),
        ("Call-ID", request.header("Call-ID") or ""),
        ("CSeq", request.header("CSeq") or ""),
    ]
    if reply.status == 100 and (timestamp := request.header("Timestamp")):
        headers.append(("Timestamp", timestamp))
    return _write(f"SIP/2.0 {reply.status} {reply.phrase}", [*headers, *extra, *reply.headers], reply.body)


def write_request(method: str, uri: str, headers: Iterable[Header], body: bytes = b"") -> bytes:
    """Write a request; Max-Forwards is ours to add (RFC 3261 8.1.1.6)."""
    return _write(f"{method} {uri} SIP/2.0", [*headers, ("Max-Forwards", "70")], body)


def _write(start: str, headers: Iterable[Header], body: bytes) -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    # Whatever an application or a peer put into a value, a line stays one line.
    lines = [line.translate(_CONTROLS) for line in lines]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def tokens_of(message: SipMessage, header: str) -> list[str]:
    """Return the comma-separated tokens of every row of a header."""
    rows = ",".join(message.header_values(header))
    return [token for token in (part.strip() for part in rows.split(",")) if token]


def cseq_of(message: SipMessage) -> int:
    """Return the sequence number; -1 where there is none that can be read."""
    number = (message.header("CSeq") or "").split()[:1]
    return int(number[0]) if number and number[0].isascii() and number[0].isdigit() else -1


def tag_of(message: SipMessage, header: str) -> str | None:
    """Return the tag in From or To. Only of messages whose From and To have been found readable."""
    addresses = message.addresses(header)
    return addresses[0][2] if addresses else None


def flow_towards(uri: SipUri, transport: str) -> Flow:
    """Where a request for a URI goes: over ``transport`` unless it names another (RFC 3263 4.1, no SRV)."""
    named = (uri.param("transport") or transport).lower()
    return Flow(named, uri.param("maddr") or uri.host, uri.port or DEFAULT_PORT)


def reply_flow(message: SipMessage, flow: Flow) -> Flow:
    """Where responses to a request go: its source, at the port that the Via says (RFC 3261 18.2.2, RFC 3581).

    The address is always the one that the request came from, so that a forged Via reflects nothing.
    """
    via = message.top_via()
    if via is None or flow.reliable:
        return flow
    _, _, port, _, wants_rport = via
    return flow if wants_rport else replace(flow, port=port or DEFAULT_PORT)


def via_header(transport: str, host: str, port: int, branch: str) -> Header:
    """Our Via; rport asks for the answer on the same path (RFC 3581 3)."""
    rport = ";rport" if transport == "udp" else ""
    return ("Via", f"SIP/2.0/{transport.upper()} {bracketed(host)}:{port};branch=z9hG4bK{branch}{rport}")
