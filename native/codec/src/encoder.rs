//! Samples of one direction of one stream to payloads.

use crate::g711::{self, Law};
use crate::onset::Onset;
use crate::{Codec, CodecError, g722};

/// How an [`Encoder`] works. Only Opus has a choice; the others are what their standards say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSettings {
    /// Target of the variable bit rate, 500 to 512000.
    pub bitrate_bps: u32,
    /// Effort where sound sets in, 0 to 10: from 1 on, the encoder looks for transients, and keeps their noise from being
    /// heard before them.
    pub complexity: u8,
    /// Effort everywhere else, 0 to 10.
    pub steady_complexity: u8,
    /// In silence, make nothing that need be sent: [`Encoder::encode`] returns 0.
    pub dtx: bool,
}

impl Default for EncoderSettings {
    /// For synthetic speech. No effort but at onsets, and 8 kbit/s more than the 32 that would do with it: bits cost less
    /// than work. `tests/opus_quality.rs` compares the two, `examples/bench_codecs.rs` what they cost.
    fn default() -> Self {
        Self {
            bitrate_bps: 40_000,
            complexity: 4,
            steady_complexity: 0,
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
    Opus(Box<Opus>),
}

/// Opus with its effort put where it is heard.
#[derive(Debug)]
struct Opus {
    encoder: opus::Encoder,
    onset: Onset,
    complexity: u8,
    steady_complexity: u8,
    /// The effort that is set.
    present: u8,
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
                let efforts = [settings.complexity, settings.steady_complexity];
                if efforts.iter().any(|&effort| effort > 10) {
                    return Err(CodecError::Unavailable(codec));
                }
                let [complexity, steady_complexity] = efforts;
                let settings = opus::Settings {
                    application: opus::Application::RestrictedLowDelay,
                    bitrate_bps: settings.bitrate_bps,
                    complexity,
                    dtx: settings.dtx,
                    fec_loss_percent: 0,
                };
                let encoder = opus::Encoder::new(codec.encoded_hz(), settings);
                Kind::Opus(Box::new(Opus {
                    encoder: encoder.map_err(|_| CodecError::Unavailable(codec))?,
                    onset: Onset::default(),
                    complexity,
                    steady_complexity,
                    present: complexity,
                }))
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
            Kind::Opus(opus) => match opus.encode(frame, payload) {
                // RFC 6716, 2.1.9: so short a packet says nothing that its absence would not.
                Ok(octets) if octets <= 2 => Ok(0),
                Ok(octets) => Ok(octets),
                Err(opus::OpusError::Room) => Err(CodecError::Room),
                Err(_) => Err(CodecError::Frame(frame.len())),
            },
        }
    }
}

impl Opus {
    fn encode(&mut self, frame: &[i16], payload: &mut [u8]) -> Result<usize, opus::OpusError> {
        let effort = if self.onset.hear(frame) {
            self.complexity
        } else {
            self.steady_complexity
        };
        if self.present != effort {
            self.encoder.set_complexity(effort)?;
            self.present = effort;
        }
        self.encoder.encode(frame, payload)
    }
}
