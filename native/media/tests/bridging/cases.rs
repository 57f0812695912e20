//! Single cases, on a codec of numbered payloads at 8 kHz.

use media::bridging::AudioDecoder;
use rtp::packet::RtpHeader;

use crate::{Leg, Numbered, payload};

const FRAME_US: u64 = 20_000;
const FRAME: u64 = 160;

fn header(index: u32) -> RtpHeader {
    RtpHeader {
        marker: false,
        payload_type: 0,
        sequence: 65_530_u16.wrapping_add(index as u16),
        timestamp: (u32::MAX - 800).wrapping_add(index.wrapping_mul(160)),
        ssrc: 1,
    }
}

/// A leg that has heard packets 0 to 49, each 1 ms before a pull at 20 ms times its number.
fn running() -> Leg {
    let mut leg = Leg::new(8000, 8000);
    for index in 0..50 {
        step(&mut leg, index);
    }
    leg
}

fn arrive(leg: &mut Leg, index: u32) {
    arrive_at(leg, index, u64::from(index));
}

/// Packet `index` arrives in time for the pull of packet `turn`.
fn arrive_at(leg: &mut Leg, index: u32, turn: u64) {
    let now_us = 1_000_000 + turn * FRAME_US - 1000;
    leg.buffer.push(now_us, &header(index), &payload(index, 8));
}

fn pull(leg: &mut Leg, turn: u32) {
    leg.pull(1_000_000 + u64::from(turn) * FRAME_US);
}

fn step(leg: &mut Leg, index: u32) {
    arrive(leg, index);
    pull(leg, index);
}

#[test]
fn before_the_first_packet_there_is_comfort_noise() {
    let mut leg = Leg::new(8000, 8000);
    for turn in 0..10 {
        pull(&mut leg, turn);
        assert!(leg.frame.iter().all(|&sample| sample == 3));
    }
    let stats = leg.buffer.stats();
    assert_eq!((stats.comfort, stats.concealed), (10 * FRAME, 0));
}

#[test]
fn a_steady_network_is_heard_one_packet_later_and_unchanged() {
    let leg = running();
    let stats = leg.buffer.stats();
    assert_eq!(stats.decoded, stats.released * FRAME);
    assert_eq!((stats.concealed, stats.inserted), (0, 0));
    let mean_us = stats.waited_us / stats.begun;
    assert!(mean_us <= 41_000, "{mean_us}");
}

#[test]
fn a_lost_packet_is_concealed_and_late_when_it_comes() {
    let mut leg = running();
    let before = leg.buffer.stats();
    for index in 51..60 {
        step(&mut leg, index);
    }
    arrive_at(&mut leg, 50, 60);
    arrive_at(&mut leg, 55, 60);
    pull(&mut leg, 60);
    let stats = leg.buffer.stats();
    assert_eq!((stats.lost, stats.late, stats.duplicate), (1, 1, 1));
    // As long as it lasted, but for the search for the phase (0 to 5 ms, 2.5 before it).
    let concealed = stats.concealed - before.concealed;
    assert!((FRAME - 20..=FRAME + 20).contains(&concealed), "{concealed}");
    leg.assert_in_order();
    assert!(!leg.decoder.numbers.contains(&50));
}

#[test]
fn a_late_packet_that_nothing_overtook_is_played_after_what_covered_for_it() {
    let mut leg = running();
    for turn in 50..55 {
        pull(&mut leg, turn);
    }
    for index in 50..56 {
        arrive_at(&mut leg, index, 55);
    }
    for index in 55..70 {
        pull(&mut leg, index);
        arrive(&mut leg, index + 1);
    }
    let stats = leg.buffer.stats();
    assert_eq!((stats.lost, stats.late, stats.flushed), (0, 0, 0));
    assert!(stats.concealed > 0);
    leg.assert_in_order();
    assert!((50..56).all(|number| leg.decoder.numbers.contains(&number)));
}

#[test]
fn reordering_within_the_delay_costs_nothing() {
    let mut leg = running();
    let concealed = leg.buffer.stats().concealed;
    // A slow path has taught the buffer to wait for longer.
    for index in (50..400).step_by(2) {
        arrive(&mut leg, index + 1);
        pull(&mut leg, index + 1);
        arrive_at(&mut leg, index, u64::from(index) + 2);
        pull(&mut leg, index + 2);
    }
    let early = leg.buffer.stats();
    for index in (400..600).step_by(2) {
        arrive(&mut leg, index + 1);
        pull(&mut leg, index + 1);
        arrive_at(&mut leg, index, u64::from(index) + 2);
        pull(&mut leg, index + 2);
    }
    let stats = leg.buffer.stats();
    assert!(stats.reordered > 200, "{stats:?}");
    assert_eq!((stats.lost, stats.concealed), (early.lost, early.concealed));
    assert!(early.concealed - concealed < 20 * FRAME, "{early:?}");
    leg.assert_in_order();
}

#[test]
fn announced_silence_is_comfort_noise_of_any_length() {
    let mut leg = running();
    let before = leg.buffer.stats();
    // A comfort-noise packet, then nothing for a second.
    let now_us = 1_000_000 + 50 * FRAME_US - 1000;
    leg.buffer.push_aside(now_us, &header(50));
    for turn in 50..100 {
        pull(&mut leg, turn);
    }
    for index in 100..120 {
        let mut header = header(index);
        header.sequence = header.sequence.wrapping_sub(49);
        let now_us = 1_000_000 + u64::from(index) * FRAME_US - 1000;
        leg.buffer.push(now_us, &header, &payload(index, 8));
        pull(&mut leg, index);
    }
    let stats = leg.buffer.stats();
    assert_eq!((stats.lost, stats.reset, stats.aside), (0, 0, 1));
    assert_eq!(stats.concealed, before.concealed);
    assert!(stats.comfort - before.comfort >= 48 * FRAME, "{stats:?}");
    assert!(leg.decoder.numbers.last() >= Some(&115));
    leg.assert_in_order();
}

#[test]
fn a_timestamp_gap_without_loss_is_silence_and_sets_the_delay_anew() {
    let mut leg = running();
    let before = leg.buffer.stats();
    // Not announced, and the first packet after it is known before the last one before it is over.
    for index in 50..60 {
        let mut header = header(index);
        header.timestamp = header.timestamp.wrapping_add(5 * 160);
        let now_us = 1_000_000 + u64::from(index + 5) * FRAME_US - 1000;
        if index == 50 {
            for turn in 50..55 {
                pull(&mut leg, turn);
            }
        }
        leg.buffer.push(now_us, &header, &payload(index, 8));
        pull(&mut leg, index + 5);
    }
    let stats = leg.buffer.stats();
    let made_up = stats.concealed + stats.comfort - before.concealed - before.comfort;
    assert!((3 * FRAME..=6 * FRAME).contains(&made_up), "{made_up}");
    assert_eq!((stats.lost, stats.reset), (0, 0));
    leg.assert_in_order();
}

#[test]
fn another_source_and_a_timestamp_jump_begin_anew_without_concealment() {
    for (ssrc, sequence, ticks) in [
        (2, 9000_u16, 77_u32),
        (1, 0, 1_000_000_000),
        (1, 700, 5),
        (1, 0, 0x8000_0000),
    ] {
        let mut leg = running();
        let before = leg.buffer.stats();
        for index in 50..100 {
            let mut header = header(index);
            header.ssrc = ssrc;
            header.sequence = header.sequence.wrapping_add(sequence);
            header.timestamp = header.timestamp.wrapping_add(ticks);
            let now_us = 1_000_000 + u64::from(index) * FRAME_US - 1000;
            leg.buffer.push(now_us, &header, &payload(index, 8));
            pull(&mut leg, index);
        }
        let stats = leg.buffer.stats();
        let case = format!("{ssrc} {sequence} {ticks}");
        assert_eq!(stats.released, before.released + 50, "{case}");
        assert_eq!((stats.lost, stats.late, stats.flushed), (0, 0, 0), "{case}");
        let expected = u64::from(ticks != 5);
        assert_eq!(stats.reset, expected.max(u64::from(sequence > 0)), "{case}");
        assert!(stats.concealed - before.concealed <= FRAME, "{case}: {stats:?}");
        leg.assert_in_order();
    }
}

#[test]
fn a_burst_after_an_outage_is_cut_down_to_what_the_network_needs() {
    let mut leg = running();
    for turn in 50..150 {
        pull(&mut leg, turn);
    }
    for index in 50..150 {
        arrive_at(&mut leg, index, 150);
    }
    for index in 150..500 {
        step(&mut leg, index);
    }
    let stats = leg.buffer.stats();
    assert!(stats.flushed > 50, "{stats:?}");
    assert_eq!((stats.lost, stats.overflow), (0, 0));
    assert!(leg.buffer.waiting_us() < 450_000);
    leg.assert_in_order();
}

#[test]
fn a_sender_that_is_gone_leaves_half_a_second_of_concealment() {
    let mut leg = running();
    let before = leg.buffer.stats();
    for turn in 50..150 {
        pull(&mut leg, turn);
    }
    let concealed = leg.buffer.stats().concealed - before.concealed;
    assert!((4000..=4000 + FRAME).contains(&concealed), "{concealed}");
    assert!(
        leg.frame.iter().all(|&sample| sample == 3),
        "comfort noise from then on"
    );
}

#[test]
fn nonsense_is_concealed_like_a_loss() {
    let mut leg = running();
    let before = leg.buffer.stats();
    let now_us = 1_000_000 + 50 * FRAME_US - 1000;
    leg.buffer.push(now_us, &header(50), &[1, 2, 3]);
    pull(&mut leg, 50);
    for index in 51..60 {
        step(&mut leg, index);
    }
    let stats = leg.buffer.stats();
    assert_eq!(stats.nonsense, 1);
    let concealed = stats.concealed - before.concealed;
    assert!((FRAME - 20..=FRAME + 40).contains(&concealed), "{concealed}");
}

/// A codec whose payloads carry a copy of the one before.
#[derive(Default)]
struct Redundant(Numbered, Vec<u32>);

impl AudioDecoder for Redundant {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        self.0.decode(payload, pcm);
    }

    fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        self.0.conceal(samples, pcm);
    }

    fn recover(&mut self, following: &[u8], samples: usize, pcm: &mut Vec<i16>) {
        let number = following.first_chunk().map(|octets| u32::from_be_bytes(*octets));
        self.1.extend(number);
        pcm.resize(pcm.len() + samples, 1000);
    }
}

#[test]
fn the_packet_after_a_loss_is_asked_for_a_copy_of_what_was_lost() {
    let mut leg = Leg::new(8000, 8000);
    let mut decoder = Redundant::default();
    decoder.0.decoded_hz = 8000;
    let mut frame = [0; 160];
    // Every tenth takes 60 ms longer, so that what follows a loss is there when it is found.
    for turn in 0..100_u64 {
        let now_us = 1_000_000 + turn * FRAME_US;
        let slow = turn.checked_sub(3).filter(|index| index % 10 == 0);
        let prompt = Some(turn).filter(|index| index % 10 != 0 && ![35, 65, 66].contains(index));
        for index in [slow, prompt].into_iter().flatten() {
            leg.buffer
                .push(now_us, &header(index as u32), &payload(index as u32, 8));
        }
        leg.buffer.pull(now_us, &mut decoder, &mut frame);
    }
    let followed: Vec<u32> = decoder.1.into_iter().filter(|&number| number > 30).collect();
    assert_eq!(followed, [36, 67]);
}
