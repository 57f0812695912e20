//! The bridging buffer: its invariants under any network and any input, single cases, whole networks, and what the
//! listener's waveform looks like.

mod cases;
mod networks;
mod support;
mod waveform;

use media::bridging::delay::DelayParams;
use media::bridging::{AudioDecoder, BridgingBuffer, BridgingParams, BridgingStats, WAITING_MAX_US};
use proptest::prelude::*;
use rtp::packet::RtpHeader;

/// A codec whose payload is its number (big endian) and then its length in ticks of 2.5 ms; everything else is nonsense.
#[derive(Debug, Default)]
struct Numbered {
    decoded_hz: usize,
    numbers: Vec<u32>,
    concealed: u64,
    comfort: u64,
}

/// The longest packet of [`Numbered`], and of Opus.
const PACKET_MAX_US: i64 = 120_000;
const FRAME_US: i64 = 20_000;
/// No sample that the decoder makes is this one.
const UNTOUCHED: i16 = i16::MIN;

impl AudioDecoder for Numbered {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        let &[a, b, c, d, ticks @ 1..=48] = payload else {
            return;
        };
        self.numbers.push(u32::from_be_bytes([a, b, c, d]));
        pcm.resize(pcm.len() + usize::from(ticks) * self.decoded_hz / 400, 1000);
    }

    fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        assert_eq!(samples % (self.decoded_hz / 400), 0, "not a multiple of 2.5 ms");
        self.concealed += samples as u64;
        pcm.resize(pcm.len() + samples, 500);
    }

    fn comfort(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        self.comfort += samples as u64;
        pcm.resize(pcm.len() + samples, 3);
    }
}

fn payload(number: u32, ticks: u8) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [a, b, c, d, ticks]
}

struct Leg {
    buffer: BridgingBuffer,
    decoder: Numbered,
    frame: Vec<i16>,
    pulled: u64,
}

impl Leg {
    fn new(clock_hz: u32, decoded_hz: u32) -> Self {
        let delay = DelayParams::default();
        Self {
            buffer: BridgingBuffer::new(BridgingParams {
                clock_hz,
                decoded_hz,
                delay,
            }),
            decoder: Numbered {
                decoded_hz: decoded_hz as usize,
                ..Numbered::default()
            },
            frame: vec![0; decoded_hz as usize / 50],
            pulled: 0,
        }
    }

    /// Pull, and check what must hold after every pull.
    fn pull(&mut self, now_us: u64) {
        self.frame.fill(UNTOUCHED);
        self.buffer.pull(now_us, &mut self.decoder, &mut self.frame);
        self.pulled += self.frame.len() as u64;
        assert!(!self.frame.contains(&UNTOUCHED), "not all of it was filled");
        let stats = self.buffer.stats();
        assert_eq!(stats.played, self.pulled);
        assert_eq!(
            stats.played + self.buffer.ahead() as u64 + stats.removed + stats.overlapping,
            stats.decoded + stats.concealed + stats.comfort + stats.inserted,
            "{stats:?}"
        );
        // How long the newest packet lasts is known when it is decoded.
        assert!(
            self.buffer.waiting_us() <= WAITING_MAX_US + PACKET_MAX_US + FRAME_US,
            "{}",
            self.buffer.waiting_us()
        );
        assert_eq!(stats.released, self.decoder.numbers.len() as u64);
        assert_eq!(stats.comfort, self.decoder.comfort);
    }

    fn assert_in_order(&self) {
        let numbers = &self.decoder.numbers;
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    }
}

/// Packets that were pushed are in one of these, or wait.
fn accounted(stats: &BridgingStats) -> u64 {
    stats.released
        + stats.aside
        + stats.nonsense
        + stats.late
        + stats.duplicate
        + stats.overflow
        + stats.flushed
}

/// For each packet sent: its delay and that of a second copy, or lost.
fn arrivals() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let delay_us = prop_oneof![4 => 0..3000_u64, 2 => 0..30_000_u64, 1 => 0..900_000_u64];
    let packet = (
        prop::bool::weighted(0.9),
        delay_us.clone(),
        prop::option::weighted(0.1, delay_us),
    );
    prop::collection::vec(packet, 1..300).prop_map(|packets| {
        let mut arrivals = Vec::new();
        for (index, (arrives, delay_us, copy_us)) in (0..).zip(packets) {
            let sent_us = u64::from(index) * 20_000;
            if arrives {
                arrivals.push((sent_us + delay_us, index));
                arrivals.extend(copy_us.map(|copy_us| (sent_us + copy_us, index)));
            }
        }
        arrivals.sort_unstable();
        arrivals
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_network_is_put_in_order_and_accounted_for(
        arrivals in arrivals(), first: u16, start: u32, phase_us in 0..20_000_u64, wide: bool,
    ) {
        let (clock_hz, decoded_hz) = if wide { (48_000, 16_000) } else { (8000, 8000) };
        let mut leg = Leg::new(clock_hz, decoded_hz);
        let end_us = arrivals.last().map_or(0, |&(at_us, _)| at_us) + 1_500_000;
        let mut next = arrivals.iter().peekable();
        for now_us in (phase_us..end_us).step_by(20_000) {
            while let Some(&(at_us, index)) = next.next_if(|&&(at_us, _)| at_us <= now_us) {
                let header = RtpHeader {
                    marker: false,
                    payload_type: 0,
                    sequence: first.wrapping_add(index as u16),
                    timestamp: start.wrapping_add(index * clock_hz / 50),
                    ssrc: 1,
                };
                leg.buffer.push(at_us, &header, &payload(index, 8));
            }
            leg.pull(now_us);
        }
        leg.assert_in_order();
        let stats = leg.buffer.stats();
        prop_assert_eq!(stats.received, arrivals.len() as u64);
        prop_assert_eq!(stats.received, accounted(&stats));
        prop_assert_eq!((stats.nonsense, stats.aside), (0, 0));
        prop_assert_eq!(stats.begun, stats.released, "a packet that was decoded and never played");
    }

    /// Any sequence, clock, source, payload and times: no panic, exact accounts, bounded.
    #[test]
    fn arbitrary_input_is_accounted_for(
        input in prop::collection::vec(
            (
                prop_oneof![4 => 0..80_i32, 1 => any::<i32>()],
                prop_oneof![4 => 0..12_000_u32, 1 => any::<u32>()],
                0..3_u32,
                prop_oneof![20 => 0..40_000_u64, 1 => 0..u64::from(u32::MAX)],
                prop::bool::weighted(0.1),
                0..60_u8,
                any::<bool>(),
            ),
            0..400,
        ),
        rates in prop::sample::select(vec![(8000, 8000), (8000, 16_000), (48_000, 16_000), (48_000, 48_000)]),
    ) {
        let mut leg = Leg::new(rates.0, rates.1);
        let mut now_us = 0;
        for (number, (sequence, timestamp, ssrc, wait_us, aside, ticks, pull)) in (0..).zip(input) {
            now_us += wait_us;
            let header = RtpHeader {
                marker: false, payload_type: 0, sequence: sequence as u16, timestamp, ssrc: ssrc / 2,
            };
            if aside {
                leg.buffer.push_aside(now_us, &header);
            } else {
                leg.buffer.push(now_us, &header, &payload(number, ticks));
            }
            if pull {
                leg.pull(now_us);
            }
        }
        for _ in 0..300 {
            now_us += 20_000;
            leg.pull(now_us);
        }
        let stats = leg.buffer.stats();
        prop_assert_eq!(stats.received, accounted(&stats));
        let mut numbers = leg.decoder.numbers.clone();
        numbers.sort_unstable();
        numbers.dedup();
        prop_assert_eq!(numbers.len(), leg.decoder.numbers.len(), "a payload was decoded twice");
    }
}
