//! How good a stream is, for Python.

use pyo3::prelude::*;
use rtp::quality::LegQuality;

/// How good a stream is; what no report has told yet is None.
#[pyclass(frozen, get_all, module = "mediaserver._native")]
pub(super) struct StreamQuality {
    received: u64,
    lost: i64,
    discarded: u64,
    fraction_lost: f64,
    jitter_ms: f64,
    round_trip_ms: Option<f64>,
    peer_fraction_lost: Option<f64>,
    peer_jitter_ms: Option<f64>,
    r_factor: Option<f64>,
    mos_lq: Option<f64>,
    mos_cq: Option<f64>,
}

impl From<LegQuality> for StreamQuality {
    fn from(quality: LegQuality) -> Self {
        Self {
            received: quality.received,
            lost: quality.lost,
            discarded: quality.discarded,
            fraction_lost: quality.fraction_lost,
            jitter_ms: quality.jitter_ms,
            round_trip_ms: quality.round_trip.map(|trip| trip.last_ms),
            peer_fraction_lost: quality.peer.map(|peer| peer.fraction_lost),
            peer_jitter_ms: quality.peer.map(|peer| peer.jitter_ms),
            r_factor: quality.scores.map(|scores| scores.r_factor),
            mos_lq: quality.scores.map(|scores| scores.mos_lq),
            mos_cq: quality.scores.map(|scores| scores.mos_cq),
        }
    }
}
