//! Changes of loudness that are not heard as clicks: each takes 10 ms.

/// Least and most gain.
const GAIN_DB: (f32, f32) = (-60.0, 12.0);

/// The amplitude of a gain, limited to -60 to +12 dB; 1 for what is not a number.
pub(super) fn amplitude(gain_db: f32) -> f32 {
    if gain_db.is_nan() || gain_db == 0.0 {
        return 1.0;
    }
    10_f32.powf(gain_db.clamp(GAIN_DB.0, GAIN_DB.1) / 20.0)
}

pub(super) fn fade_in(samples: &mut [i16]) {
    let length = samples.len() as i32;
    for (step, sample) in (0..).zip(samples) {
        *sample = (i32::from(*sample) * step / length) as i16;
    }
}

pub(super) fn fade_out(samples: &mut [i16]) {
    let length = samples.len() as i32;
    for (step, sample) in (0..).zip(samples) {
        *sample = (i32::from(*sample) * (length - step) / length) as i16;
    }
}

/// An amplitude that goes to its target in a straight line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ramp {
    now: f32,
    target: f32,
    step: f32,
}

impl Ramp {
    pub(crate) fn at(amplitude: f32) -> Self {
        Self {
            now: amplitude,
            target: amplitude,
            step: 0.0,
        }
    }

    pub(crate) fn now(&self) -> f32 {
        self.now
    }

    /// Be at `target` after `length` samples; 0 is at once. A way to the same target is not begun anew.
    pub(crate) fn go(&mut self, target: f32, length: usize) {
        if length == 0 {
            *self = Self::at(target);
        } else if target.to_bits() != self.target.to_bits() {
            self.target = target;
            self.step = (target - self.now) / length as f32;
        }
    }

    /// The amplitude of the next sample.
    pub(crate) fn step(&mut self) -> f32 {
        let now = self.now;
        self.now += self.step;
        let is_past = (self.target - self.now) * self.step <= 0.0;
        if is_past {
            *self = Self::at(self.target);
        }
        now
    }

    /// Scale one sample.
    pub(crate) fn scale(&mut self, sample: i16) -> i16 {
        let amplitude = self.step();
        if amplitude.to_bits() == 1_f32.to_bits() {
            return sample;
        }
        // The cast saturates.
        (f32::from(sample) * amplitude).round() as i16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_arrives_and_stays() {
        let mut ramp = Ramp::at(0.0);
        ramp.go(1.0, 80);
        let values: Vec<f32> = (0..100).map(|_| ramp.step()).collect();
        assert!(
            values
                .windows(2)
                .all(|pair| (0.0..=1.0 / 79.0).contains(&(pair[1] - pair[0])))
        );
        assert!(
            values[81..]
                .iter()
                .all(|value| value.to_bits() == 1_f32.to_bits())
        );
    }

    #[test]
    fn gains_are_limited() {
        assert!((amplitude(40.0) - 3.981).abs() < 0.001);
        assert!((amplitude(-90.0) - 0.001).abs() < 1e-6);
        assert!(amplitude(f32::NAN).to_bits() == 1_f32.to_bits());
        assert_eq!(Ramp::at(amplitude(12.0)).scale(-20_000), i16::MIN);
    }
}
