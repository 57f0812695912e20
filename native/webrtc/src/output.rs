//! What a leg gives back.

use crate::offer::AgreedAudio;
use std::net::SocketAddr;
use std::sync::Arc;

/// The next thing that [`crate::WebRtcLeg::poll`] has.
#[derive(Debug)]
pub enum LegOutput {
    /// A datagram to send.
    Transmit {
        /// The own address (one of the candidates) from which the peer expects it.
        source: SocketAddr,
        /// Where to.
        destination: SocketAddr,
        /// The octets.
        payload: Vec<u8>,
    },
    /// A decrypted, authenticated RTP packet that was not seen before, in the order of arrival.
    Rtp(RtpIn),
    /// Something happened.
    Event(LegEvent),
    /// Nothing more now: call [`crate::WebRtcLeg::handle_timeout`] at this time (µs), or earlier; `u64::MAX`
    /// when the leg is closed.
    Timeout(u64),
}

/// An RTP packet of the peer.
#[derive(Debug, Clone)]
pub struct RtpIn {
    /// The fixed header.
    pub header: rtp::packet::RtpHeader,
    /// The payload, without padding.
    pub payload: Arc<[u8]>,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum LegEvent {
    /// A new address of the peer passed the ICE check: its datagrams are of this leg from now on.
    Bound(SocketAddr),
    /// The peer has so many addresses that this one gave way: it is not of this leg any more.
    Released(SocketAddr),
    /// ICE and DTLS are done, media flows.
    Connected(AgreedAudio),
    /// A data channel of this label is open; messages go to the one that opened last.
    ChannelOpen(String),
    /// A text message of the peer, at most [`crate::Limits::message_octets`] octets.
    ChannelMessage(String),
    /// The last open data channel was closed.
    ChannelClosed,
    /// The reports of RTCP, as often as [`crate::Limits::quality_every_us`].
    Quality(Quality),
    /// The call is over; nothing comes after this. Datagrams that were given out before it may still be sent.
    Disconnected(Disconnection),
}

/// Why a call is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disconnection {
    /// ICE or DTLS did not finish within [`crate::Limits::connect_us`].
    ConnectTimeout,
    /// No authenticated ICE check came for [`crate::Limits::consent_us`] (RFC 7675): the peer is gone, or does
    /// not want our packets any more.
    ConsentLost,
    /// The peer closed DTLS or SCTP.
    PeerClosed,
    /// [`crate::WebRtcLeg::close`].
    Closed,
    /// The handshake or a protocol failed, with str0m's words for it (a wrong fingerprint, for one).
    Failed(String),
}

/// How the media does, both ways. What no report has told yet is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quality {
    /// Round trip time by the peer's receiver reports.
    pub round_trip_us: Option<u64>,
    /// Share of our packets that the peer missed, 0 to 1, over its last report interval.
    pub lost_by_peer: Option<f32>,
    /// Interarrival jitter that the peer measured, in units of the media clock.
    pub jitter_of_peer: Option<u32>,
    /// Share of the peer's packets that we missed, 0 to 1, over our last report interval.
    pub lost_here: Option<f32>,
    /// Interarrival jitter measured here, in units of the media clock.
    pub jitter_here: Option<u32>,
    /// Packets received since the start.
    pub packets_received: u64,
    /// Packets sent since the start.
    pub packets_sent: u64,
}
