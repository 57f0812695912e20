//! From caller audio to stretches of speech: windows for the detector, pre-roll, coarse chunks.
//!
//! Rules:
//!
//! * a start hands over the pre-roll with the onset; the audio handed over from there to the stop has no gap and no
//!   overlap, and the pre-roll of the next start repeats nothing of it;
//! * silence that was assumed while packets were late is none of it: the detector hears it, the transcription does not;
//! * media time counts samples, so it only grows; every event carries where its audio begins or what it found;
//! * a pause is reported while speech still counts as going on, long before the detector is sure of its end: at most one
//!   until speech resumes or stops, with all audio so far, so that transcription need not wait;
//! * inference happens outside, for the windows of many legs at once: [`Listening`].

use std::collections::VecDeque;

use arrayvec::ArrayVec;

use silero::{Detector, DetectorParams, EnergyGate, Model, Scratch, State, Transition, WINDOW, WINDOW_MS};

/// Samples per millisecond of what the detector and the transcription hear.
const SAMPLES_PER_MS: u64 = 16;
/// Arrival times kept at most, to find the packet in which speech ended.
const ARRIVALS: usize = 1024;
/// Windows judged in one pass over the weights: beyond some dozens a larger batch saves nothing.
const BATCH: usize = 64;
/// Room in `held` that is kept when a burst has passed: two seconds.
const HELD_CAPACITY: usize = 32_000;

/// How a leg's speech is found and cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeechParams {
    /// The detector's thresholds.
    pub detector: DetectorParams,
    /// Audio before the onset that is handed over with it.
    pub preroll_ms: u32,
    /// Length of a piece of speech while it goes on.
    pub chunk_ms: u32,
    /// Nothing audible for this long within speech is a pause; 0: none are reported.
    pub pause_ms: u32,
}

/// A stretch of speech begins, goes on, or ends. PCM is 16 kHz.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpeechEvent {
    /// With the pre-roll.
    Started {
        /// Where speech began.
        media_ms: u64,
        /// Arrival of the packet that made it certain.
        at_us: u64,
        /// Audio so far.
        pcm: Vec<i16>,
    },
    /// The next piece.
    Audio {
        /// Where the piece begins.
        media_ms: u64,
        /// The piece.
        pcm: Vec<i16>,
    },
    /// Nothing audible has come for a moment. It may be a gap within a word, or the end.
    Paused {
        /// Where the last audible packet ended.
        media_ms: u64,
        /// Arrival of the packet that made it certain.
        at_us: u64,
        /// Arrival of the last packet with speech.
        last_speech_at_us: u64,
        /// What was not handed over yet.
        pcm: Vec<i16>,
    },
    /// It was no end: speech goes on after a pause.
    Resumed {
        /// Where the window begins that has speech again.
        media_ms: u64,
        /// Arrival of the packet that made it certain.
        at_us: u64,
    },
    /// With the rest.
    Stopped {
        /// Where speech ended.
        media_ms: u64,
        /// Arrival of the packet that made it certain.
        at_us: u64,
        /// Arrival of the last packet with speech.
        last_speech_at_us: u64,
        /// What was not handed over yet.
        pcm: Vec<i16>,
    },
}

/// A packet: where it ends, when it came, and whether anything could be heard in it.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    end: u64,
    at_us: u64,
    audible: bool,
}

/// RMS below which a packet at the end of speech is silence, whatever the detector still makes of it: -50 dBFS.
const AUDIBLE_RMS: i64 = 104;
/// The detector holds on for one or two windows after speech; silence is not sought further back than this.
const TAIL_MAX: u64 = 120 * SAMPLES_PER_MS;

const SILENCE: [i16; WINDOW] = [0; WINDOW];

/// Windows without speech that make a pause where noise is audible all the time.
const UNLIKELY_MS: u64 = 2 * WINDOW_MS as u64;

/// The speech side of one leg.
#[derive(Debug)]
pub struct SpeechCutter {
    state: State,
    gate: EnergyGate,
    detector: Detector,
    /// Audio that may still be handed over or judged, and the place of its first sample.
    held: VecDeque<i16>,
    held_from: u64,
    /// Samples judged, and samples handed over.
    judged: u64,
    handed: u64,
    arrivals: VecDeque<Arrival>,
    preroll: u64,
    /// What a start may reach back to: the pre-roll, and an onset that took its time.
    reach: u64,
    chunk: u64,
    pause: u64,
    threshold: f32,
    /// Where the last audible packet ended.
    audible_until: u64,
    /// Within a pause: where it began.
    paused_from: Option<u64>,
    /// What is held from here on was assumed.
    assumed_from: Option<u64>,
    windows: u64,
    /// What is heard now is our own echo.
    echo: bool,
    echoes: u64,
    events: Vec<SpeechEvent>,
}

impl SpeechCutter {
    /// In silence.
    pub fn new(params: SpeechParams) -> Self {
        // Three windows of speech, the default, may be this far apart and still be one onset.
        let DetectorParams {
            start_ms, stop_ms, ..
        } = params.detector;
        let onset_ms = start_ms + 2 * stop_ms + WINDOW_MS;
        Self {
            state: State::new(),
            gate: EnergyGate::new(),
            detector: Detector::new(params.detector),
            held: VecDeque::new(),
            held_from: 0,
            judged: 0,
            handed: 0,
            arrivals: VecDeque::new(),
            preroll: u64::from(params.preroll_ms) * SAMPLES_PER_MS,
            reach: u64::from(params.preroll_ms + onset_ms) * SAMPLES_PER_MS,
            chunk: u64::from(params.chunk_ms.max(WINDOW_MS)) * SAMPLES_PER_MS,
            pause: u64::from(params.pause_ms) * SAMPLES_PER_MS,
            threshold: params.detector.threshold,
            audible_until: 0,
            paused_from: None,
            assumed_from: None,
            windows: 0,
            echo: false,
            echoes: 0,
            events: Vec::new(),
        }
    }

    /// Whether the caller is speaking.
    pub fn is_speech(&self) -> bool {
        self.detector.is_speech()
    }

    /// Windows judged, and how many of them were too quiet to trouble the model with.
    pub fn windows(&self) -> (u64, u64) {
        (self.windows, self.gate.skipped())
    }

    /// Windows with speech that were our own echo.
    pub fn echoes(&self) -> u64 {
        self.echoes
    }

    /// Whether what was pushed last is our own echo: then it begins no speech. Speech that has begun goes on whatever it
    /// is, for a caller who is cut off is worse than a pause that is taken back.
    pub fn set_echo(&mut self, echo: bool) {
        self.echo = echo;
    }

    /// Take 16 kHz audio that arrived at `at_us`. What was assumed before it was wrong: the audio was late.
    pub fn push(&mut self, pcm: &[i16], at_us: u64) {
        if let Some(from) = self.assumed_from.take() {
            self.pass_over(from);
        }
        self.append(pcm, at_us);
    }

    /// Assume a window of silence at most where nothing has come by `at_us`: who sends nothing while he is silent must come to an end.
    pub fn assume_silence(&mut self, samples: usize, at_us: u64) {
        let from = self.held_until();
        self.assumed_from.get_or_insert(from);
        self.append(&SILENCE[..samples.min(WINDOW)], at_us);
    }

    /// What was assumed was right: it is as good as heard.
    pub fn confirm_silence(&mut self) {
        self.assumed_from = None;
    }

    /// Hand over what came before the assumed silence, and leave that out.
    fn pass_over(&mut self, from: u64) {
        if self.is_speech() && from > self.handed {
            let media_ms = self.handed / SAMPLES_PER_MS;
            let pcm = self.hand_over(from);
            self.events.push(SpeechEvent::Audio { media_ms, pcm });
        }
        self.handed = self.handed.max(self.held_until());
    }

    fn append(&mut self, pcm: &[i16], at_us: u64) {
        if pcm.is_empty() {
            return;
        }
        self.held.extend(pcm);
        if self.arrivals.len() == ARRIVALS {
            self.arrivals.pop_front();
        }
        let energy: i64 = pcm.iter().map(|&x| i64::from(x) * i64::from(x)).sum();
        let audible = energy >= AUDIBLE_RMS * AUDIBLE_RMS * pcm.len() as i64;
        let end = self.held_until();
        self.arrivals.push_back(Arrival { end, at_us, audible });
        if audible {
            self.audible_until = end;
        } else if self.may_pause() && end - self.audible_until >= self.pause {
            self.pause(self.audible_until, at_us);
        }
    }

    fn may_pause(&self) -> bool {
        self.pause > 0 && self.paused_from.is_none() && self.is_speech()
    }

    fn pause(&mut self, from: u64, at_us: u64) {
        self.paused_from = Some(from);
        let last_speech_at_us = self.end_of_speech(from);
        let pcm = self.hand_over(self.heard_until());
        self.events.push(SpeechEvent::Paused {
            media_ms: from / SAMPLES_PER_MS,
            at_us,
            last_speech_at_us,
            pcm,
        });
    }

    /// What a judged window says about a pause: speech again after one, or one in noise, where the detector alone can tell.
    ///
    /// The detector holds on for one or two windows after speech, so that its word counts only once something audible has
    /// come since; and an audible click is no speech.
    fn follow_pause(&mut self, probability: f32, from_ms: u64, at_us: u64) {
        match self.paused_from {
            Some(from) if probability >= self.threshold && self.audible_until > from => {
                self.paused_from = None;
                self.events.push(SpeechEvent::Resumed {
                    media_ms: from_ms,
                    at_us,
                });
            }
            None if self.may_pause() => {
                let silent_ms = self.detector.silent_ms(self.judged / SAMPLES_PER_MS);
                if silent_ms >= UNLIKELY_MS && silent_ms * SAMPLES_PER_MS >= self.pause {
                    self.pause(self.judged - silent_ms * SAMPLES_PER_MS, at_us);
                }
            }
            _ => {}
        }
    }

    /// The events so far, in order.
    pub fn drain_events(&mut self) -> std::vec::Drain<'_, SpeechEvent> {
        self.events.drain(..)
    }

    /// Lay the next window out for the model, if one is complete. Windows too quiet for it are judged here.
    fn prepare(&mut self, window: &mut [f32; WINDOW]) -> bool {
        while self.held_until() - self.judged >= WINDOW as u64 {
            let from = (self.judged - self.held_from) as usize;
            for (to, &x) in window.iter_mut().zip(self.held.range(from..from + WINDOW)) {
                *to = f32::from(x) / 32_768.0;
            }
            if self.gate.admits(window) {
                return true;
            }
            self.state.skip(window);
            self.judge(0.0);
        }
        false
    }

    fn judge(&mut self, probability: f32) {
        let undecided = self.detector.undecided();
        let is_echo = self.echo && probability > undecided && !self.is_speech();
        self.echoes += u64::from(is_echo);
        let probability = if is_echo { undecided } else { probability };
        self.windows += 1;
        let from_ms = self.judged / SAMPLES_PER_MS;
        self.judged += WINDOW as u64;
        let at_us = self.arrival_of(self.judged);
        match self.detector.update(probability, from_ms) {
            Some(Transition::Started { media_ms }) => {
                let from = (media_ms * SAMPLES_PER_MS).saturating_sub(self.preroll);
                self.handed = from.max(self.handed).max(self.held_from);
                let pcm = self.hand_over(self.judged);
                self.events.push(SpeechEvent::Started { media_ms, at_us, pcm });
            }
            Some(Transition::Stopped { media_ms }) => {
                let last_speech_at_us = self.end_of_speech(media_ms * SAMPLES_PER_MS);
                self.paused_from = None;
                let pcm = self.hand_over(self.judged);
                self.events.push(SpeechEvent::Stopped {
                    media_ms,
                    at_us,
                    last_speech_at_us,
                    pcm,
                });
            }
            None => self.follow_pause(probability, from_ms, at_us),
        }
        while self.is_speech()
            && self.judged.min(self.heard_until()).saturating_sub(self.handed) >= self.chunk
        {
            let media_ms = self.handed / SAMPLES_PER_MS;
            let pcm = self.hand_over(self.handed + self.chunk);
            self.events.push(SpeechEvent::Audio { media_ms, pcm });
        }
        self.forget();
    }

    /// A pause hands over more than was judged; what follows begins there.
    fn hand_over(&mut self, until: u64) -> Vec<i16> {
        let until = until.max(self.handed);
        let range = (self.handed - self.held_from) as usize..(until - self.held_from) as usize;
        self.handed = until;
        self.held.range(range).copied().collect()
    }

    /// Drop what no event can need any more.
    fn forget(&mut self) {
        let keep = if self.is_speech() {
            self.handed.min(self.judged)
        } else {
            self.judged.saturating_sub(self.reach)
        };
        let excess = keep.saturating_sub(self.held_from);
        self.held.drain(..excess as usize);
        self.held_from += excess;
        if self.held.capacity() > 2 * HELD_CAPACITY && self.held.len() < HELD_CAPACITY {
            self.held.shrink_to(HELD_CAPACITY);
        }
        let horizon = self.judged.saturating_sub(self.reach);
        while self.arrivals.len() > 1 && self.arrivals[1].end < horizon {
            self.arrivals.pop_front();
        }
    }

    fn held_until(&self) -> u64 {
        self.held_from + self.held.len() as u64
    }

    /// Up to where it was not assumed.
    fn heard_until(&self) -> u64 {
        self.assumed_from.unwrap_or_else(|| self.held_until())
    }

    /// Arrival of the packet that reaches up to sample `place`.
    fn arrival_of(&self, place: u64) -> u64 {
        let first = self.arrivals.partition_point(|packet| packet.end < place);
        let packet = self.arrivals.get(first).or(self.arrivals.back());
        packet.map_or(0, |packet| packet.at_us)
    }

    /// Arrival of the last packet with speech, where the detector says that speech ended at `place`: that packet, or
    /// the last audible one shortly before it.
    fn end_of_speech(&self, place: u64) -> u64 {
        let last = self.arrivals.partition_point(|packet| packet.end < place);
        let tail = self.arrivals.range(..self.arrivals.len().min(last + 1)).rev();
        tail.take_while(|packet| packet.end + TAIL_MAX >= place)
            .find(|packet| packet.audible)
            .map_or_else(|| self.arrival_of(place), |packet| packet.at_us)
    }
}

/// The model with its working memory: the one place where inference happens.
#[derive(Debug)]
pub struct Listening {
    model: std::sync::Arc<Model>,
    scratch: Scratch,
    windows: Vec<[f32; WINDOW]>,
    probabilities: [f32; BATCH],
}

impl Listening {
    /// Ready for any number of legs.
    pub fn new(model: std::sync::Arc<Model>) -> Self {
        Self {
            model,
            scratch: Scratch::new(),
            windows: vec![[0.0; WINDOW]; BATCH],
            probabilities: [0.0; BATCH],
        }
    }

    /// Judge all complete windows of these legs, one window of each per pass.
    pub fn judge<'a>(&mut self, cutters: impl Iterator<Item = &'a mut SpeechCutter>) {
        let mut batch = ArrayVec::<&mut SpeechCutter, BATCH>::new();
        for cutter in cutters {
            batch.push(cutter);
            if batch.is_full() {
                self.judge_batch(&mut batch);
            }
        }
        self.judge_batch(&mut batch);
    }

    /// Judge until no leg of the batch has a window left; it is empty then.
    fn judge_batch(&mut self, batch: &mut ArrayVec<&mut SpeechCutter, BATCH>) {
        loop {
            let mut ready = 0;
            batch.retain(|cutter| {
                let is_ready = cutter.prepare(&mut self.windows[ready]);
                ready += usize::from(is_ready);
                is_ready
            });
            if batch.is_empty() {
                return;
            }
            let mut inferences: ArrayVec<_, BATCH> = batch
                .iter_mut()
                .map(|cutter| &mut cutter.state)
                .zip(self.windows.iter())
                .collect();
            let probabilities = &mut self.probabilities[..ready];
            self.model
                .infer_batch(&mut self.scratch, &mut inferences, probabilities);
            drop(inferences);
            for (cutter, &probability) in batch.iter_mut().zip(&*probabilities) {
                cutter.judge(probability);
            }
        }
    }
}

#[cfg(test)]
mod tests;
