//! A sender, a buffer, and the record of what was released.

use media::jitter::{ListeningBuffer, REORDER_WINDOW_US, Release, octet_duration};
use rtp::packet::RtpHeader;

pub(crate) const STEP: u32 = 160;
pub(crate) const STEP_US: u64 = 20_000;
pub(crate) const CLOCK_HZ: u32 = 8000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Packet(u32),
    Lost(u32),
    Silence(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) at_us: u64,
    pub(crate) timestamp: u32,
    pub(crate) what: Heard,
}

/// A buffer with a sender whose packet `i` carries `i`, from any starting point of the sequence.
pub(crate) struct Leg {
    pub(crate) buffer: ListeningBuffer,
    first: u16,
    start: u32,
    pub(crate) out: Vec<Released>,
}

impl Leg {
    pub(crate) fn new(first: u16, start: u32) -> Self {
        let buffer = ListeningBuffer::new(CLOCK_HZ, octet_duration);
        Self {
            buffer,
            first,
            start,
            out: Vec::new(),
        }
    }

    pub(crate) fn header(&self, index: u32) -> RtpHeader {
        RtpHeader {
            marker: false,
            payload_type: 0,
            sequence: self.first.wrapping_add(index as u16),
            timestamp: self.start.wrapping_add(index.wrapping_mul(STEP)),
            ssrc: 7,
        }
    }

    /// Act on every deadline before `now_us`, then take the packet, then release what can be.
    pub(crate) fn arrive(&mut self, now_us: u64, header: &RtpHeader, index: u32) {
        self.advance(now_us.saturating_sub(1));
        self.buffer.push(now_us, header, &payload(index));
        self.drain(now_us);
    }

    pub(crate) fn packet(&mut self, now_us: u64, index: u32) {
        self.arrive(now_us, &self.header(index), index);
    }

    pub(crate) fn advance(&mut self, until_us: u64) {
        while let Some(deadline_us) = self.buffer.next_deadline_us().filter(|&at_us| at_us <= until_us) {
            self.drain(deadline_us);
            assert!(
                self.buffer
                    .next_deadline_us()
                    .is_none_or(|at_us| at_us > deadline_us),
                "a deadline that changes nothing"
            );
        }
    }

    pub(crate) fn drain(&mut self, now_us: u64) {
        while let Some(release) = self.buffer.poll(now_us) {
            let (timestamp, what) = match release {
                Release::Packet {
                    timestamp, payload, ..
                } => {
                    let index = payload.first_chunk().map(|octets| u32::from_be_bytes(*octets));
                    (timestamp, Heard::Packet(index.unwrap()))
                }
                Release::Lost { timestamp, samples } => (timestamp, Heard::Lost(samples)),
                Release::Silence { timestamp, samples } => (timestamp, Heard::Silence(samples)),
            };
            self.out.push(Released {
                at_us: now_us,
                timestamp,
                what,
            });
        }
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.out.iter().map(|released| released.what.clone()).collect()
    }

    pub(crate) fn packets(&self) -> Vec<u32> {
        let packet = |released: &Released| match released.what {
            Heard::Packet(index) => Some(index),
            Heard::Lost(_) | Heard::Silence(_) => None,
        };
        self.out.iter().filter_map(packet).collect()
    }

    /// No hole, no overlap, nothing out of order, and every payload at its own timestamp.
    pub(crate) fn assert_one_timeline(&self) {
        let mut end = None;
        for Released { timestamp, what, .. } in &self.out {
            assert!(
                end.is_none_or(|end| end == *timestamp),
                "{what:?} at {timestamp}, not {end:?}"
            );
            let samples = match *what {
                Heard::Packet(index) => {
                    assert_eq!(*timestamp, self.header(index).timestamp);
                    STEP
                }
                Heard::Lost(samples) | Heard::Silence(samples) => samples,
            };
            end = Some(timestamp.wrapping_add(samples));
        }
    }
}

pub(crate) fn payload(index: u32) -> Vec<u8> {
    let mut octets = vec![0; STEP as usize];
    octets[..4].copy_from_slice(&index.to_be_bytes());
    octets
}

/// Arrivals in the order of their times; equal times in sending order.
pub(crate) fn schedule(mut arrivals: Vec<(u64, u32)>) -> Vec<(u64, u32)> {
    arrivals.sort_unstable();
    arrivals
}

/// The rule, stated over all arrivals at once: a packet is heard if it came no later than 20 ms after the first
/// later packet, and not before the very first one's place.
pub(crate) fn expected(arrivals: &[(u64, u32)]) -> Vec<u32> {
    let Some(&(_, beginning)) = arrivals.first() else {
        return Vec::new();
    };
    let last = arrivals.iter().map(|&(_, index)| index).max().unwrap();
    let mut first_us = vec![u64::MAX; last as usize + 1];
    for &(at_us, index) in arrivals {
        first_us[index as usize] = first_us[index as usize].min(at_us);
    }
    let mut heard = Vec::new();
    let mut later_us = u64::MAX;
    for index in (beginning..=last).rev() {
        let at_us = first_us[index as usize];
        if at_us != u64::MAX && at_us <= later_us.saturating_add(REORDER_WINDOW_US) {
            heard.push(index);
        }
        later_us = later_us.min(at_us);
    }
    heard.reverse();
    heard
}

pub(crate) fn run(first: u16, start: u32, arrivals: &[(u64, u32)]) -> Leg {
    let mut leg = Leg::new(first, start);
    for &(at_us, index) in arrivals {
        leg.packet(at_us, index);
    }
    leg.advance(u64::MAX);
    leg
}
