//! Both sides of a call on one media timeline, 20 ms a tick.
//!
//! What is received comes when the network likes; its place on the tape follows from the media clock. So it is taped with
//! a fixed delay, and what is sent with the same. Audio that missed its tick (silence was taped in its place) is left out
//! when it comes; a sender whose clock has drifted out of the delay, or begins anew, gets a new place.

use std::collections::VecDeque;

use crate::playout::FRAME;
use crate::recorder::Recorder;

/// How late a packet may be and still find its place: 60 ms.
const DELAY: usize = 3 * FRAME;
/// Received audio that waits at most: 400 ms.
const WAITING_MAX: usize = 20 * FRAME;
/// After so many late packets in a row the sender's clock is given a new place.
const LATE_MAX: u32 = 8;

/// The recording of one leg.
#[derive(Debug)]
pub struct Tape {
    recorder: Recorder,
    received: VecDeque<i16>,
    sent: VecDeque<i16>,
    /// Received audio has found its place.
    placed: bool,
    /// Samples of silence taped in place of audio that had not come.
    missed: usize,
    late: u32,
}

impl Tape {
    /// Begin; the delay is taped as silence.
    pub fn new(recorder: Recorder) -> Self {
        Self {
            recorder,
            received: VecDeque::with_capacity(WAITING_MAX),
            sent: VecDeque::from(vec![0; DELAY]),
            placed: false,
            missed: 0,
            late: 0,
        }
    }

    /// The next samples of the received media timeline; `heard` unless they stand for silence that was not sent.
    pub fn receive(&mut self, samples: &[i16], heard: bool) {
        let late = self.missed.min(samples.len());
        self.missed -= late;
        self.late = if late > 0 && heard { self.late + 1 } else { 0 };
        if self.late > LATE_MAX {
            self.restart();
        }
        self.received.extend(&samples[late..]);
        let excess = self.received.len().saturating_sub(WAITING_MAX);
        self.received.drain(..excess);
    }

    /// The sender began anew: its media clock says nothing about the time that has passed.
    pub fn restart(&mut self) {
        (self.missed, self.late, self.placed) = (0, 0, false);
    }

    /// A tick has passed.
    pub fn tick(&mut self, sent: &[i16; FRAME]) {
        self.sent.extend(sent);
        let mut frames = [[0; FRAME]; 2];
        take(&mut self.sent, &mut frames[1]);
        self.placed |= self.received.len() >= DELAY;
        if self.placed {
            self.missed += FRAME - take(&mut self.received, &mut frames[0]);
        }
        self.recorder.push(&frames[0], &frames[1]);
    }

    /// Tape what the delay still holds. The recorder closes its file in the background.
    pub fn finish(mut self) -> Recorder {
        let mut frames = [[0; FRAME]; 2];
        for _ in 0..DELAY / FRAME {
            take(&mut self.received, &mut frames[0]);
            take(&mut self.sent, &mut frames[1]);
            self.recorder.push(&frames[0], &frames[1]);
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

/// Fill from the queue, the rest with silence; returns how many samples it gave.
fn take(queue: &mut VecDeque<i16>, frame: &mut [i16; FRAME]) -> usize {
    frame.fill(0);
    let count = queue.len().min(FRAME);
    for (to, from) in frame.iter_mut().zip(queue.drain(..count)) {
        *to = from;
    }
    count
}
