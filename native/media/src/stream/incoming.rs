//! What a leg hears: packets to samples, in order and without holes, and what is made of them.

use codec::resample::Resampler;
use codec::{Codec, Decoder};
use rtp::packet::RtpPacket;
use rtp::telephone_event::{Digit, DtmfReceiver};

use super::bridged::Bridged;
use super::echo_path::EchoPath;
use super::format::Format;
use super::pace::Pace;
use super::{FRAME_US, LISTENED_HZ, StreamEvent, StreamParams};
use crate::activity::ActivityDetector;
use crate::bridging::BridgingStats;
use crate::jitter::{ListeningBuffer, ListeningStats, Release};
use crate::speech::SpeechCutter;
use crate::taping::Tape;

/// Without a packet for this long in the middle of speech, silence is assumed.
const SPEECH_STALL_US: u64 = 120_000;
/// Samples of a frame of what speech detection hears.
const LISTENED_FRAME: usize = (LISTENED_HZ as u64 * FRAME_US / 1_000_000) as usize;
/// The clock of a leg that was never connected; nothing is timed by it.
const NO_CLOCK_HZ: u32 = 8000;

/// The receiving half of a codec.
#[derive(Debug)]
struct Decoding {
    decoder: Decoder,
    to_listened: Resampler,
    /// Samples per second of the decoder, and ticks per second of the RTP clock.
    decoded_hz: u32,
    clock_hz: u32,
    duration: fn(&[u8]) -> u32,
}

/// The receiving side of a leg.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: ListeningBuffer,
    /// What buffers of earlier codecs counted.
    before: ListeningStats,
    decoding: Option<Decoding>,
    /// While others hear this leg.
    bridged: Option<Box<Bridged>>,
    codec: Option<Codec>,
    dtmf: DtmfReceiver,
    event_clock_hz: u32,
    pub(super) speech: Option<Box<SpeechCutter>>,
    /// What we say, on its way back: with speech detection only.
    echo: Option<Box<EchoPath>>,
    activity: Option<ActivityDetector>,
    pace: Pace,
    /// Packets and keys beyond what a conversation can be.
    pub(super) too_fast: u64,
    /// Packets that the decoder could make nothing of.
    undecodable: u64,
    /// New beginnings that the tape knows of.
    resets: u64,
    /// Silence that was assumed by the clock and will be in the timestamps when packets come again; samples as listened to.
    assumed: u32,
    // Working memory, reused.
    decoded: Vec<i16>,
    listened: Vec<i16>,
}

impl Incoming {
    pub(super) fn new(params: &StreamParams) -> Self {
        Self {
            buffer: ListeningBuffer::new(NO_CLOCK_HZ, |_| 0),
            before: ListeningStats::default(),
            decoding: None,
            bridged: None,
            codec: None,
            dtmf: DtmfReceiver::new(NO_CLOCK_HZ),
            event_clock_hz: NO_CLOCK_HZ,
            speech: params.speech.map(|speech| Box::new(SpeechCutter::new(speech))),
            echo: params.speech.map(|_| Box::default()),
            activity: params.report_activity.then(ActivityDetector::default),
            pace: Pace::new(),
            too_fast: 0,
            undecodable: 0,
            resets: 0,
            assumed: 0,
            decoded: Vec::with_capacity(2 * LISTENED_FRAME),
            listened: Vec::with_capacity(2 * LISTENED_FRAME),
        }
    }

    /// Another codec; what waits in the buffer was encoded with the one before, and is lost with it.
    pub(super) fn set_decoding(&mut self, codec: Codec, decoder: Decoder, to_listened: Resampler) {
        let (clock_hz, duration) = (codec.clock_hz(), codec.duration());
        let buffer = ListeningBuffer::new(clock_hz, duration);
        self.before += std::mem::replace(&mut self.buffer, buffer).stats();
        self.resets = 0;
        self.codec = Some(codec);
        self.set_bridged(self.bridged.is_some());
        self.decoding = Some(Decoding {
            decoder,
            to_listened,
            decoded_hz: codec.decoded_hz(),
            clock_hz,
            duration,
        });
    }

    /// Others hear this leg from now on, or no longer; with a new codec, anew.
    pub(super) fn set_bridged(&mut self, bridged: bool) {
        let codec = self.codec.filter(|_| bridged);
        self.bridged = codec.and_then(Bridged::new).map(Box::new);
    }

    /// The next 20 ms of what others hear; silence where there is nothing.
    pub(super) fn contribute(&mut self, now_us: u64, frame: &mut [i16]) {
        match &mut self.bridged {
            Some(bridged) => bridged.pull(now_us, frame),
            None => frame.fill(0),
        }
    }

    /// What the bridging buffer saw, while there is one.
    pub(super) fn bridging_stats(&self) -> Option<BridgingStats> {
        self.bridged.as_ref().map(|bridged| bridged.stats())
    }

    /// The clock of key presses.
    pub(super) fn set_event_clock(&mut self, clock_hz: u32) {
        if clock_hz != self.event_clock_hz {
            (self.dtmf, self.event_clock_hz) = (DtmfReceiver::new(clock_hz), clock_hz);
        }
    }

    pub(super) fn listening_stats(&self) -> ListeningStats {
        self.before + self.buffer.stats()
    }

    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Take a packet of the session.
    pub(super) fn packet(
        &mut self,
        now_us: u64,
        format: &Format,
        packet: &RtpPacket<'_>,
        tape: Option<&mut Tape>,
        events: &mut Vec<StreamEvent>,
    ) {
        let header = &packet.header;
        let is_audio = header.payload_type == format.payload_type;
        let media_ms = if is_audio {
            self.duration_ms(packet.payload)
        } else {
            0
        };
        if !self.pace.admits(now_us, media_ms) {
            self.too_fast += 1;
            return;
        }
        let event = format
            .telephone_event
            .filter(|event| event.payload_type == header.payload_type);
        let bridged = self.bridged.as_mut();
        if event.is_some() {
            self.buffer.push_aside(now_us, header);
            if let Some(bridged) = bridged {
                bridged.push_aside(now_us, header, None);
            }
            let digit = self.dtmf.push(header.timestamp, packet.payload);
            self.press(now_us, digit, events);
        } else if header.payload_type != format.payload_type || packet.payload.is_empty() {
            self.buffer.push_aside(now_us, header);
            if let Some(bridged) = bridged {
                bridged.push_aside(now_us, header, Some(packet.payload));
            }
        } else {
            self.buffer.push(now_us, header, packet.payload);
            if let Some(bridged) = bridged {
                bridged.push(now_us, header, packet.payload);
            }
        }
        self.release(now_us, tape, events);
    }

    fn press(&mut self, now_us: u64, digit: Option<Digit>, events: &mut Vec<StreamEvent>) {
        let Some(digit) = digit else { return };
        if self.pace.admits_key(now_us) {
            events.push(digit.into());
        } else {
            self.too_fast += 1;
        }
    }

    /// How long a payload lasts, as far as its codec can tell.
    fn duration_ms(&self, payload: &[u8]) -> u64 {
        self.decoding.as_ref().map_or(0, |decoding| {
            u64::from((decoding.duration)(payload)) * 1000 / u64::from(decoding.clock_hz)
        })
    }

    /// Release from the listening buffer what is due, and let it be heard.
    pub(super) fn release(
        &mut self,
        now_us: u64,
        mut tape: Option<&mut Tape>,
        events: &mut Vec<StreamEvent>,
    ) {
        let Some(decoding) = &mut self.decoding else {
            return;
        };
        loop {
            self.decoded.clear();
            let (at_us, heard) = match self.buffer.poll(now_us) {
                None => return,
                Some(Release::Packet {
                    payload, arrival_us, ..
                }) => {
                    if decoding.decoder.decode(payload, &mut self.decoded).is_err() {
                        self.undecodable += 1;
                        let samples = decoding.samples((decoding.duration)(payload));
                        decoding.decoder.conceal(samples, &mut self.decoded);
                    }
                    self.assumed = 0;
                    let change = self
                        .activity
                        .as_mut()
                        .and_then(|activity| activity.packet(&self.decoded, arrival_us));
                    events.extend(change.map(StreamEvent::Activity));
                    (arrival_us, true)
                }
                Some(Release::Lost { samples, .. }) => {
                    let samples = decoding.samples(samples);
                    match self.buffer.following() {
                        Some(following) => decoding.decoder.recover(following, samples, &mut self.decoded),
                        None => decoding.decoder.conceal(samples, &mut self.decoded),
                    }
                    (now_us, true)
                }
                Some(Release::Silence { samples, .. }) => {
                    self.decoded.resize(decoding.samples(samples), 0);
                    (now_us, false)
                }
            };
            if let Some(tape) = &mut tape {
                let resets = self.buffer.stats().reset;
                if std::mem::replace(&mut self.resets, resets) != resets {
                    tape.restart();
                }
                tape.receive(&self.decoded, decoding.decoded_hz, heard);
            }
            self.listened.clear();
            decoding.to_listened.process(&self.decoded, &mut self.listened);
            if !heard {
                let assumed = self.assumed.min(self.listened.len() as u32);
                self.assumed -= assumed;
                self.listened.drain(..assumed as usize);
            }
            if let Some(speech) = &mut self.speech {
                if let Some(echo) = &mut self.echo {
                    speech.set_echo(echo.heard(&self.listened));
                }
                if !heard {
                    speech.confirm_silence();
                }
                speech.push(&self.listened, at_us);
            }
        }
    }

    /// What we say in this tick.
    pub(super) fn said(&mut self, frame: &[i16], rate_hz: u32) {
        if let Some(echo) = &mut self.echo {
            echo.said(frame, rate_hz);
        }
    }

    /// A tick: what is due by the clock alone.
    pub(super) fn watch_the_clock(&mut self, now_us: u64, silent_us: u64, events: &mut Vec<StreamEvent>) {
        let digit = self.dtmf.poll(now_us);
        self.press(now_us, digit, events);
        let change = self.activity.as_mut().and_then(|activity| activity.poll(now_us));
        events.extend(change.map(StreamEvent::Activity));
        let Some(speech) = self.speech.as_mut().filter(|speech| speech.is_speech()) else {
            return;
        };
        if silent_us > SPEECH_STALL_US {
            self.assumed += LISTENED_FRAME as u32;
            speech.assume_silence(LISTENED_FRAME, now_us);
        }
    }
}

impl Decoding {
    /// Samples of the decoder in so many ticks of the RTP clock.
    fn samples(&self, ticks: u32) -> usize {
        (u64::from(ticks) * u64::from(self.decoded_hz) / u64::from(self.clock_hz)) as usize
    }
}
