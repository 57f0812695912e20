//! Each key press once, whatever the network does to its packets.

use proptest::prelude::*;
use rtp::telephone_event::{Digit, DtmfReceiver};

const CLOCK_HZ: u32 = 8000;
const DIGITS: &[u8; 16] = b"0123456789*#ABCD";

fn event(code: u8, end: bool, duration: u16) -> [u8; 4] {
    let [high, low] = duration.to_be_bytes();
    [code, u8::from(end) << 7 | 0x0a, high, low]
}

/// The packets of one press: updates every 50 ms, then three end packets.
fn press(timestamp: u32, code: u8, updates: u16) -> Vec<(u32, [u8; 4])> {
    let mut packets: Vec<_> = (1..=updates)
        .map(|n| (timestamp, event(code, false, n * 400)))
        .collect();
    packets.extend([(timestamp, event(code, true, (updates + 1) * 400)); 3]);
    packets
}

/// A digit and its length in units of the 8 kHz clock.
fn digit(digit: char, duration: u32) -> Digit {
    Digit {
        digit,
        duration_ms: duration / 8,
    }
}

/// Push all, then let the stream end.
fn receive(packets: &[(u32, [u8; 4])]) -> Vec<Digit> {
    let mut receiver = DtmfReceiver::new(CLOCK_HZ);
    let mut digits: Vec<_> = packets
        .iter()
        .filter_map(|(timestamp, payload)| receiver.push(*timestamp, payload))
        .collect();
    digits.extend(std::iter::from_fn(|| receiver.finish()));
    digits
}

#[test]
fn every_digit_is_reported_once_at_its_first_end_packet() {
    for (code, &name) in DIGITS.iter().enumerate() {
        let mut receiver = DtmfReceiver::new(CLOCK_HZ);
        let packets = press(1000, code as u8, 3);
        let reports: Vec<_> = packets
            .iter()
            .map(|(at, payload)| receiver.push(*at, payload))
            .collect();
        assert_eq!(
            reports,
            [None, None, None, Some(digit(char::from(name), 1600)), None, None]
        );
        assert_eq!(receiver.finish(), None);
    }
}

#[test]
fn one_end_packet_is_enough() {
    assert_eq!(receive(&[(5, event(11, true, 800))]), [digit('#', 800)]);
}

#[test]
fn the_same_key_twice_is_two_digits() {
    let packets = [press(1000, 5, 2), press(9000, 5, 2)].concat();
    assert_eq!(receive(&packets), [digit('5', 1200), digit('5', 1200)]);
}

#[test]
fn a_press_without_end_packets_ends_with_the_next() {
    let mut receiver = DtmfReceiver::new(CLOCK_HZ);
    assert_eq!(receiver.push(1000, &event(1, false, 400)), None);
    assert_eq!(receiver.push(5000, &event(2, false, 400)), Some(digit('1', 400)));
    // The first press's end packets, late.
    assert_eq!(receiver.push(1000, &event(1, true, 800)), None);
    assert_eq!(receiver.push(5000, &event(2, true, 800)), Some(digit('2', 800)));
}

#[test]
fn packets_of_any_earlier_press_are_old() {
    let mut receiver = DtmfReceiver::new(CLOCK_HZ);
    assert_eq!(receiver.push(1000, &event(1, true, 400)), Some(digit('1', 400)));
    assert_eq!(receiver.push(5000, &event(2, true, 400)), Some(digit('2', 400)));
    assert_eq!(receiver.push(1000, &event(1, true, 400)), None);
    assert_eq!(receiver.push(9000, &event(3, false, 800)), None);
    // Neither begins anew nor shortens what was heard.
    assert_eq!(receiver.push(5000, &event(2, true, 400)), None);
    assert_eq!(receiver.push(9000, &event(3, false, 400)), None);
    assert_eq!(receiver.finish(), Some(digit('3', 800)));
    assert_eq!(receiver.finish(), None);
}

#[test]
fn one_packet_may_complete_two_presses() {
    let mut receiver = DtmfReceiver::new(CLOCK_HZ);
    assert_eq!(receiver.push(1000, &event(1, false, 400)), None);
    assert_eq!(receiver.push(5000, &event(2, true, 800)), Some(digit('1', 400)));
    let mut pushed = receiver.clone();
    assert_eq!(pushed.push(5000, &event(2, true, 800)), Some(digit('2', 800)));
    assert_eq!(pushed.push(9000, &event(3, true, 800)), Some(digit('3', 800)));
    assert_eq!(receiver.poll(0), Some(digit('2', 800)));
    assert_eq!(receiver.poll(u64::MAX), None);
}

#[test]
fn a_press_whose_ends_are_lost_is_over_after_200_ms() {
    let mut receiver = DtmfReceiver::new(CLOCK_HZ);
    assert_eq!(receiver.push(1000, &event(9, false, 400)), None);
    assert_eq!(receiver.poll(1_000_000), None);
    assert_eq!(receiver.push(1000, &event(9, false, 800)), None);
    assert_eq!(receiver.poll(1_100_000), None);
    assert_eq!(receiver.poll(1_299_999), None);
    assert_eq!(receiver.poll(1_300_000), Some(digit('9', 800)));
    assert_eq!(receiver.push(1000, &event(9, true, 1600)), None);
    assert_eq!(receiver.finish(), None);
}

#[test]
fn a_key_held_beyond_one_segment_is_one_digit() {
    // RFC 4733 section 2.5.1.3: at 0xffff the press goes on under a new timestamp.
    let start = u32::MAX - 5;
    let next = start.wrapping_add(0xffff);
    let packets = [
        (start, event(7, false, 400)),
        (start, event(7, false, 0xfff0)),
        (next, event(7, false, 400)),
        (next, event(7, true, 800)),
        (next, event(7, true, 800)),
    ];
    assert_eq!(receive(&packets), [digit('7', 0xffff + 800)]);
    // A short press, its ends lost, and the same key eight seconds later are two.
    let packets = [(0, event(7, false, 400)), (0xffff, event(7, true, 400))];
    assert_eq!(receive(&packets), [digit('7', 400), digit('7', 400)]);
}

#[test]
fn durations_are_in_ms_of_the_given_clock() {
    // Opus legs: 48 kHz, where one segment is 1.365 s; six updates of the first are lost.
    let mut receiver = DtmfReceiver::new(48_000);
    let start = 0xffff_f000;
    let next = 0xefff; // start + 0xffff
    assert_eq!(receiver.push(start, &event(5, false, 960)), None);
    assert_eq!(receiver.push(start, &event(5, false, 0xffff - 6 * 960)), None);
    assert_eq!(receiver.push(next, &event(5, false, 960)), None);
    let held = Digit {
        digit: '5',
        duration_ms: (0xffff + 4800) / 48,
    };
    assert_eq!(receiver.push(next, &event(5, true, 4800)), Some(held));
    // A late packet of up to 10 s ago is old: 80000 units would be less than 2 s.
    let later = next + 9 * 48_000;
    assert_eq!(receiver.push(later, &event(6, false, 960)), None);
    assert_eq!(receiver.push(next, &event(5, true, 4800)), None);
    let short = Digit {
        digit: '6',
        duration_ms: 20,
    };
    assert_eq!(receiver.finish(), Some(short));
}

#[test]
fn a_press_without_end_in_sight_saturates() {
    let mut receiver = DtmfReceiver::new(1);
    let mut timestamp = 0_u32;
    for _ in 0..70_000 {
        assert_eq!(receiver.push(timestamp, &event(1, false, 0xffff)), None);
        timestamp = timestamp.wrapping_add(0xffff);
    }
    assert_eq!(receiver.finish().unwrap().duration_ms, u32::MAX);
    assert_eq!(
        DtmfReceiver::new(0).push(0, &event(1, true, 1)).unwrap().digit,
        '1'
    );
}

#[test]
fn other_events_are_no_digit_but_end_one() {
    // 16 is a hook flash.
    let packets = [
        (0, event(3, false, 400)),
        (4000, event(16, false, 400)),
        (4000, event(16, true, 800)),
    ];
    assert_eq!(receive(&packets), [digit('3', 400)]);
}

#[test]
fn a_restarted_clock_is_followed() {
    let packets = [press(1_000_000, 1, 1), press(500, 2, 1)].concat();
    assert_eq!(receive(&packets), [digit('1', 800), digit('2', 800)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Presses of which at least one packet comes, with losses, copies and neighbours swapped.
    #[test]
    fn each_press_exactly_once(
        start: u32,
        presses in prop::collection::vec(
            (0..16_u8, 1..6_u16, 1..20_u32, prop::collection::vec(0..3_usize, 9), 0..9_usize, any::<bool>()),
            1..12,
        ),
    ) {
        let mut timestamp = start;
        let mut packets = Vec::new();
        let mut typed = Vec::new();
        for (code, updates, pause, copies, kept, swap) in presses {
            let sent = press(timestamp, code, updates);
            let kept = kept % sent.len();
            let mut came = Vec::new();
            for (index, packet) in sent.iter().enumerate() {
                came.extend(vec![*packet; copies[index].max(usize::from(index == kept))]);
            }
            if swap {
                let last = came.len() - 1;
                came.swap(0, last);
            }
            packets.extend(came);
            typed.push(DIGITS[usize::from(code)]);
            timestamp = timestamp.wrapping_add(u32::from(updates + 1) * 400 + pause * 400);
        }
        let heard: Vec<u8> = receive(&packets).iter().map(|digit| digit.digit as u8).collect();
        prop_assert_eq!(heard, typed);
    }

    #[test]
    fn any_payload_is_safe(
        input in prop::collection::vec(
            (prop_oneof![0..2000_u32, any::<u32>()], prop::collection::vec(any::<u8>(), 0..12), any::<u64>()),
            0..100,
        ),
    ) {
        let mut receiver = DtmfReceiver::new(CLOCK_HZ);
        let mut reports = 0;
        for (timestamp, payload, now_us) in &input {
            reports += usize::from(receiver.push(*timestamp, payload).is_some());
            reports += usize::from(receiver.poll(*now_us).is_some());
        }
        reports += std::iter::from_fn(|| receiver.finish()).count();
        // No more digits than packets that could begin one.
        prop_assert!(reports <= input.iter().filter(|(_, payload, _)| payload.len() >= 4).count());
    }
}

/// Found by fuzzing: with a clock of zero, nothing was ever old, and each repeated end packet another press.
#[test]
fn without_a_clock_a_press_is_still_one() {
    let mut receiver = DtmfReceiver::new(0);
    let packets = press(1000, 5, 3);
    let heard = packets
        .iter()
        .filter(|(at, payload)| receiver.push(*at, payload).is_some());
    assert_eq!(heard.count(), 1);
    assert_eq!(receiver.finish(), None);
}
