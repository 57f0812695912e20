//! What a receiver believes: everything that its sender protected, once, and nothing else.

use proptest::prelude::*;
use rtp::srtp::{
    KeyError, MAX_RTCP_OVERHEAD, MAX_RTP_OVERHEAD, MAX_STREAMS, MasterKey, Profile, Receiver, Sender,
    SrtpError,
};

const SSRC: u32 = 0xcafe_babe;

fn key(profile: Profile) -> MasterKey {
    let material: Vec<u8> = (0..profile.material_len() as u8).map(|i| i * 3 + 1).collect();
    MasterKey::new(profile, &material).unwrap()
}

fn pair(profile: Profile) -> (Sender, Receiver) {
    (Sender::new(&key(profile)), Receiver::new(&key(profile)))
}

fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = sequence.to_be_bytes();
    let mut packet = vec![0x80, 0, high, low, 0, 0, 0, 0];
    packet.extend(ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn rtcp(ssrc: u32, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend_from_slice(body);
    packet
}

fn protect_rtp(sender: &mut Sender, plain: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buffer = plain.to_vec();
    buffer.resize(plain.len() + MAX_RTP_OVERHEAD, 0);
    let len = sender.protect_rtp(&mut buffer, plain.len())?;
    buffer.truncate(len);
    Ok(buffer)
}

fn protect_rtcp(sender: &mut Sender, plain: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buffer = plain.to_vec();
    buffer.resize(plain.len() + MAX_RTCP_OVERHEAD, 0);
    let len = sender.protect_rtcp(&mut buffer, plain.len())?;
    buffer.truncate(len);
    Ok(buffer)
}

fn profiles() -> impl Strategy<Value = Profile> {
    prop::sample::select(&Profile::ALL[..])
}

fn octets(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), len)
}

/// Any well-formed packet: CSRCs, header extension, padding flag (what it says is encrypted), payload.
fn rtp_packets() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<[u8; 11]>(),
        0..16_usize,
        prop::option::of(0..8_usize),
        any::<bool>(),
        octets(0..200),
        octets(100),
    )
        .prop_map(|(head, csrcs, extension, padding, payload, filler)| {
            let mut packet = vec![0x80 | u8::from(padding) << 5 | csrcs as u8];
            packet.extend(head);
            packet.extend_from_slice(&filler[..4 * csrcs]);
            if let Some(words) = extension {
                packet[0] |= 0x10;
                packet.extend([0xbe, 0xde, 0, words as u8]);
                packet.extend_from_slice(&filler[60..60 + 4 * words]);
            }
            packet.extend(payload);
            packet
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_protected_comes_back(profile in profiles(), plain in rtp_packets(), body in octets(0..100)) {
        let (mut sender, mut receiver) = pair(profile);
        let mut sealed = protect_rtp(&mut sender, &plain).unwrap();
        let header_len = rtp::packet::header_len(&plain).unwrap();
        prop_assert_eq!(&sealed[..header_len], &plain[..header_len]);
        prop_assert!(plain.len() - header_len < 8 || sealed[header_len..plain.len()] != plain[header_len..]);
        let len = receiver.unprotect_rtp(&mut sealed).unwrap();
        prop_assert_eq!(&sealed[..len], &plain[..]);

        let plain = rtcp(SSRC, &body);
        let mut sealed = protect_rtcp(&mut sender, &plain).unwrap();
        prop_assert_eq!(&sealed[..8], &plain[..8]);
        let len = receiver.unprotect_rtcp(&mut sealed).unwrap();
        prop_assert_eq!(&sealed[..len], &plain[..]);
    }

    /// Every bit: the packet is refused and left as it was, and then the true one is accepted.
    #[test]
    fn a_flipped_bit_is_refused(profile in profiles(), start: u16, payload in octets(0..40), is_rtcp: bool) {
        let (mut sender, mut receiver) = pair(profile);
        let mut open = |packet: &mut [u8]| {
            if is_rtcp { receiver.unprotect_rtcp(packet) } else { receiver.unprotect_rtp(packet) }
        };
        let seal = |sender: &mut Sender, sequence: u16| {
            if is_rtcp {
                protect_rtcp(sender, &rtcp(SSRC, &payload)).unwrap()
            } else {
                protect_rtp(sender, &rtp(SSRC, sequence, &payload)).unwrap()
            }
        };
        prop_assert!(open(&mut seal(&mut sender, start)).is_ok());
        let mut sealed = seal(&mut sender, start.wrapping_add(1));
        for bit in 0..8 * sealed.len() {
            let mut changed = sealed.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let before = changed.clone();
            prop_assert!(open(&mut changed).is_err(), "bit {}", bit);
            prop_assert_eq!(&changed, &before);
        }
        prop_assert!(open(&mut sealed).is_ok());
        prop_assert!(open(&mut seal(&mut sender, start.wrapping_add(2))).is_ok());
        prop_assert_eq!(receiver.streams(), 1);
    }

    /// Out of order by less than the window, lost, and twice, with the rollover anywhere on the way.
    #[test]
    fn each_packet_once_in_any_order(
        profile in profiles(),
        start in 65_000..66_000_u32,
        fates in prop::collection::vec((0..60_u32, 0..3_usize), 1..400),
    ) {
        let (mut sender, mut receiver) = pair(profile);
        // Brings both to the first rollover: no step is longer than half of the sequence numbers.
        for sequence in [0, 30_000, 60_000] {
            let mut sealed = protect_rtp(&mut sender, &rtp(SSRC, sequence, &[])).unwrap();
            prop_assert!(receiver.unprotect_rtp(&mut sealed).is_ok());
        }
        let mut came = Vec::new();
        for (index, (delay, copies)) in (start..).zip(fates) {
            let sealed = protect_rtp(&mut sender, &rtp(SSRC, index as u16, &index.to_be_bytes())).unwrap();
            came.extend((0..copies).map(|copy| (index + delay + copy as u32, index, sealed.clone())));
        }
        came.sort_by_key(|(at, ..)| *at);
        let mut accepted = std::collections::BTreeSet::new();
        for (_, index, mut sealed) in came {
            let opened = receiver.unprotect_rtp(&mut sealed);
            if accepted.insert(index) {
                prop_assert_eq!(opened, Ok(16));
                prop_assert_eq!(&sealed[12..16], &index.to_be_bytes());
            } else {
                prop_assert_eq!(opened, Err(SrtpError::Replayed));
            }
        }
    }

    #[test]
    fn any_datagram_is_safe(
        profile in profiles(),
        datagrams in prop::collection::vec((octets(0..120), 0..6_u8), 1..40),
        room in 0..40_usize,
    ) {
        let (mut sender, mut receiver) = pair(profile);
        for (mut datagram, first) in datagrams {
            // Half of them with a plausible first octet.
            if let (Some(octet), 0..3) = (datagram.first_mut(), first) {
                *octet = 0x80 | *octet & 0x3f;
            }
            prop_assert!(receiver.unprotect_rtp(&mut datagram).is_err());
            prop_assert!(receiver.unprotect_rtcp(&mut datagram).is_err());
            let len = datagram.len().saturating_sub(room);
            for sealed in [sender.protect_rtp(&mut datagram, len), sender.protect_rtcp(&mut datagram, len)] {
                prop_assert!(sealed.is_err() || sealed.is_ok_and(|sealed| sealed > len));
            }
        }
        prop_assert_eq!(receiver.streams(), 0);
    }

    #[test]
    fn any_key_parameters_are_safe(text in ".{0,80}", profile in profiles()) {
        let _ = MasterKey::from_sdes(profile, &text);
        let _ = Profile::from_name(&text);
    }

    #[test]
    fn key_parameters_round_trip(material in octets(30), profile in profiles()) {
        let key = MasterKey::new(profile, &material[..profile.material_len()]).unwrap();
        prop_assert_eq!(MasterKey::from_sdes(profile, &key.to_sdes()), Ok(key));
    }
}

#[test]
fn another_key_or_profile_opens_nothing() {
    for sending in Profile::ALL {
        for receiving in Profile::ALL {
            let material: Vec<u8> = (0..receiving.material_len() as u8).map(|i| i * 3 + 2).collect();
            let other = MasterKey::new(receiving, &material).unwrap();
            let mut keys = vec![other];
            keys.extend((sending != receiving).then(|| key(receiving)));
            for key in keys {
                let mut sender = Sender::new(&self::key(sending));
                let mut receiver = Receiver::new(&key);
                let mut sealed = protect_rtp(&mut sender, &rtp(SSRC, 1, &[0; 40])).unwrap();
                assert_eq!(
                    receiver.unprotect_rtp(&mut sealed),
                    Err(SrtpError::Authentication)
                );
                assert_eq!(receiver.streams(), 0);
            }
        }
    }
}

#[test]
fn a_sequence_number_is_sent_once() {
    let (mut sender, _) = pair(Profile::AeadAes128Gcm);
    protect_rtp(&mut sender, &rtp(SSRC, 200, &[1])).unwrap();
    assert_eq!(
        protect_rtp(&mut sender, &rtp(SSRC, 200, &[2])),
        Err(SrtpError::Replayed)
    );
    protect_rtp(&mut sender, &rtp(SSRC, 199, &[2])).unwrap();
    assert_eq!(
        protect_rtp(&mut sender, &rtp(SSRC, 72, &[2])),
        Err(SrtpError::TooOld)
    );
    // Another stream has indices of its own.
    protect_rtp(&mut sender, &rtp(SSRC + 1, 200, &[1])).unwrap();
}

#[test]
fn a_packet_behind_the_window_is_refused() {
    let (mut sender, mut receiver) = pair(Profile::AesCm128HmacSha1_80);
    let mut old = protect_rtp(&mut sender, &rtp(SSRC, 1, &[])).unwrap();
    let mut last = protect_rtp(&mut sender, &rtp(SSRC, 2, &[])).unwrap();
    let mut new = protect_rtp(&mut sender, &rtp(SSRC, 129, &[])).unwrap();
    receiver.unprotect_rtp(&mut new).unwrap();
    assert_eq!(receiver.unprotect_rtp(&mut old), Err(SrtpError::TooOld));
    assert_eq!(receiver.unprotect_rtp(&mut last), Ok(12));
}

#[test]
fn the_stream_idle_longest_makes_place() {
    let (_, mut receiver) = pair(Profile::AeadAes128Gcm);
    let mut hear = |ssrc: u32, sequence: u16| {
        let mut sender = Sender::new(&key(Profile::AeadAes128Gcm));
        let mut sealed = protect_rtp(&mut sender, &rtp(ssrc, sequence, &[])).unwrap();
        receiver.unprotect_rtp(&mut sealed)
    };
    let streams = MAX_STREAMS as u32;
    for ssrc in 0..streams {
        hear(ssrc, 1).unwrap();
    }
    hear(0, 2).unwrap();
    hear(streams, 1).unwrap();
    // Not the first, which spoke again, but the second was forgotten: its packet is no replay any more.
    assert_eq!(hear(0, 2), Err(SrtpError::Replayed));
    assert_eq!(hear(2, 1), Err(SrtpError::Replayed));
    assert_eq!(hear(1, 1), Ok(12));
    assert_eq!((receiver.streams(), receiver.evicted()), (MAX_STREAMS, 2));
}

#[test]
fn a_sender_forgets_no_stream() {
    let (mut sender, _) = pair(Profile::AeadAes128Gcm);
    for ssrc in 0..MAX_STREAMS as u32 {
        protect_rtp(&mut sender, &rtp(ssrc, 1, &[])).unwrap();
    }
    assert_eq!(
        protect_rtp(&mut sender, &rtp(99, 1, &[])),
        Err(SrtpError::TooManyStreams)
    );
    assert_eq!(
        protect_rtcp(&mut sender, &rtcp(99, &[])),
        Err(SrtpError::TooManyStreams)
    );
    assert_eq!(
        protect_rtp(&mut sender, &rtp(0, 1, &[])),
        Err(SrtpError::Replayed)
    );
}

#[test]
fn each_reason() {
    let (mut sender, mut receiver) = pair(Profile::AeadAes128Gcm);
    let reason = |packet: &[u8], receiver: &mut Receiver| receiver.unprotect_rtp(&mut packet.to_vec());
    assert_eq!(reason(&[], &mut receiver), Err(SrtpError::Truncated));
    assert_eq!(reason(&[0x80; 15], &mut receiver), Err(SrtpError::Truncated));
    assert_eq!(reason(&[0x80; 27], &mut receiver), Err(SrtpError::Truncated));
    assert_eq!(reason(&[0x80; 28], &mut receiver), Err(SrtpError::Authentication));
    assert_eq!(reason(&[0x81; 31], &mut receiver), Err(SrtpError::Header));
    assert_eq!(reason(&[0x40; 40], &mut receiver), Err(SrtpError::Header));
    assert_eq!(
        reason(&vec![0x80; 65_536], &mut receiver),
        Err(SrtpError::Oversized)
    );
    assert_eq!(
        receiver.unprotect_rtcp(&mut [0x80; 27]),
        Err(SrtpError::Truncated)
    );
    assert_eq!(
        receiver.unprotect_rtcp(&mut [0x80; 28]),
        Err(SrtpError::Authentication)
    );
    assert_eq!(receiver.unprotect_rtcp(&mut [0; 40]), Err(SrtpError::Header));
    let mut packet = rtp(SSRC, 1, &[0; 10]);
    packet.resize(37, 0);
    assert_eq!(sender.protect_rtp(&mut packet, 22), Err(SrtpError::NoRoom));
    assert_eq!(sender.protect_rtp(&mut packet, 38), Err(SrtpError::NoRoom));
    assert_eq!(sender.protect_rtcp(&mut packet, 22), Err(SrtpError::NoRoom));
    assert_eq!(sender.protect_rtp(&mut packet, 11), Err(SrtpError::Truncated));
    assert_eq!(sender.protect_rtp(&mut packet, 21), Ok(37));
    let mut jumbo = rtp(SSRC, 2, &vec![0; 70_000]);
    assert_eq!(sender.protect_rtp(&mut jumbo, 65_520), Err(SrtpError::Oversized));
    assert_eq!(SrtpError::TooManyStreams as usize, SrtpError::COUNT - 1);
}

#[test]
fn profiles_by_name_and_number() {
    for profile in Profile::ALL {
        assert_eq!(Profile::from_name(profile.name()), Some(profile));
        assert_eq!(Profile::from_dtls_id(profile.dtls_id()), Some(profile));
    }
    let name = Profile::from_name("aes_cm_128_hmac_sha1_32");
    assert_eq!(name, Some(Profile::AesCm128HmacSha1_32));
    assert_eq!(Profile::from_name("AES_CM_256_HMAC_SHA1_80"), None);
    assert_eq!(Profile::from_dtls_id(8), None);
}

#[test]
fn key_parameters_of_sdes() {
    // The example of RFC 4568 section 6.1.
    const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    let profile = Profile::AesCm128HmacSha1_80;
    let read = |inline: &str| MasterKey::from_sdes(profile, inline);
    let key = MasterKey::new(profile, b"wDfvg&T+)xG7@fb5jU,RaA}\\|p0%*#");
    assert_eq!(read(KEY), key);
    assert_eq!(read(&format!(" INLINE:{KEY}")), key);
    assert_eq!(read(&format!("inline:{KEY}|2^20")), key);
    assert_eq!(read(&format!("inline:{KEY}|1048576")), key);
    assert_eq!(key.unwrap().to_sdes(), format!("inline:{KEY}"));
    assert_eq!(read(&format!("inline:{KEY}|2^20|1:4")), Err(KeyError::Mki));
    assert_eq!(read(&format!("inline:{KEY}|1:4")), Err(KeyError::Mki));
    assert_eq!(read(&format!("inline:{KEY};inline:{KEY}")), Err(KeyError::Mki));
    for lifetime in ["", "0", "2^49", "2^64", "2^-1", "2^", "x", "281474976710657"] {
        assert_eq!(read(&format!("inline:{KEY}|{lifetime}")), Err(KeyError::Lifetime));
    }
    assert_eq!(read("inline:"), Err(KeyError::Length));
    assert_eq!(read(&KEY[..36]), Err(KeyError::Length));
    assert_eq!(read(&format!("{KEY}AAAA")), Err(KeyError::Length));
    assert_eq!(read(&KEY.repeat(3)), Err(KeyError::Length));
    assert_eq!(read(&KEY.replace('d', "!")), Err(KeyError::Base64));
    // 28 octets, with and without padding.
    let text = MasterKey::new(Profile::AeadAes128Gcm, &[9; 28])
        .unwrap()
        .to_sdes();
    assert!(text.ends_with("=="));
    let unpadded = MasterKey::from_sdes(Profile::AeadAes128Gcm, text.trim_end_matches('='));
    assert_eq!(unpadded, MasterKey::new(Profile::AeadAes128Gcm, &[9; 28]));
}

#[test]
fn keys_of_a_dtls_export() {
    for profile in Profile::ALL {
        let salt = profile.material_len() - 16;
        let parts = [vec![1_u8; 16], vec![2_u8; 16], vec![3_u8; salt], vec![4_u8; salt]];
        let material = parts.concat();
        let client = MasterKey::new(profile, &[&parts[0][..], &parts[2]].concat()).unwrap();
        let server = MasterKey::new(profile, &[&parts[1][..], &parts[3]].concat()).unwrap();
        assert_eq!(
            MasterKey::from_dtls_export(profile, &material),
            Ok((client, server))
        );
        for wrong in [&[][..], &material[1..], &[&material[..], &[0]].concat()] {
            assert_eq!(MasterKey::from_dtls_export(profile, wrong), Err(KeyError::Length));
        }
    }
}

#[test]
fn no_key_is_printed() {
    let key = key(Profile::AesCm128HmacSha1_80);
    assert_eq!(
        format!("{key:?}"),
        "MasterKey { profile: AesCm128HmacSha1_80, .. }"
    );
    assert!(!format!("{:?}", Sender::new(&key)).contains("rtp:"));
    let (_, receiver) = pair(Profile::AeadAes128Gcm);
    assert!(format!("{receiver:?}").starts_with("Receiver { streams: Streams"));
}
