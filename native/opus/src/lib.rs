//! A safe, mono wrapper over the bundled libopus: what a speech leg needs and no more.
//!
//! libopus allocates at creation alone; coding a frame uses the stack.

mod decoder;
mod encoder;

pub use decoder::Decoder;
pub use encoder::{Application, Encoder, Settings};

/// What libopus refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpusError {
    /// A rate, a setting, or a frame length that Opus does not have.
    #[error("an argument that Opus does not have")]
    Argument,
    /// A payload that breaks the rules of RFC 6716, section 3.4.
    #[error("not an Opus packet")]
    Packet,
    /// The output has too little room.
    #[error("the output is too small")]
    Room,
    /// No memory, or an error inside the library: its code.
    #[error("libopus reports {0}")]
    Library(i32),
}

impl OpusError {
    /// The error of a negative result, else the count that the result is.
    fn count(result: i32) -> Result<usize, Self> {
        match result {
            opusic_sys::OPUS_BAD_ARG => Err(Self::Argument),
            opusic_sys::OPUS_INVALID_PACKET => Err(Self::Packet),
            opusic_sys::OPUS_BUFFER_TOO_SMALL => Err(Self::Room),
            code => usize::try_from(code).map_err(|_| Self::Library(code)),
        }
    }
}
