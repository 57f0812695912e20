//! The caller's transactions, message by message.

use std::net::SocketAddr;

use loadgen::sip::{Message, Start};
use loadgen::uac::{GIVE_UP_US, Identity, Outcome, Output, Told, Uac};
use proptest::prelude::*;

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\na=sendrecv\r\n";

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn call() -> (Uac, Output) {
    let mut out = Output::new();
    let identity = Identity {
        call_id: "load0-1".to_owned(),
        number: "+1555".to_owned(),
        domain: "127.0.0.1:5060".to_owned(),
        local: address(7000),
        server: address(5060),
        media: address(8000),
    };
    (Uac::invite(identity, 0, &mut out), out)
}

fn response(request: &[u8], status: u16, headers: &str, body: &str) -> Vec<u8> {
    let message = Message::parse(request).unwrap();
    let plain = message.respond(status, "Whatever", "theirs");
    plain
        .replace("Content-Length: 0\r\n\r\n", &format!("{headers}\r\n{body}"))
        .into_bytes()
}

fn receive(uac: &mut Uac, datagram: &[u8], now_us: u64, out: &mut Output) -> Told {
    uac.receive(&Message::parse(datagram).unwrap(), address(5060), now_us, out)
}

fn methods(out: &Output) -> Vec<String> {
    let method = |datagram: &[u8]| {
        String::from_utf8_lossy(datagram)
            .split(' ')
            .next()
            .unwrap()
            .to_owned()
    };
    out.iter().map(|(_, datagram)| method(datagram)).collect()
}

/// When a request is sent again, and how it ends, with nobody there.
fn alone(uac: &mut Uac) -> (Vec<u64>, Outcome) {
    let mut sent_ms = Vec::new();
    loop {
        let (now_us, mut out) = (uac.due_us().unwrap(), Output::new());
        if let Told::Ended(outcome) = uac.expire(now_us, &mut out) {
            return (sent_ms, outcome);
        }
        sent_ms.extend(out.iter().map(|_| now_us / 1000));
    }
}

fn answered() -> (Uac, Vec<u8>) {
    let (mut uac, out) = call();
    let ok = response(&out[0].1, 200, "Contact: <sip:b@127.0.0.1:5090>\r\n", SDP);
    let mut acks = Output::new();
    let media = SocketAddr::from(([127, 0, 0, 9], 4000));
    assert_eq!(receive(&mut uac, &ok, 1_000, &mut acks), Told::Answered(media));
    assert_eq!(methods(&acks), ["ACK"]);
    assert_eq!(
        acks[0].0,
        address(5090),
        "in the dialog the contact is the next hop"
    );
    assert!(acks[0].1.starts_with(b"ACK sip:b@127.0.0.1:5090 SIP/2.0\r\n"));
    (uac, ok)
}

#[test]
fn an_invite_is_repeated_by_timer_a_until_timer_b() {
    let (mut uac, out) = call();
    assert_eq!(methods(&out), ["INVITE"]);
    let (sent_ms, outcome) = alone(&mut uac);
    assert_eq!(sent_ms, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
    assert_eq!(outcome, Outcome::Unanswered);
}

#[test]
fn a_provisional_response_ends_the_repetitions_and_not_the_wait() {
    let (mut uac, out) = call();
    let ringing = response(&out[0].1, 180, "", "");
    assert_eq!(receive(&mut uac, &ringing, 10, &mut Output::new()), Told::Nothing);
    assert_eq!(uac.due_us(), Some(GIVE_UP_US));
    assert_eq!(alone(&mut uac), (vec![], Outcome::Unanswered));
}

#[test]
fn a_refusal_is_acknowledged_in_its_transaction_each_time() {
    for status in [302, 486, 503, 603] {
        let (mut uac, out) = call();
        let refusal = response(&out[0].1, status, "Retry-After: 5\r\n", "");
        let mut acks = Output::new();
        assert_eq!(
            receive(&mut uac, &refusal, 10, &mut acks),
            Told::Ended(Outcome::Refused(status))
        );
        assert_eq!(receive(&mut uac, &refusal, 20, &mut acks), Told::Nothing);
        assert_eq!(methods(&acks), ["ACK", "ACK"]);
        let via = |datagram| Message::parse(datagram).unwrap().header("Via").map(str::to_owned);
        assert_eq!(via(&acks[0].1), via(&out[0].1));
        assert_eq!(uac.due_us(), None);
    }
}

#[test]
fn a_200_that_comes_again_is_acknowledged_again() {
    let (mut uac, ok) = answered();
    let mut out = Output::new();
    assert_eq!(receive(&mut uac, &ok, 600_000, &mut out), Told::Nothing);
    uac.hang_up(700_000, &mut out);
    assert_eq!(receive(&mut uac, &ok, 800_000, &mut out), Told::Nothing);
    assert_eq!(methods(&out), ["ACK", "BYE", "ACK"]);
}

#[test]
fn a_bye_is_repeated_by_timer_e() {
    let (mut uac, _) = answered();
    let mut out = Output::new();
    uac.hang_up(0, &mut out);
    uac.hang_up(10, &mut out);
    assert_eq!(methods(&out), ["BYE"], "once");
    let (sent_ms, outcome) = alone(&mut uac);
    assert_eq!(sent_ms[..5], [500, 1_500, 3_500, 7_500, 11_500]);
    assert_eq!(outcome, Outcome::ByeUnanswered);
}

#[test]
fn either_side_hangs_up() {
    let (mut uac, _) = answered();
    let mut out = Output::new();
    uac.hang_up(0, &mut out);
    let ok = response(&out[0].1, 200, "", "");
    assert_eq!(
        receive(&mut uac, &ok, 10, &mut out),
        Told::Ended(Outcome::Completed)
    );

    let (mut uac, _) = answered();
    let bye = b"BYE sip:load@127.0.0.1:7000 SIP/2.0\r\nVia: x\r\nFrom: b\r\nTo: a;tag=load\r\nCall-ID: load0-1\r\nCSeq: 9 BYE\r\n\r\n";
    let mut out = Output::new();
    assert_eq!(receive(&mut uac, bye, 10, &mut out), Told::Ended(Outcome::HungUp));
    assert_eq!(Message::parse(&out[0].1).unwrap().start, Start::Response(200));
    assert!(!uac.established());
}

#[test]
fn an_answer_that_cannot_be_used_is_acknowledged_and_hung_up_on() {
    for body in [
        "",
        "m=audio 0 RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\n",
        "c=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 8\r\n",
    ] {
        let (mut uac, out) = call();
        let ok = response(&out[0].1, 200, "", body);
        let mut sent = Output::new();
        assert_eq!(receive(&mut uac, &ok, 0, &mut sent), Told::Nothing);
        assert_eq!(methods(&sent), ["ACK", "BYE"]);
        let gone = response(&sent[1].1, 200, "", "");
        assert_eq!(
            receive(&mut uac, &gone, 0, &mut sent),
            Told::Ended(Outcome::BadAnswer)
        );
    }
}

#[test]
fn requests_follow_the_route_that_was_recorded() {
    let (mut uac, out) = call();
    let routes =
        "Record-Route: <sip:127.0.0.2:5062;lr>, <sip:127.0.0.1:5061;lr>\r\nContact: <sip:b@10.0.0.1>\r\n";
    let ok = response(&out[0].1, 200, routes, SDP);
    let mut sent = Output::new();
    receive(&mut uac, &ok, 0, &mut sent);
    let ack = Message::parse(&sent[0].1).unwrap();
    let route: Vec<_> = ack.all("Route").collect();
    assert_eq!(route, ["<sip:127.0.0.1:5061;lr>", "<sip:127.0.0.2:5062;lr>"]);
    assert_eq!(sent[0].0, address(5061));
    assert!(sent[0].1.starts_with(b"ACK sip:b@10.0.0.1 SIP/2.0\r\n"));
}

proptest! {
    /// Whatever comes in whatever order: one end at most, and nothing is sent after it but ACKs and responses.
    #[test]
    fn a_call_ends_once(steps in prop::collection::vec((0_usize..7, 0_u64..3_000_000), 1..40)) {
        let (mut uac, out) = call();
        let invite = out[0].1.clone();
        let mut bye = invite.clone();
        let (mut now_us, mut ends) = (0, 0);
        for (step, later_us) in steps {
            now_us += later_us;
            let mut out = Output::new();
            let told = match step {
                0 => receive(&mut uac, &response(&invite, 180, "", ""), now_us, &mut out),
                1 => receive(&mut uac, &response(&invite, 200, "", SDP), now_us, &mut out),
                2 => receive(&mut uac, &response(&invite, 503, "", ""), now_us, &mut out),
                3 => receive(&mut uac, &response(&bye, 200, "", ""), now_us, &mut out),
                4 => { uac.hang_up(now_us, &mut out); Told::Nothing }
                5 => receive(&mut uac, b"BYE x SIP/2.0\r\nCSeq: 7 BYE\r\n\r\n", now_us, &mut out),
                _ => uac.expire(now_us, &mut out),
            };
            let sent = methods(&out);
            if let Some(at) = sent.iter().position(|method| method == "BYE") {
                bye.clone_from(&out[at].1);
            }
            prop_assert!(ends == 0 || !sent.iter().any(|method| method == "BYE" || method == "INVITE"));
            ends += u32::from(matches!(told, Told::Ended(_)));
            prop_assert!(ends <= 1);
            prop_assert!(ends == 0 || uac.due_us().is_none());
        }
    }
}
