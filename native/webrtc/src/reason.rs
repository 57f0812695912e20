//! Why something was refused, and how often.

/// Why a leg did not take a datagram, a packet or a message; one counter for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// The first octet is none of STUN, DTLS, RTP or RTCP (RFC 7983).
    #[error("none of STUN, DTLS, RTP, RTCP")]
    Unrecognised,
    /// No STUN message, or not one of ICE.
    #[error("malformed STUN")]
    Stun,
    /// A STUN message whose user name or integrity is not that of this leg.
    #[error("STUN not of this leg")]
    Unauthenticated,
    /// Something other than STUN from an address that has not passed an integrity-checked ICE check.
    #[error("from an address without an ICE check")]
    UncheckedSource,
    /// Received on an address that is none of the leg's candidates.
    #[error("received on an address that was not offered")]
    Destination,
    /// The peer has used more addresses than a call needs.
    #[error("too many addresses of the peer")]
    TooManySources,
    /// DTLS did not take the record.
    #[error("refused by DTLS")]
    Dtls,
    /// RTP that did not authenticate, was a repeat, or is of an unknown stream.
    #[error("refused by SRTP")]
    Media,
    /// Media before the call is connected.
    #[error("not connected")]
    NotConnected,
    /// A payload type that was not agreed.
    #[error("payload type not agreed")]
    PayloadType,
    /// The leg is closed.
    #[error("closed")]
    Closed,
    /// Output that nobody fetched: the oldest gave way.
    #[error("output overrun")]
    Overrun,
    /// A data channel beyond the limit; it was closed.
    #[error("too many data channels")]
    TooManyChannels,
    /// A message that is no text, or longer than the limit.
    #[error("message is no text or too long")]
    Message,
    /// Messages faster than the limit.
    #[error("too many messages")]
    TooManyMessages,
    /// A message of ours that did not fit into the queue.
    #[error("send queue full")]
    SendQueue,
}

impl Reason {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 16] = [
        Self::Unrecognised,
        Self::Stun,
        Self::Unauthenticated,
        Self::UncheckedSource,
        Self::Destination,
        Self::TooManySources,
        Self::Dtls,
        Self::Media,
        Self::NotConnected,
        Self::PayloadType,
        Self::Closed,
        Self::Overrun,
        Self::TooManyChannels,
        Self::Message,
        Self::TooManyMessages,
        Self::SendQueue,
    ];

    /// What its counter is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unrecognised => "web_unrecognised",
            Self::Stun => "web_stun",
            Self::Unauthenticated => "web_unauthenticated",
            Self::UncheckedSource => "web_unchecked_source",
            Self::Destination => "web_destination",
            Self::TooManySources => "web_too_many_sources",
            Self::Dtls => "web_dtls",
            Self::Media => "web_media",
            Self::NotConnected => "web_not_connected",
            Self::PayloadType => "web_payload_type",
            Self::Closed => "web_closed",
            Self::Overrun => "web_overrun",
            Self::TooManyChannels => "web_too_many_channels",
            Self::Message => "web_message",
            Self::TooManyMessages => "web_too_many_messages",
            Self::SendQueue => "web_send_queue",
        }
    }
}

/// How often each [`Reason`] applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; Reason::ALL.len()]);

impl Counts {
    /// The count of one reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.0)
    }

    pub(crate) fn add(&mut self, reason: Reason) -> Reason {
        self.0[reason as usize] += 1;
        reason
    }
}
