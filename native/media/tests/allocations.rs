//! In the steady state a leg allocates nothing per packet and nothing per tick; counted, for every codec and SRTP profile.
//!
//! What a leg hands out is not of the steady state: a piece of speech (one every `chunk_ms`) is an allocation of its own.

#[path = "../../silero/tests/common/mod.rs"]
mod made_up;
mod memory;

use std::sync::Arc;

use codec::{Codec, Encoder, EncoderSettings};
use counting::{Counting, allocations_in};
use media::playout::{Chunk, PlayoutBudget, PlayoutEvent};
use media::recorder::Recorder;
use media::speech::{Listening, SpeechEvent, SpeechParams};
use media::stream::{
    Coding, FRAME_US, Format, PACKET_MAX, Stream, StreamEvent, StreamParams, TelephoneEvent,
};
use memory::Memory;
use rtp::packet::{HEADER_LEN, RtpHeader, RtpPacket};
use rtp::srtp::{MAX_RTP_OVERHEAD, MasterKey, Profile, Receiver, Sender};
use silero::{DetectorParams, Model};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PACKETS: u64 = 1000;
const AUDIO: u8 = 96;
const EVENT: u8 = 101;
const NOISE: u8 = 13;

/// Between what the made-up model says of loud noise (0.5 and more) and what it is spared (0).
const SPEECH: SpeechParams = SpeechParams {
    detector: DetectorParams {
        threshold: 0.3,
        start_ms: 96,
        stop_ms: 192,
    },
    preroll_ms: 300,
    chunk_ms: 200,
    pause_ms: 0,
};

/// A caller who speaks for a second and is silent for two, in one codec and perhaps under SRTP.
struct Caller {
    codec: Codec,
    encoder: Encoder,
    sender: Option<Sender>,
    noise: made_up::Noise,
    frame: Vec<i16>,
    packet: [u8; PACKET_MAX + MAX_RTP_OVERHEAD],
    sent: u64,
}

impl Caller {
    /// The next packet: audio, or of a key press or comfort noise every so often. `None`: the network lost it.
    fn next(&mut self) -> Option<&mut [u8]> {
        let number = self.sent;
        self.sent += 1;
        let gain = if number % 150 < 50 { 20_000.0 } else { 0.0 };
        self.frame.fill_with(|| (gain * self.noise.next()) as i16);
        let payload = &mut self.packet[HEADER_LEN..PACKET_MAX];
        let octets = self.encoder.encode(&self.frame, payload).unwrap();
        let (payload_type, octets) = match number % 100 {
            60..64 => {
                payload[..4].copy_from_slice(&[5, if number % 100 == 63 { 0x8a } else { 10 }, 1, 64]);
                (EVENT, 4)
            }
            64 => (NOISE, 8),
            _ => (AUDIO, octets),
        };
        // All packets of a press bear the time of its first.
        let instant = if payload_type == EVENT {
            number - number % 100 + 60
        } else {
            number
        };
        let timestamp = (instant as u32).wrapping_mul(self.codec.clock_hz() / 50);
        let header = RtpHeader {
            marker: false,
            payload_type,
            // Across a wrap.
            sequence: (number as u16).wrapping_add(0xff00),
            timestamp,
            ssrc: 9,
        };
        header.write(&mut self.packet);
        let len = HEADER_LEN + octets;
        let len = match &mut self.sender {
            Some(sender) => sender.protect_rtp(&mut self.packet, len).unwrap(),
            None => len,
        };
        (number % 40 != 7).then_some(&mut self.packet[..len])
    }
}

/// A leg with speech detection, and what it works with.
struct Leg {
    stream: Stream,
    listening: Listening,
    protection: Option<(Receiver, Sender)>,
    packet: [u8; PACKET_MAX + MAX_RTP_OVERHEAD],
    events: Vec<StreamEvent>,
    now_us: u64,
    pieces: u64,
    digits: u64,
    played: u64,
    sent: u64,
}

impl Leg {
    fn new(codec: Codec, key: Option<&MasterKey>, model: &Arc<Model>) -> Self {
        let mut stream = Stream::new(&StreamParams {
            speech: Some(SPEECH),
            media_timeout_ms: 10_000,
            report_activity: true,
            ssrc: 1,
            first_sequence: 0,
            first_timestamp: 0,
        });
        let format = Format {
            codec,
            payload_type: AUDIO,
            telephone_event: Some(TelephoneEvent {
                payload_type: EVENT,
                clock_hz: codec.clock_hz(),
            }),
            comfort_noise: Some(NOISE),
            send: true,
            receive: true,
        };
        stream.connect(0, format, Coding::new(codec).unwrap());
        Self {
            stream,
            listening: Listening::new(Arc::clone(model)),
            protection: key.map(|key| (Receiver::new(key), Sender::new(key))),
            packet: [0; PACKET_MAX + MAX_RTP_OVERHEAD],
            events: Vec::with_capacity(64),
            now_us: 0,
            pieces: 0,
            digits: 0,
            played: 0,
            sent: 0,
        }
    }

    fn receive(&mut self, datagram: &mut [u8]) {
        let len = match &mut self.protection {
            Some((receiver, _)) => receiver.unprotect_rtp(datagram).unwrap(),
            None => datagram.len(),
        };
        let packet = RtpPacket::parse(&datagram[..len]).unwrap();
        assert!(self.stream.handle_packet(self.now_us, &packet, &mut self.events));
    }

    fn tick(&mut self) {
        if let Some(mut speech) = self.stream.lend_speech() {
            self.listening.judge(std::iter::once(&mut *speech));
            self.stream.take_back_speech(speech, &mut self.events);
        }
        let packet = &mut self.packet[..PACKET_MAX];
        if let Some(written) = self.stream.tick(self.now_us, None, packet, &mut self.events) {
            self.sent += 1;
            if let Some((_, sender)) = &mut self.protection {
                sender.protect_rtp(&mut self.packet, written.length).unwrap();
            }
        }
        for event in self.events.drain(..) {
            match event {
                StreamEvent::Speech(
                    SpeechEvent::Started { .. } | SpeechEvent::Audio { .. } | SpeechEvent::Stopped { .. },
                ) => self.pieces += 1,
                StreamEvent::Digit { .. } => self.digits += 1,
                StreamEvent::Playout(PlayoutEvent::Played { .. }, _) => self.played += 1,
                _ => {}
            }
        }
        self.now_us += FRAME_US;
    }
}

/// So many packets and ticks; what is to be played comes from outside, one chunk of half a second each second.
fn converse(leg: &mut Leg, caller: &mut Caller, chunks: &mut Vec<Chunk>, packets: u64) {
    for number in 0..packets {
        if let Some(datagram) = caller.next() {
            leg.receive(datagram);
        }
        if number % 50 == 0
            && let Some(chunk) = chunks.pop()
        {
            leg.stream.play(chunk);
        }
        leg.tick();
    }
}

fn converse_in(codec: Codec, profile: Option<Profile>, model: &Arc<Model>) {
    let key = profile.map(|profile| MasterKey::new(profile, &vec![7; profile.material_len()]).unwrap());
    let mut leg = Leg::new(codec, key.as_ref(), model);
    let mut caller = Caller {
        codec,
        encoder: Encoder::new(codec, EncoderSettings::default()).unwrap(),
        sender: key.as_ref().map(Sender::new),
        noise: made_up::Noise(1),
        frame: vec![0; codec.encoded_hz() as usize / 50],
        packet: [0; PACKET_MAX + MAX_RTP_OVERHEAD],
        sent: 0,
    };
    let budget = PlayoutBudget::new(60_000);
    let chunk = |mark| budget.chunk(vec![3000; 12_000], 24_000, mark).unwrap();
    let mut chunks: Vec<Chunk> = (0..40).map(chunk).collect();
    // Two rounds of speech and silence, in which the buffers find their sizes.
    converse(&mut leg, &mut caller, &mut chunks, 300);
    (leg.pieces, leg.digits, leg.played, leg.sent) = (0, 0, 0, 0);
    let counted = allocations_in(|| converse(&mut leg, &mut caller, &mut chunks, PACKETS));
    let case = format!("{} {profile:?}", codec.name());
    println!("{case}: {counted} allocations, {} pieces of speech", leg.pieces);
    // The conversation was one: speech in pieces of 200 ms, keys, chunks that were played.
    assert!((20..=100).contains(&leg.pieces), "{case}: {}", leg.pieces);
    assert_eq!((leg.digits, leg.played, leg.sent), (10, 20, PACKETS), "{case}");
    assert!(leg.stream.stats().listening.lost > 0, "{case}");
    assert_eq!(
        counted, leg.pieces,
        "{case}: no more than the pieces of speech themselves"
    );
}

#[test]
fn a_leg_allocates_pieces_of_speech_and_nothing_else() {
    let file = made_up::file(&made_up::tensors(5));
    let model = Arc::new(Model::from_onnx(&file).unwrap());
    for codec in Codec::ALL {
        converse_in(codec, None, &model);
        for profile in Profile::ALL {
            converse_in(codec, Some(profile), &model);
        }
    }
}

/// The recorder's frames go round between the leg and its writer. How many there are is up to the disk: as many as
/// fit into the queue of five seconds, one on either side of it, and no more in a call of any length.
#[test]
fn a_recording_allocates_no_more_than_its_queue() {
    const FRAMES_MAX: u64 = 252;
    let file = made_up::file(&made_up::tensors(5));
    let model = Arc::new(Model::from_onnx(&file).unwrap());
    let mut leg = Leg::new(Codec::Pcmu, None, &model);
    let tape = Memory::default();
    let recorder = Recorder::start(tape.clone(), 8000).unwrap();
    assert!(leg.stream.record(recorder).is_none());
    let counted = allocations_in(|| {
        for _ in 0..3000 {
            leg.tick();
        }
    });
    assert!((1..=FRAMES_MAX).contains(&counted), "{counted}");
    let recording = leg.stream.close().unwrap().finish().unwrap();
    assert_eq!(recording.samples, 3003 * 160);
    assert_eq!(tape.snapshot().len() as u64, 44 + 4 * recording.samples);
}
