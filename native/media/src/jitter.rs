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

/// How long a missing packet may still come once a later one has (RFC 3550 knows no limit; this is policy).
pub const REORDER_WINDOW_US: u64 = 20_000;
/// A larger payload is dropped: it cannot have crossed an Ethernet in one piece.
pub const PAYLOAD_MAX: usize = 1500;
/// From this step of the sequence on, a gap is a new beginning.
const JUMP_PACKETS: i64 = 50;
/// Longest concealment; what is missing beyond it is reported as silence.
const CONCEAL_MAX_US: u64 = 500_000;
/// Ring size: room for a gap, the next gap behind it, and a burst.
const SLOTS: usize = 128;
/// Distance from the oldest missing packet at which it is given up early to make room.
const CROWDED: u64 = 64;
/// Largest silence taken from timestamps, and how far these may run ahead of the arrival clock.
const SILENCE_MAX_US: u64 = 60_000_000;
const SILENCE_SLACK_US: u64 = 500_000;
/// Silence is reported in pieces of at most one second.
const SILENCE_PIECE_US: u64 = 1_000_000;
/// Packets of the previous SSRC are stragglers for this long after a change.
const STRAGGLER_US: u64 = 100_000;
/// A backward step of sequence and clock is an old packet up to this, beyond it a restarted sender. (A sender that
/// happens to restart within it is ignored until its clock has passed the old one: at most this long.)
const STALE_US: u64 = 10_000_000;

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
        self.lost += other.lost;
        self.late += other.late;
        self.duplicate += other.duplicate;
        self.reordered += other.reordered;
        self.reset += other.reset;
        self.overflow += other.overflow;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Audio that follows what came before it.
    Audio,
    /// The first packet after a jump: nothing before it is concealed; silence only if the timestamps agree.
    AfterJump,
    /// The first packet of another source: its timestamps mean nothing to the earlier ones.
    OtherSource,
}

#[derive(Debug)]
struct Held {
    kind: Kind,
    /// Otherwise (telephone-event, comfort noise) it only fills its place in the sequence.
    audio: bool,
    timestamp: u32,
    arrival_us: u64,
    payload: Vec<u8>,
}

/// Where the sequence numbers of the current beginning lie on our unwrapped count.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    ssrc: u32,
    first: u64,
    /// Highest place received, with its sequence number and timestamp.
    highest: u64,
    sequence: u16,
    timestamp: u32,
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
    ring: Box<[Option<Held>]>,
    held: usize,
    spare: Vec<Vec<u8>>,
    /// The payload that the last release lent out.
    lent: Vec<u8>,
    /// Place of the next packet to release.
    next: u64,
    epoch: Option<Epoch>,
    edge: Option<Edge>,
    /// Lost packets whose length is not known until the next audio comes.
    missing: u32,
    gap: Gap,
    /// Bit k: the packet at `next - 1 - k` came (as opposed to: was declared lost).
    history: u64,
    previous_ssrc: Option<(u32, u64)>,
    stats: ListeningStats,
}

/// Duration of a payload with one octet per tick of the media clock: G.711, and G.722 by RFC 3551's convention.
pub fn octet_duration(payload: &[u8]) -> u32 {
    payload.len() as u32
}

impl ListeningBuffer {
    /// An empty buffer for a media clock of `clock_hz`; `duration` tells how many ticks a payload lasts
    /// ([`octet_duration`] for G.711).
    pub fn new(clock_hz: u32, duration: fn(&[u8]) -> u32) -> Self {
        Self {
            clock_hz: clock_hz.max(1),
            duration,
            ring: (0..SLOTS).map(|_| None).collect(),
            held: 0,
            spare: Vec::with_capacity(SLOTS + 1),
            lent: Vec::new(),
            next: 0,
            epoch: None,
            edge: None,
            missing: 0,
            gap: Gap::default(),
            history: 0,
            previous_ssrc: None,
            stats: ListeningStats::default(),
        }
    }

    /// Take an audio packet.
    pub fn push(&mut self, now_us: u64, header: &RtpHeader, payload: &[u8]) {
        self.insert(now_us, header, Some(payload));
    }

    /// Take a packet of the same source that carries no audio (telephone-event), so that its sequence number is
    /// not mistaken for a loss.
    pub fn push_aside(&mut self, now_us: u64, header: &RtpHeader) {
        self.insert(now_us, header, None);
    }

    /// What can be released now; call until `None`.
    pub fn poll(&mut self, now_us: u64) -> Option<Release<'_>> {
        loop {
            let slot = self.next as usize % SLOTS;
            let Some(head) = &self.ring[slot] else {
                if self.gap_deadline_us()? > now_us {
                    return None;
                }
                self.give_up_head();
                continue;
            };
            if !head.audio {
                if head.kind == Kind::OtherSource {
                    self.edge = None;
                }
                self.take_head(slot);
                self.stats.aside += 1;
                continue;
            }
            if self.gap.lost == 0 && self.gap.silence == 0 {
                self.gap = self.measure_gap(slot);
            }
            if let Some((lost, timestamp, samples)) = self.take_gap() {
                return Some(if lost {
                    Release::Lost { timestamp, samples }
                } else {
                    Release::Silence { timestamp, samples }
                });
            }
            let (timestamp, arrival_us) = self.take_head(slot)?;
            self.stats.released += 1;
            let step = (self.duration)(&self.lent);
            self.edge = Some(Edge {
                timestamp: timestamp.wrapping_add(step),
                arrival_us,
                step,
            });
            return Some(Release::Packet {
                timestamp,
                payload: &self.lent,
                arrival_us,
            });
        }
    }

    /// When `poll` will have something new if nothing is pushed.
    pub fn next_deadline_us(&self) -> Option<u64> {
        match &self.ring[self.next as usize % SLOTS] {
            Some(head) => Some(head.arrival_us),
            None => self.gap_deadline_us(),
        }
    }

    /// Counters since the beginning.
    pub fn stats(&self) -> ListeningStats {
        self.stats
    }

    fn insert(&mut self, now_us: u64, header: &RtpHeader, audio: Option<&[u8]>) {
        self.stats.received += 1;
        let payload = audio.unwrap_or_default();
        if payload.len() > PAYLOAD_MAX {
            self.stats.overflow += 1;
            return;
        }
        let Some((place, kind)) = self.place(now_us, header) else {
            return;
        };
        let slot = place as usize % SLOTS;
        if place >= self.next + SLOTS as u64 {
            self.stats.overflow += 1;
            return;
        }
        if self.ring[slot].is_some() {
            self.stats.duplicate += 1;
            return;
        }
        let begins = kind != Kind::Audio;
        if begins {
            self.begin(now_us, header, place, kind);
        }
        if let Some(epoch) = &mut self.epoch {
            if place < epoch.highest {
                self.stats.reordered += 1;
            } else {
                (epoch.highest, epoch.sequence) = (place, header.sequence);
                epoch.timestamp = header.timestamp;
            }
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(payload);
        self.ring[slot] = Some(Held {
            kind,
            audio: audio.is_some(),
            timestamp: header.timestamp,
            arrival_us: now_us,
            payload: buffer,
        });
        self.held += 1;
    }

    /// The place of a packet and how it begins, or `None` if it is dropped (and counted).
    fn place(&mut self, now_us: u64, header: &RtpHeader) -> Option<(u64, Kind)> {
        let Some(epoch) = self.epoch else {
            return Some((self.next, Kind::OtherSource));
        };
        if header.ssrc != epoch.ssrc {
            if let Some((ssrc, since_us)) = self.previous_ssrc
                && ssrc == header.ssrc
                && now_us.saturating_sub(since_us) < STRAGGLER_US
            {
                self.stats.late += 1;
                return None;
            }
            return Some((epoch.highest + 1, Kind::OtherSource));
        }
        let step = i64::from(header.sequence.wrapping_sub(epoch.sequence) as i16);
        if step >= JUMP_PACKETS {
            return Some((epoch.highest + 1, Kind::AfterJump));
        }
        let place = epoch
            .highest
            .checked_add_signed(step)
            .filter(|&place| place >= epoch.first);
        if let Some(place) = place.filter(|&place| place >= self.next) {
            return Some((place, Kind::Audio));
        }
        // Behind what was released, or before the beginning: old, unless the sender's clock says otherwise.
        let back = epoch.timestamp.wrapping_sub(header.timestamp);
        if self.us(back) > STALE_US {
            return Some((epoch.highest + 1, Kind::AfterJump));
        }
        let age = place.map_or(u64::MAX, |place| self.next - 1 - place);
        if age < 64 && self.history >> age & 1 == 1 {
            self.stats.duplicate += 1;
        } else {
            self.stats.late += 1;
        }
        None
    }

    fn begin(&mut self, now_us: u64, header: &RtpHeader, place: u64, kind: Kind) {
        if let Some(before) = self.epoch {
            self.stats.reset += 1;
            if kind == Kind::OtherSource {
                self.previous_ssrc = Some((before.ssrc, now_us));
            }
        }
        self.epoch = Some(Epoch {
            ssrc: header.ssrc,
            first: place,
            highest: place,
            sequence: header.sequence,
            timestamp: header.timestamp,
        });
    }

    /// When the missing packet at the head is declared lost; `None` if nothing waits behind it.
    fn gap_deadline_us(&self) -> Option<u64> {
        if self.held == 0 {
            return None;
        }
        let waiting = self.ring.iter().flatten();
        let earliest_us = waiting.map(|held| held.arrival_us).min()?;
        let crowded = self
            .epoch
            .is_some_and(|epoch| epoch.highest - self.next >= CROWDED);
        Some(earliest_us + if crowded { 0 } else { REORDER_WINDOW_US })
    }

    fn give_up_head(&mut self) {
        self.next += 1;
        self.history <<= 1;
        self.missing += 1;
        self.stats.lost += 1;
    }

    /// Move the head's payload to `lent`.
    fn take_head(&mut self, slot: usize) -> Option<(u32, u64)> {
        let head = self.ring[slot].take()?;
        self.held -= 1;
        self.next += 1;
        self.history = self.history << 1 | 1;
        self.spare.push(std::mem::replace(&mut self.lent, head.payload));
        Some((head.timestamp, head.arrival_us))
    }

    /// What lies between the released media and the packet at the head.
    fn measure_gap(&mut self, slot: usize) -> Gap {
        let missing = std::mem::take(&mut self.missing);
        let (Some(head), Some(edge)) = (&self.ring[slot], self.edge) else {
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
            self.stats.reset += u64::from(head.kind == Kind::Audio);
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
