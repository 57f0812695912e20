//! RTCP of one leg, sans-IO: told of packets and time, says when a report is due, and writes it.

use super::parse::{Compound, Form, Packet, ReportBlocks, Sources};
use super::reception::{Arrival, Reception};
use super::round_trip::{HeardTime, SentTimes};
use super::timing::{DEFAULT_MIN_INTERVAL_US, Timing};
use super::write::clip;
use super::xr::{XrBlock, XrBlocks};
use super::{ReportBlock, RtcpError, VoipMetrics, ntp_middle};
use crate::packet::RtpHeader;
use crate::quality::{LegQuality, Path, PeerReception, QualityCodec, RoundTrip, Scores};

/// What a leg's signalling agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtcpParams {
    /// Our synchronisation source.
    pub ssrc: u32,
    /// Our canonical name (RFC 7022); octets beyond 255 are cut off.
    pub cname: String,
    /// Media clock, in Hz; 0 counts as 1.
    pub clock_hz: u32,
    /// What comes in, for the quality.
    pub codec: QualityCodec,
    /// The peer asked for `a=rtcp-xr:voip-metrics` (RFC 3611 section 5).
    pub xr_voip_metrics: bool,
    /// The peer asked for `a=rtcp-xr:rcvr-rtt` (RFC 3611 section 5): while we send no media we give it our time.
    pub xr_receiver_rtt: bool,
    /// `a=rtcp-rsize` (RFC 5506): the peer may send packets without a report. Ours always have one.
    pub reduced_size: bool,
    /// Least mean time between reports; raised to [`MIN_INTERVAL_FLOOR_US`](super::MIN_INTERVAL_FLOOR_US). Less than
    /// [`DEFAULT_MIN_INTERVAL_US`] is for legs with feedback (RFC 4585 section 3.5).
    pub min_interval_us: u64,
}

impl RtcpParams {
    /// Plain RTCP with a report about every 5 s.
    pub fn new(ssrc: u32, cname: String, clock_hz: u32, codec: QualityCodec) -> Self {
        Self {
            ssrc,
            cname,
            clock_hz,
            codec,
            xr_voip_metrics: false,
            xr_receiver_rtt: false,
            reduced_size: false,
            min_interval_us: DEFAULT_MIN_INTERVAL_US,
        }
    }
}

/// What RTCP cannot see by itself and voice metrics tell (RFC 3611 section 4.7); the default is nothing known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalView {
    /// Delay of our own: jitter buffer, packets, playout.
    pub end_system_ms: u16,
    /// Speech level in dBm0.
    pub signal_dbm0: Option<i8>,
    /// Noise level in dBm0.
    pub noise_dbm0: Option<i8>,
    /// Residual echo return loss in dB.
    pub echo_return_loss_db: Option<u8>,
    /// Whether the jitter buffer adapts.
    pub buffer_adapts: Option<bool>,
    /// Delay of the jitter buffer for a packet on time.
    pub buffer_nominal_ms: u16,
    /// The same for the earliest packet that is not discarded.
    pub buffer_maximum_ms: u16,
    /// The most to which the buffer may adapt.
    pub buffer_absolute_maximum_ms: u16,
}

/// The peer's report on our stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerView {
    /// As the peer wrote it.
    pub block: ReportBlock,
    /// Round trip that follows from it, if one does.
    pub round_trip_us: Option<u64>,
}

/// The most important thing in a datagram, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RtcpEvent<'a> {
    /// The peer reported on our stream.
    PeerReport(PeerView),
    /// The peer's voice metrics of our stream.
    PeerMetrics(VoipMetrics),
    /// The peer's stream ends; it may begin another.
    Bye {
        /// Why, meant to be UTF-8.
        reason: Option<&'a [u8]>,
    },
    /// The peer uses our SSRC (RFC 3550 section 8.2): say BYE and take another with
    /// [`change_ssrc`](RtcpSession::change_ssrc).
    Collision,
}

impl RtcpEvent<'_> {
    fn rank(&self) -> u8 {
        match self {
            Self::PeerReport(_) => 0,
            Self::PeerMetrics(_) => 1,
            Self::Bye { .. } => 2,
            Self::Collision => 3,
        }
    }
}

/// What arrived as RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RtcpCounters {
    /// Valid datagrams.
    pub datagrams: u64,
    /// Invalid ones, by [`RtcpError`].
    pub rejected: [u64; RtcpError::COUNT],
    /// Feedback packets (RFC 4585), which are skipped.
    pub feedback: u64,
    /// Packets and XR blocks of other types, APP among them, which are skipped.
    pub skipped: u64,
    /// BYEs for another stream than the one received.
    pub foreign_byes: u64,
    /// RTP and RTCP packets with our own SSRC.
    pub collisions: u64,
}

/// Our outgoing stream under the present SSRC.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outgoing {
    pub(super) packets: u32,
    pub(super) octets: u32,
    /// Timestamp of the last packet, and when it was sent.
    pub(super) last: Option<(u32, u64)>,
    /// Sent since the last report.
    pub(super) fresh: bool,
    /// Sent in the interval before.
    pub(super) recent: bool,
}

/// RTCP of one leg with one peer. Its memory is constant.
#[derive(Debug, Clone)]
pub struct RtcpSession {
    pub(super) params: RtcpParams,
    pub(super) timing: Timing,
    pub(super) reception: Reception,
    pub(super) local: LocalView,
    pub(super) outgoing: Outgoing,
    pub(super) sent_times: SentTimes,
    pub(super) peer_sender: Option<HeardTime>,
    pub(super) peer_receiver: Option<HeardTime>,
    discarded: u64,
    round_trip: Option<RoundTrip>,
    peer: Option<ReportBlock>,
    counters: RtcpCounters,
    collided: bool,
}

impl RtcpSession {
    /// A leg that begins at `now_us`; `random` spreads its first report.
    pub fn new(mut params: RtcpParams, now_us: u64, random: u32) -> Self {
        params.clock_hz = params.clock_hz.max(1);
        params.cname.truncate(clip(&params.cname).len());
        Self {
            timing: Timing::new(params.min_interval_us, now_us, random),
            reception: Reception::new(params.clock_hz),
            params,
            local: LocalView::default(),
            outgoing: Outgoing::default(),
            sent_times: SentTimes::default(),
            peer_sender: None,
            peer_receiver: None,
            discarded: 0,
            round_trip: None,
            peer: None,
            counters: RtcpCounters::default(),
            collided: false,
        }
    }

    /// A valid RTP packet of the peer arrived.
    ///
    /// [`RtcpEvent::Collision`] where it has our own SSRC: once, until [`change_ssrc`](Self::change_ssrc). Such packets
    /// are not counted as received.
    pub fn on_rtp_received(&mut self, now_us: u64, header: &RtpHeader) -> Option<RtcpEvent<'static>> {
        if header.ssrc == self.params.ssrc {
            return self.collide();
        }
        if self.reception.push(now_us, header) == Arrival::Began {
            self.peer_sender = self.peer_sender.filter(|heard| heard.ssrc == header.ssrc);
        }
        None
    }

    /// We sent an RTP packet at `now_us`, `payload_len` without its header.
    pub fn on_rtp_sent(&mut self, now_us: u64, timestamp: u32, payload_len: usize) {
        let out = &mut self.outgoing;
        out.packets = out.packets.wrapping_add(1);
        out.octets = out.octets.wrapping_add(payload_len as u32);
        out.last = Some((timestamp, now_us));
        out.fresh = true;
    }

    /// The jitter buffer discarded `count` packets; where that is one, the one received last. Call it right then.
    pub fn note_discarded(&mut self, count: u32) {
        self.discarded += u64::from(count);
        self.reception.note_discarded(count);
    }

    /// Another codec was agreed on: it holds from the next packet on, and for the scores of the whole call.
    pub fn set_codec(&mut self, codec: QualityCodec, clock_hz: u32) {
        self.params.codec = codec;
        self.params.clock_hz = clock_hz.max(1);
        self.reception.set_clock(clock_hz);
        // The old packet's timestamp says nothing of the new clock.
        self.outgoing.last = None;
    }

    /// A later offer and answer settled on other reports, from the next datagram on: whether the peer asked for voice metrics,
    /// and whether it may send packets without a report.
    pub fn set_forms(&mut self, xr_voip_metrics: bool, reduced_size: bool) {
        self.params.xr_voip_metrics = xr_voip_metrics;
        self.params.reduced_size = reduced_size;
    }

    /// What voice metrics and the conversational score need from elsewhere.
    pub fn set_local(&mut self, local: LocalView) {
        self.local = local;
    }

    /// Take another SSRC after a collision (RFC 3550 section 8.2), with the counts of a new stream.
    pub fn change_ssrc(&mut self, ssrc: u32) {
        self.params.ssrc = ssrc;
        self.outgoing = Outgoing::default();
        self.peer = None;
        self.collided = false;
    }

    /// A datagram of the peer that [`is_rtcp`](crate::packet::is_rtcp), decrypted, arrived.
    ///
    /// # Errors
    /// Why it is no valid RTCP; nothing of it was taken, and it is counted.
    pub fn on_rtcp_received<'a>(
        &mut self,
        now_us: u64,
        datagram: &'a [u8],
    ) -> Result<Option<RtcpEvent<'a>>, RtcpError> {
        let form = if self.params.reduced_size {
            Form::ReducedSize
        } else {
            Form::Compound
        };
        let compound = Compound::parse(datagram, form)
            .inspect_err(|&reason| self.counters.rejected[reason as usize] += 1)?;
        self.counters.datagrams += 1;
        self.timing.note(datagram.len());
        let mut first: Option<RtcpEvent<'a>> = None;
        for packet in compound.packets() {
            if let Some(event) = self.take(now_us, packet)
                && first.is_none_or(|known| known.rank() < event.rank())
            {
                first = Some(event);
            }
        }
        Ok(first)
    }

    /// When [`write_report`](Self::write_report) is to be called; `u64::MAX` after our BYE.
    pub fn due_us(&self) -> u64 {
        self.timing.due_us()
    }

    /// What arrived as RTCP.
    pub fn counters(&self) -> &RtcpCounters {
        &self.counters
    }

    /// Reception statistics of the peer's stream.
    pub fn reception(&self) -> &Reception {
        &self.reception
    }

    /// How the leg is doing.
    pub fn quality(&self) -> LegQuality {
        let peer = self.peer.map(|block| PeerReception {
            fraction_lost: f64::from(block.fraction_lost) / 256.0,
            lost: block.cumulative_lost,
            jitter_ms: f64::from(block.jitter) * 1000.0 / f64::from(self.params.clock_hz),
        });
        LegQuality {
            received: self.reception.received(),
            lost: self.reception.lost(),
            discarded: self.discarded,
            duplicates: self.reception.duplicates(),
            fraction_lost: f64::from(self.reception.fraction_lost()) / 256.0,
            jitter_ms: self.reception.jitter_ms(),
            round_trip: self.round_trip,
            peer,
            scores: self.scores(),
        }
    }

    pub(super) fn scores(&self) -> Option<Scores> {
        let pattern = self.reception.pattern();
        let network_ms = self.round_trip.map_or(0.0, |trip| trip.last_ms / 2.0);
        let path = Path {
            one_way_delay_ms: network_ms + f64::from(self.local.end_system_ms),
            loss_percent: 100.0 * (pattern.loss_rate + pattern.discard_rate),
            burst_ratio: pattern.burst_ratio,
        };
        (pattern.packets > 0).then(|| Scores::rate(self.params.codec, &path))
    }

    pub(super) fn round_trip_ms(&self) -> Option<f64> {
        self.round_trip.map(|trip| trip.last_ms)
    }

    fn collide(&mut self) -> Option<RtcpEvent<'static>> {
        self.counters.collisions += 1;
        let first = !std::mem::replace(&mut self.collided, true);
        first.then_some(RtcpEvent::Collision)
    }

    fn take<'a>(&mut self, now_us: u64, packet: Packet<'a>) -> Option<RtcpEvent<'a>> {
        match packet {
            Packet::SenderReport { ssrc, .. }
            | Packet::ReceiverReport { ssrc, .. }
            | Packet::Extended { ssrc, .. }
                if ssrc == self.params.ssrc =>
            {
                self.collide()
            }
            Packet::SenderReport { ssrc, info, blocks } => {
                let middle = ntp_middle(info.ntp);
                let at_us = now_us;
                self.peer_sender = Some(HeardTime { ssrc, middle, at_us });
                self.take_blocks(now_us, blocks)
            }
            Packet::ReceiverReport { blocks, .. } => self.take_blocks(now_us, blocks),
            Packet::Extended { ssrc, blocks } => self.take_extended(now_us, ssrc, blocks),
            Packet::Bye { sources, reason } => self.take_bye(sources, reason),
            Packet::SourceDescription(_) => None,
            Packet::Feedback => {
                self.counters.feedback += 1;
                None
            }
            Packet::Application | Packet::Other(_) => {
                self.counters.skipped += 1;
                None
            }
        }
    }

    fn take_blocks(&mut self, now_us: u64, mut blocks: ReportBlocks<'_>) -> Option<RtcpEvent<'static>> {
        let block = blocks.find(|block| block.ssrc == self.params.ssrc)?;
        self.peer = Some(block);
        let round_trip_us = self.measure(now_us, block.last_sr, block.delay_since_last_sr);
        Some(RtcpEvent::PeerReport(PeerView { block, round_trip_us }))
    }

    fn take_extended(&mut self, now_us: u64, ssrc: u32, blocks: XrBlocks<'_>) -> Option<RtcpEvent<'static>> {
        let ours = self.params.ssrc;
        let mut event = None;
        for block in blocks {
            match block {
                XrBlock::ReferenceTime { ntp } => {
                    let middle = ntp_middle(ntp);
                    let at_us = now_us;
                    self.peer_receiver = Some(HeardTime { ssrc, middle, at_us });
                }
                XrBlock::Delay(mut delays) => {
                    if let Some(delay) = delays.find(|delay| delay.ssrc == ours) {
                        self.measure(now_us, delay.last_rr, delay.delay_since_last_rr);
                    }
                }
                XrBlock::VoipMetrics(metrics) if metrics.ssrc == ours => {
                    event = Some(RtcpEvent::PeerMetrics(metrics));
                }
                XrBlock::VoipMetrics(_) => {}
                XrBlock::Other(_) => self.counters.skipped += 1,
            }
        }
        event
    }

    /// A BYE counts for the stream that we receive, or for any while there is none.
    fn take_bye<'a>(&mut self, mut sources: Sources<'a>, reason: Option<&'a [u8]>) -> Option<RtcpEvent<'a>> {
        let known = self.reception.ssrc();
        if sources.any(|ssrc| known.is_none_or(|known| known == ssrc)) {
            self.peer_sender = None;
            self.peer_receiver = None;
            return Some(RtcpEvent::Bye { reason });
        }
        self.counters.foreign_byes += 1;
        None
    }

    fn measure(&mut self, now_us: u64, middle: u32, delay: u32) -> Option<u64> {
        let us = self.sent_times.round_trip_us(now_us, middle, delay)?;
        let last_ms = us as f64 / 1000.0;
        let (min_ms, max_ms) = match self.round_trip {
            Some(trip) => (trip.min_ms.min(last_ms), trip.max_ms.max(last_ms)),
            None => (last_ms, last_ms),
        };
        self.round_trip = Some(RoundTrip {
            last_ms,
            min_ms,
            max_ms,
        });
        Some(us)
    }
}
