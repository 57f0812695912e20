//! A caller and a server of a few lines, on a virtual clock.

use std::net::SocketAddr;

use codec::g711::{Law, encode_into};
use loadgen::call::{Call, PACKET};
use loadgen::histogram::Histogram;
use loadgen::sip::Message;
use loadgen::speech::{Speech, Utterance};
use loadgen::talk::{Plan, Turn};
use loadgen::uac::{Identity, Outcome, Output};
use loadgen::{FRAME, FRAME_US};
use rtp::packet::{HEADER_LEN, RtpHeader};

const PLAN: Plan = Plan {
    turns: Some(2),
    think_us: (400_000, 400_000),
    quiet_us: 600_000,
    patience_us: 3_000_000,
    barge_in_every: 0,
    barge_in_after_us: 500_000,
    hold_us: 2_000_000,
};
const SDP: &str = "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\n";

fn codes(level: i16, samples: usize) -> Vec<u8> {
    let mut codes = vec![0; samples];
    encode_into(Law::Mu, &vec![level; samples], &mut codes);
    codes
}

/// One second of speech, a pause of 600 ms, half a second more; it ends within its last packet.
fn speech() -> Speech {
    let words = [codes(2_000, 8_000), codes(0, 4_800), codes(2_000, 4_000)].concat();
    Speech::new(vec![Utterance::new("pause", &words, 16_700).unwrap()])
}

/// When the server speaks, in ms from the caller's INVITE: from, to.
type Script<'a> = &'a [(u64, u64)];

/// Run a call to its end, or for so long; the server's packets arrive 7 ms after the caller's leave.
fn converse(plan: Plan, script: Script<'_>, for_ms: u64) -> (Call, Vec<Turn>, Histogram) {
    let (speech, server) = (speech(), SocketAddr::from(([127, 0, 0, 1], 5060)));
    let (mut out, mut spacing, mut turns) = (Output::new(), Histogram::default(), Vec::new());
    let identity = Identity {
        call_id: "load0-0".to_owned(),
        number: "1".to_owned(),
        domain: "127.0.0.1".to_owned(),
        local: server,
        server,
        media: server,
    };
    let mut call = Call::place(0, identity, plan, 0, &mut out);
    let mut packet = [0; PACKET];
    for tick in 0..for_ms / 20 {
        let now_us = tick * FRAME_US;
        for (_, datagram) in std::mem::take(&mut out) {
            let request = Message::parse(&datagram).unwrap();
            if request.cseq().is_some_and(|(_, method)| method != "ACK") {
                let ok = request
                    .respond(200, "OK", "t")
                    .replace("Content-Length: 0\r\n\r\n", &format!("\r\n{SDP}"));
                let ok = Message::parse(ok.as_bytes()).unwrap();
                call.signalled(&ok, server, now_us, now_us, &mut out);
            }
        }
        let tick_of = call.tick(&speech, now_us, &mut packet, &mut out);
        turns.extend(tick_of.turn);
        if call.over() {
            break;
        }
        let speaks = script
            .iter()
            .any(|&(from, to)| (from..to).contains(&(now_us / 1000)));
        let header = RtpHeader {
            marker: false,
            payload_type: 0,
            sequence: tick as u16,
            timestamp: tick as u32 * 160,
            ssrc: 1,
        };
        let mut theirs = [0; PACKET];
        header.write(&mut theirs);
        theirs[HEADER_LEN..].copy_from_slice(&codes(if speaks { 3_000 } else { 0 }, FRAME));
        call.heard(&theirs, now_us + 7_000, &mut spacing);
    }
    (call, turns, spacing)
}

// The call is answered at once; the greeting ends at 1000, so that the caller speaks from 1000 + 600 + 400 = 2000 on (to
// the next tick after what arrived 7 ms late: 2020), for 105 packets.
const GREETING: (u64, u64) = (100, 1_000);

#[test]
fn latency_is_from_the_last_packet_with_speech_to_the_first_of_the_answer() {
    let (call, turns, spacing) = converse(PLAN, &[GREETING, (4_500, 5_500), (8_900, 9_500)], 20_000);
    assert_eq!(turns.len(), 2);
    let first = turns[0];
    assert_eq!(first.ended_us - first.began_us, 104 * FRAME_US);
    assert_eq!(first.latency_us, Some(4_507_000 - first.ended_us));
    assert_eq!((first.false_ends, first.barge_in), (0, false));
    assert_eq!(turns[1].latency_us, Some(8_907_000 - turns[1].ended_us));
    assert_eq!(
        (call.outcome, call.answered, call.unanswered),
        (Some(Outcome::Completed), 2, 0)
    );
    assert_eq!(call.ear.first_audible_us(), Some(107_000));
    assert_eq!((spacing.max_us, call.ear.lost), (0, 0));
}

#[test]
fn an_answer_into_a_pause_is_a_false_end() {
    // The pause is from 3020 to 3620; the server stops when the caller goes on.
    let (_, turns, _) = converse(PLAN, &[GREETING, (3_500, 3_800), (4_600, 5_500)], 7_000);
    assert_eq!(turns[0].false_ends, 1);
    assert_eq!(
        turns[0].latency_us,
        Some(4_607_000 - turns[0].ended_us),
        "the real answer's"
    );
}

#[test]
fn an_answer_that_talks_over_the_caller_is_a_false_end_and_an_answer() {
    // It begins 200 ms before the caller's end and is not interrupted; the next question waits for its end.
    let (call, turns, _) = converse(PLAN, &[GREETING, (3_900, 6_500)], 9_000);
    let turn = turns[0];
    assert_eq!(
        (turn.false_ends, turn.talked_over, turn.latency_us),
        (1, true, None)
    );
    assert_eq!((call.answered, call.unanswered), (1, 0));
}

#[test]
fn no_answer_in_time_is_a_turn_without_latency_and_the_caller_asks_again() {
    let (call, turns, _) = converse(PLAN, &[GREETING], 20_000);
    assert_eq!(
        turns.iter().map(|turn| turn.latency_us).collect::<Vec<_>>(),
        [None, None]
    );
    assert_eq!((call.unanswered, call.outcome), (2, Some(Outcome::Completed)));
}

#[test]
fn talking_into_an_answer_measures_how_long_it_goes_on() {
    let plan = Plan {
        barge_in_every: 2,
        ..PLAN
    };
    // The second answer begins at 4500, the caller talks into it from 5020 on, it is silent from 5200 on.
    let (_, turns, _) = converse(plan, &[GREETING, (4_500, 5_200), (7_500, 8_000)], 12_000);
    let interrupting = turns[1];
    assert!(interrupting.barge_in);
    assert_eq!(interrupting.silenced_us, Some(5_187_000 - interrupting.began_us));
    assert_eq!(
        interrupting.false_ends, 0,
        "what it talked into was not an answer to it"
    );
    assert_eq!(interrupting.latency_us, Some(7_507_000 - interrupting.ended_us));
}

#[test]
fn a_caller_without_questions_stays_a_while() {
    let plan = Plan {
        turns: Some(0),
        ..PLAN
    };
    let (call, turns, _) = converse(plan, &[GREETING], 20_000);
    assert!(turns.is_empty());
    let lasted_us = call.times.ended_us - call.times.acked_us;
    assert!((3_600_000..3_700_000).contains(&lasted_us), "{lasted_us}");
    assert_eq!(
        call.sent * FRAME_US,
        lasted_us,
        "until the BYE, and nothing after it"
    );
}

#[test]
fn an_hour_of_dialogue_keeps_no_more_than_its_last_turn() {
    let answers: Vec<(u64, u64)> = (0..1_200)
        .map(|at| (at * 3_000 + 100, at * 3_000 + 900))
        .collect();
    let plan = Plan { turns: None, ..PLAN };
    let (call, turns, _) = converse(plan, &answers, 3_600_000);
    assert_eq!(call.answered + call.unanswered, turns.len() as u32);
    assert!(turns.len() > 500 && call.outcome.is_none());
    assert!(turns.windows(2).all(|pair| pair[0].ended_us < pair[1].began_us));
}
