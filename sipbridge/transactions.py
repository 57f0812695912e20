"""Drives the transaction layer: keeps its timers, sends what it says, hands up what is for the user agent.

Every transaction ends: RFC 3261 17 bounds all but an INVITE in Proceeding, and that one is bounded by the
call that owns it, with `drop`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TypeVar

from mediaserver._native import SipKey, SipMessage, SipOutput, SipTransactions
from sipbridge.events import SipEvent
from sipbridge.timers import Deadlines
from sipbridge.uri import DEFAULT_PORT
from sipbridge.wire import Action, Deliver, Flow, Send, reply_flow

TIMER_NAMES = ("A", "B", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "Trying100")
OwnerT = TypeVar("OwnerT")


@dataclass(frozen=True, slots=True)
class TransactionTimer:
    """Names a deadline of a transaction."""

    key: SipKey
    timer: str


@dataclass(frozen=True, slots=True)
class Upcall:
    """What the layer hands to the user agent.

    ``kind``: request, ack, response, timeout, transport_error. ``owner`` is what `request` was given.
    """

    kind: str
    key: SipKey | None
    message: SipMessage | None
    flow: Flow
    owner: object | None


@dataclass(slots=True)
class _Live:
    flow: Flow
    owner: object | None = None
    merge: tuple[str, str, str] | None = None
    """(From tag, Call-ID, CSeq) of a server transaction outside dialogs, to recognise merged requests."""
    fallback_port: int | None = None


@dataclass(slots=True)
class Transactions:
    """The transactions in flight, their timers, and the actions that they cause."""

    t1_ms: int
    t2_ms: int
    t4_ms: int
    now_ms: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    deadlines: Deadlines = field(default_factory=Deadlines)
    actions: list[Action] = field(default_factory=list)
    _layer: SipTransactions = field(init=False)
    _live: dict[SipKey, _Live] = field(default_factory=dict)
    _merged: dict[tuple[str, str, str], SipKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._layer = SipTransactions(t1_ms=self.t1_ms, t2_ms=self.t2_ms, t4_ms=self.t4_ms)

    def __len__(self) -> int:
        return sum(self._layer.counts())

    @property
    def servers(self) -> int:
        """Server transactions in flight."""
        return self._layer.counts()[1]

    # -- actions ---------------------------------------------------------------------------------------

    def send(self, flow: Flow, data: bytes) -> None:
        """Put bytes on the wire outside any transaction."""
        self.actions.append(Send(flow, data))

    def deliver(self, event: SipEvent) -> None:
        """Tell the application."""
        self.actions.append(Deliver(event))

    def take_actions(self) -> list[Action]:
        """All actions since the last call, in order."""
        actions, self.actions = self.actions, []
        return actions

    # -- what happens ----------------------------------------------------------------------------------

    def receive(self, message: SipMessage, flow: Flow) -> list[Upcall]:
        """Take a message from the network."""
        kind, key, unmatched, outputs = self._layer.receive(message, flow.host, flow.port, flow.reliable)
        if key is None:
            if unmatched is None:
                return []
            what = "response" if unmatched.status is not None else "request"
            return [Upcall("ack" if unmatched.method == "ACK" else what, None, unmatched, flow, None)]
        if kind == "created":
            via = message.top_via()
            self._live[key] = _Live(reply_flow(message, flow), fallback_port=via[2] if via else None)
        elif message.status is not None and key in self._live:
            # The answer tells which connection the peer is on.
            self._live[key].flow = flow if flow.connection is not None else self._live[key].flow
        return self._run(key, outputs, came_from=flow)

    def request(self, data: bytes, flow: Flow, owner: object) -> SipKey:
        """Start a client transaction; ``owner`` comes back with every upcall of it."""
        key, outputs = self._layer.send_request(data, flow.reliable)
        self._live[key] = _Live(flow, owner)
        self._run(key, outputs)
        return key

    def respond(self, key: SipKey, data: bytes) -> None:
        """Answer a server transaction."""
        self._run(key, self._layer.send_response(key, data))

    def fire(self, timer: TransactionTimer) -> list[Upcall]:
        """Note that a deadline of a transaction has come."""
        return self._run(timer.key, self._layer.on_timer(timer.key, timer.timer))

    def transport_failed(self, flow: Flow) -> list[Upcall]:
        """Bytes for a flow could not be sent: the transactions on it are over (RFC 3261 17.1.4)."""
        upcalls = []
        for key in [key for key, live in self._live.items() if live.flow == flow]:
            upcalls += self._run(key, self._layer.on_transport_error(key))
        return upcalls

    def connection_closed(self, flow: Flow) -> list[Upcall]:
        """Answers still owed go to the peer's listening port; requests unanswered on it have failed."""
        upcalls = []
        ours = replace(flow, connection=None)
        for key in [key for key, live in self._live.items() if live.flow in (flow, ours)]:
            live = self._live[key]
            if live.owner is None:
                live.flow = live.flow.without_connection(live.fallback_port or DEFAULT_PORT)
            else:
                upcalls += self._run(key, self._layer.on_transport_error(key))
        return upcalls

    def drop(self, key: SipKey) -> None:
        """Forget a transaction that will not be answered."""
        if not self._layer.abandon(key):
            self._layer.on_transport_error(key)
        self._forget(key)

    # -- questions -------------------------------------------------------------------------------------

    def alive(self, key: SipKey) -> bool:
        """Whether the transaction exists."""
        return key in self._live

    def flow_of(self, key: SipKey) -> Flow | None:
        """Where the messages of a transaction go."""
        live = self._live.get(key)
        return live.flow if live else None

    def merged(self, key: SipKey, identity: tuple[str, str, str]) -> bool:
        """Whether this request came before over another path (RFC 3261 8.2.2.2); remembers it if not."""
        known = self._merged.get(identity)
        if known is not None and known != key and known in self._live:
            return True
        self._merged[identity] = key
        if key in self._live:
            self._live[key].merge = identity
        return False

    # -- inside ----------------------------------------------------------------------------------------

    def _run(self, key: SipKey, outputs: list[SipOutput], came_from: Flow | None = None) -> list[Upcall]:
        live = self._live.get(key)
        if live is None:
            return []
        upcalls = []
        for output in outputs:
            match output.kind:
                case "send" if output.data is not None:
                    self.send(live.flow, output.data)
                case "set_timer" if output.timer is not None and output.after_ms is not None:
                    self.deadlines.set(TransactionTimer(key, output.timer), self.now_ms + output.after_ms)
                case "clear_timer" if output.timer is not None:
                    self.deadlines.clear(TransactionTimer(key, output.timer))
                case "terminated":
                    self._forget(key)
                case kind:
                    upcalls.append(Upcall(kind, key, output.message, came_from or live.flow, live.owner))
        return upcalls

    def _forget(self, key: SipKey) -> None:
        for timer in TIMER_NAMES:
            self.deadlines.clear(TransactionTimer(key, timer))
        live = self._live.pop(key, None)
        if live is not None and live.merge is not None and self._merged.get(live.merge) == key:
            del self._merged[live.merge]
