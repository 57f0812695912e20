//! Concealment of lost audio in the sample domain, for codecs that bring none: the last pitch periods go on and fade.
//!
//! In the spirit of ITU-T G.711 Appendix I, whose 3.75 ms of delay we do not pay: a listener that is a machine hears
//! good audio untouched and at once. So the joins are made on our side of them: where a loss begins, the step to the
//! extrapolated signal is spread over its first samples; where it ends, the extrapolation is faded out over the first
//! good samples.

/// Lags of a pitch of 66 to 400 Hz, in 1/4 ms.
const LAG_MIN_QUARTERS: usize = 10;
const LAG_MAX_QUARTERS: usize = 60;
/// The stretch that is compared at each lag.
const WINDOW_MS: usize = 20;
/// Three of the longest periods, and the quarter before them that smooths their seam.
const HISTORY_MS: usize = 50;
const PERIODS_MAX: usize = 3;
/// At full level for so long, then down to silence.
const HOLD_MS: usize = 10;
const SILENT_AFTER_MS: usize = 60;
/// Where good audio comes back.
const CROSSFADE_MS: usize = 5;

/// The concealment of one stream.
#[derive(Debug, Clone)]
pub struct Concealment {
    per_ms: usize,
    /// The last [`HISTORY_MS`] that went out, oldest first.
    history: Vec<f32>,
    /// The history when the loss began: what is repeated.
    past: Vec<f32>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// The last audio was good.
    Good,
    /// `done` samples have been made up.
    Lost {
        period: usize,
        /// The stretch that is repeated: the last one to three periods, and the place in it.
        length: usize,
        place: usize,
        done: usize,
        /// What the first sample missed its predecessor by.
        step: f32,
    },
}

impl Concealment {
    /// For audio at `rate_hz`, a multiple of 4000; nothing has been heard.
    pub fn new(rate_hz: u32) -> Self {
        let per_ms = rate_hz as usize / 1000;
        Self {
            per_ms,
            history: vec![0.0; HISTORY_MS * per_ms],
            past: vec![0.0; HISTORY_MS * per_ms],
            state: State::Good,
        }
    }

    /// Take note of good audio. The first after a loss is faded in from what would have gone on.
    pub fn good(&mut self, pcm: &mut [i16]) {
        if let State::Lost { .. } = self.state {
            let fade = (CROSSFADE_MS * self.per_ms).min(pcm.len());
            for (n, sample) in pcm[..fade].iter_mut().enumerate() {
                let weight = (n + 1) as f32 / (fade + 1) as f32;
                *sample = (weight * f32::from(*sample) + (1.0 - weight) * self.next()).round() as i16;
            }
            self.state = State::Good;
        }
        self.remember(pcm);
    }

    /// Fill `pcm` in place of lost audio.
    pub fn lost(&mut self, pcm: &mut [i16]) {
        if self.state == State::Good && !pcm.is_empty() {
            self.begin();
        }
        for sample in pcm.iter_mut() {
            *sample = self.next().round() as i16;
        }
        self.remember(pcm);
    }

    fn remember(&mut self, pcm: &[i16]) {
        let newest = &pcm[pcm.len().saturating_sub(self.history.len())..];
        self.history.copy_within(newest.len().., 0);
        let start = self.history.len() - newest.len();
        for (slot, &sample) in self.history[start..].iter_mut().zip(newest) {
            *slot = f32::from(sample);
        }
    }

    fn begin(&mut self) {
        self.past.copy_from_slice(&self.history);
        let period = self.pitch_period();
        let end = self.history.len();
        self.state = State::Lost {
            period,
            length: period,
            place: 0,
            done: 0,
            step: self.past[end - 1] - self.past[end - period - 1],
        };
    }

    /// The lag at which the recent past resembles itself most (normalised cross-correlation).
    fn pitch_period(&self) -> usize {
        let end = self.history.len();
        let window = WINDOW_MS * self.per_ms;
        let recent = &self.history[end - window..];
        let lags = LAG_MIN_QUARTERS * self.per_ms / 4..=LAG_MAX_QUARTERS * self.per_ms / 4;
        let mut best = (f32::MIN, *lags.end());
        for lag in lags {
            let earlier = &self.history[end - window - lag..end - lag];
            let product = dot(recent, earlier);
            // Squared with its sign, which spares the root; half a step per sample keeps silence from dividing by 0.
            let resemblance = product * product.abs() / (dot(earlier, earlier) + 0.25 * window as f32);
            if resemblance > best.0 {
                best = (resemblance, lag);
            }
        }
        best.1
    }

    /// The next sample of the extrapolation.
    fn next(&mut self) -> f32 {
        let State::Lost {
            period,
            length,
            place,
            done,
            step,
        } = &mut self.state
        else {
            return 0.0;
        };
        let (hold, silent) = (HOLD_MS * self.per_ms, SILENT_AFTER_MS * self.per_ms);
        if *done >= silent {
            return 0.0;
        }
        let start = self.past.len() - *length;
        let mut sample = self.past[start + *place];
        // The end of the stretch is faded into what came before its start, so that it can be repeated.
        let (left, seam) = (*length - *place, *period / 4);
        if left <= seam {
            let weight = (seam + 1 - left) as f32 / (seam + 1) as f32;
            sample += weight * (self.past[start - left] - sample);
        }
        sample += *step * self.per_ms.saturating_sub(*done) as f32 / self.per_ms as f32;
        let gain = (silent - *done) as f32 / (silent - hold) as f32;
        *done += 1;
        *place += 1;
        if *place == *length {
            *place = 0;
            // One period over and over would buzz.
            *length = *period * (1 + *done / hold).min(PERIODS_MAX);
        }
        sample * gain.min(1.0)
    }
}

/// Eight independent sums: a fixed order of additions that the compiler may vectorise.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
