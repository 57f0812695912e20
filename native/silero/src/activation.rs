//! Sigmoid and tanh as straight-line float code that the compiler vectorises, exact to about 2e-7.

/// Adding it rounds a small float to the nearest integer and leaves that integer in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts, the first short enough that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// exp stays finite and normal within this range; sigmoid and tanh are saturated long before.
const RANGE: f32 = 87.0;

/// e^x = 2^n e^f with |f| <= ln(2)/2, the latter by its Taylor polynomial.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-RANGE, RANGE);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let f = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut series = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * f + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    series * f32::from_bits(exponent << 23)
}

#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_the_exact_functions_everywhere() {
        for step in -200_000..=200_000 {
            let x = step as f32 * 1e-3;
            let exact = f64::from(x);
            assert!(
                (f64::from(sigmoid(x)) - 1.0 / (1.0 + (-exact).exp())).abs() < 3e-7,
                "sigmoid({x})"
            );
            assert!((f64::from(tanh(x)) - exact.tanh()).abs() < 3e-7, "tanh({x})");
        }
    }
}
