//! One browser call.

use crate::channels::{Channels, SendError};
use crate::demux::DatagramKind;
use crate::gate::{Admission, Gate};
use crate::offer::{AgreedAudio, Offer};
use crate::output::{Disconnection, LegEvent, LegOutput, Quality};
use crate::params::{LegParams, Limits, config};
use crate::reason::{Counts, Reason};
use crate::{IceSeed, WebRtcError, answer};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::SdpOffer;
use str0m::media::Mid;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, SeqNo};
use str0m::{Candidate, Input, Rtc};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// ICE and DTLS have until this time.
    Connecting {
        deadline_us: u64,
    },
    Connected,
    /// Our farewell is being written.
    Closing,
    Closed,
}

/// One browser call, the server's side.
///
/// Every call of `handle_…`, `write_rtp`, `send_message` and so on works at once; [`Self::poll`] then gives what
/// came of it until it says [`LegOutput::Timeout`]. It may be left for several calls, up to
/// [`crate::Limits::outputs`]; the oldest output gives way then.
///
/// Time is in microseconds since [`crate::LegParams::epoch`] and does not go back (earlier is taken as now).
pub struct WebRtcLeg {
    pub(crate) rtc: Rtc,
    pub(crate) epoch: Instant,
    pub(crate) now_us: u64,
    pub(crate) state: State,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    pub(crate) last_check_us: u64,
    pub(crate) channels: Channels,
    pub(crate) outputs: VecDeque<LegOutput>,
    pub(crate) rtc_timeout_us: u64,
    pub(crate) quality: Quality,
    pub(crate) counts: Counts,
    pub(crate) audio: AgreedAudio,
    pub(crate) mid: Mid,
    candidates: Vec<SocketAddr>,
    fingerprint: String,
    ufrag: String,
    offers_us: VecDeque<u64>,
    /// The peer's streams that offers have named so far.
    announced: Vec<u32>,
    sequence: Option<u64>,
}

impl WebRtcLeg {
    /// Answer the first offer of a browser. Gives the leg and the answer, an SDP text that holds all
    /// candidates.
    ///
    /// # Errors
    /// [`WebRtcError::Offer`] or [`WebRtcError::Sdp`] for an offer that cannot be answered, and what is wrong
    /// with `params`.
    pub fn answer(offer: &str, params: LegParams, now_us: u64) -> Result<(Self, String), WebRtcError> {
        let offer = Offer::read(offer)?;
        let mut rtc = config(&params, offer.audio).build(instant(params.epoch, now_us));
        if params.candidates.is_empty() {
            return Err(WebRtcError::NoCandidate);
        }
        for &address in &params.candidates {
            let candidate =
                Candidate::host(address, Protocol::Udp).map_err(|_| WebRtcError::Candidate(address))?;
            rtc.add_local_candidate(candidate);
        }
        let LegParams {
            epoch,
            candidates,
            limits,
            ice_seed,
            ..
        } = params;
        let mut leg = Self {
            rtc,
            epoch,
            now_us,
            state: State::Connecting {
                deadline_us: now_us.saturating_add(limits.connect_us),
            },
            limits,
            gate: Gate::default(),
            last_check_us: now_us,
            channels: Channels::new(limits.channels, limits.message_octets, limits.messages_per_second),
            outputs: VecDeque::with_capacity(16),
            rtc_timeout_us: now_us,
            quality: Quality::default(),
            counts: Counts::default(),
            audio: offer.audio,
            mid: offer.mid.as_str().into(),
            candidates,
            fingerprint: offer.fingerprint.clone(),
            ufrag: String::new(),
            offers_us: VecDeque::with_capacity(limits.offers_per_minute),
            announced: Vec::new(),
            sequence: None,
        };
        let text = leg.accept(&offer, ice_seed)?;
        Ok((leg, text))
    }

    /// Answer a later offer of the same peer connection: a renegotiation or an ICE restart. After a restart
    /// [`Self::local_ufrag`] is another one.
    ///
    /// # Errors
    /// As [`Self::answer`]; [`WebRtcError::OtherPeer`] when the browser has made a new peer connection, which
    /// needs a new leg; [`WebRtcError::TooManyOffers`]. The call goes on as it was, except that an offer which
    /// str0m refuses ([`WebRtcError::Sdp`]) while it restarts ICE leads to a lost consent.
    pub fn reanswer(&mut self, now_us: u64, offer: &str, ice_seed: IceSeed) -> Result<String, WebRtcError> {
        self.now_us = self.now_us.max(now_us);
        if matches!(self.state, State::Closing | State::Closed) {
            return Err(WebRtcError::Closed);
        }
        let offer = Offer::read(offer)?;
        if offer.fingerprint != self.fingerprint {
            return Err(WebRtcError::OtherPeer);
        }
        if offer.audio != self.audio || offer.mid != *self.mid {
            return Err(crate::OfferError::CodecChanged.into());
        }
        self.accept(&offer, ice_seed)
    }

    fn accept(&mut self, offer: &Offer, ice_seed: IceSeed) -> Result<String, WebRtcError> {
        const MINUTE_US: u64 = 60_000_000;
        self.offers_us.retain(|at| at + MINUTE_US > self.now_us);
        if self.offers_us.len() >= self.limits.offers_per_minute {
            return Err(WebRtcError::TooManyOffers);
        }
        let mut announced = self.announced.clone();
        announced.extend(&offer.ssrcs);
        announced.sort_unstable();
        announced.dedup();
        if announced.len() > self.limits.streams {
            return Err(WebRtcError::TooManyStreams(self.limits.streams));
        }
        self.announced = announced;
        self.offers_us.push_back(self.now_us);
        let sdp = |error: &dyn std::fmt::Display| WebRtcError::Sdp(error.to_string());
        let parsed = SdpOffer::from_sdp_string(&offer.text).map_err(|error| sdp(&error))?;
        // It stops at what it cannot read, without a word.
        if parsed.media_lines.len() != offer.refused.len() {
            return Err(sdp(&format_args!(
                "nothing behind section {} can be read",
                parsed.media_lines.len()
            )));
        }
        let text = self
            .rtc
            .sdp_api()
            .accept_offer(parsed)
            .map_err(|error| sdp(&error))?
            .to_sdp_string();
        let drawn = self.rtc.direct_api().local_ice_credentials();
        let text = if drawn.ufrag == self.ufrag {
            answer::complete(&text, self.audio, &offer.refused, None)
        } else {
            // The first answer, or an ICE restart, for which str0m has drawn credentials of its own.
            let ours = ice_seed.credentials();
            let text = answer::complete(&text, self.audio, &offer.refused, Some((&drawn, &ours)));
            self.ufrag.clone_from(&ours.ufrag);
            self.rtc.direct_api().set_local_ice_credentials(ours);
            self.last_check_us = self.now_us;
            text
        };
        self.pump();
        Ok(text)
    }

    /// Take a remote ICE candidate that the browser trickles (`candidate:…`, empty for the end). It changes
    /// nothing: an ICE-lite agent learns the peer's addresses from its checks.
    pub fn add_candidate(&mut self, candidate: &str) {
        let _ = candidate;
    }

    /// The user fragment of our ICE credentials, by which [`crate::demux::local_ufrag`] finds the leg.
    pub fn local_ufrag(&self) -> &str {
        &self.ufrag
    }

    /// What was agreed with the first answer; it stays for the life of the leg.
    pub fn audio(&self) -> AgreedAudio {
        self.audio
    }

    /// How often something was refused, by reason.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether media flows.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether the call is over (there may be output left).
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Take a datagram that came from `source` to `destination`, one of [`crate::LegParams::candidates`].
    ///
    /// # Errors
    /// Why it was refused; it is counted too. Nothing in a datagram makes the leg fail but a handshake with the
    /// wrong certificate or the peer's own farewell.
    pub fn handle_datagram(
        &mut self,
        now_us: u64,
        source: SocketAddr,
        destination: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Reason> {
        self.now_us = self.now_us.max(now_us);
        let taken = self.take_datagram(source, destination, datagram);
        taken.map_err(|reason| self.counts.add(reason))
    }

    fn take_datagram(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Reason> {
        if matches!(self.state, State::Closing | State::Closed) {
            return Err(Reason::Closed);
        }
        let kind = DatagramKind::of(datagram).ok_or(Reason::Unrecognised)?;
        if kind != DatagramKind::Stun && !self.gate.is_open(source) {
            return Err(Reason::UncheckedSource);
        }
        if !self.candidates.contains(&destination) {
            return Err(Reason::Destination);
        }
        let malformed = if kind == DatagramKind::Stun {
            Reason::Stun
        } else {
            Reason::Unrecognised
        };
        let received = Receive::new(Protocol::Udp, source, destination, datagram).map_err(|_| malformed)?;
        let input = Input::Receive(instant(self.epoch, self.now_us), received);
        if kind == DatagramKind::Stun {
            self.check(source, &input)?;
        }
        let before = self.quality.packets_received;
        let handled = self.rtc.handle_input(input);
        self.pump();
        match kind {
            DatagramKind::Dtls if handled.is_err() => Err(Reason::Dtls),
            DatagramKind::Rtp if self.quality.packets_received == before => Err(Reason::Media),
            _ => Ok(()),
        }
    }

    /// Believe the source of an authenticated STUN message from here on.
    fn check(&mut self, source: SocketAddr, input: &Input<'_>) -> Result<(), Reason> {
        if !self.rtc.accepts(input) {
            return Err(Reason::Unauthenticated);
        }
        if !self.gate.would_admit(source) {
            return Err(Reason::TooManySources);
        }
        self.last_check_us = self.now_us;
        if let Admission::New(released) = self.gate.admit(self.now_us, source) {
            if let Some(released) = released {
                self.give(LegOutput::Event(LegEvent::Released(released)));
            }
            self.give(LegOutput::Event(LegEvent::Bound(source)));
        }
        Ok(())
    }

    /// Let time pass.
    pub fn handle_timeout(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        match self.state {
            State::Connecting { deadline_us } if self.now_us >= deadline_us => {
                self.end(Disconnection::ConnectTimeout);
            }
            State::Connected if self.now_us >= self.consent_deadline_us() => {
                self.end(Disconnection::ConsentLost);
            }
            State::Connecting { .. } | State::Connected => self.advance(),
            State::Closing | State::Closed => {}
        }
    }

    /// Send an RTP packet: `payload` of one of the agreed payload types, `timestamp` in the clock of the codec.
    /// The SSRC is the leg's own. Sequence numbers may jump, but by less than half their range.
    ///
    /// # Errors
    /// [`Reason::NotConnected`], [`Reason::PayloadType`] or [`Reason::Closed`]; counted.
    pub fn write_rtp(
        &mut self,
        now_us: u64,
        payload_type: u8,
        sequence: u16,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
    ) -> Result<(), Reason> {
        self.now_us = self.now_us.max(now_us);
        let reason = match self.state {
            State::Closing | State::Closed => Some(Reason::Closed),
            State::Connecting { .. } => Some(Reason::NotConnected),
            State::Connected => None,
        };
        if let Some(reason) = reason {
            return Err(self.counts.add(reason));
        }
        if payload_type != self.audio.payload_type && Some(payload_type) != self.audio.telephone_event {
            return Err(self.counts.add(Reason::PayloadType));
        }
        let extended = extend(self.sequence, sequence);
        let wallclock = instant(self.epoch, self.now_us);
        let number = SeqNo::from(extended);
        let packet = RtpWrite::new(payload_type.into(), number, timestamp, wallclock, payload).marker(marker);
        let mut direct = self.rtc.direct_api();
        // The peer may have said that it receives nothing (a=sendonly).
        let Some(stream) = direct.stream_tx_by_mid(self.mid, None) else {
            return Err(self.counts.add(Reason::NotConnected));
        };
        stream.write_rtp(packet);
        self.sequence = Some(extended);
        self.quality.packets_sent += 1;
        self.advance();
        Ok(())
    }

    /// Send a text message. Before a channel is open it waits.
    ///
    /// # Errors
    /// [`SendError`]; a full queue is counted as [`Reason::SendQueue`].
    pub fn send_message(&mut self, now_us: u64, message: &str) -> Result<(), SendError> {
        self.now_us = self.now_us.max(now_us);
        if matches!(self.state, State::Closing | State::Closed) {
            return Err(SendError::Closed);
        }
        let queued = self.channels.queue(message);
        if queued == Err(SendError::Full) {
            self.counts.add(Reason::SendQueue);
        }
        queued?;
        self.advance();
        Ok(())
    }

    /// Hang up: RTCP BYE and the DTLS farewell, then [`LegEvent::Disconnected`].
    pub fn close(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        if matches!(self.state, State::Connecting { .. } | State::Connected) {
            self.end(Disconnection::Closed);
        }
    }

    /// The next output; [`LegOutput::Timeout`] when there is none.
    pub fn poll(&mut self) -> LegOutput {
        self.outputs
            .pop_front()
            .unwrap_or_else(|| LegOutput::Timeout(self.timeout_us()))
    }

    fn timeout_us(&self) -> u64 {
        match self.state {
            State::Connecting { deadline_us } => deadline_us.min(self.rtc_timeout_us),
            State::Connected => self.consent_deadline_us().min(self.rtc_timeout_us),
            State::Closing | State::Closed => u64::MAX,
        }
    }

    fn consent_deadline_us(&self) -> u64 {
        self.last_check_us.saturating_add(self.limits.consent_us)
    }
}

/// The instant of a time in microseconds.
pub(crate) fn instant(epoch: Instant, us: u64) -> Instant {
    // A time beyond what an Instant holds is a mistake of the caller; the epoch is as good as any.
    epoch.checked_add(Duration::from_micros(us)).unwrap_or(epoch)
}

/// The sequence number nearest to the last one, of those whose low 16 bits are given.
fn extend(last: Option<u64>, sequence: u16) -> u64 {
    let Some(last) = last else {
        return u64::from(sequence);
    };
    let step = i64::from(sequence.wrapping_sub(last as u16) as i16);
    last.checked_add_signed(step).unwrap_or(u64::from(sequence))
}
