//! Energy in bands of the telephone range, of two signals at once.

#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the instruction set"
)]

use std::f32::consts::{PI, TAU};
use std::sync::LazyLock;

use pulp::{Arch, Simd, WithSimd};

/// 10 ms of 8 kHz.
pub(super) const HOP: usize = 80;
/// A window is 16 ms.
pub(super) const WINDOW: usize = 128;
/// The first bin of each band, and the end of the last: 250 to 3500 Hz in bins of 62.5 Hz.
const EDGES: [usize; BANDS + 1] = [4, 6, 8, 10, 12, 15, 18, 22, 26, 31, 37, 45, 56];
pub(super) const BANDS: usize = 12;
/// Of something, in each band.
pub(super) type Bands = [f32; BANDS];

const BITS: u32 = WINDOW.trailing_zeros();

/// The transform that all guards use.
pub(super) static SPECTRUM: LazyLock<Spectrum> = LazyLock::new(Spectrum::new);

/// The transform of one window. Two real signals go through it as the real and the imaginary part of one.
#[derive(Debug)]
pub(super) struct Spectrum {
    hann: [f32; WINDOW],
    /// Cosine and sine of the turns, for each half length one after the other: 64, 32, 16, 8, 4, 2.
    cos: [f32; WINDOW],
    sin: [f32; WINDOW],
    /// Where the transform leaves a bin.
    place: [u8; WINDOW],
    arch: Arch,
}

impl Spectrum {
    fn new() -> Self {
        let (mut cos, mut sin) = ([1.0; WINDOW], [0.0; WINDOW]);
        let mut half = WINDOW / 2;
        while half > 1 {
            for n in 0..half {
                let angle = -PI * n as f32 / half as f32;
                (sin[WINDOW - 2 * half + n], cos[WINDOW - 2 * half + n]) = angle.sin_cos();
            }
            half /= 2;
        }
        Self {
            hann: std::array::from_fn(|n| 0.5 - 0.5 * (TAU * (n as f32 + 0.5) / WINDOW as f32).cos()),
            cos,
            sin,
            place: std::array::from_fn(|n| (n as u8).reverse_bits() >> (8 - BITS)),
            arch: Arch::new(),
        }
    }

    /// The mean energy per sample in each band, of each signal.
    pub(super) fn bands(&self, first: &[f32; WINDOW], second: &[f32; WINDOW]) -> (Bands, Bands) {
        self.arch.dispatch(Transform {
            spectrum: self,
            first,
            second,
        })
    }

    #[inline(always)]
    fn transform(&self, first: &[f32; WINDOW], second: &[f32; WINDOW]) -> (Bands, Bands) {
        let mut re: [f32; WINDOW] = std::array::from_fn(|n| first[n] * self.hann[n]);
        let mut im: [f32; WINDOW] = std::array::from_fn(|n| second[n] * self.hann[n]);
        let mut half = WINDOW / 2;
        while half > 0 {
            let turns = WINDOW - 2 * half;
            let (cos, sin) = (&self.cos[turns..][..half], &self.sin[turns..][..half]);
            for (re, im) in re.chunks_exact_mut(2 * half).zip(im.chunks_exact_mut(2 * half)) {
                let ((re_a, re_b), (im_a, im_b)) = (re.split_at_mut(half), im.split_at_mut(half));
                butterflies(re_a, re_b, im_a, im_b, cos, sin);
            }
            half /= 2;
        }
        self.part(&re, &im)
    }

    /// Take the two spectra apart: that of a real signal is even in its real part and odd in its imaginary part.
    #[inline(always)]
    fn part(&self, re: &[f32; WINDOW], im: &[f32; WINDOW]) -> (Bands, Bands) {
        // Hann: 3/8 of the energy; both halves of the spectrum; the halves of even and odd.
        const SCALE: f32 = 2.0 / (WINDOW as f32 * WINDOW as f32 * 0.375) / 4.0;
        let (mut first, mut second) = ([0.0; BANDS], [0.0; BANDS]);
        for band in 0..BANDS {
            for bin in EDGES[band]..EDGES[band + 1] {
                let (up, down) = (self.place[bin] as usize, self.place[WINDOW - bin] as usize);
                let (even, odd) = (re[up] + re[down], im[up] - im[down]);
                first[band] += even * even + odd * odd;
                let (even, odd) = (im[up] + im[down], re[up] - re[down]);
                second[band] += even * even + odd * odd;
            }
            first[band] *= SCALE;
            second[band] *= SCALE;
        }
        (first, second)
    }
}

/// Compiled once per instruction set.
struct Transform<'a> {
    spectrum: &'a Spectrum,
    first: &'a [f32; WINDOW],
    second: &'a [f32; WINDOW],
}

impl WithSimd for Transform<'_> {
    type Output = (Bands, Bands);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> (Bands, Bands) {
        self.spectrum.transform(self.first, self.second)
    }
}

/// One step of decimation in frequency. The slices have the same length.
#[inline(always)]
fn butterflies(
    re_a: &mut [f32],
    re_b: &mut [f32],
    im_a: &mut [f32],
    im_b: &mut [f32],
    cos: &[f32],
    sin: &[f32],
) {
    let turns = cos.iter().zip(sin);
    let real = re_a.iter_mut().zip(re_b);
    let imaginary = im_a.iter_mut().zip(im_b);
    for (((re_a, re_b), (im_a, im_b)), (&cos, &sin)) in real.zip(imaginary).zip(turns) {
        let (re, im) = (*re_a - *re_b, *im_a - *im_b);
        *re_a += *re_b;
        *im_a += *im_b;
        *re_b = re * cos - im * sin;
        *im_b = re * sin + im * cos;
    }
}

/// The mean energy per sample.
pub(super) fn energy(samples: &[i16; HOP]) -> f32 {
    let sum: i64 = samples
        .iter()
        .map(|&x| i64::from(i32::from(x) * i32::from(x)))
        .sum();
    sum as f32 / HOP as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tones_are_in_their_bands_with_their_energies() {
        let tone = |tone_hz: f32, peak: f32| {
            std::array::from_fn(|n| peak * (n as f32 * tone_hz / 8000.0 * TAU).sin())
        };
        let (low, high) = Spectrum::new().bands(&tone(1000.0, 8000.0), &tone(2600.0, 10.0));
        for (bands, bin, energy) in [(low, 16, 32e6), (high, 42, 50.0)] {
            let loudest = (0..BANDS).max_by(|&a, &b| bands[a].total_cmp(&bands[b])).unwrap();
            assert!((EDGES[loudest]..EDGES[loudest + 1]).contains(&bin), "{bands:?}");
            assert!(
                (bands.iter().sum::<f32>() / energy - 1.0).abs() < 0.05,
                "{bands:?}"
            );
        }
    }
}
