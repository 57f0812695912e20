//! What must hold for any input at all: the bodies of the fuzz targets.
//!
//! `native/fuzz` runs them under libFuzzer and keeps what it learnt as corpora; the tests of this crate replay those with
//! the stable compiler. Each target reads octets, or steps made of them, and asserts what the documentation promises: no
//! panic is the least of it.

mod bridging;
mod decoding;
mod demultiplexing;
mod event;
mod listening;
mod offer;
mod packet;
mod rtcp;
mod rtcp_session;
mod srtp;
mod srtp_model;
mod stream;
mod web;

/// A fuzz target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// RTP headers: what is read is what is there.
    RtpPacket,
    /// RTCP datagrams: every packet and item is walked, and what is written is read again.
    RtcpCompound,
    /// Two RTCP sessions that talk to each other and hear anything else besides.
    RtcpSession,
    /// SRTP and SRTCP receivers given octets that nobody protected, and SDES keys.
    SrtpReceiver,
    /// SRTP and SRTCP between two ends, with packets delayed, repeated and changed on the way, against a model of the RFC.
    SrtpSession,
    /// A receiver of telephone-event packets of any kind.
    EventReceiver,
    /// Presses that are sent over a lossy network are heard once each, in order.
    EventRoundTrip,
    /// The listening jitter buffer: in order, nothing twice, every sample accounted for.
    ListeningBuffer,
    /// The bridging jitter buffer: 20 ms each time, in order, nothing twice, every sample and packet accounted for.
    BridgingBuffer,
    /// A whole leg with any codec, from datagrams to what it sends.
    Stream,
    /// Decoders, concealment and comfort noise on any payload.
    Decoding,
    /// What a datagram on a shared port is, and for whom a STUN request.
    Demultiplexing,
    /// Offers of a browser: refused, or answered as they ask.
    WebRtcOffer,
    /// A whole WebRTC leg: strangers are not believed, and a peer with all the keys breaks nothing.
    WebRtcLeg,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::RtpPacket,
        Self::RtcpCompound,
        Self::RtcpSession,
        Self::SrtpReceiver,
        Self::SrtpSession,
        Self::EventReceiver,
        Self::EventRoundTrip,
        Self::ListeningBuffer,
        Self::BridgingBuffer,
        Self::Stream,
        Self::Decoding,
        Self::Demultiplexing,
        Self::WebRtcOffer,
        Self::WebRtcLeg,
    ];

    /// What its binary and its corpus are called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RtpPacket => "rtp_packet",
            Self::RtcpCompound => "rtcp_compound",
            Self::RtcpSession => "rtcp_session",
            Self::SrtpReceiver => "srtp_receiver",
            Self::SrtpSession => "srtp_session",
            Self::EventReceiver => "event_receiver",
            Self::EventRoundTrip => "event_round_trip",
            Self::ListeningBuffer => "listening_buffer",
            Self::BridgingBuffer => "bridging_buffer",
            Self::Stream => "stream",
            Self::Decoding => "decoding",
            Self::Demultiplexing => "demultiplexing",
            Self::WebRtcOffer => "webrtc_offer",
            Self::WebRtcLeg => "webrtc_leg",
        }
    }

    /// Try one input.
    ///
    /// # Panics
    /// When an invariant does not hold.
    // A fuzz target that knows which one it is links that alone: libFuzzer looks at every branch of the binary, each time.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "ten times the speed")]
    pub fn run(self, input: &[u8]) {
        match self {
            Self::RtpPacket => packet::any_datagram(input),
            Self::RtcpCompound => rtcp::any_datagram(input),
            Self::RtcpSession => rtcp_session::any_steps(input),
            Self::SrtpReceiver => srtp::any_octets(input),
            Self::SrtpSession => srtp::any_steps(input),
            Self::EventReceiver => event::any_packets(input),
            Self::EventRoundTrip => event::any_losses(input),
            Self::ListeningBuffer => listening::any_steps(input),
            Self::BridgingBuffer => bridging::any_steps(input),
            Self::Stream => stream::any_steps(input),
            Self::Decoding => decoding::any_payloads(input),
            Self::Demultiplexing => demultiplexing::any_datagram(input),
            Self::WebRtcOffer => offer::any_text(input),
            Self::WebRtcLeg => web::any_steps(input),
        }
    }
}

/// The steps that octets stand for, as many as there are.
fn steps<'a, S: arbitrary::Arbitrary<'a>>(octets: &mut arbitrary::Unstructured<'a>) -> Vec<S> {
    let mut steps = Vec::new();
    while !octets.is_empty()
        && let Ok(step) = octets.arbitrary()
    {
        steps.push(step);
    }
    steps
}
