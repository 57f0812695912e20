//! What happened to the callers.

use std::time::Duration;

use serde_json::{Value, json};

/// Upper bounds of how late a packet left, and of how far the distance of two that came is from 20 ms; the last bucket is open.
const BOUNDS_US: [u64; 7] = [250, 500, 1_000, 2_500, 5_000, 10_000, 20_000];
const FRAME_US: i64 = 20_000;
/// What is louder is sound: -36 dBFS.
const AUDIBLE: u16 = 500;

#[derive(Debug, Clone, Copy, Default)]
struct Histogram([u64; BOUNDS_US.len() + 1]);

impl Histogram {
    fn note(&mut self, us: u64) {
        let bucket = BOUNDS_US.iter().position(|&bound| us <= bound);
        self.0[bucket.unwrap_or(BOUNDS_US.len())] += 1;
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    realtime: bool,
    pub(crate) sent: u64,
    received: u64,
    late: Histogram,
    spacing: Histogram,
    /// Of the caller who listens by ear.
    heard: u64,
    audible: u64,
}

impl Report {
    pub(crate) fn new(realtime: bool) -> Self {
        Self {
            realtime,
            sent: 0,
            received: 0,
            late: Histogram::default(),
            spacing: Histogram::default(),
            heard: 0,
            audible: 0,
        }
    }

    pub(crate) fn note_lateness(&mut self, late: Duration) {
        self.late.note(late.as_micros() as u64);
    }

    /// A packet came so long after the one before it; None: that one was lost, or is the first.
    pub(crate) fn note_packet(&mut self, since: Option<Duration>) {
        self.received += 1;
        if let Some(since) = since {
            self.spacing
                .note((since.as_micros() as i64 - FRAME_US).unsigned_abs());
        }
    }

    pub(crate) fn note_sound(&mut self, pcm: &[i16]) {
        self.heard += 1;
        self.audible += u64::from(pcm.iter().any(|sample| sample.unsigned_abs() > AUDIBLE));
    }

    pub(crate) fn json(&self, cpu_ms: f64) -> Value {
        json!({
            "sent": self.sent,
            "received": self.received,
            "heard": self.heard,
            "audible": self.audible,
            "bounds_us": BOUNDS_US,
            "late": self.late.0,
            "spacing_error": self.spacing.0,
            "realtime": self.realtime,
            "cpu_ms": cpu_ms,
        })
    }
}
