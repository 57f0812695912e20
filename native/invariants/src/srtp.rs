//! SRTP and SRTCP.

use arbitrary::{Arbitrary, Unstructured};
use rtp::packet::header_len;
use rtp::srtp::{MAX_RTCP_OVERHEAD, MasterKey, Profile, Receiver, Sender, SrtpError};

use crate::srtp_model::Direction;

/// Nobody can forge a packet, and one that is refused is left as it was. Also: any text as a key of SDES.
pub(crate) fn any_octets(input: &[u8]) {
    for profile in Profile::ALL {
        let key = key(profile);
        let mut receiver = Receiver::new(&key);
        for unprotect in [Receiver::unprotect_rtp, Receiver::unprotect_rtcp] {
            let mut packet = input.to_vec();
            let result = unprotect(&mut receiver, &mut packet);
            assert!(result.is_err(), "{profile:?} took {input:02x?}");
            assert_eq!(packet, input);
            assert_eq!(receiver.streams(), 0);
        }
        if let Ok(text) = std::str::from_utf8(input)
            && let Ok(key) = MasterKey::from_sdes(profile, text)
        {
            let again = MasterKey::from_sdes(profile, &key.to_sdes());
            assert_eq!(again.as_ref(), Ok(&key));
        }
    }
}

fn key(profile: Profile) -> MasterKey {
    MasterKey::new(profile, &vec![7; profile.material_len()]).expect("its length is right")
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// A packet is protected: so far from the one before, with CSRCs and a header extension.
    Rtp {
        ssrc: u8,
        ahead: i16,
        head: u8,
        payload: Vec<u8>,
    },
    Rtcp {
        ssrc: u8,
        payload: Vec<u8>,
    },
    /// One of those that were sent arrives, again perhaps, or as something else.
    Arrives {
        which: u8,
        change: Option<Change>,
    },
}

#[derive(Debug, Arbitrary, Clone, Copy)]
enum Change {
    Bits {
        place: u16,
        bits: u8,
    },
    Shorter(u8),
    Longer(u8),
    /// RTP is taken for RTCP, or the other way round.
    Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rtp,
    Rtcp,
}

struct Sent {
    kind: Kind,
    ssrc: u32,
    sequence: u16,
    index: u64,
    plain: Vec<u8>,
    protected: Vec<u8>,
}

struct Ends {
    sender: Sender,
    receiver: Receiver,
    sent_model: Direction,
    heard_model: Direction,
    sequences: [u16; 256],
    sent: Vec<Sent>,
}

pub(crate) fn any_steps(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let Ok(profile) = octets.choose(&Profile::ALL) else {
        return;
    };
    let key = key(*profile);
    let mut ends = Ends {
        sender: Sender::new(&key),
        receiver: Receiver::new(&key),
        sent_model: Direction::default(),
        heard_model: Direction::default(),
        sequences: [0; 256],
        sent: Vec::new(),
    };
    for step in crate::steps(&mut octets) {
        match step {
            Step::Rtp {
                ssrc,
                ahead,
                head,
                payload,
            } => ends.rtp(ssrc, ahead, head, &payload),
            Step::Rtcp { ssrc, payload } => ends.rtcp(ssrc, &payload),
            Step::Arrives { which, change } => ends.arrives(usize::from(which), change),
        }
        assert_eq!(ends.receiver.streams(), ends.heard_model.len());
        assert_eq!(ends.receiver.evicted(), ends.heard_model.evicted);
    }
}

impl Ends {
    fn rtp(&mut self, ssrc: u8, ahead: i16, head: u8, payload: &[u8]) {
        let sequence = self.sequences[usize::from(ssrc)].wrapping_add_signed(ahead);
        self.sequences[usize::from(ssrc)] = sequence;
        // CSRC count and extension bit as they come: the octets that follow decide whether they fit.
        let mut plain = vec![0x80 | head & 0x1f, 0];
        plain.extend(sequence.to_be_bytes());
        plain.extend([0, 0, 0, 1, 0, 0, 0, ssrc]);
        plain.extend(payload);
        let ssrc = u32::from(ssrc);
        let stream = self.sent_model.stream(ssrc);
        let expected = if header_len(&plain).is_err() {
            Err(SrtpError::Header)
        } else {
            self.sent_model
                .may_send(ssrc)
                .and_then(|()| stream.index(sequence))
                .and_then(|index| stream.may_take_rtp(index).map(|()| index))
        };
        self.protect(Kind::Rtp, ssrc, sequence, plain, expected);
    }

    fn rtcp(&mut self, ssrc: u8, payload: &[u8]) {
        let mut plain = vec![0x80, 201, 0, 0, 0, 0, 0, ssrc];
        plain.extend(payload);
        let ssrc = u32::from(ssrc);
        let next = self.sent_model.stream(ssrc).next_rtcp();
        let expected = self.sent_model.may_send(ssrc).map(|()| next);
        self.protect(Kind::Rtcp, ssrc, 0, plain, expected);
    }

    fn protect(
        &mut self,
        kind: Kind,
        ssrc: u32,
        sequence: u16,
        plain: Vec<u8>,
        expected: Result<u64, SrtpError>,
    ) {
        let mut packet = plain.clone();
        packet.resize(plain.len() + MAX_RTCP_OVERHEAD, 0xaa);
        let untouched = packet.clone();
        let result = match kind {
            Kind::Rtp => self.sender.protect_rtp(&mut packet, plain.len()),
            Kind::Rtcp => self.sender.protect_rtcp(&mut packet, plain.len()),
        };
        match (result, expected) {
            (Ok(len), Ok(index)) => {
                match kind {
                    Kind::Rtp => self.sent_model.took_rtp(ssrc, index),
                    Kind::Rtcp => self.sent_model.took_rtcp(ssrc, index),
                }
                packet.truncate(len);
                self.sent.push(Sent {
                    kind,
                    ssrc,
                    sequence,
                    index,
                    plain,
                    protected: packet,
                });
            }
            (Err(reason), Err(same)) => {
                assert_eq!(reason, same);
                assert_eq!(packet, untouched, "nothing is changed");
            }
            (result, expected) => panic!("{result:?}, not {expected:?}"),
        }
    }

    fn arrives(&mut self, which: usize, change: Option<Change>) {
        // The latest first.
        let Some(at) = self.sent.len().checked_sub(1 + which) else {
            return;
        };
        let Sent {
            kind,
            ssrc,
            sequence,
            index,
            plain,
            protected,
        } = &self.sent[at];
        let mut packet = protected.clone();
        let kind = alter(&mut packet, *kind, change);
        let arrived = packet.clone();
        let result = match kind {
            Kind::Rtp => self.receiver.unprotect_rtp(&mut packet),
            Kind::Rtcp => self.receiver.unprotect_rtcp(&mut packet),
        };
        if arrived != *protected || kind != self.sent[at].kind {
            assert!(result.is_err(), "a packet changed on the way was believed");
        } else {
            let stream = self.heard_model.stream(*ssrc);
            let expected = match kind {
                Kind::Rtp => stream
                    .index(*sequence)
                    .and_then(|guess| stream.may_take_rtp(guess).map(|()| guess))
                    .and_then(|guess| {
                        // A wrong guess of the rollover counter is another key stream and another tag.
                        (guess == *index).then_some(()).ok_or(SrtpError::Authentication)
                    }),
                Kind::Rtcp => stream.may_take_rtcp(*index),
            };
            assert_eq!(result, expected.map(|()| plain.len()));
        }
        match result {
            Ok(len) => {
                assert_eq!(packet[..len], **plain);
                match kind {
                    Kind::Rtp => self.heard_model.took_rtp(*ssrc, *index),
                    Kind::Rtcp => self.heard_model.took_rtcp(*ssrc, *index),
                }
            }
            Err(_) => assert_eq!(packet, arrived, "a packet refused is left as it was"),
        }
    }
}

fn alter(packet: &mut Vec<u8>, kind: Kind, change: Option<Change>) -> Kind {
    match change {
        None => {}
        Some(Change::Bits { place, bits }) => {
            let place = usize::from(place) % packet.len();
            packet[place] ^= bits;
        }
        Some(Change::Shorter(by)) => packet.truncate(packet.len().saturating_sub(usize::from(by))),
        Some(Change::Longer(by)) => packet.resize(packet.len() + usize::from(by), 0),
        Some(Change::Kind) => {
            return match kind {
                Kind::Rtp => Kind::Rtcp,
                Kind::Rtcp => Kind::Rtp,
            };
        }
    }
    kind
}
