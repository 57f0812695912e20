//! How much audio may wait, and the unit in which it is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::chunk::Chunk;

/// The unit of all accounts.
pub(super) const TICK_HZ: u32 = 48_000;
pub(super) const TICKS_PER_MS: u64 = TICK_HZ as u64 / 1000;
/// A chunk counts for at least 20 ms, so that the limit on time also limits their number.
const RESERVE_MIN: u64 = 20 * TICKS_PER_MS;

/// Why a chunk was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlayoutError {
    /// Not a rate that can be played.
    #[error("cannot play {0} Hz: allowed are 8000, 16000, 24000 and 48000")]
    Rate(u32),
    /// More is waiting than the stream allows.
    #[error("playout is full: {queued_ms} ms wait, this chunk has {chunk_ms} ms, max_playout_ms is {max_ms}")]
    Full {
        /// What waits.
        queued_ms: u64,
        /// What was refused.
        chunk_ms: u64,
        /// The limit.
        max_ms: u64,
    },
    /// More marks than a chunk may carry.
    #[error("a chunk carries at most {0} marks")]
    Marks(usize),
}

/// A rate that can be played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate(pub(super) u32);

impl Rate {
    pub(super) fn of(rate_hz: u32) -> Result<Self, PlayoutError> {
        match rate_hz {
            8000 | 16_000 | 24_000 | 48_000 => Ok(Self(rate_hz)),
            _ => Err(PlayoutError::Rate(rate_hz)),
        }
    }

    pub(super) fn ticks_per_sample(self) -> u64 {
        u64::from(TICK_HZ / self.0)
    }

    /// A cut or a return of sound takes 10 ms, which is heard as neither click nor swell.
    pub(super) fn fade_len(self) -> usize {
        self.0 as usize / 100
    }
}

/// How much one stream may have waiting; shared by those who enqueue and the [`Playout`](super::Playout).
#[derive(Debug)]
pub struct PlayoutBudget {
    // In ticks.
    max: u64,
    reserved: AtomicU64,
    refused: AtomicU64,
}

impl PlayoutBudget {
    /// A budget of `max_ms` of audio.
    pub fn new(max_ms: u64) -> Arc<Self> {
        Arc::new(Self {
            max: max_ms.saturating_mul(TICKS_PER_MS),
            reserved: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Make a chunk, if there is room for it.
    ///
    /// # Errors
    /// [`PlayoutError::Full`] when too much is waiting, [`PlayoutError::Rate`] for a rate that cannot be played.
    pub fn chunk(
        self: &Arc<Self>,
        samples: Vec<i16>,
        rate_hz: u32,
        mark: u64,
    ) -> Result<Chunk, PlayoutError> {
        let rate = Rate::of(rate_hz)?;
        let length = samples.len() as u64 * rate.ticks_per_sample();
        let reserved = length.max(RESERVE_MIN);
        // Relaxed: a count alone; the chunk itself travels through a queue that orders its contents.
        let room = |now: u64| Some(now + reserved).filter(|&sum| sum <= self.max);
        if let Err(now) = self
            .reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
        {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(PlayoutError::Full {
                queued_ms: now / TICKS_PER_MS,
                chunk_ms: length / TICKS_PER_MS,
                max_ms: self.max / TICKS_PER_MS,
            });
        }
        Ok(Chunk::new(samples, rate, mark, reserved, Arc::clone(self)))
    }

    /// What waits, in milliseconds.
    pub fn queued_ms(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed) / TICKS_PER_MS
    }

    /// Chunks refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(super) fn release(&self, ticks: u64) {
        self.reserved.fetch_sub(ticks, Ordering::Relaxed);
    }
}
