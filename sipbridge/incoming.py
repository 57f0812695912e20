"""Calls that come in: the INVITE, what the application says to it, and what the caller does meanwhile."""

from __future__ import annotations

import re

from mediaserver._native import SipKey, SipMessage
from sipbridge.call_table import CallTable, CallTimer
from sipbridge.description import SessionDescription
from sipbridge.dialog import Call, CallState, Pending, Trigger, Unacknowledged, contact_of, recorded_routes
from sipbridge.errors import UriError, UsageError
from sipbridge.events import DialogId, EndCause, InviteReceived
from sipbridge.offer_answer import WARN_MEDIA_TYPE, refusal_warning, succeed
from sipbridge.screening import offer_in
from sipbridge.uri import SipAddress, SipUri, bracketed
from sipbridge.wire import SDP_TYPE, Flow, Header, Reply, cseq_of, write_response

_TAG = re.compile(r"\s*;\s*tag\s*=\s*[^;\s]*", re.IGNORECASE)
RING_AGAIN_MS = 60_000
"""Proxies give up three minutes after the last provisional response; 13.3.1.1 asks for one a minute."""


class IncomingCalls:
    """The server side of an invitation, and of every later offer."""

    def __init__(self, table: CallTable) -> None:
        self._table = table

    # -- from the network ------------------------------------------------------------------------------

    def invited(self, key: SipKey, request: SipMessage, flow: Flow) -> None:
        """Take an INVITE outside any dialog that has passed the checks."""
        table = self._table
        contact = contact_of(request)
        if contact is None:
            table.count("refused_400")
            table.respond(key, request, Reply(400, "No usable Contact"))
            return
        if table.full:
            table.count("refused_dialogs")
            retry = (("Retry-After", str(table.config.retry_after_s)),)
            table.respond(key, request, Reply(503, headers=retry))
            return
        display, uri, remote_tag = request.addresses("From")[0]
        to = (request.header("To") or "").strip()
        from_ = _untagged(request.header("From") or "")
        offer = offer_in(request)
        call = Call(
            dialog=DialogId(table.tokens()),
            state=CallState.INVITED,
            call_id=request.header("Call-ID") or "",
            local_tag=table.tokens(),
            remote_tag=remote_tag,
            local=_untagged(to),
            remote=from_,
            target=contact,
            flow=flow,
            routes=recorded_routes(request),
            remote_cseq=cseq_of(request),
            proxied=len(",".join(request.header_values("Via")).split(",")) > 1,
            pending=Pending(key, request, offer, initial=True),
        )
        table.add(call)
        table.count("invites_received")
        # 100 at once: the application may take longer than the 200 ms that 17.2.1 allows.
        table.respond(key, request, Reply(100))
        table.set(call, CallTimer.DECISION, table.config.decision_ms)
        if (expires_ms := _expires_ms(request)) is not None:
            table.set(call, CallTimer.EXPIRES, expires_ms)
        table.transactions.deliver(
            InviteReceived(
                dialog=call.dialog,
                called=SipUri.parse(request.uri or ""),
                request_uri=request.uri or "",
                caller=SipAddress(display, _caller_uri(uri), remote_tag),
                offer=offer,
                source=(flow.host, flow.port),
                transport=flow.transport,
                call_id=call.call_id,
            )
        )

    def cancelled(self, key: SipKey, request: SipMessage, invite: SipKey | None) -> None:
        """Take a CANCEL (RFC 3261 9.2): 200 to it, 487 to the INVITE if that still waits."""
        table = self._table
        if invite is None or not table.transactions.alive(invite):
            table.respond(key, request, Reply(481))
            return
        call = table.by_invite(invite)
        table.respond(key, request, Reply(200), tag=call.local_tag if call else None)
        if call is None or call.pending is None:
            return
        if call.state.awaits_us:
            self.refuse(call, Reply(487), EndCause.CANCELLED, "cancelled by the caller")
        else:
            self._refuse_pending(call, Reply(487))

    # -- from the application --------------------------------------------------------------------------

    def ring(self, call: Call, status: int) -> bool:
        """Send a provisional response."""
        if not 101 <= status <= 199:
            raise UsageError(f"{status} is no provisional status to ring with")
        if not self._table.move(call, Trigger.RING):
            return False
        call.last_ring = status
        self._table.set(call, CallTimer.DECISION, self._table.config.ringing_ms)
        self.ring_again(call)
        return True

    def ring_again(self, call: Call) -> None:
        """Send the last provisional response (again)."""
        if call.pending is not None and call.state is CallState.RINGING:
            self._respond(call, call.pending, Reply(call.last_ring))
            self._table.set(call, CallTimer.RING_AGAIN, RING_AGAIN_MS)

    def answer(self, call: Call, sdp: str | bytes) -> bool:
        """Accept the INVITE, re-INVITE or UPDATE that waits."""
        pending = call.pending
        if pending is None:
            return False
        description = SessionDescription.parse(sdp)
        if pending.offer is not None and len(pending.offer.media) != len(description.media):
            raise UsageError("an answer has as many streams as the offer (RFC 3264 6)")
        if call.description is not None:
            description = succeed(call.description, description)
        if pending.initial and not self._table.move(call, Trigger.ANSWER):
            return False
        call.description = description
        self._accept(call, pending, Reply(200, body=str(description).encode()))
        return True

    def reject(
        self,
        call: Call,
        reply: Reply,
        cause: EndCause = EndCause.REJECTED,
        warning: tuple[int, str] | None = None,
    ) -> bool:
        """Refuse the INVITE, re-INVITE or UPDATE that waits; a refused offer leaves the session as it was.

        488 says why (RFC 3261 21.4.26), in the words of ``warning`` where there are any.
        """
        if call.pending is None:
            return False
        if reply.status == 488:
            code, text = warning or _usual_warning(call.pending.offer)
            agent = f"{bracketed(self._table.config.host)}:{self._table.config.port}"
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            reply = Reply(
                488, reply.reason, (*reply.headers, ("Warning", f'{code} {agent} "{quoted}"')), reply.body
            )
        if call.pending.initial:
            return self.refuse(call, reply, cause, f"{reply.status} {reply.phrase}")
        self._refuse_pending(call, reply)
        return True

    # -- from both -------------------------------------------------------------------------------------

    def offered(self, call: Call, key: SipKey, request: SipMessage) -> SessionDescription | None:
        """Remember a re-INVITE or UPDATE until the application answers it."""
        offer = offer_in(request)
        call.pending = Pending(key, request, offer, initial=False)
        self._table.set(call, CallTimer.DECISION, self._table.config.offer_decision_ms)
        return offer

    def accept_refresh(self, call: Call, key: SipKey, request: SipMessage) -> None:
        """Accept a request without an offer that only refreshes the session or the target (RFC 3311 5.2)."""
        self._accept(call, Pending(key, request, None, initial=False), Reply(200))

    def refuse(self, call: Call, reply: Reply, cause: EndCause, detail: str) -> bool:
        """End an invitation with a final response other than 2xx."""
        if not call.state.awaits_us:
            return False
        self._refuse_pending(call, reply)
        return self._table.move(call, Trigger.REFUSE, cause, detail)

    def withdraw(self, call: Call) -> None:
        """Clear up when the dialog ends while an offer waits: 487 to it (RFC 3261 15.1.2)."""
        self._refuse_pending(call, Reply(487))

    def overdue(self, call: Call) -> None:
        """Decide when the application has not decided in time, or has let it ring for too long."""
        self._table.count("undecided")
        if call.state is CallState.RINGING:
            self.refuse(call, Reply(408), EndCause.UNANSWERED, "rang for too long")
        elif call.state is CallState.INVITED:
            self.refuse(call, Reply(500), EndCause.UNANSWERED, "the application did not decide")
        else:
            self._refuse_pending(call, Reply(500, headers=(("Retry-After", "1"),)))

    def expired(self, call: Call) -> None:
        """Stop when the caller's own limit has passed (RFC 3261 13.3.1)."""
        self.refuse(call, Reply(487), EndCause.CANCELLED, "the invitation expired")

    def _refuse_pending(self, call: Call, reply: Reply) -> None:
        if call.pending is not None:
            self._respond(call, call.pending, reply)
            self._decided(call)

    def _decided(self, call: Call) -> None:
        call.pending = None
        self._table.clear(call, CallTimer.DECISION)
        self._table.clear(call, CallTimer.RING_AGAIN)
        self._table.clear(call, CallTimer.EXPIRES)

    def _accept(self, call: Call, pending: Pending, reply: Reply) -> None:
        data = self._respond(call, pending, reply)
        self._decided(call)
        if pending.request.method != "INVITE":
            return
        table = self._table
        call.unacknowledged = Unacknowledged(
            cseq=cseq_of(pending.request),
            key=pending.key,
            data=data,
            interval_ms=table.config.t1_ms,
            answer_due=pending.offer is None,
            initial=pending.initial,
        )
        table.set(call, CallTimer.RESEND, table.config.t1_ms)
        table.set(call, CallTimer.ACK, 64 * table.config.t1_ms)

    def _respond(self, call: Call, pending: Pending, reply: Reply) -> bytes:
        """Write a response inside the dialog: those that make or refresh it say where we are (12.1.1)."""
        extra: list[Header] = []
        if reply.status < 300:
            extra += [("Record-Route", row) for row in pending.request.header_values("Record-Route")]
            extra.append(self._table.contact(call.flow.transport))
        if 200 <= reply.status < 300:
            extra += self._table.abilities()
        else:
            extra.append(("Server", self._table.config.user_agent))
        if reply.body:
            extra.append(("Content-Type", SDP_TYPE))
        data = write_response(pending.request, reply, tag=call.local_tag, extra=extra)
        self._table.transactions.respond(pending.key, data)
        return data


def _usual_warning(offer: SessionDescription | None) -> tuple[int, str]:
    code = refusal_warning(offer)
    return code, "Media type not available" if code == WARN_MEDIA_TYPE else "Incompatible media format"


def _untagged(value: str) -> str:
    """Return a From or To without its tag, and otherwise as it came."""
    head, angle, tail = value.rpartition(">")
    return head + angle + _TAG.sub("", tail).strip()


def _caller_uri(text: str) -> SipUri:
    """Read the caller's URI; one of another scheme names nobody that we can name (RFC 3323 4.1.1.3)."""
    try:
        return SipUri.parse(text)
    except UriError:
        return SipUri("sip", "anonymous", "anonymous.invalid")


def _expires_ms(request: SipMessage) -> int | None:
    """How long the caller will wait (RFC 3261 13.2.1), where it says."""
    text = (request.header("Expires") or "").strip()
    return int(text) * 1000 if text.isascii() and text.isdigit() and 0 < len(text) <= 5 else None
