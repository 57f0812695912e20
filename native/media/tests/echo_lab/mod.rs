//! A telephone on its loudspeaker, simulated: what comes back of what was played, over a narrowband line.

use codec::g711::{Law, decode_into, encode_into};
use codec::plc::Concealment;
use codec::resample::Resampler;
use media::echo::{EchoGuard, Verdict};

/// Mean square that no speech detector takes for speech: -55 dBov, where its energy gate ends.
const QUIET: f32 = 3400.0;
/// Samples of 20 ms: of the guard, and of the line.
pub(crate) const TICK: usize = 320;
const PACKET: usize = 160;
/// The speech detector has three windows of 32 ms to make sure of an onset; the verdict is asked for after that.
pub(crate) const NORMAL_MS: usize = 100;

/// A generator of 64-bit numbers (xorshift; Marsaglia 2003).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// From -1 to 1.
    pub(crate) fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

/// Power of what is not silence.
pub(crate) fn power(samples: &[f32]) -> f32 {
    let loud = samples.iter().filter(|x| x.abs() > 50.0);
    let count = loud.clone().count().max(1);
    loud.map(|x| x * x).sum::<f32>() / count as f32
}

pub(crate) fn resampled(samples: &[f32], from_hz: u32, to_hz: u32) -> Vec<f32> {
    let samples: Vec<i16> = samples.iter().map(|&x| x as i16).collect();
    let mut out = Vec::new();
    Resampler::new(from_hz, to_hz)
        .unwrap()
        .process(&samples, &mut out);
    out.into_iter().map(f32::from).collect()
}

/// What the network does on the way to us.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Network {
    /// Share of packets that are lost, and concealed.
    pub(crate) loss: f32,
    /// Whether packets come in bursts of up to three.
    pub(crate) is_jittery: bool,
    /// How much faster the caller's clock is.
    pub(crate) drift_ppm: f64,
}

pub(crate) const GOOD: Network = Network {
    loss: 0.0,
    is_jittery: false,
    drift_ppm: 0.0,
};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) delay_ms: usize,
    pub(crate) gain_db: f32,
    pub(crate) rt60_s: f32,
    pub(crate) snr_db: f32,
    pub(crate) law: Law,
    pub(crate) clips: bool,
}

/// All delays with all gains; the rest varies along.
pub(crate) fn rooms() -> Vec<Room> {
    let mut rooms = Vec::new();
    for (index, delay_ms) in [20, 60, 130, 250, 400].into_iter().enumerate() {
        for (column, gain_db) in [-6.0, -12.0, -20.0, -30.0].into_iter().enumerate() {
            let odd = (index + column) % 2 == 1;
            rooms.push(Room {
                delay_ms,
                gain_db,
                rt60_s: if odd { 0.4 } else { 0.2 },
                snr_db: if (index + column) % 3 == 0 { 15.0 } else { 30.0 },
                law: if odd { Law::A } else { Law::Mu },
                clips: (index + column) % 4 < 2,
            });
        }
    }
    rooms
}

impl Room {
    /// What comes back of what was `played` (16 kHz), at 8 kHz: bent by the loudspeaker, through the room, late.
    pub(crate) fn echo(&self, played: &[f32]) -> Vec<f32> {
        let played = resampled(played, 16_000, 8000);
        let bent = |x: f32| {
            if self.clips {
                12_000.0 * (x / 12_000.0).tanh()
            } else {
                x
            }
        };
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15 ^ self.delay_ms as u64);
        let length = (self.rt60_s * 8000.0 * 0.6) as usize;
        // Late arrivals are sparse enough to leave out most: the bands have enough of them.
        let late = (1..length).step_by(23).map(|n| {
            let decay = 10_f32.powf(-3.0 * n as f32 / (self.rt60_s * 8000.0));
            (n, noise.next() * 0.6 * decay)
        });
        let taps: Vec<(usize, f32)> = std::iter::once((0, 1.0)).chain(late).collect();
        let mut echo = vec![0.0; played.len()];
        for (tap, weight) in taps {
            let begin = self.delay_ms * 8 + tap;
            for (sum, &x) in echo.iter_mut().skip(begin).zip(&played) {
                *sum += weight * bent(x);
            }
        }
        let scale = 10_f32.powf(self.gain_db / 20.0) * (power(&played) / power(&echo)).sqrt();
        for x in &mut echo {
            *x *= scale;
        }
        echo
    }

    /// With what the caller says from sample `from` of 8 kHz on, with noise, through the codec and the network: what the
    /// guard gets in each tick.
    pub(crate) fn line(&self, echo: &[f32], speech: &[f32], from: usize, network: Network) -> Vec<Vec<i16>> {
        let mut noise = Noise(77 + self.delay_ms as u64);
        let level = (3.0 * power(echo) * 10_f32.powf(-self.snr_db / 10.0)).sqrt();
        let sum: Vec<f32> = echo
            .iter()
            .enumerate()
            .map(|(n, &x)| {
                let said = n.checked_sub(from).and_then(|n| speech.get(n)).unwrap_or(&0.0);
                x + said + level * noise.next()
            })
            .collect();
        let drifted = (0..sum.len()).map(|n| {
            let place = n as f64 * (1.0 + network.drift_ppm * 1e-6);
            let (index, part) = (place as usize, place.fract() as f32);
            let at = |index: usize| sum.get(index).copied().unwrap_or(0.0);
            (at(index) * (1.0 - part) + at(index + 1) * part) as i16
        });
        let pcm: Vec<i16> = drifted.collect();
        network.carry(&pcm, self.law)
    }
}

impl Network {
    fn carry(self, pcm: &[i16], law: Law) -> Vec<Vec<i16>> {
        let mut random = Noise(4242);
        let mut concealment = Concealment::new(8000);
        let mut resampler = Resampler::new(8000, 16_000).unwrap();
        let (mut octets, mut packet) = (vec![0; PACKET], vec![0; PACKET]);
        let (mut ticks, mut late) = (Vec::new(), Vec::new());
        for piece in pcm.chunks_exact(PACKET) {
            encode_into(law, piece, &mut octets);
            decode_into(law, &octets, &mut packet);
            if random.next() < 2.0 * self.loss - 1.0 {
                concealment.lost(&mut packet);
            } else {
                concealment.good(&mut packet);
            }
            resampler.process(&packet, &mut late);
            let is_late = self.is_jittery && late.len() < 3 * TICK && random.next() > 0.4;
            ticks.push(if is_late {
                Vec::new()
            } else {
                std::mem::take(&mut late)
            });
        }
        ticks
    }
}

/// The verdict after each tick.
pub(crate) fn verdicts(played: &[f32], line: &[Vec<i16>]) -> Vec<Verdict> {
    let mut guard = EchoGuard::new();
    let played: Vec<i16> = played.iter().map(|&x| x as i16).collect();
    let ticks = played.chunks_exact(TICK).zip(line);
    ticks
        .map(|(reference, captured)| {
            guard.reference(reference);
            guard.captured(captured);
            guard.verdict()
        })
        .collect()
}

/// Ticks in which a speech detector is sure of speech: audible in five of the last eight, the last three among them.
pub(crate) fn is_speech(signal: &[f32]) -> Vec<bool> {
    let audible: Vec<bool> = signal
        .chunks_exact(PACKET)
        .map(|tick| tick.iter().map(|x| x * x).sum::<f32>() / PACKET as f32 > QUIET)
        .collect();
    (0..audible.len())
        .map(|tick| {
            let recent = &audible[tick.saturating_sub(7)..=tick];
            recent.iter().filter(|&&x| x).count() >= 5 && recent.iter().rev().take(3).all(|&x| x)
        })
        .collect()
}

/// A caller against an echo, or against none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BargeIn<'a> {
    pub(crate) room: Room,
    pub(crate) played: &'a [f32],
    pub(crate) echo: &'a [f32],
    /// At 8 kHz, from the first sound on.
    pub(crate) speech: &'a [f32],
    /// Sample of 8 kHz.
    pub(crate) onset: usize,
    pub(crate) network: Network,
}

impl BargeIn<'_> {
    /// The speech, so much louder than the echo.
    pub(crate) fn against_echo(&self, signal_to_echo_db: f32) -> Vec<f32> {
        // Over the same 300 ms, which decide; in a pause of the echo, against all of it.
        let mean = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        let there = mean(&self.echo[self.onset..][..2400]).max(power(self.echo));
        let factor = (there * 10_f32.powf(signal_to_echo_db / 10.0) / mean(&self.speech[..2400])).sqrt();
        self.speech.iter().map(|x| x * factor).collect()
    }

    /// Milliseconds beyond the normal until a verdict lets the caller through, and the share of the next second in
    /// which one does.
    pub(crate) fn wait(&self, speech: &[f32]) -> (Option<usize>, f32) {
        let line = self.room.line(self.echo, speech, self.onset, self.network);
        let verdicts = verdicts(self.played, &line);
        let end = verdicts.len().min((self.onset + speech.len()) / PACKET);
        let after = &verdicts[end.min(self.onset / PACKET + NORMAL_MS / 20)..end];
        let is_free = |&&verdict: &&Verdict| verdict != Verdict::Echo;
        let first = after.iter().position(|verdict| is_free(&verdict));
        let second = &after[..after.len().min(50)];
        let share = second.iter().filter(is_free).count() as f32 / second.len().max(1) as f32;
        (first.map(|ticks| 20 * ticks), share)
    }
}
