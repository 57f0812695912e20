//! What a profile does to one packet whose index is known.

use super::counter_mode::CounterMode;
use super::galois::Galois;
use super::keys::SessionKeys;
use super::{Profile, SrtpError};

/// Octets of an RTCP packet that stay in clear: its first header and the sender's SSRC (RFC 3711 section 3.4).
pub(super) const RTCP_CLEAR_LEN: usize = 8;
/// Octets of the E flag and the index, which follow an RTCP packet.
pub(super) const WORD_LEN: usize = 4;
/// The E flag: the RTCP packet is encrypted.
pub(super) const ENCRYPTED: u32 = 1 << 31;
const SHORT_TAG_LEN: usize = 4;
const LONG_TAG_LEN: usize = 10;

/// The cipher and the tag of one protocol (RTP or RTCP) of one direction, key schedules computed.
///
/// A packet is given whole, as long as it is when protected. To seal writes over the octets appended; to open
/// leaves them, and leaves the packet unchanged when it is refused.
pub(super) trait Transform: Send + Sync {
    /// Octets of the tag.
    fn tag_len(&self) -> usize;

    /// Encrypt all that follows the header, and append the tag.
    fn seal_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64);

    /// Check the tag, then decrypt.
    fn open_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) -> Result<(), SrtpError>;

    /// Encrypt all that follows the clear octets, and append tag, E flag and index.
    fn seal_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32);

    /// The E flag and the index that a packet claims.
    fn rtcp_word(&self, packet: &[u8]) -> [u8; WORD_LEN];

    /// Check the tag, then decrypt; with the E flag zero the tag is all there is.
    fn open_rtcp(&self, packet: &mut [u8], ssrc: u32) -> Result<(), SrtpError>;
}

pub(super) fn for_rtp(profile: Profile, keys: &SessionKeys) -> Box<dyn Transform> {
    match profile {
        Profile::AesCm128HmacSha1_80 => Box::new(CounterMode::new(keys, LONG_TAG_LEN)),
        Profile::AesCm128HmacSha1_32 => Box::new(CounterMode::new(keys, SHORT_TAG_LEN)),
        Profile::AeadAes128Gcm => Box::new(Galois::new(keys)),
    }
}

pub(super) fn for_rtcp(profile: Profile, keys: &SessionKeys) -> Box<dyn Transform> {
    match profile {
        Profile::AesCm128HmacSha1_80 | Profile::AesCm128HmacSha1_32 => {
            Box::new(CounterMode::new(keys, LONG_TAG_LEN))
        }
        Profile::AeadAes128Gcm => Box::new(Galois::new(keys)),
    }
}

/// The E flag and the index apart.
pub(super) fn split_word(word: [u8; WORD_LEN]) -> (bool, u32) {
    let word = u32::from_be_bytes(word);
    (word & ENCRYPTED != 0, word & !ENCRYPTED)
}
