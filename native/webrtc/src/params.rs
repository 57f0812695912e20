//! What a leg is made of, and the configuration of str0m that follows from it.

use crate::offer::{AgreedAudio, AudioCodec};
use crate::{IceSeed, WebRtcError};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::RtcConfig;
use str0m::config::DtlsCert;
use str0m::format::{Codec, CodecConfig, CodecSpec, FormatParams, PayloadParams};
use str0m::media::Frequency;
use str0m::rtp::Extension;

/// A DTLS certificate with its key. One for a server's life will do: browsers compare the fingerprint of the
/// answer, and callers of one server need not be told apart by it.
#[derive(Clone)]
pub struct Certificate(DtlsCert);

impl Certificate {
    /// A self-signed ECDSA P-256 certificate, with randomness of the operating system.
    ///
    /// # Errors
    /// [`WebRtcError::Certificate`] when the provider of the cryptography cannot make one.
    pub fn generate() -> Result<Self, WebRtcError> {
        let provider = str0m::crypto::from_feature_flags();
        provider
            .dtls_provider
            .generate_certificate()
            .map(Self)
            .ok_or(WebRtcError::Certificate)
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate(..)")
    }
}

/// The bounds of a leg. Each has a counter or an event for what it turns away.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the answer to the end of DTLS; µs.
    pub connect_us: u64,
    /// Without an authenticated ICE check of the peer; µs. str0m gives up a path after 15 s itself, so longer
    /// has no effect; RFC 7675 section 5.1 allows 30 s at most. Browsers check every 2.5 s or oftener.
    pub consent_us: u64,
    /// Data channels open at a time.
    pub channels: usize,
    /// The longest text message, both ways, in octets; `a=max-message-size` tells the peer.
    pub message_octets: usize,
    /// Messages of the peer in a second; as many may come at once.
    pub messages_per_second: u32,
    /// Offers within a minute, the first included.
    pub offers_per_minute: usize,
    /// Streams of the peer that offers may name over the life of the leg, for str0m keeps each.
    pub streams: usize,
    /// Outputs that wait to be fetched.
    pub outputs: usize,
    /// Between two [`crate::LegEvent::Quality`]; µs.
    pub quality_every_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_us: 15_000_000,
            consent_us: 15_000_000,
            channels: 4,
            // 4096 characters, whatever they are; a conversation's messages are shorter.
            message_octets: 16 * 1024,
            // A client pings once a second and speaks in between.
            messages_per_second: 20,
            offers_per_minute: 10,
            // One microphone has one; each new connection of a browser may have another.
            streams: 64,
            outputs: 512,
            quality_every_us: 5_000_000,
        }
    }
}

/// What a leg is made of.
#[derive(Debug, Clone)]
pub struct LegParams {
    /// The instant at which the caller's microseconds are 0.
    pub epoch: Instant,
    /// The own addresses as the peer reaches them (behind a 1:1 NAT: the public ones), in order of preference.
    pub candidates: Vec<SocketAddr>,
    /// The server's certificate.
    pub certificate: Certificate,
    /// Randomness for the ICE credentials.
    pub ice_seed: IceSeed,
    /// Whether the peer is asked to send nothing while its user is silent (Opus DTX). Off: an end of turn is
    /// better found in the room's real sound than in its absence.
    pub dtx: bool,
    /// The bounds.
    pub limits: Limits,
}

pub(crate) fn config(params: &LegParams, audio: AgreedAudio) -> RtcConfig {
    let mut config = RtcConfig::new()
        .set_dtls_cert(params.certificate.0.clone())
        .set_local_ice_credentials(params.ice_seed.credentials())
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .set_stats_interval(Some(Duration::from_micros(params.limits.quality_every_us.max(1))))
        .set_sctp_max_message_size(params.limits.message_octets.try_into().unwrap_or(u32::MAX))
        // With the MID alone: a stream is found by it when a=ssrc does not name it. All others would cost
        // work for each packet and tell nothing.
        .clear_extension_map()
        .set_extension(4, Extension::RtpMid);
    let (codec, channels, format) = match audio.codec {
        AudioCodec::Opus => (Codec::Opus, Some(2), opus_format(params.dtx)),
        AudioCodec::Pcmu => (Codec::PCMU, None, FormatParams::default()),
        AudioCodec::Pcma => (Codec::PCMA, None, FormatParams::default()),
    };
    let clock_rate = match audio.codec {
        AudioCodec::Opus => Frequency::FORTY_EIGHT_KHZ,
        AudioCodec::Pcmu | AudioCodec::Pcma => Frequency::EIGHT_KHZ,
    };
    let mut params = vec![payload(
        audio.payload_type,
        CodecSpec {
            codec,
            clock_rate,
            channels,
            format,
        },
    )];
    if let Some(payload_type) = audio.telephone_event {
        let format = FormatParams::default();
        let clock_rate = if audio.event_clock_rate_hz == 48_000 {
            Frequency::FORTY_EIGHT_KHZ
        } else {
            Frequency::EIGHT_KHZ
        };
        params.push(payload(
            payload_type,
            CodecSpec {
                codec: Codec::Tele,
                clock_rate,
                channels: None,
                format,
            },
        ));
    }
    *config.codec_config() = CodecConfig::new_from_payload_params(params);
    config
}

fn payload(payload_type: u8, spec: CodecSpec) -> PayloadParams {
    let mut params = PayloadParams::new(payload_type.into(), None, spec);
    params.set_fb_transport_cc(false);
    params
}

/// What we ask of the peer's Opus (RFC 7587 section 6.1): redundancy against loss, and DTX where wanted.
fn opus_format(dtx: bool) -> FormatParams {
    FormatParams {
        min_p_time: Some(10),
        use_inband_fec: Some(true),
        use_dtx: dtx.then_some(true),
        ..FormatParams::default()
    }
}
