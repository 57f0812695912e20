//! The model's first layer, a convolution with 258 filters of 256 taps, done with a quarter of the work.
//!
//! The filters are a windowed Fourier basis: `w[n] cos(2 pi k n / 256)` and `-w[n] sin(2 pi k n / 256)` for
//! k = 0..=128 (checked when the model is loaded, since everything here rests on it). Both are mirrored about
//! n = 128, and for even and for odd k once more about n = 64. Folding the windowed frame there first leaves
//! four products of 64 by 64. Only the magnitudes go on, so signs do not matter.

use std::f64::consts::TAU;

use pulp::Simd;

use crate::ModelError;
use crate::matrix::{Layout, Matrix};

/// Samples per frame.
pub(crate) const FRAME: usize = 256;
/// Magnitudes per frame: the even bins 0..=126, the odd bins, the bin 128.
pub(crate) const BINS: usize = 129;
const HALF: usize = FRAME / 2;
const QUARTER: usize = FRAME / 4;
/// Inputs of the four products: even and odd cosines, even and odd sines.
const INPUTS: [usize; 4] = [QUARTER + 1, QUARTER, QUARTER - 1, QUARTER];
const STARTS: [usize; 4] = [0, QUARTER + 1, 2 * QUARTER + 1, 3 * QUARTER];
/// How far a filter may be from the exact one; the published file is within 6e-8.
const TOLERANCE: f64 = 1e-6;
pub(crate) const BASIS: &str = "stft.forward_basis_buffer";

/// The window and the folded basis.
#[derive(Debug, Clone)]
pub(crate) struct Spectrum {
    window: Box<[f32; FRAME]>,
    products: [Matrix; 4],
}

impl Spectrum {
    /// From the filters, `[2 * BINS][FRAME]`.
    pub(crate) fn from_basis(basis: &[f32]) -> Result<Self, ModelError> {
        let (rows, _) = basis.as_chunks::<FRAME>();
        let window = Box::new(*rows.first().ok_or(ModelError::Shape { name: BASIS })?);
        for (index, row) in rows.iter().enumerate() {
            for (n, (&value, &weight)) in row.iter().zip(window.iter()).enumerate() {
                let angle = turn(index % BINS * n);
                let wave = if index < BINS { angle.cos() } else { -angle.sin() };
                if (f64::from(value) - f64::from(weight) * wave).abs() > TOLERANCE {
                    return Err(ModelError::NotFourier);
                }
            }
        }
        let product = |inputs, wave: &dyn Fn(usize, usize) -> f64| {
            Matrix::pack(inputs, vec![0.0; QUARTER], false, |k, n| wave(k, n) as f32)
        };
        let products = [
            product(INPUTS[0], &|k, n| turn(2 * k * n).cos()),
            product(INPUTS[1], &|k, n| turn((2 * k + 1) * n).cos()),
            product(INPUTS[2], &|k, n| turn(2 * k * (n + 1)).sin()),
            product(INPUTS[3], &|k, n| turn((2 * k + 1) * (n + 1)).sin()),
        ];
        Ok(Self { window, products })
    }

    /// Window and fold one frame.
    #[inline(always)]
    pub(crate) fn fold(&self, frame: &[f32; FRAME], folded: &mut [f32; FRAME]) {
        let mut windowed = [0.0; FRAME];
        for ((out, sample), weight) in windowed.iter_mut().zip(frame).zip(self.window.iter()) {
            *out = sample * weight;
        }
        let mut even = [0.0; HALF + 1];
        let mut odd = [0.0; HALF + 1];
        even[0] = windowed[0];
        even[HALF] = windowed[HALF];
        for n in 1..HALF {
            even[n] = windowed[n] + windowed[FRAME - n];
            odd[n] = windowed[n] - windowed[FRAME - n];
        }
        let (even_cos, rest) = folded.split_at_mut(INPUTS[0]);
        let (odd_cos, rest) = rest.split_at_mut(INPUTS[1]);
        let (even_sin, odd_sin) = rest.split_at_mut(INPUTS[2]);
        for n in 0..QUARTER {
            even_cos[n] = even[n] + even[HALF - n];
            odd_cos[n] = even[n] - even[HALF - n];
        }
        even_cos[QUARTER] = even[QUARTER];
        for n in 1..QUARTER {
            even_sin[n - 1] = odd[n] - odd[HALF - n];
            odd_sin[n - 1] = odd[n] + odd[HALF - n];
        }
        odd_sin[QUARTER - 1] = odd[QUARTER];
    }

    /// The four products of `frames` folded frames; `waves` has the room of `folded`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(&self, simd: S, frames: usize, folded: &[f32], waves: &mut [f32]) {
        for (index, matrix) in self.products.iter().enumerate() {
            let from = Layout::single(STARTS[index], FRAME);
            matrix.apply(
                simd,
                frames,
                (folded, from),
                (waves, Layout::single(index * QUARTER, FRAME)),
            );
        }
    }

    /// The magnitudes of one frame.
    #[inline(always)]
    pub(crate) fn magnitudes(folded: &[f32; FRAME], waves: &[f32; FRAME], out: &mut [f32; BINS]) {
        let (cosines, sines) = waves.split_at(HALF);
        for ((out, cos), sin) in out.iter_mut().zip(cosines).zip(sines) {
            *out = (cos * cos + sin * sin).sqrt();
        }
        // Bin 128 alternates +1 and -1 over the even fold and has no sine.
        let mut sums = [0.0; 8];
        let (groups, _) = folded[..QUARTER].as_chunks::<8>();
        for group in groups {
            for (sum, value) in sums.iter_mut().zip(group) {
                *sum += value;
            }
        }
        let alternating = sums[0] - sums[1] + sums[2] - sums[3] + sums[4] - sums[5] + sums[6] - sums[7];
        out[HALF] = (alternating + folded[QUARTER]).abs();
    }

    /// The bin of the model's own order that stands at `position` in ours.
    pub(crate) fn bin(position: usize) -> usize {
        match position {
            0..QUARTER => 2 * position,
            QUARTER..HALF => 2 * (position - QUARTER) + 1,
            _ => HALF,
        }
    }
}

/// 2 pi n / 256, reduced first so that large products lose nothing.
fn turn(n: usize) -> f64 {
    TAU * (n % FRAME) as f64 / FRAME as f64
}
