"""Whatever happens in whatever order: one final response, one CallEnded, and nothing left over."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from functools import partial

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mediaserver._native import SipMessage
from sipbridge import CallEnded, CallFailed, InviteReceived, OfferReceived, SipEvent, UserAgent
from sipbridge.dialog import TRANSITIONS, CallState, Trigger
from sipbridge.sdp import make_offer, negotiate
from sipbridge.uri import SipAddress, SipUri
from sipbridge.wire import Action, Flow, Send
from tests.sipbridge.bench import PEER_TCP, PEER_UDP, Bench, config, tokens


def test_nothing_leads_back_to_the_living() -> None:
    for (state, _), after in TRANSITIONS.items():
        assert state.live or not after.live


def test_every_state_can_be_left_and_only_gone_is_final() -> None:
    states = {state for state, _ in TRANSITIONS}
    assert states == set(CallState) - {CallState.GONE}
    for state in states:
        seen, frontier = {state}, [state]
        while frontier:
            current = frontier.pop()
            reached = {after for (before, _), after in TRANSITIONS.items() if before is current} - seen
            seen |= reached
            frontier += reached
        assert CallState.GONE in seen


def test_an_invitation_is_answered_once() -> None:
    finals = (Trigger.ANSWER, Trigger.REFUSE)
    for (state, trigger), after in TRANSITIONS.items():
        if trigger in finals:
            assert state.awaits_us
            assert not after.awaits_us


# -- one agent, a wild peer and a wild application --------------------------------------------------------

METHODS = ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "INFO"]
STEPS = st.one_of(
    st.tuples(
        st.just("peer"),
        st.sampled_from(METHODS),
        st.integers(1, 4),
        st.sampled_from(["", "audio", "video", "nonsense"]),
        st.booleans(),
        st.sampled_from(["call-1", "call-2"]),
    ),
    st.tuples(st.just("reply"), st.sampled_from([100, 180, 200, 302, 486, 503]), st.sampled_from(["a", "b"])),
    st.tuples(st.just("reply_to"), st.sampled_from(["BYE", "CANCEL"]), st.sampled_from([200, 481])),
    st.tuples(
        st.just("app"), st.sampled_from(["ring", "answer", "reject", "hang_up", "invite"]), st.integers(0, 5)
    ),
    st.tuples(st.just("wait"), st.sampled_from([1, 200, 501, 4_000, 33_000, 200_000])),
    st.tuples(st.just("closed")),
    st.tuples(st.just("unreachable")),
)


def step(bench: Bench, action: tuple[object, ...]) -> None:
    match action:
        case ("peer", str(method), int(cseq), str(sdp), bool(inside), str(call_id)):
            options = {"inside": "1"} if inside and bench.local_tag else {}
            bench.peer(method, cseq, sdp=sdp, callid=call_id, **options)
        case ("reply", int(status), str(tag)):
            if any(message.method == "INVITE" for _, _, message in bench.sent):
                bench.reply(status, totag=tag, sdp="audio" if status == 200 else "")
        case ("reply_to", str(method), int(status)):
            if any(message.method == method for _, _, message in bench.sent):
                bench.reply(status, method)
        case ("app", str(command), int(which)):
            application(bench, command, which)
        case ("wait", int(duration_ms)):
            bench.wait(duration_ms)
        case ("closed",):
            bench.take(bench.agent.connection_closed(bench.flow, bench.now_ms))
        case ("unreachable",):
            if bench.sent:
                bench.take(bench.agent.transport_failed(bench.sent[-1][1], bench.now_ms))
        case _:
            raise AssertionError(action)


def application(bench: Bench, command: str, which: int) -> None:
    if command == "invite":
        bench.invite()
        return
    if not bench.events:
        return
    dialog = bench.events[which % len(bench.events)].dialog
    match command:
        case "ring":
            bench.take(bench.agent.ring(dialog, bench.now_ms))
        case "answer":
            asked = [
                e
                for e in bench.events
                if isinstance(e, InviteReceived | OfferReceived) and e.dialog == dialog
            ]
            offer = asked[-1].offer if asked else None
            if offer is None or any(m.kind == "audio" for m in offer.media):
                bench.answer(dialog, offer)
        case "reject":
            bench.take(bench.agent.reject(dialog, 488, bench.now_ms))
        case "hang_up":
            bench.take(bench.agent.hang_up(dialog, bench.now_ms))


def check(bench: Bench, *, one_transaction: bool) -> None:
    """The invariants, after everything has settled."""
    assert bench.agent.idle, bench.agent.stats()
    assert bench.agent.stats()["deadlines"] == 0
    ends = Counter(event.dialog for event in bench.events if isinstance(event, CallEnded))
    begun = {event.dialog for event in bench.events}
    assert ends == Counter(begun)
    for dialog in begun:
        last = [event for event in bench.events if event.dialog == dialog][-1]
        assert isinstance(last, CallEnded)
    failed = Counter(event.dialog for event in bench.events if isinstance(event, CallFailed))
    assert all(times == 1 for times in failed.values())
    finals: dict[tuple[str, str, str], set[bytes]] = {}
    for _, _, message in bench.sent:
        if message.status is not None and message.status >= 200:
            via, call_id = message.header("Via") or "", message.header("Call-ID") or ""
            finals.setdefault((via, call_id, message.header("CSeq") or ""), set()).add(message.encode())
    if not one_transaction:
        return
    for (_, call_id, cseq), texts in finals.items():
        # The same request after its transaction (T4 after the ACK) is a new one; within it, one answer, repeated or not.
        spans = [at for at, _, message in bench.sent if message.encode() in texts]
        if max(spans) - min(spans) < 5_000:
            assert len(texts) == 1, (call_id, cseq, texts)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=25), st.booleans())
@example(
    [("peer", "INVITE", 1, "audio", False, "call-1"), ("app", "answer", 0), ("app", "hang_up", 0)], False
)
def test_random_events(steps: list[tuple[object, ...]], tcp: bool) -> None:
    bench = Bench(flow=PEER_TCP if tcp else PEER_UDP)
    for one in steps:
        step(bench, one)
    for dialog in bench.agent.live_dialogs():
        bench.take(bench.agent.hang_up(dialog, bench.now_ms))
    bench.settle()
    # Reliable transports and dead ones end transactions at once.
    check(bench, one_transaction=not tcp and ("unreachable",) not in steps)


# -- two agents and a bad network ------------------------------------------------------------------------


def name(host: str, source: Iterator[str]) -> str:
    """A token that no other agent yields."""
    return f"{host}-{next(source)}"


class Network:
    """Two agents, a virtual clock, and datagrams that are lost, doubled and overtake each other, by seed."""

    def __init__(self, seed: int, loss: float) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.now_ms = 0
        self.flows = [Flow("udp", "192.0.2.1", 5060), Flow("udp", "192.0.2.2", 5060)]
        self.agents: list[UserAgent] = []
        for flow in self.flows:
            source = tokens()
            self.agents.append(
                UserAgent(config(host=flow.host, port=flow.port), partial(name, flow.host, source))
            )
        self.events: list[list[SipEvent]] = [[], []]
        self.air: list[tuple[int, int, int, bytes]] = []

    def take(self, who: int, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                copies = self.random.choice([1, 1, 1, 2])
                for _ in range(copies):
                    if self.random.random() >= self.loss:
                        at_ms = self.now_ms + self.random.randrange(1, 400)
                        self.air.append((at_ms, self.random.getrandbits(30), 1 - who, action.data))
            else:
                self.events[who].append(action.event)
                self.react(who, action.event)

    def react(self, who: int, event: SipEvent) -> None:
        agent = self.agents[who]
        if isinstance(event, InviteReceived):
            assert event.offer is not None
            answer = negotiate(event.offer, address="192.0.2.2", port=6000).answer
            self.take(who, agent.ring(event.dialog, self.now_ms))
            self.take(who, agent.answer(event.dialog, str(answer), self.now_ms))

    def run(self, until_ms: int) -> None:
        while True:
            due = [(at, 2, order, who) for at, order, who, _ in self.air]
            due += [(at, 1, 0, who) for who, a in enumerate(self.agents) if (at := a.next_ms()) is not None]
            if not due or min(due)[0] > until_ms:
                self.now_ms = until_ms
                return
            at_ms, kind, order, who = min(due)
            self.now_ms = max(self.now_ms, at_ms)
            if kind == 1:
                self.take(who, self.agents[who].wake(self.now_ms))
                continue
            packet = next(p for p in self.air if p[:3] == (at_ms, order, who))
            self.air.remove(packet)
            self.take(who, self.agents[who].datagram(packet[3], self.flows[1 - who], self.now_ms))


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.95]),
    st.sampled_from([(0, 50), (0, 5_000), (1, 5_000), (0, 200), (1, 700)]),
)
def test_a_bad_network(seed: int, loss: float, hang_up: tuple[int, int]) -> None:
    network = Network(seed, loss)
    offer = make_offer("192.0.2.1", 4000, ("PCMU",))
    target, caller = SipUri("sip", "b", "192.0.2.2"), SipAddress(None, SipUri("sip", "a", "192.0.2.1"))
    dialog, actions = network.agents[0].invite(target, caller, str(offer), 0)
    network.take(0, actions)
    who, at_ms = hang_up
    network.run(at_ms)
    for live in network.agents[who].live_dialogs():
        network.take(who, network.agents[who].hang_up(live, network.now_ms))
    network.run(at_ms + 60_000)
    for side in (0, 1):
        for live in network.agents[side].live_dialogs():
            network.take(side, network.agents[side].hang_up(live, network.now_ms))
    network.run(at_ms + 600_000)
    for agent_events, agent in zip(network.events, network.agents, strict=True):
        assert agent.idle
        ends = Counter(event.dialog for event in agent_events if isinstance(event, CallEnded))
        assert ends == Counter({event.dialog for event in agent_events})
    assert any(event.dialog == dialog and isinstance(event, CallEnded) for event in network.events[0])
    if loss == 0.0 and at_ms == 5_000:
        names = [[type(event).__name__ for event in events] for events in network.events]
        assert names[0][-2:] == ["CallAnswered", "CallEnded"]
        assert names[1] == ["InviteReceived", "InviteConfirmed", "CallEnded"]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_messages_never_break_the_agent(data: st.DataObject) -> None:
    bench = Bench()
    if data.draw(st.booleans()):
        bench.established()
    method = data.draw(st.sampled_from(METHODS))
    original = bytearray(bench.request(method, 2, sdp="audio", inside="1"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(original) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "drop line"]))
        if kind == "flip":
            original[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del original[at : at + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            original[at:at] = data.draw(
                st.binary(max_size=20) | st.sampled_from([b";tag=", b"\r\n", b'"', b"<", b","])
            )
        else:
            lines = bytes(original).split(b"\r\n")
            del lines[data.draw(st.integers(0, len(lines) - 1))]
            original[:] = b"\r\n".join(lines)
        if not original:
            return
    bench.datagram(bytes(original))
    for _, _, message in bench.sent:
        assert SipMessage.parse(message.encode()).header("CSeq") == message.header("CSeq")
    for dialog in bench.agent.live_dialogs():
        bench.take(bench.agent.hang_up(dialog, bench.now_ms))
    bench.settle()
    assert bench.agent.idle


def test_a_malformed_request_whose_via_cannot_be_written_back_is_counted_and_dropped() -> None:
    bench = Bench()
    request = bench.request("BYE", 2, inside="1").replace(b"Via: ", b"Via:\x00", 1)
    bench.datagram(request.replace(b"Max-Forwards", b"Max Forwards", 1))
    assert bench.sent == []
    assert bench.agent.stats()["unroutable_requests"] == 1


@given(st.binary(max_size=600))
def test_garbage_is_counted_and_dropped(data: bytes) -> None:
    bench = Bench()
    bench.datagram(data)
    assert not bench.sent
    assert not bench.events
    assert bench.agent.idle
    assert sum(bench.agent.stats().get(name, 0) for name in ("malformed_datagrams", "keepalives")) == 1
