//! At which delay what comes is like what was played: the correlation of what changes in the bands.

use super::line::KEPT;
use super::spectrum::{BANDS, Bands};

/// Hops of 10 ms: the longest delay.
pub(super) const LAGS: usize = 52;
/// Energy per sample that is no more than a hiss, in a band.
const HISS: f32 = 100.0;
/// How fast the mean of a band follows: 30 ms.
const MEAN_PACE: f32 = 0.3;
/// How much of the past counts: 330 ms, and 2.5 s.
const FORGET_FAST: f32 = 0.97;
const FORGET_SLOW: f32 = 0.996;

/// What changes in the bands of one direction: logarithms (in octaves of power) against their recent mean, and against
/// that of all bands. Any two voices begin and end at some time, in all bands; where in the bands they do is their own.
#[derive(Debug)]
struct Pattern {
    mean: Bands,
}

impl Pattern {
    fn of(&mut self, bands: &Bands) -> Bands {
        let changes: Bands = std::array::from_fn(|band| {
            let level = log2(bands[band] + HISS);
            let change = level - self.mean[band];
            self.mean[band] += MEAN_PACE * change;
            change
        });
        let common = changes.iter().sum::<f32>() / BANDS as f32;
        changes.map(|change| change - common)
    }

    fn silence(&mut self) {
        self.mean = [log2(HISS); BANDS];
    }
}

/// Energies of patterns, and correlations, over the two spans.
#[derive(Debug, Clone, Copy, Default)]
struct Spans<T> {
    fast: T,
    slow: T,
}

impl Spans<f32> {
    fn add(&mut self, x: f32) {
        self.fast = self.fast * FORGET_FAST + x;
        self.slow = self.slow * FORGET_SLOW + x;
    }

    fn fade(&mut self, hops: usize) {
        let hops = hops.min(10_000) as i32;
        self.fast *= FORGET_FAST.powi(hops);
        self.slow *= FORGET_SLOW.powi(hops);
    }
}

/// How alike, from -1 to 1, and at which lag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Match {
    pub(super) lag: usize,
    pub(super) score: f32,
}

#[derive(Debug)]
pub(super) struct Likeness {
    played: Pattern,
    came: Pattern,
    /// Of what was played, by hop.
    patterns: Box<[Bands; KEPT]>,
    energies: Box<[Spans<f32>; KEPT]>,
    came_energy: Spans<f32>,
    agreement: [Spans<f32>; LAGS],
}

impl Likeness {
    pub(super) fn new() -> Self {
        let pattern = || Pattern {
            mean: [log2(HISS); BANDS],
        };
        Self {
            played: pattern(),
            came: pattern(),
            patterns: Box::new([[0.0; BANDS]; KEPT]),
            energies: Box::new([Spans::default(); KEPT]),
            came_energy: Spans::default(),
            agreement: [Spans::default(); LAGS],
        }
    }

    /// A hop of what was played.
    pub(super) fn played(&mut self, hop: usize, bands: &Bands) {
        let pattern = self.played.of(bands);
        self.patterns[hop % KEPT] = pattern;
        let mut energy = self.energies[(hop + KEPT - 1) % KEPT];
        energy.add(dot(&pattern, &pattern));
        self.energies[hop % KEPT] = energy;
    }

    /// The hops of what was played from `begin` to `end` were not looked at.
    pub(super) fn played_gap(&mut self, begin: usize, end: usize) {
        self.played.silence();
        let mut energy = self.energies[(begin + KEPT - 1) % KEPT];
        energy.fade(end - begin);
        self.energies[(end + KEPT - 1) % KEPT] = energy;
    }

    /// So many hops in which nothing came.
    pub(super) fn came_nothing(&mut self, hops: usize) {
        self.came.silence();
        self.came_energy.fade(hops);
        self.agreement
            .iter_mut()
            .for_each(|agreement| agreement.fade(hops));
    }

    /// What came while `hop` was played; a lag beyond `hop` is none.
    pub(super) fn came(&mut self, hop: usize, bands: &Bands) {
        let pattern = self.came.of(bands);
        self.came_energy.add(dot(&pattern, &pattern));
        for (lag, agreement) in self.agreement.iter_mut().enumerate() {
            let played = &self.patterns[(hop + KEPT - lag) % KEPT];
            agreement.add(dot(&pattern, played));
        }
    }

    /// Over the last 330 ms, among some lags; `hop` as for [`Likeness::came`].
    pub(super) fn fast(&self, hop: usize, lags: std::ops::Range<usize>) -> Match {
        let came = self.came_energy.fast;
        best(lags, |lag| {
            let played = self.energies[(hop + KEPT - lag) % KEPT].fast;
            self.agreement[lag].fast / (came * played).sqrt().max(1.0)
        })
    }

    /// The same over 2.5 s.
    pub(super) fn slow(&self, hop: usize, lags: std::ops::Range<usize>) -> Match {
        let came = self.came_energy.slow;
        best(lags, |lag| {
            let played = self.energies[(hop + KEPT - lag) % KEPT].slow;
            self.agreement[lag].slow / (came * played).sqrt().max(1.0)
        })
    }

    /// How much has come to compare in 2.5 s, in hops of speech.
    pub(super) fn evidence(&self) -> f32 {
        self.came_energy.slow / BANDS as f32
    }
}

fn best(lags: std::ops::Range<usize>, score: impl Fn(usize) -> f32) -> Match {
    let mut best = Match {
        lag: lags.start,
        score: -1.0,
    };
    for lag in lags {
        let score = score(lag);
        if score > best.score {
            best = Match { lag, score };
        }
    }
    best
}

fn dot(a: &Bands, b: &Bands) -> f32 {
    let mut sums = [0.0_f32; 4];
    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(4)) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

/// To 0.01; of what is positive and no subnormal.
fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    // The parabola through 1, 1.5, and 2.
    exponent as f32 - 1.679_7 + mantissa * (2.019_55 - 0.339_85 * mantissa)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithm_is_near_enough() {
        for n in 1..10_000 {
            let x = 1.003_f32.powi(n);
            assert!((log2(x) - x.log2()).abs() < 0.015, "{x}");
        }
    }
}
