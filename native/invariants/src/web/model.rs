//! What may come out of a WebRTC leg, by what went in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rtp::packet::RtpPacket;
use webrtc::{AgreedAudio, LegEvent, Limits, RtpIn};

/// How far the call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    Over,
}

pub(crate) struct Model {
    audio: AgreedAudio,
    state: State,
    /// Who has sent a check that authenticates.
    checked: BTreeSet<SocketAddr>,
    /// RTP packets that the peer has protected, with their indices.
    sent: Vec<(u64, Vec<u8>)>,
    /// By SSRC and sequence number, how many came out.
    heard: BTreeMap<(u32, u16), usize>,
    messages: u64,
}

impl Model {
    pub(crate) fn new(audio: AgreedAudio) -> Self {
        Self {
            audio,
            state: State::Connecting,
            checked: BTreeSet::new(),
            sent: Vec::new(),
            heard: BTreeMap::new(),
            messages: 0,
        }
    }

    pub(crate) fn checked(&mut self, source: SocketAddr) {
        self.checked.insert(source);
    }

    /// Whether anything may be sent there, and anything but checks be believed from there.
    pub(crate) fn may_hear(&self, address: SocketAddr) -> bool {
        self.checked.contains(&address)
    }

    pub(crate) fn sent(&mut self, index: u64, packet: &[u8]) {
        self.sent.push((index, packet.to_vec()));
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// RTP packets that came out.
    #[cfg(test)]
    pub(crate) fn heard(&self) -> usize {
        self.heard.values().sum()
    }

    /// Messages that came out.
    #[cfg(test)]
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// A packet is one that the peer sent, and comes once.
    pub(crate) fn rtp(&mut self, packet: &RtpIn) {
        let RtpIn { header, payload } = packet;
        let number = header.payload_type;
        assert!(
            number == self.audio.payload_type || Some(number) == self.audio.telephone_event,
            "{header:?}"
        );
        let same = self.sent.iter().filter_map(|(index, sent)| {
            let sent = RtpPacket::parse(sent).ok()?;
            (sent.header.ssrc == header.ssrc && sent.header.sequence == header.sequence)
                .then_some((index, sent))
        });
        let same: Vec<_> = same.collect();
        assert!(
            same.iter()
                .any(|(_, sent)| sent.header == *header && *sent.payload == **payload),
            "nobody sent {header:?} {payload:?}"
        );
        let indices: BTreeSet<_> = same.iter().map(|(index, _)| index).collect();
        let heard = self.heard.entry((header.ssrc, header.sequence)).or_default();
        *heard += 1;
        assert!(*heard <= indices.len(), "{header:?} came twice");
    }

    pub(crate) fn event(&mut self, now_us: u64, event: &LegEvent) {
        assert_ne!(self.state, State::Over, "{event:?} after the end");
        let limits = Limits::default();
        match event {
            LegEvent::Bound(source) => assert!(self.may_hear(*source), "{source}"),
            LegEvent::Connected(audio) => {
                assert_eq!((self.state, *audio), (State::Connecting, self.audio));
                self.state = State::Connected;
            }
            LegEvent::ChannelMessage(text) => {
                assert!(text.len() <= limits.message_octets);
                self.messages += 1;
                let allowed = u64::from(limits.messages_per_second) * (1_000_000 + now_us) / 1_000_000;
                assert!(self.messages <= allowed, "{} by {now_us} us", self.messages);
            }
            LegEvent::Disconnected(_) => self.state = State::Over,
            LegEvent::Released(_)
            | LegEvent::ChannelOpen(_)
            | LegEvent::ChannelClosed
            | LegEvent::Quality(_) => {}
        }
    }
}
