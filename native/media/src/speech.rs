//! From caller audio to stretches of speech: windows for the detector, pre-roll, coarse chunks.
//!
//! Rules:
//!
//! * a start hands over the pre-roll with the onset; the audio handed over from there to the stop has no gap and no
//!   overlap, and the pre-roll of the next start repeats nothing of it;
//! * media time counts samples, so it only grows; every event carries where its audio begins or what it found;
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

    /// Take 16 kHz audio that arrived at `at_us`.
    pub fn push(&mut self, pcm: &[i16], at_us: u64) {
        self.held.extend(pcm);
        if self.arrivals.len() == ARRIVALS {
            self.arrivals.pop_front();
        }
        let energy: i64 = pcm.iter().map(|&x| i64::from(x) * i64::from(x)).sum();
        self.arrivals.push_back(Arrival {
            end: self.held_until(),
            at_us,
            audible: energy >= AUDIBLE_RMS * AUDIBLE_RMS * pcm.len() as i64,
        });
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
                let pcm = self.hand_over(self.judged);
                self.events.push(SpeechEvent::Stopped {
                    media_ms,
                    at_us,
                    last_speech_at_us,
                    pcm,
                });
            }
            None => {}
        }
        while self.is_speech() && self.judged - self.handed >= self.chunk {
            let media_ms = self.handed / SAMPLES_PER_MS;
            let pcm = self.hand_over(self.handed + self.chunk);
            self.events.push(SpeechEvent::Audio { media_ms, pcm });
        }
        self.forget();
    }

    fn hand_over(&mut self, until: u64) -> Vec<i16> {
        let range = (self.handed - self.held_from) as usize..(until - self.held_from) as usize;
        self.handed = until;
        self.held.range(range).copied().collect()
    }

    /// Drop what no event can need any more.
    fn forget(&mut self) {
        let keep = if self.is_speech() {
            self.handed
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
    windows: Box<[[f32; WINDOW]; BATCH]>,
    probabilities: [f32; BATCH],
}

impl Listening {
    /// Ready for any number of legs.
    pub fn new(model: std::sync::Arc<Model>) -> Self {
        Self {
            model,
            scratch: Scratch::new(),
            windows: Box::new([[0.0; WINDOW]; BATCH]),
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARAMS: SpeechParams = SpeechParams {
        detector: DetectorParams {
            threshold: 0.5,
            start_ms: 96,
            stop_ms: 192,
        },
        preroll_ms: 300,
        chunk_ms: 200,
    };

    /// Push 20 ms packets whose samples count up, and judge by a given probability per window.
    fn run(params: SpeechParams, windows: &[f32]) -> Vec<SpeechEvent> {
        let mut cutter = SpeechCutter::new(params);
        let (mut sample, mut judged, mut events) = (0_u32, 0, Vec::new());
        for packet in 0.. {
            let pcm: Vec<i16> = (sample..sample + 320).map(|x| (x % 30_000) as i16).collect();
            sample += 320;
            cutter.push(&pcm, packet * 20_000);
            while cutter.held_until() - cutter.judged >= WINDOW as u64 {
                let Some(&probability) = windows.get(judged) else {
                    return events;
                };
                judged += 1;
                cutter.judge(probability);
                events.extend(cutter.drain_events());
            }
        }
        events
    }

    fn probabilities(pattern: &[(f32, usize)]) -> Vec<f32> {
        let runs = pattern.iter().map(|&(p, count)| vec![p; count]);
        runs.flatten().collect()
    }

    #[test]
    fn silence_that_the_detector_still_calls_speech_is_not_its_end() {
        let mut cutter = SpeechCutter::new(PARAMS);
        for packet in 0..50_u64 {
            let level = if packet < 40 { 3_000 } else { 20 };
            cutter.push(&[level; 320], packet * 20_000);
        }
        // The detector holds on until 860 ms; the last audible packet is that of 780 to 800 ms.
        assert_eq!(cutter.end_of_speech(860 * SAMPLES_PER_MS), 39 * 20_000);
        assert_eq!(cutter.end_of_speech(700 * SAMPLES_PER_MS), 34 * 20_000);
        // Nothing audible nearby: quiet speech, where the detector is all there is.
        assert_eq!(cutter.end_of_speech(1_000 * SAMPLES_PER_MS), 49 * 20_000);
    }

    #[test]
    fn a_stretch_of_speech_with_its_times() {
        let events = run(PARAMS, &probabilities(&[(0.0, 20), (0.9, 20), (0.0, 10)]));
        let SpeechEvent::Started { media_ms, at_us, pcm } = &events[0] else {
            panic!("{events:?}")
        };
        assert_eq!(*media_ms, 640);
        // Certain after three windows, at 736 ms: the packet of 720 to 740 ms.
        assert_eq!(*at_us, 36 * 20_000);
        assert_eq!(pcm.len() as u64, (300 + 96) * SAMPLES_PER_MS);
        assert_eq!(pcm[0], (640 - 300) * 16);
        let SpeechEvent::Audio { media_ms, pcm } = &events[1] else {
            panic!("{events:?}")
        };
        assert_eq!((*media_ms, pcm.len()), (736, 3200));
        let Some(SpeechEvent::Stopped {
            media_ms,
            at_us,
            last_speech_at_us,
            ..
        }) = events.last()
        else {
            panic!("{events:?}")
        };
        // Speech ends with window 40, at 1280 ms: the packet of 1260 ms; certain 192 ms later.
        assert_eq!((*media_ms, *last_speech_at_us), (1280, 63 * 20_000));
        assert_eq!(*at_us, 73 * 20_000);
    }

    proptest! {
        /// Pieces of a stretch join; stretches do not overlap; the samples are those that came.
        #[test]
        fn audio_has_no_gap_and_no_overlap(
            pattern in prop::collection::vec((prop::sample::select(vec![0.0_f32, 0.45, 0.9]), 1_usize..30), 0..12),
            preroll_ms in 0_u32..800, chunk_ms in 20_u32..500,
        ) {
            let params = SpeechParams { preroll_ms, chunk_ms, ..PARAMS };
            let (mut place, mut speaking, mut last_ms) = (0_u64, false, 0);
            for event in run(params, &probabilities(&pattern)) {
                let pcm = match event {
                    SpeechEvent::Started { media_ms, pcm, .. } => {
                        prop_assert!(!std::mem::replace(&mut speaking, true));
                        prop_assert!(media_ms >= last_ms);
                        let onset = media_ms * SAMPLES_PER_MS;
                        place = onset.saturating_sub(u64::from(preroll_ms) * SAMPLES_PER_MS).max(place);
                        prop_assert!(place + pcm.len() as u64 > onset);
                        pcm
                    }
                    SpeechEvent::Audio { media_ms, pcm } => {
                        prop_assert!(speaking);
                        prop_assert_eq!(media_ms, place / SAMPLES_PER_MS);
                        pcm
                    }
                    SpeechEvent::Stopped { media_ms, pcm, at_us, last_speech_at_us } => {
                        prop_assert!(std::mem::replace(&mut speaking, false));
                        prop_assert!(last_speech_at_us < at_us);
                        last_ms = media_ms;
                        pcm
                    }
                };
                for sample in pcm {
                    prop_assert_eq!(sample, (place % 30_000) as i16);
                    place += 1;
                }
            }
        }
    }
}
