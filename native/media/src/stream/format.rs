//! What offer and answer agreed on, and the codec's two directions made for it.

use codec::resample::{ResampleError, Resampler};
use codec::{Codec, CodecError, Decoder, Encoder, EncoderSettings};

use super::LISTENED_HZ;

/// The static payload type of comfort noise (RFC 3551 table 4).
const COMFORT_NOISE: u8 = 13;

/// telephone-event beside the audio (RFC 4733).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// Its payload type, both ways.
    pub payload_type: u8,
    /// Its clock: that of the audio (RFC 4733 section 2.1), 8000 or 48000.
    pub clock_hz: u32,
}

/// What offer and answer agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// The codec.
    pub codec: Codec,
    /// Its payload type, both ways.
    pub payload_type: u8,
    /// How keys are sent.
    pub telephone_event: Option<TelephoneEvent>,
    /// The payload type of comfort noise (RFC 3389), which takes sequence numbers and is silence to us.
    pub comfort_noise: Option<u8>,
    /// Whether we send.
    pub send: bool,
    /// Whether we listen.
    pub receive: bool,
}

impl Format {
    /// Whether packets of this payload type belong to the session. Comfort noise under its static number needs no
    /// negotiation: some send it anyway (RFC 3551 section 4.5.1).
    pub(super) fn accepts(&self, payload_type: u8) -> bool {
        payload_type == self.payload_type
            || self
                .telephone_event
                .is_some_and(|event| event.payload_type == payload_type)
            || payload_type == self.comfort_noise.unwrap_or(COMFORT_NOISE)
    }
}

/// Both directions of a codec, ready to run: made outside the media thread.
#[derive(Debug)]
pub struct Coding {
    pub(super) codec: Codec,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    /// To what speech detection and transcription hear.
    pub(super) to_listened: Resampler,
    /// From what other legs contribute.
    pub(super) from_listened: Resampler,
}

/// A codec could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum CodingError {
    /// The codec itself.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The conversion beside it.
    #[error(transparent)]
    Resample(#[from] ResampleError),
}

impl Coding {
    /// A codec in its initial state.
    ///
    /// # Errors
    /// When the codec's library refuses.
    pub fn new(codec: Codec) -> Result<Self, CodingError> {
        Ok(Self {
            codec,
            decoder: Decoder::new(codec)?,
            encoder: Encoder::new(codec, EncoderSettings::default())?,
            to_listened: Resampler::new(codec.decoded_hz(), LISTENED_HZ)?,
            from_listened: Resampler::new(LISTENED_HZ, codec.encoded_hz())?,
        })
    }
}
