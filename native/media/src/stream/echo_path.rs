//! Our own voice on its way back from the caller's loudspeaker to its microphone.

use codec::resample::Resampler;

use super::LISTENED_HZ;
use crate::echo::{EchoGuard, Verdict};
use crate::playout::FRAME_MAX;

/// The echo guard of a leg, and the way of what we say to it.
#[derive(Debug)]
pub(super) struct EchoPath {
    guard: EchoGuard,
    /// From another rate than 8 or 16 kHz.
    convert: Option<(u32, Resampler)>,
    said: Vec<i16>,
}

impl Default for EchoPath {
    fn default() -> Self {
        Self {
            guard: EchoGuard::new(),
            convert: None,
            said: Vec::with_capacity(FRAME_MAX),
        }
    }
}

impl EchoPath {
    /// What we say in a tick, silence included.
    pub(super) fn said(&mut self, frame: &[i16], rate_hz: u32) {
        self.said.clear();
        match rate_hz {
            LISTENED_HZ => self.said.extend_from_slice(frame),
            // The guard looks at 4 kHz and below, where a sample twice is as good as an interpolation.
            8000 => self
                .said
                .extend(frame.iter().flat_map(|&sample| [sample, sample])),
            _ => self.convert(frame, rate_hz),
        }
        self.guard.reference(&self.said);
    }

    fn convert(&mut self, frame: &[i16], rate_hz: u32) {
        if self.convert.as_ref().is_none_or(|(known, _)| *known != rate_hz) {
            let resampler = Resampler::new(rate_hz, LISTENED_HZ).ok();
            self.convert = resampler.map(|resampler| (rate_hz, resampler));
        }
        if let Some((_, resampler)) = &mut self.convert {
            resampler.process(frame, &mut self.said);
        }
    }

    /// Take what came, as listened to; returns whether it is our echo.
    pub(super) fn heard(&mut self, listened: &[i16]) -> bool {
        self.guard.captured(listened);
        self.guard.verdict() == Verdict::Echo
    }
}
