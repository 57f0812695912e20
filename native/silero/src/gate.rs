//! Spares the model the windows that are too quiet to hold speech.
//!
//! While the gate is closed the network's memory stays as it was and only the context moves on
//! ([`State::skip`](crate::State::skip)); the probability counts as zero. Measured against the model on every
//! window, on synthetic speech with digital silence or noise up to -50 dBFS: with pauses of 2.5 s the same
//! starts and stops within a window. After pauses of 8 and 20 s no speech is lost and starts come up to a few
//! windows earlier, the more so the fainter the speech, because long silence makes the network under-report
//! the speech that follows; a pause within a sentence that is just as long as `stop_ms` may then be found
//! where the drifted network bridges it. Zeroing the memory instead split and lost quiet utterances.

use crate::WINDOW;

/// Mean square below which a window is quiet whatever the noise floor: -55 dBFS.
const QUIET: f32 = 3.162e-6;
/// Mean square above which no window is quiet: -45 dBFS. Steady noise below it is gated too.
const QUIET_MAX: f32 = 3.162e-5;
/// A window less than 3 dB above the noise floor is quiet.
const MARGIN: f32 = 2.0;
/// The floor falls by half the distance and rises by 0.02 dB per window, or 0.6 dB per second.
const FALL: f32 = 0.5;
const RISE: f32 = 1.0046;
/// Digital silence must not drag the floor where it would never come back from: -90 dBFS.
const FLOOR_MIN: f32 = 1e-9;
const FLOOR_START: f32 = 1e-3;
/// Quiet windows before the gate closes, about half a second, so that the model itself sees speech end.
const HOLD_WINDOWS: u32 = 16;

/// Closes after half a second of quiet windows and opens at the first that is not quiet.
#[derive(Debug, Clone)]
pub struct EnergyGate {
    floor: f32,
    quiet_windows: u32,
    skipped: u64,
}

impl EnergyGate {
    /// An open gate that knows no noise floor yet.
    pub fn new() -> Self {
        Self {
            floor: FLOOR_START,
            quiet_windows: 0,
            skipped: 0,
        }
    }

    /// Whether the model should see this window.
    pub fn admits(&mut self, window: &[f32; WINDOW]) -> bool {
        let power = mean_square(window);
        let step = if power < self.floor {
            self.floor + (power - self.floor) * FALL
        } else {
            self.floor * RISE
        };
        self.floor = step.min(power.max(self.floor)).max(FLOOR_MIN);
        if power >= (self.floor * MARGIN).clamp(QUIET, QUIET_MAX) {
            self.quiet_windows = 0;
            return true;
        }
        self.quiet_windows = self.quiet_windows.saturating_add(1);
        let open = self.quiet_windows <= HOLD_WINDOWS;
        self.skipped += u64::from(!open);
        open
    }

    /// Windows not admitted so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

impl Default for EnergyGate {
    fn default() -> Self {
        Self::new()
    }
}

/// In sixteen partial sums, which the compiler turns into vectors.
fn mean_square(window: &[f32; WINDOW]) -> f32 {
    let mut sums = [0.0f32; 16];
    for group in window.as_chunks::<16>().0 {
        for (sum, sample) in sums.iter_mut().zip(group) {
            *sum += sample * sample;
        }
    }
    sums.iter().sum::<f32>() / WINDOW as f32
}
