//! Audible or not: a plain energy detector with the arrival times of the packets that crossed the line.
//!
//! It serves measurement (when did the answer become audible on the wire?), not turn-taking.

/// RMS above which a packet is audible: -45 dBFS.
const AUDIBLE_RMS: i64 = 184;
/// Quiet needed before the stream counts as silent.
const QUIET_US: u64 = 300_000;

/// A change of audibility.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivityChange {
    /// Whether the stream is audible now.
    pub active: bool,
    /// Arrival of the first (or last) audible packet.
    pub at_us: u64,
}

/// The detector of one leg.
#[derive(Debug, Clone, Copy, Default)]
pub struct ActivityDetector {
    active: bool,
    last_audible_us: u64,
}

impl ActivityDetector {
    /// Take a packet's samples.
    pub fn packet(&mut self, samples: &[i16], at_us: u64) -> Option<ActivityChange> {
        if samples.is_empty() {
            return None;
        }
        let energy: i64 = samples
            .iter()
            .map(|&sample| i64::from(sample) * i64::from(sample))
            .sum();
        if energy < AUDIBLE_RMS * AUDIBLE_RMS * samples.len() as i64 {
            return self.poll(at_us);
        }
        self.last_audible_us = at_us;
        if self.active {
            return None;
        }
        self.active = true;
        Some(ActivityChange { active: true, at_us })
    }

    /// The time has moved on.
    pub fn poll(&mut self, now_us: u64) -> Option<ActivityChange> {
        if !self.active || now_us.saturating_sub(self.last_audible_us) < QUIET_US {
            return None;
        }
        self.active = false;
        Some(ActivityChange {
            active: false,
            at_us: self.last_audible_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reports_the_first_and_the_last_audible_packet() {
        let mut detector = ActivityDetector::default();
        assert_eq!(detector.packet(&[10; 160], 0), None);
        assert_eq!(
            detector.packet(&[1000; 160], 20_000),
            Some(ActivityChange {
                active: true,
                at_us: 20_000
            })
        );
        assert_eq!(detector.packet(&[1000; 160], 40_000), None);
        assert_eq!(detector.packet(&[10; 160], 60_000), None);
        assert_eq!(detector.poll(339_999), None);
        assert_eq!(
            detector.poll(340_000),
            Some(ActivityChange {
                active: false,
                at_us: 40_000
            })
        );
        assert_eq!(detector.poll(900_000), None);
    }
}
