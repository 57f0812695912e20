//! Callers for measurements: SIP calls that listen, speak and time every packet, many from one process.
//!
//! Everything about a call is a plain object that takes packets and the time (µs of one monotonic clock): what is on
//! the SIP wire ([`sip`], [`uac`]), what is heard ([`ear`]), what is said and when ([`talk`]), and the [`call`] that
//! joins them. [`shell`] has the sockets and the clock.

pub mod call;
pub mod ear;
pub mod error;
pub mod histogram;
pub mod options;
pub mod report;
pub mod shell;
pub mod sip;
pub mod speech;
pub mod talk;
pub mod uac;

/// Samples, and octets of G.711, of one packet.
pub const FRAME: usize = 160;
/// The time of one packet.
pub const FRAME_US: u64 = 20_000;
