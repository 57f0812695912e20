//! From caller audio to stretches of speech: windows through the detector, pre-roll, coarse chunks.
//!
//! Rules:
//!
//! * a start hands over the pre-roll with the onset; the audio handed over from there to the stop has no gap and no
//!   overlap;
//! * media time only grows, and every event carries it;
//! * when the caller's packets stop in the middle of speech, silence is assumed by the clock, so that speech always ends.

use std::collections::VecDeque;
use std::sync::Arc;

use silero::{Detector, DetectorParams, EnergyGate, Model, Scratch, State, Transition, WINDOW};

/// Samples per millisecond of what the detector and the transcription hear.
const SAMPLES_PER_MS: usize = 16;
/// Arrival times kept, to find the packet in which speech ended.
const ARRIVALS: usize = 128;

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
        /// Where the piece ends.
        media_ms: u64,
        /// The piece.
        pcm: Vec<i16>,
    },
    /// With the rest.
    Stopped {
        /// Where speech ended.
        media_ms: u64,
        /// When this was certain.
        at_us: u64,
        /// Arrival of the last packet with speech.
        last_speech_at_us: u64,
        /// What was not handed over yet.
        pcm: Vec<i16>,
    },
}

/// The speech side of one leg.
#[derive(Debug)]
pub struct SpeechCutter {
    model: Arc<Model>,
    state: State,
    gate: EnergyGate,
    detector: Detector,
    preroll: VecDeque<i16>,
    preroll_samples: usize,
    chunk: Vec<i16>,
    chunk_samples: usize,
    window: Vec<i16>,
    /// Samples that went through the detector.
    heard_samples: u64,
    arrivals: VecDeque<(u64, u64)>,
}

impl SpeechCutter {
    /// In silence.
    pub fn new(model: Arc<Model>, params: SpeechParams) -> Self {
        let preroll_samples = params.preroll_ms as usize * SAMPLES_PER_MS + WINDOW;
        let chunk_samples = (params.chunk_ms as usize * SAMPLES_PER_MS).max(WINDOW);
        Self {
            model,
            state: State::new(),
            gate: EnergyGate::default(),
            detector: Detector::new(params.detector),
            preroll: VecDeque::with_capacity(preroll_samples + WINDOW),
            preroll_samples,
            chunk: Vec::with_capacity(chunk_samples + WINDOW),
            chunk_samples,
            window: Vec::with_capacity(WINDOW),
            heard_samples: 0,
            arrivals: VecDeque::with_capacity(ARRIVALS),
        }
    }

    /// Whether the caller is speaking.
    pub fn is_speech(&self) -> bool {
        self.detector.is_speech()
    }

    /// Take audio that arrived at `at_us`; events are appended.
    pub fn push(&mut self, scratch: &mut Scratch, pcm: &[i16], at_us: u64, events: &mut Vec<SpeechEvent>) {
        let mut rest = pcm;
        while !rest.is_empty() {
            let take = rest.len().min(WINDOW - self.window.len());
            self.window.extend_from_slice(&rest[..take]);
            rest = &rest[take..];
            if self.window.len() == WINDOW {
                self.judge(scratch, at_us, events);
            }
        }
        if self.arrivals.len() == ARRIVALS {
            self.arrivals.pop_front();
        }
        let end_ms = ms(self.heard_samples + self.window.len() as u64);
        self.arrivals.push_back((end_ms, at_us));
    }

    fn judge(&mut self, scratch: &mut Scratch, at_us: u64, events: &mut Vec<SpeechEvent>) {
        let mut samples = [0.0_f32; WINDOW];
        for (to, &from) in samples.iter_mut().zip(&self.window) {
            *to = f32::from(from) / 32768.0;
        }
        let from_ms = ms(self.heard_samples);
        let probability = if self.detector.is_speech() || self.gate.admits(&samples) {
            self.model.infer(scratch, &mut self.state, &samples)
        } else {
            self.state.skip(&samples);
            0.0
        };
        self.heard_samples += WINDOW as u64;
        let was_speech = self.detector.is_speech();
        let transition = self.detector.update(probability, from_ms);
        if was_speech {
            self.chunk.extend_from_slice(&self.window);
        } else {
            self.preroll.extend(&self.window);
            let excess = self.preroll.len().saturating_sub(self.preroll_samples);
            self.preroll.drain(..excess);
        }
        self.window.clear();
        match transition {
            Some(Transition::Started { media_ms }) => {
                let pcm = self.preroll.drain(..).collect();
                events.push(SpeechEvent::Started { media_ms, at_us, pcm });
            }
            Some(Transition::Stopped { media_ms }) => {
                let last_speech_at_us = self.arrival_of(media_ms).unwrap_or(at_us);
                let pcm = std::mem::take(&mut self.chunk);
                self.chunk.reserve(self.chunk_samples + WINDOW);
                events.push(SpeechEvent::Stopped {
                    media_ms,
                    at_us,
                    last_speech_at_us,
                    pcm,
                });
            }
            None if self.chunk.len() >= self.chunk_samples => {
                let pcm = std::mem::take(&mut self.chunk);
                self.chunk.reserve(self.chunk_samples + WINDOW);
                events.push(SpeechEvent::Audio {
                    media_ms: ms(self.heard_samples),
                    pcm,
                });
            }
            None => {}
        }
    }

    /// Arrival of the first packet that reaches `media_ms`.
    fn arrival_of(&self, media_ms: u64) -> Option<u64> {
        self.arrivals
            .iter()
            .find(|(end_ms, _)| *end_ms >= media_ms)
            .map(|(_, at_us)| *at_us)
    }
}

fn ms(samples: u64) -> u64 {
    samples / SAMPLES_PER_MS as u64
}
