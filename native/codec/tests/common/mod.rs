//! Signals for tests and benchmarks: the same for the same seed.

use std::f64::consts::TAU;

/// A small generator of numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Uniform in 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) as f64 / u64::MAX as f64
    }
}

/// Something like speech: syllables of voice with a moving pitch (100 to 180 Hz) and moving formants, hisses between
/// them, pauses every other second.
pub(crate) fn voice(rate_hz: u32, seconds: u32, seed: u64) -> Vec<i16> {
    let rate = f64::from(rate_hz);
    let mut random = Random(seed);
    let mut phase = 0.0;
    let mut pcm = Vec::new();
    for n in 0..rate_hz * seconds {
        let t = f64::from(n) / rate;
        let pitch_hz = 140.0 + 25.0 * (TAU * 0.7 * t).sin() + 15.0 * (TAU * 2.3 * t).sin();
        phase = (phase + pitch_hz / rate).fract();
        let syllable = (TAU * 2.0 * t).sin();
        let spoken = if (0.9..1.1).contains(&(t / 2.0).fract().mul_add(2.0, 0.1)) {
            0.0
        } else {
            1.0
        };
        let formants_hz = [
            500.0 + 250.0 * (TAU * 1.1 * t).sin(),
            1500.0 + 400.0 * (TAU * 0.8 * t).sin(),
            2600.0,
        ];
        let mut sample = 0.0;
        let mut harmonic = 1.0;
        while harmonic * pitch_hz < 0.45 * rate.min(16_000.0) {
            let frequency_hz = harmonic * pitch_hz;
            let gain: f64 = formants_hz
                .iter()
                .zip([1.0, 0.5, 0.25])
                .map(|(formant_hz, height)| height / (1.0 + ((frequency_hz - formant_hz) / 120.0).powi(2)))
                .sum();
            sample += (gain + 0.02) * (TAU * harmonic * phase + harmonic * harmonic).sin();
            harmonic += 1.0;
        }
        let hiss = random.unit() - 0.5;
        let level = if syllable > -0.6 {
            3500.0 * (syllable + 0.6).min(1.0) * sample
        } else {
            1500.0 * hiss
        };
        pcm.push((spoken * level + 10.0 * hiss).clamp(-32_768.0, 32_767.0) as i16);
    }
    pcm
}
