//! Both sides of a call on one media timeline, 20 ms a tick.
//!
//! What is received comes when the network likes; its place on the tape follows from the media clock. So it is taped with
//! a fixed delay, and what is sent with the same. Audio that missed its tick (silence was taped in its place) is left out
//! when it comes; a sender whose clock has drifted out of the delay, or begins anew, gets a new place.
//!
//! The tape has one rate, whatever the codecs of the call come to be.

use std::collections::VecDeque;

use codec::resample::Resampler;

use crate::recorder::Recorder;
use crate::stream::{FRAME_MAX, FRAMES_PER_S};

/// Frames that a packet may be late and still find its place: 60 ms.
const DELAY_FRAMES: usize = 3;
/// Frames of received audio that wait at most: 400 ms.
const WAITING_FRAMES_MAX: usize = 20;
/// After so many late packets in a row the sender's clock is given a new place.
const LATE_MAX: u32 = 8;

/// One side's way onto the tape.
#[derive(Debug)]
struct Side {
    waiting: VecDeque<i16>,
    /// From the rate at which this side's audio comes; made anew when that changes.
    convert: Option<(u32, Resampler)>,
    converted: Vec<i16>,
}

/// The recording of one leg.
#[derive(Debug)]
pub struct Tape {
    recorder: Recorder,
    rate_hz: u32,
    /// Samples of 20 ms.
    frame: usize,
    received: Side,
    sent: Side,
    /// Received audio has found its place.
    placed: bool,
    /// Samples of silence taped in place of audio that had not come.
    missed: usize,
    late: u32,
}

impl Tape {
    /// Begin; the delay is taped as silence.
    pub fn new(recorder: Recorder) -> Self {
        let rate_hz = recorder.rate_hz();
        let frame = (rate_hz / FRAMES_PER_S) as usize;
        let capacity = WAITING_FRAMES_MAX * frame;
        let mut sent = Side::new(capacity);
        sent.waiting.resize(DELAY_FRAMES * frame, 0);
        Self {
            recorder,
            rate_hz,
            frame,
            received: Side::new(capacity),
            sent,
            placed: false,
            missed: 0,
            late: 0,
        }
    }

    /// The next samples of the received media timeline; `heard` unless they stand for silence that was not sent.
    pub fn receive(&mut self, samples: &[i16], rate_hz: u32, heard: bool) {
        let samples = self.received.convert(samples, rate_hz, self.rate_hz);
        let late = self.missed.min(samples.len());
        self.missed -= late;
        self.late = if late > 0 && heard { self.late + 1 } else { 0 };
        let begun_anew = self.late > LATE_MAX;
        self.received.append(late, WAITING_FRAMES_MAX * self.frame);
        if begun_anew {
            self.restart();
        }
    }

    /// The sender began anew: its media clock says nothing about the time that has passed.
    pub fn restart(&mut self) {
        (self.missed, self.late, self.placed) = (0, 0, false);
    }

    /// A tick has passed, with what was sent in it: 20 ms at `rate_hz`.
    pub fn tick(&mut self, sent: &[i16], rate_hz: u32) {
        self.sent.convert(sent, rate_hz, self.rate_hz);
        self.sent.append(0, WAITING_FRAMES_MAX * self.frame);
        self.advance();
    }

    /// A tick has passed in which nothing was sent.
    pub fn tick_silence(&mut self) {
        self.sent.waiting.extend(std::iter::repeat_n(0, self.frame));
        self.advance();
    }

    fn advance(&mut self) {
        self.placed |= self.received.waiting.len() >= DELAY_FRAMES * self.frame;
        let mut frames = [[0; FRAME_MAX]; 2];
        let [left, right] = &mut frames;
        let (left, right) = (&mut left[..self.frame], &mut right[..self.frame]);
        take(&mut self.sent.waiting, right);
        if self.placed {
            self.missed += self.frame - take(&mut self.received.waiting, left);
        }
        self.recorder.push(left, right);
    }

    /// Tape what the delay still holds. The recorder closes its file in the background.
    pub fn finish(mut self) -> Recorder {
        let mut frames = [[0; FRAME_MAX]; 2];
        let [left, right] = &mut frames;
        let (left, right) = (&mut left[..self.frame], &mut right[..self.frame]);
        for _ in 0..DELAY_FRAMES {
            take(&mut self.received.waiting, left);
            take(&mut self.sent.waiting, right);
            self.recorder.push(left, right);
        }
        self.recorder.end();
        self.recorder
    }

    /// The reason why recording stopped, once.
    pub fn poll_error(&mut self) -> Option<String> {
        self.recorder.poll_error()
    }

    /// Frames that the disk was too slow for.
    pub fn dropped_frames(&self) -> u64 {
        self.recorder.dropped_frames()
    }
}

impl Side {
    fn new(capacity: usize) -> Self {
        Self {
            waiting: VecDeque::with_capacity(capacity),
            convert: None,
            converted: Vec::with_capacity(2 * FRAME_MAX),
        }
    }

    /// Convert to the rate of the tape. A rate that is none of the engine's leaves the side silent.
    fn convert(&mut self, samples: &[i16], from_hz: u32, to_hz: u32) -> &[i16] {
        if self
            .convert
            .as_ref()
            .is_none_or(|(rate_hz, _)| *rate_hz != from_hz)
        {
            let resampler = Resampler::new(from_hz, to_hz).ok();
            self.convert = resampler.map(|resampler| (from_hz, resampler));
        }
        self.converted.clear();
        if let Some((_, resampler)) = &mut self.convert {
            resampler.process(samples, &mut self.converted);
        }
        &self.converted
    }

    /// Append what was converted, without its first samples; past the limit the oldest go.
    fn append(&mut self, without: usize, limit: usize) {
        self.waiting.extend(&self.converted[without..]);
        let excess = self.waiting.len().saturating_sub(limit);
        self.waiting.drain(..excess);
    }
}

/// Fill from the queue, the rest with silence; returns how many samples it gave.
fn take(queue: &mut VecDeque<i16>, frame: &mut [i16]) -> usize {
    frame.fill(0);
    let count = queue.len().min(frame.len());
    for (to, from) in frame.iter_mut().zip(queue.drain(..count)) {
        *to = from;
    }
    count
}
