//! What a leg says: its report, name, extended reports and BYE.

use super::bursts::GMIN;
use super::round_trip::HeardTime;
use super::session::RtcpSession;
use super::write::CompoundWriter;
use super::{DelayBlock, ReportBlock, SenderInfo, UNAVAILABLE, VoipMetrics, ntp_middle};

/// Octets of the longest datagram that a session writes: SR with a block 52, SDES 268, XR 60, BYE 264. (An RR is
/// 20 shorter, and the reference time with it 12 longer.)
pub const MAX_DATAGRAM_LEN: usize = 644;

impl RtcpSession {
    /// Write the report that is due and put the next one off; returns its length, or 0 where `out` is too short
    /// ([`MAX_DATAGRAM_LEN`] always suffices).
    ///
    /// It is an SR where media was sent in the last two intervals (RFC 3550 section 6.4), else an RR; then SDES with
    /// the name, and XR where it is called for. `ntp` is the wall clock ([`ntp_from_unix_us`](super::ntp_from_unix_us))
    /// at `now_us`.
    pub fn write_report(&mut self, now_us: u64, ntp: u64, random: u32, out: &mut [u8]) -> usize {
        let mut writer = CompoundWriter::new(out);
        self.write_start(now_us, ntp, &mut writer);
        self.write_extended(now_us, ntp, &mut writer);
        let len = writer.finish().unwrap_or(0);
        self.outgoing.recent = std::mem::take(&mut self.outgoing.fresh);
        self.timing.note(len);
        self.timing.sent(now_us, random);
        len
    }

    /// Write the last datagram: a report, the name, and BYE with `reason` (clipped to 255 octets; may be empty). Returns its
    /// length, or 0 where `out` is too short; nothing is due any more.
    ///
    /// A session of two need not hold it back (RFC 3550 section 6.3.7).
    pub fn write_bye(&mut self, now_us: u64, ntp: u64, reason: &str, out: &mut [u8]) -> usize {
        let mut writer = CompoundWriter::new(out);
        self.write_start(now_us, ntp, &mut writer);
        self.write_extended(now_us, ntp, &mut writer);
        writer.bye(self.params.ssrc, reason);
        self.timing.stop();
        writer.finish().unwrap_or(0)
    }

    /// What every datagram begins with (RFC 3550 section 6.1).
    fn write_start(&mut self, now_us: u64, ntp: u64, writer: &mut CompoundWriter<'_>) {
        let block = self.report_block(now_us);
        match self.sender_info(now_us, ntp) {
            Some(info) => {
                writer.sender_report(self.params.ssrc, &info, block.as_ref());
                self.sent_times.push(ntp_middle(ntp), now_us);
            }
            None => writer.receiver_report(self.params.ssrc, block.as_ref()),
        }
        writer.cname(self.params.ssrc, &self.params.cname);
    }

    fn write_extended(&mut self, now_us: u64, ntp: u64, writer: &mut CompoundWriter<'_>) {
        let delay = self.peer_receiver.take().map(|heard| DelayBlock {
            ssrc: heard.ssrc,
            last_rr: heard.middle,
            delay_since_last_rr: heard.delay(now_us),
        });
        // A sender has its sender reports to measure by.
        let reference = (self.params.xr_receiver_rtt && !self.sends()).then_some(ntp);
        if reference.is_some() {
            self.sent_times.push(ntp_middle(ntp), now_us);
        }
        let metrics = if self.params.xr_voip_metrics {
            self.voip_metrics()
        } else {
            None
        };
        writer.extended(self.params.ssrc, reference, delay.as_ref(), metrics.as_ref());
    }

    fn sends(&self) -> bool {
        self.outgoing.last.is_some() && (self.outgoing.fresh || self.outgoing.recent)
    }

    fn sender_info(&self, now_us: u64, ntp: u64) -> Option<SenderInfo> {
        let (timestamp, sent_us) = self.outgoing.last.filter(|_| self.sends())?;
        // The media clock went on since the last packet.
        let since = u128::from(now_us.saturating_sub(sent_us)) * u128::from(self.params.clock_hz) / 1_000_000;
        Some(SenderInfo {
            ntp,
            rtp_timestamp: timestamp.wrapping_add(since as u32),
            packets: self.outgoing.packets,
            octets: self.outgoing.octets,
        })
    }

    fn report_block(&mut self, now_us: u64) -> Option<ReportBlock> {
        let block = self.reception.report()?;
        let heard = self.peer_sender.filter(|heard| heard.ssrc == block.ssrc);
        Some(ReportBlock {
            last_sr: heard.map_or(0, |heard| heard.middle),
            delay_since_last_sr: heard.map_or(0, |heard: HeardTime| heard.delay(now_us)),
            ..block
        })
    }

    /// Voice metrics of the stream being received, from the beginning of the call; `None` before its first packet.
    pub fn voip_metrics(&self) -> Option<VoipMetrics> {
        let ssrc = self.reception.ssrc()?;
        let scores = self.scores()?;
        let pattern = self.reception.pattern();
        let packet_ms = self.reception.packet_ms();
        let local = &self.local;
        Some(VoipMetrics {
            ssrc,
            loss_rate: in_256ths(pattern.loss_rate),
            discard_rate: in_256ths(pattern.discard_rate),
            burst_density: in_256ths(pattern.burst_density),
            gap_density: in_256ths(pattern.gap_density),
            burst_duration_ms: saturate(pattern.burst_packets * packet_ms),
            gap_duration_ms: saturate(pattern.gap_packets * packet_ms),
            round_trip_ms: saturate(self.round_trip_ms().unwrap_or(0.0)),
            end_system_ms: local.end_system_ms,
            signal_level: local.signal_dbm0.map_or(UNAVAILABLE, |level| level as u8),
            noise_level: local.noise_dbm0.map_or(UNAVAILABLE, |level| level as u8),
            echo_return_loss: local.echo_return_loss_db.unwrap_or(UNAVAILABLE),
            gmin: GMIN,
            // A float's cast saturates: a rating below zero is 0.
            r_factor: scores.r_factor.round() as u8,
            external_r_factor: UNAVAILABLE,
            mos_lq: (10.0 * scores.mos_lq).round() as u8,
            mos_cq: (10.0 * scores.mos_cq).round() as u8,
            receiver_configuration: self.receiver_configuration(),
            buffer_nominal_ms: local.buffer_nominal_ms,
            buffer_maximum_ms: local.buffer_maximum_ms,
            buffer_absolute_maximum_ms: local.buffer_absolute_maximum_ms,
        })
    }

    /// RFC 3611 section 4.7.6: concealment standard (3) or disabled (1), buffer adaptive (3), not (2), or not known (0).
    fn receiver_configuration(&self) -> u8 {
        let concealment = if self.params.codec.conceals() { 3 } else { 1 };
        let buffer = self
            .local
            .buffer_adapts
            .map_or(0, |adapts| if adapts { 3 } else { 2 });
        concealment << 6 | buffer << 4
    }
}

/// A rate of 0 to 1 as a binary fraction of eight bits; all is 255.
fn in_256ths(rate: f64) -> u8 {
    (rate * 256.0) as u8
}

fn saturate(ms: f64) -> u16 {
    ms.round() as u16
}
