//! What the engine counts, in all its threads together.

use std::sync::atomic::{AtomicU64, Ordering};

use rtp::packet::RtpError;
use rtp::rtcp::RtcpError;
use rtp::srtp::SrtpError;
use webrtc::{Counts, Reason};

use crate::stream::StreamStats;

/// Upper bounds of the tick lateness histogram, in microseconds; the last bucket is open.
pub const LATENESS_BOUNDS_US: [u64; 6] = [250, 1_000, 2_000, 5_000, 10_000, 50_000];

/// The reasons of [`SrtpError`] by their index.
const SRTP_REASONS: [&str; SrtpError::COUNT] = [
    "truncated",
    "oversized",
    "header",
    "replayed",
    "too_old",
    "authentication",
    "key_expired",
    "no_room",
    "too_many_streams",
];

/// The reasons of [`RtcpError`] by their index.
const RTCP_REASONS: [&str; RtcpError::COUNT] = ["truncated", "version", "length", "padding", "first", "body"];

/// Counters of the engine, shared with readers. Relaxed throughout: each is a sum of its own.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) unknown_source: AtomicU64,
    pub(crate) learnt_source: AtomicU64,
    pub(crate) send_failed: AtomicU64,
    /// Times that media to a peer stopped since nothing came from it.
    pub(crate) sending_stopped: AtomicU64,
    pub(crate) receive_failed: AtomicU64,
    pub(crate) rtcp: AtomicU64,
    pub(crate) rtcp_sent: AtomicU64,
    pub(crate) bad_reports: [AtomicU64; RtcpError::COUNT],
    pub(crate) srtp: [AtomicU64; SrtpError::COUNT],
    pub(crate) refused_keys: AtomicU64,
    pub(crate) refused_members: AtomicU64,
    pub(crate) refused_addresses: AtomicU64,
    pub(crate) malformed: [AtomicU64; RtpError::COUNT],
    pub(crate) audio_events_dropped: AtomicU64,
    pub(crate) other_events_dropped: AtomicU64,
    pub(crate) refused_chunks: AtomicU64,
    pub(crate) refused_commands: AtomicU64,
    pub(crate) refused_streams: AtomicU64,
    /// What legs that have ended had refused.
    pub(crate) legs: LegCounters,
    /// Passes over the sockets that ended before all was read.
    pub(crate) read_passes_cut_short: AtomicU64,
    /// Media threads that have panicked.
    pub(crate) failed_threads: AtomicU64,
    pub(crate) clock_resyncs: AtomicU64,
    pub(crate) ticks: AtomicU64,
    pub(crate) lateness_max_us: AtomicU64,
    pub(crate) lateness: [AtomicU64; LATENESS_BOUNDS_US.len() + 1],
}

/// Of the reasons that are counted leg by leg, the sums over the legs that are gone.
#[derive(Debug, Default)]
pub(crate) struct LegCounters {
    too_fast: AtomicU64,
    undecodable: AtomicU64,
    payload_type: AtomicU64,
    not_receiving: AtomicU64,
    withheld_frames: AtomicU64,
    web: [AtomicU64; Reason::ALL.len()],
}

impl LegCounters {
    /// A leg has ended.
    pub(crate) fn add_stream(&self, stats: &StreamStats) {
        add(&self.too_fast, stats.too_fast);
        add(&self.undecodable, stats.undecodable);
        add(&self.payload_type, stats.payload_type);
        add(&self.not_receiving, stats.not_receiving);
        add(&self.withheld_frames, stats.withheld_frames);
    }

    /// A browser's leg has ended.
    pub(crate) fn add_web(&self, counts: &Counts) {
        for (reason, count) in counts.iter() {
            add(&self.web[reason as usize], count);
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

impl Counters {
    /// A sub-tick came so much after its time.
    pub(crate) fn note_lateness(&self, late_us: u64) {
        let bucket = LATENESS_BOUNDS_US
            .iter()
            .position(|&bound| late_us <= bound)
            .unwrap_or(LATENESS_BOUNDS_US.len());
        add(&self.ticks, 1);
        add(&self.lateness[bucket], 1);
        self.lateness_max_us.fetch_max(late_us, Ordering::Relaxed);
    }

    /// All of them by name.
    pub(crate) fn snapshot(&self) -> Vec<(String, u64)> {
        let named = [
            ("received", &self.received),
            ("sent", &self.sent),
            ("dropped_unknown_source", &self.unknown_source),
            ("rtcp_received", &self.rtcp),
            ("rtcp_sent", &self.rtcp_sent),
            ("dropped_truncated", &self.malformed[RtpError::Truncated as usize]),
            ("dropped_version", &self.malformed[RtpError::Version as usize]),
            ("dropped_csrc", &self.malformed[RtpError::Csrc as usize]),
            ("dropped_extension", &self.malformed[RtpError::Extension as usize]),
            ("dropped_padding", &self.malformed[RtpError::Padding as usize]),
            ("learnt_source", &self.learnt_source),
            ("send_failed", &self.send_failed),
            ("sending_stopped", &self.sending_stopped),
            ("receive_failed", &self.receive_failed),
            ("dropped_audio_events", &self.audio_events_dropped),
            ("dropped_other_events", &self.other_events_dropped),
            ("refused_chunks", &self.refused_chunks),
            ("refused_commands", &self.refused_commands),
            ("refused_streams", &self.refused_streams),
            ("refused_keys", &self.refused_keys),
            ("ended_legs_too_fast", &self.legs.too_fast),
            ("ended_legs_undecodable", &self.legs.undecodable),
            ("ended_legs_payload_type", &self.legs.payload_type),
            ("ended_legs_not_receiving", &self.legs.not_receiving),
            ("ended_legs_withheld_frames", &self.legs.withheld_frames),
            ("refused_members", &self.refused_members),
            ("refused_addresses", &self.refused_addresses),
            ("read_passes_cut_short", &self.read_passes_cut_short),
            ("failed_threads", &self.failed_threads),
            ("clock_resyncs", &self.clock_resyncs),
            ("ticks", &self.ticks),
            ("tick_lateness_max_us", &self.lateness_max_us),
        ];
        let mut stats: Vec<(String, u64)> = named
            .into_iter()
            .map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)))
            .collect();
        for (reason, count) in RTCP_REASONS.iter().zip(&self.bad_reports) {
            stats.push((format!("dropped_rtcp_{reason}"), count.load(Ordering::Relaxed)));
        }
        for (reason, count) in SRTP_REASONS.iter().zip(&self.srtp) {
            stats.push((format!("dropped_srtp_{reason}"), count.load(Ordering::Relaxed)));
        }
        for (reason, count) in Reason::ALL.iter().zip(&self.legs.web) {
            let name = format!("ended_legs_{}", reason.name());
            stats.push((name, count.load(Ordering::Relaxed)));
        }
        for (index, bucket) in self.lateness.iter().enumerate() {
            let name = LATENESS_BOUNDS_US.get(index).map_or_else(
                || "tick_lateness_more".to_owned(),
                |bound| format!("tick_lateness_le_{bound}_us"),
            );
            stats.push((name, bucket.load(Ordering::Relaxed)));
        }
        stats
    }
}
