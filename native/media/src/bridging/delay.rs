//! How late playout must be: an estimate from the transit times of the packets.
//!
//! The transit time of a packet is its arrival on our clock minus its media time on the sender's: an unknown constant
//! plus the network's delay, so only differences mean anything. A packet is in time if playout asks for it no earlier
//! than its transit time after its media time; the estimator says which transit time playout shall allow.
//!
//! What it minimises is `allowed + WEIGHT * shortfall`, where the shortfall is by how much the worst packet of half a second
//! exceeds what was allowed: the milliseconds that have to be concealed there. The minimum of such a sum lies at a quantile
//! (Koenker and Bassett 1978), here of the worst transit times of past half-seconds, where older ones count for less.
//! One late packet in a block weighs as much as a burst of late ones behind it, because these cost nothing more.

/// Time over which the worst transit is taken.
const BLOCK_US: u64 = 500_000;
/// Width of a bin of the histogram.
const BIN_US: i64 = 2000;
const BINS: usize = 640;
/// Room below the first packet's transit time.
const ANCHOR_US: i64 = 256_000;
/// Packets that must all be slow before a step of the delay is believed.
const RECENT: usize = 8;
/// How far the least transit time is let rise in half a second: ten times what clocks drift apart.
const FLOOR_RISE_US: i64 = 1000;

/// What the estimate follows; the default is what [`super::BridgingBuffer`] uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DelayParams {
    /// Share of the half-seconds that shall pass without a packet that is too late, 0 to 1.
    pub quantile: f32,
    /// Half-seconds after which one counts for 1/e.
    pub memory_blocks: f32,
    /// Before anything is known: allowed beyond the first packet's transit time.
    pub prior_us: u32,
    /// Allowed beyond the quantile.
    pub margin_us: u32,
}

impl Default for DelayParams {
    fn default() -> Self {
        Self {
            quantile: 0.9,
            memory_blocks: 40.0,
            prior_us: 20_000,
            margin_us: 1000,
        }
    }
}

/// The estimator of one leg. Its memory is constant.
#[derive(Debug)]
pub struct DelayEstimator {
    params: DelayParams,
    /// Weight of the past half-seconds by their worst transit time; bin 0 begins at `base_us`.
    bins: Box<[f32]>,
    base_us: i64,
    total: f32,
    block: Option<Block>,
    /// Transit times of the last packets, in a ring.
    recent_us: [i64; RECENT],
    packets: usize,
    floor_us: i64,
    /// What `floor_us` was when the block before this one began, and when this one did: a block may hold the step from
    /// one path to another, so it is the older that a whole block is compared with.
    floors_us: [i64; 2],
    quantile_us: i64,
}

/// The half-second under way.
#[derive(Debug, Clone, Copy)]
struct Block {
    began_us: u64,
    best_us: i64,
    worst_us: i64,
    packets: usize,
}

impl DelayEstimator {
    /// An estimator that knows nothing.
    pub fn new(params: DelayParams) -> Self {
        Self {
            params,
            bins: vec![0.0; BINS].into_boxed_slice(),
            base_us: 0,
            total: 0.0,
            block: None,
            recent_us: [0; RECENT],
            packets: 0,
            floor_us: 0,
            floors_us: [0; 2],
            quantile_us: 0,
        }
    }

    /// Take a packet that arrived at `now_us` after `transit_us`.
    pub fn packet(&mut self, now_us: u64, transit_us: i64) {
        self.recent_us[self.packets % RECENT] = transit_us;
        self.packets = self.packets.wrapping_add(1);
        let Some(block) = &mut self.block else {
            self.base_us = transit_us - ANCHOR_US;
            self.floor_us = transit_us;
            self.floors_us = [transit_us; 2];
            self.recent_us = [transit_us; RECENT];
            self.block = Some(Block::new(now_us, transit_us));
            self.count(transit_us + i64::from(self.params.prior_us));
            self.settle();
            return;
        };
        self.floor_us = self.floor_us.min(transit_us);
        if now_us.saturating_sub(block.began_us) < BLOCK_US {
            block.packets += 1;
            block.best_us = block.best_us.min(transit_us);
            if transit_us > block.worst_us {
                block.worst_us = transit_us;
                self.settle();
            }
            return;
        }
        let past = *block;
        let slower = past.best_us > self.quantile_us;
        let faster = past.worst_us < self.floors_us[0];
        if past.packets >= RECENT && (slower || faster) {
            // Not one packet in time for half a second, or each faster than any before: another path, with the jitter
            // of the old one for all we know.
            self.base_us += past.best_us - self.floors_us[0];
            self.floor_us = past.best_us;
            self.floors_us = [self.floor_us; 2];
        } else {
            self.floor_us = (self.floor_us + FLOOR_RISE_US).min(past.best_us);
            self.floors_us = [self.floors_us[1], self.floor_us];
        }
        self.floor_us = self.floor_us.min(transit_us);
        self.block = Some(Block::new(now_us, transit_us));
        self.count(past.worst_us);
        self.settle();
    }

    /// Transit time that playout shall allow; nothing above [`DelayEstimator::floor_us`] before the first packet.
    ///
    /// The quantile, or when none of the last eight packets was faster than that, what these took: a step of the
    /// network's delay must not have to wait until half a second is over.
    pub fn allowed_us(&self) -> i64 {
        if self.packets < RECENT {
            return self.quantile_us;
        }
        let fastest_us = self.recent_us.iter().copied().min().unwrap_or(self.quantile_us);
        self.quantile_us
            .max(fastest_us + i64::from(self.params.margin_us))
    }

    /// Transit time of an ordinary packet: the median of the last eight.
    pub fn typical_us(&self) -> i64 {
        let mut sorted = self.recent_us;
        sorted.sort_unstable();
        sorted[RECENT / 2]
    }

    /// Least transit time of the last seconds.
    pub fn floor_us(&self) -> i64 {
        self.floor_us
    }

    /// Let a half-second with this worst transit time be known.
    fn count(&mut self, worst_us: i64) {
        let mut bin = (worst_us - self.base_us).div_euclid(BIN_US);
        if bin < 0 {
            // The clocks drift apart, or the path became shorter.
            self.make_room_below((bin.unsigned_abs() as usize).saturating_add(BINS / 4));
            bin = (worst_us - self.base_us).div_euclid(BIN_US);
        }
        let keep = 1.0 - 1.0 / self.params.memory_blocks.max(1.0);
        for weight in &mut self.bins {
            *weight *= keep;
        }
        self.bins[bin.clamp(0, BINS as i64 - 1) as usize] += 1.0;
        self.total = self.total * keep + 1.0;
        if self.floor_us - self.base_us > 2 * ANCHOR_US {
            self.make_room_above((ANCHOR_US / BIN_US) as usize);
        }
    }

    /// Move the histogram's range down; what falls out at the top counts in the last bin.
    fn make_room_below(&mut self, by: usize) {
        self.base_us -= by as i64 * BIN_US;
        let by = by.min(BINS - 1);
        let fallen: f32 = self.bins[BINS - by..].iter().sum();
        self.bins.copy_within(..BINS - by, by);
        self.bins[..by].fill(0.0);
        self.bins[BINS - 1] += fallen;
    }

    /// Move the histogram's range up, over bins below the least transit time.
    fn make_room_above(&mut self, by: usize) {
        self.base_us += by as i64 * BIN_US;
        let fallen: f32 = self.bins[..by].iter().sum();
        self.bins.copy_within(by.., 0);
        self.bins[BINS - by..].fill(0.0);
        self.bins[0] += fallen;
    }

    /// The quantile of the past blocks and the one under way, which counts in full.
    fn settle(&mut self) {
        let worst_us = self.block.map_or(i64::MIN, |block| block.worst_us);
        let mut beyond = (self.total + 1.0) * (1.0 - self.params.quantile);
        let mut under_way = Some(worst_us);
        let mut quantile_us = self.base_us;
        for (bin, &weight) in self.bins.iter().enumerate().rev() {
            let lower_us = self.base_us + bin as i64 * BIN_US;
            if let Some(us) = under_way.filter(|&us| us >= lower_us) {
                under_way = None;
                beyond -= 1.0;
                if beyond < 0.0 {
                    quantile_us = us;
                    break;
                }
            }
            beyond -= weight;
            if beyond < 0.0 {
                quantile_us = lower_us + BIN_US;
                break;
            }
        }
        self.quantile_us = quantile_us + i64::from(self.params.margin_us);
    }
}

impl Block {
    fn new(began_us: u64, transit_us: i64) -> Self {
        Self {
            began_us,
            best_us: transit_us,
            worst_us: transit_us,
            packets: 1,
        }
    }
}
