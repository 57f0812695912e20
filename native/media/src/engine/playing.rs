//! What a stream is told to say and to keep.

use super::counters::add;
use super::{Command, Engine, EngineError, StreamId};
use crate::playout::{Chunk, PlayoutError};
use crate::recorder::Recorder;

/// Audio to be played.
#[derive(Debug, Clone, Default)]
pub struct Utterance<'a> {
    /// What its end is reported as.
    pub mark: u64,
    /// 8000, 16000, 24000 or 48000.
    pub rate_hz: u32,
    /// The samples.
    pub pcm: Vec<i16>,
    /// Places within it that are reported when they are reached: sample and mark.
    pub marks: &'a [(usize, u64)],
    /// Louder or softer, -60 to 12; 0 is as it is.
    pub gain_db: f32,
}

impl Engine {
    /// Append an utterance to the playout.
    ///
    /// # Errors
    /// When the stream is unknown, its playout is full, or something of the utterance is not allowed.
    pub fn play(&self, id: StreamId, utterance: Utterance<'_>) -> Result<(), EngineError> {
        let chunk = self.chunk(id, utterance)?;
        self.send(id, Command::Play(id, chunk))
    }

    /// Play this over and over while nothing else is played: hold music, ring-back. Replaces what was looped.
    ///
    /// # Errors
    /// As [`Engine::play`].
    pub fn play_loop(&self, id: StreamId, utterance: Utterance<'_>) -> Result<(), EngineError> {
        let chunk = self.chunk(id, utterance)?;
        self.send(id, Command::Loop(id, chunk))
    }

    fn chunk(&self, id: StreamId, utterance: Utterance<'_>) -> Result<Chunk, EngineError> {
        let budget = self.budget(id)?;
        let made = || {
            let Utterance {
                mark,
                rate_hz,
                pcm,
                marks,
                gain_db,
            } = utterance;
            let mut chunk = budget.chunk(pcm, rate_hz, mark)?.with_gain_db(gain_db);
            for &(offset, mark) in marks {
                chunk = chunk.with_mark_at(offset, mark)?;
            }
            Ok(chunk)
        };
        let refused = |_: &PlayoutError| add(&self.counters.refused_chunks, 1);
        Ok(made().inspect_err(refused)?)
    }

    /// End what is looped.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn stop_loop(&self, id: StreamId) -> Result<(), EngineError> {
        self.tell(id, Command::StopLoop(id))
    }

    /// Everything that is played louder or softer: -60 to 12 dB, limited to that.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn set_gain_db(&self, id: StreamId, gain_db: f32) -> Result<(), EngineError> {
        self.tell(id, Command::Gain(id, gain_db))
    }

    /// Stop and drop what is queued.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn flush(&self, id: StreamId) -> Result<(), EngineError> {
        self.tell(id, Command::Flush(id))
    }

    /// Hold the playout.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn pause(&self, id: StreamId) -> Result<(), EngineError> {
        self.tell(id, Command::Pause(id))
    }

    /// Go on.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn resume(&self, id: StreamId) -> Result<(), EngineError> {
        self.tell(id, Command::Resume(id))
    }

    /// Press a key at the peer (RFC 4733), after those that wait.
    ///
    /// # Errors
    /// When the stream is unknown. What is no key, too short or long, or too much at once is dropped and counted
    /// (`refused_keys`).
    pub fn press(&self, id: StreamId, digit: char, duration_ms: u32) -> Result<(), EngineError> {
        self.tell(id, Command::Press(id, digit, duration_ms))
    }

    /// Record the stream, both sides.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn record(&self, id: StreamId, recorder: Recorder) -> Result<(), EngineError> {
        self.tell(id, Command::Record(id, Box::new(recorder)))
    }

    /// A command for a stream that is there.
    pub(super) fn tell(&self, id: StreamId, command: Command) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(id, command)
    }
}
