//! How samples spread, in a fixed piece of memory.

/// Width of a bucket.
pub const STEP_US: u64 = 50;
/// Buckets before the open one: 200 ms.
const BUCKETS: usize = 4_000;

/// Counts of samples in steps of 50 µs; what is beyond 200 ms stands in the last bucket.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    /// The largest sample.
    pub max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS + 1].into_boxed_slice(),
            max_us: 0,
        }
    }
}

impl Histogram {
    /// Count a sample.
    pub fn note(&mut self, sample_us: u64) {
        let bucket = (sample_us / STEP_US).min(BUCKETS as u64) as usize;
        self.counts[bucket] += 1;
        self.max_us = self.max_us.max(sample_us);
    }

    /// Samples counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The upper bound of the bucket with the sample that so many thousandths of all do not exceed, never more than the
    /// largest sample; `None` without samples.
    pub fn permille(&self, permille: u64) -> Option<u64> {
        let rank = (self.total() * permille).div_ceil(1000).max(1);
        let mut passed = 0;
        let bucket = self.counts.iter().position(|&count| {
            passed += count;
            passed >= rank
        })?;
        let bound = (bucket as u64 + 1) * STEP_US;
        Some(if bucket == BUCKETS {
            self.max_us
        } else {
            bound.min(self.max_us)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank_to_a_step() {
        let mut spread = Histogram::default();
        assert_eq!(spread.permille(500), None);
        for sample_us in 1..=1000 {
            spread.note(sample_us * 100);
        }
        assert_eq!(spread.total(), 1000);
        assert_eq!(spread.permille(500), Some(50_050));
        assert_eq!(spread.permille(999), Some(99_950));
        assert_eq!(spread.permille(1000), Some(100_000));
        spread.note(900_000);
        assert_eq!(spread.permille(1000), Some(900_000));
    }
}
