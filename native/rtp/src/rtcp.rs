//! RTCP (RFC 3550 section 6): wire format, reception statistics and the sans-IO session of one leg.
//!
//! [`Compound`] reads a datagram without copying, [`CompoundWriter`] fills the caller's buffer, [`RtcpSession`] decides
//! what is said and when.

mod bursts;
mod parse;
mod reception;
mod report;
mod round_trip;
mod session;
mod timing;
mod write;
mod xr;

pub use bursts::{Bursts, GMIN, LossPattern, Outcome};
pub use parse::{Chunk, Chunks, Compound, Form, Packet, Packets, ReportBlocks, Sources};
pub use reception::{Arrival, Reception};
pub use report::MAX_DATAGRAM_LEN;
pub use session::{LocalView, PeerView, RtcpCounters, RtcpEvent, RtcpParams, RtcpSession};
pub use timing::{DEFAULT_MIN_INTERVAL_US, MIN_INTERVAL_FLOOR_US};
pub use write::CompoundWriter;
pub use xr::{DelayBlock, DelayBlocks, UNAVAILABLE, VoipMetrics, XrBlock, XrBlocks};

/// Packet types (RFC 3550 section 12.1, RFC 4585 section 6.1, RFC 3611 section 2).
pub(crate) mod packet_type {
    pub(crate) const SENDER_REPORT: u8 = 200;
    pub(crate) const RECEIVER_REPORT: u8 = 201;
    pub(crate) const SOURCE_DESCRIPTION: u8 = 202;
    pub(crate) const BYE: u8 = 203;
    pub(crate) const APPLICATION: u8 = 204;
    pub(crate) const TRANSPORT_FEEDBACK: u8 = 205;
    pub(crate) const PAYLOAD_FEEDBACK: u8 = 206;
    pub(crate) const EXTENDED_REPORT: u8 = 207;
}

/// Why a datagram is no valid RTCP; one counter for each, indexed by `reason as usize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RtcpError {
    /// Less than a packet's four octets of header, at the start or after the last whole packet.
    #[error("shorter than an RTCP header")]
    Truncated,
    /// Not version 2.
    #[error("not RTCP version 2")]
    Version,
    /// A packet's length runs past the end of the datagram.
    #[error("packet runs past the end")]
    Length,
    /// Padding on another packet than the last, or an impossible count of it.
    #[error("impossible padding")]
    Padding,
    /// A compound packet begins with a report (RFC 3550 section 6.1) unless reduced size was agreed (RFC 5506).
    #[error("does not begin with a report")]
    First,
    /// The counts or lengths inside a packet exceed it.
    #[error("contents run past the end of their packet")]
    Body,
}

impl RtcpError {
    /// Number of reasons, for an array of counters.
    pub const COUNT: usize = 6;
}

/// What a sender says of its own stream (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// Wall clock at the instant of the report: seconds since 1900 in the upper 32 bits, fraction in the lower.
    pub ntp: u64,
    /// The same instant in units of the media clock.
    pub rtp_timestamp: u32,
    /// Packets sent since the SSRC began; wraps.
    pub packets: u32,
    /// Payload octets sent since the SSRC began; wraps.
    pub octets: u32,
}

/// What a receiver says of one stream (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The stream that this is about.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256 of what was expected; 0 where duplicates outweigh loss.
    pub fraction_lost: u8,
    /// Lost since reception began, 24 bits signed: negative where duplicates outweigh loss.
    pub cumulative_lost: i32,
    /// Highest sequence number, with the count of its wraps above it.
    pub highest_sequence: u32,
    /// Interarrival jitter (section 6.4.1, A.8) in units of the media clock.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time; 0 where none came.
    pub last_sr: u32,
    /// From the arrival of that report to this one, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// The middle 32 bits of an NTP time: 16 bits of seconds, 16 bits of fraction.
pub fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// The NTP time (RFC 5905 section 6) of a Unix time in microseconds; its era wraps in 2036, as the format's does.
pub fn ntp_from_unix_us(unix_us: u64) -> u64 {
    /// Seconds from 1900 to 1970.
    const EPOCH_S: u64 = 2_208_988_800;
    let seconds = (unix_us / 1_000_000).wrapping_add(EPOCH_S);
    let fraction = ((unix_us % 1_000_000) << 32) / 1_000_000;
    seconds << 32 | fraction
}
