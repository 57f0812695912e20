//! Packets of libsrtp: ours are octet for octet the same, and we open its.

use rtp::srtp::{MasterKey, Profile, Receiver, Sender, SrtpError};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// One session's keys and packets: protocol, plain, protected.
struct Session {
    key: MasterKey,
    packets: Vec<(&'static str, Vec<u8>, Vec<u8>)>,
}

fn sessions() -> Vec<Session> {
    let mut sessions: Vec<Session> = Vec::new();
    for line in include_str!("vectors/libsrtp.txt").lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["key", profile, material] => sessions.push(Session {
                key: MasterKey::new(Profile::from_name(profile).unwrap(), &hex(material)).unwrap(),
                packets: Vec::new(),
            }),
            ["rtp" | "rtcp", plain, protected] => sessions.last_mut().unwrap().packets.push((
                line.split(' ').next().unwrap(),
                hex(plain),
                hex(protected),
            )),
            _ => assert!(line.starts_with('#'), "{line}"),
        }
    }
    assert_eq!(sessions.len(), Profile::ALL.len());
    sessions
}

#[test]
fn we_send_what_libsrtp_sends() {
    for Session { key, packets } in sessions() {
        let mut sender = Sender::new(&key);
        // The RFC's first index is 0, libsrtp's is 1.
        let mut first = [0; 64];
        first[..8].copy_from_slice(&packets.last().unwrap().1[..8]);
        sender.protect_rtcp(&mut first, 8).unwrap();
        for (protocol, plain, protected) in packets {
            let mut buffer = [0xee; 256];
            buffer[..plain.len()].copy_from_slice(&plain);
            let len = match protocol {
                "rtp" => sender.protect_rtp(&mut buffer, plain.len()),
                _ => sender.protect_rtcp(&mut buffer, plain.len()),
            };
            assert_eq!(
                buffer[..len.unwrap()],
                protected,
                "{:?} {protocol}",
                key.profile()
            );
            assert!(buffer[len.unwrap()..].iter().all(|octet| *octet == 0xee));
        }
    }
}

#[test]
fn we_open_what_libsrtp_sends() {
    for Session { key, packets } in sessions() {
        let mut receiver = Receiver::new(&key);
        for (protocol, plain, mut protected) in packets {
            let mut open = |packet: &mut [u8]| match protocol {
                "rtp" => receiver.unprotect_rtp(packet),
                _ => receiver.unprotect_rtcp(packet),
            };
            let mut replayed = protected.clone();
            let len = open(&mut protected).unwrap();
            assert_eq!(protected[..len], plain, "{:?} {protocol}", key.profile());
            assert_eq!(open(&mut replayed), Err(SrtpError::Replayed));
        }
        assert_eq!(receiver.streams(), 2);
    }
}
