//! A browser's leg in the engine: its datagrams, its timers, and what becomes of them.

use std::collections::HashMap;
use std::net::SocketAddr;

use rtp::packet::RtpPacket;
use webrtc::demux::DatagramKind;
use webrtc::{AudioCodec, Disconnection, LegEvent, LegOutput, Quality, WebRtcLeg};

use super::ports::StreamId;
use crate::stream::{Coding, Format, Stream, StreamEvent, TelephoneEvent};

/// The browser's side of a leg.
pub(crate) struct Web {
    leg: WebRtcLeg,
    /// Our addresses as the browser knows them, one a family.
    candidates: Vec<SocketAddr>,
    /// The codec that was agreed on, until media begin.
    coding: Option<Box<Coding>>,
    due_us: u64,
    quality: Option<Quality>,
}

/// What the shell has to do for a browser's leg.
pub(crate) enum Deed<'a> {
    /// Send a datagram by the port of the leg.
    Send(&'a [u8], SocketAddr),
    /// Datagrams from there are no longer of this leg.
    Unbind(SocketAddr),
}

impl Web {
    pub(crate) fn new(leg: WebRtcLeg, candidates: Vec<SocketAddr>, coding: Box<Coding>) -> Self {
        Self {
            leg,
            candidates,
            coding: Some(coding),
            due_us: 0,
            quality: None,
        }
    }

    /// The name by which a first STUN request asks for this leg.
    pub(crate) fn local_ufrag(&self) -> &str {
        self.leg.local_ufrag()
    }

    pub(crate) fn leg(&mut self) -> &mut WebRtcLeg {
        &mut self.leg
    }

    /// What the leg refused, by reason.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.leg
            .counts()
            .iter()
            .map(|(reason, count)| (reason.name(), count))
    }

    pub(crate) fn quality(&self) -> Option<Quality> {
        self.quality
    }

    /// Take a datagram; what the leg refuses it counts itself. Returns whether it was an ICE check with the right password.
    pub(crate) fn datagram(&mut self, now_us: u64, source: SocketAddr, datagram: &[u8]) -> bool {
        let known = self
            .candidates
            .iter()
            .find(|candidate| candidate.is_ipv4() == source.is_ipv4());
        known.is_some_and(|&destination| {
            let taken = self.leg.handle_datagram(now_us, source, destination, datagram);
            taken.is_ok() && DatagramKind::of(datagram) == Some(DatagramKind::Stun)
        })
    }

    /// Let time pass where something is due, as of the last [`Web::settle`]; returns whether there was.
    pub(crate) fn tick(&mut self, now_us: u64) -> bool {
        let due = now_us >= self.due_us;
        if due {
            self.leg.handle_timeout(now_us);
        }
        due
    }

    /// Send a packet that the stream wrote.
    pub(crate) fn write(&mut self, now_us: u64, packet: &[u8]) {
        let Ok(RtpPacket { header, payload }) = RtpPacket::parse(packet) else {
            return;
        };
        // Refused only while the call is not connected or is over; counted by the leg.
        let _ = self.leg.write_rtp(
            now_us,
            header.payload_type,
            header.sequence,
            header.timestamp,
            header.marker,
            payload,
        );
    }

    /// Hand on all that has come of the calls before.
    pub(crate) fn settle(
        &mut self,
        now_us: u64,
        stream: &mut Stream,
        events: &mut Vec<StreamEvent>,
        mut act: impl FnMut(Deed<'_>),
    ) {
        loop {
            match self.leg.poll() {
                LegOutput::Transmit {
                    destination, payload, ..
                } => act(Deed::Send(&payload, destination)),
                LegOutput::Rtp(packet) => {
                    let packet = RtpPacket {
                        header: packet.header,
                        payload: &packet.payload,
                    };
                    stream.handle_packet(now_us, &packet, events);
                }
                LegOutput::Event(LegEvent::Released(source)) => act(Deed::Unbind(source)),
                LegOutput::Event(event) => self.event(now_us, event, stream, events),
                LegOutput::Timeout(due_us) => {
                    self.due_us = due_us;
                    return;
                }
            }
        }
    }

    fn event(&mut self, now_us: u64, event: LegEvent, stream: &mut Stream, events: &mut Vec<StreamEvent>) {
        match event {
            LegEvent::Connected(audio) => {
                if let Some(coding) = self.coding.take() {
                    stream.connect(now_us, format(audio), *coding);
                }
                events.push(StreamEvent::WebConnected { at_us: now_us });
            }
            LegEvent::ChannelOpen(_) => events.push(StreamEvent::ChannelOpened),
            LegEvent::ChannelMessage(text) => events.push(StreamEvent::ChannelMessage(text)),
            LegEvent::Quality(quality) => self.quality = Some(quality),
            LegEvent::Disconnected(why) => events.push(StreamEvent::WebEnded(words(why))),
            LegEvent::ChannelClosed | LegEvent::Bound(_) | LegEvent::Released(_) => {}
        }
    }
}

/// The codec of the engine for what was agreed on with a browser.
pub(crate) fn codec_of(codec: AudioCodec) -> codec::Codec {
    match codec {
        AudioCodec::Opus => codec::Codec::Opus,
        AudioCodec::Pcmu => codec::Codec::Pcmu,
        AudioCodec::Pcma => codec::Codec::Pcma,
    }
}

fn format(audio: webrtc::AgreedAudio) -> Format {
    Format {
        codec: codec_of(audio.codec),
        payload_type: audio.payload_type,
        telephone_event: audio.telephone_event.map(|payload_type| TelephoneEvent {
            payload_type,
            clock_hz: audio.event_clock_rate_hz,
        }),
        comfort_noise: None,
        send: true,
        receive: true,
    }
}

fn words(why: Disconnection) -> String {
    match why {
        Disconnection::ConnectTimeout => "never connected".to_owned(),
        Disconnection::ConsentLost => "connectivity lost".to_owned(),
        Disconnection::PeerClosed => "closed by the browser".to_owned(),
        Disconnection::Closed => "closed".to_owned(),
        Disconnection::Failed(reason) => reason,
    }
}

/// Which browser's leg a datagram is of: by the address that passed a check, or else by the name in a STUN request.
#[derive(Debug, Default)]
pub(crate) struct IceTable {
    by_ufrag: HashMap<Box<[u8]>, StreamId>,
    by_source: HashMap<(usize, SocketAddr), StreamId>,
}

impl IceTable {
    pub(crate) fn register(&mut self, ufrag: &str, id: StreamId) {
        self.by_ufrag.insert(ufrag.as_bytes().into(), id);
    }

    /// Datagrams from there are of this leg, which has passed a check from there: unless they are another's, who came first.
    /// A check proves who knows the password, not where it came from. Returns whether they are.
    pub(crate) fn bind(&mut self, port: usize, source: SocketAddr, id: StreamId) -> bool {
        *self.by_source.entry((port, source)).or_insert(id) == id
    }

    pub(crate) fn is_bound(&self, port: usize, source: SocketAddr, id: StreamId) -> bool {
        self.by_source.get(&(port, source)) == Some(&id)
    }

    pub(crate) fn unbind(&mut self, port: usize, source: SocketAddr, id: StreamId) {
        if self.by_source.get(&(port, source)) == Some(&id) {
            self.by_source.remove(&(port, source));
        }
    }

    pub(crate) fn forget(&mut self, id: StreamId) {
        self.by_ufrag.retain(|_, leg| *leg != id);
        self.by_source.retain(|_, leg| *leg != id);
    }

    /// The leg of a datagram; a STUN request is asked for its name first, since a source may begin a call anew.
    pub(crate) fn route(&self, port: usize, source: SocketAddr, datagram: &[u8]) -> Option<StreamId> {
        if self.by_ufrag.is_empty() {
            return None;
        }
        let named = webrtc::demux::local_ufrag(datagram).and_then(|ufrag| self.by_ufrag.get(ufrag));
        named.or_else(|| self.by_source.get(&(port, source))).copied()
    }
}
