"""A user agent on a workbench: a scripted peer, a virtual clock, and readable records of what came out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from mediaserver._native import SipMessage
from sipbridge import (
    CallAnswered,
    CallEnded,
    CallFailed,
    CallRinging,
    DialogId,
    InviteConfirmed,
    InviteReceived,
    OfferReceived,
    SipAddress,
    SipEvent,
    SipUri,
    UserAgent,
    UserAgentConfig,
)
from sipbridge.sdp import SessionDescription, make_offer, negotiate
from sipbridge.wire import Action, Deliver, Flow, Send, cseq_of, tag_of

OUR_HOST, OUR_PORT = "192.0.2.1", 5060
PEER_HOST, PEER_PORT = "198.51.100.7", 5062
PEER_UDP = Flow("udp", PEER_HOST, PEER_PORT)
PEER_TCP = Flow("tcp", PEER_HOST, 40_000, 1)
SHOWN = ("Retry-After", "Unsupported", "Warning", "Accept", "Accept-Encoding", "Route")
OFFER = str(make_offer(PEER_HOST, 4000, ("PCMU", "PCMA")))
VIDEO_OFFER = "v=0\r\no=- 1 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\nm=video 4000 RTP/AVP 96\r\n"


def tokens() -> Iterator[str]:
    """Predictable tokens."""
    return (f"t{number}" for number in count(1))


def config(**changes: object) -> UserAgentConfig:
    """Defaults of the workbench."""
    values: dict[str, object] = {"host": OUR_HOST, "port": OUR_PORT, "user_agent": "bench"}
    return UserAgentConfig(**(values | changes))  # type: ignore[arg-type]


@dataclass
class Bench:
    """One agent and its scripted peer."""

    settings: UserAgentConfig = field(default_factory=config)
    flow: Flow = PEER_UDP
    now_ms: int = 0
    agent: UserAgent = field(init=False)
    events: list[SipEvent] = field(default_factory=list)
    sent: list[tuple[int, Flow, SipMessage]] = field(default_factory=list)
    fresh: list[tuple[int, Action]] = field(default_factory=list)
    """Actions since they were last looked at."""
    local_tag: str | None = None
    """The agent's tag as its responses showed it."""

    def __post_init__(self) -> None:
        source = tokens()
        self.agent = UserAgent(self.settings, lambda: next(source))

    # -- driving ---------------------------------------------------------------------------------------

    def take(self, actions: list[Action]) -> None:
        """Record actions."""
        for action in actions:
            self.fresh.append((self.now_ms, action))
            if isinstance(action, Send):
                message = SipMessage.parse(action.data)
                self.sent.append((self.now_ms, action.flow, message))
                if message.status is None:
                    self.local_tag = tag_of(message, "From")
                elif 100 < message.status < 300 and (message.header("CSeq") or "").endswith("INVITE"):
                    self.local_tag = tag_of(message, "To")
            else:
                self.events.append(action.event)

    def datagram(self, data: bytes, flow: Flow | None = None) -> None:
        """Let bytes arrive."""
        self.take(self.agent.datagram(data, flow or self.flow, self.now_ms))

    def wait(self, duration_ms: int) -> None:
        """Let time pass, timer by timer."""
        until_ms = self.now_ms + duration_ms
        while (due_ms := self.agent.next_ms()) is not None and due_ms <= until_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.take(self.agent.wake(self.now_ms))
        self.now_ms = until_ms

    def settle(self, limit_ms: int = 3_600_000) -> None:
        """Let time pass until nothing is in flight."""
        until_ms = self.now_ms + limit_ms
        while (due_ms := self.agent.next_ms()) is not None and due_ms <= until_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.take(self.agent.wake(self.now_ms))

    # -- what came out ---------------------------------------------------------------------------------

    @property
    def dialog(self) -> DialogId:
        """The dialog of the last event that has one."""
        return self.events[-1].dialog

    def statuses(self, method: str | None = None) -> list[int]:
        """Statuses that were sent."""
        return [
            message.status
            for _, _, message in self.sent
            if message.status is not None
            and (method is None or (message.header("CSeq") or "").endswith(method))
        ]

    def last(self) -> SipMessage:
        """The last message that was sent."""
        return self.sent[-1][2]

    def ended(self) -> list[CallEnded]:
        """Every CallEnded so far."""
        return [event for event in self.events if isinstance(event, CallEnded)]

    # -- what the peer sends ---------------------------------------------------------------------------

    def request(self, method: str, cseq: int, **options: str) -> bytes:
        """Write a request of the peer; options override parts, named like headers in lower case."""
        body = {"audio": OFFER, "video": VIDEO_OFFER}.get(options.get("sdp", ""), options.get("sdp", ""))
        inside = options.get("inside") or method in ("ACK", "BYE", "UPDATE", "INFO", "PRACK")
        to_tag = options.get("totag") or (self.local_tag if inside and self.local_tag else None)
        branch = options.get(
            "branch", f"z9hG4bK-{method if method not in ('ACK', 'CANCEL') else 'INVITE'}-{cseq}"
        )
        via = options.get(
            "via", f"SIP/2.0/{self.flow.transport.upper()} {PEER_HOST}:{PEER_PORT};branch={branch}"
        )
        headers = {
            "Via": via,
            "From": f"<sip:peer@{PEER_HOST}>;tag={options.get('fromtag', 'peer')}",
            "To": f"<sip:4930@{OUR_HOST}>" + (f";tag={to_tag}" if to_tag else ""),
            "Call-ID": options.get("callid", "call-1"),
            "CSeq": f"{cseq} {method}",
            "Max-Forwards": options.get("hops", "70"),
            "Contact": f"<sip:peer@{PEER_HOST}:{PEER_PORT}>",
        }
        if body:
            headers["Content-Type"] = "application/sdp"
        for name, value in options.items():
            if name[0].isupper():
                headers[name] = value
        lines = [f"{method} {options.get('uri', f'sip:4930@{OUR_HOST}')} SIP/2.0"]
        lines += [f"{name}: {value}" for name, value in headers.items() if value != "-"]
        lines.append(f"Content-Length: {len(body.encode())}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def peer(self, method: str, cseq: int, **options: str) -> None:
        """Let the peer send a request."""
        self.datagram(self.request(method, cseq, **options))

    def reply(self, status: int, method: str = "INVITE", **options: str) -> None:
        """Let the peer answer the agent's last request of a method."""
        request = next(
            message
            for _, _, message in reversed(self.sent)
            if message.status is None and message.method == method
        )
        to = request.header("To") or ""
        if status > 100 and "tag=" not in to:
            to += f";tag={options.get('totag', 'callee')}"
        body = {"audio": OFFER}.get(options.get("sdp", ""), options.get("sdp", ""))
        lines = [f"SIP/2.0 {status} {options.get('reason', 'Because')}"]
        lines += [f"Via: {via}" for via in request.header_values("Via")]
        lines += [f"From: {request.header('From')}", f"To: {to}", f"Call-ID: {request.header('Call-ID')}"]
        lines += [f"CSeq: {request.header('CSeq')}", f"Contact: <sip:callee@{PEER_HOST}:{PEER_PORT}>"]
        lines += [f"{name}: {value}" for name, value in options.items() if name[0].isupper()]
        lines += ["Content-Type: application/sdp"] if body else []
        lines.append(f"Content-Length: {len(body.encode())}")
        self.datagram(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    # -- what the application does ---------------------------------------------------------------------

    def invite(self) -> DialogId:
        """Place a call to the peer."""
        dialog, actions = self.agent.invite(
            SipUri("sip", "peer", PEER_HOST, PEER_PORT),
            SipAddress("Us", SipUri("sip", "us", OUR_HOST)),
            str(make_offer(OUR_HOST, 6000, ("PCMU", "PCMA"))),
            self.now_ms,
            self.flow.transport,
        )
        self.take(actions)
        return dialog

    def answer(self, dialog: DialogId, offer: SessionDescription | None) -> None:
        """Accept with an ordinary answer, or an offer where there was none."""
        if offer is None:
            description = make_offer(OUR_HOST, 6000, ("PCMU", "PCMA"))
        else:
            description = negotiate(offer, address=OUR_HOST, port=6000).answer
        self.take(self.agent.answer(dialog, str(description), self.now_ms))

    def established(self) -> DialogId:
        """Go through an ordinary call of the peer up to its ACK; returns the dialog."""
        self.peer("INVITE", 1, sdp="audio")
        received = next(event for event in self.events if isinstance(event, InviteReceived))
        self.answer(received.dialog, received.offer)
        self.peer("ACK", 1)
        return received.dialog


def describe(action: Action) -> str:
    """One action as a trace shows it."""
    if isinstance(action, Deliver):
        return f"  * {describe_event(action.event)}"
    message = SipMessage.parse(action.data)
    extra = [f"{name}={value}" for name in SHOWN for value in message.header_values(name)]
    if message.body:
        extra.append("sdp")
    if (action.flow.host, action.flow.port) not in ((PEER_HOST, PEER_PORT), (PEER_HOST, PEER_TCP.port)):
        extra.append(f"to {action.flow.host}:{action.flow.port}")
    if message.status is not None:
        what = f"{message.status} {message.reason} ({message.header('CSeq')})"
    else:
        what = f"{message.method} {message.uri} ({cseq_of(message)})"
    return f"<- {' '.join([what, *extra])}"


def describe_event(event: SipEvent) -> str:
    """One event as a trace shows it."""
    match event:
        case InviteReceived():
            return f"InviteReceived called={event.called} {'with' if event.offer else 'without'} offer"
        case InviteConfirmed():
            return f"InviteConfirmed{'' if event.initial else ' again'}{' with answer' if event.sdp else ''}"
        case OfferReceived():
            return f"OfferReceived {'with' if event.offer else 'without'} offer"
        case CallAnswered():
            return f"CallAnswered{' with answer' if event.answer else ''}"
        case CallRinging():
            return f"CallRinging {event.status}"
        case CallFailed():
            return f"CallFailed {event.status} {event.reason}"
        case CallEnded():
            return f"CallEnded {event.cause}{f' ({event.detail})' if event.detail else ''}"
