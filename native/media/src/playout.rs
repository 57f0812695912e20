//! What is said to the caller: whole chunks in, one 20 ms frame of 8 kHz out per tick.
//!
//! The count of samples handed out is the truth about what was heard. Chunks are converted to 8 kHz as they are
//! played, 20 ms at a time, so that a long chunk never stalls the tick.
//!
//! Rules:
//!
//! * chunks play in order and back to back; every mark ends exactly once: as [`PlayoutEvent::Played`] with the frame
//!   that holds its last sample, or dropped by a flush whose [`Flushed`] names the first of the marks it dropped;
//! * pause, resume and flush fade over 10 ms; what was faded was heard and counts;
//! * what is enqueued after a flush is not part of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codec::resample::{ResampleError, Resampler};

/// Sample rate of the frames.
pub const LEG_RATE_HZ: u32 = 8000;
/// Samples per frame: 20 ms.
pub const FRAME: usize = 160;
/// A cut or a return of sound takes 10 ms, which is heard as neither click nor swell.
const FADE: usize = 80;
/// Output samples for which the conversion filter rings after its last input.
const RING: usize = 32;
/// A chunk counts for at least a frame, so that the limit on time also limits their number.
const RESERVE_MIN: u64 = FRAME as u64;
const SAMPLES_PER_MS: u64 = LEG_RATE_HZ as u64 / 1000;

/// Why a chunk was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlayoutError {
    /// Not a rate that can be played.
    #[error("cannot play {0} Hz: allowed are 8000, 16000, 24000 and 48000")]
    Rate(u32),
    /// More is waiting than the stream allows.
    #[error("playout is full: {queued_ms} ms wait, this chunk has {chunk_ms} ms, max_playout_ms is {max_ms}")]
    Full {
        /// What waits.
        queued_ms: u64,
        /// What was refused.
        chunk_ms: u64,
        /// The limit.
        max_ms: u64,
    },
}

/// How much one stream may have waiting; shared by those who enqueue and the [`Playout`].
#[derive(Debug)]
pub struct PlayoutBudget {
    max: u64,
    reserved: AtomicU64,
    refused: AtomicU64,
}

impl PlayoutBudget {
    /// A budget of `max_ms` of audio.
    pub fn new(max_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            max: max_ms.saturating_mul(SAMPLES_PER_MS),
            reserved: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Make a chunk, if there is room for it.
    ///
    /// # Errors
    /// [`PlayoutError::Full`] when too much is waiting, [`PlayoutError::Rate`] for a rate that cannot be played.
    pub fn chunk(
        self: &Arc<Self>,
        samples: Vec<i16>,
        rate_hz: u32,
        mark: u64,
    ) -> Result<Chunk, PlayoutError> {
        let ratio = Ratio::of(rate_hz)?;
        let reserved = (samples.len() / ratio.0) as u64;
        let reserved = reserved.max(RESERVE_MIN);
        // Relaxed: a count alone; the chunk itself travels through a queue that orders its contents.
        let room = |now: u64| Some(now + reserved).filter(|&sum| sum <= self.max);
        if let Err(now) = self
            .reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
        {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(PlayoutError::Full {
                queued_ms: now / SAMPLES_PER_MS,
                chunk_ms: (samples.len() / ratio.0) as u64 / SAMPLES_PER_MS,
                max_ms: self.max / SAMPLES_PER_MS,
            });
        }
        Ok(Chunk {
            samples,
            ratio,
            mark,
            fed: 0,
            heard: 0,
            reserved,
            budget: Arc::clone(self),
        })
    }

    /// What waits, in milliseconds.
    pub fn queued_ms(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed) / SAMPLES_PER_MS
    }

    /// Chunks refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn release(&self, samples: u64) {
        self.reserved.fetch_sub(samples, Ordering::Relaxed);
    }
}

/// Input samples per output sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ratio(usize);

impl Ratio {
    fn of(rate_hz: u32) -> Result<Self, PlayoutError> {
        match rate_hz {
            8000 | 16_000 | 24_000 | 48_000 => Ok(Self((rate_hz / LEG_RATE_HZ) as usize)),
            _ => Err(PlayoutError::Rate(rate_hz)),
        }
    }

    fn resampler(self) -> Result<Resampler, ResampleError> {
        Resampler::new(LEG_RATE_HZ * self.0 as u32, LEG_RATE_HZ)
    }
}

/// A stretch of speech with its mark; it gives its share of the budget back as it is played or dropped.
#[derive(Debug)]
pub struct Chunk {
    samples: Vec<i16>,
    ratio: Ratio,
    mark: u64,
    /// Input samples taken.
    fed: usize,
    /// Output samples handed out.
    heard: u64,
    reserved: u64,
    budget: Arc<PlayoutBudget>,
}

impl Chunk {
    fn is_done(&self) -> bool {
        self.fed == self.samples.len()
    }

    fn chunk_ms(&self) -> u64 {
        (self.samples.len() / self.ratio.0) as u64 / SAMPLES_PER_MS
    }

    fn heard_ms(&self) -> u64 {
        if self.is_done() {
            self.chunk_ms()
        } else {
            (self.heard / SAMPLES_PER_MS).min(self.chunk_ms())
        }
    }

    fn left(&self) -> u64 {
        ((self.samples.len() - self.fed) / self.ratio.0) as u64
    }

    /// Convert what at most `room` output samples take.
    fn feed(&mut self, resampler: &mut Resampler, room: usize, output: &mut Vec<i16>) {
        let end = self.samples.len().min(self.fed + room * self.ratio.0);
        resampler.process(&self.samples[self.fed..end], output);
        self.fed = end;
        let count = output.len() as u64;
        self.heard += count;
        let released = count.min(self.reserved);
        self.reserved -= released;
        self.budget.release(released);
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.budget.release(self.reserved);
    }
}

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
    /// A flush is complete.
    Flushed(Flushed),
}

/// What [`Playout::next_frame`] put into the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameInfo {
    /// Samples of chunks in it; the rest is silence.
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
    /// Samples of later chunks that were dropped.
    dropped: u64,
}

/// The playout of one leg.
#[derive(Debug)]
pub struct Playout {
    queue: VecDeque<Chunk>,
    cut: Option<Cut>,
    mode: Mode,
    /// Not idle: chunks follow each other without a gap (or are held by a pause).
    speaking: bool,
    played: u64,
    converter: Option<(Ratio, Resampler)>,
    /// What the filter still rings after its last input, to be laid over what follows.
    ringing: VecDeque<i16>,
    scratch: Vec<i16>,
    events: VecDeque<PlayoutEvent>,
}

impl Playout {
    /// Nothing queued.
    pub fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            cut: None,
            mode: Mode::Running,
            speaking: false,
            played: 0,
            converter: None,
            ringing: VecDeque::with_capacity(RING),
            scratch: Vec::with_capacity(FRAME),
            events: VecDeque::new(),
        }
    }

    /// Append a chunk. The number of chunks is bounded by the budget that made them.
    pub fn enqueue(&mut self, chunk: Chunk) {
        self.queue.push_back(chunk);
    }

    /// Fade out and hold what is queued.
    pub fn pause(&mut self) {
        self.mode = match self.mode {
            Mode::Running => Mode::Pausing,
            Mode::Resuming => Mode::Paused,
            mode => mode,
        };
    }

    /// Go on where `pause` stopped.
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

    /// The next 20 ms.
    pub fn next_frame(&mut self, frame: &mut [i16; FRAME]) -> FrameInfo {
        frame.fill(0);
        if let Some(cut) = self.cut.take() {
            return self.cut_off(cut, frame);
        }
        let samples = match self.mode {
            Mode::Paused => 0,
            Mode::Running => self.fill(frame),
            Mode::Resuming => {
                self.mode = Mode::Running;
                let samples = self.fill(frame);
                fade(&mut frame[..FADE], |step| step);
                samples
            }
            Mode::Pausing => {
                self.mode = Mode::Paused;
                let samples = self.fill(&mut frame[..FADE]);
                fade(&mut frame[..FADE], |step| FADE - step);
                self.ringing.clear();
                samples
            }
        };
        FrameInfo { samples }
    }

    /// What the calls so far brought about, in order; call until `None`.
    pub fn poll_event(&mut self) -> Option<PlayoutEvent> {
        self.events.pop_front()
    }

    /// Total of chunks handed out.
    pub fn played_ms(&self) -> u64 {
        self.played / SAMPLES_PER_MS
    }

    /// Whether nothing is queued and nothing sounds.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.cut.is_none() && !self.speaking && self.ringing.is_empty()
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
            if chunk.is_done() {
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

    fn play_from(&mut self, chunk: &mut Chunk, out: &mut [i16]) -> usize {
        if self
            .converter
            .as_ref()
            .is_some_and(|(ratio, _)| *ratio != chunk.ratio)
        {
            self.ring_out();
            lay(&mut self.ringing, out);
            self.converter = None;
        }
        if self.converter.is_none() {
            // A chunk exists only for a rate that the resampler knows.
            self.converter = chunk.ratio.resampler().ok().map(|new| (chunk.ratio, new));
        }
        self.scratch.clear();
        if let Some((_, resampler)) = &mut self.converter {
            chunk.feed(resampler, out.len(), &mut self.scratch);
        }
        if !self.scratch.is_empty() && !std::mem::replace(&mut self.speaking, true) {
            self.events.push_back(PlayoutEvent::Started { mark: chunk.mark });
        }
        for (sample, &x) in out.iter_mut().zip(&self.scratch) {
            *sample = sample.saturating_add(x);
        }
        self.played += self.scratch.len() as u64;
        self.scratch.len()
    }

    /// The input ends (or changes its rate): what the filter still holds. It is linear, so that laying this over
    /// what follows equals having gone on.
    fn ring_out(&mut self) {
        const ZEROS: [i16; RING * 6] = [0; RING * 6];
        let Some((ratio, resampler)) = &mut self.converter else {
            return;
        };
        if !self.speaking || ratio.0 == 1 {
            return;
        }
        self.scratch.clear();
        resampler.process(&ZEROS[..RING * ratio.0], &mut self.scratch);
        resampler.reset();
        self.ringing.clear();
        self.ringing.extend(&self.scratch);
    }

    fn cut_off(&mut self, Cut { mut chunk, dropped }: Cut, frame: &mut [i16; FRAME]) -> FrameInfo {
        let head = &mut frame[..FADE];
        lay(&mut self.ringing, head);
        let samples = self.play_from(&mut chunk, head);
        fade(head, |step| FADE - step);
        self.end_flush(Some(&chunk), dropped);
        FrameInfo { samples }
    }

    fn end_flush(&mut self, first: Option<&Chunk>, dropped: u64) {
        let dropped = dropped + first.map_or(0, Chunk::left);
        self.events.push_back(PlayoutEvent::Flushed(Flushed {
            mark: first.map(|chunk| chunk.mark),
            heard_ms: first.map_or(0, Chunk::heard_ms),
            chunk_ms: first.map_or(0, Chunk::chunk_ms),
            played_ms: self.played_ms(),
            dropped_ms: dropped / SAMPLES_PER_MS,
        }));
        self.speaking = false;
        self.ringing.clear();
        if let Some((_, resampler)) = &mut self.converter {
            resampler.reset();
        }
    }
}

impl Default for Playout {
    fn default() -> Self {
        Self::new()
    }
}

/// Add as much of `ringing` as fits, and keep the rest.
fn lay(ringing: &mut VecDeque<i16>, out: &mut [i16]) {
    let count = ringing.len().min(out.len());
    for (sample, x) in out.iter_mut().zip(ringing.drain(..count)) {
        *sample = sample.saturating_add(x);
    }
}

/// Scale each sample by `weight(step) / FADE`.
fn fade(samples: &mut [i16], weight: impl Fn(usize) -> usize) {
    for (step, sample) in samples.iter_mut().enumerate() {
        *sample = (i32::from(*sample) * weight(step) as i32 / FADE as i32) as i16;
    }
}
