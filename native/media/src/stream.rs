//! One leg: packets in, packets out, events up. Sans-IO: the engine gives it datagrams and the time.

use std::collections::VecDeque;
use std::sync::Arc;

use silero::{Model, Scratch};

use crate::activity::{ActivityChange, ActivityDetector};
use crate::g711::{Law, decode_into, encode_into};
use crate::jitter::{ListeningBuffer, ListeningStats, Release, octet_duration};
use crate::playout::{FRAME_SAMPLES, LEG_RATE_HZ, Playout, PlayoutError, PlayoutEvent};
use crate::recorder::Recorder;
use crate::resample::Resampler;
use crate::rtp::{HEADER_LEN, RtpError, RtpHeader, RtpPacket, is_rtcp};
use crate::speech::{SpeechCutter, SpeechEvent, SpeechParams};
use crate::telephone_event::DtmfReceiver;

/// Length of a frame and of the tick.
pub const FRAME_US: u64 = 20_000;
/// Size of an outgoing packet: header and 20 ms of G.711.
pub const PACKET_LEN: usize = HEADER_LEN + FRAME_SAMPLES;
/// Without a packet for this long in the middle of speech, silence is assumed.
const SPEECH_STALL_US: u64 = 120_000;
/// Received audio that waits for the recorder's tick: 400 ms.
const RECORD_BACKLOG_SAMPLES: usize = 3200;
const CONCEALED_FRAMES: u32 = 3;

/// How a leg is set up; fixed for its life.
#[derive(Debug, Clone)]
pub struct StreamParams {
    /// Speech detection; none where nobody listens.
    pub speech: Option<(Arc<Model>, SpeechParams)>,
    /// Silence on the wire after which the caller is taken to be gone; 0: never.
    pub media_timeout_ms: u64,
    /// Limit of the playout.
    pub max_playout_ms: u64,
    /// Whether changes of audibility are reported.
    pub report_activity: bool,
    /// Our synchronisation source.
    pub ssrc: u32,
    /// Our first sequence number.
    pub first_sequence: u16,
    /// Our first timestamp.
    pub first_timestamp: u32,
}

/// What offer and answer agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The codec.
    pub law: Law,
    /// Its payload type, both ways.
    pub payload_type: u8,
    /// The payload type of telephone-event.
    pub telephone_event: Option<u8>,
    /// Whether we send.
    pub send: bool,
    /// Whether we listen.
    pub receive: bool,
}

/// What happened on a leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// Speech of the caller.
    Speech(SpeechEvent),
    /// The playout went on; with the time of the tick.
    Playout(PlayoutEvent, u64),
    /// A key was pressed.
    Digit {
        /// Which.
        digit: char,
        /// For how long.
        duration_ms: u32,
    },
    /// Audibility changed.
    Activity(ActivityChange),
    /// Nothing has come for the media timeout.
    MediaTimeout {
        /// For how long.
        silent_ms: u64,
    },
    /// The recording has stopped.
    RecordingFailed(String),
}

/// Packets dropped by a leg, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropStats {
    /// By [`RtpError`].
    pub malformed: [u64; RtpError::COUNT],
    /// RTCP, which is not evaluated yet.
    pub rtcp: u64,
    /// A payload type that was not agreed on.
    pub payload_type: u64,
    /// Packets while the session says that the peer sends nothing.
    pub not_receiving: u64,
}

/// One leg.
#[derive(Debug)]
pub struct Stream {
    params: StreamParams,
    format: Option<Format>,
    buffer: ListeningBuffer,
    to_16k: Resampler,
    speech: Option<SpeechCutter>,
    activity: ActivityDetector,
    dtmf: DtmfReceiver,
    playout: Playout,
    recorder: Option<Recorder>,
    received: VecDeque<i16>,
    sequence: u16,
    timestamp: u32,
    talking: bool,
    last_packet_us: Option<u64>,
    timed_out: bool,
    /// Silence that was assumed by the clock and will be in the timestamps when packets come again.
    assumed_samples: u32,
    drops: DropStats,
    sent: u64,
    // Working memory, reused.
    decoded: Vec<i16>,
    last_good: Vec<i16>,
    concealed: u32,
    wide: Vec<i16>,
    speech_events: Vec<SpeechEvent>,
    playout_events: Vec<PlayoutEvent>,
}

impl Stream {
    /// A leg without media yet.
    ///
    /// # Panics
    /// Never: 8 and 16 kHz are rates of the resampler.
    pub fn new(params: StreamParams) -> Self {
        let speech = params
            .speech
            .as_ref()
            .map(|(model, speech)| SpeechCutter::new(Arc::clone(model), *speech));
        Self {
            format: None,
            buffer: ListeningBuffer::new(LEG_RATE_HZ, octet_duration),
            to_16k: Resampler::new(LEG_RATE_HZ, 16_000).expect("both rates are supported"),
            speech,
            activity: ActivityDetector::default(),
            dtmf: DtmfReceiver::new(),
            playout: Playout::new(params.max_playout_ms),
            recorder: None,
            received: VecDeque::new(),
            sequence: params.first_sequence,
            timestamp: params.first_timestamp,
            talking: false,
            last_packet_us: None,
            timed_out: false,
            assumed_samples: 0,
            drops: DropStats::default(),
            sent: 0,
            decoded: Vec::with_capacity(2 * FRAME_SAMPLES),
            last_good: Vec::with_capacity(2 * FRAME_SAMPLES),
            concealed: 0,
            wide: Vec::with_capacity(4 * FRAME_SAMPLES),
            speech_events: Vec::new(),
            playout_events: Vec::new(),
            params,
        }
    }

    /// Begin media, or change them after a re-INVITE.
    pub fn connect(&mut self, format: Format, now_us: u64) {
        self.format = Some(format);
        self.last_packet_us = Some(now_us);
        self.timed_out = false;
    }

    /// Record both sides from the next tick on.
    pub fn record(&mut self, recorder: Recorder) {
        self.received.clear();
        self.recorder = Some(recorder);
    }

    /// The playout, for pause, resume, flush and its counters.
    pub fn playout(&mut self) -> &mut Playout {
        &mut self.playout
    }

    /// Append a chunk to the playout.
    ///
    /// # Errors
    /// As [`Playout::enqueue`].
    pub fn play(&mut self, mark: u64, rate_hz: u32, pcm: Vec<i16>) -> Result<(), PlayoutError> {
        self.playout.enqueue(mark, rate_hz, pcm)
    }

    /// Packets sent, packets dropped, and what the listening buffer saw.
    pub fn stats(&self) -> (u64, DropStats, ListeningStats) {
        (self.sent, self.drops, self.buffer.stats())
    }

    /// Take a datagram of this leg's peer. Returns whether it was media of the session.
    pub fn handle_packet(
        &mut self,
        scratch: &mut Scratch,
        now_us: u64,
        datagram: &[u8],
        events: &mut Vec<StreamEvent>,
    ) -> bool {
        if is_rtcp(datagram) {
            self.drops.rtcp += 1;
            return false;
        }
        let packet = match RtpPacket::parse(datagram) {
            Ok(packet) => packet,
            Err(error) => {
                self.drops.malformed[error as usize] += 1;
                return false;
            }
        };
        let Some(format) = self.format else {
            self.drops.not_receiving += 1;
            return false;
        };
        let kind = packet.header.payload_type;
        let is_event = format.telephone_event == Some(kind);
        if kind != format.payload_type && !is_event {
            self.drops.payload_type += 1;
            return false;
        }
        self.last_packet_us = Some(now_us);
        self.timed_out = false;
        if !format.receive {
            self.drops.not_receiving += 1;
            return true;
        }
        if is_event {
            self.buffer.push_aside(now_us, &packet.header);
            if let Some(digit) = self.dtmf.push(packet.header.timestamp, packet.payload) {
                events.push(StreamEvent::Digit {
                    digit: digit.digit,
                    duration_ms: u32::from(digit.duration) / (LEG_RATE_HZ / 1000),
                });
            }
        } else {
            self.buffer.push(now_us, &packet.header, packet.payload);
        }
        self.release(scratch, now_us, format.law, events);
        true
    }

    /// Release from the listening buffer what is due, and let it be heard.
    fn release(&mut self, scratch: &mut Scratch, now_us: u64, law: Law, events: &mut Vec<StreamEvent>) {
        loop {
            let at_us = match self.buffer.poll(now_us) {
                None => return,
                Some(Release::Packet {
                    payload, arrival_us, ..
                }) => {
                    self.decoded.resize(payload.len(), 0);
                    decode_into(law, payload, &mut self.decoded);
                    self.last_good.clone_from(&self.decoded);
                    self.concealed = 0;
                    self.assumed_samples = 0;
                    if self.params.report_activity
                        && let Some(change) = self.activity.packet(&self.decoded, arrival_us)
                    {
                        events.push(StreamEvent::Activity(change));
                    }
                    arrival_us
                }
                Some(Release::Lost { samples, .. }) => {
                    self.conceal(samples as usize);
                    now_us
                }
                Some(Release::Silence { samples, .. }) => {
                    let assumed = samples.min(self.assumed_samples);
                    self.assumed_samples -= assumed;
                    self.decoded.clear();
                    self.decoded.resize((samples - assumed) as usize, 0);
                    now_us
                }
            };
            self.hear(scratch, at_us, events);
        }
    }

    /// A loss: the last packet again, fading out over three packets (60 ms), then silence.
    fn conceal(&mut self, samples: usize) {
        self.decoded.clear();
        while self.decoded.len() < samples {
            self.concealed += 1;
            let take = (samples - self.decoded.len()).min(self.last_good.len().max(1));
            if self.concealed > CONCEALED_FRAMES || self.last_good.is_empty() {
                self.decoded.resize(self.decoded.len() + take, 0);
                continue;
            }
            let divisor = 1 << self.concealed;
            self.decoded
                .extend(self.last_good[..take].iter().map(|&sample| sample / divisor));
        }
    }

    /// Give `decoded` to the recorder's queue and to the speech detector.
    fn hear(&mut self, scratch: &mut Scratch, at_us: u64, events: &mut Vec<StreamEvent>) {
        if self.recorder.is_some() {
            self.received.extend(&self.decoded);
            let excess = self.received.len().saturating_sub(RECORD_BACKLOG_SAMPLES);
            self.received.drain(..excess);
        }
        let Some(speech) = &mut self.speech else { return };
        self.wide.clear();
        self.to_16k.process(&self.decoded, &mut self.wide);
        speech.push(scratch, &self.wide, at_us, &mut self.speech_events);
        events.extend(self.speech_events.drain(..).map(StreamEvent::Speech));
    }

    /// The 20 ms tick: time passes, and the next packet is written to `packet`. Returns whether there is one to send.
    pub fn tick(
        &mut self,
        scratch: &mut Scratch,
        now_us: u64,
        packet: &mut [u8; PACKET_LEN],
        events: &mut Vec<StreamEvent>,
    ) -> bool {
        let Some(format) = self.format else { return false };
        self.release(scratch, now_us, format.law, events);
        self.watch_the_clock(scratch, now_us, events);
        let mut frame = [0_i16; FRAME_SAMPLES];
        let sounds = format.send && self.playout.next_frame(&mut frame, &mut self.playout_events);
        events.extend(
            self.playout_events
                .drain(..)
                .map(|event| StreamEvent::Playout(event, now_us)),
        );
        self.record_frame(&frame, events);
        let header = RtpHeader {
            marker: sounds && !self.talking,
            payload_type: format.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.params.ssrc,
        };
        self.talking = sounds;
        self.timestamp = self.timestamp.wrapping_add(FRAME_SAMPLES as u32);
        if !format.send {
            return false;
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.sent += 1;
        header.write(&mut packet[..HEADER_LEN]);
        encode_into(format.law, &frame, &mut packet[HEADER_LEN..]);
        true
    }

    fn watch_the_clock(&mut self, scratch: &mut Scratch, now_us: u64, events: &mut Vec<StreamEvent>) {
        if let Some(digit) = self.dtmf.poll(now_us) {
            events.push(StreamEvent::Digit {
                digit: digit.digit,
                duration_ms: u32::from(digit.duration) / (LEG_RATE_HZ / 1000),
            });
        }
        if self.params.report_activity
            && let Some(change) = self.activity.poll(now_us)
        {
            events.push(StreamEvent::Activity(change));
        }
        let Some(last_packet_us) = self.last_packet_us else {
            return;
        };
        let silent_us = now_us.saturating_sub(last_packet_us);
        let in_speech = self.speech.as_ref().is_some_and(SpeechCutter::is_speech);
        if in_speech && silent_us > SPEECH_STALL_US {
            self.assumed_samples += FRAME_SAMPLES as u32;
            self.decoded.clear();
            self.decoded.resize(FRAME_SAMPLES, 0);
            self.hear(scratch, now_us, events);
        }
        let timeout_us = self.params.media_timeout_ms * 1000;
        if timeout_us > 0 && silent_us >= timeout_us && !self.timed_out {
            self.timed_out = true;
            events.push(StreamEvent::MediaTimeout {
                silent_ms: silent_us / 1000,
            });
        }
    }

    fn record_frame(&mut self, sent: &[i16; FRAME_SAMPLES], events: &mut Vec<StreamEvent>) {
        let Some(recorder) = &mut self.recorder else {
            return;
        };
        let mut received = [0_i16; FRAME_SAMPLES];
        for (to, from) in received
            .iter_mut()
            .zip(self.received.drain(..self.received.len().min(FRAME_SAMPLES)))
        {
            *to = from;
        }
        recorder.push(&received, sent);
        if let Some(reason) = recorder.poll_error() {
            events.push(StreamEvent::RecordingFailed(reason));
            self.recorder = None;
        }
    }
}
