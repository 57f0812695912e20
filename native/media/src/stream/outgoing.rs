//! What a leg says: one frame of the playout, and of what others contribute, per tick, as an RTP packet.

use codec::resample::Resampler;
use codec::{Codec, Encoder};
use rtp::packet::{HEADER_LEN, RtpHeader};
use rtp::telephone_event::{DtmfSender, PressError};

use super::format::Format;
use super::{FRAME_MAX, FRAMES_PER_S, StreamParams};
use crate::playout::Playout;

/// The rate before a codec is known.
const NO_RATE_HZ: u32 = 8000;

/// The sending half of a codec.
#[derive(Debug)]
struct Encoding {
    encoder: Encoder,
    from_listened: Resampler,
    rate_hz: u32,
    clock_hz: u32,
    /// Ticks of the RTP clock per frame.
    frame_ticks: u32,
}

/// A packet that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its header.
    pub header: RtpHeader,
    /// Its length with the header.
    pub length: usize,
}

/// The sending side of a leg.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) playout: Playout,
    encoding: Option<Encoding>,
    pub(super) ssrc: u32,
    sequence: u16,
    timestamp: u32,
    talking: bool,
    dtmf: DtmfSender,
    /// The clock of key presses, and the time by it.
    event_clock_hz: u32,
    event_timestamp: u32,
    /// Frames that the encoder refused; none, as far as we know, can be.
    pub(super) unencodable: u64,
    frame: [i16; FRAME_MAX],
    frame_len: usize,
    mixed: Vec<i16>,
}

impl Outgoing {
    pub(super) fn new(params: &StreamParams) -> Self {
        Self {
            playout: Playout::new(NO_RATE_HZ).expect("8 kHz can be played"),
            encoding: None,
            ssrc: params.ssrc,
            sequence: params.first_sequence,
            timestamp: params.first_timestamp,
            talking: false,
            dtmf: DtmfSender::new(NO_RATE_HZ),
            event_clock_hz: NO_RATE_HZ,
            event_timestamp: params.first_timestamp,
            unencodable: 0,
            frame: [0; FRAME_MAX],
            frame_len: (NO_RATE_HZ / FRAMES_PER_S) as usize,
            mixed: Vec::with_capacity(FRAME_MAX),
        }
    }

    /// Another codec; what is queued goes on in it.
    pub(super) fn set_encoding(&mut self, codec: Codec, encoder: Encoder, from_listened: Resampler) {
        let rate_hz = codec.encoded_hz();
        // Every codec's rate is one of the playout's.
        let _ = self.playout.set_rate(rate_hz);
        self.frame_len = (rate_hz / FRAMES_PER_S) as usize;
        self.encoding = Some(Encoding {
            encoder,
            from_listened,
            rate_hz,
            clock_hz: codec.clock_hz(),
            frame_ticks: codec.clock_hz() / FRAMES_PER_S,
        });
    }

    /// The clock of key presses; those that wait are forgotten with the old one.
    pub(super) fn set_event_clock(&mut self, clock_hz: u32) {
        if clock_hz != self.event_clock_hz {
            (self.dtmf, self.event_clock_hz) = (DtmfSender::new(clock_hz), clock_hz);
        }
    }

    /// Press a key at the peer, after those that wait.
    pub(super) fn press(&mut self, digit: char, duration_ms: u32) -> Result<(), PressError> {
        self.dtmf.press(digit, duration_ms)
    }

    /// The next frame: of the playout, with `mix` laid over it (a frame as listened to). Nothing is heard where nothing is sent.
    pub(super) fn next_frame(&mut self, sending: bool, mix: Option<&[i16]>) -> bool {
        let frame = &mut self.frame[..self.frame_len];
        if !sending {
            frame.fill(0);
            // Nobody hears anything: what is queued waits, but a flush is answered.
            self.playout.settle();
            return false;
        }
        let mut sounds = self.playout.next_frame(frame).samples > 0;
        if let (Some(mix), Some(encoding)) = (mix, &mut self.encoding) {
            self.mixed.clear();
            encoding.from_listened.process(mix, &mut self.mixed);
            for (sample, &other) in frame.iter_mut().zip(&self.mixed) {
                *sample = sample.saturating_add(other);
            }
            sounds |= self.mixed.iter().any(|&sample| sample != 0);
        }
        sounds
    }

    /// The frame that [`Outgoing::next_frame`] made, and its rate.
    pub(super) fn frame(&self) -> (&[i16], u32) {
        let rate_hz = self
            .encoding
            .as_ref()
            .map_or(NO_RATE_HZ, |encoding| encoding.rate_hz);
        (&self.frame[..self.frame_len], rate_hz)
    }

    /// Write the frame as a packet; the media clock goes on whether or not there is one.
    pub(super) fn write(
        &mut self,
        format: Option<&Format>,
        sounds: bool,
        packet: &mut [u8],
    ) -> Option<Written> {
        let timestamp = self.timestamp;
        let talked = std::mem::replace(&mut self.talking, sounds);
        let encoding = self.encoding.as_ref()?;
        let event_timestamp = self.event_timestamp(timestamp, encoding.clock_hz);
        self.timestamp = timestamp.wrapping_add(encoding.frame_ticks);
        self.event_timestamp = event_timestamp.wrapping_add(self.event_clock_hz / FRAMES_PER_S);
        let format = format?;
        let (head, payload) = packet.split_at_mut_checked(HEADER_LEN)?;
        let event = format
            .telephone_event
            .and_then(|event| Some((event.payload_type, self.dtmf.tick(event_timestamp)?)));
        let (header, length) = if let Some((payload_type, event)) = event {
            payload
                .get_mut(..event.payload.len())?
                .copy_from_slice(&event.payload);
            let header = self.header(event.marker, payload_type, event.timestamp);
            (header, event.payload.len())
        } else {
            let encoder = &mut self.encoding.as_mut()?.encoder;
            let outcome = encoder.encode(&self.frame[..self.frame_len], payload);
            self.unencodable += u64::from(outcome.is_err());
            let length = outcome.ok().filter(|&length| length > 0)?;
            (
                self.header(sounds && !talked, format.payload_type, timestamp),
                length,
            )
        };
        self.sequence = self.sequence.wrapping_add(1);
        header.write(head);
        Some(Written {
            header,
            length: HEADER_LEN + length,
        })
    }

    fn header(&self, marker: bool, payload_type: u8, timestamp: u32) -> RtpHeader {
        RtpHeader {
            marker,
            payload_type,
            sequence: self.sequence,
            timestamp,
            ssrc: self.ssrc,
        }
    }

    /// The time of key presses: that of the audio (RFC 4733 section 2.1), or their own where a peer gave them another clock.
    fn event_timestamp(&self, audio: u32, clock_hz: u32) -> u32 {
        if clock_hz == self.event_clock_hz {
            audio
        } else {
            self.event_timestamp
        }
    }

    /// So many frames will not be sent.
    pub(super) fn skip(&mut self, frames: u64) {
        let ticks = self.encoding.as_ref().map_or(0, |encoding| encoding.frame_ticks);
        self.timestamp = self.timestamp.wrapping_add((frames as u32).wrapping_mul(ticks));
    }
}
