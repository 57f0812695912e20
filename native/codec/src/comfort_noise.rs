//! Comfort noise (RFC 3389): what a sender says of the background in a pause, the noise made from it, and the reverse.
//!
//! The spectrum is an all-pole filter 1/A(z) given by its reflection coefficients, with the sign that makes the first
//! the first coefficient of A(z) = 1 + a1·z⁻¹ + …: noise with more power in the low frequencies has it below zero.

use crate::linear_prediction::levinson;

/// As many coefficients as we use; a payload may have more, and a filter cut short is still the best of its order
/// (RFC 3389, 3: higher ones may be taken for zero).
pub const ORDER_MAX: usize = 12;

/// Nearer to one, a pole rings for longer than the noise lasts.
const REFLECTION_MAX: f32 = 0.99;
/// The root mean square of 0 dBov: a square wave over all 16 bits.
const OVERLOAD: f32 = 32_768.0;

/// A comfort noise payload, in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseParameters {
    /// Level below overload: 0 to 127 for 0 to -127 dBov.
    pub level: u8,
    /// Reflection coefficients, of which `order` count; -1 to 1.
    pub reflections: [f32; ORDER_MAX],
    /// 0, for white noise, to [`ORDER_MAX`].
    pub order: usize,
}

impl NoiseParameters {
    /// White noise of a level.
    pub fn white(level: u8) -> Self {
        Self {
            level: level.min(127),
            reflections: [0.0; ORDER_MAX],
            order: 0,
        }
    }

    /// Read a payload (RFC 3389, 3.1 to 3.3). None for an empty one; everything else means something.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (level, coded) = payload.split_first()?;
        let mut parameters = Self::white(level & 0x7f);
        parameters.order = coded.len().min(ORDER_MAX);
        for (reflection, &code) in parameters.reflections.iter_mut().zip(coded) {
            // Steps of 258 of 2^15 around the code 127; 255 would be beyond one.
            *reflection = ((f32::from(code) - 127.0) * 258.0 / 32_768.0).min(1.0);
        }
        Some(parameters)
    }

    /// Write a payload into `out`, with as many coefficients as fit. Returns its octets: up to `order` + 1.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let Some((level, coded)) = out.split_first_mut() else {
            return 0;
        };
        *level = self.level.min(127);
        let order = self.order.min(ORDER_MAX).min(coded.len());
        for (code, reflection) in coded.iter_mut().zip(&self.reflections[..order]) {
            *code = (reflection * 32_768.0 / 258.0 + 127.0).round().clamp(0.0, 254.0) as u8;
        }
        order + 1
    }
}

/// Makes noise of given parameters.
#[derive(Debug, Clone)]
pub struct NoiseGenerator {
    random: u64,
    reflections: [f32; ORDER_MAX],
    order: usize,
    /// Of the excitation: where it is, where it goes, and how fast.
    gain: Option<f32>,
    gain_target: f32,
    gain_pace: f32,
    /// The lattice's backward errors of the sample before.
    backward: [f32; ORDER_MAX],
}

impl NoiseGenerator {
    /// A generator at `rate_hz` that is silent until it has parameters; the same `seed` makes the same noise.
    pub fn new(rate_hz: u32, seed: u64) -> Self {
        Self {
            random: seed,
            reflections: [0.0; ORDER_MAX],
            order: 0,
            gain: None,
            gain_target: 0.0,
            gain_pace: 50.0 / rate_hz as f32,
            backward: [0.0; ORDER_MAX],
        }
    }

    /// Change to new parameters; the level goes there over about 20 ms.
    pub fn set(&mut self, parameters: &NoiseParameters) {
        self.order = parameters.order.min(ORDER_MAX);
        let mut loss = 1.0;
        for (own, given) in self
            .reflections
            .iter_mut()
            .zip(&parameters.reflections[..self.order])
        {
            *own = given.clamp(-REFLECTION_MAX, REFLECTION_MAX);
            loss *= 1.0 - *own * *own;
        }
        // The filter amplifies white noise by 1/√∏(1 - k²).
        let level = OVERLOAD * 10.0_f32.powf(-f32::from(parameters.level) / 20.0);
        self.gain_target = level * loss.sqrt();
        self.gain.get_or_insert(self.gain_target);
    }

    /// Append `samples` samples of noise.
    pub fn generate(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        let mut gain = self.gain.unwrap_or(0.0);
        pcm.reserve(samples);
        for _ in 0..samples {
            gain += self.gain_pace * (self.gain_target - gain);
            let excitation = gain * self.random();
            // The cast saturates.
            pcm.push(self.filter(excitation).round() as i16);
        }
        if self.gain.is_some() {
            self.gain = Some(gain);
        }
    }

    /// The all-pole lattice: stable for any coefficients below one, also while they change.
    fn filter(&mut self, excitation: f32) -> f32 {
        let mut forward = excitation;
        for stage in (0..self.order).rev() {
            let (k, before) = (self.reflections[stage], self.backward[stage]);
            forward -= k * before;
            if stage + 1 < self.order {
                self.backward[stage + 1] = before + k * forward;
            }
        }
        self.backward[0] = forward;
        forward
    }

    /// Nearly Gaussian, of variance one: four uniform numbers from one step of a 64-bit generator (splitmix64).
    fn random(&mut self) -> f32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let sum: i32 = (0..4).map(|n| i32::from((bits >> (16 * n)) as i16)).sum();
        // Each has a variance of 2^30/3.
        sum as f32 * (0.75_f32.sqrt() / 32_768.0)
    }
}

/// Measures noise to describe it.
#[derive(Debug, Clone)]
pub struct NoiseEstimator {
    /// Smoothed sums of products at lags 0 to [`ORDER_MAX`], per sample.
    correlation: [f32; ORDER_MAX + 1],
    /// The last samples of the frame before, then the frame: products do not stop at its edge.
    window: Vec<f32>,
    /// How many samples the smoothing remembers, and how many it has seen, up to those.
    memory: f32,
    seen: f32,
}

impl NoiseEstimator {
    /// An estimator of noise at `rate_hz` that remembers about 200 ms.
    pub fn new(rate_hz: u32) -> Self {
        Self {
            correlation: [0.0; ORDER_MAX + 1],
            window: vec![0.0; ORDER_MAX],
            memory: rate_hz as f32 / 5.0,
            seen: 0.0,
        }
    }

    /// Take note of a frame of noise, 20 ms or so.
    pub fn hear(&mut self, pcm: &[i16]) {
        if pcm.is_empty() {
            return;
        }
        self.window.extend(pcm.iter().map(|&sample| f32::from(sample)));
        let count = pcm.len() as f32;
        self.seen = (self.seen + count).min(self.memory.max(count));
        let weight = count / self.seen;
        for (lag, smoothed) in self.correlation.iter_mut().enumerate() {
            let later = &self.window[ORDER_MAX..];
            let earlier = &self.window[ORDER_MAX - lag..];
            let sum: f32 = later.iter().zip(earlier).map(|(a, b)| a * b).sum();
            *smoothed += weight * (sum / count - *smoothed);
        }
        self.window.drain(..pcm.len());
    }

    /// The noise so far, with `order` coefficients at most [`ORDER_MAX`].
    pub fn parameters(&self, order: usize) -> NoiseParameters {
        let power = self.correlation[0];
        let level_db = -20.0 * (power.sqrt() / OVERLOAD).log10();
        // Nothing heard is an infinite level, which the cast takes to 255.
        let mut parameters = NoiseParameters::white(level_db.round().max(0.0) as u8);
        parameters.order = order.min(ORDER_MAX);
        let mut filter = [0.0; ORDER_MAX + 1];
        let reflections = &mut parameters.reflections[..parameters.order];
        levinson(&self.correlation, &mut filter[..=parameters.order], reflections);
        parameters
    }
}
