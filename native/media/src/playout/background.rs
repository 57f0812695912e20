//! What sounds while nothing is said: hold music, ring-back. It gives way to speech and returns after it.

use super::budget::Rate;
use super::chunk::Chunk;
use super::converter::{Converter, HISTORY};
use super::fades::{Ramp, amplitude};

/// A chunk that plays again and again.
#[derive(Debug)]
pub(super) struct Background {
    chunk: Chunk,
    converter: Option<Converter>,
    gain: Ramp,
    level: Ramp,
    /// It ends when it is faded out.
    is_ending: bool,
}

impl Background {
    pub(super) fn new(chunk: Chunk) -> Self {
        Self {
            converter: None,
            gain: Ramp::at(chunk.gain),
            level: Ramp::at(0.0),
            is_ending: false,
            chunk,
        }
    }

    pub(super) fn mark(&self) -> u64 {
        self.chunk.mark
    }

    pub(super) fn end(&mut self) {
        self.is_ending = true;
    }

    /// Whether it is to end and cannot be heard.
    pub(super) fn is_over(&self) -> bool {
        self.chunk.samples.is_empty() || self.is_ending && self.is_silent()
    }

    pub(super) fn is_silent(&self) -> bool {
        self.level.now() <= 0.0
    }

    /// Add to `out`; `wanted`: nothing is said there. Returns whether it can be heard in it.
    pub(super) fn lay(&mut self, rate: Rate, leg_gain_db: f32, wanted: bool, out: &mut [i16]) -> bool {
        let target = if wanted && !self.is_ending { 1.0 } else { 0.0 };
        self.level.go(target, rate.fade_len());
        self.gain
            .go(self.chunk.gain * amplitude(leg_gain_db), rate.fade_len());
        if self.chunk.samples.is_empty() || (target <= 0.0 && self.is_silent()) {
            return false;
        }
        if self.converter.is_none() {
            self.converter = Converter::new(self.chunk.rate, rate);
        }
        let Some(converter) = &mut self.converter else {
            return false;
        };
        let mut piece = [0; 64];
        for out in out.chunks_mut(piece.len()) {
            let piece = &mut piece[..out.len()];
            piece.fill(0);
            let mut filled = 0;
            while filled < piece.len() {
                if self.chunk.is_fed() {
                    self.chunk.fed = 0;
                }
                filled += converter.play(&mut self.chunk, &mut self.gain, &mut piece[filled..]);
            }
            for (sample, &x) in out.iter_mut().zip(&*piece) {
                *sample = sample.saturating_add(self.level.scale(x));
            }
        }
        true
    }

    pub(super) fn set_rate(&mut self, rate: Rate) {
        let Some(converter) = &self.converter else {
            return;
        };
        let fed = self.chunk.samples[..self.chunk.fed].iter().rev();
        let mut past: Vec<i16> = fed
            .chain(self.chunk.samples.iter().rev().cycle())
            .take(HISTORY)
            .copied()
            .collect();
        past.reverse();
        self.converter = converter.at_rate(rate, &past);
    }
}
