"""What happens inside a dialog: ACK, BYE, new offers, and our own hanging up."""

from __future__ import annotations

from mediaserver._native import SipKey, SipMessage
from sipbridge.call_table import CallTable, CallTimer
from sipbridge.description import SessionDescription
from sipbridge.dialog import Call, CallState, Trigger, contact_of
from sipbridge.errors import SdpError
from sipbridge.events import EndCause, InviteConfirmed, OfferReceived
from sipbridge.incoming import IncomingCalls
from sipbridge.screening import offer_in
from sipbridge.wire import Flow, Reply, cseq_of, tag_of

GLARE_RETRY_S = "1"


class Sessions:
    """Requests inside dialogs, from both sides."""

    def __init__(self, table: CallTable, incoming: IncomingCalls) -> None:
        self._table = table
        self._incoming = incoming

    # -- from the network ------------------------------------------------------------------------------

    def requested(self, key: SipKey, request: SipMessage, flow: Flow) -> None:
        """Take a request with a To tag that has passed the checks."""
        table = self._table
        call = self._call_of(request)
        if call is None:
            table.count("unknown_dialog")
            table.respond(key, request, Reply(481))
            return
        if cseq_of(request) <= call.remote_cseq:
            # Out of order (RFC 3261 12.2.2); the same number on another branch went in a circle.
            table.respond(key, request, Reply(500, "CSeq out of order"))
            return
        call.heard(request, flow)
        match request.method:
            case "BYE":
                self._bye(call, key, request)
            case "INVITE" | "UPDATE":
                self._offer(call, key, request)
            case "OPTIONS":
                self._options(key, request)
            case _:
                table.respond(key, request, Reply(481))

    def acknowledged(self, ack: SipMessage) -> None:
        """Take an ACK for a 2xx (RFC 3261 13.2.2.4); one that matches nothing is dropped, never answered."""
        call = self._call_of(ack)
        if call is None or call.unacknowledged is None or cseq_of(ack) != call.unacknowledged.cseq:
            self._table.count("stray_acks")
            return
        done, call.unacknowledged = call.unacknowledged, None
        self._table.clear(call, CallTimer.RESEND)
        self._table.clear(call, CallTimer.ACK)
        if call.state is CallState.CLOSING:
            self._table.move(call, Trigger.ACK)
            self._table.send_bye(call)
            return
        if done.initial:
            self._table.move(call, Trigger.ACK)
        if call.state is CallState.CONFIRMED and (done.initial or done.answer_due):
            sdp = self._answer_in(ack) if done.answer_due else None
            self._table.transactions.deliver(InviteConfirmed(call.dialog, sdp, done.initial))

    # -- from the application --------------------------------------------------------------------------

    def hang_up(self, call: Call) -> bool:
        """End an answered call. Before its ACK, BYE has to wait (RFC 3261 15)."""
        if call.state is CallState.ANSWERED:
            return self._table.move(call, Trigger.HANG_UP, EndCause.LOCAL_BYE)
        if call.state is not CallState.CONFIRMED:
            return False
        self._incoming.withdraw(call)
        self._leave(call, Trigger.HANG_UP, EndCause.LOCAL_BYE, "")
        return True

    # -- deadlines -------------------------------------------------------------------------------------

    def resend(self, call: Call) -> None:
        """Repeat a 2xx that has no ACK yet: every T1, doubling up to T2 (RFC 3261 13.3.1.4)."""
        waiting = call.unacknowledged
        if waiting is None:
            return
        flow = self._table.transactions.flow_of(waiting.key) or call.flow
        self._table.transactions.send(flow, waiting.data)
        self._table.count("answers_repeated")
        waiting.interval_ms = min(2 * waiting.interval_ms, self._table.config.t2_ms)
        self._table.set(call, CallTimer.RESEND, waiting.interval_ms)

    def ack_overdue(self, call: Call) -> None:
        """64*T1 without an ACK: the session is not confirmed, so it is ended (RFC 3261 13.3.1.4, 14.2)."""
        call.unacknowledged = None
        self._table.clear(call, CallTimer.RESEND)
        self._table.count("ack_timeouts")
        self._incoming.withdraw(call)
        self._leave(call, Trigger.ACK_OVERDUE, EndCause.ACK_TIMEOUT, "no ACK for our answer")

    # -- inside ----------------------------------------------------------------------------------------

    def _leave(self, call: Call, trigger: Trigger, cause: EndCause, detail: str) -> None:
        call.unacknowledged = None
        self._table.clear(call, CallTimer.RESEND)
        self._table.clear(call, CallTimer.ACK)
        if self._table.move(call, trigger, cause, detail):
            self._table.send_bye(call)

    def _call_of(self, request: SipMessage) -> Call | None:
        tag = tag_of(request, "To")
        if tag is None:
            return None
        return self._table.find(request.header("Call-ID") or "", tag, tag_of(request, "From"))

    def _bye(self, call: Call, key: SipKey, request: SipMessage) -> None:
        """Note that the peer hangs up (RFC 3261 15.1.2), in an early dialog too: then the INVITE gets 487."""
        if call.state.awaits_us:
            self._table.respond(key, request, Reply(200))
            self._incoming.refuse(call, Reply(487), EndCause.REMOTE_BYE, "")
            return
        if not call.state.awaits_them:
            self._table.respond(key, request, Reply(200))
            self._incoming.withdraw(call)
            self._table.move(call, Trigger.REMOTE_BYE, EndCause.REMOTE_BYE)
            return
        self._table.respond(key, request, Reply(481))

    def _offer(self, call: Call, key: SipKey, request: SipMessage) -> None:
        """Take a re-INVITE or UPDATE (RFC 3261 14.2, RFC 3311 5.2)."""
        table = self._table
        if call.state in (CallState.CLOSING, CallState.LEAVING):
            table.respond(key, request, Reply(481))
            return
        if call.pending is not None:
            # An earlier offer of the peer is not answered yet.
            table.respond(key, request, Reply(500, headers=(("Retry-After", GLARE_RETRY_S),)))
            return
        if call.state is not CallState.CONFIRMED or call.unacknowledged is not None:
            # Our own offer or answer is still under way.
            table.respond(key, request, Reply(491))
            return
        target = contact_of(request)
        if target is not None:
            call.target = target
        if request.method == "UPDATE" and offer_in(request) is None:
            self._incoming.accept_refresh(call, key, request)
            return
        offer = self._incoming.offered(call, key, request)
        table.transactions.deliver(OfferReceived(call.dialog, offer))

    def _options(self, key: SipKey, request: SipMessage) -> None:
        self._table.respond(key, request, self._table.capabilities())

    def _answer_in(self, ack: SipMessage) -> SessionDescription | None:
        try:
            return offer_in(ack)
        except SdpError:
            self._table.count("malformed_answers")
            return None
