//! The listening jitter buffer.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Unstructured};
use codec::Codec;
use media::jitter::{ListeningBuffer, PAYLOAD_MAX, REORDER_WINDOW_US, Release};
use rtp::packet::RtpHeader;

#[derive(Debug, Arbitrary)]
enum Step {
    /// The next packet of a stream, but for what the network does to it.
    Next {
        skip: i8,
        units: i16,
        len: u8,
        aside: bool,
    },
    /// Any header at all.
    Any {
        sequence: u16,
        timestamp: u32,
        ssrc: u8,
        len: u16,
    },
    Source {
        ssrc: u8,
    },
    Wait {
        us: u16,
    },
    LongWait {
        s: u8,
    },
    Poll,
}

/// Which packet, and where it stood.
#[derive(Debug, Clone, Copy)]
struct Pushed {
    header: RtpHeader,
    len: usize,
    at_us: u64,
}

/// What was released so far.
#[derive(Debug, Default)]
struct Heard {
    released: BTreeSet<u32>,
    /// The last packet, and where its audio (and what was reported after it) ends.
    edge: Option<(RtpHeader, u32)>,
    /// Packets that do not follow from what was heard before them.
    breaks: u64,
}

struct Run {
    buffer: ListeningBuffer,
    clock_hz: u32,
    duration: fn(&[u8]) -> u32,
    now_us: u64,
    /// The stream that `Next` goes on with.
    next: RtpHeader,
    pushed: Vec<Pushed>,
    heard: Heard,
}

pub(crate) fn any_steps(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let Ok(codec) = octets.choose(&[Codec::Pcmu, Codec::Opus]) else {
        return;
    };
    let (clock_hz, duration) = (codec.clock_hz(), codec.duration());
    let mut run = Run {
        buffer: ListeningBuffer::new(clock_hz, duration),
        clock_hz,
        duration,
        now_us: 0,
        next: RtpHeader {
            marker: false,
            payload_type: 0,
            sequence: 0xfff0,
            timestamp: u32::MAX - 1000,
            ssrc: 1,
        },
        pushed: Vec::new(),
        heard: Heard::default(),
    };
    for step in crate::steps(&mut octets) {
        run.step(&step);
    }
    run.finish();
}

impl Run {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Next {
                skip,
                units,
                len,
                aside,
            } => {
                let next = &mut self.next;
                next.sequence = next.sequence.wrapping_add_signed(i16::from(skip));
                next.timestamp = next.timestamp.wrapping_add_signed(i32::from(units));
                let header = *next;
                if aside {
                    self.buffer.push_aside(self.now_us, &header);
                } else {
                    self.push(header, usize::from(len));
                }
            }
            Step::Any {
                sequence,
                timestamp,
                ssrc,
                len,
            } => {
                let header = RtpHeader {
                    sequence,
                    timestamp,
                    ssrc: u32::from(ssrc),
                    ..self.next
                };
                self.push(header, usize::from(len) % (PAYLOAD_MAX + 10));
            }
            Step::Source { ssrc } => self.next.ssrc = u32::from(ssrc),
            Step::Wait { us } => self.now_us += u64::from(us),
            Step::LongWait { s } => self.now_us += u64::from(s) * 1_000_000,
            Step::Poll => self.poll(),
        }
    }

    /// The payload begins with the packet's number, and with what is a frame of 2.5 to 60 ms to Opus.
    fn push(&mut self, header: RtpHeader, len: usize) {
        let number = self.pushed.len() as u32;
        let mut payload = vec![(number as u8) & 0xfc, 0, 0, 0, 0];
        payload[1..].copy_from_slice(&number.to_be_bytes());
        payload.resize(len.max(5), 0);
        self.pushed.push(Pushed {
            header,
            len: payload.len(),
            at_us: self.now_us,
        });
        self.buffer.push(self.now_us, &header, &payload);
    }

    fn poll(&mut self) {
        while let Some(release) = self.buffer.poll(self.now_us) {
            match release {
                Release::Packet {
                    timestamp,
                    payload,
                    arrival_us,
                } => {
                    let number = payload[1..]
                        .first_chunk()
                        .map(|octets| u32::from_be_bytes(*octets));
                    let number = number.expect("all are at least that long");
                    let packet = self.pushed[number as usize];
                    assert_eq!(
                        (timestamp, payload.len(), arrival_us),
                        (packet.header.timestamp, packet.len, packet.at_us)
                    );
                    let end = timestamp.wrapping_add((self.duration)(payload));
                    self.heard.packet(number, packet.header, end);
                }
                Release::Lost { timestamp, samples } => {
                    assert!((1..=self.clock_hz / 2).contains(&samples));
                    self.heard.stretch(timestamp, samples);
                }
                Release::Silence { timestamp, samples } => {
                    assert!((1..=self.clock_hz).contains(&samples));
                    self.heard.stretch(timestamp, samples);
                }
            }
        }
        if let Some(deadline_us) = self.buffer.next_deadline_us() {
            assert!(deadline_us > self.now_us, "something was due");
            assert!(deadline_us <= self.now_us + REORDER_WINDOW_US);
        }
    }

    fn finish(mut self) {
        while let Some(deadline_us) = self.buffer.next_deadline_us() {
            self.now_us = self.now_us.max(deadline_us);
            self.poll();
        }
        let stats = self.buffer.stats();
        assert_eq!(
            stats.received,
            stats.released + stats.aside + stats.late + stats.duplicate + stats.overflow
        );
        assert_eq!(stats.released, self.heard.released.len() as u64);
        // Out of order, or with a hole or an overlap: only where the source began anew, and that is counted.
        assert!(
            self.heard.breaks <= stats.reset,
            "{} of {stats:?}",
            self.heard.breaks
        );
    }
}

impl Heard {
    fn packet(&mut self, number: u32, header: RtpHeader, end: u32) {
        assert!(self.released.insert(number), "packet {number} twice");
        if let Some((before, end)) = self.edge {
            let ahead = header.sequence.wrapping_sub(before.sequence) as i16;
            let follows = header.ssrc == before.ssrc && ahead > 0 && header.timestamp == end;
            self.breaks += u64::from(!follows);
        }
        self.edge = Some((header, end));
    }

    /// What is filled in joins what was heard before.
    fn stretch(&mut self, timestamp: u32, samples: u32) {
        let (_, end) = self
            .edge
            .as_mut()
            .expect("nothing is missing before the first packet");
        assert_eq!(timestamp, *end);
        *end = end.wrapping_add(samples);
    }
}
