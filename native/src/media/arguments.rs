//! What Python passes, as the engine takes it; what cannot be taken is named, with what can.

use std::net::{IpAddr, SocketAddr};

use ::media::engine::SrtpKeys;
use ::media::speech::SpeechParams;
use ::media::stream::StreamParams;
use codec::Codec;
use pyo3::prelude::*;
use rtp::srtp::{MasterKey, Profile};
use silero::DetectorParams;
use webrtc::IceSeed;

use super::refused;

pub(super) fn host_address(host: &str) -> PyResult<IpAddr> {
    host.parse()
        .map_err(|_| refused(format!("{host:?} is not an IPv4 or IPv6 address")))
}

pub(super) fn address((host, port): (String, u16)) -> PyResult<SocketAddr> {
    Ok(SocketAddr::new(host_address(&host)?, port))
}

pub(super) fn codec_named(name: &str) -> PyResult<Codec> {
    Codec::from_name(name).ok_or_else(|| {
        let known = Codec::ALL.map(Codec::name).join(", ");
        refused(format!("codec {name:?} is none of {known}"))
    })
}

/// A 64-bit number that two calls in a row do not share; RTP wants its beginnings unpredictable (RFC 3550 5.1).
fn unpredictable() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(::media::engine::now_us())
}

/// Randomness for the credentials of a browser's leg.
pub(super) fn ice_seed() -> PyResult<IceSeed> {
    let mut octets = [0; IceSeed::LEN];
    getrandom::fill(&mut octets).map_err(refused)?;
    Ok(IceSeed(octets))
}

pub(super) fn samples(pcm: &[u8]) -> PyResult<Vec<i16>> {
    let (pairs, rest) = pcm.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(refused(format!(
            "{} bytes are no whole number of 16-bit samples",
            pcm.len()
        )));
    }
    Ok(pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
}

pub(super) fn srtp_keys((suite, ours, theirs): &(String, String, String)) -> PyResult<SrtpKeys> {
    let profile = Profile::from_name(suite).ok_or_else(|| {
        let known = Profile::ALL.map(Profile::name).join(", ");
        refused(format!("SRTP suite {suite:?} is none of {known}"))
    })?;
    // The reason never holds the key.
    let key = |inline: &str| MasterKey::from_sdes(profile, inline).map_err(refused);
    Ok(SrtpKeys {
        ours: key(ours)?,
        theirs: key(theirs)?,
    })
}

pub(super) fn speech_params(
    vad_threshold: f32,
    speech_start_ms: u32,
    speech_stop_ms: u32,
    preroll_ms: u32,
    chunk_ms: u32,
    pause_ms: u32,
) -> PyResult<SpeechParams> {
    if !(0.0..=1.0).contains(&vad_threshold) {
        return Err(refused(format!(
            "vad_threshold {vad_threshold} is not within 0 to 1"
        )));
    }
    for (name, value, allowed) in [
        ("speech_start_ms", speech_start_ms, 0..=2000),
        ("speech_stop_ms", speech_stop_ms, 0..=5000),
        ("preroll_ms", preroll_ms, 0..=2000),
        ("chunk_ms", chunk_ms, 20..=5000),
        ("pause_ms", pause_ms, 0..=2000),
    ] {
        if !allowed.contains(&value) {
            return Err(refused(format!(
                "{name} {value} is not within {} to {}",
                allowed.start(),
                allowed.end()
            )));
        }
    }
    Ok(SpeechParams {
        detector: DetectorParams {
            threshold: vad_threshold,
            start_ms: speech_start_ms,
            stop_ms: speech_stop_ms,
        },
        preroll_ms,
        chunk_ms,
        pause_ms,
    })
}

pub(super) fn stream_params(
    speech: SpeechParams,
    media_timeout_ms: u64,
    report_activity: bool,
) -> StreamParams {
    let random = unpredictable();
    StreamParams {
        speech: Some(speech),
        media_timeout_ms,
        report_activity,
        ssrc: (random >> 32) as u32,
        first_sequence: (random & 0x7fff) as u16,
        first_timestamp: (random >> 8) as u32,
    }
}
