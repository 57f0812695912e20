//! How much of a peer is listened to: what it sends costs us by its length in time, and by its packets.
//!
//! A peer may be ahead of the clock, as after a stall of the network, but not for long; who sends more than a conversation can
//! be loses the excess, and nobody else anything.

/// A store that fills with time, up to a limit.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In millionths of what is counted.
    level: u64,
    limit: u64,
    per_s: u64,
    filled_us: u64,
}

impl Bucket {
    const fn new(limit: u64, per_s: u64) -> Self {
        Self {
            level: limit * 1_000_000,
            limit: limit * 1_000_000,
            per_s,
            filled_us: 0,
        }
    }

    /// Take `amount`, if there is so much.
    fn take(&mut self, now_us: u64, amount: u64) -> bool {
        let gained = now_us.saturating_sub(self.filled_us).saturating_mul(self.per_s);
        self.filled_us = self.filled_us.max(now_us);
        self.level = self.level.saturating_add(gained).min(self.limit);
        let amount = amount.saturating_mul(1_000_000);
        let enough = amount <= self.level;
        if enough {
            self.level -= amount;
        }
        enough
    }
}

/// The bounds of one leg.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Milliseconds of audio: ten seconds at once, and a quarter more than time passes.
    media_ms: Bucket,
    packets: Bucket,
    /// Key presses: no human presses twenty keys a second.
    keys: Bucket,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            media_ms: Bucket::new(10_000, 1_250),
            packets: Bucket::new(1_000, 250),
            keys: Bucket::new(32, 20),
        }
    }

    /// Whether a packet with so much audio is still within bounds.
    pub(super) fn admits(&mut self, now_us: u64, media_ms: u64) -> bool {
        self.packets.take(now_us, 1) && self.media_ms.take(now_us, media_ms)
    }

    /// Whether another key is.
    pub(super) fn admits_key(&mut self, now_us: u64) -> bool {
        self.keys.take(now_us, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of so many milliseconds that are admitted in ten seconds, at so many a second.
    fn admitted(media_ms: u64, per_s: u64) -> u64 {
        let mut pace = Pace::new();
        // After a while, as on a clock that did not begin with the call.
        let begin_us = 1_000_000_000;
        let sent = (0..10 * per_s).filter(|n| pace.admits(begin_us + n * 1_000_000 / per_s, media_ms));
        sent.count() as u64
    }

    #[test]
    fn a_conversation_is_within_bounds_whatever_its_packets() {
        for (media_ms, per_s) in [(20, 50), (10, 100), (60, 17), (120, 9), (0, 100)] {
            assert_eq!(admitted(media_ms, per_s), 10 * per_s);
        }
    }

    #[test]
    fn a_flood_is_not() {
        // 120 ms eight thousand times a second: ten seconds of stock and a quarter more than time.
        assert!((180..=190).contains(&admitted(120, 8_000)));
        assert!((1_100..=1_130).contains(&admitted(20, 8_000)));
        assert!((3_490..=3_510).contains(&admitted(0, 8_000)));
    }

    #[test]
    fn nobody_presses_a_thousand_keys() {
        let mut pace = Pace::new();
        let pressed = (0..1000).filter(|n| pace.admits_key(n * 1_000)).count();
        assert!((50..=53).contains(&pressed), "{pressed}");
    }
}
