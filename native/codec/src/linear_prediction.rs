//! Linear prediction: the all-pole filter of a signal's spectrum, for comfort noise and for concealment.

/// Nearer to one, a pole rings for longer than the signal lasts.
const REFLECTION_MAX: f32 = 0.999;
/// A floor 40 dB down keeps the recursion from chasing what single precision cannot say.
const FLOOR: f32 = 1e-4;

/// The Levinson-Durbin recursion: from the autocorrelation at lags 0 to the order, to the coefficients of
/// A(z) = 1 + a1·z⁻¹ + … (`filter`, the order and one more) and the reflection coefficients (as many as the order).
/// Without power, the filter is 1.
pub(crate) fn levinson(correlation: &[f32], filter: &mut [f32], reflections: &mut [f32]) {
    filter.fill(0.0);
    filter[0] = 1.0;
    reflections.fill(0.0);
    if correlation[0] < 1.0 {
        return;
    }
    let mut error = correlation[0] * (1.0 + FLOOR);
    for stage in 1..=reflections.len() {
        let ahead: f32 = (0..stage).map(|n| filter[n] * correlation[stage - n]).sum();
        let k = (-ahead / error).clamp(-REFLECTION_MAX, REFLECTION_MAX);
        for n in 1..=stage / 2 {
            let (near, far) = (filter[n], filter[stage - n]);
            filter[n] = near + k * far;
            filter[stage - n] = far + k * near;
        }
        filter[stage] = k;
        error *= 1.0 - k * k;
        reflections[stage - 1] = k;
    }
}
