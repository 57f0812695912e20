//! Energy in bands of the telephone range, every 10 ms.

use std::f32::consts::{PI, TAU};

/// 10 ms of 16 kHz.
pub(super) const HOP: usize = 160;
/// A window is 16 ms.
const WINDOW: usize = 256;
/// The first bin of each band, and the end of the last: 250 to 3800 Hz in bins of 62.5 Hz.
const EDGES: [usize; BANDS + 1] = [4, 6, 8, 10, 12, 15, 18, 21, 25, 29, 34, 40, 47, 61];
pub(super) const BANDS: usize = 13;

#[derive(Debug)]
pub(super) struct Spectrum {
    samples: [f32; WINDOW],
    /// Samples since the last window.
    fresh: usize,
    hann: [f32; WINDOW],
    /// Cosine and sine of the turns of the transform.
    turns: [(f32, f32); WINDOW / 2],
}

impl Spectrum {
    pub(super) fn new() -> Self {
        Self {
            samples: [0.0; WINDOW],
            fresh: 0,
            hann: std::array::from_fn(|n| (PI * (n as f32 + 0.5) / WINDOW as f32).sin().powi(2)),
            turns: std::array::from_fn(|n| {
                let (sin, cos) = (TAU * n as f32 / WINDOW as f32).sin_cos();
                (cos, -sin)
            }),
        }
    }

    /// At most [`HOP`] samples; gives the mean energy per sample in each band when 10 ms are together.
    pub(super) fn push(&mut self, pcm: &[i16]) -> Option<[f32; BANDS]> {
        let count = pcm.len().min(HOP);
        self.samples.copy_within(count.., 0);
        for (slot, &x) in self.samples[WINDOW - count..].iter_mut().zip(pcm) {
            *slot = f32::from(x);
        }
        self.fresh += count;
        if self.fresh < HOP {
            return None;
        }
        self.fresh -= HOP;
        Some(self.bands())
    }

    fn bands(&self) -> [f32; BANDS] {
        let mut re: [f32; WINDOW] = std::array::from_fn(|n| {
            let place = (n as u8).reverse_bits() as usize;
            self.samples[place] * self.hann[place]
        });
        let mut im = [0.0; WINDOW];
        let mut half = 1;
        while half < WINDOW {
            let stride = WINDOW / (2 * half);
            for start in (0..WINDOW).step_by(2 * half) {
                for n in 0..half {
                    let (cos, sin) = self.turns[n * stride];
                    let (a, b) = (start + n, start + n + half);
                    let (x, y) = (re[b] * cos - im[b] * sin, re[b] * sin + im[b] * cos);
                    (re[b], im[b]) = (re[a] - x, im[a] - y);
                    (re[a], im[a]) = (re[a] + x, im[a] + y);
                }
            }
            half *= 2;
        }
        // Hann: 3/8 of the energy; both halves of the spectrum.
        let scale = 2.0 / (WINDOW as f32 * WINDOW as f32 * 0.375);
        std::array::from_fn(|band| {
            let bins = EDGES[band]..EDGES[band + 1];
            bins.map(|bin| re[bin] * re[bin] + im[bin] * im[bin]).sum::<f32>() * scale
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_in_its_band_with_its_energy() {
        let mut spectrum = Spectrum::new();
        let tone: Vec<i16> = (0..1600)
            .map(|n| (8000.0 * (n as f32 * 1000.0 / 16_000.0 * TAU).sin()) as i16)
            .collect();
        let last = tone
            .chunks(100)
            .filter_map(|piece| spectrum.push(piece))
            .last()
            .unwrap();
        let loudest = (0..BANDS).max_by(|&a, &b| last[a].total_cmp(&last[b])).unwrap();
        assert!((EDGES[loudest]..EDGES[loudest + 1]).contains(&16));
        assert!((last.iter().sum::<f32>() / 32e6 - 1.0).abs() < 0.05);
    }
}
