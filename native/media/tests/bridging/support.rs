//! A sender of speech-like sound, a network given by its arrival times, a buffer, and what the listener gets.

use codec::g711::{Law, decode_into, encode_into};
use media::bridging::delay::DelayParams;
use media::bridging::{AudioDecoder, BridgingBuffer, BridgingParams, BridgingStats};
use rtp::packet::RtpHeader;

pub(crate) const RATE_HZ: usize = 8000;
pub(crate) const FRAME: usize = 160;
pub(crate) const FRAME_US: u64 = 20_000;

/// G.711, and for what is missing the last 20 ms again, forwards and backwards, fading over 60 ms.
#[derive(Default)]
pub(crate) struct Pcmu {
    last: Vec<i16>,
    concealed: usize,
}

impl AudioDecoder for Pcmu {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        let at = pcm.len();
        pcm.resize(at + payload.len(), 0);
        decode_into(Law::Mu, payload, &mut pcm[at..]);
        self.last.clear();
        self.last.extend_from_slice(&pcm[at..]);
        self.concealed = 0;
    }

    fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        let period = self.last.len();
        for _ in 0..samples {
            let at = self.concealed % (2 * period.max(1));
            let mirrored = if at < period { period - 1 - at } else { at - period };
            let gain = 480_i32.saturating_sub(self.concealed as i32).max(0);
            let sample = self.last.get(mirrored).map_or(0, |&sample| i32::from(sample));
            pcm.push((sample * gain / 480) as i16);
            self.concealed += 1;
        }
    }
}

/// Speech-like sound: two seconds of a gliding voice in syllables, then one of faint noise.
pub(crate) fn voice(seconds: usize) -> Vec<i16> {
    let mut noise = 1_u32;
    let mut phase = 0.0_f64;
    let samples = (0..seconds * RATE_HZ).map(|n| {
        let time_s = n as f64 / RATE_HZ as f64;
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let hiss = f64::from(noise >> 16) / 32_768.0 - 1.0;
        if time_s % 3.0 >= 2.0 {
            return (40.0 * hiss) as i16;
        }
        phase += (140.0 - 20.0 * (time_s % 2.0)) / RATE_HZ as f64;
        let voice: f64 = (1..=20)
            .map(|k| (std::f64::consts::TAU * phase * f64::from(k)).sin() / f64::from(k))
            .sum();
        let syllable = (std::f64::consts::TAU * 2.0 * time_s).sin().abs();
        (6000.0 * syllable * voice + 100.0 * hiss) as i16
    });
    samples.collect()
}

/// Arrival times in ms by packet, `None` where lost.
pub(crate) type Trace = Vec<Option<f64>>;

/// A recorded trace.
pub(crate) fn trace(name: &str) -> Trace {
    let path = format!(
        "{}/../../tests/traces_network/{name}.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).expect("a trace of tests/traces_network");
    let arrivals = text
        .lines()
        .map(|line| line.trim().parse::<f64>().expect("a number"));
    arrivals.map(|at_ms| (!at_ms.is_nan()).then_some(at_ms)).collect()
}

/// What a listener got.
pub(crate) struct Outcome {
    pub(crate) stats: BridgingStats,
    pub(crate) heard: Vec<i16>,
    /// Mean time from sending to playout above the least delay of the network.
    pub(crate) delay_ms: f64,
    /// Made up, of the time that was sent, in percent.
    pub(crate) concealed_percent: f64,
    pub(crate) waiting_max_us: i64,
}

pub(crate) fn header(index: usize) -> RtpHeader {
    RtpHeader {
        marker: false,
        payload_type: 0,
        sequence: 65_000_u16.wrapping_add(index as u16),
        timestamp: (u32::MAX - 100_000).wrapping_add((index * FRAME) as u32),
        ssrc: 7,
    }
}

/// A leg on its way through a trace.
pub(crate) struct Leg {
    pub(crate) buffer: BridgingBuffer,
    decoder: Pcmu,
    codes: Vec<u8>,
    arrivals: Vec<(u64, usize)>,
    now_us: u64,
    heard: Vec<i16>,
    waiting_max_us: i64,
}

impl Leg {
    /// A leg whose sender sends `sound` over and over; room for a minute of what is heard.
    pub(crate) fn new(sound: &[i16], delay: DelayParams, phase_us: u64) -> Self {
        let mut codes = vec![0; sound.len()];
        encode_into(Law::Mu, sound, &mut codes);
        Self {
            buffer: BridgingBuffer::new(BridgingParams {
                clock_hz: RATE_HZ as u32,
                decoded_hz: RATE_HZ as u32,
                delay,
            }),
            decoder: Pcmu::default(),
            codes,
            arrivals: Vec::with_capacity(4000),
            now_us: phase_us,
            heard: Vec::with_capacity(61 * RATE_HZ),
            waiting_max_us: 0,
        }
    }

    /// Let the packets from `first` on arrive as the trace says, and listen until the last one did.
    pub(crate) fn play(&mut self, trace: &[Option<f64>], first: usize) {
        self.arrivals.clear();
        for (index, at_ms) in (first..).zip(trace) {
            self.arrivals
                .extend(at_ms.map(|at_ms| ((at_ms * 1000.0) as u64, index)));
        }
        self.arrivals.sort_unstable();
        let mut next = 0;
        while next < self.arrivals.len() {
            while let Some(&(at_us, index)) =
                self.arrivals.get(next).filter(|(at_us, _)| *at_us <= self.now_us)
            {
                let at = index * FRAME % (self.codes.len() - FRAME + 1);
                self.buffer
                    .push(at_us, &header(index), &self.codes[at..at + FRAME]);
                next += 1;
            }
            self.pull();
        }
    }

    /// Listen for 20 ms.
    fn pull(&mut self) {
        let mut frame = [0; FRAME];
        self.buffer.pull(self.now_us, &mut self.decoder, &mut frame);
        self.waiting_max_us = self.waiting_max_us.max(self.buffer.waiting_us());
        self.heard.extend_from_slice(&frame);
        self.now_us += FRAME_US;
    }
}

/// Play a trace; pulls come `phase_us` behind the whole frames of the sender's clock.
pub(crate) fn play(trace: &Trace, sound: &[i16], delay: DelayParams, phase_us: u64) -> Outcome {
    let network = || {
        (0..)
            .zip(trace)
            .filter_map(|(index, at_ms)| Some((*at_ms)? - 20.0 * f64::from(index)))
    };
    let floor_ms = network().fold(f64::MAX, f64::min);
    let network_ms = network().sum::<f64>() / network().count() as f64 - floor_ms;
    let mut leg = Leg::new(sound, delay, phase_us);
    leg.play(trace, 0);
    let stats = leg.buffer.stats();
    Outcome {
        stats,
        heard: leg.heard,
        delay_ms: network_ms + stats.waited_us as f64 / 1000.0 / stats.begun.max(1) as f64,
        concealed_percent: 100.0 * stats.concealed as f64 / (trace.len() * FRAME) as f64,
        waiting_max_us: leg.waiting_max_us,
    }
}

/// A multiplicative generator modulo the Mersenne prime 2^31 - 1.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    /// The next number, 0 to below 1.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        self.0 as f64 / f64::from(0x7fff_ffff)
    }

    /// The sum of twelve uniform ones is close enough to a normal distribution of deviation 1.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// A minute of a network: packet `i` is sent at 20 i ms and takes `delay_ms(i)`, but overtakes none where `fifo`.
pub(crate) fn network(fifo: bool, mut delay_ms: impl FnMut(usize) -> Option<f64>) -> Trace {
    let mut last_ms = 0.0_f64;
    let arrivals = (0..3000).map(|index| {
        let at_ms = 20.0 * index as f64 + delay_ms(index)?;
        last_ms = if fifo { last_ms.max(at_ms) } else { at_ms };
        Some(last_ms)
    });
    arrivals.collect()
}

/// Networks of other kinds than the recorded traces.
pub(crate) fn networks(seed: u64) -> Vec<(&'static str, Trace)> {
    let mut spikes = Seeded(seed);
    let mut gauss = Seeded(seed + 1);
    let mut pareto = Seeded(seed + 2);
    let mut drift = Seeded(seed + 3);
    let mut bursts = Seeded(seed + 4);
    let mut overtaking = Seeded(seed + 5);
    vec![
        (
            "spikes",
            network(true, |_| {
                let spike = spikes.uniform() < 1.0 / 150.0;
                Some(
                    5.0 + 3.0 * spikes.uniform()
                        + if spike {
                            50.0 + 150.0 * spikes.uniform()
                        } else {
                            0.0
                        },
                )
            }),
        ),
        (
            "gauss",
            network(true, |_| Some((40.0 + 12.0 * gauss.normal()).max(0.0))),
        ),
        (
            "pareto",
            network(true, |_| Some(5.0 * (1.0 - pareto.uniform()).powf(-1.0 / 2.0))),
        ),
        (
            "drift",
            network(true, |index| {
                let slow = (index as f64 / 1000.0 * std::f64::consts::TAU).sin();
                Some(100.0 + 80.0 * slow + 4.0 * drift.uniform())
            }),
        ),
        (
            "bursts",
            network(true, |index| {
                // Every two seconds the link is busy for 100 ms.
                let since_ms = 20.0 * (index % 100) as f64;
                let lost = bursts.uniform() < 0.01;
                (!lost).then(|| 2.0 * bursts.uniform() + (100.0 - since_ms).max(0.0))
            }),
        ),
        (
            "overtake",
            network(false, |_| {
                let slow = overtaking.uniform() < 0.05;
                let lost = overtaking.uniform() < 0.02;
                (!lost).then(|| 10.0 + 5.0 * overtaking.uniform() + if slow { 35.0 } else { 0.0 })
            }),
        ),
    ]
}
