//! Concealment of lost audio in the sample domain, for codecs that bring none: the last pitch period goes on and fades.
//!
//! The aim is that of ITU-T G.711 Appendix I, without its 3.75 ms of delay: good audio goes out untouched and at once,
//! because who listens is a machine. So both joins are made on our side of them. The period is repeated as the
//! excitation of the last spectrum's filter rather than as samples: the filter's memory holds the last good samples,
//! so the extrapolation goes on from them without a step. Where the loss ends, it is faded out over the first good
//! samples.

use crate::linear_prediction::levinson;

/// Order of the spectrum's filter.
const ORDER: usize = 16;
/// The stretch that tells the spectrum; more recent samples count more.
const SPECTRUM_MS: usize = 30;
/// The stretch that is compared with what is one pitch period earlier: 66 to 400 Hz.
const COMPARED_MS: usize = 10;
const PITCH_MAX_MS: usize = 15;
/// At full level for so long, then down to silence.
const HOLD_MS: usize = 10;
const SILENT_AFTER_MS: usize = 60;
/// Where good audio comes back.
const CROSSFADE_MS: usize = 5;

/// The concealment of one stream.
#[derive(Debug, Clone)]
pub struct Concealment {
    per_ms: usize,
    /// What went out last: a ring, and the place of its oldest sample. As long as nothing is lost this is all of it.
    ring: Vec<i16>,
    oldest: usize,
    /// The ring laid out when a loss begins, oldest first.
    history: Vec<f32>,
    /// Weights of the history for the spectrum, and the product of both.
    window: Vec<f32>,
    weighted: Vec<f32>,
    /// Of the loss: A(z), its excitation (one period), and the last outputs before the fade, newest first.
    filter: [f32; ORDER + 1],
    excitation: Vec<f32>,
    memory: [f32; ORDER],
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The last audio was good.
    Good,
    /// Lost since `done` samples; `place` is the next of the excitation.
    Lost { done: usize, place: usize },
}

impl Concealment {
    /// For audio at `rate_hz`, 8000 or 16000; nothing has been heard.
    pub fn new(rate_hz: u32) -> Self {
        let per_ms = rate_hz as usize / 1000;
        let length = SPECTRUM_MS * per_ms;
        // The rising half of a Hann window.
        let rise = |n| 0.5 - 0.5 * (std::f32::consts::PI * (n as f32 + 0.5) / length as f32).cos();
        Self {
            per_ms,
            ring: vec![0; length + ORDER],
            oldest: 0,
            history: vec![0.0; length + ORDER],
            window: (0..length).map(rise).collect(),
            weighted: vec![0.0; length],
            filter: [0.0; ORDER + 1],
            excitation: Vec::with_capacity(PITCH_MAX_MS * per_ms),
            memory: [0.0; ORDER],
            state: State::Good,
        }
    }

    /// Take note of good audio. The first after a loss is faded in from what would have gone on.
    pub fn good(&mut self, pcm: &mut [i16]) {
        if self.state != State::Good {
            let fade = (CROSSFADE_MS * self.per_ms).min(pcm.len());
            for (n, sample) in pcm[..fade].iter_mut().enumerate() {
                let weight = (n + 1) as f32 / (fade + 1) as f32;
                *sample = (weight * f32::from(*sample) + (1.0 - weight) * self.next()).round() as i16;
            }
            if !pcm.is_empty() {
                self.state = State::Good;
            }
        }
        self.remember(pcm);
    }

    /// Fill `pcm` in place of lost audio.
    pub fn lost(&mut self, pcm: &mut [i16]) {
        if self.state == State::Good && !pcm.is_empty() {
            self.begin();
        }
        for sample in pcm.iter_mut() {
            // The cast saturates.
            *sample = self.next().round() as i16;
        }
        self.remember(pcm);
    }

    fn remember(&mut self, pcm: &[i16]) {
        let newest = &pcm[pcm.len().saturating_sub(self.ring.len())..];
        let (now, wrapped) = newest.split_at(newest.len().min(self.ring.len() - self.oldest));
        self.ring[self.oldest..][..now.len()].copy_from_slice(now);
        self.ring[..wrapped.len()].copy_from_slice(wrapped);
        self.oldest = (self.oldest + newest.len()) % self.ring.len();
    }

    fn begin(&mut self) {
        let (newer, older) = self.ring.split_at(self.oldest);
        for (slot, &sample) in self.history.iter_mut().zip(older.iter().chain(newer)) {
            *slot = f32::from(sample);
        }
        self.analyse_spectrum();
        let (period, gain) = self.analyse_pitch();
        let end = self.history.len();
        self.excitation.clear();
        for n in end - period..end {
            let past = self.history[n - ORDER..=n].iter().rev();
            let error: f32 = self.filter.iter().zip(past).map(|(a, x)| a * x).sum();
            self.excitation.push(gain * error);
        }
        for (slot, &sample) in self.memory.iter_mut().zip(self.history.iter().rev()) {
            *slot = sample;
        }
        self.state = State::Lost { done: 0, place: 0 };
    }

    fn analyse_spectrum(&mut self) {
        for ((slot, sample), weight) in self
            .weighted
            .iter_mut()
            .zip(&self.history[ORDER..])
            .zip(&self.window)
        {
            *slot = sample * weight;
        }
        let length = self.weighted.len();
        let mut correlation = [0.0; ORDER + 1];
        for (lag, sum) in correlation.iter_mut().enumerate() {
            *sum = dot(&self.weighted[lag..], &self.weighted[..length - lag]);
        }
        levinson(&correlation, &mut self.filter, &mut [0.0; ORDER]);
    }

    /// The lag at which the recent past resembles itself most (normalised cross-correlation), and how much of the
    /// period is worth repeating: all of it in a vowel, little in a hiss, which would turn into a buzz.
    fn analyse_pitch(&self) -> (usize, f32) {
        let end = self.history.len();
        let compared = COMPARED_MS * self.per_ms;
        let recent = &self.history[end - compared..];
        // Half a step per sample keeps silence from dividing by zero.
        let floor = 0.25 * compared as f32;
        let (mut best, mut period) = (f32::MIN, 0);
        for lag in 5 * self.per_ms / 2..=PITCH_MAX_MS * self.per_ms {
            let earlier = &self.history[end - compared - lag..end - lag];
            let product = dot(recent, earlier);
            // The square of the correlation with its sign, which spares the roots.
            let resemblance = product * product.abs() / (dot(earlier, earlier) + floor);
            if resemblance > best {
                (best, period) = (resemblance, lag);
            }
        }
        let correlation = (best.max(0.0) / (dot(recent, recent) + floor)).sqrt();
        (period, correlation.min(1.0).sqrt())
    }

    /// The next sample of the extrapolation.
    fn next(&mut self) -> f32 {
        let State::Lost { done, place } = self.state else {
            return 0.0;
        };
        let (hold, silent) = (HOLD_MS * self.per_ms, SILENT_AFTER_MS * self.per_ms);
        if done >= silent {
            return 0.0;
        }
        let feedback: f32 = self.filter[1..]
            .iter()
            .zip(&self.memory)
            .map(|(a, y)| a * y)
            .sum();
        let sample = self.excitation[place] - feedback;
        self.memory.copy_within(..ORDER - 1, 1);
        self.memory[0] = sample;
        self.state = State::Lost {
            done: done + 1,
            place: (place + 1) % self.excitation.len(),
        };
        sample * ((silent - done) as f32 / (silent - hold) as f32).min(1.0)
    }
}

/// Eight independent sums: a fixed order of additions that the compiler may vectorise.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
