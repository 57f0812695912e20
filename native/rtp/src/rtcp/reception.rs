//! Reception statistics of one stream (RFC 3550 A.1, A.3, A.8), and the fate of each packet for the burst metrics.

use super::bursts::{Bursts, LossPattern, Outcome};
use crate::packet::RtpHeader;

/// A jump ahead of this many is still the same sequence (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// A packet this far behind is still a late one (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;
/// A packet's fate is final when the sequence is this far beyond it.
const WINDOW: u64 = u64::BITS as u64;

/// What a packet was in its sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Counted: next, ahead, late or a duplicate.
    Counted,
    /// Far from the sequence, not counted: a stray, or the first packet after a restart, which the next one confirms.
    Stray,
    /// Counted, and the first one of a new source or of a sequence that began anew.
    Began,
}

/// Counts what arrives of one leg's incoming stream.
///
/// The first packet counts (`MIN_SEQUENTIAL` of A.1 is 1): the leg takes packets from its peer's address alone, so
/// that a source needs no probation. Counts for the call go on across restarts and changes of the SSRC; those for a
/// report block begin again with them.
#[derive(Debug, Clone)]
pub struct Reception {
    clock_hz: u32,
    source: Option<Source>,
    /// Of sequences that are over.
    before: Totals,
    outcomes: Bursts,
    duplicates: u64,
    strays: u64,
    /// Jitter in sixteenths of a unit of the media clock.
    jitter_q4: u32,
    /// Units of the media clock from one packet to the next.
    packet_units: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    expected: u64,
    received: u64,
}

#[derive(Debug, Clone)]
struct Source {
    ssrc: u32,
    /// First sequence number; the wraps are counted above 16 bits.
    base: u64,
    highest: u64,
    /// What would confirm that the sequence began anew.
    bad: Option<u16>,
    received: u64,
    prior: Totals,
    fraction_lost: u8,
    /// Timestamp of the packet that last counted for the jitter, and its arrival less that, in media clock units.
    transit: Option<(u32, u32)>,
    /// Sequence number and timestamp of the newest packet.
    newest: (u64, u32),
    /// Bit n: packet `highest - n` arrived.
    arrived: u64,
    /// Bit n: packet `highest - n` was discarded.
    discarded: u64,
    /// The packet that came last.
    last: u64,
}

impl Reception {
    /// Nothing received; the media clock runs at `clock_hz` (at least 1).
    pub fn new(clock_hz: u32) -> Self {
        let clock_hz = clock_hz.max(1);
        Self {
            clock_hz,
            source: None,
            before: Totals::default(),
            outcomes: Bursts::new(),
            duplicates: 0,
            strays: 0,
            jitter_q4: 0,
            packet_units: clock_hz / 50,
        }
    }

    /// The media clock has another rate from the next packet on; the jitter keeps its time.
    pub fn set_clock(&mut self, clock_hz: u32) {
        let clock_hz = clock_hz.max(1);
        if clock_hz == self.clock_hz {
            return;
        }
        let convert = |units: u32| {
            let converted = u64::from(units) * u64::from(clock_hz) / u64::from(self.clock_hz);
            u32::try_from(converted).unwrap_or(u32::MAX)
        };
        self.jitter_q4 = convert(self.jitter_q4);
        self.packet_units = convert(self.packet_units).max(1);
        self.clock_hz = clock_hz;
        if let Some(source) = &mut self.source {
            source.transit = None;
        }
    }

    /// A packet arrived at `now_us`.
    pub fn push(&mut self, now_us: u64, header: &RtpHeader) -> Arrival {
        let outcome = match &mut self.source {
            Some(source) if source.ssrc == header.ssrc => source.sequence(header.sequence),
            _ => Sequence::Restart,
        };
        match outcome {
            Sequence::Stray => {
                self.strays += 1;
                return Arrival::Stray;
            }
            Sequence::Restart => self.begin(header),
            Sequence::Ahead(extended) => self.advance(extended, header.timestamp),
            Sequence::Behind(extended) => self.fill(extended),
        }
        self.time(now_us, header.timestamp);
        if outcome == Sequence::Restart {
            Arrival::Began
        } else {
            Arrival::Counted
        }
    }

    /// The jitter buffer discarded `count` packets: the one that came last, and those next below it.
    pub fn note_discarded(&mut self, count: u32) {
        let Some(source) = &mut self.source else { return };
        let mut age = source.highest.saturating_sub(source.last);
        let mut left = count;
        while left > 0 && age < WINDOW {
            let bit = 1 << age;
            if source.arrived & bit != 0 && source.discarded & bit == 0 {
                source.discarded |= bit;
                left -= 1;
            }
            age += 1;
        }
    }

    /// The stream that is being received.
    pub fn ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(|source| source.ssrc)
    }

    /// Packets of the call that arrived, duplicates among them.
    pub fn received(&self) -> u64 {
        self.before.received + self.source.as_ref().map_or(0, |source| source.received)
    }

    /// Packets of the call that should have arrived (A.3).
    pub fn expected(&self) -> u64 {
        self.before.expected + self.source.as_ref().map_or(0, Source::expected)
    }

    /// Expected less received (A.3): negative where duplicates outweigh loss.
    pub fn lost(&self) -> i64 {
        self.expected() as i64 - self.received() as i64
    }

    /// Packets that had arrived already.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Packets far from the sequence.
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Jitter (A.8) in units of the media clock.
    pub fn jitter(&self) -> u32 {
        self.jitter_q4 >> 4
    }

    /// The same as a time.
    pub fn jitter_ms(&self) -> f64 {
        f64::from(self.jitter_q4) / 16.0 * 1000.0 / f64::from(self.clock_hz)
    }

    /// Audio in one packet, from timestamps of neighbours.
    pub fn packet_ms(&self) -> f64 {
        f64::from(self.packet_units) * 1000.0 / f64::from(self.clock_hz)
    }

    /// Lost in the interval before the last report, in 1/256 of what was expected.
    pub fn fraction_lost(&self) -> u8 {
        self.source.as_ref().map_or(0, |source| source.fraction_lost)
    }

    /// How the losses of the call were distributed.
    pub fn pattern(&self) -> LossPattern {
        let mut outcomes = self.outcomes;
        if let Some(source) = &self.source {
            source.flush(&mut outcomes);
        }
        outcomes.pattern()
    }

    /// The block for a report, without its times; begins the next interval. `None` where nothing came since the last.
    pub(crate) fn report(&mut self) -> Option<super::ReportBlock> {
        let jitter = self.jitter();
        let source = self.source.as_mut()?;
        if source.received == source.prior.received {
            return None;
        }
        let now = Totals {
            expected: source.expected(),
            received: source.received,
        };
        let expected = now.expected - source.prior.expected;
        let received = now.received - source.prior.received;
        source.prior = now;
        source.fraction_lost = match expected.checked_sub(received) {
            Some(lost) if lost > 0 => ((lost << 8) / expected) as u8,
            _ => 0,
        };
        let lost = now.expected as i64 - now.received as i64;
        Some(super::ReportBlock {
            ssrc: source.ssrc,
            fraction_lost: source.fraction_lost,
            cumulative_lost: lost.clamp(-0x0080_0000, 0x007f_ffff) as i32,
            highest_sequence: source.highest as u32,
            jitter,
            last_sr: 0,
            delay_since_last_sr: 0,
        })
    }

    fn begin(&mut self, header: &RtpHeader) {
        if let Some(over) = self.source.take() {
            over.flush(&mut self.outcomes);
            self.before.expected += over.expected();
            self.before.received += over.received;
        }
        let sequence = u64::from(header.sequence);
        self.source = Some(Source {
            ssrc: header.ssrc,
            base: sequence,
            highest: sequence,
            bad: None,
            received: 1,
            prior: Totals::default(),
            fraction_lost: 0,
            transit: None,
            newest: (sequence, header.timestamp),
            arrived: 1,
            discarded: 0,
            last: sequence,
        });
    }

    fn advance(&mut self, extended: u64, timestamp: u32) {
        let Some(source) = &mut self.source else { return };
        source.received += 1;
        for _ in source.highest..extended {
            if source.expected() >= WINDOW {
                self.outcomes.push(source.outcome(WINDOW - 1));
            }
            source.highest += 1;
            source.arrived <<= 1;
            source.discarded <<= 1;
        }
        source.arrived |= 1;
        source.last = extended;
        let units = timestamp.wrapping_sub(source.newest.1);
        // Neighbours up to 200 ms apart: a pause or an event's repeated timestamp says nothing of the packet's length.
        if extended == source.newest.0 + 1 && (1..=self.clock_hz / 5).contains(&units) {
            self.packet_units = units;
        }
        source.newest = (extended, timestamp);
    }

    /// A late packet or a duplicate. One from before the first is counted, as A.1 does, but has no place.
    fn fill(&mut self, extended: Option<u64>) {
        let Some(source) = &mut self.source else { return };
        source.received += 1;
        let Some(extended) = extended.filter(|&extended| extended >= source.base) else {
            return;
        };
        let age = source.highest - extended;
        if age < WINDOW {
            let bit = 1 << age;
            self.duplicates += u64::from(source.arrived & bit != 0);
            source.arrived |= bit;
            source.last = extended;
        }
    }

    /// A.8, but for packets with the timestamp of the one before: those of an event (RFC 4733 section 2.3) repeat it for
    /// as long as the key is held, which is no jitter.
    fn time(&mut self, now_us: u64, timestamp: u32) {
        let arrival = (u128::from(now_us) * u128::from(self.clock_hz) / 1_000_000) as u32;
        let Some(source) = &mut self.source else { return };
        let transit = arrival.wrapping_sub(timestamp);
        let before = match source.transit {
            Some((at, _)) if at == timestamp => return,
            before => before,
        };
        source.transit = Some((timestamp, transit));
        if let Some((_, before)) = before {
            let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
            let decay = self.jitter_q4.saturating_add(8) >> 4;
            self.jitter_q4 = self.jitter_q4.saturating_add(difference) - decay;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sequence {
    /// Beyond the highest; extended by the wraps.
    Ahead(u64),
    /// The highest or below; `None` where that would be below zero.
    Behind(Option<u64>),
    Stray,
    Restart,
}

impl Source {
    fn sequence(&mut self, sequence: u16) -> Sequence {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        let behind = (self.highest as u16).wrapping_sub(sequence);
        if (1..MAX_DROPOUT).contains(&ahead) {
            Sequence::Ahead(self.highest + u64::from(ahead))
        } else if behind < MAX_MISORDER {
            Sequence::Behind(self.highest.checked_sub(u64::from(behind)))
        } else if self.bad == Some(sequence) {
            Sequence::Restart
        } else {
            self.bad = Some(sequence.wrapping_add(1));
            Sequence::Stray
        }
    }

    fn expected(&self) -> u64 {
        self.highest - self.base + 1
    }

    fn outcome(&self, age: u64) -> Outcome {
        match (self.arrived >> age & 1, self.discarded >> age & 1) {
            (0, _) => Outcome::Lost,
            (_, 0) => Outcome::Received,
            _ => Outcome::Discarded,
        }
    }

    /// The fates of all packets in the window, oldest first.
    fn flush(&self, outcomes: &mut Bursts) {
        for age in (0..self.expected().min(WINDOW)).rev() {
            outcomes.push(self.outcome(age));
        }
    }
}
