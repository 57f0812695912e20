//! The waveform around the playout point: what was played last, and what is decoded but not yet played.

use super::AudioDecoder;
use super::time_scale::{Care, TimeScale, crossfade, likeness};

/// Kept of what was played: room for the longest repeated stretch.
const PAST_MS: usize = 20;
/// After concealment the decoded audio is faded in over this; concealment goes on for as long again at most, until the
/// two are in phase. Multiples of 2.5 ms, which is what Opus conceals (RFC 6716, 2.1.4).
const OVERLAP_TENTH_MS: usize = 50;
const SEARCH_TENTH_MS: usize = 50;
/// A place as far away as the search goes must be better by this to be preferred to the nearest.
const LONGER: f32 = 0.2;

/// Where a packet begins on the line, and when it arrived.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: usize,
    arrival_us: u64,
}

/// What one call of [`Line::take`] played the beginnings of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) packets: u64,
    /// Sum over these of the time from arrival to playout.
    pub(crate) waited_us: u64,
}

/// The line of one leg. All its memory is reused.
#[derive(Debug)]
pub(crate) struct Line {
    rate_hz: u32,
    samples: Vec<i16>,
    /// Index of the first sample not yet played.
    played: usize,
    marks: Vec<Mark>,
    scale: TimeScale,
    tail: Vec<i16>,
}

impl Line {
    pub(crate) fn new(rate_hz: u32) -> Self {
        let second = rate_hz as usize;
        let mut samples = Vec::with_capacity(second / 4);
        samples.resize(second * PAST_MS / 1000, 0);
        Self {
            rate_hz,
            played: samples.len(),
            samples,
            marks: Vec::with_capacity(64),
            scale: TimeScale::new(rate_hz),
            tail: Vec::with_capacity(second / 50),
        }
    }

    /// Samples that wait to be played.
    pub(crate) fn ahead(&self) -> usize {
        self.samples.len() - self.played
    }

    /// The most samples that one change of the time scale makes or takes.
    pub(crate) fn longest_change(&self) -> usize {
        self.scale.longest()
    }

    /// Samples by which the end of a concealment is open: half of the search for the phase, on average.
    pub(crate) fn merge_slack(&self) -> usize {
        self.tenths(SEARCH_TENTH_MS) / 2
    }

    /// Append a decoded packet; returns its samples, 0 if the decoder could not.
    pub(crate) fn decode(
        &mut self,
        decoder: &mut impl AudioDecoder,
        payload: &[u8],
        arrival_us: u64,
    ) -> usize {
        let at = self.samples.len();
        decoder.decode(payload, &mut self.samples);
        if self.samples.len() > at {
            self.marks.push(Mark { at, arrival_us });
        }
        self.samples.len() - at
    }

    /// Append a decoded packet after concealment, in phase with it. Returns its samples, and how many samples of
    /// further concealment lead to it.
    pub(crate) fn merge(
        &mut self,
        decoder: &mut impl AudioDecoder,
        payload: &[u8],
        arrival_us: u64,
    ) -> (usize, usize) {
        let (overlap, search) = (self.tenths(OVERLAP_TENTH_MS), self.tenths(SEARCH_TENTH_MS));
        self.tail.clear();
        decoder.conceal(overlap + search, &mut self.tail);
        self.tail.resize(overlap + search, 0);
        let at = self.samples.len();
        let samples = self.decode(decoder, payload, arrival_us);
        if samples < overlap {
            return (samples, 0);
        }
        let beginning = &self.samples[at..at + overlap];
        let fits = |lag: &usize| {
            likeness(&self.tail[*lag..*lag + overlap], beginning, 1) - LONGER * *lag as f32 / search as f32
        };
        let stride = (self.rate_hz as usize / 8000).max(1);
        let lag = (0..=search)
            .step_by(stride)
            .max_by(|a, b| fits(a).total_cmp(&fits(b)))
            .unwrap_or(0);
        let end = self.samples.len();
        self.samples.resize(end + lag, 0);
        self.samples.copy_within(at..end, at + lag);
        let tail = &mut self.tail[..lag + overlap];
        crossfade(&mut tail[lag..], &self.samples[at + lag..at + lag + overlap]);
        self.samples[at..at + lag + overlap].copy_from_slice(tail);
        if let Some(mark) = self.marks.last_mut() {
            mark.at += lag;
        }
        (samples, lag)
    }

    /// Append what `make` appends, cut or filled up with silence to exactly `samples`.
    pub(crate) fn fill(&mut self, samples: usize, make: impl FnOnce(&mut Vec<i16>)) {
        let end = self.samples.len() + samples;
        make(&mut self.samples);
        self.samples.resize(end, 0);
    }

    /// Cut the first samples off the packet that was appended last: they repeat media that came before.
    pub(crate) fn cut(&mut self, decoded: usize, samples: usize) {
        let at = self.samples.len() - decoded;
        self.samples.drain(at..at + samples);
    }

    /// Leave out one stretch of at most `most` samples. Returns its length.
    pub(crate) fn accelerate(&mut self, care: Care, most: usize) -> Option<usize> {
        let lag = self
            .scale
            .accelerate(&mut self.samples, self.played, care, most)?;
        for mark in &mut self.marks {
            mark.at = mark.at.saturating_sub(lag).max(mark.at.min(self.played));
        }
        Some(lag)
    }

    /// Repeat one stretch. Returns its length.
    pub(crate) fn expand(&mut self, care: Care) -> Option<usize> {
        let lag = self.scale.expand(&mut self.samples, self.played, care)?;
        for mark in &mut self.marks {
            mark.at += lag;
        }
        Some(lag)
    }

    /// Play: move the next samples to `out`; what the line has too few of stays as it is.
    pub(crate) fn take(&mut self, now_us: u64, out: &mut [i16]) -> Begun {
        let count = out.len().min(self.ahead());
        let end = self.played + count;
        out[..count].copy_from_slice(&self.samples[self.played..end]);
        let mut begun = Begun::default();
        let (played, rate_hz) = (self.played, u64::from(self.rate_hz));
        self.marks.retain(|mark| {
            let begins = mark.at < end;
            if begins {
                let offset_us = mark.at.saturating_sub(played) as u64 * 1_000_000 / rate_hz;
                begun.packets += 1;
                begun.waited_us += (now_us + offset_us).saturating_sub(mark.arrival_us);
            }
            !begins
        });
        let past = self.rate_hz as usize * PAST_MS / 1000;
        let gone = end - past.min(end);
        self.samples.drain(..gone);
        for mark in &mut self.marks {
            mark.at -= gone;
        }
        self.played = end - gone;
        begun
    }

    fn tenths(&self, tenth_ms: usize) -> usize {
        self.rate_hz as usize * tenth_ms / 10_000
    }
}
