//! The wire of a telephone leg: SRTP around its packets, RTCP beside them.
//!
//! Sans-IO like the stream: octets, the time and randomness come in as arguments.

use std::net::SocketAddr;

use rtp::packet::RtpHeader;
use rtp::quality::{LegQuality, QualityCodec};
use rtp::rtcp::{MAX_DATAGRAM_LEN, RtcpError, RtcpEvent, RtcpParams, RtcpSession};
use rtp::srtp::{MAX_RTCP_OVERHEAD, MasterKey, Receiver, Sender, SrtpError};

use super::consent::{Consent, Signs};
use super::leg::Random;
use crate::stream::Stream;

/// Room for any RTCP datagram that a leg sends.
pub(crate) const REPORT_MAX: usize = MAX_DATAGRAM_LEN + MAX_RTCP_OVERHEAD;

/// Least time between two changes of our SSRC.
const SSRC_LIFE_US: u64 = 10_000_000;

/// The keys of both directions (RFC 4568): each side sends with its own.
#[derive(Debug, Clone, PartialEq)]
pub struct SrtpKeys {
    /// What we send with.
    pub ours: MasterKey,
    /// What the peer sends with.
    pub theirs: MasterKey,
}

/// What was agreed on about RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtcpTerms {
    /// Where it goes; none: to the port after that of the media (RFC 3550 section 11).
    pub remote: Option<SocketAddr>,
    /// It shares the port of the media (RFC 5761).
    pub mux: bool,
    /// The peer asked for voice metrics (RFC 3611 section 5).
    pub xr_voip_metrics: bool,
    /// The peer may send single packets (RFC 5506).
    pub reduced_size: bool,
}

/// Protection and reports, as agreed on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WireTerms {
    /// SRTP; none: plain RTP.
    pub srtp: Option<SrtpKeys>,
    /// RTCP; none: the peer wants no reports (RFC 3556).
    pub rtcp: Option<RtcpTerms>,
    /// What is received, as the E-model knows it.
    pub codec: QualityCodec,
    /// The clock of its timestamps.
    pub clock_hz: u32,
    /// Whether the peer sends media.
    pub receives: bool,
}

impl WireTerms {
    fn signs(&self, quiet_us: u64) -> Signs {
        Signs {
            media: self.receives,
            reports: self.rtcp.is_some(),
            quiet_us,
        }
    }

    /// The form of the reports. Where none were agreed on, or not yet (before the ACK), the peer may send any: it is listened to
    /// all the same.
    fn shape(&self, reports: &mut RtcpSession) {
        let metrics = self.rtcp.is_some_and(|rtcp| rtcp.xr_voip_metrics);
        let reduced_size = self.rtcp.is_none_or(|rtcp| rtcp.reduced_size);
        reports.set_forms(metrics, reduced_size);
    }
}

#[derive(Debug)]
struct Protection {
    keys: SrtpKeys,
    sender: Sender,
    receiver: Receiver,
}

/// The wire of one leg.
#[derive(Debug)]
pub(crate) struct Wire {
    protection: Option<Box<Protection>>,
    reports: Box<RtcpSession>,
    rtcp: Option<RtcpTerms>,
    consent: Consent,
    /// Packets that the listening buffer called late, as far as the statistics know.
    late: u64,
    /// Before that we keep our SSRC, whatever collides with it.
    next_ssrc_us: u64,
}

impl Wire {
    /// `quiet_us`: how long a peer that was heard may be quiet; 0: for ever.
    pub(crate) fn new(
        terms: WireTerms,
        quiet_us: u64,
        ssrc: u32,
        cname: &str,
        now_us: u64,
        random: u32,
    ) -> Self {
        let consent = Consent::new(terms.signs(quiet_us));
        let params = RtcpParams::new(ssrc, cname.to_owned(), terms.clock_hz, terms.codec);
        let mut reports = Box::new(RtcpSession::new(params, now_us, random));
        terms.shape(&mut reports);
        Self {
            protection: terms.srtp.map(Protection::new).map(Box::new),
            reports,
            rtcp: terms.rtcp,
            consent,
            late: 0,
            next_ssrc_us: 0,
        }
    }

    /// A later offer and answer; `moved`: the media go elsewhere. The same keys keep their counters: a second use of an index
    /// would give the plain text away.
    pub(crate) fn renew(&mut self, terms: WireTerms, quiet_us: u64, moved: bool) {
        self.consent.renew(terms.signs(quiet_us), moved);
        terms.shape(&mut self.reports);
        let before = self.protection.take();
        self.protection = terms.srtp.map(|keys| Box::new(Protection::after(before, keys)));
        self.reports.set_codec(terms.codec, terms.clock_hz);
        self.rtcp = terms.rtcp;
    }

    /// The peer has shown that it is where the media go: something valid came from there.
    pub(crate) fn heard(&mut self, now_us: u64) {
        self.consent.heard(now_us);
    }

    /// Whether the peer still wants the media that there are to send.
    pub(crate) fn consents(&mut self, now_us: u64) -> bool {
        self.consent.holds(now_us)
    }

    /// Decrypt a packet in place; returns its length.
    pub(crate) fn open(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        match &mut self.protection {
            Some(protection) => protection.receiver.unprotect_rtp(packet),
            None => Ok(packet.len()),
        }
    }

    /// Encrypt the packet of this length in place; returns its new length.
    pub(crate) fn seal(&mut self, packet: &mut [u8], length: usize) -> Result<usize, SrtpError> {
        match &mut self.protection {
            Some(protection) => protection.sender.protect_rtp(packet, length),
            None => Ok(length),
        }
    }

    /// A packet of the session came; `late` is what the listening buffer has counted so far. Returns whether the peer
    /// uses our SSRC (RFC 3550 section 8.2).
    pub(crate) fn received(&mut self, now_us: u64, header: &RtpHeader, late: u64) -> bool {
        let collision = self.reports.on_rtp_received(now_us, header).is_some();
        let more = late.saturating_sub(std::mem::replace(&mut self.late, late));
        if more > 0 {
            self.reports.note_discarded(more as u32);
        }
        collision
    }

    pub(crate) fn sent(&mut self, now_us: u64, timestamp: u32, payload_len: usize) {
        self.reports.on_rtp_sent(now_us, timestamp, payload_len);
    }

    /// The peer uses our SSRC: take another. Once in a while only, for a peer that returns what we send would have us change
    /// with every packet (RFC 3550 section 8.2 calls that a loop).
    pub(crate) fn avoid_collision(&mut self, now_us: u64, stream: &mut Stream, random: &mut Random) {
        if now_us < self.next_ssrc_us {
            return;
        }
        self.next_ssrc_us = now_us + SSRC_LIFE_US;
        let ssrc = random.next();
        stream.change_ssrc(ssrc);
        self.reports.change_ssrc(ssrc);
    }

    /// Take RTCP of the peer.
    pub(crate) fn report(&mut self, now_us: u64, datagram: &mut [u8]) -> Result<Heard, WireError> {
        let length = match &mut self.protection {
            Some(protection) => protection.receiver.unprotect_rtcp(datagram)?,
            None => datagram.len(),
        };
        let event = self.reports.on_rtcp_received(now_us, &datagram[..length])?;
        Ok(match event {
            Some(RtcpEvent::Collision) => Heard::Collision,
            Some(RtcpEvent::Bye { .. }) => Heard::Bye,
            _ => Heard::Report,
        })
    }

    /// Write the report that is due, if one is; returns its length.
    pub(crate) fn poll_report(
        &mut self,
        now_us: u64,
        ntp: impl FnOnce() -> u64,
        random: u32,
        out: &mut [u8],
    ) -> Option<usize> {
        if self.rtcp.is_none() || now_us < self.reports.due_us() {
            return None;
        }
        let length = self.reports.write_report(now_us, ntp(), random, out);
        self.seal_report(length, out)
    }

    /// Write the last report: the leg is over.
    pub(crate) fn goodbye(&mut self, now_us: u64, ntp: u64, out: &mut [u8]) -> Option<usize> {
        self.rtcp?;
        let length = self.reports.write_bye(now_us, ntp, "", out);
        self.seal_report(length, out)
    }

    fn seal_report(&mut self, length: usize, out: &mut [u8]) -> Option<usize> {
        match &mut self.protection {
            _ if length == 0 => None,
            Some(protection) => protection.sender.protect_rtcp(out, length).ok(),
            None => Some(length),
        }
    }

    /// Where reports go, for media that go to `media`, and whether by the media's own port.
    pub(crate) fn reports_to(&self, media: SocketAddr) -> Option<(SocketAddr, bool)> {
        let terms = self.rtcp?;
        if terms.mux {
            return Some((media, true));
        }
        let next = media.port().checked_add(1)?;
        Some((terms.remote.unwrap_or(SocketAddr::new(media.ip(), next)), false))
    }

    pub(crate) fn quality(&self) -> LegQuality {
        self.reports.quality()
    }
}

/// What a datagram of RTCP brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A report, or nothing of interest.
    Report,
    /// The peer's stream ends; signalling tells what that means.
    Bye,
    /// The peer uses our SSRC.
    Collision,
}

/// Why a datagram of RTCP was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Srtp(#[from] SrtpError),
    #[error(transparent)]
    Rtcp(#[from] RtcpError),
}

impl Protection {
    /// Each direction goes on as it is where its key stays.
    fn after(before: Option<Box<Self>>, keys: SrtpKeys) -> Self {
        let mut new = Self::new(keys);
        if let Some(before) = before {
            if before.keys.ours == new.keys.ours {
                new.sender = before.sender;
            }
            if before.keys.theirs == new.keys.theirs {
                new.receiver = before.receiver;
            }
        }
        new
    }

    fn new(keys: SrtpKeys) -> Self {
        Self {
            sender: Sender::new(&keys.ours),
            receiver: Receiver::new(&keys.theirs),
            keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTCP: RtcpTerms = RtcpTerms {
        remote: None,
        mux: true,
        xr_voip_metrics: false,
        reduced_size: false,
    };

    fn terms(rtcp: Option<RtcpTerms>) -> WireTerms {
        WireTerms {
            srtp: None,
            rtcp,
            codec: QualityCodec::G711Concealed,
            clock_hz: 8000,
            receives: true,
        }
    }

    /// XR alone, with the time of a receiver (RFC 3611 section 4.4), of the stream 7.
    fn extended_report() -> Vec<u8> {
        let mut packet = vec![0x80, 207, 0, 4, 0, 0, 0, 7, 4, 0, 0, 2];
        packet.extend([0; 8]);
        packet
    }

    #[test]
    fn a_report_of_any_form_is_heard_until_the_form_is_agreed_on_and_then_as_agreed() {
        let reduced = RtcpTerms {
            reduced_size: true,
            ..RTCP
        };
        let mut wire = Wire::new(terms(None), 0, 1, "name", 0, 0);
        assert_eq!(wire.report(1, &mut extended_report()), Ok(Heard::Report));
        wire.renew(terms(Some(RTCP)), 0, false);
        let refused = Err(WireError::Rtcp(RtcpError::First));
        assert_eq!(wire.report(2, &mut extended_report()), refused);
        wire.renew(terms(Some(reduced)), 0, false);
        assert_eq!(wire.report(3, &mut extended_report()), Ok(Heard::Report));
    }

    #[test]
    fn voice_metrics_that_are_agreed_on_later_are_sent() {
        let metrics = RtcpTerms {
            xr_voip_metrics: true,
            ..RTCP
        };
        let header = RtpHeader {
            marker: false,
            payload_type: 0,
            sequence: 1,
            timestamp: 160,
            ssrc: 7,
        };
        let has_metrics = |wire: &mut Wire, now_us| {
            wire.received(now_us, &header, 0);
            let mut out = [0; REPORT_MAX];
            let length = wire.poll_report(now_us, || 1 << 32, 0, &mut out).unwrap();
            out[..length].windows(2).any(|octets| octets == [0x80, 207])
        };
        let mut wire = Wire::new(terms(Some(RTCP)), 0, 1, "name", 0, 0);
        assert!(!has_metrics(&mut wire, 20_000_000));
        wire.renew(terms(Some(metrics)), 0, false);
        assert!(has_metrics(&mut wire, 40_000_000));
    }
}
