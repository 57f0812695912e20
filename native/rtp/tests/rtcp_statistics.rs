//! Reception statistics against naive counts over whole sequences.

use proptest::prelude::*;
use rtp::packet::RtpHeader;
use rtp::rtcp::{Arrival, Bursts, GMIN, Outcome, Reception};

const CLOCK_HZ: u32 = 8000;

fn header(ssrc: u32, sequence: u16, timestamp: u32) -> RtpHeader {
    RtpHeader {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp,
        ssrc,
    }
}

/// One packet of a stream as it arrives: its place, and when.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    n: u64,
    at_us: u64,
}

/// What the network did to each packet: lost, and else how late, and whether twice.
fn deliveries(fates: &[(bool, u16, bool)]) -> Vec<Delivery> {
    let mut out: Vec<_> = fates
        .iter()
        .enumerate()
        .filter(|(n, (lost, ..))| *n == 0 || !lost)
        .flat_map(|(n, &(_, late_ms, twice))| {
            // The first packet is on time, so that the sequence begins with it.
            let late_ms = if n == 0 { 0 } else { u64::from(late_ms % 400) };
            let n = n as u64;
            let at_us = n * 20_000 + late_ms * 1000 + 1;
            let again = twice.then_some(Delivery {
                n,
                at_us: at_us + 30_000,
            });
            [Some(Delivery { n, at_us }), again].into_iter().flatten()
        })
        .collect();
    out.sort_by_key(|delivery| (delivery.at_us, delivery.n));
    out
}

fn fates() -> impl Strategy<Value = Vec<(bool, u16, bool)>> {
    (0u8..60).prop_flat_map(|percent| {
        let fate = (0u8..100, any::<u16>(), 0u8..100)
            .prop_map(move |(lost, late, twice)| (lost < percent, late, twice < 5));
        proptest::collection::vec(fate, 1..400)
    })
}

/// A.8 in real numbers: `J += (|D| - J) / 16`.
fn naive_jitter(deliveries: &[Delivery], first_timestamp: u32) -> f64 {
    let mut jitter = 0.0;
    let mut before: Option<(u32, i64)> = None;
    for delivery in deliveries {
        let timestamp = first_timestamp.wrapping_add(160 * delivery.n as u32);
        let transit = (delivery.at_us * 8 / 1000) as i64 - 160 * delivery.n as i64;
        match before {
            Some((at, _)) if at == timestamp => continue,
            Some((_, last)) => jitter += ((transit - last).abs() as f64 - jitter) / 16.0,
            None => {}
        }
        before = Some((timestamp, transit));
    }
    jitter
}

/// Bursts by the definition: group the losses that fewer than Gmin received packets separate.
fn naive_pattern(lost: &[bool]) -> (f64, f64, f64, f64) {
    let losses: Vec<usize> = (0..lost.len()).filter(|&n| lost[n]).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &n in &losses {
        match groups.last_mut() {
            Some(group) if n - group.last().unwrap() <= usize::from(GMIN) => group.push(n),
            _ => groups.push(vec![n]),
        }
    }
    let mut in_burst = vec![false; lost.len()];
    let bursts: Vec<_> = groups.iter().filter(|group| group.len() > 1).collect();
    for group in &bursts {
        in_burst[group[0]..=*group.last().unwrap()].fill(true);
    }
    let packets = |burst: bool| in_burst.iter().filter(|&&b| b == burst).count() as f64;
    let lost_in = |burst: bool| losses.iter().filter(|&&n| in_burst[n] == burst).count() as f64;
    let gaps = in_burst.chunk_by(|a, b| a == b).filter(|run| !run[0]).count() as f64;
    let over = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
    (
        over(lost_in(true), packets(true)),
        over(lost_in(false), packets(false)),
        over(packets(true), bursts.len() as f64),
        over(packets(false), gaps),
    )
}

proptest! {
    #[test]
    fn counts_equal_the_naive_ones(fates in fates(), first: u16, timestamp: u32) {
        let deliveries = deliveries(&fates);
        let mut reception = Reception::new(CLOCK_HZ);
        let (mut highest, mut seen, mut twice) = (0, std::collections::HashSet::new(), 0);
        for delivery in &deliveries {
            let sequence = first.wrapping_add(delivery.n as u16);
            let stamp = timestamp.wrapping_add(160 * delivery.n as u32);
            reception.push(delivery.at_us, &header(7, sequence, stamp));
            highest = highest.max(delivery.n);
            twice += u64::from(!seen.insert(delivery.n));
        }
        prop_assert_eq!(reception.received(), deliveries.len() as u64);
        prop_assert_eq!(reception.expected(), highest + 1);
        prop_assert_eq!(reception.lost(), highest as i64 + 1 - deliveries.len() as i64);
        prop_assert_eq!(reception.duplicates(), twice);
        prop_assert_eq!(reception.strays(), 0);
        // The scaled integers of A.8 round to within a unit of the media clock.
        let jitter = f64::from(reception.jitter());
        let naive = naive_jitter(&deliveries, timestamp);
        prop_assert!((jitter - naive).abs() < 1.6, "{} {}", jitter, naive);

        let lost: Vec<_> = (0..=highest).map(|n| !seen.contains(&n)).collect();
        let pattern = reception.pattern();
        let (burst, gap, burst_packets, gap_packets) = naive_pattern(&lost);
        prop_assert_eq!(pattern.packets, highest + 1);
        prop_assert!((pattern.burst_density - burst).abs() < 1e-9);
        prop_assert!((pattern.gap_density - gap).abs() < 1e-9);
        prop_assert!((pattern.burst_packets - burst_packets).abs() < 1e-9);
        prop_assert!((pattern.gap_packets - gap_packets).abs() < 1e-9);
        prop_assert!(pattern.burst_ratio >= 1.0);
    }

    #[test]
    fn any_sequence_is_safe(packets in proptest::collection::vec(
        (any::<u64>(), 0u32..3, any::<u16>(), any::<u32>(), 0u32..100), 0..200,
    )) {
        let mut reception = Reception::new(48_000);
        for (at_us, ssrc, sequence, timestamp, discarded) in packets {
            reception.push(at_us, &header(ssrc, sequence, timestamp));
            reception.note_discarded(discarded);
            let pattern = reception.pattern();
            prop_assert!(pattern.loss_rate + pattern.discard_rate <= 1.0 + 1e-9);
            prop_assert_eq!(pattern.packets, reception.expected());
        }
    }

    /// Bursts are the definition's for discards and losses alike, wherever the sequence begins and ends.
    #[test]
    fn bursts_equal_the_naive_ones(outcomes in proptest::collection::vec(0u8..30, 0..500)) {
        let mut bursts = Bursts::new();
        for &outcome in &outcomes {
            bursts.push(match outcome {
                0 => Outcome::Lost,
                1 => Outcome::Discarded,
                _ => Outcome::Received,
            });
        }
        let lost: Vec<_> = outcomes.iter().map(|&outcome| outcome < 2).collect();
        let pattern = bursts.pattern();
        let (burst, gap, burst_packets, gap_packets) = naive_pattern(&lost);
        prop_assert!((pattern.burst_density - burst).abs() < 1e-9);
        prop_assert!((pattern.gap_density - gap).abs() < 1e-9);
        prop_assert!((pattern.burst_packets - burst_packets).abs() < 1e-9);
        prop_assert!((pattern.gap_packets - gap_packets).abs() < 1e-9);
        let runs = lost.chunk_by(|a, b| a == b).filter(|run| run[0]).count() as f64;
        let count = lost.iter().filter(|&&lost| lost).count() as f64;
        if count > 0.0 {
            let ratio = (count / runs * (1.0 - count / lost.len() as f64)).max(1.0);
            prop_assert!((pattern.burst_ratio - ratio).abs() < 1e-9);
        }
    }
}

#[test]
fn sequence_wraps_are_counted() {
    let mut reception = Reception::new(CLOCK_HZ);
    for n in 0..200_000u32 {
        let arrival = reception.push(u64::from(n) * 20_000, &header(1, (n + 65_000) as u16, n * 160));
        assert_eq!(arrival, if n == 0 { Arrival::Began } else { Arrival::Counted });
    }
    assert_eq!(
        (reception.received(), reception.expected(), reception.lost()),
        (200_000, 200_000, 0)
    );
    assert_eq!(reception.jitter(), 0);
    assert!((reception.packet_ms() - 20.0).abs() < 1e-9);
}

/// RFC 3550 A.1: two packets in a row far away are a restart; one is a stray.
#[test]
fn a_restart_needs_two_in_a_row() {
    let mut reception = Reception::new(CLOCK_HZ);
    for n in 0..10u16 {
        reception.push(0, &header(1, n, 0));
    }
    assert_eq!(reception.push(0, &header(1, 30_000, 0)), Arrival::Stray);
    assert_eq!(reception.push(0, &header(1, 10, 0)), Arrival::Counted);
    assert_eq!(reception.push(0, &header(1, 40_000, 0)), Arrival::Stray);
    assert_eq!(reception.push(0, &header(1, 40_001, 0)), Arrival::Began);
    assert_eq!(reception.push(0, &header(1, 40_002, 0)), Arrival::Counted);
    assert_eq!((reception.received(), reception.expected()), (13, 13));
    assert_eq!(reception.strays(), 2);
}

#[test]
fn another_source_goes_on_with_the_calls_counts() {
    let mut reception = Reception::new(CLOCK_HZ);
    for n in [0, 1, 3] {
        reception.push(0, &header(1, n, 0));
    }
    for n in [500, 502] {
        reception.push(0, &header(2, n, 0));
    }
    assert_eq!(reception.ssrc(), Some(2));
    assert_eq!(
        (reception.received(), reception.expected(), reception.lost()),
        (5, 7, 2)
    );
    assert_eq!(reception.pattern().packets, 7);
}

/// RFC 4733 section 2.3: the packets of an event repeat its timestamp.
#[test]
fn a_held_key_is_no_jitter() {
    let mut reception = Reception::new(CLOCK_HZ);
    let mut at_us = 0;
    for n in 0..100u16 {
        let timestamp = if (30..60).contains(&n) { 30 } else { u32::from(n) } * 160;
        reception.push(at_us, &header(1, n, timestamp));
        at_us += 20_000;
    }
    assert_eq!(reception.jitter(), 0);
}

#[test]
fn discarded_is_the_packet_that_came_last() {
    let mut reception = Reception::new(CLOCK_HZ);
    for n in [0, 1, 2, 4, 5, 6, 3] {
        reception.push(0, &header(1, n, 0));
    }
    reception.note_discarded(1);
    let pattern = reception.pattern();
    assert!((pattern.discard_rate - 1.0 / 7.0).abs() < 1e-9);
    assert!(pattern.loss_rate.abs() < 1e-9);
    // Alone, so it belongs to the gap, which is the whole sequence.
    assert!((pattern.gap_packets - 7.0).abs() < 1e-9);
    assert!((pattern.gap_density - 1.0 / 7.0).abs() < 1e-9);
}

#[test]
fn another_clock_keeps_the_jitters_time() {
    let mut reception = Reception::new(8000);
    for n in 0..200u16 {
        let late_us = u64::from(n % 2) * 10_000;
        reception.push(u64::from(n) * 20_000 + late_us, &header(1, n, u32::from(n) * 160));
    }
    let before_ms = reception.jitter_ms();
    assert!((before_ms - 10.0).abs() < 0.3, "{before_ms}");
    reception.set_clock(48_000);
    assert!((reception.jitter_ms() - before_ms).abs() < 0.01);
    // The first packet of the new clock has nothing to be compared with.
    reception.push(4_000_000, &header(1, 200, 99_999));
    assert!((reception.jitter_ms() - before_ms).abs() < 0.01);
}
