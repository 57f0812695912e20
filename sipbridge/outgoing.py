"""Calls that we place: INVITE, what comes back, ACK and CANCEL."""

from __future__ import annotations

from mediaserver._native import SipMessage, SipParseError
from sipbridge.call_table import CallTable, CallTimer, Owner, Purpose
from sipbridge.description import SessionDescription
from sipbridge.dialog import Call, CallState, Invitation, Trigger, contact_of, recorded_routes
from sipbridge.errors import SdpError, UriError, UsageError
from sipbridge.events import CallAnswered, CallFailed, CallRinging, DialogId, EndCause
from sipbridge.screening import offer_in
from sipbridge.uri import SipAddress, SipUri
from sipbridge.wire import ALLOW, SDP_TYPE, Flow, Header, cseq_of, flow_towards, tag_of, write_request

MAX_FORKS = 8
TRANSPORTS = ("udp", "tcp")


class OutgoingCalls:
    """The client side of an invitation."""

    def __init__(self, table: CallTable) -> None:
        self._table = table

    # -- from the application --------------------------------------------------------------------------

    def invite(self, target: SipUri, caller: SipAddress, offer: str | bytes, transport: str) -> DialogId:
        """Place a call."""
        table = self._table
        flow = flow_towards(target, transport)
        if target.scheme != "sip" or flow.transport not in TRANSPORTS:
            raise UsageError(f"{target} cannot be called over {flow.transport}: only sip: over UDP and TCP")
        if table.full:
            raise UsageError(f"more than {table.config.max_dialogs} dialogs")
        description = SessionDescription.parse(offer)
        local = str(SipAddress(caller.display, caller.uri))
        remote = str(SipAddress(None, target))
        call_id, local_tag = f"{table.tokens()}@{table.config.host}", table.tokens()
        headers = (
            table.via(flow.transport),
            ("From", f"{local};tag={local_tag}"),
            ("To", remote),
            ("Call-ID", call_id),
        )
        data = write_request(
            "INVITE",
            str(target),
            [
                *headers,
                ("CSeq", "1 INVITE"),
                table.contact(flow.transport),
                ("Allow", ALLOW),
                ("Supported", ""),
                ("User-Agent", table.config.user_agent),
                ("Content-Type", SDP_TYPE),
            ],
            str(description).encode(),
        )
        call = Call(
            dialog=DialogId(table.tokens()),
            state=CallState.CALLING,
            call_id=call_id,
            local_tag=local_tag,
            remote_tag=None,
            local=local,
            remote=remote,
            target=str(target),
            flow=flow,
            local_cseq=1,
            description=description,
        )
        table.add(call)
        table.count("invites_sent")
        key = table.transactions.request(data, flow, Owner(call.dialog, Purpose.INVITE))
        call.invitation = Invitation(key, str(target), headers, 1, flow)
        return call.dialog

    def hang_up(self, call: Call) -> bool:
        """Give up an unanswered call: CANCEL, once the other side has shown itself (RFC 3261 9.1)."""
        heard = call.state is CallState.PROCEEDING
        if not call.state.awaits_them or not self._table.move(call, Trigger.HANG_UP, EndCause.CANCELLED):
            return False
        self._table.clear(call, CallTimer.RINGING)
        if heard:
            self._send_cancel(call)
        return True

    # -- from the network ------------------------------------------------------------------------------

    def responded(self, call: Call, response: SipMessage, flow: Flow) -> None:
        """Take a response to our INVITE."""
        status = response.status or 0
        if status < 200:
            self._provisional(call, status)
        elif status < 300:
            self._success(call, response, flow)
        elif call.state.awaits_them:
            self._failed(call, status, response.reason or "", EndCause.FAILED)

    def unanswered(self, call: Call, *, transport_failed: bool) -> None:
        """Note that the INVITE transaction ended without a response."""
        if not call.state.awaits_them:
            return
        if transport_failed:
            self._failed(call, 503, "the transport failed", EndCause.TRANSPORT_FAILED)
        else:
            self._failed(call, 408, "no response", EndCause.FAILED)

    def repeated(self, response: SipMessage, flow: Flow) -> None:
        """Take a 2xx after its transaction: its ACK was lost (RFC 6026 7.2 leaves it to the dialog)."""
        tag = tag_of(response, "From")
        if response.status is None or response.status // 100 != 2 or tag is None:
            return
        call = self._table.find(response.header("Call-ID") or "", tag, tag_of(response, "To"))
        if call is not None and call.invitation is not None and cseq_of(response) == call.invitation.cseq:
            self._success(call, response, flow)

    # -- deadlines -------------------------------------------------------------------------------------

    def rang_too_long(self, call: Call) -> None:
        """Nobody answers: tell the application and cancel."""
        if call.state is CallState.PROCEEDING:
            self._table.transactions.deliver(CallFailed(call.dialog, 408, "rang for too long"))
            self._table.move(call, Trigger.HANG_UP, EndCause.FAILED, "rang for too long")
            self._send_cancel(call)

    def cancel_overdue(self, call: Call) -> None:
        """64*T1 after CANCEL the INVITE counts as cancelled, answered or not (RFC 3261 9.1)."""
        if call.invitation is not None and call.state is CallState.CANCELLING:
            self._table.transactions.drop(call.invitation.key)
            self._table.move(call, Trigger.FAILURE)

    # -- inside ----------------------------------------------------------------------------------------

    def _provisional(self, call: Call, status: int) -> None:
        if call.state is CallState.CALLING:
            self._table.set(call, CallTimer.RINGING, self._table.config.ringing_ms)
        if not self._table.move(call, Trigger.PROVISIONAL):
            return
        if call.state is CallState.CANCELLING:
            self._send_cancel(call)
        elif status > 100:
            self._table.transactions.deliver(CallRinging(call.dialog, status))

    def _success(self, call: Call, response: SipMessage, flow: Flow) -> None:
        invitation = call.invitation
        if invitation is None:
            return
        tag = tag_of(response, "To") or ""
        if tag in invitation.acks:
            self._table.transactions.send(*invitation.acks[tag])
            return
        if len(invitation.acks) >= MAX_FORKS:
            self._table.count("forks_ignored")
            return
        if not call.state.awaits_them:
            self._fork(call, response, flow, tag)
            return
        self._establish(call, response, flow, tag)
        invitation.acks[tag] = self._ack(call, invitation)
        wanted = call.state is not CallState.CANCELLING
        for timer in (CallTimer.RINGING, CallTimer.CANCEL):
            self._table.clear(call, timer)
        self._table.move(call, Trigger.SUCCESS)
        if not wanted:
            self._table.send_bye(call)
            return
        try:
            self._table.transactions.deliver(CallAnswered(call.dialog, offer_in(response)))
        except SdpError as error:
            self._table.count("malformed_answers")
            self._table.move(call, Trigger.HANG_UP, EndCause.SESSION_FAILED, f"malformed answer: {error}")
            self._table.send_bye(call)

    def _establish(self, call: Call, response: SipMessage, flow: Flow, tag: str) -> None:
        """Make the dialog of a 2xx (RFC 3261 12.1.2)."""
        call.remote_tag = tag or None
        call.flow = flow
        try:
            call.routes = tuple(reversed(recorded_routes(response)))
            call.target = contact_of(response) or call.target
        except (SipParseError, UriError):
            self._table.count("malformed_responses")

    def _ack(self, call: Call, invitation: Invitation) -> tuple[Flow, bytes]:
        flow, data = self._table.dialog_request(call, "ACK", invitation.cseq)
        self._table.transactions.send(flow, data)
        return flow, data

    def _fork(self, call: Call, response: SipMessage, flow: Flow, tag: str) -> None:
        """Another branch of a forked INVITE has answered as well: accept and hang up (RFC 3261 13.2.2.4)."""
        if call.invitation is None:
            return
        self._table.count("forks_hung_up")
        branch = Call(
            dialog=call.dialog,
            state=CallState.LEAVING,
            call_id=call.call_id,
            local_tag=call.local_tag,
            remote_tag=None,
            local=call.local,
            remote=call.remote,
            target=call.target,
            flow=call.flow,
            local_cseq=call.invitation.cseq,
        )
        self._establish(branch, response, flow, tag)
        call.invitation.acks[tag] = self._ack(branch, call.invitation)
        self._table.send_bye(branch, Purpose.FORK_BYE)

    def _failed(self, call: Call, status: int, reason: str, cause: EndCause) -> None:
        if call.state.live:
            self._table.transactions.deliver(CallFailed(call.dialog, status, reason))
        self._table.move(call, Trigger.FAILURE, cause, f"{status} {reason}".strip())

    def _send_cancel(self, call: Call) -> None:
        """CANCEL repeats the INVITE's Via, From, To and Call-ID (RFC 3261 9.1)."""
        invitation = call.invitation
        if invitation is None or invitation.cancel_sent:
            return
        invitation.cancel_sent = True
        headers: list[Header] = [*invitation.headers, ("CSeq", f"{invitation.cseq} CANCEL")]
        data = write_request("CANCEL", invitation.uri, headers)
        flow = self._table.transactions.flow_of(invitation.key) or invitation.flow
        self._table.transactions.request(data, flow, Owner(call.dialog, Purpose.CANCEL))
        self._table.set(call, CallTimer.CANCEL, 64 * self._table.config.t1_ms)
