//! The bridging jitter buffer.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Unstructured};
use media::bridging::delay::DelayParams;
use media::bridging::{AudioDecoder, BridgingBuffer, BridgingParams, BridgingStats, WAITING_MAX_US};
use media::jitter::PAYLOAD_MAX;
use rtp::packet::RtpHeader;

/// Timestamps and samples: G.711, G.722 (RFC 3551, 4.5.2), Opus heard at 16 kHz and in full.
const RATES_HZ: [(u32, u32); 4] = [(8000, 8000), (8000, 16_000), (48_000, 16_000), (48_000, 48_000)];
/// The longest packet of [`Numbered`], and of Opus.
const PACKET_MAX_US: i64 = 120_000;
const FRAME_US: u64 = 20_000;
/// No sample that the decoder makes is as loud as this, so the buffer must not make one either.
const PEAK: i16 = 1000;
/// What no sample may be.
const UNTOUCHED: i16 = i16::MIN;

#[derive(Debug, Arbitrary)]
enum Step {
    /// The next packet of a stream, but for what the network does to it.
    Next {
        skip: i8,
        units: i16,
        ticks: u8,
        level: i8,
        aside: bool,
    },
    /// Any header at all.
    Any {
        sequence: u16,
        timestamp: u32,
        ssrc: u8,
        len: u16,
    },
    Source {
        ssrc: u8,
    },
    Wait {
        us: u16,
    },
    LongWait {
        s: u8,
    },
    Pull,
    /// For something other than 20 ms, up to 40.
    PullSamples {
        samples: u16,
    },
    /// So many ordinary packets, each pulled when it comes: the buffer settles.
    Steady {
        packets: u8,
    },
}

/// A codec whose payload is its number (big endian), its length in ticks of 2.5 ms and its level; everything else is
/// nonsense. What it makes up is not always as long as it was asked for.
#[derive(Debug)]
struct Numbered {
    decoded_hz: usize,
    numbers: Vec<u32>,
    made_up: usize,
}

impl Numbered {
    fn make_up(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        self.made_up += 1;
        let samples = match self.made_up % 8 {
            6 => samples / 2,
            7 => samples * 2,
            _ => samples,
        };
        square_wave(pcm, samples, 20, PEAK);
    }
}

/// Something in which a phase can be found.
fn square_wave(pcm: &mut Vec<i16>, samples: usize, half_period: usize, level: i16) {
    let at = pcm.len();
    pcm.resize(at + samples, level);
    for half in pcm[at..].chunks_mut(half_period).skip(1).step_by(2) {
        half.fill(-level);
    }
}

impl AudioDecoder for Numbered {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        let &[a, b, c, d, ticks @ 1..=48, level] = payload else {
            return;
        };
        self.numbers.push(u32::from_be_bytes([a, b, c, d]));
        let level = i16::from(level as i8) * (PEAK / 128);
        let samples = usize::from(ticks) * self.decoded_hz / 400;
        square_wave(pcm, samples, 50, level);
    }

    fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        assert_eq!(samples % (self.decoded_hz / 400), 0, "not a multiple of 2.5 ms");
        self.make_up(samples, pcm);
    }

    fn comfort(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        self.make_up(samples, pcm);
    }
}

struct Leg {
    buffer: BridgingBuffer,
    decoder: Numbered,
    clock_hz: u32,
    now_us: u64,
    /// The stream that `Next` goes on with.
    next: RtpHeader,
    pushed: Vec<RtpHeader>,
    pulled: u64,
}

pub(crate) fn any_steps(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let Ok(&(clock_hz, decoded_hz)) = octets.choose(&RATES_HZ) else {
        return;
    };
    let mut leg = Leg::new(clock_hz, decoded_hz);
    for step in crate::steps(&mut octets).into_iter().take(512) {
        leg.step(&step);
    }
    leg.finish();
}

impl Leg {
    fn new(clock_hz: u32, decoded_hz: u32) -> Self {
        Self {
            buffer: BridgingBuffer::new(BridgingParams {
                clock_hz,
                decoded_hz,
                delay: DelayParams::default(),
            }),
            decoder: Numbered {
                decoded_hz: decoded_hz as usize,
                numbers: Vec::new(),
                made_up: 0,
            },
            clock_hz,
            now_us: 0,
            next: RtpHeader {
                marker: false,
                payload_type: 0,
                sequence: 0xfff0,
                timestamp: u32::MAX - 1000,
                ssrc: 1,
            },
            pushed: Vec::new(),
            pulled: 0,
        }
    }

    fn frame(&self) -> usize {
        self.decoder.decoded_hz / 50
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Next {
                skip,
                units,
                ticks,
                level,
                aside,
            } => {
                let header = self.go_on(skip, i32::from(units));
                if aside {
                    self.pushed.push(header);
                    self.buffer.push_aside(self.now_us, &header);
                } else {
                    self.push(header, &[ticks, level as u8]);
                }
            }
            Step::Any {
                sequence,
                timestamp,
                ssrc,
                len,
            } => {
                let header = RtpHeader {
                    sequence,
                    timestamp,
                    ssrc: u32::from(ssrc),
                    ..self.next
                };
                self.push(header, &vec![8; usize::from(len) % (PAYLOAD_MAX + 10)]);
            }
            Step::Source { ssrc } => self.next.ssrc = u32::from(ssrc),
            Step::Wait { us } => self.now_us += u64::from(us),
            Step::LongWait { s } => self.now_us += u64::from(s) * 1_000_000,
            Step::Pull => self.pull(self.frame()),
            Step::PullSamples { samples } => self.pull(usize::from(samples) % (2 * self.frame() + 1)),
            Step::Steady { packets } => {
                for _ in 0..packets % 64 {
                    let header = self.go_on(1, (self.clock_hz / 50) as i32);
                    self.push(header, &[8, 100]);
                    self.pull(self.frame());
                    self.now_us += FRAME_US;
                }
            }
        }
    }

    fn go_on(&mut self, packets: i8, ticks: i32) -> RtpHeader {
        let next = &mut self.next;
        next.sequence = next.sequence.wrapping_add_signed(i16::from(packets));
        next.timestamp = next.timestamp.wrapping_add_signed(ticks);
        *next
    }

    fn push(&mut self, header: RtpHeader, rest: &[u8]) {
        let mut payload = (self.pushed.len() as u32).to_be_bytes().to_vec();
        payload.extend_from_slice(rest);
        self.pushed.push(header);
        self.buffer.push(self.now_us, &header, &payload);
    }

    fn pull(&mut self, samples: usize) {
        let mut frame = vec![UNTOUCHED; samples];
        self.buffer.pull(self.now_us, &mut self.decoder, &mut frame);
        self.pulled += samples as u64;
        let loudest = frame
            .iter()
            .fold(0, |loudest, sample| loudest.max(sample.unsigned_abs()));
        assert!(
            loudest <= PEAK.unsigned_abs(),
            "{loudest} out of what is at most {PEAK}"
        );
        let stats = self.buffer.stats();
        assert_eq!(stats.played, self.pulled);
        assert_eq!(
            stats.played + self.buffer.ahead() as u64 + stats.removed + stats.overlapping,
            stats.decoded + stats.concealed + stats.comfort + stats.inserted,
            "{stats:?}"
        );
        assert_eq!(stats.released, self.decoder.numbers.len() as u64);
        // How long the newest packet lasts is known when it is decoded.
        let waiting_us = self.buffer.waiting_us();
        assert!(
            (0..=WAITING_MAX_US + PACKET_MAX_US + FRAME_US as i64).contains(&waiting_us),
            "{waiting_us}"
        );
    }

    fn finish(mut self) {
        // What is left may be stretched by 15 ms in each 20, so it lasts four times as long.
        for _ in 0..200 {
            let stats = self.buffer.stats();
            if stats.received == accounted(&stats) && self.buffer.ahead() == 0 {
                break;
            }
            self.now_us += FRAME_US;
            self.pull(self.frame());
        }
        let stats = self.buffer.stats();
        assert_eq!(stats.received, self.pushed.len() as u64);
        assert_eq!(stats.received, accounted(&stats), "{stats:?}");
        assert_eq!(self.buffer.ahead(), 0, "{stats:?}");
        let numbers = &self.decoder.numbers;
        let distinct: BTreeSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), numbers.len(), "a packet was decoded twice");
        // Out of order: only where the source began anew, and that is counted.
        let breaks = numbers.windows(2).filter(|pair| {
            let [before, header] = [pair[0], pair[1]].map(|number| self.pushed[number as usize]);
            let ahead = header.sequence.wrapping_sub(before.sequence) as i16;
            header.ssrc != before.ssrc || ahead <= 0
        });
        let breaks = breaks.count() as u64;
        assert!(breaks <= stats.reset, "{breaks} of {stats:?}");
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
