//! The speech codecs of a leg behind one interface: what SDP calls them, their clocks, a decoder and an encoder.

use crate::CodecError;
use crate::g711::{self, Law};

/// A codec that we can negotiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law, 64 kbit/s.
    Pcmu,
    /// G.711 A-law, 64 kbit/s.
    Pcma,
    /// G.722 at 64 kbit/s: 7 kHz of audio.
    G722,
    /// Opus (RFC 6716, RFC 7587).
    Opus,
}

impl Codec {
    /// Every codec that we know.
    pub const ALL: [Self; 4] = [Self::Pcmu, Self::Pcma, Self::G722, Self::Opus];

    /// The encoding name of SDP's `a=rtpmap`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
        }
    }

    /// The codec of an encoding name, whatever its case (RFC 8866, 6.6). None: not one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The rate of the RTP timestamps. G.722 samples at 16 kHz and counts at 8 kHz (RFC 3551, 4.5.2); Opus always
    /// counts at 48 kHz (RFC 7587, 4.1).
    pub const fn clock_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 8000,
            Self::Opus => 48_000,
        }
    }

    /// The rate of the samples that [`Decoder`] gives. Opus decodes straight to what speech recognition takes.
    pub const fn decoded_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8000,
            Self::G722 | Self::Opus => 16_000,
        }
    }

    /// The rate of the samples that [`Encoder`] takes.
    pub const fn encoded_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8000,
            Self::G722 => 16_000,
            Self::Opus => 24_000,
        }
    }

    /// How many ticks of [`Codec::clock_hz`] a payload lasts; 0 for what no encoder of the codec makes.
    pub fn duration(self) -> fn(&[u8]) -> u32 {
        match self {
            // G.722 packs two samples of 16 kHz, one tick of 8 kHz, into an octet.
            Self::Pcmu | Self::Pcma | Self::G722 => octets,
            Self::Opus => opus_duration,
        }
    }

    /// The most octets that a 20 ms frame encodes to.
    pub const fn payload_max(self) -> usize {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 160,
            // One TOC octet and one frame (RFC 6716, 3.1 and 3.2.1).
            Self::Opus => 1276,
        }
    }
}

fn octets(payload: &[u8]) -> u32 {
    payload.len() as u32
}

/// RFC 6716, 3.1: duration of a frame by configuration (table 2), and how many frames the packet has (3.2).
fn opus_duration(payload: &[u8]) -> u32 {
    const MAX: u32 = 5760; // 120 ms, requirement R5 of 3.4.
    let Some(&toc) = payload.first() else { return 0 };
    let config = usize::from(toc >> 3);
    let frame = match config {
        0..12 => [480, 960, 1920, 2880][config % 4],
        12..16 => [480, 960][config % 2],
        _ => [120, 240, 480, 960][config % 4],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => payload.get(1).map_or(0, |count| u32::from(count & 0x3f)),
    };
    if frames * frame > MAX { 0 } else { frames * frame }
}

/// How an [`Encoder`] works. Only Opus has a choice; the others are what their standards say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSettings {
    /// Target of the variable bit rate, 6000 to 510000.
    pub bitrate_bps: u32,
    /// Effort, 0 to 10.
    pub complexity: u8,
    /// In silence, make nothing that need be sent: [`Encoder::encode`] returns 0.
    pub dtx: bool,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self {
            bitrate_bps: 32_000,
            complexity: 5,
            dtx: false,
        }
    }
}

/// Payloads of one direction of one stream to samples.
#[derive(Debug)]
pub struct Decoder {
    law: Law,
}

impl Decoder {
    /// A decoder in its initial state.
    ///
    /// # Errors
    /// [`CodecError::Unavailable`] where the codec's library refuses.
    pub fn new(codec: Codec) -> Result<Self, CodecError> {
        match codec {
            Codec::Pcmu => Ok(Self { law: Law::Mu }),
            Codec::Pcma => Ok(Self { law: Law::A }),
            Codec::G722 | Codec::Opus => Err(CodecError::Unavailable(codec)),
        }
    }

    /// Append the samples of `payload` to `pcm`, at [`Codec::decoded_hz`].
    ///
    /// # Errors
    /// [`CodecError::Payload`]: not a payload of the codec; nothing is appended, and the caller conceals.
    pub fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) -> Result<(), CodecError> {
        if payload.is_empty() {
            return Err(CodecError::Payload);
        }
        let start = pcm.len();
        pcm.resize(start + payload.len(), 0);
        g711::decode_into(self.law, payload, &mut pcm[start..]);
        Ok(())
    }

    /// Append exactly `samples` samples in place of a lost payload, at [`Codec::decoded_hz`].
    pub fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        pcm.resize(pcm.len() + samples, 0);
    }

    /// As [`Decoder::conceal`], for the payload right before `following`, which may carry a copy of it at a lower
    /// quality (Opus in-band FEC, RFC 6716, 2.1.7). `following` is decoded afterwards as any other.
    pub fn recover(&mut self, following: &[u8], samples: usize, pcm: &mut Vec<i16>) {
        let _ = following;
        self.conceal(samples, pcm);
    }
}

/// Samples to payloads of one direction of one stream.
#[derive(Debug)]
pub struct Encoder {
    law: Law,
}

impl Encoder {
    /// An encoder in its initial state.
    ///
    /// # Errors
    /// [`CodecError::Unavailable`] where the codec's library refuses, also for settings out of their range.
    pub fn new(codec: Codec, settings: EncoderSettings) -> Result<Self, CodecError> {
        let _ = settings;
        match codec {
            Codec::Pcmu => Ok(Self { law: Law::Mu }),
            Codec::Pcma => Ok(Self { law: Law::A }),
            Codec::G722 | Codec::Opus => Err(CodecError::Unavailable(codec)),
        }
    }

    /// Encode a frame of 20 ms at [`Codec::encoded_hz`] into `payload`, which has room for [`Codec::payload_max`].
    /// Returns its octets; 0 is silence that need not be sent (DTX).
    ///
    /// # Errors
    /// [`CodecError::Frame`] for a length that the codec cannot frame, [`CodecError::Room`] for a `payload` too small.
    pub fn encode(&mut self, frame: &[i16], payload: &mut [u8]) -> Result<usize, CodecError> {
        if frame.is_empty() {
            return Err(CodecError::Frame(frame.len()));
        }
        if payload.len() < frame.len() {
            return Err(CodecError::Room(payload.len()));
        }
        Ok(g711::encode_into(self.law, frame, payload))
    }
}
