//! What is said to the caller: whole chunks in, one 20 ms frame at the rate of the leg out per tick.
//!
//! The count of samples handed out is the truth about what was heard. Chunks are converted to the rate of the leg as
//! they are played, 20 ms at a time, so that a long chunk never stalls the tick. Time is counted in ticks of 48 kHz, of
//! which every rate that can be played has a whole number per sample.
//!
//! Rules:
//!
//! * chunks play in order and back to back; every mark ends exactly once: as [`PlayoutEvent::Played`] with the frame
//!   that holds its last sample, or dropped by a flush whose [`Flushed`] names the first of the marks it dropped; so do
//!   the marks within chunks, with [`PlayoutEvent::Mark`];
//! * pause, resume and flush fade over 10 ms; what was faded was heard and counts;
//! * a resume steps back by those 10 ms and fades in over them, so that no syllable is swallowed: the listener had them
//!   at half their loudness at best. They are counted once. Nothing else goes out twice;
//! * what is enqueued after a flush is not part of it;
//! * a change of the rate goes on within the chunk where the listener is: nothing is lost, repeated, or counted twice;
//! * a background (hold music, ring-back) sounds while there is nothing to say. It fades out over 10 ms under a chunk,
//!   goes on after it where it was, is silent in a pause, outlives a flush, and is not counted as played;
//! * gains change over 10 ms, except in silence; sums saturate.

mod background;
mod budget;
mod chunk;
mod converter;
mod fades;

use std::collections::VecDeque;

use background::Background;
pub use budget::{PlayoutBudget, PlayoutError};
use budget::{Rate, TICKS_PER_MS};
pub use chunk::{Chunk, MARKS_MAX};
use converter::{Converter, HISTORY, RING_MAX, convert, lay, remember};
pub(crate) use fades::Ramp;
use fades::{amplitude, fade_in, fade_out};

/// Sample rate of the frames of a telephone leg.
pub const LEG_RATE_HZ: u32 = 8000;
/// Samples per frame of a telephone leg: 20 ms.
pub const FRAME: usize = 160;
/// Samples per frame at the highest rate.
pub const FRAME_MAX: usize = 960;

/// The answer to a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    /// The mark that was playing, or else the first that waited; `None` if nothing was there to flush.
    pub mark: Option<u64>,
    /// How much of that chunk was handed out, the fade included.
    pub heard_ms: u64,
    /// Its length.
    pub chunk_ms: u64,
    /// Total handed out by this playout.
    pub played_ms: u64,
    /// What was dropped, of this and all later chunks.
    pub dropped_ms: u64,
    /// The last mark within that chunk that was reached.
    pub reached: Option<Reached>,
}

/// A mark within a chunk, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Which.
    pub mark: u64,
    /// How much from its place on was handed out.
    pub heard_ms: u64,
}

/// What a frame brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlayoutEvent {
    /// This frame holds the first sample after the playout was idle.
    Started {
        /// Of the chunk that begins.
        mark: u64,
    },
    /// This frame holds the last sample of a chunk.
    Played {
        /// Of that chunk.
        mark: u64,
        /// Total handed out up to and including it.
        played_ms: u64,
    },
    /// This frame holds the sample with a mark within a chunk, or the end of the chunk if that is its place.
    Mark {
        /// Which.
        mark: u64,
        /// Total handed out before its place.
        played_ms: u64,
    },
    /// A background has ended.
    BackgroundEnded {
        /// Of the chunk that it was made of.
        mark: u64,
    },
    /// A flush is complete.
    Flushed(Flushed),
}

/// What [`Playout::next_frame`] put into the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Samples that are not mere silence, counted from its beginning.
    pub samples: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Running,
    /// The next frame fades out.
    Pausing,
    Paused,
    /// The next frame fades in.
    Resuming,
}

/// A flush that waits for its fade.
#[derive(Debug)]
struct Cut {
    chunk: Chunk,
    /// Ticks of later chunks that were dropped.
    dropped: u64,
}

/// The playout of one leg.
#[derive(Debug)]
pub struct Playout {
    rate: Rate,
    queue: VecDeque<Chunk>,
    cut: Option<Cut>,
    mode: Mode,
    /// Not idle: chunks follow each other without a gap (or are held by a pause).
    speaking: bool,
    /// Ticks.
    played: u64,
    /// What it has ahead belongs to the chunk in front.
    converter: Option<Converter>,
    /// What the filter still rings after its last input, to be laid over what follows.
    ringing: VecDeque<i16>,
    /// The end of what was fed before the chunk in front.
    history: Vec<i16>,
    /// What a pause faded out, as it was before: a resume begins with it.
    again: VecDeque<i16>,
    background: Option<Background>,
    leg_gain_db: f32,
    gain: Ramp,
    events: VecDeque<PlayoutEvent>,
}

impl Playout {
    /// Nothing queued.
    ///
    /// # Errors
    /// [`PlayoutError::Rate`] unless `rate_hz` is 8000, 16000, 24000 or 48000.
    pub fn new(rate_hz: u32) -> Result<Self, PlayoutError> {
        Ok(Self {
            rate: Rate::of(rate_hz)?,
            queue: VecDeque::new(),
            cut: None,
            mode: Mode::Running,
            speaking: false,
            played: 0,
            converter: None,
            ringing: VecDeque::with_capacity(RING_MAX),
            history: Vec::with_capacity(2 * HISTORY),
            again: VecDeque::with_capacity(FRAME_MAX / 2),
            background: None,
            leg_gain_db: 0.0,
            gain: Ramp::at(1.0),
            events: VecDeque::new(),
        })
    }

    /// The rate of the frames from the next one on. What is queued stays, also a chunk that sounds: it goes on where it
    /// is, to within a sample.
    ///
    /// # Errors
    /// [`PlayoutError::Rate`] unless `rate_hz` is 8000, 16000, 24000 or 48000; then nothing changes.
    pub fn set_rate(&mut self, rate_hz: u32) -> Result<(), PlayoutError> {
        let rate = Rate::of(rate_hz)?;
        if rate == self.rate {
            return Ok(());
        }
        let front = self.cut.as_ref().map(|cut| &cut.chunk).or(self.queue.front());
        let begun = front.filter(|chunk| chunk.fed > 0);
        if let (Some(converter), Some(chunk)) = (&self.converter, begun) {
            let mut history = self.history.clone();
            remember(&mut history, &chunk.samples[..chunk.fed]);
            self.converter = converter.at_rate(rate, &history);
        } else {
            self.ring_out();
            self.converter = None;
        }
        convert(&mut self.ringing, self.rate, rate);
        convert(&mut self.again, self.rate, rate);
        if let Some(background) = &mut self.background {
            background.set_rate(rate);
        }
        self.rate = rate;
        Ok(())
    }

    /// The rate of the frames.
    pub fn rate_hz(&self) -> u32 {
        self.rate.0
    }

    /// Samples in 20 ms.
    pub fn frame_len(&self) -> usize {
        self.rate.0 as usize / 50
    }

    /// Append a chunk. The number of chunks is bounded by the budget that made them.
    pub fn enqueue(&mut self, chunk: Chunk) {
        self.queue.push_back(chunk);
    }

    /// Louder or softer from the next frame on: -60 to +12 dB, limited to that; on top of the gain of a chunk.
    pub fn set_gain_db(&mut self, gain_db: f32) {
        self.leg_gain_db = gain_db;
    }

    /// Play this again and again while there is nothing to say, until [`Playout::stop_loop`] or another takes its place.
    /// It keeps its share of the budget. Its marks within are not reported.
    pub fn loop_chunk(&mut self, chunk: Chunk) {
        if let Some(background) = self.background.replace(Background::new(chunk)) {
            self.end_background(&background);
        }
    }

    /// Let the background end, faded.
    pub fn stop_loop(&mut self) {
        if let Some(background) = &mut self.background {
            background.end();
        }
    }

    /// Fade out and hold what is queued.
    pub fn pause(&mut self) {
        self.mode = match self.mode {
            Mode::Running => Mode::Pausing,
            Mode::Resuming => Mode::Paused,
            mode => mode,
        };
    }

    /// Go on where the listener heard all: 10 ms before `pause` stopped.
    pub fn resume(&mut self) {
        self.mode = match self.mode {
            Mode::Pausing => Mode::Running,
            Mode::Paused => Mode::Resuming,
            mode => mode,
        };
    }

    /// Drop what is queued, and end a pause. If something sounds, the answer comes with the next frame, which fades
    /// out; another flush before that frame has the same answer.
    pub fn flush(&mut self) {
        let audible = self.speaking && matches!(self.mode, Mode::Running | Mode::Pausing);
        self.mode = Mode::Running;
        self.again.clear();
        if let Some(cut) = &mut self.cut {
            cut.dropped += self.queue.drain(..).map(|chunk| chunk.left()).sum::<u64>();
            return;
        }
        let first = self.queue.pop_front();
        let dropped = self.queue.drain(..).map(|chunk| chunk.left()).sum();
        match first {
            Some(chunk) if audible => self.cut = Some(Cut { chunk, dropped }),
            first => self.end_flush(first.as_ref(), dropped),
        }
    }

    /// Complete a flush without a frame: nothing is being sent.
    pub fn settle(&mut self) {
        if let Some(Cut { chunk, dropped }) = self.cut.take() {
            self.end_flush(Some(&chunk), dropped);
        }
    }

    /// The next 20 ms: `frame` has [`Playout::frame_len`] samples.
    pub fn next_frame(&mut self, frame: &mut [i16]) -> FrameInfo {
        frame.fill(0);
        let faded = self.rate.fade_len().min(frame.len());
        let is_held = matches!(self.mode, Mode::Paused | Mode::Pausing);
        let samples = if let Some(cut) = self.cut.take() {
            self.cut_off(cut, &mut frame[..faded])
        } else {
            match self.mode {
                Mode::Paused => 0,
                Mode::Running => self.fill(frame),
                Mode::Resuming => {
                    self.mode = Mode::Running;
                    let again = lay(&mut self.again, frame);
                    let samples = again + self.fill(&mut frame[again..]);
                    fade_in(&mut frame[..faded]);
                    samples
                }
                Mode::Pausing => {
                    self.mode = Mode::Paused;
                    let samples = self.fill(&mut frame[..faded]);
                    self.again.clear();
                    self.again.extend(&frame[..samples]);
                    fade_out(&mut frame[..faded]);
                    samples
                }
            }
        };
        self.lay_background(samples, is_held, frame)
    }

    /// What the calls so far brought about, in order; call until `None`.
    pub fn poll_event(&mut self) -> Option<PlayoutEvent> {
        self.events.pop_front()
    }

    /// Total of chunks handed out.
    pub fn played_ms(&self) -> u64 {
        self.played / TICKS_PER_MS
    }

    /// Whether nothing is queued and nothing sounds.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.cut.is_none()
            && !self.speaking
            && self.ringing.is_empty()
            && self.again.is_empty()
            && self.background.is_none()
    }

    /// Fill with chunks, back to back; returns how many samples they gave.
    fn fill(&mut self, out: &mut [i16]) -> usize {
        lay(&mut self.ringing, out);
        let mut filled = 0;
        while filled < out.len() {
            let Some(mut chunk) = self.queue.pop_front() else {
                self.ring_out();
                lay(&mut self.ringing, &mut out[filled..]);
                self.speaking = false;
                break;
            };
            filled += self.play_from(&mut chunk, &mut out[filled..]);
            if self.is_over(&chunk) {
                remember(&mut self.history, &chunk.samples);
                self.events.push_back(PlayoutEvent::Played {
                    mark: chunk.mark,
                    played_ms: self.played_ms(),
                });
            } else {
                self.queue.push_front(chunk);
            }
        }
        filled
    }

    /// Whether all of the chunk in front is handed out.
    fn is_over(&self, chunk: &Chunk) -> bool {
        chunk.is_fed() && self.converter.as_ref().is_none_or(Converter::is_empty)
    }

    fn play_from(&mut self, chunk: &mut Chunk, out: &mut [i16]) -> usize {
        if self.converter.as_ref().is_some_and(|it| it.from != chunk.rate) {
            self.ring_out();
            lay(&mut self.ringing, out);
            self.converter = None;
        }
        if self.converter.is_none() {
            // A chunk and a playout exist only for rates that the resampler knows.
            self.converter = Converter::new(chunk.rate, self.rate);
        }
        let Some(converter) = &mut self.converter else {
            return 0;
        };
        let fade = if self.speaking { self.rate.fade_len() } else { 0 };
        self.gain.go(chunk.gain * amplitude(self.leg_gain_db), fade);
        let samples = converter.play(chunk, &mut self.gain, out);
        self.played += chunk.advance(converter.ahead_ticks());
        if samples > 0 && !std::mem::replace(&mut self.speaking, true) {
            self.events.push_back(PlayoutEvent::Started { mark: chunk.mark });
        }
        while let Some((place, mark)) = chunk.next_reached() {
            let played_ms = (self.played - chunk.heard() + place) / TICKS_PER_MS;
            self.events.push_back(PlayoutEvent::Mark { mark, played_ms });
        }
        samples
    }

    /// The input ends (or changes its rate): what the filter still holds. It is linear, so that laying this over
    /// what follows equals having gone on.
    fn ring_out(&mut self) {
        self.history.clear();
        if let Some(converter) = &mut self.converter
            && self.speaking
        {
            converter.ring_out(self.gain.now(), &mut self.ringing);
        }
    }

    fn cut_off(&mut self, Cut { mut chunk, dropped }: Cut, head: &mut [i16]) -> usize {
        lay(&mut self.ringing, head);
        let samples = self.play_from(&mut chunk, head);
        fade_out(head);
        self.end_flush(Some(&chunk), dropped);
        samples
    }

    /// The background under the first `samples`, which are speech, and alone after them.
    fn lay_background(&mut self, samples: usize, is_held: bool, frame: &mut [i16]) -> FrameInfo {
        let Some(mut background) = self.background.take() else {
            return FrameInfo { samples };
        };
        let (speech, rest) = frame.split_at_mut(samples);
        background.lay(self.rate, self.leg_gain_db, false, speech);
        let is_heard = background.lay(self.rate, self.leg_gain_db, !is_held, rest);
        if background.is_over() {
            self.end_background(&background);
        } else {
            self.background = Some(background);
        }
        FrameInfo {
            samples: if is_heard { frame.len() } else { samples },
        }
    }

    fn end_background(&mut self, background: &Background) {
        let mark = background.mark();
        self.events.push_back(PlayoutEvent::BackgroundEnded { mark });
    }

    fn end_flush(&mut self, first: Option<&Chunk>, dropped: u64) {
        let dropped = dropped + first.map_or(0, Chunk::left);
        self.events.push_back(PlayoutEvent::Flushed(Flushed {
            mark: first.map(|chunk| chunk.mark),
            heard_ms: first.map_or(0, |chunk| chunk.heard() / TICKS_PER_MS),
            chunk_ms: first.map_or(0, |chunk| chunk.length() / TICKS_PER_MS),
            played_ms: self.played_ms(),
            dropped_ms: dropped / TICKS_PER_MS,
            reached: first.and_then(|chunk| {
                let (place, mark) = chunk.last_reached()?;
                let heard_ms = (chunk.heard() - place) / TICKS_PER_MS;
                Some(Reached { mark, heard_ms })
            }),
        }));
        self.speaking = false;
        self.ringing.clear();
        self.history.clear();
        if let Some(converter) = &mut self.converter {
            converter.reset();
        }
    }
}
