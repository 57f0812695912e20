//! One direction of one call: whose packet it is, which index it has, and whether that index may be used.

use super::SrtpError;
use super::keys::{MasterKey, SessionKeys};
use super::streams::{Stream, Streams};
use super::transform::{self, RTCP_CLEAR_LEN, Transform, WORD_LEN, split_word};
use crate::packet::{self, RtpError};

/// No datagram is longer, and at 1 MiB counter mode would run into the keystream of the next index.
const MAX_PACKET_LEN: usize = 0xffff;
/// Packets under one key (RFC 3711 section 9.2).
const MAX_RTP_PACKETS: u64 = 1 << 48;
const MAX_RTCP_PACKETS: u64 = 1 << 31;

/// Session keys of both protocols and the streams that use them.
struct Session {
    rtp: Box<dyn Transform>,
    rtcp: Box<dyn Transform>,
    streams: Streams,
}

impl Session {
    fn new(key: &MasterKey) -> Self {
        let profile = key.profile();
        Self {
            rtp: transform::for_rtp(profile, &SessionKeys::rtp(key)),
            rtcp: transform::for_rtcp(profile, &SessionKeys::rtcp(key)),
            streams: Streams::new(),
        }
    }
}

/// What goes out under one master key.
pub struct Sender {
    session: Session,
    rtp_packets: u64,
    rtcp_packets: u64,
}

impl Sender {
    /// A sender that has sent nothing yet. An initial sequence number below 2^15 spares the far end a
    /// wrong guess when the first packets are lost (RFC 3711 section 3.3.1).
    pub fn new(key: &MasterKey) -> Self {
        Self {
            session: Session::new(key),
            rtp_packets: 0,
            rtcp_packets: 0,
        }
    }

    /// Protect the RTP packet in the first `len` octets, in place; returns its length, at most
    /// [`MAX_RTP_OVERHEAD`](super::MAX_RTP_OVERHEAD) more.
    ///
    /// Sequence numbers may come out of order within the window of 128; each is protected once.
    ///
    /// # Errors
    /// A reason other than [`SrtpError::Authentication`]; nothing is changed then, and nothing must be sent.
    pub fn protect_rtp(&mut self, packet: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let Session { rtp, streams, .. } = &mut self.session;
        let header = RtpFields::read(packet.get(..len).ok_or(SrtpError::NoRoom)?)?;
        let packet = with_room(packet, len, rtp.tag_len())?;
        let window = sending(streams, header.ssrc)?.rtp;
        let index = window.rtp_index(header.sequence)?;
        window.check(index)?;
        if self.rtp_packets == MAX_RTP_PACKETS {
            return Err(SrtpError::KeyExpired);
        }
        rtp.seal_rtp(packet, header.len, header.ssrc, index);
        self.rtp_packets += 1;
        streams.touch(header.ssrc).rtp.insert(index);
        Ok(packet.len())
    }

    /// Protect the compound RTCP packet in the first `len` octets, in place; returns its length, at most
    /// [`MAX_RTCP_OVERHEAD`](super::MAX_RTCP_OVERHEAD) more.
    ///
    /// # Errors
    /// As [`protect_rtp`](Self::protect_rtp).
    pub fn protect_rtcp(&mut self, packet: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let Session { rtcp, streams, .. } = &mut self.session;
        let ssrc = rtcp_ssrc(packet.get(..len).ok_or(SrtpError::NoRoom)?)?;
        let packet = with_room(packet, len, rtcp.tag_len() + WORD_LEN)?;
        let window = sending(streams, ssrc)?.rtcp;
        if self.rtcp_packets == MAX_RTCP_PACKETS {
            return Err(SrtpError::KeyExpired);
        }
        // No larger than the number of packets sent, so 31 bits are enough.
        let index = window.highest().map_or(0, |highest| highest + 1);
        rtcp.seal_rtcp(packet, ssrc, index as u32);
        self.rtcp_packets += 1;
        streams.touch(ssrc).rtcp.insert(index);
        Ok(packet.len())
    }
}

/// What comes in under one master key.
pub struct Receiver {
    session: Session,
}

impl Receiver {
    /// A receiver that has heard nothing yet.
    pub fn new(key: &MasterKey) -> Self {
        Self {
            session: Session::new(key),
        }
    }

    /// Check and decrypt an RTP packet in place; returns the length of the plain packet, which is in front.
    ///
    /// # Errors
    /// The first reason for refusing it; neither the packet nor what is known of any stream is changed.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let Session { rtp, streams, .. } = &mut self.session;
        let plain_len = without(packet, rtp.tag_len())?;
        let header = RtpFields::read(&packet[..plain_len])?;
        let window = streams.find(header.ssrc).unwrap_or_default().rtp;
        let index = window.rtp_index(header.sequence)?;
        window.check(index)?;
        rtp.open_rtp(packet, header.len, header.ssrc, index)?;
        streams.touch(header.ssrc).rtp.insert(index);
        Ok(plain_len)
    }

    /// Check and decrypt a compound RTCP packet in place; returns the length of the plain packet, which is in
    /// front. One that its sender authenticated without encrypting it is accepted.
    ///
    /// # Errors
    /// As [`unprotect_rtp`](Self::unprotect_rtp).
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let Session { rtcp, streams, .. } = &mut self.session;
        let plain_len = without(packet, rtcp.tag_len() + WORD_LEN)?;
        let ssrc = rtcp_ssrc(&packet[..plain_len])?;
        let (_, index) = split_word(rtcp.rtcp_word(packet));
        let index = u64::from(index);
        streams.find(ssrc).unwrap_or_default().rtcp.check(index)?;
        rtcp.open_rtcp(packet, ssrc)?;
        streams.touch(ssrc).rtcp.insert(index);
        Ok(plain_len)
    }

    /// SSRCs of which something authentic came, at most [`MAX_STREAMS`](super::MAX_STREAMS).
    pub fn streams(&self) -> usize {
        self.session.streams.len()
    }

    /// How many streams were forgotten, the one idle longest each time, to make place for another.
    ///
    /// Only who has the key can bring that about. A stream forgotten begins anew: its rollover counter at zero,
    /// its window empty.
    pub fn evicted(&self) -> u64 {
        self.session.streams.evicted()
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender")
            .field("streams", &self.session.streams)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver")
            .field("streams", &self.session.streams)
            .finish_non_exhaustive()
    }
}

/// What of an RTP header matters here.
struct RtpFields {
    /// Of the whole header, CSRCs and extension included: what follows is encrypted (RFC 3711 section 3.1).
    len: usize,
    sequence: u16,
    ssrc: u32,
}

impl RtpFields {
    fn read(packet: &[u8]) -> Result<Self, SrtpError> {
        let len = packet::header_len(packet).map_err(|reason| match reason {
            RtpError::Truncated => SrtpError::Truncated,
            _ => SrtpError::Header,
        })?;
        Ok(Self {
            len,
            sequence: u16::from_be_bytes([packet[2], packet[3]]),
            ssrc: u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]),
        })
    }
}

fn rtcp_ssrc(packet: &[u8]) -> Result<u32, SrtpError> {
    let [first, .., a, b, c, d] = *packet
        .first_chunk::<RTCP_CLEAR_LEN>()
        .ok_or(SrtpError::Truncated)?;
    if first >> 6 != 2 {
        return Err(SrtpError::Header);
    }
    Ok(u32::from_be_bytes([a, b, c, d]))
}

/// What is known of the SSRC, if it may send.
fn sending(streams: &Streams, ssrc: u32) -> Result<Stream, SrtpError> {
    match streams.find(ssrc) {
        Some(stream) => Ok(stream),
        None if streams.is_full() => Err(SrtpError::TooManyStreams),
        None => Ok(Stream::default()),
    }
}

/// The packet with what is to be appended.
fn with_room(packet: &mut [u8], len: usize, appended: usize) -> Result<&mut [u8], SrtpError> {
    if len + appended > MAX_PACKET_LEN {
        return Err(SrtpError::Oversized);
    }
    packet.get_mut(..len + appended).ok_or(SrtpError::NoRoom)
}

/// The length of the packet without what was appended.
fn without(packet: &[u8], appended: usize) -> Result<usize, SrtpError> {
    if packet.len() > MAX_PACKET_LEN {
        return Err(SrtpError::Oversized);
    }
    packet.len().checked_sub(appended).ok_or(SrtpError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;

    fn key() -> MasterKey {
        MasterKey::new(Profile::AesCm128HmacSha1_80, &[7; 30]).unwrap()
    }

    fn rtp(sequence: u16) -> [u8; 64] {
        let mut packet = [0; 64];
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet
    }

    #[test]
    fn a_key_is_used_up_by_2_pow_48_packets() {
        let mut sender = Sender::new(&key());
        sender.rtp_packets = MAX_RTP_PACKETS - 1;
        assert_eq!(sender.protect_rtp(&mut rtp(1), 20), Ok(30));
        assert_eq!(sender.protect_rtp(&mut rtp(2), 20), Err(SrtpError::KeyExpired));
    }

    #[test]
    fn the_rollover_counter_does_not_roll_over() {
        let mut sender = Sender::new(&key());
        let last = MAX_RTP_PACKETS - 1;
        sender.session.streams.touch(0).rtp.insert(last - 1);
        let mut receiver = Receiver::new(&key());
        receiver.session.streams.touch(0).rtp.insert(last - 1);
        let mut packet = rtp(0xffff);
        let len = sender.protect_rtp(&mut packet, 20).unwrap();
        assert_eq!(receiver.unprotect_rtp(&mut packet[..len]), Ok(20));
        assert_eq!(sender.protect_rtp(&mut rtp(0), 20), Err(SrtpError::KeyExpired));
        assert_eq!(
            receiver.unprotect_rtp(&mut rtp(0)[..30]),
            Err(SrtpError::KeyExpired)
        );
    }

    #[test]
    fn a_key_is_used_up_by_2_pow_31_rtcp_packets() {
        let mut sender = Sender::new(&key());
        sender.rtcp_packets = MAX_RTCP_PACKETS - 1;
        let last = MAX_RTCP_PACKETS - 1;
        sender.session.streams.touch(0).rtcp.insert(last - 1);
        let mut packet = rtp(0);
        let len = sender.protect_rtcp(&mut packet, 20).unwrap();
        assert_eq!(Receiver::new(&key()).unprotect_rtcp(&mut packet[..len]), Ok(20));
        assert_eq!(sender.protect_rtcp(&mut rtp(0), 20), Err(SrtpError::KeyExpired));
    }
}
