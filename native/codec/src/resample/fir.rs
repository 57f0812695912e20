//! Many outputs of one filter at once: the hot loop of the converter.
//!
//! The outputs lie side by side in vector registers, each a sample further in the window, so that a tap is read once for
//! all of them and every output adds its products in the same order, whatever the block. The instruction set is chosen at
//! run time by `pulp`.

#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the instruction set"
)]

use pulp::{Arch, Simd, WithSimd};

/// What the window and the sums must have room for beyond what is asked: whole vectors are computed, and a rest thrown away.
pub(super) const ROOM: usize = 63;

/// Add to `sums[n]` the product of `row` with `window[n..]`, for the first `count` sums.
///
/// # Panics
/// When `sums` is shorter than `count + ROOM`, or `window` than `count + ROOM + row.len()`.
pub(super) fn add_products(arch: Arch, row: &[f32], window: &[f32], sums: &mut [f32], count: usize) {
    arch.dispatch(Products {
        row,
        window,
        sums,
        count,
    });
}

struct Products<'a> {
    row: &'a [f32],
    window: &'a [f32],
    sums: &'a mut [f32],
    count: usize,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut begin = 0;
        while begin < self.count {
            // Eight accumulators hide the latency of an addition; fewer do for what is left.
            begin += match (self.count - begin).div_ceil(S::F32_LANES) {
                1 => self.vectors::<S, 1>(simd, begin),
                2 | 3 => self.vectors::<S, 2>(simd, begin),
                4..8 => self.vectors::<S, 4>(simd, begin),
                _ => self.vectors::<S, 8>(simd, begin),
            };
        }
    }
}

impl Products<'_> {
    /// `V` vectors of outputs from `begin` on; returns how many outputs that is.
    #[inline(always)]
    fn vectors<S: Simd, const V: usize>(&mut self, simd: S, begin: usize) -> usize {
        let outputs = V * S::F32_LANES;
        let sums = &mut self.sums[begin..begin + outputs];
        let window = &self.window[begin..begin + outputs + self.row.len()];
        let places = S::as_mut_simd_f32s(sums).0;
        let mut registers: [S::f32s; V] = std::array::from_fn(|v| places[v]);
        for (place, &tap) in self.row.iter().enumerate() {
            let tap = simd.splat_f32s(tap);
            let samples = S::as_simd_f32s(&window[place..place + outputs]).0;
            for (sum, &samples) in registers.iter_mut().zip(samples) {
                *sum = simd.mul_add_e_f32s(tap, samples, *sum);
            }
        }
        places.copy_from_slice(&registers);
        outputs
    }
}

/// Samples as floats.
pub(super) fn widen(arch: Arch, samples: &[i16], floats: &mut [f32]) {
    arch.dispatch(
        #[inline(always)]
        || {
            for (float, &sample) in floats.iter_mut().zip(samples) {
                *float = f32::from(sample);
            }
        },
    );
}

/// Floats as the nearest samples, clipped.
pub(super) fn narrow(arch: Arch, floats: &[f32], samples: &mut [i16]) {
    arch.dispatch(
        #[inline(always)]
        || {
            for (sample, &float) in samples.iter_mut().zip(floats) {
                *sample = round_to_sample(float);
            }
        },
    );
}

/// The nearest sample, clipped. Adding 1.5 * 2^23 leaves the rounded number in the low bits of the mantissa: unlike a cast,
/// which saturates, this becomes vectors.
#[inline(always)]
pub(super) fn round_to_sample(float: f32) -> i16 {
    const ROUND: f32 = 12_582_912.0;
    let clipped = float.clamp(f32::from(i16::MIN), f32::from(i16::MAX));
    (clipped + ROUND).to_bits() as i16
}
