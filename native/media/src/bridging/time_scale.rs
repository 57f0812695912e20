//! A little more or less time without another pitch: one stretch of the waveform is repeated or left out.
//!
//! Where speech is voiced, leaving out a whole number of pitch periods and cross-fading over the seam is not heard
//! (WSOLA, Verhelst and Roelands 1993; on single packets, Liang, Färber and Girod 2003). The lag is searched over one
//! octave, 7.5 to 15 ms: whatever the pitch above 67 Hz is, one of its multiples lies there. Where the two sides of the
//! seam are not alike (a plosive, noise) nothing is done, unless it is too quiet to matter.

use std::ops::RangeInclusive;

/// Shortest and longest stretch, in half-milliseconds.
const SHORTEST: usize = 10;
const LONGEST: usize = 30;
/// The search skips samples so as to work at about this rate; the winner is then refined.
const SEARCH_HZ: usize = 8000;
/// RMS at which nobody hears a seam: -54 dBFS.
const QUIET_RMS: f32 = 64.0;

/// How alike the two sides of a seam must be: their normalised cross-correlation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Care {
    /// There is time to wait for a better place: 0.9.
    Patient,
    /// The delay is far off: 0.75.
    Pressed,
    /// The alternative is concealment: 0.4.
    Urgent,
}

impl Care {
    const fn least_likeness(self) -> f32 {
        match self {
            Self::Patient => 0.9,
            Self::Pressed => 0.75,
            Self::Urgent => 0.4,
        }
    }
}

/// Time-scale change at one sample rate.
#[derive(Debug, Clone, Copy)]
pub struct TimeScale {
    shortest: usize,
    longest: usize,
    stride: usize,
}

impl TimeScale {
    /// For samples at `rate_hz`, 8000 to 48000.
    pub fn new(rate_hz: u32) -> Self {
        let rate_hz = rate_hz as usize;
        Self {
            shortest: rate_hz * SHORTEST / 2000,
            longest: rate_hz * LONGEST / 2000,
            stride: (rate_hz / SEARCH_HZ).max(1),
        }
    }

    /// The most samples that one step inserts or removes: 15 ms.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Leave out one stretch at `at` (5 to 15 ms, and at most `most` samples) and return its length. Needs 30 ms behind
    /// `at`.
    pub fn accelerate(&self, line: &mut Vec<i16>, at: usize, care: Care, most: usize) -> Option<usize> {
        let ahead = line.get(at..)?;
        if ahead.len() < 2 * self.longest {
            return None;
        }
        let lags = if most < self.longest {
            self.shortest..=most
        } else {
            self.octave()
        };
        let lag = self.best(care, lags, |lag| (&ahead[..lag], &ahead[lag..2 * lag]))?;
        let (first, second) = line[at..].split_at_mut(lag);
        crossfade(first, &second[..lag]);
        line.copy_within(at + 2 * lag.., at + lag);
        line.truncate(line.len() - lag);
        Some(lag)
    }

    /// Repeat one stretch at `at` (7.5 to 15 ms) and return its length. Needs 15 ms on either side of `at`.
    pub fn expand(&self, line: &mut Vec<i16>, at: usize, care: Care) -> Option<usize> {
        let from = at.checked_sub(self.longest)?;
        let around = line.get(from..)?;
        let middle = self.longest;
        if around.len() < 2 * middle {
            return None;
        }
        let lag = self.best(care, self.octave(), |lag| {
            (&around[middle - lag..middle], &around[middle..middle + lag])
        })?;
        let end = line.len();
        line.resize(end + lag, 0);
        line.copy_within(at..end, at + lag);
        // Played first: the continuation, turning into the past, which the continuation then follows once more.
        let (past, rest) = line.split_at_mut(at);
        crossfade(&mut rest[..lag], &past[at - lag..]);
        Some(lag)
    }

    fn octave(&self) -> RangeInclusive<usize> {
        self.longest / 2..=self.longest
    }

    /// The one of these lags whose two sides are most alike; `None` if they are not alike enough.
    fn best<'a>(
        &self,
        care: Care,
        lags: RangeInclusive<usize>,
        sides: impl Fn(usize) -> (&'a [i16], &'a [i16]),
    ) -> Option<usize> {
        let (least, most) = (*lags.start(), *lags.end());
        let alike = |lag: usize, stride: usize| {
            let (first, second) = sides(lag);
            (likeness(first, second, stride), lag)
        };
        let better = |a: &(f32, usize), b: &(f32, usize)| a.0.total_cmp(&b.0);
        let (_, near) = lags
            .step_by(self.stride)
            .map(|lag| alike(lag, self.stride))
            .max_by(better)?;
        let fine = near.saturating_sub(self.stride - 1).max(least)..=(near + self.stride - 1).min(most);
        let (likeness, lag) = fine.map(|lag| alike(lag, 1)).max_by(better)?;
        let (first, second) = sides(lag);
        let quiet = rms(first) < QUIET_RMS && rms(second) < QUIET_RMS;
        (quiet || likeness >= care.least_likeness()).then_some(lag)
    }
}

/// Normalised cross-correlation, -1 to 1, over every `stride`th sample.
pub(crate) fn likeness(first: &[i16], second: &[i16], stride: usize) -> f32 {
    let (mut product, mut first_power, mut second_power) = (0.0_f32, 1.0_f32, 1.0_f32);
    for (&a, &b) in first.iter().zip(second).step_by(stride) {
        let (a, b) = (f32::from(a), f32::from(b));
        product += a * b;
        first_power += a * a;
        second_power += b * b;
    }
    product / (first_power * second_power).sqrt()
}

/// Turn `out` into `towards`, linearly: the two are alike, so their sum keeps its level.
pub(crate) fn crossfade(out: &mut [i16], towards: &[i16]) {
    let length = out.len() as i32 + 1;
    for (step, (sample, &other)) in (1..).zip(out.iter_mut().zip(towards)) {
        let mixed = i32::from(*sample) * (length - step) + i32::from(other) * step;
        *sample = (mixed / length) as i16;
    }
}

fn rms(samples: &[i16]) -> f32 {
    let power: f32 = samples.iter().map(|&sample| f32::from(sample).powi(2)).sum();
    (power / samples.len().max(1) as f32).sqrt()
}
