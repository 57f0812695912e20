//! When the next report is due (RFC 3550 sections 6.2, 6.3, A.7), for a session of two.

/// Least mean time between reports (RFC 3550 section 6.2).
pub const DEFAULT_MIN_INTERVAL_US: u64 = 5_000_000;
/// The shortest that a leg may ask for instead.
pub const MIN_INTERVAL_FLOOR_US: u64 = 500_000;

/// RTCP's share for both parties: 5 % of a call of 64 kbit/s (section 6.2).
const OCTETS_PER_S: f64 = 400.0;
const PARTIES: f64 = 2.0;
/// Section 6.3.1 divides by e - 3/2 for what timer reconsideration adds; here it brings the mean of 5 s to 4.1 s.
const COMPENSATION: f64 = std::f64::consts::E - 1.5;
/// IPv4 and UDP headers, which count as RTCP (section 6.2).
const LOWER_HEADERS: f64 = 28.0;

#[derive(Debug, Clone)]
pub(crate) struct Timing {
    min_us: u64,
    /// Mean length of the datagrams sent and received (section 6.3.3).
    average_octets: f64,
    due_us: u64,
}

impl Timing {
    /// The first report comes after half the time (section 6.2).
    pub(crate) fn new(min_us: u64, now_us: u64, random: u32) -> Self {
        let min_us = min_us.max(MIN_INTERVAL_FLOOR_US);
        let mut timing = Self {
            min_us,
            average_octets: 100.0 + LOWER_HEADERS,
            due_us: 0,
        };
        timing.due_us = now_us.saturating_add(timing.interval_us(min_us / 2, random));
        timing
    }

    pub(crate) fn due_us(&self) -> u64 {
        self.due_us
    }

    pub(crate) fn note(&mut self, datagram_len: usize) {
        let octets = datagram_len as f64 + LOWER_HEADERS;
        self.average_octets += (octets - self.average_octets) / 16.0;
    }

    /// A report has just been sent.
    pub(crate) fn sent(&mut self, now_us: u64, random: u32) {
        self.due_us = now_us.saturating_add(self.interval_us(self.min_us, random));
    }

    pub(crate) fn stop(&mut self) {
        self.due_us = u64::MAX;
    }

    /// Reconsideration (section 6.3.6) is left out: it is for sessions whose members come and go by the hundred.
    fn interval_us(&self, min_us: u64, random: u32) -> u64 {
        let share_us = self.average_octets * PARTIES / OCTETS_PER_S * 1e6;
        let spread = 0.5 + f64::from(random) / (f64::from(u32::MAX) + 1.0);
        (share_us.max(min_us as f64) * spread / COMPENSATION) as u64
    }
}
