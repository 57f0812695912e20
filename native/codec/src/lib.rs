//! Signal processing without a clock: speech codecs, loss concealment, comfort noise, sample rate conversion.

mod codec;
pub mod comfort_noise;
mod decoder;
mod encoder;
mod error;
pub mod g711;
pub mod g722;
mod linear_prediction;
mod onset;
pub mod plc;
pub mod resample;

pub use codec::Codec;
pub use decoder::Decoder;
pub use encoder::{Encoder, EncoderSettings};
pub use error::CodecError;
