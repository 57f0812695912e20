//! What may happen in a call: what the server does with its leg, and what the peer protects.

use arbitrary::Arbitrary;
use webrtc::IceSeed;

use super::Call;

#[derive(Debug, Arbitrary)]
pub(super) enum Step<'a> {
    Wait {
        ms: u16,
    },
    /// Until the leg wants to be called.
    Due,
    /// Any datagram.
    Octets {
        from: u8,
        astray: bool,
        datagram: &'a [u8],
    },
    /// One that the peer sent, again: from elsewhere perhaps, changed perhaps.
    Again {
        which: u8,
        from: u8,
        change: Option<(u16, u8)>,
        shorter: u8,
    },
    /// A check that authenticates, with further attributes.
    Check {
        from: u8,
        further: &'a [u8],
    },
    /// What is missing of a connection.
    Connect,
    Dtls {
        data: &'a [u8],
    },
    Rtp {
        ahead: i8,
        payload_type: u8,
        payload: &'a [u8],
    },
    /// Octets that are protected as if they were RTP.
    RtpOctets {
        octets: &'a [u8],
    },
    Rtcp {
        packet_type: u8,
        octets: &'a [u8],
    },
    Chunks {
        kind: u8,
        octets: &'a [u8],
    },
    Data {
        ahead: i8,
        flags: u8,
        stream: u8,
        protocol: u8,
        payload: &'a [u8],
    },
    Open {
        stream: u8,
        kind: u8,
        label: &'a [u8],
    },
    Say {
        payload_type: u8,
        sequence: u16,
        payload: &'a [u8],
    },
    Send {
        text: &'a str,
    },
    Offer {
        restart: bool,
    },
    Farewell,
    Close,
    /// Output is left, or fetched again.
    Leave {
        output: bool,
    },
}

impl Call {
    /// What the server does with the leg.
    pub(super) fn ours(&mut self, step: &Step<'_>) {
        match *step {
            Step::Say {
                payload_type,
                sequence,
                payload,
            } => {
                let timestamp = u32::from(sequence) * 960;
                let was_connected = self.leg.is_connected();
                let said = self.leg.write_rtp(
                    self.now_us,
                    [111, 110, payload_type][usize::from(payload_type) % 3],
                    sequence,
                    timestamp,
                    payload_type > 127,
                    &payload[..payload.len().min(1200)],
                );
                assert!(was_connected || said.is_err());
            }
            Step::Send { text } => {
                let _ = self.leg.send_message(self.now_us, text);
            }
            Step::Offer { restart } => {
                let again = if restart {
                    self.offer.replace("a=ice-ufrag:peer", "a=ice-ufrag:else")
                } else {
                    self.offer.clone()
                };
                let seed = IceSeed([self.sequence as u8; IceSeed::LEN]);
                if let Ok(answer) = self.leg.reanswer(self.now_us, &again, seed) {
                    self.peer.accept(&answer);
                }
            }
            _ => self.leg.close(self.now_us),
        }
    }

    /// What the peer protects.
    pub(super) fn theirs(&mut self, step: &Step<'_>) {
        match *step {
            Step::Rtp {
                ahead,
                payload_type,
                payload,
            } => {
                self.sequence = self.sequence.wrapping_add_signed(i16::from(ahead));
                let mut packet = vec![0x80, [111, 111, 110, payload_type][usize::from(payload_type) % 4]];
                packet.extend_from_slice(&self.sequence.to_be_bytes());
                packet.extend_from_slice(&(u32::from(self.sequence) * 960).to_be_bytes());
                packet.extend_from_slice(&1_u32.to_be_bytes());
                packet.extend_from_slice(payload);
                self.rtp(&packet);
            }
            Step::RtpOctets { octets } => self.rtp(octets),
            Step::Rtcp { packet_type, octets } => {
                // Its length fits, else nothing behind it would be read.
                let words = (octets.len() / 4) as u16;
                let mut packet = vec![0x81, 200 + packet_type % 8];
                packet.extend_from_slice(&words.to_be_bytes());
                packet.extend_from_slice(octets);
                if let Some(protected) = self.peer.protect_rtcp(&packet) {
                    self.give(0, protected);
                }
            }
            Step::Dtls { data } => self.peer.send_dtls(data),
            Step::Chunks { kind, octets } => {
                let mut chunks = vec![kind, octets.len() as u8];
                chunks.extend_from_slice(&(octets.len() as u16 + 4).to_be_bytes());
                chunks.extend_from_slice(octets);
                self.peer.send_chunks(&chunks);
            }
            Step::Data {
                ahead,
                flags,
                stream,
                protocol,
                payload,
            } => {
                let protocol = [51, 51, 53, 50, 56, 57, u32::from(protocol)][usize::from(protocol) % 7];
                self.peer
                    .send_data(ahead, flags, u16::from(stream), protocol, payload);
            }
            Step::Open { stream, kind, label } => {
                // RFC 8832 section 5.1.
                let mut open = vec![3, kind, 0, 0, 0, 0, 0, 0];
                open.extend_from_slice(&(label.len() as u16).to_be_bytes());
                open.extend_from_slice(&[0, 0]);
                open.extend_from_slice(label);
                self.peer.send_data(0, 3, u16::from(stream), 50, &open);
            }
            _ => {}
        }
    }
}
