//! The tones of telephone networks: ring-back, busy, and the beep before a recording.
//!
//! Frequencies and cadences are those of ITU-T E.180 Supplement 2 (Various tones used in national networks); for the
//! United States also Telcordia GR-506 (precise tone plan).

use std::f64::consts::TAU;

/// A beginning or an end of a tone takes 5 ms, so that it does not click.
const EDGE_MS: u32 = 5;
const TONES: usize = 2;
const STEPS: usize = 2;

/// Whose tones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Country {
    /// 425 Hz.
    Germany,
    /// 400 and 450 Hz, in pairs.
    UnitedKingdom,
    /// 440 and 480 Hz.
    UnitedStates,
}

/// Tones together, on and off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cadence {
    /// In Hz; 0 is none.
    pub tones_hz: [f64; TONES],
    /// Milliseconds on, and off after it.
    pub steps_ms: [(u32, u32); STEPS],
}

impl Cadence {
    /// The called telephone rings.
    pub fn ring_back(country: Country) -> Self {
        match country {
            Country::Germany => Self::of([425.0, 0.0], [(1000, 4000), (0, 0)]),
            Country::UnitedKingdom => Self::of([400.0, 450.0], [(400, 200), (400, 2000)]),
            Country::UnitedStates => Self::of([440.0, 480.0], [(2000, 4000), (0, 0)]),
        }
    }

    /// The called line is busy.
    pub fn busy(country: Country) -> Self {
        match country {
            Country::Germany => Self::of([425.0, 0.0], [(480, 480), (0, 0)]),
            Country::UnitedKingdom => Self::of([400.0, 0.0], [(375, 375), (0, 0)]),
            Country::UnitedStates => Self::of([480.0, 620.0], [(500, 500), (0, 0)]),
        }
    }

    /// One tone of `length_ms`, as before a recording.
    pub fn beep(tone_hz: f64, length_ms: u32) -> Self {
        Self::of([tone_hz, 0.0], [(length_ms, 0), (0, 0)])
    }

    fn of(tones_hz: [f64; TONES], steps_ms: [(u32, u32); STEPS]) -> Self {
        Self { tones_hz, steps_ms }
    }

    /// One round, to be looped. `level_dbfs`: of the sum of the tones, as a sine of full scale has 0; limited to 0.
    pub fn samples(&self, rate_hz: u32, level_dbfs: f64) -> Vec<i16> {
        let tones = self.tones_hz.iter().filter(|&&tone_hz| tone_hz > 0.0);
        let count = tones.clone().count().max(1) as f64;
        // Powers add; the peak of two tones is their sum, which must not clip.
        let amplitude = (10_f64.powf(level_dbfs / 20.0) / count.sqrt()).min(1.0 / count) * 32_767.0;
        let samples = |length_ms: u32| u64::from(length_ms) * u64::from(rate_hz) / 1000;
        let edge = samples(EDGE_MS).max(1) as f64;
        let mut output = Vec::new();
        for (on_ms, off_ms) in self.steps_ms {
            let length = samples(on_ms);
            output.extend((0..length).map(|n| {
                let envelope = ((n.min(length - 1 - n)) as f64 / edge).min(1.0);
                let turns = n as f64 / f64::from(rate_hz);
                let sum: f64 = tones.clone().map(|tone_hz| (turns * tone_hz * TAU).sin()).sum();
                (sum * amplitude * envelope) as i16
            }));
            output.resize(output.len() + samples(off_ms) as usize, 0);
        }
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Power at a frequency against that of the whole (Goertzel).
    fn share(samples: &[i16], rate_hz: f64, tone_hz: f64) -> f64 {
        let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
        for (n, &x) in samples.iter().enumerate() {
            let angle = n as f64 * tone_hz / rate_hz * TAU;
            re += f64::from(x) * angle.cos();
            im += f64::from(x) * angle.sin();
            all += f64::from(x).powi(2);
        }
        2.0 * (re * re + im * im) / (all * samples.len() as f64)
    }

    #[test]
    fn ring_back_has_its_frequencies_and_its_cadence() {
        for rate_hz in [8000_u32, 16_000, 24_000, 48_000] {
            let german = Cadence::ring_back(Country::Germany).samples(rate_hz, -10.0);
            let second = rate_hz as usize;
            assert_eq!(german.len(), 5 * second);
            assert!(share(&german[..second], rate_hz.into(), 425.0) > 0.98);
            assert!(german[second..].iter().all(|&x| x == 0));
            let american = Cadence::ring_back(Country::UnitedStates).samples(rate_hz, -10.0);
            let on = &american[..2 * second];
            for tone_hz in [440.0, 480.0] {
                assert!((share(on, rate_hz.into(), tone_hz) - 0.5).abs() < 0.02);
            }
            let power: f64 = on.iter().map(|&x| (f64::from(x) / 32_768.0).powi(2)).sum::<f64>();
            let level_dbfs = 10.0 * (2.0 * power / on.len() as f64).log10();
            assert!((level_dbfs + 10.0).abs() < 0.2, "{level_dbfs}");
        }
    }

    #[test]
    fn british_ring_back_comes_in_pairs() {
        let samples = Cadence::ring_back(Country::UnitedKingdom).samples(8000, -10.0);
        assert_eq!(samples.len(), 3 * 8000);
        let is_on = |ms: usize| samples[ms * 8..(ms + 10) * 8].iter().any(|&x| x != 0);
        assert_eq!([200, 500, 800, 1500].map(is_on), [true, false, true, false]);
    }

    #[test]
    fn strange_requests_give_something_short() {
        assert_eq!(Cadence::beep(1000.0, 0).samples(8000, 20.0), []);
        let loud = Cadence::busy(Country::UnitedStates).samples(8000, 40.0);
        assert!(loud.iter().all(|&x| x > i16::MIN && x < i16::MAX));
    }
}
