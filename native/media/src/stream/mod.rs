//! One leg: packets in, packets out, events up. Sans-IO: the engine gives it packets and the time.

mod bridged;
mod echo_path;
mod format;
mod incoming;
mod outgoing;
mod pace;

use rtp::packet::{HEADER_LEN, RtpPacket};
use rtp::telephone_event::{Digit, PressError};

pub use self::format::{Coding, CodingError, Format, TelephoneEvent};
pub use self::outgoing::Written;

use self::incoming::Incoming;
use self::outgoing::Outgoing;
use crate::activity::ActivityChange;
use crate::bridging::BridgingStats;
use crate::jitter::ListeningStats;
pub use crate::playout::FRAME_MAX;
use crate::playout::{Chunk, Playout, PlayoutEvent};
use crate::recorder::Recorder;
use crate::speech::{SpeechCutter, SpeechEvent, SpeechParams};
use crate::taping::Tape;

/// Length of a frame and of the tick.
pub const FRAME_US: u64 = 20_000;
/// Frames per second.
pub const FRAMES_PER_S: u32 = 50;
/// Rate at which speech detection and transcription hear, and at which legs hear each other.
pub const LISTENED_HZ: u32 = 16_000;
/// Room for any packet that a leg sends: the longest payload is one Opus frame (RFC 6716 section 3.2.1).
pub const PACKET_MAX: usize = HEADER_LEN + 1276;

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
    /// The media thread of the leg has ended by a mistake of ours, and the leg with it.
    Failed,
    /// The recording has stopped.
    RecordingFailed(String),
    /// A browser is there: ICE and DTLS are done, and media begin.
    WebConnected {
        /// When.
        at_us: u64,
    },
    /// A browser has opened its channel for messages.
    ChannelOpened,
    /// A message of a browser.
    ChannelMessage(String),
    /// A browser has gone; with the reason.
    WebEnded(String),
}

/// What a leg has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamStats {
    /// Packets that were to be sent.
    pub sent: u64,
    /// Packets and keys beyond what a conversation can be.
    pub too_fast: u64,
    /// Packets that the codec could make nothing of.
    pub undecodable: u64,
    /// Frames that the codec could make no packet of.
    pub unencodable: u64,
    /// Packets with a payload type that was not agreed on.
    pub payload_type: u64,
    /// Packets while the session says that the peer sends nothing.
    pub not_receiving: u64,
    /// Packets before the session began.
    pub not_connected: u64,
    /// Frames left out because the engine was too late for them.
    pub skipped_frames: u64,
    /// Frames that were not sent while media were withheld.
    pub withheld_frames: u64,
    /// What the listening buffer saw.
    pub listening: ListeningStats,
    /// Total played.
    pub played_ms: u64,
    /// Windows judged for speech, and those of them that were too quiet to trouble the model with.
    pub windows: (u64, u64),
    /// Windows with speech that were our own echo, and began no speech.
    pub echoes: u64,
    /// Frames that the recorder had no room for.
    pub recording_dropped: u64,
}

/// One leg.
#[derive(Debug)]
pub struct Stream {
    media_timeout_us: u64,
    format: Option<Format>,
    incoming: Incoming,
    outgoing: Outgoing,
    tape: Option<Tape>,
    last_packet_us: Option<u64>,
    timed_out: bool,
    /// Nothing is sent for now, whatever was agreed on.
    withheld: bool,
    stats: StreamStats,
}

impl Stream {
    /// A leg without media yet.
    ///
    /// # Panics
    /// Never: 8 kHz is a rate of the playout.
    pub fn new(params: &StreamParams) -> Self {
        Self {
            media_timeout_us: params.media_timeout_ms.saturating_mul(1000),
            format: None,
            incoming: Incoming::new(params),
            outgoing: Outgoing::new(params),
            tape: None,
            last_packet_us: None,
            timed_out: false,
            withheld: false,
            stats: StreamStats::default(),
        }
    }

    /// Begin media, or change them after a re-INVITE. `coding` is the codec of `format` in its initial state; where the
    /// codec stays, the running one goes on and this one is not needed.
    pub fn connect(&mut self, now_us: u64, format: Format, coding: Coding) {
        if self.format.is_none_or(|before| before.codec != format.codec) {
            let Coding {
                codec,
                decoder,
                encoder,
                to_listened,
                from_listened,
            } = coding;
            self.incoming.set_decoding(codec, decoder, to_listened);
            self.outgoing.set_encoding(codec, encoder, from_listened);
        }
        if let Some(event) = format.telephone_event {
            self.incoming.set_event_clock(event.clock_hz);
            self.outgoing.set_event_clock(event.clock_hz);
        }
        self.format = Some(format);
        self.last_packet_us = Some(now_us);
        self.timed_out = false;
    }

    /// Record both sides at this rate from the next tick on. Returns the recording that this one replaces, ended.
    pub fn record(&mut self, recorder: Recorder) -> Option<Recorder> {
        self.tape.replace(Tape::new(recorder)).map(Tape::finish)
    }

    /// The leg is over. Returns its recording, ended.
    pub fn close(self) -> Option<Recorder> {
        self.tape.map(Tape::finish)
    }

    /// Append a chunk to the playout.
    pub fn play(&mut self, chunk: Chunk) {
        self.outgoing.playout.enqueue(chunk);
    }

    /// The playout, for pause, resume and flush.
    pub fn playout(&mut self) -> &mut Playout {
        &mut self.outgoing.playout
    }

    /// Press a key at the peer (RFC 4733), after those that wait.
    ///
    /// # Errors
    /// When it is no key, too short or long, or when too many wait.
    pub fn press(&mut self, digit: char, duration_ms: u32) -> Result<(), PressError> {
        self.outgoing.press(digit, duration_ms)
    }

    /// Whether the session has us send.
    pub fn is_sending(&self) -> bool {
        self.format.is_some_and(|format| format.send)
    }

    /// Send nothing for now, or send again: as on hold, what is queued waits. Returns whether this is news of sending nothing.
    pub fn withhold(&mut self, withheld: bool) -> bool {
        let before = std::mem::replace(&mut self.withheld, withheld);
        withheld && !before
    }

    /// Silence on the wire after which the caller is taken to be gone; 0: never.
    pub fn media_timeout_us(&self) -> u64 {
        self.media_timeout_us
    }

    /// Others hear this leg from now on, or no longer: its audio goes through a bridging buffer beside the listening one.
    pub fn set_bridged(&mut self, bridged: bool) {
        self.incoming.set_bridged(bridged);
    }

    /// The next 20 ms of what others hear of this leg, at [`LISTENED_HZ`]; once per tick.
    pub fn contribute(&mut self, now_us: u64, frame: &mut [i16]) {
        self.incoming.contribute(now_us, frame);
    }

    /// What the bridging buffer saw, while there is one.
    pub fn bridging_stats(&self) -> Option<BridgingStats> {
        self.incoming.bridging_stats()
    }

    /// Our synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.outgoing.ssrc
    }

    /// Take another synchronisation source: the peer has the same (RFC 3550 section 8.2).
    pub fn change_ssrc(&mut self, ssrc: u32) {
        self.outgoing.ssrc = ssrc;
    }

    /// Packets that came too late for the listening buffer.
    pub fn late(&self) -> u64 {
        self.incoming.listening_stats().late
    }

    /// What was counted so far.
    pub fn stats(&self) -> StreamStats {
        StreamStats {
            listening: self.incoming.listening_stats(),
            too_fast: self.incoming.too_fast,
            undecodable: self.incoming.undecodable(),
            unencodable: self.outgoing.unencodable,
            played_ms: self.outgoing.playout.played_ms(),
            windows: self
                .incoming
                .speech
                .as_ref()
                .map_or((0, 0), |speech| speech.windows()),
            echoes: self.incoming.speech.as_ref().map_or(0, |speech| speech.echoes()),
            recording_dropped: self.tape.as_ref().map_or(0, Tape::dropped_frames),
            ..self.stats
        }
    }

    /// Lend the speech side, to be judged together with those of other legs; between packets and ticks only.
    pub fn lend_speech(&mut self) -> Option<Box<SpeechCutter>> {
        self.incoming.speech.take()
    }

    /// Give it back; its events are appended.
    pub fn take_back_speech(&mut self, mut speech: Box<SpeechCutter>, events: &mut Vec<StreamEvent>) {
        events.extend(speech.drain_events().map(StreamEvent::Speech));
        self.incoming.speech = Some(speech);
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
        if !format.accepts(packet.header.payload_type) {
            self.stats.payload_type += 1;
            return false;
        }
        self.last_packet_us = Some(now_us);
        self.timed_out = false;
        if format.receive {
            self.incoming
                .packet(now_us, &format, packet, self.tape.as_mut(), events);
        } else {
            self.stats.not_receiving += 1;
        }
        true
    }

    /// The 20 ms tick: time passes, and the next packet is written to `packet`, which has room for [`PACKET_MAX`]. `mix`:
    /// a frame of what other legs contribute, at [`LISTENED_HZ`]. Returns what there is to send.
    pub fn tick(
        &mut self,
        now_us: u64,
        mix: Option<&[i16]>,
        packet: &mut [u8],
        events: &mut Vec<StreamEvent>,
    ) -> Option<Written> {
        if let Some(format) = self.format {
            self.incoming.release(now_us, self.tape.as_mut(), events);
            self.watch_the_clock(now_us, &format, events);
        }
        let agreed = self.format.filter(|format| format.send);
        let sending = agreed.filter(|_| !self.withheld);
        self.stats.withheld_frames += u64::from(agreed.is_some() && sending.is_none());
        let sounds = self.outgoing.next_frame(sending.is_some(), mix);
        let (frame, rate_hz) = self.outgoing.frame();
        self.incoming.said(frame, rate_hz);
        let playout = std::iter::from_fn(|| self.outgoing.playout.poll_event());
        events.extend(playout.map(|event| StreamEvent::Playout(event, now_us)));
        self.record_frame(events);
        let written = self.outgoing.write(sending.as_ref(), sounds, packet)?;
        self.stats.sent += 1;
        Some(written)
    }

    /// So many ticks will not come: the engine was too late for them. Our media clock goes on.
    pub fn skip(&mut self, frames: u64) {
        self.stats.skipped_frames += frames;
        self.outgoing.skip(frames);
        if let Some(tape) = &mut self.tape {
            for _ in 0..frames {
                tape.tick_silence();
            }
        }
    }

    fn watch_the_clock(&mut self, now_us: u64, format: &Format, events: &mut Vec<StreamEvent>) {
        let Some(last_packet_us) = self.last_packet_us else {
            return;
        };
        let silent_us = now_us.saturating_sub(last_packet_us);
        self.incoming.watch_the_clock(now_us, silent_us, events);
        let limit_us = self.media_timeout_us;
        if format.receive && limit_us > 0 && silent_us >= limit_us && !self.timed_out {
            self.timed_out = true;
            events.push(StreamEvent::MediaTimeout {
                silent_ms: silent_us / 1000,
            });
        }
    }

    fn record_frame(&mut self, events: &mut Vec<StreamEvent>) {
        let Some(tape) = &mut self.tape else { return };
        let (frame, rate_hz) = self.outgoing.frame();
        tape.tick(frame, rate_hz);
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
