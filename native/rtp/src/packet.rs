//! RTP packets (RFC 3550 section 5.1) and their separation from RTCP (RFC 5761 section 4).

/// Octets of the fixed header, which is all that we ever send.
pub const HEADER_LEN: usize = 12;

/// Why a datagram is no RTP packet; one counter for each, indexed by `reason as usize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RtpError {
    /// Shorter than the fixed header.
    #[error("shorter than an RTP header")]
    Truncated,
    /// Not version 2 (STUN, DTLS and noise end here).
    #[error("not RTP version 2")]
    Version,
    /// The CSRC list runs past the end.
    #[error("CSRC list runs past the end")]
    Csrc,
    /// The header extension runs past the end.
    #[error("header extension runs past the end")]
    Extension,
    /// The padding count is zero or larger than what follows the header.
    #[error("impossible padding")]
    Padding,
}

impl RtpError {
    /// Number of reasons, for an array of counters.
    pub const COUNT: usize = 5;
}

/// The fields of the fixed header that a media stream needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// First packet of a talkspurt (RFC 3551 section 4.1) or of an event (RFC 4733 section 2.3).
    pub marker: bool,
    /// Payload type, 7 bits.
    pub payload_type: u8,
    /// Sequence number; wraps.
    pub sequence: u16,
    /// Sampling instant of the first sample, in units of the media clock; wraps.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

/// A parsed packet; the payload borrows from the datagram and excludes padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpPacket<'a> {
    /// The fixed header.
    pub header: RtpHeader,
    /// What the payload type describes.
    pub payload: &'a [u8],
}

impl<'a> RtpPacket<'a> {
    /// Read a datagram; CSRCs and header extensions are skipped.
    ///
    /// # Errors
    /// The first reason for which this is no RTP packet.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, RtpError> {
        let (head, mut rest) = datagram.split_at(header_len(datagram)?);
        let fixed = head.first_chunk::<HEADER_LEN>().ok_or(RtpError::Truncated)?;
        if fixed[0] & 0x20 != 0 {
            let padding = usize::from(*rest.last().ok_or(RtpError::Padding)?);
            if padding == 0 || padding > rest.len() {
                return Err(RtpError::Padding);
            }
            rest = &rest[..rest.len() - padding];
        }
        let header = RtpHeader {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        };
        Ok(Self {
            header,
            payload: rest,
        })
    }
}

/// Octets of the whole header, the CSRC list and the header extension included.
///
/// # Errors
/// The first reason for which this is no RTP packet; padding, which may be encrypted, is not looked at.
pub fn header_len(datagram: &[u8]) -> Result<usize, RtpError> {
    let (fixed, rest) = datagram
        .split_first_chunk::<HEADER_LEN>()
        .ok_or(RtpError::Truncated)?;
    if fixed[0] >> 6 != 2 {
        return Err(RtpError::Version);
    }
    let csrc_len = 4 * usize::from(fixed[0] & 0x0f);
    let rest = rest.get(csrc_len..).ok_or(RtpError::Csrc)?;
    if fixed[0] & 0x10 == 0 {
        return Ok(HEADER_LEN + csrc_len);
    }
    // RFC 3550 section 5.3.1: the length counts 32-bit words after these four octets.
    let (prefix, body) = rest.split_first_chunk::<4>().ok_or(RtpError::Extension)?;
    let extension_len = 4 * usize::from(u16::from_be_bytes([prefix[2], prefix[3]]));
    if extension_len > body.len() {
        return Err(RtpError::Extension);
    }
    Ok(HEADER_LEN + csrc_len + 4 + extension_len)
}

impl RtpHeader {
    /// Write the fixed header into the first [`HEADER_LEN`] octets of `out`.
    ///
    /// # Panics
    /// When `out` is shorter than that.
    pub fn write(&self, out: &mut [u8]) {
        out[0] = 0x80;
        out[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        out[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
    }
}

/// Whether a datagram on a shared port is RTCP: packet types 192 to 223 (RFC 5761 section 4).
///
/// RTP payload types 64 to 95 with the marker look the same, which is why the RFC forbids them.
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.len() >= 4 && datagram[0] >> 6 == 2 && (192..=223).contains(&datagram[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: RtpHeader = RtpHeader {
        marker: true,
        payload_type: 0x65,
        sequence: 0xfffe,
        timestamp: 0xdead_beef,
        ssrc: 0x0102_0304,
    };

    fn datagram(first: u8, tail: &[u8]) -> Vec<u8> {
        let mut out = vec![0; HEADER_LEN];
        HEADER.write(&mut out);
        out[0] = first;
        out.extend_from_slice(tail);
        out
    }

    #[test]
    fn plain_packet() {
        let bytes = datagram(0x80, &[1, 2, 3]);
        assert_eq!(bytes[1], 0x80 | 0x65);
        let packet = RtpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.header, HEADER);
        assert_eq!(packet.payload, [1, 2, 3]);
    }

    #[test]
    fn csrc_extension_and_padding_are_stripped() {
        let tail = [
            0, 0, 0, 1, 0, 0, 0, 2, // two CSRCs
            0xbe, 0xde, 0, 1, 9, 9, 9, 9, // extension of one word
            7, 8, // payload
            0, 0, 3, // padding of three
        ];
        let bytes = datagram(0x80 | 0x20 | 0x10 | 0x02, &tail);
        assert_eq!(RtpPacket::parse(&bytes).unwrap().payload, [7, 8]);
    }

    #[test]
    fn each_reason() {
        let reason = |bytes: &[u8]| RtpPacket::parse(bytes).unwrap_err();
        assert_eq!(reason(&[0x80; 11]), RtpError::Truncated);
        assert_eq!(reason(&datagram(0x40, &[])), RtpError::Version);
        assert_eq!(reason(&datagram(0x82, &[0; 7])), RtpError::Csrc);
        assert_eq!(reason(&datagram(0x90, &[0; 3])), RtpError::Extension);
        assert_eq!(
            reason(&datagram(0x90, &[0, 0, 0, 1, 0, 0, 0])),
            RtpError::Extension
        );
        assert_eq!(reason(&datagram(0xa0, &[])), RtpError::Padding);
        assert_eq!(reason(&datagram(0xa0, &[0])), RtpError::Padding);
        assert_eq!(reason(&datagram(0xa0, &[1, 3])), RtpError::Padding);
        assert_eq!(RtpError::Padding as usize, RtpError::COUNT - 1);
    }

    #[test]
    fn padding_may_leave_an_empty_payload() {
        let bytes = datagram(0xa0, &[0, 2]);
        assert!(RtpPacket::parse(&bytes).unwrap().payload.is_empty());
    }

    #[test]
    fn rtcp_is_told_apart() {
        assert!(is_rtcp(&[0x80, 200, 0, 6])); // SR
        assert!(is_rtcp(&[0x81, 203, 0, 1])); // BYE
        assert!(is_rtcp(&[0x81, 205, 0, 2])); // RTPFB
        assert!(!is_rtcp(&[0x80, 0, 0, 6]));
        assert!(!is_rtcp(&[0x80, 0x80 | 0x65, 0, 6]));
        assert!(!is_rtcp(&[0x00, 200, 0, 6]));
        assert!(!is_rtcp(&[0x80, 200]));
    }

    proptest! {
        #[test]
        fn any_datagram_is_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = is_rtcp(&bytes);
            if let Ok(packet) = RtpPacket::parse(&bytes) {
                prop_assert!(packet.payload.len() + HEADER_LEN <= bytes.len());
            }
        }

        #[test]
        fn any_tail_of_version_2_is_safe(
            first in 0x80u8..=0xbf,
            tail in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let bytes = datagram(first, &tail);
            if let Ok(packet) = RtpPacket::parse(&bytes) {
                prop_assert_eq!(packet.header, HEADER);
                prop_assert!(packet.payload.len() <= tail.len());
            }
        }

        #[test]
        fn header_round_trip(
            marker: bool, payload_type in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32,
        ) {
            let header = RtpHeader { marker, payload_type, sequence, timestamp, ssrc };
            let mut bytes = [0xff; HEADER_LEN + 1];
            header.write(&mut bytes);
            let packet = RtpPacket::parse(&bytes).unwrap();
            prop_assert_eq!(packet.header, header);
            prop_assert_eq!(packet.payload, &[0xff]);
        }
    }
}
