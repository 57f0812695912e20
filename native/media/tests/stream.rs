//! A leg without network, clock or model: what it sends, what it makes of what it gets, and what is taped.

mod memory;

use codec::Codec;
use codec::g711::{Law, decode_into, encode_into};
use media::playout::{FRAME, PlayoutBudget, PlayoutEvent};
use media::recorder::Recorder;
use media::stream::{
    Coding, FRAME_US, Format, PACKET_MAX, Stream, StreamEvent, StreamParams, TelephoneEvent,
};
use memory::Memory;
use proptest::prelude::*;
use rtp::packet::{RtpHeader, RtpPacket};

const PARAMS: StreamParams = StreamParams {
    speech: None,
    media_timeout_ms: 0,
    report_activity: false,
    ssrc: 0x1234_5678,
    first_sequence: 0xfffe,
    first_timestamp: 0xffff_ff00,
};
const FORMAT: Format = Format {
    codec: Codec::Pcmu,
    payload_type: 0,
    telephone_event: Some(TelephoneEvent {
        payload_type: 101,
        clock_hz: 8000,
    }),
    comfort_noise: None,
    send: true,
    receive: true,
};

/// A leg and its virtual clock.
struct Leg {
    stream: Stream,
    now_us: u64,
    events: Vec<StreamEvent>,
    tape: Memory,
}

impl Leg {
    fn new(params: &StreamParams) -> Self {
        let mut stream = Stream::new(params);
        stream.connect(0, FORMAT, Coding::new(Codec::Pcmu).unwrap());
        Self {
            stream,
            now_us: 0,
            events: Vec::new(),
            tape: Memory::default(),
        }
    }

    fn taped(params: &StreamParams) -> Self {
        let mut leg = Self::new(params);
        let recorder = Recorder::start(leg.tape.clone(), 8000).unwrap();
        assert!(leg.stream.record(recorder).is_none());
        leg
    }

    /// One frame's time passes; the packet that was sent, if any.
    fn tick(&mut self) -> Option<(RtpHeader, Vec<u8>)> {
        let mut packet = [0; PACKET_MAX];
        let sent = self.stream.tick(self.now_us, None, &mut packet, &mut self.events);
        self.now_us += FRAME_US;
        sent.map(|written| {
            let parsed = RtpPacket::parse(&packet[..written.length]).unwrap();
            assert_eq!(parsed.header, written.header);
            (parsed.header, parsed.payload.to_vec())
        })
    }

    /// Packet number `index` of a peer whose samples are all `level`.
    fn receive(&mut self, index: u32, level: i16) -> bool {
        let mut payload = [0; FRAME];
        encode_into(Law::Mu, &[level; FRAME], &mut payload);
        self.receive_payload(index, 0, &payload)
    }

    fn receive_payload(&mut self, index: u32, payload_type: u8, payload: &[u8]) -> bool {
        let header = RtpHeader {
            marker: false,
            payload_type,
            sequence: index as u16,
            timestamp: index.wrapping_mul(FRAME as u32),
            ssrc: 9,
        };
        let packet = RtpPacket { header, payload };
        self.stream.handle_packet(self.now_us, &packet, &mut self.events)
    }

    /// Left and right of the completed tape.
    fn tape(self) -> (Vec<i16>, Vec<i16>) {
        let recorder = self.stream.close().expect("a recording");
        assert_eq!(recorder.finish().unwrap().dropped_frames, 0);
        let file = self.tape.snapshot();
        let sample = |octets: &[u8]| i16::from_le_bytes([octets[0], octets[1]]);
        let pairs = file[44..].chunks_exact(4);
        pairs.map(|pair| (sample(pair), sample(&pair[2..]))).unzip()
    }
}

/// The value that survives a round trip through µ-law.
fn coded(level: i16) -> i16 {
    let (mut code, mut out) = ([0], [0]);
    encode_into(Law::Mu, &[level], &mut code);
    decode_into(Law::Mu, &code, &mut out);
    out[0]
}

/// Runs of equal samples as (value, length).
fn runs(samples: &[i16]) -> Vec<(i16, usize)> {
    let chunks = samples.chunk_by(|a, b| a == b);
    chunks.map(|chunk| (chunk[0], chunk.len())).collect()
}

#[test]
fn rtp_is_continuous_and_marks_the_talkspurt() {
    let mut leg = Leg::new(&PARAMS);
    let budget = PlayoutBudget::new(1000);
    let mut headers = Vec::new();
    for frame in 0..6 {
        if frame == 2 {
            leg.stream.play(budget.chunk(vec![500; 320], 8000, 1).unwrap());
        }
        let (header, payload) = leg.tick().unwrap();
        assert_eq!(payload.len(), FRAME);
        assert_eq!(payload == [0xff; FRAME], !(2..4).contains(&frame));
        headers.push(header);
    }
    let field = |get: fn(&RtpHeader) -> u32| headers.iter().map(get).collect::<Vec<_>>();
    assert_eq!(
        field(|header| header.sequence.into()),
        [0xfffe, 0xffff, 0, 1, 2, 3]
    );
    assert_eq!(
        field(|header| header.timestamp)[..3],
        [0xffff_ff00, 0xffff_ffa0, 0x40]
    );
    assert_eq!(field(|header| header.marker.into()), [0, 0, 1, 0, 0, 0]);
    let played = PlayoutEvent::Played {
        mark: 1,
        played_ms: 40,
    };
    assert_eq!(leg.events[1], StreamEvent::Playout(played, 3 * FRAME_US));
}

#[test]
fn time_that_was_left_out_shows_in_the_timestamp_only() {
    let mut leg = Leg::new(&PARAMS);
    let before = leg.tick().unwrap().0;
    leg.stream.skip(11);
    let after = leg.tick().unwrap().0;
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 12 * FRAME as u32);
}

#[test]
fn on_hold_nothing_goes_out_and_nothing_comes_in() {
    let mut leg = Leg::new(&StreamParams {
        media_timeout_ms: 40,
        ..PARAMS
    });
    leg.stream.connect(
        0,
        Format {
            send: false,
            receive: false,
            ..FORMAT
        },
        Coding::new(Codec::Pcmu).unwrap(),
    );
    for index in 0..10 {
        assert!(leg.receive(index, 100), "it is the peer all the same");
        assert_eq!(leg.tick(), None);
    }
    leg.now_us += 1_000_000;
    leg.tick();
    assert_eq!(leg.events, [], "silence is what was agreed on");
    assert_eq!(leg.stream.stats().not_receiving, 10);
}

#[test]
fn what_is_withheld_waits_and_our_clock_goes_on() {
    let mut leg = Leg::new(&PARAMS);
    let budget = PlayoutBudget::new(1000);
    leg.stream
        .play(budget.chunk(vec![4000; 5 * FRAME], 8000, 1).unwrap());
    let (before, first) = leg.tick().unwrap();
    assert!(leg.stream.withhold(true));
    for _ in 0..10 {
        assert!(!leg.stream.withhold(true), "told once");
        assert_eq!(leg.tick(), None);
        assert!(leg.receive(0, 0), "the peer is listened to");
    }
    assert!(!leg.stream.withhold(false));
    let (after, second) = leg.tick().unwrap();
    assert_eq!(after.sequence, before.sequence.wrapping_add(1));
    assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 11 * FRAME as u32);
    assert!(
        after.marker && first[0] != 0xff && second == [second[0]; FRAME] && second[0] == first[FRAME - 1]
    );
    assert_eq!(
        (leg.stream.stats().withheld_frames, leg.stream.stats().sent),
        (10, 2)
    );
}

#[test]
fn other_payload_types_are_none_of_ours() {
    let mut leg = Leg::new(&PARAMS);
    assert!(!leg.receive_payload(0, 8, &[0; FRAME]));
    assert!(!leg.receive_payload(0, 96, &[]));
    assert!(leg.receive_payload(0, 13, &[60]), "comfort noise");
    assert!(leg.receive(1, 5));
    assert!(leg.receive_payload(2, 0, &[]), "an empty packet is no loss");
    assert!(leg.receive(3, 5));
    let stats = leg.stream.stats();
    assert_eq!(
        (stats.payload_type, stats.listening.lost, stats.listening.aside),
        (2, 0, 2)
    );
    let mut unconnected = Stream::new(&PARAMS);
    let packet = RtpPacket {
        header: RtpHeader {
            marker: false,
            payload_type: 0,
            sequence: 0,
            timestamp: 0,
            ssrc: 0,
        },
        payload: &[0; FRAME],
    };
    assert!(!unconnected.handle_packet(0, &packet, &mut Vec::new()));
    assert_eq!(unconnected.stats().not_connected, 1);
}

#[test]
fn a_silent_wire_is_reported_once_per_silence() {
    let mut leg = Leg::new(&StreamParams {
        media_timeout_ms: 60,
        ..PARAMS
    });
    let timeout = StreamEvent::MediaTimeout { silent_ms: 60 };
    for _ in 0..20 {
        leg.tick();
    }
    assert_eq!(leg.events, std::slice::from_ref(&timeout));
    leg.receive(0, 0);
    for _ in 0..20 {
        leg.tick();
    }
    assert_eq!(leg.events, [timeout.clone(), timeout]);
}

#[test]
fn the_tape_has_both_sides_at_the_same_place() {
    let mut leg = Leg::taped(&PARAMS);
    let budget = PlayoutBudget::new(1000);
    for index in 0..30 {
        if index == 10 {
            leg.stream
                .play(budget.chunk(vec![coded(3000); 800], 8000, 1).unwrap());
        }
        leg.receive(index, if (10..15).contains(&index) { 2000 } else { 0 });
        leg.tick();
    }
    let (left, right) = leg.tape();
    // A packet that comes with the tick holds the 20 ms before it, one that goes holds the 20 ms after it.
    assert_eq!(
        runs(&left),
        [(0, 12 * FRAME), (coded(2000), 800), (0, 16 * FRAME)]
    );
    assert_eq!(
        runs(&right),
        [(0, 13 * FRAME), (coded(3000), 800), (0, 15 * FRAME)]
    );
}

#[test]
fn a_loss_is_concealed_in_its_place() {
    let mut leg = Leg::taped(&PARAMS);
    for index in 0..30 {
        if index != 10 {
            leg.receive(index, 1000 + 100 * index as i16);
        }
        leg.tick();
    }
    let (left, _) = leg.tape();
    // In the frame of the loss the sound goes on; the next one is itself again once the join is past.
    let sample = |index: usize, offset: usize| left[(index + 2) * FRAME + offset];
    assert_eq!(sample(9, FRAME - 1), coded(1900));
    assert_eq!(sample(10, 0), coded(1900));
    assert!(left[12 * FRAME..13 * FRAME].iter().all(|&sample| sample > 0));
    assert_eq!(sample(11, FRAME / 2), coded(2100));
    assert_eq!(sample(28, 0), coded(3800));
}

#[test]
fn late_audio_is_left_out_and_a_pause_keeps_its_length() {
    let mut leg = Leg::taped(&PARAMS);
    let mut next = 0;
    for tick in 0..60_u32 {
        // The network holds packets 20 to 25 back and delivers them at once; the peer sends nothing from 40 to 50.
        let arrived = match tick {
            20..=25 | 40..=50 => next,
            _ => tick + 1,
        };
        if tick == 51 {
            next = 51;
        }
        for index in next..arrived {
            // Silence that is not sent takes no sequence number.
            let sequence = if index > 50 { index - 11 } else { index };
            let header = RtpHeader {
                marker: index == 51,
                payload_type: 0,
                sequence: sequence as u16,
                timestamp: index * FRAME as u32,
                ssrc: 9,
            };
            let mut payload = [0; FRAME];
            encode_into(Law::Mu, &[100 * (index as i16 + 1); FRAME], &mut payload);
            let packet = RtpPacket {
                header,
                payload: &payload,
            };
            leg.stream.handle_packet(leg.now_us, &packet, &mut leg.events);
        }
        next = arrived.max(next);
        leg.tick();
    }
    let (left, _) = leg.tape();
    let frame = |index: usize| left[(index + 2) * FRAME];
    let level = |index: i16| coded(100 * (index + 1));
    assert_eq!(frame(19), level(19));
    // Two frames wait on the tape; 20 to 23 missed their tick, 24 and later did not.
    assert_eq!(
        (frame(20), frame(23), frame(24), frame(30)),
        (0, 0, level(24), level(30))
    );
    assert_eq!((frame(39), frame(40), frame(50)), (level(39), 0, 0));
    assert_eq!((frame(51), frame(57)), (level(51), level(57)));
}

proptest! {
    /// Whatever arrives, whenever: what we send stays continuous, and the tape as long as the call.
    #[test]
    fn any_packets_at_any_time(
        steps in prop::collection::vec(
            (0_u8..4, any::<u16>(), any::<u32>(), 0_u32..2, prop::collection::vec(any::<u8>(), 0..400), 0_u64..300_000),
            0..80,
        ),
    ) {
        let mut leg = Leg::taped(&StreamParams { report_activity: true, media_timeout_ms: 50, ..PARAMS });
        let mut expected = (PARAMS.first_sequence, PARAMS.first_timestamp);
        let mut ticks = 0;
        for (kind, sequence, timestamp, ssrc, payload, wait_us) in steps {
            let payload_type = [0, 101, 13, 77][usize::from(kind)];
            let header = RtpHeader { marker: false, payload_type, sequence, timestamp, ssrc };
            leg.stream.handle_packet(leg.now_us, &RtpPacket { header, payload: &payload }, &mut leg.events);
            leg.now_us += wait_us;
            let (header, _) = leg.tick().unwrap();
            ticks += 1;
            prop_assert_eq!((header.sequence, header.timestamp), expected);
            expected = (expected.0.wrapping_add(1), expected.1.wrapping_add(FRAME as u32));
        }
        let recorder = leg.stream.close().unwrap();
        prop_assert_eq!(recorder.finish().unwrap().samples, (ticks + 3) * FRAME as u64);
    }
}
