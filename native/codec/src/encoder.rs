//! Samples of one direction of one stream to payloads.

use crate::g711::{self, Law};
use crate::{Codec, CodecError, g722};

/// How an [`Encoder`] works. Only Opus has a choice; the others are what their standards say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSettings {
    /// Target of the variable bit rate, 500 to 512000.
    pub bitrate_bps: u32,
    /// Effort, 0 to 10.
    pub complexity: u8,
    /// In silence, make nothing that need be sent: [`Encoder::encode`] returns 0.
    pub dtx: bool,
}

impl Default for EncoderSettings {
    /// For synthetic speech: beyond this effort, `examples/bench_codecs.rs` measures half as much cost again for nothing.
    fn default() -> Self {
        Self {
            bitrate_bps: 32_000,
            complexity: 4,
            dtx: false,
        }
    }
}

/// A codec's encoder. The caller owns the output.
#[derive(Debug)]
pub struct Encoder(Kind);

#[derive(Debug)]
enum Kind {
    G711(Law),
    G722(Box<g722::Encoder>),
    Opus(opus::Encoder),
}

impl Encoder {
    /// An encoder in its initial state.
    ///
    /// # Errors
    /// [`CodecError::Unavailable`] for settings out of their range, or where the codec's library has no memory.
    pub fn new(codec: Codec, settings: EncoderSettings) -> Result<Self, CodecError> {
        Ok(Self(match codec {
            Codec::Pcmu => Kind::G711(Law::Mu),
            Codec::Pcma => Kind::G711(Law::A),
            Codec::G722 => Kind::G722(Box::default()),
            Codec::Opus => {
                // A quarter of VOIP's cost at the same quality (`examples/bench_codecs.rs`).
                let settings = opus::Settings {
                    application: opus::Application::RestrictedLowDelay,
                    bitrate_bps: settings.bitrate_bps,
                    complexity: settings.complexity,
                    dtx: settings.dtx,
                    fec_loss_percent: 0,
                };
                let encoder = opus::Encoder::new(codec.encoded_hz(), settings);
                Kind::Opus(encoder.map_err(|_| CodecError::Unavailable(codec))?)
            }
        }))
    }

    /// Encode a frame of 20 ms at [`Codec::encoded_hz`] into `payload`, which has room for [`Codec::payload_max`].
    /// Returns its octets; 0 is silence that need not be sent (DTX).
    ///
    /// Other lengths work where the codec has them: any for G.711, even ones for G.722, 2.5, 5, 10, 40 and 60 ms for
    /// Opus.
    ///
    /// # Errors
    /// [`CodecError::Frame`] for a length that the codec does not have, [`CodecError::Room`] for a `payload` too small.
    pub fn encode(&mut self, frame: &[i16], payload: &mut [u8]) -> Result<usize, CodecError> {
        if frame.is_empty() {
            return Err(CodecError::Frame(0));
        }
        match &mut self.0 {
            Kind::G711(law) => {
                let room = payload.get_mut(..frame.len()).ok_or(CodecError::Room)?;
                Ok(g711::encode_into(*law, frame, room))
            }
            Kind::G722(encoder) => {
                if !frame.len().is_multiple_of(2) {
                    return Err(CodecError::Frame(frame.len()));
                }
                let room = payload.get_mut(..frame.len() / 2).ok_or(CodecError::Room)?;
                Ok(encoder.encode_into(frame, room))
            }
            Kind::Opus(encoder) => match encoder.encode(frame, payload) {
                // RFC 6716, 2.1.9: so short a packet says nothing that its absence would not.
                Ok(octets) if octets <= 2 => Ok(0),
                Ok(octets) => Ok(octets),
                Err(opus::OpusError::Room) => Err(CodecError::Room),
                Err(_) => Err(CodecError::Frame(frame.len())),
            },
        }
    }
}
