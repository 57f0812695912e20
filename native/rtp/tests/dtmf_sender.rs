//! Key presses as packets, and what the far end hears of them.

use proptest::prelude::*;
use rtp::telephone_event::{Digit, DtmfReceiver, DtmfSender, EventPacket, PressError, QUEUE_LEN};

const DIGITS: &str = "0123456789*#ABCD";

/// Tick until every press is over; the tick of each packet with it.
fn send(sender: &mut DtmfSender, clock_hz: u32, start: u32) -> Vec<(u32, EventPacket)> {
    let mut packets = Vec::new();
    for tick in 0.. {
        let packet = sender.tick(start.wrapping_add(tick * (clock_hz / 50)));
        packets.extend(packet.map(|packet| (tick, packet)));
        if sender.is_idle() {
            break;
        }
    }
    packets
}

fn duration(packet: &EventPacket) -> u32 {
    u32::from(u16::from_be_bytes([packet.payload[2], packet.payload[3]]))
}

fn is_end(packet: &EventPacket) -> bool {
    packet.payload[1] & 0x80 != 0
}

#[test]
fn the_packets_of_two_presses() {
    let mut sender = DtmfSender::new(8000);
    assert!(sender.is_idle());
    sender.press('5', 70).unwrap();
    sender.press('d', 40).unwrap();
    assert_eq!((sender.is_idle(), sender.waiting()), (false, 2));
    let packets: Vec<_> = send(&mut sender, 8000, 0xffff_fff0)
        .into_iter()
        .map(|(tick, packet)| (tick, packet.marker, packet.timestamp, packet.payload))
        .collect();
    let second = 0xffff_fff0_u32.wrapping_add(7 * 160);
    assert_eq!(
        packets,
        [
            (0, true, 0xffff_fff0, [5, 10, 0, 160]),
            (1, false, 0xffff_fff0, [5, 10, 1, 64]),
            (2, false, 0xffff_fff0, [5, 10, 1, 224]),
            (3, false, 0xffff_fff0, [5, 0x8a, 2, 48]),
            (4, false, 0xffff_fff0, [5, 0x8a, 2, 48]),
            (5, false, 0xffff_fff0, [5, 0x8a, 2, 48]),
            // One tick of audio: the next press is at least 50 ms after this one's end at tick 3.5.
            (7, true, second, [15, 10, 0, 160]),
            (8, false, second, [15, 0x8a, 1, 64]),
            (9, false, second, [15, 0x8a, 1, 64]),
            (10, false, second, [15, 0x8a, 1, 64]),
        ]
    );
}

#[test]
fn a_long_press_goes_on_under_new_timestamps() {
    let mut sender = DtmfSender::new(48_000);
    sender.press('1', 3000).unwrap();
    let packets = send(&mut sender, 48_000, 100);
    let mut timestamps: Vec<_> = packets.iter().map(|(_, packet)| packet.timestamp).collect();
    timestamps.dedup();
    assert_eq!(timestamps, [100, 100 + 0xffff, 100 + 2 * 0xffff]);
    for segment in timestamps {
        let of_segment: Vec<_> = packets
            .iter()
            .filter(|(_, packet)| packet.timestamp == segment)
            .collect();
        let (_, last) = of_segment.last().unwrap();
        assert_eq!(is_end(last), duration(last) != 0xffff);
        assert!(of_segment.is_sorted_by_key(|(_, packet)| duration(packet)));
    }
    assert_eq!(packets.iter().filter(|(_, packet)| packet.marker).count(), 1);
    assert_eq!(packets.iter().filter(|(_, packet)| is_end(packet)).count(), 3);
    assert_eq!(duration(&packets.last().unwrap().1), 3 * 48_000 - 2 * 0xffff);
    // No tick is left out.
    assert!(packets.iter().map(|(tick, _)| *tick).eq(0..packets.len() as u32));
}

#[test]
fn a_press_of_exactly_one_segment_ends_in_it() {
    let mut sender = DtmfSender::new(65_535);
    sender.press('1', 1000).unwrap();
    let packets = send(&mut sender, 65_535, 0);
    assert!(packets.iter().all(|(_, packet)| packet.timestamp == 0));
    let (_, last) = packets.last().unwrap();
    assert_eq!((duration(last), is_end(last)), (0xffff, true));
}

#[test]
fn what_is_refused() {
    let mut sender = DtmfSender::new(8000);
    assert_eq!(sender.press('E', 100), Err(PressError::Digit));
    assert_eq!(sender.press('é', 100), Err(PressError::Digit));
    assert_eq!(sender.press('1', 39), Err(PressError::Duration));
    assert_eq!(sender.press('1', 60_001), Err(PressError::Duration));
    for _ in 0..QUEUE_LEN {
        sender.press('1', 100).unwrap();
    }
    assert_eq!(sender.press('1', 100), Err(PressError::QueueFull));
    assert!(sender.tick(0).is_some());
    assert_eq!(sender.press('1', 100), Ok(()));
}

#[test]
fn nothing_pressed_is_nothing_sent() {
    assert_eq!(DtmfSender::new(8000).tick(0), None);
    // Nor is there anything to divide by, or to overflow.
    for clock_hz in [0, 1, u32::MAX] {
        let mut sender = DtmfSender::new(clock_hz);
        sender.press('1', 60_000).unwrap();
        for tick in 0..100 {
            sender.tick(tick);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Up to two of the three end packets lost, some updates too, packets delayed by up to three ticks and
    /// doubled, the marker bit nowhere.
    #[test]
    fn the_far_end_hears_what_was_pressed(
        clock_hz in prop::sample::select(vec![8000_u32, 16_000, 48_000]),
        start: u32,
        presses in prop::collection::vec(
            (0..16_usize, prop_oneof![8 => 40..400_u32, 1 => 400..12_000_u32]), 1..8),
        ends_kept in prop::collection::vec(1..8_u32, 8),
        fates in prop::collection::vec((any::<bool>(), 1..3_usize, 0..4_u32), 1..100),
    ) {
        let mut sender = DtmfSender::new(clock_hz);
        for (code, duration_ms) in &presses {
            sender.press(DIGITS.chars().nth(*code).unwrap(), *duration_ms).unwrap();
        }
        let (mut press, mut ends) = (0, 0);
        let mut came = Vec::new();
        for (number, (tick, packet)) in send(&mut sender, clock_hz, start).into_iter().enumerate() {
            let (lost, copies, delay) = fates[number % fates.len()];
            if packet.marker {
                (press, ends) = (press + 1, 0);
            }
            let lost = if is_end(&packet) {
                ends += 1;
                ends_kept[press - 1] >> (ends - 1) & 1 == 0
            } else {
                // Never many in a row, nor the only one of a short press.
                lost && number % 3 == 0
            };
            if !lost {
                came.extend((0..copies as u32).map(|copy| (tick + delay + copy, packet)));
            }
        }
        came.sort_by_key(|(tick, _)| *tick);
        let mut receiver = DtmfReceiver::new(clock_hz);
        let mut heard: Vec<Digit> = Vec::new();
        for (tick, packet) in came {
            heard.extend(receiver.poll(u64::from(tick) * 20_000));
            heard.extend(receiver.push(packet.timestamp, &packet.payload));
        }
        heard.extend(std::iter::from_fn(|| receiver.finish()));
        let digits: String = heard.iter().map(|digit| digit.digit).collect();
        let pressed: String = presses.iter().map(|(code, _)| DIGITS.as_bytes()[*code] as char).collect();
        prop_assert_eq!(digits, pressed);
        for (digit, (_, duration_ms)) in heard.iter().zip(presses) {
            prop_assert!(digit.duration_ms <= duration_ms);
        }
    }
}

#[test]
fn a_clock_slower_than_the_ticks_holds_no_key_for_ever() {
    for clock_hz in [0, 1, 49] {
        let mut sender = DtmfSender::new(clock_hz);
        sender.press('5', 1000).unwrap();
        let mut ticks = 0;
        while !sender.is_idle() {
            sender.tick(ticks);
            ticks += 1;
            assert!(ticks < 100);
        }
    }
}
