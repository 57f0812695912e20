//! Sorting datagrams.

use proptest::prelude::*;
use webrtc::demux::{DatagramKind, local_ufrag};

/// RFC 5769 section 2.1, "sample request": USERNAME is "evtj:h6vY".
const SAMPLE_REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
\x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
\x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\
\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";

#[test]
fn the_user_fragment_of_the_rfc_vector_is_found() {
    assert_eq!(local_ufrag(SAMPLE_REQUEST), Some(&b"evtj"[..]));
}

#[test]
fn whatever_is_no_complete_binding_request_names_nobody() {
    for length in 0..SAMPLE_REQUEST.len() {
        assert_eq!(local_ufrag(&SAMPLE_REQUEST[..length]), None);
    }
    for (at, octet) in [(1, 0x11), (0, 1), (4, 0), (3, 0x54)] {
        let mut altered = SAMPLE_REQUEST.to_vec();
        altered[at] = octet;
        assert_eq!(local_ufrag(&altered), None, "octet {at}");
    }
    let mut without_colon = SAMPLE_REQUEST.to_vec();
    let colon = without_colon.iter().rposition(|octet| *octet == b':').unwrap();
    without_colon[colon] = b'.';
    assert_eq!(local_ufrag(&without_colon), None);
}

#[test]
fn the_first_octet_decides_as_rfc_7983_says() {
    let kind = |first: u8, second: u8| DatagramKind::of(&[first, second, 0, 0]);
    for first in 0..=255 {
        let expected = match first {
            0..=3 => Some(DatagramKind::Stun),
            20..=63 => Some(DatagramKind::Dtls),
            128..=191 => Some(DatagramKind::Rtp),
            _ => None,
        };
        assert_eq!(kind(first, 111), expected, "{first}");
    }
    assert_eq!(kind(0x80, 200), Some(DatagramKind::Rtcp));
    assert_eq!(kind(0x81, 223), Some(DatagramKind::Rtcp));
    assert_eq!(kind(0x80, 0xef), Some(DatagramKind::Rtp));
    assert_eq!(DatagramKind::of(&[]), None);
}

proptest! {
    #[test]
    fn any_octets_may_be_sorted(datagram in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (DatagramKind::of(&datagram), local_ufrag(&datagram));
    }

    #[test]
    fn an_altered_request_is_read_within_its_bounds(at in 0..108_usize, octet: u8) {
        let mut altered = SAMPLE_REQUEST.to_vec();
        altered[at] = octet;
        if let Some(ufrag) = local_ufrag(&altered) {
            prop_assert!(!ufrag.is_empty() && !ufrag.contains(&b':'));
        }
    }
}
