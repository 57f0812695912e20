//! What is said to the caller: whole chunks in, one 20 ms frame at the rate of the leg out per tick.
//!
//! The count of samples handed out is the truth about what was heard. Chunks are converted to the rate of the leg as
//! they are played, 20 ms at a time, so that a long chunk never stalls the tick. Time is counted in ticks of 48 kHz, of
//! which every rate that can be played has a whole number per sample.
//!
//! Rules:
//!
//! * chunks play in order and back to back; every mark ends exactly once: as [`PlayoutEvent::Played`] with the frame
//!   that holds its last sample, or dropped by a flush whose [`Flushed`] names the first of the marks it dropped;
//! * pause, resume and flush fade over 10 ms; what was faded was heard and counts;
//! * what is enqueued after a flush is not part of it;
//! * a change of the rate goes on within the chunk where the listener is: nothing is lost, repeated, or counted twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codec::resample::Resampler;

/// Sample rate of the frames of a telephone leg.
pub const LEG_RATE_HZ: u32 = 8000;
/// Samples per frame of a telephone leg: 20 ms.
pub const FRAME: usize = 160;
/// Samples per frame at the highest rate.
pub const FRAME_MAX: usize = 960;
/// The unit of all accounts.
const TICK_HZ: u32 = 48_000;
const TICKS_PER_MS: u64 = TICK_HZ as u64 / 1000;
/// The conversion filter spans so many periods of the lower of its two rates, and delays by half of them.
const FILTER_PERIODS: usize = 32;
/// Samples of the filter at the widest ratio.
const RING_MAX: usize = FILTER_PERIODS * 6;
/// What a new filter has to know of the past: its own length and what the old one still held.
const HISTORY: usize = 2 * RING_MAX;
/// A chunk counts for at least 20 ms, so that the limit on time also limits their number.
const RESERVE_MIN: u64 = 20 * TICKS_PER_MS;

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
    // In ticks.
    max: u64,
    reserved: AtomicU64,
    refused: AtomicU64,
}

impl PlayoutBudget {
    /// A budget of `max_ms` of audio.
    pub fn new(max_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            max: max_ms.saturating_mul(TICKS_PER_MS),
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
        let rate = Rate::of(rate_hz)?;
        let length = samples.len() as u64 * rate.ticks_per_sample();
        let reserved = length.max(RESERVE_MIN);
        // Relaxed: a count alone; the chunk itself travels through a queue that orders its contents.
        let room = |now: u64| Some(now + reserved).filter(|&sum| sum <= self.max);
        if let Err(now) = self
            .reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
        {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(PlayoutError::Full {
                queued_ms: now / TICKS_PER_MS,
                chunk_ms: length / TICKS_PER_MS,
                max_ms: self.max / TICKS_PER_MS,
            });
        }
        Ok(Chunk {
            samples,
            rate,
            mark,
            fed: 0,
            heard: 0,
            reserved,
            budget: Arc::clone(self),
        })
    }

    /// What waits, in milliseconds.
    pub fn queued_ms(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed) / TICKS_PER_MS
    }

    /// Chunks refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn release(&self, ticks: u64) {
        self.reserved.fetch_sub(ticks, Ordering::Relaxed);
    }
}

/// A rate that can be played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(u32);

impl Rate {
    fn of(rate_hz: u32) -> Result<Self, PlayoutError> {
        match rate_hz {
            8000 | 16_000 | 24_000 | 48_000 => Ok(Self(rate_hz)),
            _ => Err(PlayoutError::Rate(rate_hz)),
        }
    }

    fn ticks_per_sample(self) -> u64 {
        u64::from(TICK_HZ / self.0)
    }

    /// A cut or a return of sound takes 10 ms, which is heard as neither click nor swell.
    fn fade_len(self) -> usize {
        self.0 as usize / 100
    }
}

/// A stretch of speech with its mark; it gives its share of the budget back as it is played or dropped.
#[derive(Debug)]
pub struct Chunk {
    samples: Vec<i16>,
    rate: Rate,
    mark: u64,
    /// Samples given to the converter.
    fed: usize,
    /// How much of it was handed out, in ticks; never less than it was.
    heard: u64,
    /// Ticks.
    reserved: u64,
    budget: Arc<PlayoutBudget>,
}

impl Chunk {
    fn is_fed(&self) -> bool {
        self.fed == self.samples.len()
    }

    fn length(&self) -> u64 {
        self.samples.len() as u64 * self.rate.ticks_per_sample()
    }

    fn left(&self) -> u64 {
        self.length() - self.heard
    }

    /// The next samples, at most `count`.
    fn take(&mut self, count: usize) -> &[i16] {
        let begin = self.fed;
        self.fed = self.samples.len().min(begin + count);
        &self.samples[begin..self.fed]
    }

    /// All that was given to the converter but `ahead` (ticks) is handed out. Returns by how much that is more than
    /// before.
    fn advance(&mut self, ahead: u64) -> u64 {
        let fed = self.fed as u64 * self.rate.ticks_per_sample();
        let more = fed.saturating_sub(ahead).saturating_sub(self.heard);
        self.heard += more;
        let released = more.min(self.reserved);
        self.reserved -= released;
        self.budget.release(released);
        more
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
    /// Ticks of later chunks that were dropped.
    dropped: u64,
}

/// From the rate of the chunks to that of the leg, with what came out but has no place in the frame yet.
#[derive(Debug)]
struct Converter {
    from: Rate,
    to: Rate,
    resampler: Resampler,
    /// Converted beyond the end of the frame: no more than one sample of the input makes, but for a change of rate.
    ahead: VecDeque<i16>,
    /// So many of the next to come out were heard already, through the filter of an earlier rate.
    heard: usize,
    scratch: Vec<i16>,
}

impl Converter {
    fn new(from: Rate, to: Rate) -> Option<Self> {
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
    fn at_rate(&self, to: Rate, history: &[i16]) -> Option<Self> {
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

    fn ahead_ticks(&self) -> u64 {
        self.ahead.len() as u64 * self.to.ticks_per_sample()
    }

    /// Add to `out` what `chunk` gives; returns how many samples.
    fn play(&mut self, chunk: &mut Chunk, out: &mut [i16]) -> usize {
        let mut given = 0;
        loop {
            given += lay(&mut self.ahead, &mut out[given..]);
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

    /// What the filter still rings after its last input.
    fn ring_out(&mut self, ringing: &mut VecDeque<i16>) {
        const ZEROS: [i16; RING_MAX] = [0; RING_MAX];
        if self.from == self.to {
            return;
        }
        let taps = FILTER_PERIODS * (self.from.0 / self.from.0.min(self.to.0)) as usize;
        self.scratch.clear();
        self.resampler.process(&ZEROS[..taps], &mut self.scratch);
        ringing.clear();
        ringing.extend(&self.scratch);
        self.reset();
    }

    fn reset(&mut self) {
        self.resampler.reset();
        self.ahead.clear();
        self.heard = 0;
    }
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

    /// The next 20 ms: `frame` has [`Playout::frame_len`] samples.
    pub fn next_frame(&mut self, frame: &mut [i16]) -> FrameInfo {
        frame.fill(0);
        if let Some(cut) = self.cut.take() {
            return self.cut_off(cut, frame);
        }
        let faded = self.rate.fade_len().min(frame.len());
        let samples = match self.mode {
            Mode::Paused => 0,
            Mode::Running => self.fill(frame),
            Mode::Resuming => {
                self.mode = Mode::Running;
                let samples = self.fill(frame);
                fade_in(&mut frame[..faded]);
                samples
            }
            Mode::Pausing => {
                self.mode = Mode::Paused;
                let samples = self.fill(&mut frame[..faded]);
                fade_out(&mut frame[..faded]);
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
        self.played / TICKS_PER_MS
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
        chunk.is_fed() && self.converter.as_ref().is_none_or(|it| it.ahead.is_empty())
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
        let samples = converter.play(chunk, out);
        self.played += chunk.advance(converter.ahead_ticks());
        if samples > 0 && !std::mem::replace(&mut self.speaking, true) {
            self.events.push_back(PlayoutEvent::Started { mark: chunk.mark });
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
            converter.ring_out(&mut self.ringing);
        }
    }

    fn cut_off(&mut self, Cut { mut chunk, dropped }: Cut, frame: &mut [i16]) -> FrameInfo {
        let faded = self.rate.fade_len().min(frame.len());
        let head = &mut frame[..faded];
        lay(&mut self.ringing, head);
        let samples = self.play_from(&mut chunk, head);
        fade_out(head);
        self.end_flush(Some(&chunk), dropped);
        FrameInfo { samples }
    }

    fn end_flush(&mut self, first: Option<&Chunk>, dropped: u64) {
        let dropped = dropped + first.map_or(0, Chunk::left);
        self.events.push_back(PlayoutEvent::Flushed(Flushed {
            mark: first.map(|chunk| chunk.mark),
            heard_ms: first.map_or(0, |chunk| chunk.heard / TICKS_PER_MS),
            chunk_ms: first.map_or(0, |chunk| chunk.length() / TICKS_PER_MS),
            played_ms: self.played_ms(),
            dropped_ms: dropped / TICKS_PER_MS,
        }));
        self.speaking = false;
        self.ringing.clear();
        self.history.clear();
        if let Some(converter) = &mut self.converter {
            converter.reset();
        }
    }
}

/// Add as much of `tail` as fits, and keep the rest; returns how many samples.
fn lay(tail: &mut VecDeque<i16>, out: &mut [i16]) -> usize {
    let count = tail.len().min(out.len());
    for (sample, x) in out.iter_mut().zip(tail.drain(..count)) {
        *sample = sample.saturating_add(x);
    }
    count
}

/// Keep the end of `past` and `more`.
fn remember(past: &mut Vec<i16>, more: &[i16]) {
    let more = &more[more.len().saturating_sub(HISTORY)..];
    let excess = (past.len() + more.len()).saturating_sub(HISTORY);
    past.drain(..excess);
    past.extend_from_slice(more);
}

/// Bring a short tail to another rate, in its place.
fn convert(tail: &mut VecDeque<i16>, from: Rate, to: Rate) {
    if tail.is_empty() {
        return;
    }
    let Ok(mut resampler) = Resampler::new(from.0, to.0) else {
        return;
    };
    let delay = (resampler.delay_us() as usize * to.0 as usize).div_ceil(1_000_000);
    tail.extend([0; RING_MAX]);
    let mut out = Vec::new();
    resampler.process(tail.make_contiguous(), &mut out);
    tail.clear();
    tail.extend(out.iter().skip(delay).take(RING_MAX));
}

fn fade_in(samples: &mut [i16]) {
    let length = samples.len() as i32;
    for (step, sample) in (0..).zip(samples) {
        *sample = (i32::from(*sample) * step / length) as i16;
    }
}

fn fade_out(samples: &mut [i16]) {
    let length = samples.len() as i32;
    for (step, sample) in (0..).zip(samples) {
        *sample = (i32::from(*sample) * (length - step) / length) as i16;
    }
}
