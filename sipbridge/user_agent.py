"""The sans-IO core of SIP: messages, time and commands in; bytes to send and events out.

Every call takes ``now_ms`` and returns the actions it causes, in order. `next_ms` says when `wake` is due.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from mediaserver._native import SipKey, SipMessage, SipParseError, SipTransactions
from sipbridge.call_table import CallDeadline, CallTable, CallTimer, Owner, Purpose, UserAgentConfig
from sipbridge.dialog import Call, Trigger
from sipbridge.errors import UsageError
from sipbridge.events import DialogId, EndCause
from sipbridge.incoming import IncomingCalls
from sipbridge.outgoing import OutgoingCalls
from sipbridge.salvage import salvage
from sipbridge.screening import screen
from sipbridge.session import Sessions
from sipbridge.transactions import Transactions, TransactionTimer, Upcall
from sipbridge.uri import SipAddress, SipUri
from sipbridge.wire import Action, Flow, Header, Reply, clean, cseq_of, reply_flow, tag_of


class UserAgent:
    """All dialogs of one endpoint. ``tokens`` yields a fresh unguessable token at each call."""

    def __init__(self, config: UserAgentConfig, tokens: Callable[[], str]) -> None:
        self._config = config
        self._transactions = Transactions(config.t1_ms, config.t2_ms, config.t4_ms)
        self._table = CallTable(config, tokens, self._transactions)
        self._incoming = IncomingCalls(self._table)
        self._sessions = Sessions(self._table, self._incoming)
        self._outgoing = OutgoingCalls(self._table)

    # -- time ------------------------------------------------------------------------------------------

    def next_ms(self) -> int | None:
        """When `wake` is due."""
        return self._transactions.deadlines.next_ms()

    def wake(self, now_ms: int) -> list[Action]:
        """Do what is due."""
        self._transactions.now_ms = now_ms
        while (due := self._transactions.deadlines.pop_due(now_ms)) is not None:
            if isinstance(due, TransactionTimer):
                self._upcalls(self._transactions.fire(due))
            elif isinstance(due, CallDeadline):
                self._call_due(due)
        return self._transactions.take_actions()

    # -- the network -----------------------------------------------------------------------------------

    def datagram(self, data: bytes, flow: Flow, now_ms: int) -> list[Action]:
        """Take a UDP datagram; what is no SIP is counted, and answered where it is a request that says to whom."""
        if not data.strip(b"\r\n\0"):
            self._table.count("keepalives")
            return []
        try:
            message = SipMessage.parse(data, self._config.max_message_bytes)
        except SipParseError:
            self._table.count("malformed_datagrams")
            return self._malformed(salvage(data), flow, now_ms)
        return self.message(message, flow, now_ms)

    def message(self, message: SipMessage, flow: Flow, now_ms: int) -> list[Action]:
        """Take a message."""
        self._transactions.now_ms = now_ms
        self._table.count("messages_received")
        if message.status is not None and any(not tolerable for _, _, tolerable in message.problems()):
            self._table.count("malformed_responses")
            return []
        try:
            upcalls = self._transactions.receive(message, flow)
        except SipParseError:
            self._table.count("unroutable_requests")
            return []
        self._upcalls(upcalls)
        return self._transactions.take_actions()

    def transport_failed(self, flow: Flow, now_ms: int) -> list[Action]:
        """Bytes for this flow could not be sent."""
        self._transactions.now_ms = now_ms
        self._table.count("transport_failures")
        self._upcalls(self._transactions.transport_failed(flow))
        return self._transactions.take_actions()

    def connection_closed(self, flow: Flow, now_ms: int) -> list[Action]:
        """Note that a stream connection is gone. Dialogs go on: their next request opens a new one."""
        self._transactions.now_ms = now_ms
        for call in self._table.calls.values():
            if call.flow == flow:
                call.flow = flow.without_connection(flow.port)
        self._upcalls(self._transactions.connection_closed(flow))
        return self._transactions.take_actions()

    # -- the application -------------------------------------------------------------------------------

    def ring(self, dialog: DialogId, now_ms: int, status: int = 180) -> list[Action]:
        """Send a provisional response."""
        return self._command(dialog, now_ms, lambda call: self._incoming.ring(call, status))

    def answer(self, dialog: DialogId, sdp: str | bytes, now_ms: int) -> list[Action]:
        """Accept the INVITE, re-INVITE or UPDATE that waits."""
        return self._command(dialog, now_ms, lambda call: self._incoming.answer(call, sdp))

    def reject(
        self,
        dialog: DialogId,
        status: int,
        now_ms: int,
        reason: str | None = None,
        *,
        retry_after_s: int | None = None,
        warning: tuple[int, str] | None = None,
        contact: str | None = None,
    ) -> list[Action]:
        """Refuse the INVITE, re-INVITE or UPDATE that waits; ``warning``: code and words beside a 488.

        ``contact``: the URI that a 3xx sends the caller to (RFC 3261 21.3).
        """
        if not 300 <= status <= 699:
            raise UsageError(f"{status} is no status to refuse with")
        headers: list[Header] = []
        if retry_after_s is not None:
            headers.append(("Retry-After", str(max(0, retry_after_s))))
        if contact is not None:
            headers.append(("Contact", f"<{clean(contact)}>"))
        reply = Reply(status, reason, tuple(headers))
        return self._command(dialog, now_ms, lambda call: self._incoming.reject(call, reply, warning=warning))

    def hang_up(self, dialog: DialogId, now_ms: int) -> list[Action]:
        """End a call in whatever state it is."""

        def end(call: Call) -> bool:
            if call.state.awaits_us:
                return self._incoming.reject(call, Reply(480), EndCause.LOCAL_BYE)
            return self._outgoing.hang_up(call) if call.state.awaits_them else self._sessions.hang_up(call)

        return self._command(dialog, now_ms, end)

    def invite(
        self, target: SipUri, caller: SipAddress, offer: str | bytes, now_ms: int, transport: str = "udp"
    ) -> tuple[DialogId, list[Action]]:
        """Place a call."""
        self._transactions.now_ms = now_ms
        dialog = self._outgoing.invite(target, caller, offer, transport)
        return dialog, self._transactions.take_actions()

    # -- questions -------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._table.calls and not len(self._transactions)

    @property
    def draining(self) -> bool:
        """Whether some call has not yet been ended on the wire."""
        return bool(self._table.calls)

    def live_dialogs(self) -> list[DialogId]:
        """Dialogs that have not ended for the application."""
        return [dialog for dialog, call in self._table.calls.items() if call.state.live]

    def stats(self) -> dict[str, int]:
        """Counters and levels."""
        return {
            **self._transactions.counters,
            "dialogs": len(self._table.calls),
            "transactions": len(self._transactions),
            "deadlines": len(self._transactions.deadlines),
        }

    # -- inside ----------------------------------------------------------------------------------------

    def _command(self, dialog: DialogId, now_ms: int, act: Callable[[Call], bool]) -> list[Action]:
        """Do what the application asks; a dialog that is over or decided ignores it: the wire was faster."""
        self._transactions.now_ms = now_ms
        call = self._table.calls.get(dialog)
        if call is None or not act(call):
            self._table.count("late_commands")
        return self._transactions.take_actions()

    def _upcalls(self, upcalls: list[Upcall]) -> None:
        for upcall in upcalls:
            if isinstance(upcall.owner, Owner):
                self._client(upcall, upcall.owner)
            elif upcall.kind == "request" and upcall.message is not None:
                self._request(upcall, upcall.message)
            elif upcall.kind == "ack" and upcall.message is not None:
                self._ack(upcall.message)
            elif upcall.kind == "response" and upcall.message is not None:
                self._table.count("stray_responses")
                self._outgoing.repeated(upcall.message, upcall.flow)
            elif upcall.kind == "transport_error" and upcall.key is not None:
                call = self._table.by_pending(upcall.key)
                if call is not None:
                    self._table.move(
                        call, Trigger.REFUSE, EndCause.TRANSPORT_FAILED, "the caller cannot be reached"
                    )

    def _request(self, upcall: Upcall, request: SipMessage) -> None:
        key = upcall.key
        if key is None:
            self._table.count("unroutable_requests")
            return
        if self._overloaded(request):
            self._table.count("refused_transactions")
            retry = (("Retry-After", str(self._config.retry_after_s)),)
            self._turn_away(upcall, key, request, Reply(503, headers=retry), "overload")
            return
        refusal = screen(request)
        if refusal is not None:
            self._table.count(f"refused_{refusal.status}")
            self._table.respond(key, request, refusal)
            return
        if request.method == "CANCEL":
            self._incoming.cancelled(key, request, SipTransactions.cancelled(request))
        elif tag_of(request, "To") is not None:
            self._sessions.requested(key, request, upcall.flow)
        else:
            self._outside(upcall, request)

    def _malformed(self, request: SipMessage | None, flow: Flow, now_ms: int) -> list[Action]:
        """Answer what was saved of a request that cannot be parsed. No call is touched by it."""
        if request is None:
            return []
        self._transactions.now_ms = now_ms
        try:
            upcalls = self._transactions.receive(request, flow)
        except SipParseError:
            # What was saved reads as a request, but its Via cannot be written back: nothing to answer to.
            self._table.count("unroutable_requests")
            return []
        for upcall in upcalls:
            if upcall.kind == "request" and upcall.key is not None and upcall.message is not None:
                self._table.count("refused_400")
                self._turn_away(
                    upcall, upcall.key, upcall.message, Reply(400, "Malformed Message"), "malformed"
                )
        return self._transactions.take_actions()

    def _turn_away(self, upcall: Upcall, key: SipKey, request: SipMessage, reply: Reply, tag: str) -> None:
        """Refuse without keeping a transaction (RFC 3261 8.2.7): it would cost more than the answer to a repetition."""
        data = self._table.response(request, reply, tag)
        self._transactions.drop(key)
        self._transactions.send(reply_flow(request, upcall.flow), data)

    def _outside(self, upcall: Upcall, request: SipMessage) -> None:
        """Take a request outside any dialog."""
        key = upcall.key
        if key is None:
            return
        identity = (tag_of(request, "From") or "", request.header("Call-ID") or "", str(cseq_of(request)))
        if self._transactions.merged(key, identity):
            self._table.count("merged_requests")
            self._table.respond(key, request, Reply(482))
        elif request.method == "INVITE":
            self._incoming.invited(key, request, upcall.flow)
        elif request.method == "OPTIONS":
            self._table.respond(key, request, self._table.capabilities())
        else:
            self._table.respond(key, request, Reply(481))

    def _overloaded(self, request: SipMessage) -> bool:
        """Over the limit nothing new is taken on; what frees resources still is, up to twice the limit."""
        limit = self._config.max_transactions
        if request.method in ("BYE", "CANCEL"):
            limit *= 2
        return self._transactions.servers > limit

    def _ack(self, ack: SipMessage) -> None:
        if any(not tolerable for _, _, tolerable in ack.problems()):
            self._table.count("stray_acks")
            return
        self._sessions.acknowledged(ack)

    def _client(self, upcall: Upcall, owner: Owner) -> None:
        """Take the fate of a request of ours."""
        call = self._table.calls.get(owner.dialog)
        if call is None:
            return
        match owner.purpose:
            case Purpose.INVITE:
                if upcall.kind == "response" and upcall.message is not None:
                    self._outgoing.responded(call, upcall.message, upcall.flow)
                else:
                    self._outgoing.unanswered(call, transport_failed=upcall.kind == "transport_error")
            case Purpose.BYE:
                final = upcall.message is None or (upcall.message.status or 0) >= 200
                if final:
                    self._table.count("byes_answered" if upcall.kind == "response" else "byes_unanswered")
                    self._table.move(call, Trigger.BYE_DONE)
            case Purpose.CANCEL | Purpose.FORK_BYE:
                pass
            case _:
                assert_never(owner.purpose)

    def _call_due(self, due: CallDeadline) -> None:
        call = self._table.calls.get(due.dialog)
        if call is None:
            return
        match due.timer:
            case CallTimer.DECISION:
                self._incoming.overdue(call)
            case CallTimer.RING_AGAIN:
                self._incoming.ring_again(call)
            case CallTimer.EXPIRES:
                self._incoming.expired(call)
            case CallTimer.RESEND:
                self._sessions.resend(call)
            case CallTimer.ACK:
                self._sessions.ack_overdue(call)
            case CallTimer.RINGING:
                self._outgoing.rang_too_long(call)
            case CallTimer.CANCEL:
                self._outgoing.cancel_overdue(call)
            case _:
                assert_never(due.timer)
