//! Which sockets have something to read, whose turn it is, and when a pass over them has to end. Sans-IO.
//!
//! A flood on one port must neither keep the others waiting nor delay the beat: each socket gives one batch per turn, whoever has
//! more to give goes to the end of the queue, and what a pass has no time for begins the next one.

use std::collections::VecDeque;

/// A pass ends when it has taken this long: well within a sub-tick, whose other work comes behind it.
const PASS_US: u64 = 2_000;
/// The most batches of a pass, however quickly they went.
const PASS_BATCHES: usize = 32;

/// Sockets with something to read, each once, in the order of their turns.
#[derive(Debug, Default)]
pub(crate) struct Readable {
    turns: VecDeque<usize>,
    /// By socket: whether it waits for its turn.
    waits: Vec<bool>,
}

impl Readable {
    /// For sockets `0..sockets`.
    pub(crate) fn new(sockets: usize) -> Self {
        Self {
            turns: VecDeque::with_capacity(sockets),
            waits: vec![false; sockets],
        }
    }

    /// A socket has something to read.
    pub(crate) fn note(&mut self, socket: usize) {
        if let Some(waits) = self.waits.get_mut(socket)
            && !std::mem::replace(waits, true)
        {
            self.turns.push_back(socket);
        }
    }

    /// Whose turn it is; where more is left in it than one batch, [`Readable::note`] it again.
    pub(crate) fn next(&mut self) -> Option<usize> {
        let socket = self.turns.pop_front()?;
        self.waits[socket] = false;
        Some(socket)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

/// One pass over the sockets.
#[derive(Debug)]
pub(crate) struct Pass {
    until_us: u64,
    batches: usize,
}

impl Pass {
    pub(crate) fn begin(now_us: u64) -> Self {
        Self {
            until_us: now_us + PASS_US,
            batches: 0,
        }
    }

    /// A batch was read. Returns whether there is time for another.
    pub(crate) fn goes_on(&mut self, now_us: u64) -> bool {
        self.batches += 1;
        self.batches < PASS_BATCHES && now_us < self.until_us
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SOCKETS: usize = 6;

    /// One pass over sockets that hold so many batches each, at so much time per batch. Returns who was read, in order.
    fn pass(readable: &mut Readable, left: &mut [usize], now_us: &mut u64, batch_us: u64) -> Vec<usize> {
        let (mut pass, mut read) = (Pass::begin(*now_us), Vec::new());
        while let Some(socket) = readable.next() {
            read.push(socket);
            left[socket] = left[socket].saturating_sub(1);
            *now_us += batch_us;
            if left[socket] > 0 {
                readable.note(socket);
            }
            if !pass.goes_on(*now_us) {
                break;
            }
        }
        read
    }

    #[test]
    fn a_flood_ends_the_pass_and_the_others_begin_the_next() {
        let (mut readable, mut now_us) = (Readable::new(SOCKETS), 0);
        let mut left = [1_000, 1, 1, 1, 0, 0];
        (0..4).for_each(|socket| readable.note(socket));
        // 1 ms a batch: two batches, and time is up.
        assert_eq!(pass(&mut readable, &mut left, &mut now_us, 1_000), [0, 1]);
        assert_eq!(pass(&mut readable, &mut left, &mut now_us, 1_000), [2, 3]);
        assert_eq!(pass(&mut readable, &mut left, &mut now_us, 1_000), [0, 0]);
    }

    proptest! {
        /// A pass is bounded in batches and in time; nobody is read twice while another waits, and in the end all is read.
        #[test]
        fn passes_are_bounded_and_fair(
            arrivals in prop::collection::vec((0..SOCKETS, 1..50_usize), 1..20),
            batch_us in 1..3_000_u64,
        ) {
            let (mut readable, mut now_us) = (Readable::new(SOCKETS), 0);
            let mut left = [0; SOCKETS];
            let mut arrivals = arrivals.into_iter();
            loop {
                let arrival = arrivals.next();
                if let Some((socket, batches)) = arrival {
                    left[socket] += batches;
                    readable.note(socket);
                }
                let (begun_us, waiting) = (now_us, readable.turns.clone());
                let read = pass(&mut readable, &mut left, &mut now_us, batch_us);
                prop_assert!(read.len() <= PASS_BATCHES);
                prop_assert!(now_us - begun_us < PASS_US + batch_us);
                let turns = read.len().min(waiting.len());
                prop_assert!(read[..turns].iter().eq(waiting.iter().take(turns)), "who waited comes first");
                if arrival.is_none() && readable.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(left, [0; SOCKETS]);
        }
    }
}
