"""Odd but legal messages are understood, illegal ones refused by name: our own, in the spirit of RFC 4475 and 5118."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipbridge import InviteReceived
from sipbridge.wire import Flow
from tests.sipbridge.bench import OFFER, PEER_UDP, Bench

SDP = OFFER.encode()


def wire(text: str, body: bytes = SDP, *, length: str | None = None) -> bytes:
    """A message from readable lines: CRLF, and a Content-Length unless the text has its own."""
    lines = text.strip("\n").split("\n")
    if length is None:
        lines.append(f"Content-Length: {len(body)}")
    elif length:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def invite(**changes: str) -> bytes:
    """An ordinary INVITE with some lines changed."""
    headers = {
        "Via": "SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bKtorture",
        "From": "<sip:a@198.51.100.7>;tag=x",
        "To": "<sip:b@192.0.2.1>",
        "Call-ID": "torture",
        "CSeq": "1 INVITE",
        "Max-Forwards": "70",
        "Contact": "<sip:a@198.51.100.7:5062>",
        "Content-Type": "application/sdp",
    }
    start = changes.pop("start", "INVITE sip:b@192.0.2.1 SIP/2.0")
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    return wire("\n".join([start, *(f"{name}: {value}" for name, value in headers.items())]))


COMPACT = """
INVITE sip:vivekg@192.0.2.1;unknownparam SIP/2.0
TO :
  sip:b@192.0.2.1 ;   tag
f    : "Quoted \\"display\\" \\\\ name" <sip:a%20b@198.51.100.7;x=y>  ;
       tag = 98asjd8
MaX-fOrWaRdS: 0068
i: compact.1@198.51.100.7
cseq: 0009
  INVITE
V  : SIP  /   2.0
 /UDP
    198.51.100.7;branch=z9hG4bKcompact
s:
NewFangledHeader:   newfangled value
 continued newfangled value
c: application/sdp
v: SIP/2.0/TCP spindle.example.com ;
  branch  =   z9hG4bK9ikj8 , SIP/2.0/UNKNOWN  h [2001:db8::1]
m:"Quoted string \\"\\"" <sip:a@198.51.100.7:5062> ; newparam = newvalue ; secondparam
"""

UNDERSTOOD = {
    "compact, folded and spaced": wire(COMPACT.replace(" ;   tag\n", "\n").replace(" h [2001:db8::1]", " h")),
    "octets after the message": wire(
        "\n".join(invite().decode().split("\r\n\r\n")[0].split("\r\n")), SDP, length=""
    )
    + b"\r\nBYE sip:b@192.0.2.1 SIP/2.0\r\n\r\n",
    "no From tag, no magic cookie (RFC 2543)": invite(
        From="sip:a@198.51.100.7", Via="SIP/2.0/UDP 198.51.100.7:5062"
    ),
    "escapes in the user": invite(start="INVITE sip:sips%3Auser%40example.com@192.0.2.1 SIP/2.0"),
    "an escaped null": invite(start="INVITE sip:null-%00-null@192.0.2.1 SIP/2.0"),
    "To in a scheme nobody knows": invite(To="<isbn:2983792873>"),
    "From in a scheme nobody knows": invite(From="<http://example.org>;tag=x"),
    "no Max-Forwards at all": invite().replace(b"Max-Forwards: 70\r\n", b""),
    "a Date of its own": invite(Date="Fri, 01 Jan 2010 16:00:00 EST"),
    "an Expires beyond all bounds": invite(Expires="10000000000000000000"),
    "a body that may be ignored": invite(Content_Type="x/y", Content_Disposition="session;handling=optional"),
    "Proxy-Require is not for us": invite(Proxy_Require="privacy"),
    "quoted commas": invite(Contact='"a, b" <sip:a@198.51.100.7>;x="1,2"'),
    "IPv6 all over": invite(
        start="INVITE sip:b@[2001:db8::9]:5070 SIP/2.0",
        Via="SIP/2.0/UDP [2001:db8::7]:5062;branch=z9hG4bKv6;received=[2001:db8::8]",
        Contact="<sip:a@[2001:db8::7]>",
    ),
    "Via claims to be somebody else": invite(
        Via="SIP/2.0/UDP 203.0.113.5;branch=z9hG4bKv;received=203.0.113.6"
    ),
}

REFUSED = {
    "CSeq too large": (invite(CSeq="36893488147419103232 INVITE"), 400, "Malformed CSeq"),
    "CSeq of another method": (invite(CSeq="1 OPTIONS"), 400, "CSeq names another method"),
    "Max-Forwards too large": (invite(Max_Forwards="300"), 400, "Malformed Max-Forwards"),
    "no Call-ID": (invite().replace(b"Call-ID: torture\r\n", b""), 400, "Missing Call-ID"),
    "an unclosed quote": (invite(To='"Mr. J. User <sip:b@192.0.2.1>'), 400, "Malformed To"),
    "two From": (invite().replace(b"CSeq", b"From: <sip:c@d>;tag=y\r\nCSeq"), 400, "Repeated From"),
    "Request-URI with headers": (
        invite(start="INVITE sip:b@192.0.2.1?Route=%3Csip:x%3E SIP/2.0"),
        400,
        "Request-URI with headers",
    ),
    "another SIP": (invite(start="INVITE sip:b@192.0.2.1 SIP/7.0"), 505, "Version Not Supported"),
    "an unknown scheme": (invite(start="INVITE nobodyKnowsThisScheme:totallyopaque SIP/2.0"), 416, None),
    "an unknown method": (invite(start="NEWMETHOD sip:b@192.0.2.1 SIP/2.0", CSeq="1 NEWMETHOD"), 405, None),
    "Contact with a scheme that cannot be called": (invite(Contact="<tel:+49301>"), 400, "No usable Contact"),
    "Contact that is everything": (invite(Contact="*"), 400, "No usable Contact"),
    "an unclosed Contact": (invite(Contact='"x <sip:a@b>'), 400, "Malformed Contact"),
    "a multipart body": (invite(Content_Type="multipart/mixed;boundary=x"), 415, None),
    "no Content-Type for a body": (invite().replace(b"Content-Type: application/sdp\r\n", b""), 415, None),
}

MALFORMED = {
    "two lengths": invite(Content_Length="5"),
    "a length beyond the datagram": invite().replace(b"Content-Length: ", b"Content-Length: 9"),
    "a lone LF": invite().replace(b"\r\nCSeq", b"\nCSeq"),
    "a URI in angle brackets": invite(start="INVITE <sip:b@192.0.2.1> SIP/2.0"),
    "too many spaces": invite(start="INVITE  sip:b@192.0.2.1  SIP/2.0"),
    "an enormous header": invite(Subject="x" * 20_000),
    "a thousand headers": invite().replace(b"CSeq", b"X: y\r\n" * 1_000 + b"CSeq"),
    "cut off in its headers": invite()[: invite().index(b"Content-Length")],
    "compact forms, cut off": b"INVITE sip:b@c SIP/2.0\r\nv: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx;rport\r\n"
    b"f: <sip:a@c>;tag=1\r\nt: <sip:b@c>\r\ni: cut\r\nCSeq: 1 INVITE\r\nContact: <sip:a@c",
}

DROPPED = {
    "a negative length and no caller": wire(
        "INVITE sip:b@c SIP/2.0\nVia: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bKx", length="-999"
    ),
    "a status of four digits": b"SIP/2.0 4294967301 better not break\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\n\r\n",
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "a broken ACK": invite(start="ACK  sip:b@192.0.2.1  SIP/2.0", CSeq="1 ACK"),
    "cut off before its CSeq ends": invite()[: invite().index(b"INVITE", invite().index(b"CSeq")) - 1],
    "copied headers beyond what is answered": invite(start="INVITE  sip:b@c  SIP/2.0", Call_ID="x" * 8_000),
}

UNANSWERABLE = {
    "no Via": invite().replace(b"Via: SIP/2.0/UDP 198.51.100.7:5062;branch=z9hG4bKtorture\r\n", b""),
    "a Via without a host": invite(Via="SIP/2.0/UDP ;branch=z9hG4bKx"),
    "a Via that is none": invite(Via="nonsense"),
}


@pytest.mark.parametrize("data", UNDERSTOOD.values(), ids=UNDERSTOOD.keys())
def test_understood(data: bytes) -> None:
    bench = Bench()
    bench.datagram(data)
    assert bench.statuses() == [100]
    assert [type(event) for event in bench.events] == [InviteReceived]
    _, flow, trying = bench.sent[0]
    assert flow.host == PEER_UDP.host
    assert f"received={PEER_UDP.host}" in (trying.header("Via") or "") or f" {PEER_UDP.host}" in str(
        trying.header("Via")
    )
    bench.settle()
    assert bench.agent.idle


@pytest.mark.parametrize(("data", "status", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(data: bytes, status: int, reason: str | None) -> None:
    bench = Bench()
    bench.datagram(data)
    assert bench.statuses() == [status]
    assert not bench.events
    if reason is not None:
        assert bench.last().reason == reason
    assert bench.agent.stats()[f"refused_{status}"] == 1
    bench.settle()
    assert bench.agent.idle


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_broken_request_that_says_to_whom_is_answered(data: bytes) -> None:
    bench = Bench()
    bench.datagram(data)
    assert bench.statuses() == [400]
    assert bench.last().reason == "Malformed Message"
    assert not bench.events
    assert bench.agent.stats()["malformed_datagrams"] == 1
    assert bench.agent.idle


@given(st.integers(1, len(invite()) - 1))
def test_a_request_cut_off_anywhere_is_refused_or_dropped(length: int) -> None:
    whole = invite()
    cut = whole[:length]
    bench = Bench()
    bench.datagram(cut)
    assert not bench.events
    assert bench.statuses() in ([], [400])
    # From the end of the last header that a response copies on, there is somebody to answer.
    assert bench.statuses() == [400] or len(cut) < whole.index(b"Max-Forwards")
    assert bench.agent.idle


@pytest.mark.parametrize("data", DROPPED.values(), ids=DROPPED.keys())
def test_dropped_and_counted(data: bytes) -> None:
    bench = Bench()
    bench.datagram(data)
    assert not bench.sent
    assert bench.agent.stats()["malformed_datagrams"] == 1
    assert bench.agent.idle


@pytest.mark.parametrize("data", UNANSWERABLE.values(), ids=UNANSWERABLE.keys())
def test_what_cannot_be_answered_is_dropped(data: bytes) -> None:
    bench = Bench()
    bench.datagram(data)
    assert not bench.sent
    assert bench.agent.stats()["unroutable_requests"] == 1
    assert bench.agent.idle


def test_a_legacy_transaction_is_matched_without_a_cookie() -> None:
    """RFC 2543 peers: a repeated INVITE, its CANCEL and its ACK find their transaction (RFC 3261 17.2.3)."""
    bench = Bench()
    legacy = {"Via": "SIP/2.0/UDP 198.51.100.7:5062", "From": "<sip:a@198.51.100.7>;tag=x"}
    bench.datagram(invite(**legacy))
    bench.datagram(invite(**legacy))
    assert bench.statuses() == [100, 100]
    bench.datagram(invite(**legacy, start="CANCEL sip:b@192.0.2.1 SIP/2.0", CSeq="1 CANCEL"))
    assert bench.statuses() == [100, 100, 200, 487]
    assert len(bench.ended()) == 1
    bench.settle()
    assert bench.agent.idle


def test_a_zone_in_the_source_address_is_no_obstacle() -> None:
    bench = Bench()
    bench.datagram(invite(), Flow("udp", "fe80::1%eth0", 5060))
    assert bench.statuses() == [100]
    assert "received=fe80::1" in (bench.last().header("Via") or "")


def test_a_response_that_nobody_asked_for_is_counted() -> None:
    bench = Bench()
    bench.invite()
    bench.reply(200, totag="x", sdp="audio")
    stray = bench.sent[0][2].encode().replace(b"INVITE sip:peer@198.51.100.7:5062 SIP/2.0", b"SIP/2.0 200 OK")
    bench.datagram(stray.replace(b"z9hG4bK", b"z9hG4bKother").replace(b"tag=", b"tag=other"))
    assert bench.agent.stats()["stray_responses"] == 1
    bench.datagram(b"SIP/2.0 200 OK\r\n\r\n")
    assert bench.agent.stats()["malformed_responses"] == 1
