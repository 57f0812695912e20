//! One leg: packets in, packets out, events up. Sans-IO: the engine gives it packets and the time.

use crate::activity::{ActivityChange, ActivityDetector};
use crate::jitter::{ListeningBuffer, ListeningStats, Release, octet_duration};
use crate::playout::{Chunk, FRAME, LEG_RATE_HZ, Playout, PlayoutEvent};
use crate::recorder::Recorder;
use crate::speech::{SpeechCutter, SpeechEvent, SpeechParams};
use crate::taping::Tape;
use codec::g711::{Law, decode_into, encode_into};
use codec::resample::Resampler;
use rtp::packet::{HEADER_LEN, RtpHeader, RtpPacket};
use rtp::telephone_event::{Digit, DtmfReceiver};

/// Length of a frame and of the tick.
pub const FRAME_US: u64 = 20_000;
/// Size of an outgoing packet: header and 20 ms of G.711.
pub const PACKET_LEN: usize = HEADER_LEN + FRAME;
/// Without a packet for this long in the middle of speech, silence is assumed.
const SPEECH_STALL_US: u64 = 120_000;
const CONCEALED_FRAMES: u32 = 3;
/// Comfort noise (RFC 3389): silence, but it takes sequence numbers.
const COMFORT_NOISE: u8 = 13;

/// How a leg is set up; fixed for its life.
#[derive(Debug, Clone)]
pub struct StreamParams {
    /// Speech detection; none where nobody listens.
    pub speech: Option<SpeechParams>,
    /// Silence on the wire after which the caller is taken to be gone; 0: never.
    pub media_timeout_ms: u64,
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

/// What a leg has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Packets that were to be sent.
    pub sent: u64,
    /// Packets with a payload type that was not agreed on.
    pub payload_type: u64,
    /// Packets while the session says that the peer sends nothing.
    pub not_receiving: u64,
    /// Packets before the session began.
    pub not_connected: u64,
    /// Frames left out because the engine was too late for them.
    pub skipped_frames: u64,
    /// What the listening buffer saw.
    pub listening: ListeningStats,
    /// Total played.
    pub played_ms: u64,
    /// Windows judged for speech, and those of them that were too quiet to trouble the model with.
    pub windows: (u64, u64),
    /// Frames that the recorder had no room for.
    pub recording_dropped: u64,
}

/// One leg.
#[derive(Debug)]
pub struct Stream {
    params: StreamParams,
    format: Option<Format>,
    buffer: ListeningBuffer,
    /// New beginnings that the tape knows of.
    resets: u64,
    to_16k: Resampler,
    speech: Option<Box<SpeechCutter>>,
    activity: ActivityDetector,
    dtmf: DtmfReceiver,
    playout: Playout,
    tape: Option<Tape>,
    sequence: u16,
    timestamp: u32,
    talking: bool,
    last_packet_us: Option<u64>,
    timed_out: bool,
    /// Silence that was assumed by the clock and will be in the timestamps when packets come again.
    assumed_samples: u32,
    stats: StreamStats,
    // Working memory, reused.
    decoded: Vec<i16>,
    last_good: Vec<i16>,
    concealed: u32,
    wide: Vec<i16>,
}

impl Stream {
    /// A leg without media yet.
    ///
    /// # Panics
    /// Never: 8 and 16 kHz are rates of the resampler.
    pub fn new(params: StreamParams) -> Self {
        Self {
            format: None,
            buffer: ListeningBuffer::new(LEG_RATE_HZ, octet_duration),
            resets: 0,
            to_16k: Resampler::new(LEG_RATE_HZ, 16_000).expect("both rates are supported"),
            speech: params.speech.map(|speech| Box::new(SpeechCutter::new(speech))),
            activity: ActivityDetector::default(),
            dtmf: DtmfReceiver::new(LEG_RATE_HZ),
            playout: Playout::new(),
            tape: None,
            sequence: params.first_sequence,
            timestamp: params.first_timestamp,
            talking: false,
            last_packet_us: None,
            timed_out: false,
            assumed_samples: 0,
            stats: StreamStats::default(),
            decoded: Vec::with_capacity(2 * FRAME),
            last_good: Vec::with_capacity(2 * FRAME),
            concealed: 0,
            wide: Vec::with_capacity(4 * FRAME),
            params,
        }
    }

    /// Begin media, or change them after a re-INVITE.
    pub fn connect(&mut self, now_us: u64, format: Format) {
        self.format = Some(format);
        self.last_packet_us = Some(now_us);
        self.timed_out = false;
    }

    /// Record both sides from the next tick on. Returns the recording that this one replaces, ended.
    pub fn record(&mut self, recorder: Recorder) -> Option<Recorder> {
        self.tape.replace(Tape::new(recorder)).map(Tape::finish)
    }

    /// The leg is over. Returns its recording, ended.
    pub fn close(self) -> Option<Recorder> {
        self.tape.map(Tape::finish)
    }

    /// Append a chunk to the playout.
    pub fn play(&mut self, chunk: Chunk) {
        self.playout.enqueue(chunk);
    }

    /// The playout, for pause, resume and flush.
    pub fn playout(&mut self) -> &mut Playout {
        &mut self.playout
    }

    /// What was counted so far.
    pub fn stats(&self) -> StreamStats {
        StreamStats {
            listening: self.buffer.stats(),
            played_ms: self.playout.played_ms(),
            windows: self.speech.as_ref().map_or((0, 0), |speech| speech.windows()),
            recording_dropped: self.tape.as_ref().map_or(0, Tape::dropped_frames),
            ..self.stats
        }
    }

    /// Lend the speech side, to be judged together with those of other legs; between packets and ticks only.
    pub fn lend_speech(&mut self) -> Option<Box<SpeechCutter>> {
        self.speech.take()
    }

    /// Give it back; its events are appended.
    pub fn take_back_speech(&mut self, mut speech: Box<SpeechCutter>, events: &mut Vec<StreamEvent>) {
        events.extend(speech.drain_events().map(StreamEvent::Speech));
        self.speech = Some(speech);
    }

    /// Take a packet that may be the peer's. Returns whether it is one of the session.
    pub fn handle_packet(
        &mut self,
        now_us: u64,
        packet: &RtpPacket<'_>,
        events: &mut Vec<StreamEvent>,
    ) -> bool {
        let Some(format) = self.format else {
            self.stats.not_connected += 1;
            return false;
        };
        let kind = packet.header.payload_type;
        let is_event = format.telephone_event == Some(kind);
        let is_noise = kind == COMFORT_NOISE && format.payload_type != COMFORT_NOISE;
        if kind != format.payload_type && !is_event && !is_noise {
            self.stats.payload_type += 1;
            return false;
        }
        self.last_packet_us = Some(now_us);
        self.timed_out = false;
        if !format.receive {
            self.stats.not_receiving += 1;
            return true;
        }
        if is_event {
            self.buffer.push_aside(now_us, &packet.header);
            if let Some(digit) = self.dtmf.push(packet.header.timestamp, packet.payload) {
                events.push(StreamEvent::from(digit));
            }
        } else if is_noise || packet.payload.is_empty() {
            self.buffer.push_aside(now_us, &packet.header);
        } else {
            self.buffer.push(now_us, &packet.header, packet.payload);
        }
        self.release(now_us, format.law, events);
        true
    }

    /// Release from the listening buffer what is due, and let it be heard.
    fn release(&mut self, now_us: u64, law: Law, events: &mut Vec<StreamEvent>) {
        loop {
            let (at_us, heard) = match self.buffer.poll(now_us) {
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
                    (arrival_us, true)
                }
                Some(Release::Lost { samples, .. }) => {
                    self.conceal(samples as usize);
                    (now_us, true)
                }
                Some(Release::Silence { samples, .. }) => {
                    self.decoded.clear();
                    self.decoded.resize(samples as usize, 0);
                    (now_us, false)
                }
            };
            if let Some(tape) = &mut self.tape {
                let resets = self.buffer.stats().reset;
                if std::mem::replace(&mut self.resets, resets) != resets {
                    tape.restart();
                }
                tape.receive(&self.decoded, heard);
            }
            if !heard {
                let assumed = self.assumed_samples.min(self.decoded.len() as u32);
                self.assumed_samples -= assumed;
                self.decoded.truncate(self.decoded.len() - assumed as usize);
            }
            self.listen(at_us);
        }
    }

    /// A loss: the last packet again, fading out over three packets (60 ms), then silence.
    fn conceal(&mut self, samples: usize) {
        self.decoded.clear();
        while self.decoded.len() < samples {
            self.concealed = self.concealed.saturating_add(1);
            let take = (samples - self.decoded.len()).min(self.last_good.len().max(1));
            if self.concealed > CONCEALED_FRAMES || self.last_good.is_empty() {
                self.decoded.resize(samples, 0);
                return;
            }
            let divisor = 1 << self.concealed;
            self.decoded
                .extend(self.last_good[..take].iter().map(|&sample| sample / divisor));
        }
    }

    /// Give `decoded` to the speech side.
    fn listen(&mut self, at_us: u64) {
        let Some(speech) = &mut self.speech else { return };
        self.wide.clear();
        self.to_16k.process(&self.decoded, &mut self.wide);
        speech.push(&self.wide, at_us);
    }

    /// The 20 ms tick: time passes, and the next packet is written to `packet`. Returns whether there is one to send.
    pub fn tick(
        &mut self,
        now_us: u64,
        packet: &mut [u8; PACKET_LEN],
        events: &mut Vec<StreamEvent>,
    ) -> bool {
        if let Some(format) = self.format {
            self.release(now_us, format.law, events);
            self.watch_the_clock(now_us, events);
        }
        let mut frame = [0_i16; FRAME];
        let sending = self.format.filter(|format| format.send);
        let sounds = sending.is_some() && self.playout.next_frame(&mut frame).samples > 0;
        if sending.is_none() {
            // Nobody hears anything: what is queued waits, but a flush is answered.
            self.playout.settle();
        }
        let playout = std::iter::from_fn(|| self.playout.poll_event());
        events.extend(playout.map(|event| StreamEvent::Playout(event, now_us)));
        self.record_frame(&frame, events);
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(FRAME as u32);
        let talked = std::mem::replace(&mut self.talking, sounds);
        let Some(format) = sending else { return false };
        let header = RtpHeader {
            marker: sounds && !talked,
            payload_type: format.payload_type,
            sequence: self.sequence,
            timestamp,
            ssrc: self.params.ssrc,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.stats.sent += 1;
        header.write(&mut packet[..HEADER_LEN]);
        encode_into(format.law, &frame, &mut packet[HEADER_LEN..]);
        true
    }

    /// So many ticks will not come: the engine was too late for them. Our media clock goes on.
    pub fn skip(&mut self, frames: u64) {
        self.stats.skipped_frames += frames;
        let samples = (frames as u32).wrapping_mul(FRAME as u32);
        self.timestamp = self.timestamp.wrapping_add(samples);
        if let Some(tape) = &mut self.tape {
            for _ in 0..frames {
                tape.tick(&[0; FRAME]);
            }
        }
    }

    fn watch_the_clock(&mut self, now_us: u64, events: &mut Vec<StreamEvent>) {
        if let Some(digit) = self.dtmf.poll(now_us) {
            events.push(StreamEvent::from(digit));
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
        let in_speech = self.speech.as_ref().is_some_and(|speech| speech.is_speech());
        if in_speech && silent_us > SPEECH_STALL_US {
            self.assumed_samples += FRAME as u32;
            self.decoded.clear();
            self.decoded.resize(FRAME, 0);
            self.listen(now_us);
        }
        let timeout_us = self.params.media_timeout_ms.saturating_mul(1000);
        let expecting = self.format.is_some_and(|format| format.receive);
        if expecting && timeout_us > 0 && silent_us >= timeout_us && !self.timed_out {
            self.timed_out = true;
            events.push(StreamEvent::MediaTimeout {
                silent_ms: silent_us / 1000,
            });
        }
    }

    fn record_frame(&mut self, sent: &[i16; FRAME], events: &mut Vec<StreamEvent>) {
        let Some(tape) = &mut self.tape else { return };
        tape.tick(sent);
        if let Some(reason) = tape.poll_error() {
            events.push(StreamEvent::RecordingFailed(reason));
            self.tape = None;
        }
    }
}

impl From<Digit> for StreamEvent {
    fn from(digit: Digit) -> Self {
        Self::Digit {
            digit: digit.digit,
            duration_ms: digit.duration_ms,
        }
    }
}
