//! One direction at half its rate, by hops of 10 ms, as far back as an echo can come from.

use super::spectrum::{HOP, WINDOW, energy};

/// Hops that are kept: the longest delay, and what the two directions may be apart.
pub(super) const KEPT: usize = 96;

#[derive(Debug)]
pub(super) struct Line {
    hops: Box<[[i16; HOP]; KEPT]>,
    /// Hops so far.
    pub(super) count: usize,
    /// At 16 kHz, with the last sample before them.
    fresh: [i16; 2 * HOP + 1],
    filled: usize,
}

impl Line {
    pub(super) fn new() -> Self {
        Self {
            hops: Box::new([[0; HOP]; KEPT]),
            count: 0,
            fresh: [0; 2 * HOP + 1],
            filled: 1,
        }
    }

    /// Take what the hop that is under way has room for; gives what is left, and the energy of the hop if it is complete.
    pub(super) fn push<'a>(&mut self, pcm: &'a [i16]) -> (&'a [i16], Option<f32>) {
        let (now, later) = pcm.split_at(pcm.len().min(self.fresh.len() - self.filled));
        self.fresh[self.filled..][..now.len()].copy_from_slice(now);
        self.filled += now.len();
        if self.filled < self.fresh.len() {
            return (later, None);
        }
        let hop = &mut self.hops[self.count % KEPT];
        // A wider filter would cost more than it gives: the bands are broad, and their droop is that of both directions.
        for (n, sample) in hop.iter_mut().enumerate() {
            let [a, b, c] = [0, 1, 2].map(|k| i32::from(self.fresh[2 * n + k]));
            *sample = ((a + 2 * b + c) >> 2) as i16;
        }
        let energy = energy(hop);
        self.count += 1;
        self.fresh[0] = self.fresh[2 * HOP];
        self.filled = 1;
        (later, Some(energy))
    }

    /// The window that ends with a hop.
    pub(super) fn window(&self, hop: usize) -> [f32; WINDOW] {
        let before = &self.hops[(hop + KEPT - 1) % KEPT][2 * HOP - WINDOW..];
        let mut window = [0.0; WINDOW];
        for (sample, &x) in window.iter_mut().zip(before.iter().chain(&self.hops[hop % KEPT])) {
            *sample = f32::from(x);
        }
        window
    }
}
