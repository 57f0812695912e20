//! Signal processing without a clock: speech codecs, loss concealment, comfort noise, sample rate conversion.

mod codec;
mod error;
pub mod g711;
pub mod resample;

pub use codec::{Codec, Decoder, Encoder, EncoderSettings};
pub use error::CodecError;
