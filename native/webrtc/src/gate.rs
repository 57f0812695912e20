//! Whose datagrams are believed: addresses that sent a STUN request with the password of the answer.
//!
//! A DTLS record from anybody else must not reach the handshake: a forged `ClientHello` would make it answer a
//! stranger and refuse the caller (CVE-2023-51443).

use std::net::SocketAddr;

/// Addresses believed at a time. A browser checks from each of its network interfaces.
const MAX_SOURCES: usize = 8;
/// Addresses over the life of a leg, for str0m remembers each: a phone that changes networks needs dozens.
const MAX_SOURCES_EVER: u32 = 256;

/// The addresses of the peer that have passed the check.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// With the time of the last check.
    sources: Vec<(SocketAddr, u64)>,
    admitted: u32,
}

/// What became of an address that passed a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Known already.
    Known,
    /// New; the address that gave way to it, if one had to.
    New(Option<SocketAddr>),
}

impl Gate {
    /// Whether the address has passed a check.
    pub(crate) fn is_open(&self, source: SocketAddr) -> bool {
        self.sources.iter().any(|(known, _)| *known == source)
    }

    /// Whether there is room for the address.
    pub(crate) fn would_admit(&self, source: SocketAddr) -> bool {
        self.admitted < MAX_SOURCES_EVER || self.is_open(source)
    }

    /// Note that a check of this address was in order.
    pub(crate) fn admit(&mut self, now_us: u64, source: SocketAddr) -> Admission {
        if let Some(entry) = self.sources.iter_mut().find(|(known, _)| *known == source) {
            entry.1 = now_us;
            return Admission::Known;
        }
        let mut released = None;
        if self.sources.len() == MAX_SOURCES
            && let Some(oldest) = (0..self.sources.len()).min_by_key(|&at| self.sources[at].1)
        {
            released = Some(self.sources.swap_remove(oldest).0);
        }
        self.sources.push((source, now_us));
        self.admitted += 1;
        Admission::New(released)
    }
}
