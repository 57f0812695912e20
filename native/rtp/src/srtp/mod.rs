//! SRTP and SRTCP on octets (RFC 3711, RFC 7714), keyed by SDES (RFC 4568) or by DTLS (RFC 5764).
//!
//! A [`MasterKey`] is one direction's secret; a [`Sender`] protects what goes out under it, a [`Receiver`]
//! opens what comes in. Packets are changed in place in the caller's buffer and nothing is allocated for them.
//!
//! The rollover counter lives in the sender and the receiver, not in the key: when a session description comes
//! again with the same key, go on with the same object. A new one would start at zero, hear nothing after
//! the first wrap, and as a sender use a keystream twice.

mod counter_mode;
mod galois;
mod keys;
mod profile;
mod session;
mod streams;
mod transform;
mod window;

pub use keys::{KeyError, MasterKey};
pub use profile::Profile;
pub use session::{Receiver, Sender};
pub use streams::MAX_STREAMS;

/// Octets that [`Sender::protect_rtp`] appends at most.
pub const MAX_RTP_OVERHEAD: usize = 16;
/// Octets that [`Sender::protect_rtcp`] appends at most.
pub const MAX_RTCP_OVERHEAD: usize = 20;

/// Why a packet was refused; one counter for each, indexed by `reason as usize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SrtpError {
    /// Shorter than a header and, on receipt, what protection appends.
    #[error("shorter than a header and a tag")]
    Truncated,
    /// Longer than a UDP datagram.
    #[error("longer than a UDP datagram")]
    Oversized,
    /// Not version 2, or the CSRC list or the header extension runs past the end.
    #[error("not an RTP or RTCP header")]
    Header,
    /// This index was seen before; on sending: was used before, and a second use would give the plain text away.
    #[error("index used before")]
    Replayed,
    /// Behind the replay window.
    #[error("behind the replay window")]
    TooOld,
    /// The tag is wrong: changed on the way, another key, or noise.
    #[error("authentication failed")]
    Authentication,
    /// 2^48 RTP or 2^31 RTCP packets under one key (RFC 3711 section 9.2): a new key is needed.
    #[error("key used up")]
    KeyExpired,
    /// The buffer has no room for what protection appends.
    #[error("no room for the tag")]
    NoRoom,
    /// A sender of more than [`MAX_STREAMS`] SSRCs; forgetting one would allow its indices a second time.
    #[error("too many SSRCs")]
    TooManyStreams,
}

impl SrtpError {
    /// Number of reasons, for an array of counters.
    pub const COUNT: usize = 9;
}
