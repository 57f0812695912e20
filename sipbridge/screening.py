"""What a server checks before it looks at a request's meaning, in the order of RFC 3261 8.2."""

from __future__ import annotations

from mediaserver._native import SipMessage, SipParseError
from sipbridge.description import SessionDescription
from sipbridge.dialog import contact_of, recorded_routes
from sipbridge.errors import SdpError, UriError
from sipbridge.uri import SipUri
from sipbridge.wire import ALLOW, ALLOWED, SDP_TYPE, Reply, tokens_of


def screen(message: SipMessage) -> Reply | None:
    """Return the refusal that a request deserves, or None."""
    for check in (_syntax, _method, _uri, _hops, _extensions, _content):
        refusal = check(message)
        if refusal is not None:
            return refusal
    return None


def offer_in(message: SipMessage) -> SessionDescription | None:
    """Return the description in the body, where there is one; raises `SdpError`."""
    if not message.body or _ignorable(message):
        return None
    return SessionDescription.parse(message.body)


def _syntax(message: SipMessage) -> Reply | None:
    for status, words, tolerable in message.problems():
        if not tolerable:
            return Reply(status, words)
    try:
        contact_of(message)
    except SipParseError:
        return Reply(400, "Malformed Contact")
    try:
        recorded_routes(message)
    except (SipParseError, UriError):
        return Reply(400, "Malformed Record-Route")
    return None


def _method(message: SipMessage) -> Reply | None:
    if message.method not in ALLOWED:
        return Reply(405, headers=(("Allow", ALLOW),))
    return None


def _uri(message: SipMessage) -> Reply | None:
    try:
        SipUri.parse(message.uri or "")
    except UriError:
        return Reply(416)
    return None


def _hops(message: SipMessage) -> Reply | None:
    """Refuse a request that has spent its hops before it reached a dialog: it went in circles (16.3).

    OPTIONS is the traceroute of 11: it is answered. A request inside a dialog has arrived, whatever it says.
    """
    spent = (message.header("Max-Forwards") or "70").strip().strip("0") == ""
    inside = any(tag for _, _, tag in message.addresses("To"))
    return Reply(483) if spent and not inside and message.method not in ("OPTIONS", "CANCEL") else None


def _extensions(message: SipMessage) -> Reply | None:
    """No option tag is supported, so each one required is refused by name (RFC 3261 8.2.2.3)."""
    required = tokens_of(message, "Require")
    if required and message.method != "CANCEL":
        return Reply(420, headers=(("Unsupported", ", ".join(required)),))
    return None


def _content(message: SipMessage) -> Reply | None:
    if not message.body or message.method not in ("INVITE", "UPDATE") or _ignorable(message):
        return None
    encodings = [token.lower() for token in tokens_of(message, "Content-Encoding")]
    if any(encoding != "identity" for encoding in encodings):
        return Reply(415, headers=(("Accept-Encoding", "identity"),))
    kind = (message.header("Content-Type") or "").split(";")[0].strip().lower().replace(" ", "")
    if kind != SDP_TYPE:
        return Reply(415, headers=(("Accept", SDP_TYPE),))
    try:
        SessionDescription.parse(message.body)
    except SdpError as error:
        return Reply(400, f"Malformed SDP: {error}")
    return None


def _ignorable(message: SipMessage) -> bool:
    """Whether the sender says that the body may be left unread (RFC 3261 20.11)."""
    return "handling=optional" in (message.header("Content-Disposition") or "").lower().replace(" ", "")
