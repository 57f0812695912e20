//! A leg in the engine: the stream and the wire that it hangs on.

use std::net::SocketAddr;

use rtp::quality::{LegQuality, Path, QualityCodec, RoundTrip, Scores};

use super::ports::StreamId;
use super::rooms::RoomId;
use super::web::Web;
use super::wire::Wire;
use crate::room::ROOM_FRAME;
use crate::stream::Stream;

/// How a leg is connected to its peer.
pub(crate) enum Link {
    /// Not yet.
    None,
    /// RTP, or SRTP, by signalling's address.
    Rtp(Box<Wire>),
    /// A browser.
    Web(Box<Web>),
}

/// One leg.
pub(crate) struct Leg {
    pub(crate) stream: Stream,
    pub(crate) port: usize,
    pub(crate) phase: usize,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) link: Link,
    /// For what only has to differ from call to call.
    pub(crate) random: Random,
    /// The room where it is.
    pub(crate) membership: Option<Box<Membership>>,
}

/// A leg's place in a room.
pub(crate) struct Membership {
    pub(crate) room: RoomId,
    /// What it hears of the others in this tick.
    pub(crate) mix: [i16; ROOM_FRAME],
}

/// A leg's name for itself in RTCP: as unpredictable as its SSRC (RFC 7022 section 4.2).
pub(crate) fn cname(id: StreamId, random: &mut Random) -> String {
    format!("{:08x}{:08x}{id:x}", random.next(), random.next())
}

/// A small generator for intervals and numbers that have to differ, not for secrets (`SplitMix64`, Steele et al. 2014).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }
}

impl Leg {
    /// What the leg has counted.
    pub(crate) fn stats(&self) -> Vec<(&'static str, u64)> {
        let stats = self.stream.stats();
        let listening = stats.listening;
        let mut named = vec![
            ("sent", stats.sent),
            ("received", listening.received),
            ("released", listening.released),
            ("aside", listening.aside),
            ("lost", listening.lost),
            ("late", listening.late),
            ("duplicate", listening.duplicate),
            ("reordered", listening.reordered),
            ("reset", listening.reset),
            ("overflow", listening.overflow),
            ("dropped_too_fast", stats.too_fast),
            ("undecodable", stats.undecodable),
            ("unencodable", stats.unencodable),
            ("dropped_payload_type", stats.payload_type),
            ("dropped_not_receiving", stats.not_receiving),
            ("dropped_not_connected", stats.not_connected),
            ("skipped_frames", stats.skipped_frames),
            ("withheld_frames", stats.withheld_frames),
            ("played_ms", stats.played_ms),
            ("vad_windows", stats.windows.0),
            ("vad_windows_quiet", stats.windows.1),
            ("vad_windows_echo", stats.echoes),
            ("recording_dropped_frames", stats.recording_dropped),
        ];
        if let Some(bridging) = self.stream.bridging_stats() {
            named.extend([
                ("bridging_lost", bridging.lost),
                ("bridging_late", bridging.late),
                ("bridging_flushed", bridging.flushed),
                ("bridging_concealed_samples", bridging.concealed),
            ]);
        }
        if let Link::Web(web) = &self.link {
            named.extend(web.refused());
        }
        named
    }

    /// How good the leg is, both ways; none before it is connected.
    pub(crate) fn quality(&self) -> Option<LegQuality> {
        match &self.link {
            Link::None => None,
            Link::Rtp(wire) => Some(wire.quality()),
            Link::Web(web) => Some(self.web_quality(web)),
        }
    }

    /// A browser's leg has its reports from the library below it, and its scores from us.
    fn web_quality(&self, web: &Web) -> LegQuality {
        const CLOCK_MS: f64 = 48.0;
        let listening = self.stream.stats().listening;
        let quality = web.quality().unwrap_or_default();
        let round_trip_ms = quality.round_trip_us.map(|us| us as f64 / 1000.0);
        let expected = listening.released + listening.lost;
        let path = Path {
            one_way_delay_ms: round_trip_ms.unwrap_or(0.0) / 2.0,
            loss_percent: 100.0 * listening.lost as f64 / expected.max(1) as f64,
            burst_ratio: 1.0,
        };
        LegQuality {
            received: listening.received,
            lost: listening.lost as i64,
            discarded: listening.late,
            duplicates: listening.duplicate,
            fraction_lost: quality.lost_here.map_or(0.0, f64::from),
            jitter_ms: quality
                .jitter_here
                .map_or(0.0, |ticks| f64::from(ticks) / CLOCK_MS),
            round_trip: round_trip_ms.map(|last_ms| RoundTrip {
                last_ms,
                min_ms: last_ms,
                max_ms: last_ms,
            }),
            peer: quality.lost_by_peer.map(|lost| rtp::quality::PeerReception {
                fraction_lost: f64::from(lost),
                lost: 0,
                jitter_ms: quality
                    .jitter_of_peer
                    .map_or(0.0, |ticks| f64::from(ticks) / CLOCK_MS),
            }),
            scores: (expected > 0).then(|| Scores::rate(QualityCodec::Opus, &path)),
        }
    }
}
