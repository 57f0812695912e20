//! From the rate of the chunks to that of the leg.

use std::collections::VecDeque;

use codec::resample::Resampler;

use super::FRAME_MAX;
use super::budget::{Rate, TICKS_PER_MS};
use super::chunk::Chunk;
use super::fades::Ramp;

/// The filter spans so many periods of the lower of its two rates, and delays by half of them.
const FILTER_PERIODS: usize = 32;
/// Samples of the filter at the widest ratio.
pub(super) const RING_MAX: usize = FILTER_PERIODS * 6;
/// What a new filter has to know of the past: its own length and what the old one still held.
pub(super) const HISTORY: usize = 2 * RING_MAX;

/// From the rate of the chunks to that of the leg, with what came out but has no place in the frame yet.
#[derive(Debug)]
pub(super) struct Converter {
    pub(super) from: Rate,
    to: Rate,
    resampler: Resampler,
    /// Converted beyond the end of the frame: no more than one sample of the input makes, but for a change of rate.
    ahead: VecDeque<i16>,
    /// So many of the next to come out were heard already, through the filter of an earlier rate.
    heard: usize,
    scratch: Vec<i16>,
}

impl Converter {
    pub(super) fn new(from: Rate, to: Rate) -> Option<Self> {
        Some(Self {
            from,
            to,
            resampler: Resampler::new(from.0, to.0).ok()?,
            ahead: VecDeque::with_capacity(2 * RING_MAX),
            heard: 0,
            scratch: Vec::with_capacity(FRAME_MAX + RING_MAX),
        })
    }

    /// Go on at another rate where this one is: with the sample of the source that would have come out next.
    /// `history` is what went in last, oldest first.
    pub(super) fn at_rate(&self, to: Rate, history: &[i16]) -> Option<Self> {
        let mut new = Self::new(self.from, to)?;
        let held = (self.delay_ticks() + self.ahead_ticks())
            .saturating_sub(self.heard as u64 * self.to.ticks_per_sample());
        let delay = new.delay_ticks();
        new.heard = (delay.saturating_sub(held) / to.ticks_per_sample()) as usize;
        let again = (held.saturating_sub(delay) / self.from.ticks_per_sample()) as usize;
        let (past, again) = history.split_at(history.len().saturating_sub(again));
        new.resampler.process(past, &mut new.scratch);
        new.scratch.clear();
        new.resampler.process(again, &mut new.scratch);
        new.ahead.extend(&new.scratch);
        Some(new)
    }

    fn delay_ticks(&self) -> u64 {
        (u64::from(self.resampler.delay_us()) * TICKS_PER_MS).div_ceil(1000)
    }

    pub(super) fn ahead_ticks(&self) -> u64 {
        self.ahead.len() as u64 * self.to.ticks_per_sample()
    }

    /// Whether all that went in has been handed out, but for what the filter holds.
    pub(super) fn is_empty(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Add to `out` what `chunk` gives, scaled by `gain`; returns how many samples.
    pub(super) fn play(&mut self, chunk: &mut Chunk, gain: &mut Ramp, out: &mut [i16]) -> usize {
        let mut given = 0;
        loop {
            let count = self.ahead.len().min(out.len() - given);
            for (sample, x) in out[given..].iter_mut().zip(self.ahead.drain(..count)) {
                *sample = sample.saturating_add(gain.scale(x));
            }
            given += count;
            if given == out.len() || chunk.is_fed() {
                return given;
            }
            let wanted = out.len() - given + self.heard;
            let inputs = (wanted * self.from.0 as usize).div_ceil(self.to.0 as usize);
            self.scratch.clear();
            self.resampler.process(chunk.take(inputs), &mut self.scratch);
            let heard = self.heard.min(self.scratch.len());
            self.heard -= heard;
            self.ahead.extend(&self.scratch[heard..]);
        }
    }

    /// What the filter still rings after its last input, scaled by the amplitude `gain`.
    pub(super) fn ring_out(&mut self, gain: f32, ringing: &mut VecDeque<i16>) {
        const ZEROS: [i16; RING_MAX] = [0; RING_MAX];
        if self.from == self.to {
            return;
        }
        let taps = FILTER_PERIODS * (self.from.0 / self.from.0.min(self.to.0)) as usize;
        self.scratch.clear();
        self.resampler.process(&ZEROS[..taps], &mut self.scratch);
        ringing.clear();
        ringing.extend(self.scratch.iter().map(|&x| Ramp::at(gain).scale(x)));
        self.reset();
    }

    pub(super) fn reset(&mut self) {
        self.resampler.reset();
        self.ahead.clear();
        self.heard = 0;
    }
}

/// Add as much of `tail` as fits, and keep the rest; returns how many samples.
pub(super) fn lay(tail: &mut VecDeque<i16>, out: &mut [i16]) -> usize {
    let count = tail.len().min(out.len());
    for (sample, x) in out.iter_mut().zip(tail.drain(..count)) {
        *sample = sample.saturating_add(x);
    }
    count
}

/// Keep the end of `past` and `more`.
pub(super) fn remember(past: &mut Vec<i16>, more: &[i16]) {
    let more = &more[more.len().saturating_sub(HISTORY)..];
    let excess = (past.len() + more.len()).saturating_sub(HISTORY);
    past.drain(..excess);
    past.extend_from_slice(more);
}

/// Bring a few milliseconds to another rate, in their place.
pub(super) fn convert(tail: &mut VecDeque<i16>, from: Rate, to: Rate) {
    if tail.is_empty() {
        return;
    }
    let Ok(mut resampler) = Resampler::new(from.0, to.0) else {
        return;
    };
    let delay = (resampler.delay_us() as usize * to.0 as usize).div_ceil(1_000_000);
    let length = tail.len() * to.0 as usize / from.0 as usize;
    tail.extend([0; RING_MAX]);
    let mut out = Vec::new();
    resampler.process(tail.make_contiguous(), &mut out);
    tail.clear();
    tail.extend(out.iter().skip(delay).take(length));
}
