//! Datagrams on a port that STUN, DTLS, RTP and RTCP share.

use rtp::packet::{RtpPacket, is_rtcp};
use webrtc::demux::{DatagramKind, local_ufrag};

const HEADER_LEN: usize = 20;
const USERNAME: u16 = 0x0006;

pub(crate) fn any_datagram(datagram: &[u8]) {
    let kind = DatagramKind::of(datagram);
    assert_eq!(kind == Some(DatagramKind::Rtcp), is_rtcp(datagram));
    if RtpPacket::parse(datagram).is_ok() {
        assert!(matches!(kind, Some(DatagramKind::Rtp | DatagramKind::Rtcp)));
    }
    // The first octet decides, and for RTCP the second.
    assert_eq!(kind, DatagramKind::of(&datagram[..datagram.len().min(4)]));
    let Some(ufrag) = local_ufrag(datagram) else {
        return;
    };
    assert_eq!(kind, Some(DatagramKind::Stun));
    assert!(!ufrag.is_empty() && !ufrag.contains(&b':'));
    assert!(datagram.as_ptr_range().contains(&ufrag.as_ptr()));
    // What the header and the first such attribute say of their lengths is true.
    assert_eq!(half(datagram, 2), datagram.len() - HEADER_LEN);
    let mut at = HEADER_LEN;
    while half(datagram, at) != usize::from(USERNAME) {
        at += 4 + half(datagram, at + 2).next_multiple_of(4);
    }
    let value = &datagram[at + 4..at + 4 + half(datagram, at + 2)];
    assert_eq!(value.split(|&octet| octet == b':').next(), Some(ufrag));
    // Cut off anywhere, it is no longer well formed.
    assert_eq!(local_ufrag(&datagram[..datagram.len() - 1]), None);
}

fn half(octets: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([octets[at], octets[at + 1]]))
}
