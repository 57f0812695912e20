//! From what we played to what comes back: a gain in each band.

use super::spectrum::{BANDS, Bands};

/// The share of the whole echo that distortion and coding put into every band: -22 dB.
const LEAK: f32 = 0.006;
/// The gain of a path without echo, and more than any path has: -55 and 6 dB of power.
const GAIN_MIN: f32 = 3.16e-6;
const GAIN_MAX: f32 = 4.0;
/// The gain is followed as a quantile of 98 %: up by 0.588 dB, or down by 0.012.
const UP: f32 = 1.145;
const DOWN: f32 = 0.997_24;
/// Hops that said something about a band, until it is known.
const BAND_LEARNING: u32 = 40;
/// Energy per sample of a band that says something about it.
const LOUD: f32 = 100.0;

#[derive(Debug, Clone)]
pub(super) struct EchoPath {
    /// While it is learned: the greatest so far. Then the quantile.
    gain: Bands,
    /// The loudest that was played of late.
    peak: Bands,
    /// Hops that said something about the band.
    learned: [u32; BANDS],
}

impl EchoPath {
    pub(super) fn unknown() -> Self {
        Self {
            gain: [GAIN_MIN; BANDS],
            peak: [0.0; BANDS],
            learned: [0; BANDS],
        }
    }

    /// At most so much comes back. A band that is not known is as loud as what was played.
    pub(super) fn explains(&self, played: &Bands) -> Bands {
        let mut echo: Bands = std::array::from_fn(|band| {
            let is_known = self.learned[band] >= BAND_LEARNING;
            played[band] * if is_known { self.gain[band] } else { 1.0 }
        });
        let leak = echo.iter().sum::<f32>() * LEAK;
        for energy in &mut echo {
            *energy += leak;
        }
        echo
    }

    /// So much was played, and this came back with that noise.
    pub(super) fn learn(&mut self, played: &Bands, came: &Bands, noise: &Bands) {
        for band in 0..BANDS {
            self.peak[band] = (self.peak[band] * 0.98).max(played[band]);
            // What is loud says what the path does; the end of a tail says what the room does.
            if played[band] < LOUD.max(self.peak[band] / 20.0) {
                continue;
            }
            let gain = (came[band] - 2.0 * noise[band]).max(0.0) / played[band];
            let known = &mut self.gain[band];
            *known = if self.learned[band] < BAND_LEARNING {
                known.max(gain)
            } else if gain > *known {
                *known * UP
            } else {
                *known * DOWN
            }
            .clamp(GAIN_MIN, GAIN_MAX);
            self.learned[band] = self.learned[band].saturating_add(1);
        }
    }
}
