//! Round trip from the peer's echo of our times (RFC 3550 section 6.4.1, RFC 3611 section 4.5).

/// Reports that the peer may still answer to.
const REMEMBERED: usize = 4;

/// Middle 32 bits of NTP times that we sent, and when: an echo of anything else is not believed, and a step of the wall
/// clock does not matter.
#[derive(Debug, Clone, Default)]
pub(crate) struct SentTimes {
    sent: [Option<(u32, u64)>; REMEMBERED],
    next: usize,
}

impl SentTimes {
    pub(crate) fn push(&mut self, middle: u32, now_us: u64) {
        self.sent[self.next] = Some((middle, now_us));
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// Round trip in µs when the peer, at `now_us`, echoes `middle` after holding it for `delay` (1/65536 s).
    ///
    /// `None` where we sent no such time, or the peer claims to have held it for longer than it was away. The clocks are
    /// coarse, so that a millisecond too long is a round trip of nothing.
    pub(crate) fn round_trip_us(&self, now_us: u64, middle: u32, delay: u32) -> Option<u64> {
        const SLACK_US: u64 = 1000;
        if middle == 0 {
            return None;
        }
        let sent = self.sent.iter().flatten();
        let (_, sent_us) = sent.copied().find(|&(known, _)| known == middle)?;
        let away_us = now_us.saturating_sub(sent_us);
        let held_us = (u64::from(delay) * 1_000_000) >> 16;
        (held_us <= away_us + SLACK_US).then(|| away_us.saturating_sub(held_us))
    }
}

/// A time of the peer's, for us to echo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeardTime {
    pub(crate) ssrc: u32,
    pub(crate) middle: u32,
    pub(crate) at_us: u64,
}

impl HeardTime {
    /// How long ago, in 1/65536 s; saturates after 18 hours.
    pub(crate) fn delay(&self, now_us: u64) -> u32 {
        let us = u128::from(now_us.saturating_sub(self.at_us));
        u32::try_from((us << 16) / 1_000_000).unwrap_or(u32::MAX)
    }
}
