//! The playout against its rules: by example (`speaking`, `beside`) and against reference models (`models`).

mod beside;
mod models;
mod speaking;

use std::sync::Arc;

use media::playout::{FRAME, Playout, PlayoutBudget, PlayoutEvent};

/// 10 ms, and the length of the conversion filter.
const FADE: usize = 80;
const RING: usize = 32;
const RATES: [u32; 4] = [8000, 16_000, 24_000, 48_000];

struct Leg {
    playout: Playout,
    budget: Arc<PlayoutBudget>,
}

impl Leg {
    fn new() -> Self {
        Self {
            playout: Playout::new(8000).unwrap(),
            budget: PlayoutBudget::new(600_000),
        }
    }

    fn play(&mut self, mark: u64, rate_hz: u32, samples: Vec<i16>) {
        let chunk = self.budget.chunk(samples, rate_hz, mark).unwrap();
        self.playout.enqueue(chunk);
    }

    fn frame(&mut self) -> ([i16; FRAME], usize, Vec<PlayoutEvent>) {
        let mut frame = [0; FRAME];
        let info = self.playout.next_frame(&mut frame);
        (frame, info.samples, self.events())
    }

    fn events(&mut self) -> Vec<PlayoutEvent> {
        std::iter::from_fn(|| self.playout.poll_event()).collect()
    }
}

const STARTED: fn(u64) -> PlayoutEvent = |mark| PlayoutEvent::Started { mark };
