//! A whole leg, without a network.

use std::collections::BTreeSet;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use codec::Codec;
use media::playout::{PlayoutBudget, PlayoutEvent};
use media::stream::{
    Coding, FRAME_US, Format, LISTENED_HZ, PACKET_MAX, Stream, StreamEvent, StreamParams, TelephoneEvent,
};
use rtp::packet::{HEADER_LEN, RtpHeader, RtpPacket};

const RATES: [u32; 4] = [8000, 16_000, 24_000, 48_000];
const EVENT: u8 = 101;
const NOISE: u8 = 13;
const AUDIO: u8 = 96;
const SSRC: u32 = 0x1234_5678;

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Octets(&'a [u8]),
    /// A packet of the session, as its stream goes on, but for what the network does to it.
    Packet {
        skip: i8,
        units: i16,
        payload_type: u8,
        payload: &'a [u8],
    },
    Source {
        ssrc: u8,
    },
    Tick {
        late_us: u16,
    },
    Mixed {
        level: i16,
    },
    Skip {
        frames: u8,
    },
    LongWait {
        s: u8,
    },
    Play {
        samples: u16,
        rate: u8,
    },
    Pause,
    Resume,
    Flush,
    Press {
        key: char,
        ms: u16,
    },
    Connect {
        codec: u8,
        directions: u8,
        event_clock: bool,
    },
}

struct Leg {
    stream: Stream,
    budget: Arc<PlayoutBudget>,
    format: Option<Format>,
    events: Vec<StreamEvent>,
    now_us: u64,
    next: RtpHeader,
    /// Packets given to it, and those that it took for the session's.
    given: u64,
    taken: u64,
    sent: u64,
    sequence: u16,
    played_ms: u64,
    /// Marks that wait to be played, and those that a flush has dropped.
    waiting: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    mark: u64,
}

pub(crate) fn any_steps(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let mut leg = Leg::new();
    if let Ok((codec, directions)) = octets.arbitrary() {
        leg.connect(codec, directions, true);
    }
    for step in crate::steps(&mut octets).into_iter().take(64) {
        leg.step(&step);
    }
    leg.finish();
}

impl Leg {
    fn new() -> Self {
        let params = StreamParams {
            speech: None,
            media_timeout_ms: 1000,
            report_activity: true,
            ssrc: SSRC,
            first_sequence: 0xfffe,
            first_timestamp: 0xffff_ff00,
        };
        Self {
            stream: Stream::new(&params),
            budget: PlayoutBudget::new(5000),
            format: None,
            events: Vec::new(),
            now_us: 0,
            next: RtpHeader {
                marker: false,
                payload_type: AUDIO,
                sequence: 0xfff0,
                timestamp: u32::MAX - 1000,
                ssrc: 9,
            },
            given: 0,
            taken: 0,
            sent: 0,
            sequence: params.first_sequence,
            played_ms: 0,
            waiting: BTreeSet::new(),
            dropped: BTreeSet::new(),
            mark: 0,
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Octets(octets) => {
                if let Ok(packet) = RtpPacket::parse(octets) {
                    self.receive(&packet);
                }
            }
            Step::Packet {
                skip,
                units,
                payload_type,
                payload,
            } => {
                let next = &mut self.next;
                next.sequence = next.sequence.wrapping_add_signed(i16::from(skip));
                next.timestamp = next.timestamp.wrapping_add_signed(i32::from(units));
                next.payload_type = [AUDIO, AUDIO, AUDIO, EVENT, NOISE, 77][usize::from(payload_type) % 6];
                let header = *next;
                self.receive(&RtpPacket { header, payload });
            }
            Step::Source { ssrc } => self.next.ssrc = u32::from(ssrc),
            Step::Tick { late_us } => {
                self.now_us += FRAME_US + u64::from(late_us);
                self.tick(None);
            }
            Step::Mixed { level } => {
                self.now_us += FRAME_US;
                self.tick(Some(&[level; (LISTENED_HZ / 50) as usize]));
            }
            Step::Skip { frames } => self.stream.skip(u64::from(frames)),
            Step::LongWait { s } => self.now_us += u64::from(s) * 1_000_000,
            Step::Play { samples, rate } => self.play(samples, rate),
            Step::Pause => self.stream.playout().pause(),
            Step::Resume => self.stream.playout().resume(),
            Step::Flush => {
                self.dropped.append(&mut self.waiting);
                self.stream.playout().flush();
            }
            Step::Press { key, ms } => {
                let _ = self.stream.press(key, u32::from(ms));
            }
            Step::Connect {
                codec,
                directions,
                event_clock,
            } => self.connect(codec, directions, event_clock),
        }
    }

    fn connect(&mut self, codec: u8, directions: u8, event_clock: bool) {
        let codec = Codec::ALL[usize::from(codec) % Codec::ALL.len()];
        let format = Format {
            codec,
            payload_type: AUDIO,
            telephone_event: event_clock.then_some(TelephoneEvent {
                payload_type: EVENT,
                clock_hz: codec.clock_hz(),
            }),
            comfort_noise: Some(NOISE),
            // Both directions, mostly.
            send: directions & 0b11 != 0b11,
            receive: directions & 0b1100 != 0b1100,
        };
        let coding = Coding::new(codec).expect("memory for a codec");
        self.stream.connect(self.now_us, format, coding);
        self.format = Some(format);
    }

    fn receive(&mut self, packet: &RtpPacket<'_>) {
        self.given += 1;
        let taken = self.stream.handle_packet(self.now_us, packet, &mut self.events);
        self.taken += u64::from(taken);
        self.read_events();
    }

    fn play(&mut self, samples: u16, rate: u8) {
        let rate_hz = RATES[usize::from(rate) % RATES.len()];
        // An eighth: chunks of up to a second.
        let chunk = vec![i16::try_from(samples % 8000).unwrap_or(0); usize::from(samples / 8)];
        self.mark += 1;
        if let Ok(chunk) = self.budget.chunk(chunk, rate_hz, self.mark) {
            self.waiting.insert(self.mark);
            self.stream.play(chunk);
        }
        assert!(self.budget.queued_ms() <= 5000);
    }

    fn tick(&mut self, mix: Option<&[i16]>) {
        let mut packet = [0xaa; PACKET_MAX];
        let written = self.stream.tick(self.now_us, mix, &mut packet, &mut self.events);
        self.read_events();
        let played_ms = self.stream.stats().played_ms;
        assert!(played_ms >= self.played_ms);
        self.played_ms = played_ms;
        let Some(written) = written else { return };
        self.sent += 1;
        let format = self.format.expect("nothing is sent before a codec is known");
        assert!(format.send);
        let parsed = RtpPacket::parse(&packet[..written.length]).expect("what we send is RTP");
        assert_eq!(parsed.header, written.header);
        assert_eq!(
            (parsed.header.ssrc, parsed.header.sequence),
            (SSRC, self.sequence)
        );
        self.sequence = self.sequence.wrapping_add(1);
        assert_eq!(parsed.payload.len() + HEADER_LEN, written.length);
        assert!(packet[written.length..].iter().all(|&octet| octet == 0xaa) || parsed.payload.len() > 4);
        match parsed.header.payload_type {
            AUDIO => assert_eq!(
                format.codec.duration()(parsed.payload),
                format.codec.clock_hz() / 50
            ),
            EVENT => assert_eq!(parsed.payload.len(), 4),
            other => panic!("payload type {other}"),
        }
    }

    fn read_events(&mut self) {
        for event in self.events.drain(..) {
            match event {
                StreamEvent::Playout(PlayoutEvent::Played { mark, .. }, _) => {
                    assert_eq!(self.waiting.pop_first(), Some(mark), "each mark once, in order");
                }
                StreamEvent::Playout(PlayoutEvent::Flushed(flushed), _) => {
                    assert!(flushed.heard_ms <= flushed.chunk_ms);
                    assert!(flushed.mark.is_none_or(|mark| self.dropped.contains(&mark)));
                }
                StreamEvent::RecordingFailed(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }

    fn finish(mut self) {
        let stats = self.stream.stats();
        let refused = stats.payload_type + stats.not_connected;
        assert_eq!(self.given, self.taken + refused);
        assert_eq!(stats.listening.received + stats.not_receiving, self.taken);
        assert_eq!((stats.sent, stats.unencodable), (self.sent, 0));
        self.step(&Step::Flush);
        // The flush may have to fade.
        for _ in 0..2 {
            self.now_us += FRAME_US;
            self.tick(None);
        }
        assert_eq!(self.budget.queued_ms(), 0, "a chunk kept its share");
    }
}
