//! The server's side of a browser call, without a clock or a socket: ICE-lite, DTLS, SRTP and the data channel.
//!
//! A [`WebRtcLeg`] is made from a browser's offer and gives the answer. From then on it takes datagrams, the
//! time and what is to be sent, and gives datagrams, RTP packets and events. `str0m` does the protocols; this
//! crate decides what is agreed, whom it believes, and what each thing may cost:
//!
//! - one audio section, Opus or else G.711; video and further audio are refused without failing the call;
//! - nothing but STUN is read from an address that has not shown the password of the answer (`gate`);
//! - bounds, with a counter for what they turn away, on addresses, channels, messages, renegotiations, output.
//!
//! RTCP: sender and receiver reports, SDES and BYE. Neither NACK (a repeated packet comes too late for a
//! conversation), nor PLI (no video), nor transport-wide feedback (10 packets a second for a stream of
//! constant rate); a browser that offers them reads in the answer that they are off.
//!
//! The provider of the cryptography is `aws-lc-rs`: C and assembly that come with the crate and need a C
//! compiler alone, AES-GCM and SHA-1 with the instructions of the processor. (`str0m-rust-crypto` and
//! `str0m-openssl` of the version that str0m 0.25 asks for are not published.)

mod answer;
mod channels;
pub mod demux;
mod gate;
mod ice;
mod leg;
mod offer;
mod output;
mod params;
mod pump;
mod reason;

pub use channels::SendError;
pub use ice::IceSeed;
pub use leg::WebRtcLeg;
pub use offer::{AgreedAudio, AudioCodec, OfferError};
pub use output::{Disconnection, LegEvent, LegOutput, Quality, RtpIn};
pub use params::{Certificate, LegParams, Limits};
pub use reason::{Counts, Reason};

/// What can go wrong with a leg as a whole; datagrams are refused by [`Reason`].
#[derive(Debug, thiserror::Error)]
pub enum WebRtcError {
    /// The offer cannot be answered.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The offer passed the checks here, but str0m found something wrong with it.
    #[error("the offer cannot be answered: {0}")]
    Sdp(String),
    /// One of the own addresses cannot be an ICE host candidate (unspecified, multicast).
    #[error("{0} cannot be a candidate")]
    Candidate(std::net::SocketAddr),
    /// There is no own address, so nobody could reach the leg.
    #[error("a leg needs at least one own address")]
    NoCandidate,
    /// More offers than [`Limits::offers_per_minute`].
    #[error("too many offers within a minute")]
    TooManyOffers,
    /// More streams than [`Limits::streams`], those of earlier offers included.
    #[error("the offers of this call name more than {0} streams (a=ssrc)")]
    TooManyStreams(usize),
    /// The offer is of another peer connection (its DTLS fingerprint differs): it needs a leg of its own.
    #[error("the offer is of another peer connection")]
    OtherPeer,
    /// The call is over.
    #[error("the leg is closed")]
    Closed,
    /// The certificate could not be made.
    #[error("no certificate could be made")]
    Certificate,
}
