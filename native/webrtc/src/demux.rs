//! What a datagram on a shared port is (RFC 7983, RFC 5761), and for which leg a STUN request is.
//!
//! Nothing here allocates, and any octets may be given.

/// The protocols that share the port of a browser call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatagramKind {
    /// A STUN message: first octet 0 to 3.
    Stun,
    /// A DTLS record: first octet 20 to 63.
    Dtls,
    /// An RTP packet: first octet 128 to 191, and not RTCP.
    Rtp,
    /// An RTCP packet: as RTP, with packet type 192 to 223.
    Rtcp,
}

/// Octets of the STUN header (RFC 8489 section 5).
const STUN_HEADER_LEN: usize = 20;
/// RFC 8489 section 5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Method Binding, class request (RFC 8489 section 5).
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
/// RFC 8489 section 18.3.
const USERNAME: u16 = 0x0006;
/// RFC 8489 section 18.3; what follows it is not covered by it.
const MESSAGE_INTEGRITY: u16 = 0x0008;

impl DatagramKind {
    /// Sort a datagram by its first octet (RFC 7983 section 7) and, for RTCP, its second (RFC 5761 section 4).
    ///
    /// `None` for everything else: empty datagrams, ZRTP, TURN channels, noise. The kind is a promise about
    /// those octets alone, not that the datagram is well formed.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match datagram.first()? {
            0..=3 => Some(Self::Stun),
            20..=63 => Some(Self::Dtls),
            128..=191 if rtp::packet::is_rtcp(datagram) => Some(Self::Rtcp),
            128..=191 => Some(Self::Rtp),
            _ => None,
        }
    }
}

/// The local user fragment of a STUN binding request: what stands before the colon in its USERNAME, which a
/// peer forms as "fragment of the receiver:fragment of the sender" (RFC 8445 section 7.2.2).
///
/// It is a claim. The leg checks the integrity; until then it only says whom to ask. `None` for all that is no
/// well-formed binding request with such a USERNAME.
pub fn local_ufrag(datagram: &[u8]) -> Option<&[u8]> {
    let (header, mut attributes) = datagram.split_at_checked(STUN_HEADER_LEN)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[..2] != BINDING_REQUEST || header[4..8] != MAGIC_COOKIE || length != attributes.len() {
        return None;
    }
    while let Some((prefix, rest)) = attributes.split_first_chunk::<4>() {
        let kind = u16::from_be_bytes([prefix[0], prefix[1]]);
        let length = usize::from(u16::from_be_bytes([prefix[2], prefix[3]]));
        let value = rest.get(..length)?;
        match kind {
            USERNAME => {
                let colon = value.iter().position(|&octet| octet == b':')?;
                return (colon > 0).then(|| &value[..colon]);
            }
            MESSAGE_INTEGRITY => return None,
            // Values are padded to 32 bits (RFC 8489 section 14).
            _ => attributes = rest.get(length.next_multiple_of(4)..)?,
        }
    }
    None
}
