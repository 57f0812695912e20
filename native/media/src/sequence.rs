//! The packets of one leg in the order of their sequence numbers: what both jitter buffers stand on.
//!
//! It unwraps sequence numbers, holds packets until their turn, and tells duplicates, late packets and new beginnings
//! apart. When a missing packet is given up is the jitter buffers' decision, not made here.

use rtp::packet::RtpHeader;

/// A larger payload is dropped: it cannot have crossed an Ethernet in one piece.
pub const PAYLOAD_MAX: usize = 1500;
/// Ring size: room for a gap, the next gap behind it, and a burst.
pub(crate) const SLOTS: usize = 128;
/// From this step of the sequence on, a gap is a new beginning.
const JUMP_PACKETS: i64 = 50;
/// Packets of the previous SSRC are stragglers for this long after a change.
const STRAGGLER_US: u64 = 100_000;
/// A backward step of sequence and clock is an old packet up to this, beyond it a restarted sender. (A sender that
/// happens to restart within it is ignored until its clock has passed the old one: at most this long.)
const STALE_US: u64 = 10_000_000;

/// How a packet relates to what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It follows.
    Next,
    /// The first packet after a jump of the sequence: nothing before it is concealed.
    AfterJump,
    /// The first packet of another source: its timestamps mean nothing to the earlier ones.
    OtherSource,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Insertion {
    /// It waits for its turn at this place.
    Held(u64, Kind),
    /// It came after it was given up, and was dropped.
    Late,
    /// It was dropped for another reason: it says nothing about the network's delay.
    Dropped,
}

/// A packet that waits for its turn.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) kind: Kind,
    /// Otherwise (telephone-event, comfort noise) it only fills its place in the sequence.
    pub(crate) audio: bool,
    pub(crate) timestamp: u32,
    pub(crate) arrival_us: u64,
    payload: Vec<u8>,
}

impl Held {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// What happened to the packets; all but `lost`, `reordered` and `reset` count packets inserted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SequenceStats {
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) duplicate: u64,
    pub(crate) reordered: u64,
    pub(crate) reset: u64,
    pub(crate) overflow: u64,
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

/// Packets by unwrapped sequence number ("place"). Memory is bounded, and reused: a packet allocates only while the
/// spare buffers have not yet grown to the leg's payloads.
#[derive(Debug)]
pub(crate) struct PacketSequence {
    clock_hz: u32,
    ring: Box<[Option<Held>]>,
    held: usize,
    spare: Vec<Vec<u8>>,
    /// The payload that was taken last.
    lent: Vec<u8>,
    /// Place of the packet whose turn it is.
    next: u64,
    epoch: Option<Epoch>,
    /// Bit k: the packet at `next - 1 - k` came (as opposed to: was given up).
    history: u64,
    previous_ssrc: Option<(u32, u64)>,
    stats: SequenceStats,
}

impl PacketSequence {
    /// Nothing yet; timestamps count at `clock_hz`.
    pub(crate) fn new(clock_hz: u32) -> Self {
        Self {
            clock_hz: clock_hz.max(1),
            ring: (0..SLOTS).map(|_| None).collect(),
            held: 0,
            spare: Vec::with_capacity(SLOTS + 1),
            lent: Vec::new(),
            next: 0,
            epoch: None,
            history: 0,
            previous_ssrc: None,
            stats: SequenceStats::default(),
        }
    }

    /// Take a packet; without a payload it is one without audio, which only fills its place. What is
    /// dropped is counted.
    pub(crate) fn insert(&mut self, now_us: u64, header: &RtpHeader, audio: Option<&[u8]>) -> Insertion {
        self.stats.received += 1;
        let payload = audio.unwrap_or_default();
        if payload.len() > PAYLOAD_MAX {
            self.stats.overflow += 1;
            return Insertion::Dropped;
        }
        let (place, kind) = match self.place(now_us, header) {
            Insertion::Held(place, kind) => (place, kind),
            dropped => return dropped,
        };
        let slot = place as usize % SLOTS;
        if place >= self.next + SLOTS as u64 {
            self.stats.overflow += 1;
            return Insertion::Dropped;
        }
        if self.ring[slot].is_some() {
            self.stats.duplicate += 1;
            return Insertion::Dropped;
        }
        if kind != Kind::Next {
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
        Insertion::Held(place, kind)
    }

    /// The packet whose turn it is, if it is there.
    pub(crate) fn head(&self) -> Option<&Held> {
        self.ring[self.next as usize % SLOTS].as_ref()
    }

    /// Place of the packet whose turn it is.
    pub(crate) fn next_place(&self) -> u64 {
        self.next
    }

    /// The packets that wait, with their places, in order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (u64, &Held)> {
        let span = self.span();
        (self.next..self.next + span)
            .filter_map(|place| Some((place, self.ring[place as usize % SLOTS].as_ref()?)))
    }

    /// Number of packets that wait.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Places from the head to the highest packet that waits, both included.
    pub(crate) fn span(&self) -> u64 {
        let Some(epoch) = self.epoch.filter(|_| self.held > 0) else {
            return 0;
        };
        (epoch.highest + 1).saturating_sub(self.next)
    }

    /// Take the packet whose turn it is; its payload is [`PacketSequence::lent`] until the next one is taken.
    pub(crate) fn take_head(&mut self) -> Option<(u32, u64)> {
        let head = self.ring[self.next as usize % SLOTS].take()?;
        self.held -= 1;
        self.next += 1;
        self.history = self.history << 1 | 1;
        self.spare.push(std::mem::replace(&mut self.lent, head.payload));
        Some((head.timestamp, head.arrival_us))
    }

    /// The payload that was taken last.
    pub(crate) fn lent(&self) -> &[u8] {
        &self.lent
    }

    /// The missing packet whose turn it is counts as lost: what still comes of it is late.
    pub(crate) fn give_up_head(&mut self) {
        self.next += 1;
        self.history <<= 1;
        self.stats.lost += 1;
    }

    /// A new beginning that only the timestamps showed.
    pub(crate) fn count_reset(&mut self) {
        self.stats.reset += 1;
    }

    pub(crate) fn stats(&self) -> SequenceStats {
        self.stats
    }

    /// The place of a packet and how it begins, or why it is dropped (and counted).
    fn place(&mut self, now_us: u64, header: &RtpHeader) -> Insertion {
        let Some(epoch) = self.epoch else {
            return Insertion::Held(self.next, Kind::OtherSource);
        };
        if header.ssrc != epoch.ssrc {
            if let Some((ssrc, since_us)) = self.previous_ssrc
                && ssrc == header.ssrc
                && now_us.saturating_sub(since_us) < STRAGGLER_US
            {
                self.stats.late += 1;
                return Insertion::Dropped;
            }
            return Insertion::Held(epoch.highest + 1, Kind::OtherSource);
        }
        let step = i64::from(header.sequence.wrapping_sub(epoch.sequence) as i16);
        if step >= JUMP_PACKETS {
            return Insertion::Held(epoch.highest + 1, Kind::AfterJump);
        }
        let place = epoch
            .highest
            .checked_add_signed(step)
            .filter(|&place| place >= epoch.first);
        if let Some(place) = place.filter(|&place| place >= self.next) {
            return Insertion::Held(place, Kind::Next);
        }
        // Behind what was released, or before the beginning: old, unless the sender's clock says otherwise.
        let back = epoch.timestamp.wrapping_sub(header.timestamp);
        if u64::from(back) * 1_000_000 / u64::from(self.clock_hz) > STALE_US {
            return Insertion::Held(epoch.highest + 1, Kind::AfterJump);
        }
        let age = place.map_or(u64::MAX, |place| self.next - 1 - place);
        if age < 64 && self.history >> age & 1 == 1 {
            self.stats.duplicate += 1;
            return Insertion::Dropped;
        }
        self.stats.late += 1;
        if place.is_some() {
            Insertion::Late
        } else {
            Insertion::Dropped
        }
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
}
