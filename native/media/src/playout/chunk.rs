//! A stretch of speech: its samples, its marks, and how much of it was handed out.

use std::sync::Arc;

use super::budget::{PlayoutBudget, PlayoutError, Rate};
use super::fades::amplitude;

/// Marks within one chunk at most.
pub const MARKS_MAX: usize = 64;

/// A stretch of speech with its mark; it gives its share of the budget back as it is played or dropped.
#[derive(Debug)]
pub struct Chunk {
    pub(super) samples: Vec<i16>,
    pub(super) rate: Rate,
    pub(super) mark: u64,
    /// Amplitude.
    pub(super) gain: f32,
    /// Marks within it, by their place in ticks.
    marks: Vec<(u64, u64)>,
    reached: usize,
    /// Samples given to the converter.
    pub(super) fed: usize,
    /// How much of it was handed out, in ticks; never less than it was.
    heard: u64,
    /// Ticks.
    reserved: u64,
    budget: Arc<PlayoutBudget>,
}

impl Chunk {
    pub(super) fn new(
        samples: Vec<i16>,
        rate: Rate,
        mark: u64,
        reserved: u64,
        budget: Arc<PlayoutBudget>,
    ) -> Self {
        Self {
            samples,
            rate,
            mark,
            gain: 1.0,
            marks: Vec::new(),
            reached: 0,
            fed: 0,
            heard: 0,
            reserved,
            budget,
        }
    }

    /// Something begins at sample `offset` of this chunk, as a sentence does. A place beyond the end is the end.
    ///
    /// # Errors
    /// [`PlayoutError::Marks`] when there are [`MARKS_MAX`].
    pub fn with_mark_at(mut self, offset: usize, mark: u64) -> Result<Self, PlayoutError> {
        if self.marks.len() == MARKS_MAX {
            return Err(PlayoutError::Marks(MARKS_MAX));
        }
        let place = offset.min(self.samples.len()) as u64 * self.rate.ticks_per_sample();
        let index = self.marks.partition_point(|&(other, _)| other <= place);
        self.marks.insert(index, (place, mark));
        Ok(self)
    }

    /// Louder or softer: -60 to +12 dB, limited to that.
    #[must_use]
    pub fn with_gain_db(mut self, gain_db: f32) -> Self {
        self.gain = amplitude(gain_db);
        self
    }

    pub(super) fn is_fed(&self) -> bool {
        self.fed == self.samples.len()
    }

    pub(super) fn length(&self) -> u64 {
        self.samples.len() as u64 * self.rate.ticks_per_sample()
    }

    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    pub(super) fn left(&self) -> u64 {
        self.length() - self.heard
    }

    /// The next samples, at most `count`.
    pub(super) fn take(&mut self, count: usize) -> &[i16] {
        let begin = self.fed;
        self.fed = self.samples.len().min(begin + count);
        &self.samples[begin..self.fed]
    }

    /// All that was given to the converter but `ahead` (ticks) is handed out. Returns by how much that is more than
    /// before.
    pub(super) fn advance(&mut self, ahead: u64) -> u64 {
        let fed = self.fed as u64 * self.rate.ticks_per_sample();
        let more = fed.saturating_sub(ahead).saturating_sub(self.heard);
        self.heard += more;
        let released = more.min(self.reserved);
        self.reserved -= released;
        self.budget.release(released);
        more
    }

    /// The next mark whose sample was handed out (or whose place is the end, which was), and its place in ticks.
    pub(super) fn next_reached(&mut self) -> Option<(u64, u64)> {
        let &(place, mark) = self.marks.get(self.reached)?;
        let is_reached = place < self.heard || self.heard == self.length();
        is_reached.then(|| {
            self.reached += 1;
            (place, mark)
        })
    }

    /// The last mark reached, and its place in ticks.
    pub(super) fn last_reached(&self) -> Option<(u64, u64)> {
        let last = self.reached.checked_sub(1)?;
        self.marks.get(last).copied()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.budget.release(self.reserved);
    }
}
