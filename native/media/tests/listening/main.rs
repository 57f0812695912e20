//! The listening buffer against a reference of its rules, network traces, and arbitrary input.

mod payloads;
mod support;
mod traces;

use counting::allocations_in;
use media::jitter::{ListeningBuffer, REORDER_WINDOW_US, Release};
use proptest::prelude::*;
use rtp::packet::RtpHeader;
use support::Heard::{Lost, Packet, Silence};
use support::{CLOCK_HZ, Heard, Leg, STEP, STEP_US, expected, payload, run, schedule};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// For each packet sent: lost, or its delay; and the delay of a second copy.
fn network() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let delay_us = prop_oneof![4 => 0..3_000_u64, 2 => 0..30_000_u64, 1 => 0..200_000_u64];
    let packet = (
        prop::bool::weighted(0.9),
        delay_us.clone(),
        prop::option::weighted(0.1, delay_us),
    );
    prop::collection::vec(packet, 1..200).prop_map(|packets| {
        let mut arrivals = Vec::new();
        for (index, (arrives, delay_us, copy_us)) in packets.into_iter().enumerate() {
            let sent_us = index as u64 * STEP_US;
            if arrives {
                arrivals.push((sent_us + delay_us, index as u32));
                arrivals.extend(copy_us.map(|copy_us| (sent_us + copy_us, index as u32)));
            }
        }
        schedule(arrivals)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_network_is_put_in_order(arrivals in network(), first: u16, start: u32) {
        let leg = run(first, start, &arrivals);
        leg.assert_one_timeline();
        prop_assert_eq!(leg.packets(), expected(&arrivals));
        let stats = leg.buffer.stats();
        prop_assert_eq!(stats.received, arrivals.len() as u64);
        prop_assert_eq!(stats.received, stats.released + stats.late + stats.duplicate);
        prop_assert_eq!((stats.overflow, stats.reset), (0, 0));
        let concealed: u32 = leg.out.iter().map(|released| match released.what {
            Heard::Lost(samples) => samples,
            Heard::Packet(_) | Heard::Silence(_) => 0,
        }).sum();
        prop_assert_eq!(u64::from(concealed), stats.lost * u64::from(STEP));
        prop_assert_eq!(leg.buffer.next_deadline_us(), None);
    }

    #[test]
    fn an_in_order_network_adds_no_delay(delays in prop::collection::vec(0..15_000_u64, 1..100)) {
        let arrivals = delays.iter().enumerate()
            .map(|(index, delay_us)| (index as u64 * STEP_US + delay_us, index as u32))
            .collect();
        let arrivals = schedule(arrivals);
        let leg = run(0, 0, &arrivals);
        prop_assert_eq!(leg.out.len(), arrivals.len());
        for (released, (at_us, _)) in leg.out.iter().zip(&arrivals) {
            prop_assert_eq!(released.at_us, *at_us);
        }
    }

    #[test]
    fn extra_polls_and_starting_points_change_nothing(
        arrivals in network(), first: u16, polls in prop::collection::vec(0..4_000_000_u64, 0..50),
    ) {
        let plain = run(0, 0, &arrivals);
        let mut polled = Leg::new(first, 0);
        let mut polls = schedule(polls.into_iter().map(|at_us| (at_us, 0)).collect()).into_iter().peekable();
        for &(at_us, index) in &arrivals {
            while let Some((poll_us, _)) = polls.next_if(|&(poll_us, _)| poll_us < at_us) {
                polled.advance(poll_us);
                polled.drain(poll_us);
            }
            polled.packet(at_us, index);
        }
        polled.advance(u64::MAX);
        prop_assert_eq!(plain.out, polled.out);
    }

    /// Any sequence, clock, source, size and polling: no panic, exact accounts, bounded pieces, no payload twice.
    #[test]
    fn arbitrary_input_is_accounted_for(
        input in prop::collection::vec(
            (
                prop_oneof![4 => 0..80_i32, 1 => any::<i32>()],
                prop_oneof![4 => 0..12_000_u32, 1 => any::<u32>()],
                0..3_u32,
                0..40_000_u64,
                prop::bool::weighted(0.1),
                prop_oneof![8 => Just(160_usize), 1 => 4..1600_usize],
                any::<bool>(),
            ),
            0..400,
        ),
    ) {
        let mut leg = Leg::new(0, 0);
        let mut now_us = 0;
        for (id, (sequence, timestamp, ssrc, wait_us, aside, len, poll)) in input.into_iter().enumerate() {
            now_us += wait_us;
            let header = RtpHeader {
                marker: false, payload_type: 0, sequence: sequence as u16, timestamp, ssrc: ssrc / 2,
            };
            if aside {
                leg.buffer.push_aside(now_us, &header);
            } else {
                let mut octets = payload(id as u32);
                octets.resize(len, 0);
                leg.buffer.push(now_us, &header, &octets);
            }
            if poll {
                leg.drain(now_us);
            }
        }
        leg.advance(u64::MAX);
        prop_assert_eq!(leg.buffer.next_deadline_us(), None);
        let stats = leg.buffer.stats();
        prop_assert_eq!(
            stats.received,
            stats.released + stats.aside + stats.nonsense + stats.late + stats.duplicate + stats.overflow
        );
        let mut ids = leg.packets();
        prop_assert_eq!(ids.len() as u64, stats.released);
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len() as u64, stats.released);
        for released in &leg.out {
            match released.what {
                Heard::Lost(samples) => prop_assert!((1..=CLOCK_HZ / 2).contains(&samples)),
                Heard::Silence(samples) => prop_assert!((1..=CLOCK_HZ).contains(&samples)),
                Heard::Packet(_) => {}
            }
        }
    }
}

#[test]
fn a_gap_is_lost_20_ms_after_the_first_later_packet() {
    let mut leg = Leg::new(65_534, u32::MAX - 100);
    leg.packet(0, 0);
    leg.packet(45_000, 2);
    leg.packet(60_000, 3);
    assert_eq!(leg.heard(), [Packet(0)]);
    assert_eq!(leg.buffer.next_deadline_us(), Some(65_000));
    leg.advance(64_999);
    assert_eq!(leg.heard(), [Packet(0)]);
    leg.advance(65_000);
    assert_eq!(leg.heard(), [Packet(0), Lost(160), Packet(2), Packet(3)]);
    leg.packet(66_000, 1);
    leg.packet(67_000, 2);
    let stats = leg.buffer.stats();
    assert_eq!((stats.late, stats.duplicate, stats.lost), (1, 1, 1));
    leg.assert_one_timeline();
}

#[test]
fn two_gaps_have_their_own_deadlines() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    leg.packet(40_000, 2);
    leg.packet(50_000, 4);
    leg.advance(60_000);
    assert_eq!(leg.heard(), [Packet(0), Lost(160), Packet(2)]);
    leg.packet(65_000, 3);
    assert_eq!(leg.packets(), [0, 2, 3, 4]);
}

#[test]
fn a_timestamp_gap_without_loss_is_silence() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    let mut header = leg.header(1);
    header.timestamp = 160 + 8000 + 8000 + 400;
    leg.arrive(2_070_000, &header, 1);
    assert_eq!(
        leg.heard(),
        [Packet(0), Silence(8000), Silence(8000), Silence(400), Packet(1)]
    );
    assert_eq!(leg.buffer.stats().reset, 0);
}

#[test]
fn loss_inside_silence_is_concealed_only_as_far_as_packets_are_missing() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    let mut header = leg.header(3);
    header.timestamp = 160 * 11;
    leg.arrive(220_000, &header, 3);
    leg.advance(240_000);
    assert_eq!(leg.heard(), [Packet(0), Lost(320), Silence(1280), Packet(3)]);
}

#[test]
fn an_outage_resynchronises_at_once_and_keeps_the_timeline() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    leg.packet(60 * STEP_US, 60);
    assert_eq!(leg.heard(), [Packet(0), Silence(8000), Silence(1440), Packet(60)]);
    leg.assert_one_timeline();
    // What the outage delayed belongs to the past.
    leg.packet(60 * STEP_US + 1000, 59);
    leg.packet(60 * STEP_US + 1000, 5);
    leg.packet(61 * STEP_US, 61);
    let stats = leg.buffer.stats();
    assert_eq!((stats.reset, stats.lost, stats.late), (1, 0, 2));
    assert_eq!(leg.packets(), [0, 60, 61]);
}

#[test]
fn concealment_ends_after_half_a_second() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    leg.packet(41 * STEP_US, 41);
    leg.advance(u64::MAX);
    assert_eq!(leg.heard(), [Packet(0), Lost(4000), Silence(2400), Packet(41)]);
    leg.assert_one_timeline();
}

#[test]
fn a_timestamp_jump_is_no_silence() {
    for jump in [100_000, 0x8000_0000, 0_u32.wrapping_sub(80)] {
        let mut leg = Leg::new(0, 0);
        leg.packet(0, 0);
        let mut header = leg.header(1);
        header.timestamp = header.timestamp.wrapping_add(jump);
        leg.arrive(STEP_US, &header, 1);
        header = leg.header(2);
        header.timestamp = header.timestamp.wrapping_add(jump);
        leg.arrive(2 * STEP_US, &header, 2);
        assert_eq!(leg.heard(), [Packet(0), Packet(1), Packet(2)], "{jump}");
        assert_eq!(leg.buffer.stats().reset, 1);
    }
}

#[test]
fn a_restarted_sender_is_followed_in_both_directions() {
    for (first, start) in [(40_000_u16, 77), (100, 2_000_000_000_u32), (30_000, 5)] {
        let mut leg = Leg::new(33_000, 1_000_000_000);
        leg.packet(0, 0);
        // A packet held behind a gap comes out before the new beginning.
        leg.packet(41_000, 2);
        let restarted = Leg::new(first, start);
        leg.arrive(50_000, &restarted.header(0), 900);
        leg.arrive(70_000, &restarted.header(1), 901);
        assert_eq!(
            leg.heard(),
            [Packet(0), Lost(160), Packet(2), Packet(900), Packet(901)]
        );
        assert_eq!(leg.buffer.stats().reset, 1);
    }
}

#[test]
fn another_source_begins_anew_and_stragglers_are_dropped() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    let mut other = leg.header(1);
    other.ssrc = 8;
    leg.arrive(20_000, &other, 100);
    leg.packet(21_000, 1);
    assert_eq!(leg.heard(), [Packet(0), Packet(100)]);
    // The first source comes back for good: what it says then counts.
    leg.packet(300_000, 15);
    assert_eq!(leg.packets(), [0, 100, 15]);
    let stats = leg.buffer.stats();
    assert_eq!((stats.reset, stats.late), (2, 1));
}

#[test]
fn timestamps_of_different_sources_are_not_compared() {
    // The other source's clock happens to be 100 ms ahead, which is no silence; it may begin with a digit.
    for begins_with_event in [false, true] {
        let mut leg = Leg::new(0, 0);
        leg.packet(0, 0);
        let mut other = leg.header(6);
        other.ssrc = 8;
        if begins_with_event {
            leg.buffer.push_aside(20_000, &other);
            leg.drain(20_000);
            other.sequence += 1;
        }
        leg.arrive(40_000, &other, 100);
        assert_eq!(leg.heard(), [Packet(0), Packet(100)]);
        assert_eq!(leg.buffer.stats().reset, 1);
    }
}

#[test]
fn telephone_events_are_no_loss() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    for index in 1..6 {
        let mut event = leg.header(index);
        event.timestamp = 160;
        leg.buffer.push_aside(u64::from(index) * STEP_US, &event);
        leg.drain(u64::from(index) * STEP_US);
    }
    leg.packet(6 * STEP_US, 6);
    assert_eq!(leg.heard(), [Packet(0), Silence(800), Packet(6)]);
    let stats = leg.buffer.stats();
    assert_eq!((stats.lost, stats.aside, stats.reset), (0, 5, 0));
}

#[test]
fn a_burst_behind_a_gap_gives_the_gap_up_early() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    for index in 2..64 {
        leg.packet(1_000_000, index);
    }
    assert_eq!(leg.heard(), [Packet(0)]);
    leg.packet(1_000_000, 65);
    assert_eq!(leg.packets().last(), Some(&63));
    leg.advance(u64::MAX);
    assert_eq!(leg.packets().last(), Some(&65));
    assert_eq!(leg.buffer.stats().overflow, 0);
}

#[test]
fn without_polls_the_room_is_bounded() {
    let mut leg = Leg::new(0, 0);
    for index in 0..1000 {
        let header = leg.header(index);
        leg.buffer
            .push(u64::from(index) * STEP_US, &header, &payload(index));
    }
    leg.advance(u64::MAX);
    let stats = leg.buffer.stats();
    assert_eq!((stats.released, stats.overflow), (128, 872));
    // And it goes on from there.
    leg.packet(1000 * STEP_US, 1000);
    assert_eq!(leg.packets().last(), Some(&1000));
}

#[test]
fn what_follows_a_loss_is_shown_for_recovery() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    for (index, lost) in [(2, 1), (6, 3)] {
        let now_us = u64::from(index) * STEP_US;
        leg.buffer.push(now_us, &leg.header(index), &payload(index));
        assert_eq!(leg.buffer.poll(now_us), None);
        assert_eq!(leg.buffer.following(), None);
        let release = leg.buffer.poll(now_us + REORDER_WINDOW_US);
        let samples = lost * STEP;
        assert!(matches!(release, Some(Release::Lost { samples: of, .. }) if of == samples));
        assert_eq!(leg.buffer.following(), Some(&payload(index)[..]));
        assert!(matches!(
            leg.buffer.poll(now_us + REORDER_WINDOW_US),
            Some(Release::Packet { .. })
        ));
        assert_eq!(leg.buffer.following(), None);
        leg.buffer.poll(now_us + REORDER_WINDOW_US);
    }
    // What comes after silence is no copy of what was lost before it.
    let mut header = leg.header(9);
    header.timestamp += 10 * STEP;
    leg.buffer.push(19 * STEP_US, &header, &payload(9));
    assert!(matches!(
        leg.buffer.poll(21 * STEP_US),
        Some(Release::Lost { .. })
    ));
    assert_eq!(leg.buffer.following(), None);
    assert!(matches!(
        leg.buffer.poll(21 * STEP_US),
        Some(Release::Silence { .. })
    ));
}

/// An hour at 200 ppm either way: everything at once, nothing made up, no new beginning.
#[test]
fn clock_drift_changes_nothing() {
    for step_us in [19_996, 20_004] {
        let mut leg = Leg::new(0, 0);
        for index in 0..180_000 {
            let now_us = u64::from(index) * step_us;
            leg.packet(now_us, index);
            assert_eq!(
                leg.out.pop().map(|released| (released.at_us, released.what)),
                Some((now_us, Packet(index)))
            );
            assert!(leg.out.is_empty());
        }
        let stats = leg.buffer.stats();
        assert_eq!((stats.released, stats.lost, stats.reset), (180_000, 0, 0));
    }
}

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    let mut leg = Leg::new(0, 0);
    let sound = payload(0);
    let mut play = |from: u32| {
        for index in (from..from + 1000).filter(|index| index % 10 != 3) {
            let header = leg.header(index);
            leg.buffer.push(u64::from(index) * STEP_US, &header, &sound);
            while leg.buffer.poll(u64::from(index) * STEP_US).is_some() {}
        }
    };
    play(0);
    assert_eq!(allocations_in(|| play(1000)), 0);
}

#[test]
fn an_oversized_payload_is_dropped() {
    let mut leg = Leg::new(0, 0);
    let header = leg.header(0);
    leg.buffer.push(0, &header, &[0; 1501]);
    leg.buffer.push(0, &header, &[0; 1500]);
    leg.drain(0);
    let stats = leg.buffer.stats();
    assert_eq!((stats.overflow, stats.released), (1, 1));
}
