use crate::Codec;

/// What a codec refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a payload of the codec.
    #[error("not a payload of the codec")]
    Payload,
    /// The codec has no frame of so many samples.
    #[error("no frame of {0} samples")]
    Frame(usize),
    /// The encoded frame does not fit.
    #[error("no room for the payload")]
    Room,
    /// The codec cannot be had, at least not with these settings.
    #[error("{} is not available with these settings", .0.name())]
    Unavailable(Codec),
}
