//! The listening jitter buffer: caller to voice activity detection and transcription.
//!
//! Machines need no playout clock, so packets are released the moment their order is certain:
//!
//! * in order: at once;
//! * after a gap: held until the gap is filled, or until 20 ms after the first later packet came: then it is lost;
//! * duplicates and packets that come after they were declared lost: dropped and counted;
//! * a timestamp gap without a sequence gap is silence the sender did not send (DTX), not loss;
//! * a sequence jump of 50 or more, or a timestamp that fits neither the sequence nor the clock: a new beginning
//!   without concealment; a new SSRC too.
//!
//! A consumer that adds up the samples of all releases has a media timeline without holes or overlaps.

use rtp::packet::RtpHeader;

pub use crate::sequence::PAYLOAD_MAX;
use crate::sequence::{Kind, PacketSequence};

/// How long a missing packet may still come once a later one has (RFC 3550 knows no limit; this is policy).
pub const REORDER_WINDOW_US: u64 = 20_000;
/// Longest concealment; what is missing beyond it is reported as silence.
const CONCEAL_MAX_US: u64 = 500_000;
/// Distance from the oldest missing packet at which it is given up early to make room.
const CROWDED: u64 = 64;
/// Largest silence taken from timestamps, and how far these may run ahead of the arrival clock.
const SILENCE_MAX_US: u64 = 60_000_000;
const SILENCE_SLACK_US: u64 = 500_000;
/// Silence is reported in pieces of at most one second.
const SILENCE_PIECE_US: u64 = 1_000_000;

/// The next stretch of the media timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release<'a> {
    /// Audio that arrived.
    Packet {
        /// RTP timestamp of its first sample.
        timestamp: u32,
        /// Encoded audio.
        payload: &'a [u8],
        /// When it arrived.
        arrival_us: u64,
    },
    /// Audio that was sent but will not come: conceal it.
    Lost {
        /// RTP timestamp of its first sample.
        timestamp: u32,
        /// Length on the media clock; at most half a second.
        samples: u32,
    },
    /// Time in which the sender sent nothing; longer stretches come in pieces of a second.
    Silence {
        /// RTP timestamp of its first sample.
        timestamp: u32,
        /// Length on the media clock; at most a second.
        samples: u32,
    },
}

/// What happened to the packets so far; all but `lost`, `reordered` and `reset` count packets pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListeningStats {
    /// Packets pushed.
    pub received: u64,
    /// Packets released.
    pub released: u64,
    /// Packets without audio whose turn came.
    pub aside: u64,
    /// Packets whose payload lasts no time, so that no codec made it; in their place the timeline has a loss.
    pub nonsense: u64,
    /// Packets declared lost.
    pub lost: u64,
    /// Packets dropped because they came after they had been declared lost, or belong to an earlier beginning.
    pub late: u64,
    /// Packets dropped because they had already come.
    pub duplicate: u64,
    /// Packets that came after a later one and were put back in order.
    pub reordered: u64,
    /// New beginnings: sequence or timestamp jumps and SSRC changes.
    pub reset: u64,
    /// Packets dropped for want of room (nobody polled) or because of their size.
    pub overflow: u64,
}

impl std::ops::Add for ListeningStats {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl std::ops::AddAssign for ListeningStats {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.released += other.released;
        self.aside += other.aside;
        self.nonsense += other.nonsense;
        self.lost += other.lost;
        self.late += other.late;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.reset += other.reset;
        self.overflow += other.overflow;
    }
}

/// Where the released media end.
#[derive(Debug, Clone, Copy)]
struct Edge {
    timestamp: u32,
    arrival_us: u64,
    /// Duration of the last packet: the best guess for a lost one.
    step: u32,
}

/// A gap that has been measured and is being reported.
#[derive(Debug, Clone, Copy, Default)]
struct Gap {
    lost: u32,
    silence: u32,
}

/// The buffer of one leg. Memory is bounded, and reused: nothing is allocated in the steady state.
#[derive(Debug)]
pub struct ListeningBuffer {
    clock_hz: u32,
    duration: fn(&[u8]) -> u32,
    packets: PacketSequence,
    edge: Option<Edge>,
    /// Lost packets whose length is not known until the next audio comes.
    missing: u32,
    gap: Gap,
    /// Whether the last release was a loss.
    concealing: bool,
    released: u64,
    aside: u64,
    nonsense: u64,
}

/// Duration of a payload with one octet per tick of the media clock: G.711, and G.722 by RFC 3551's convention.
pub fn octet_duration(payload: &[u8]) -> u32 {
    payload.len() as u32
}

impl ListeningBuffer {
    /// An empty buffer for a media clock of `clock_hz`; `duration` tells how many ticks a payload lasts
    /// ([`octet_duration`] for G.711), 0 for what is no payload of the codec.
    pub fn new(clock_hz: u32, duration: fn(&[u8]) -> u32) -> Self {
        Self {
            clock_hz: clock_hz.max(1),
            duration,
            packets: PacketSequence::new(clock_hz),
            edge: None,
            missing: 0,
            gap: Gap::default(),
            concealing: false,
            released: 0,
            aside: 0,
            nonsense: 0,
        }
    }

    /// Take an audio packet.
    pub fn push(&mut self, now_us: u64, header: &RtpHeader, payload: &[u8]) {
        self.packets.insert(now_us, header, Some(payload));
    }

    /// Take a packet of the same source that carries no audio (telephone-event, comfort noise), so that its sequence
    /// number is not mistaken for a loss.
    pub fn push_aside(&mut self, now_us: u64, header: &RtpHeader) {
        self.packets.insert(now_us, header, None);
    }

    /// What can be released now; call until `None`.
    pub fn poll(&mut self, now_us: u64) -> Option<Release<'_>> {
        self.concealing = false;
        loop {
            let Some(head) = self.packets.head() else {
                if self.gap_deadline_us()? > now_us {
                    return None;
                }
                self.packets.give_up_head();
                self.missing += 1;
                continue;
            };
            let nonsense = head.audio && (self.duration)(head.payload()) == 0;
            if nonsense || !head.audio {
                if head.kind == Kind::OtherSource {
                    self.edge = None;
                }
                self.packets.take_head();
                self.aside += u64::from(!nonsense);
                self.nonsense += u64::from(nonsense);
                self.missing += u32::from(nonsense);
                continue;
            }
            if self.gap.lost == 0 && self.gap.silence == 0 {
                self.gap = self.measure_gap();
            }
            if let Some((lost, timestamp, samples)) = self.take_gap() {
                self.concealing = lost;
                return Some(if lost {
                    Release::Lost { timestamp, samples }
                } else {
                    Release::Silence { timestamp, samples }
                });
            }
            let (timestamp, arrival_us) = self.packets.take_head()?;
            self.released += 1;
            let duration = (self.duration)(self.packets.lent());
            self.edge = Some(Edge {
                timestamp: timestamp.wrapping_add(duration),
                arrival_us,
                step: duration,
            });
            return Some(Release::Packet {
                timestamp,
                payload: self.packets.lent(),
                arrival_us,
            });
        }
    }

    /// Right after [`Release::Lost`] was polled: the payload of the audio packet that ends the gap. A codec with in-band
    /// forward error correction finds a copy of the packet before it there. `None` where silence lies between, so
    /// that what was lost is not what that copy is of, and after any other release.
    pub fn following(&self) -> Option<&[u8]> {
        let adjoins = self.concealing && self.gap.silence == 0;
        let head = self.packets.head().filter(|head| adjoins && head.audio)?;
        Some(head.payload())
    }

    /// When `poll` will have something new if nothing is pushed.
    pub fn next_deadline_us(&self) -> Option<u64> {
        match self.packets.head() {
            Some(head) => Some(head.arrival_us),
            None => self.gap_deadline_us(),
        }
    }

    /// Counters since the beginning.
    pub fn stats(&self) -> ListeningStats {
        let packets = self.packets.stats();
        ListeningStats {
            received: packets.received,
            released: self.released,
            aside: self.aside,
            nonsense: self.nonsense,
            lost: packets.lost,
            late: packets.late,
            duplicate: packets.duplicate,
            reordered: packets.reordered,
            reset: packets.reset,
            overflow: packets.overflow,
        }
    }

    /// When the missing packet at the head is declared lost; `None` if nothing waits behind it.
    fn gap_deadline_us(&self) -> Option<u64> {
        let earliest_us = self.packets.waiting().map(|(_, held)| held.arrival_us).min()?;
        let crowded = self.packets.span() > CROWDED;
        Some(earliest_us + if crowded { 0 } else { REORDER_WINDOW_US })
    }

    /// What lies between the released media and the packet at the head.
    fn measure_gap(&mut self) -> Gap {
        let missing = std::mem::take(&mut self.missing);
        let (Some(head), Some(edge)) = (self.packets.head(), self.edge) else {
            return Gap::default();
        };
        let ticks = head.timestamp.wrapping_sub(edge.timestamp);
        if ticks == 0 || head.kind == Kind::OtherSource {
            return Gap::default();
        }
        let lost = missing.saturating_mul(edge.step);
        let elapsed_us = head.arrival_us.saturating_sub(edge.arrival_us);
        let believable_us = elapsed_us + self.us(lost) + SILENCE_SLACK_US;
        if self.us(ticks) > believable_us.min(SILENCE_MAX_US) {
            // Includes every backward step. After a jump that was counted already.
            if head.kind == Kind::Next {
                self.packets.count_reset();
            }
            return Gap::default();
        }
        let conceal_max = (u64::from(self.clock_hz) * CONCEAL_MAX_US / 1_000_000) as u32;
        let lost = lost.min(ticks).min(conceal_max);
        Gap {
            lost,
            silence: ticks - lost,
        }
    }

    /// The next piece of the gap: whether lost, timestamp, samples. Moves the edge over it.
    fn take_gap(&mut self) -> Option<(bool, u32, u32)> {
        let piece_max = (u64::from(self.clock_hz) * SILENCE_PIECE_US / 1_000_000) as u32;
        let edge = self.edge.as_mut()?;
        let lost = self.gap.lost > 0;
        let samples = if lost {
            std::mem::take(&mut self.gap.lost)
        } else {
            let piece = self.gap.silence.min(piece_max);
            self.gap.silence -= piece;
            piece
        };
        if samples == 0 {
            return None;
        }
        let timestamp = edge.timestamp;
        edge.timestamp = timestamp.wrapping_add(samples);
        Some((lost, timestamp, samples))
    }

    fn us(&self, ticks: u32) -> u64 {
        u64::from(ticks) * 1_000_000 / u64::from(self.clock_hz)
    }
}
