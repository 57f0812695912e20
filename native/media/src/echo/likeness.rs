//! At which delay what comes is like what was played: the correlation of what changes in the bands.

#![allow(
    clippy::inline_always,
    reason = "what is not inlined is not compiled for the instruction set"
)]

use std::ops::Range;

use pulp::Arch;

use super::spectrum::{BANDS, Bands};

/// Hops of 10 ms: the longest delay.
pub(super) const LAGS: usize = 52;
/// Hops of what was played that are kept.
const KEPT: usize = 64;
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

/// A sum that forgets, over the two spans.
#[derive(Debug, Clone, Copy, Default)]
struct Spans {
    fast: f32,
    slow: f32,
}

impl Spans {
    fn add(&mut self, x: f32) {
        self.fast = self.fast * FORGET_FAST + x;
        self.slow = self.slow * FORGET_SLOW + x;
    }

    fn fade(&mut self, hops: usize) {
        let (fast, slow) = forgotten(hops);
        self.fast *= fast;
        self.slow *= slow;
    }
}

/// What is left of the two spans after so many hops.
fn forgotten(hops: usize) -> (f32, f32) {
    let hops = hops.min(10_000) as i32;
    (FORGET_FAST.powi(hops), FORGET_SLOW.powi(hops))
}

/// How alike, from -1 to 1, and at which lag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Match {
    pub(super) lag: usize,
    pub(super) score: f32,
}

/// The last hops of something, the newest first and without a seam: written twice, each time a place further down.
#[derive(Debug)]
struct Recent<T>([T; 2 * KEPT]);

impl<T: Copy> Recent<T> {
    fn place(hop: usize) -> usize {
        KEPT - 1 - hop % KEPT
    }

    fn set(&mut self, hop: usize, value: T) {
        let place = Self::place(hop);
        self.0[place] = value;
        self.0[place + KEPT] = value;
    }

    /// From a hop on back.
    #[inline(always)]
    fn before(&self, hop: usize) -> &[T; LAGS] {
        let place = Self::place(hop);
        self.0[place..]
            .first_chunk()
            .expect("there are more hops than lags")
    }
}

/// A pattern as it is kept: the memory of hundreds of calls costs more than the arithmetic on it. In 1/16 octave, which is
/// finer than speech is steady.
type Kept = [i8; BANDS];
const STEPS: f32 = 16.0;

fn keep(pattern: &Bands) -> Kept {
    // The cast saturates, at 8 octaves.
    pattern.map(|change| (change * STEPS).round() as i8)
}

#[derive(Debug)]
pub(super) struct Likeness {
    arch: Arch,
    played: Pattern,
    came: Pattern,
    /// Of what was played: its patterns by band, and their magnitudes over the two spans.
    patterns: Box<[Recent<i8>; BANDS]>,
    played_energy: Spans,
    played_fast: Box<Recent<f32>>,
    played_slow: Box<Recent<f32>>,
    came_energy: Spans,
    /// By lag, over the two spans.
    agreement_fast: [f32; LAGS],
    agreement_slow: [f32; LAGS],
}

impl Likeness {
    pub(super) fn new() -> Self {
        let pattern = || Pattern {
            mean: [log2(HISS); BANDS],
        };
        Self {
            arch: Arch::new(),
            played: pattern(),
            came: pattern(),
            patterns: Box::new([const { Recent([0; 2 * KEPT]) }; BANDS]),
            played_energy: Spans::default(),
            played_fast: Box::new(Recent([0.0; 2 * KEPT])),
            played_slow: Box::new(Recent([0.0; 2 * KEPT])),
            came_energy: Spans::default(),
            agreement_fast: [0.0; LAGS],
            agreement_slow: [0.0; LAGS],
        }
    }

    /// What was played in a hop; hops come in order.
    pub(super) fn played(&mut self, hop: usize, bands: &Bands) {
        let pattern = self.played.of(bands);
        for (recent, change) in self.patterns.iter_mut().zip(keep(&pattern)) {
            recent.set(hop, change);
        }
        self.played_energy.add(dot(&pattern, &pattern));
        self.remember_energy(hop);
    }

    /// The hops of what was played from `begin` to `end` were not looked at.
    pub(super) fn played_gap(&mut self, begin: usize, end: usize) {
        self.played.silence();
        self.played_energy.fade(end - begin);
        self.remember_energy(end - 1);
    }

    fn remember_energy(&mut self, hop: usize) {
        self.played_fast.set(hop, self.played_energy.fast.sqrt());
        self.played_slow.set(hop, self.played_energy.slow.sqrt());
    }

    /// So many hops in which nothing came.
    pub(super) fn came_nothing(&mut self, hops: usize) {
        self.came.silence();
        self.came_energy.fade(hops);
        let (fast, slow) = forgotten(hops);
        self.agreement_fast
            .iter_mut()
            .for_each(|agreement| *agreement *= fast);
        self.agreement_slow
            .iter_mut()
            .for_each(|agreement| *agreement *= slow);
    }

    /// What came while `hop` was played; a lag beyond `hop` is none.
    pub(super) fn came(&mut self, hop: usize, bands: &Bands) {
        let pattern = self.came.of(bands);
        self.came_energy.add(dot(&pattern, &pattern));
        let (patterns, fast, slow) = (&self.patterns, &mut self.agreement_fast, &mut self.agreement_slow);
        self.arch.dispatch(
            #[inline(always)]
            || {
                let mut like = [0.0_f32; LAGS];
                for (played, &came) in patterns.iter().zip(&pattern) {
                    for (like, &played) in like.iter_mut().zip(played.before(hop)) {
                        *like += came / STEPS * f32::from(played);
                    }
                }
                for ((fast, slow), &like) in fast.iter_mut().zip(slow).zip(&like) {
                    *fast = *fast * FORGET_FAST + like;
                    *slow = *slow * FORGET_SLOW + like;
                }
            },
        );
    }

    /// Over the last 330 ms, among some lags; `hop` as for [`Likeness::came`].
    pub(super) fn fast(&self, hop: usize, lags: Range<usize>) -> Match {
        let scores = self.scores(
            &self.agreement_fast,
            self.came_energy.fast,
            self.played_fast.before(hop),
        );
        best(lags, &scores)
    }

    /// The same over 2.5 s.
    pub(super) fn slow(&self, hop: usize, lags: Range<usize>) -> Match {
        let scores = self.scores(
            &self.agreement_slow,
            self.came_energy.slow,
            self.played_slow.before(hop),
        );
        best(lags, &scores)
    }

    fn scores(&self, agreement: &[f32; LAGS], came_energy: f32, played: &[f32; LAGS]) -> [f32; LAGS] {
        let came = came_energy.sqrt();
        let mut scores = *agreement;
        self.arch.dispatch(
            #[inline(always)]
            || {
                for (score, &played) in scores.iter_mut().zip(played) {
                    *score /= (came * played).max(1.0);
                }
            },
        );
        scores
    }

    /// How much has come to compare in 2.5 s, in hops of speech.
    pub(super) fn evidence(&self) -> f32 {
        self.came_energy.slow / BANDS as f32
    }
}

fn best(lags: Range<usize>, scores: &[f32; LAGS]) -> Match {
    let mut best = Match {
        lag: lags.start,
        score: -1.0,
    };
    for lag in lags {
        if scores[lag] > best.score {
            best = Match {
                lag,
                score: scores[lag],
            };
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
