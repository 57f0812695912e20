//! From probabilities to starts and stops of speech.

use crate::WINDOW_MS;

/// How far below the threshold a probability may fall before a window of speech counts as silence.
const HYSTERESIS: f32 = 0.15;

/// When speech counts as started and stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectorParams {
    /// Probability from which a window counts as speech.
    pub threshold: f32,
    /// Speech needed before it counts as started.
    pub start_ms: u32,
    /// Silence needed before speech counts as stopped.
    pub stop_ms: u32,
}

/// What a window changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Speech has begun.
    Started {
        /// Where its first window begins.
        media_ms: u64,
    },
    /// Speech has ended.
    Stopped {
        /// Where its last window ends.
        media_ms: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Silence,
    /// Not yet enough speech to be sure.
    Onset {
        from_ms: u64,
        speech_ms: u64,
        last_ms: u64,
    },
    Speech {
        last_ms: u64,
    },
}

/// Hysteresis over the probabilities of one call.
///
/// Silence → Onset at the first window at or above the threshold. Onset → Speech once `start_ms` of such
/// windows have come; back to Silence at a window below the threshold less 0.15, or `stop_ms` after the last
/// window of speech. Speech → Silence when `stop_ms` of media have passed since the last window at or above
/// the threshold less 0.15.
#[derive(Debug, Clone)]
pub struct Detector {
    params: DetectorParams,
    phase: Phase,
}

impl Detector {
    /// A detector that has heard nothing yet.
    pub fn new(params: DetectorParams) -> Self {
        Self {
            params,
            phase: Phase::Silence,
        }
    }

    /// Whether speech is going on.
    pub fn is_speech(&self) -> bool {
        matches!(self.phase, Phase::Speech { .. })
    }

    /// For how long there has been no speech at `end_ms`, within speech that has not stopped yet; 0 in silence.
    pub fn silent_ms(&self, end_ms: u64) -> u64 {
        match self.phase {
            Phase::Speech { last_ms } => end_ms.saturating_sub(last_ms),
            Phase::Silence | Phase::Onset { .. } => 0,
        }
    }

    /// A probability that neither begins speech nor ends it, nor an onset of it.
    pub fn undecided(&self) -> f32 {
        self.params.threshold - HYSTERESIS / 2.0
    }

    /// Take the probability of the window that begins at `media_ms`. Media time may jump ahead (a loss) but
    /// not back.
    pub fn update(&mut self, probability: f32, media_ms: u64) -> Option<Transition> {
        let end_ms = media_ms + u64::from(WINDOW_MS);
        let speech = probability >= self.params.threshold;
        let silence = probability.is_nan() || probability < self.params.threshold - HYSTERESIS;
        match self.phase {
            Phase::Silence if speech => self.onset(media_ms, 0, end_ms),
            Phase::Silence => None,
            Phase::Onset {
                from_ms, speech_ms, ..
            } if speech => self.onset(from_ms, speech_ms, end_ms),
            Phase::Onset { last_ms, .. } => {
                if silence || self.is_over(last_ms, end_ms) {
                    self.phase = Phase::Silence;
                }
                None
            }
            Phase::Speech { last_ms } if silence => {
                if !self.is_over(last_ms, end_ms) {
                    return None;
                }
                self.phase = Phase::Silence;
                Some(Transition::Stopped { media_ms: last_ms })
            }
            Phase::Speech { .. } => {
                self.phase = Phase::Speech { last_ms: end_ms };
                None
            }
        }
    }

    fn onset(&mut self, from_ms: u64, speech_ms: u64, end_ms: u64) -> Option<Transition> {
        let speech_ms = speech_ms + u64::from(WINDOW_MS);
        if speech_ms < u64::from(self.params.start_ms) {
            self.phase = Phase::Onset {
                from_ms,
                speech_ms,
                last_ms: end_ms,
            };
            return None;
        }
        self.phase = Phase::Speech { last_ms: end_ms };
        Some(Transition::Started { media_ms: from_ms })
    }

    fn is_over(&self, last_ms: u64, end_ms: u64) -> bool {
        end_ms.saturating_sub(last_ms) >= u64::from(self.params.stop_ms)
    }
}
