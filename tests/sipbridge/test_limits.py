"""What is bounded stays bounded, under a flood too."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from sipbridge import CallEnded, InviteConfirmed, InviteReceived, SipUri, UsageError
from sipbridge.endpoint import _reachable
from sipbridge.sdp import SessionDescription
from sipbridge.timers import Deadlines
from sipbridge.uri import SipAddress
from sipbridge.wire import Flow
from tests.sipbridge.bench import OFFER, OUR_HOST, Bench, config


def test_dialogs() -> None:
    bench = Bench(config(max_dialogs=5))
    for number in range(50):
        bench.peer("INVITE", 1, callid=f"c{number}", branch=f"z9hG4bK{number}", sdp="audio")
    assert bench.agent.stats()["dialogs"] == 5
    assert bench.statuses().count(503) == 45
    assert all(m.header("Retry-After") == "5" for _, _, m in bench.sent if m.status == 503)
    with pytest.raises(UsageError):
        bench.invite()
    bench.settle()
    assert bench.agent.idle
    assert len(bench.ended()) == 5


def test_transactions() -> None:
    bench = Bench(config(max_transactions=20))
    for number in range(500):
        bench.peer("OPTIONS", 1, callid=f"c{number}", branch=f"z9hG4bK{number}")
    assert bench.agent.stats()["transactions"] == 20
    assert bench.statuses().count(503) == 480
    bench.settle()
    assert bench.agent.idle


def test_what_ends_calls_gets_through_when_nothing_else_does() -> None:
    bench = Bench(config(max_transactions=3))
    bench.peer("INVITE", 1, sdp="audio")
    for number in range(10):
        bench.peer("OPTIONS", 1, callid=f"c{number}", branch=f"z9hG4bK{number}")
    bench.peer("CANCEL", 1)
    assert [type(event) for event in bench.events] == [InviteReceived, CallEnded]


def test_deadlines_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for at_ms in range(100_000):
        deadlines.set("one", at_ms)
    assert len(deadlines) == 1
    assert len(deadlines._heap) < 1_000
    assert deadlines.next_ms() == 99_999
    assert deadlines.pop_due(99_998) is None
    assert deadlines.pop_due(99_999) == "one"
    assert deadlines.next_ms() is None


def test_the_application_is_told_what_it_may_not_do() -> None:
    bench = Bench()
    bench.peer("INVITE", 1, sdp="audio")
    dialog = bench.dialog
    with pytest.raises(UsageError):
        bench.agent.ring(dialog, 0, 200)
    with pytest.raises(UsageError):
        bench.agent.reject(dialog, 200, 0)
    two_streams = SessionDescription.parse(OFFER + "m=video 0 RTP/AVP 96\r\n")
    with pytest.raises(UsageError):
        bench.agent.answer(dialog, str(two_streams), 0)
    caller = SipAddress(None, SipUri("sip", "us", OUR_HOST))
    for target, transport in ((SipUri("tel", "+49301", ""), "udp"), (SipUri("sip", "x", "y"), "tls")):
        with pytest.raises(UsageError):
            bench.agent.invite(target, caller, OFFER, 0, transport)
    assert bench.agent.stats()["dialogs"] == 1


def test_a_reason_cannot_smuggle_a_header() -> None:
    bench = Bench()
    bench.peer("INVITE", 1, sdp="audio")
    bench.take(bench.agent.reject(bench.dialog, 404, 0, "no\r\nX-Evil: yes\r\n\r\n"))
    assert bench.last().header("X-Evil") is None
    assert bench.last().status == 404


def test_a_display_name_cannot_smuggle_a_header() -> None:
    bench = Bench()
    caller = SipAddress('x"\r\nX-Evil: yes\r\nY: "', SipUri("sip", "us", OUR_HOST))
    _, actions = bench.agent.invite(SipUri("sip", "b", "198.51.100.7", 5062), caller, OFFER, 0)
    bench.take(actions)
    assert bench.last().header("X-Evil") is None


def test_the_session_keeps_its_origin_and_counts_its_versions() -> None:
    bench = Bench()
    bench.established()
    first = SessionDescription.parse(bench.last().body)
    bench.peer("INVITE", 2, inside="1", sdp="audio")
    bench.answer(bench.dialog, SessionDescription.parse(OFFER))
    assert SessionDescription.parse(bench.last().body).origin == first.origin
    bench.peer("ACK", 2)
    bench.peer("INVITE", 3, inside="1", sdp=OFFER.replace("sendrecv", "sendonly"))
    bench.answer(bench.dialog, SessionDescription.parse(OFFER.replace("sendrecv", "sendonly")))
    third = SessionDescription.parse(bench.last().body).origin
    assert third.session_id == first.origin.session_id
    assert third.version == first.origin.version + 1


def test_an_answer_in_the_ack_that_cannot_be_read_is_none() -> None:
    bench = Bench()
    bench.peer("INVITE", 1)
    bench.answer(bench.dialog, None)
    bench.peer("ACK", 1, sdp="nonsense")
    confirmed = bench.events[-1]
    assert isinstance(confirmed, InviteConfirmed)
    assert confirmed.sdp is None
    assert bench.agent.stats()["malformed_answers"] == 1


def test_a_callee_cannot_hang_up_what_it_has_not_answered() -> None:
    bench = Bench()
    bench.invite()
    bench.reply(180)
    call_id = bench.sent[0][2].header("Call-ID") or ""
    bench.peer("BYE", 1, callid=call_id, fromtag="callee")
    assert bench.statuses("BYE") == [481]
    assert not bench.ended()


def test_a_late_2xx_is_acknowledged_after_its_transaction() -> None:
    """Its ACK was lost and 64*T1 have passed: the dialog still knows it (RFC 6026 7.2)."""
    bench = Bench()
    bench.invite()
    bench.reply(200, sdp="audio")
    bench.wait(40_000)
    assert bench.agent.stats()["transactions"] == 0
    bench.reply(200, sdp="audio")
    assert [message.method for _, _, message in bench.sent].count("ACK") == 2


def test_requests_after_our_bye_find_no_call() -> None:
    bench = Bench()
    dialog = bench.established()
    bench.take(bench.agent.hang_up(dialog, 0))
    bench.peer("INVITE", 2, inside="1", sdp="audio")
    bench.peer("BYE", 3)
    assert bench.statuses()[-2:] == [481, 200]
    bench.reply(200, "BYE")
    bench.settle()
    assert bench.agent.idle
    assert len(bench.ended()) == 1


@pytest.mark.parametrize(
    ("contact", "seen", "goes_to"),
    [
        ("sip:a@10.1.2.3", "203.0.113.9", ("203.0.113.9", 5062)),
        ("sip:a@203.0.114.1:5070", "203.0.113.9", ("203.0.114.1", 5070)),
        ("sip:a@phone.example.org", "203.0.113.9", ("phone.example.org", 5060)),
    ],
)
def test_where_requests_to_a_peer_go(contact: str, seen: str, goes_to: tuple[str, int]) -> None:
    bench = Bench(flow=Flow("udp", seen, 5062))
    bench.peer("INVITE", 1, sdp="audio", Contact=f"<{contact}>")
    bench.answer(bench.dialog, SessionDescription.parse(OFFER))
    bench.peer("ACK", 1)
    bench.take(bench.agent.hang_up(bench.dialog, 0))
    assert bench.last().uri == contact
    flow = bench.sent[-1][1]
    assert (flow.host, flow.port) == goes_to


def test_a_wildcard_address_is_not_advertised() -> None:
    for wildcard in ("0.0.0.0", "::"):
        assert not ip_address(_reachable(wildcard)).is_unspecified
    assert _reachable("127.0.0.1") == "127.0.0.1"
    assert _reachable("sip.example.org") == "sip.example.org"
