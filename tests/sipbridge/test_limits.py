"""What is bounded stays bounded, under a flood too."""

from __future__ import annotations

import pytest

from sipbridge import CallEnded, InviteReceived, SipUri, UsageError
from sipbridge.sdp import SessionDescription
from sipbridge.timers import Deadlines
from sipbridge.uri import SipAddress
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
