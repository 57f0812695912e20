//! A whole WebRTC leg, without a network: strangers, and a peer that is who it says and means no good.

mod model;
mod peer;
mod steps;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use webrtc::{LegOutput, Reason, WebRtcLeg};

use crate::offer;
use model::Model;
use peer::{Peer, address};
use steps::Step;

const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);
/// Outputs that no single step gives more of.
const OUTPUTS: usize = 512;

struct Call {
    epoch: Instant,
    now_us: u64,
    leg: WebRtcLeg,
    peer: Peer,
    model: Model,
    offer: String,
    /// What the peer sent, for repeats.
    sent: Vec<Vec<u8>>,
    sequence: u16,
    leave: bool,
    timeout_us: u64,
}

pub(crate) fn any_steps(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let mut call = Call::new();
    if octets.ratio(3, 4).unwrap_or(true) {
        call.connect();
        assert!(call.leg.is_connected(), "an honest peer connects");
    }
    for step in crate::steps(&mut octets).into_iter().take(64) {
        call.step(&step);
    }
    call.finish();
}

impl Call {
    fn new() -> Self {
        let epoch = Instant::now();
        let mut peer = Peer::new(epoch);
        let offer = peer.offer();
        let params = offer::params(epoch);
        let (leg, answer) = WebRtcLeg::answer(&offer, params, 0).expect("the offer is in order");
        peer.accept(&answer);
        Self {
            epoch,
            now_us: 0,
            model: Model::new(leg.audio()),
            leg,
            peer,
            offer,
            sent: Vec::new(),
            sequence: 0xfff0,
            leave: false,
            timeout_us: 0,
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Wait { ms } => self.wait(u64::from(ms) * 1000),
            Step::Due => self.due(),
            Step::Octets {
                from,
                astray,
                datagram,
            } => self.arrive(address(from), astray, datagram),
            Step::Again {
                which,
                from,
                change,
                shorter,
            } => self.again(which, from, change, shorter),
            Step::Check { from, further } => {
                let check = self.peer.check(further);
                self.give(from, check);
            }
            Step::Connect => self.connect(),
            Step::Farewell => self.peer.close(),
            Step::Leave { output } => self.leave = output,
            Step::Say { .. } | Step::Send { .. } | Step::Offer { .. } | Step::Close => self.ours(step),
            _ => self.theirs(step),
        }
        self.exchange();
    }

    fn rtp(&mut self, packet: &[u8]) {
        if let Some((index, protected)) = self.peer.protect_rtp(packet) {
            self.model.sent(index, packet);
            self.give(0, protected);
        }
    }

    /// A datagram of the peer's own making.
    fn give(&mut self, from: u8, datagram: Vec<u8>) {
        self.sent.push(datagram);
        let at = self.sent.len() - 1;
        let datagram = self.sent[at].clone();
        self.arrive(address(from), false, &datagram);
    }

    fn again(&mut self, which: u8, from: u8, change: Option<(u16, u8)>, shorter: u8) {
        let count = self.sent.len();
        if count == 0 {
            return;
        }
        let mut datagram = self.sent[usize::from(which) % count].clone();
        datagram.truncate(datagram.len() - usize::from(shorter).min(datagram.len()));
        if let Some((at, octet)) = change
            && !datagram.is_empty()
        {
            let at = usize::from(at) % datagram.len();
            datagram[at] = octet;
        }
        self.arrive(address(from), false, &datagram);
    }

    fn arrive(&mut self, from: SocketAddr, astray: bool, datagram: &[u8]) {
        let mut destination = SocketAddr::from(SERVER);
        if astray {
            destination.set_port(1);
        }
        let is_check = datagram.first().is_some_and(|&first| first < 4);
        if is_check && self.sent.iter().any(|sent| sent == datagram) && !astray {
            self.model.checked(from);
        }
        let was_closed = self.leg.is_closed();
        let before = *self.leg.counts();
        let taken = self.leg.handle_datagram(self.now_us, from, destination, datagram);
        let Err(reason) = taken else {
            assert!(!was_closed && !astray && self.model.may_hear(from));
            return;
        };
        assert_eq!(self.leg.counts().get(reason), before.get(reason) + 1, "{reason}");
        assert_eq!(was_closed, reason == Reason::Closed);
        if matches!(
            reason,
            Reason::UncheckedSource | Reason::Destination | Reason::Unrecognised
        ) {
            let others = |counts: webrtc::Counts| counts.iter().map(|(_, count)| count).sum::<u64>();
            assert_eq!(others(*self.leg.counts()), others(before) + 1, "{reason}");
        }
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_micros(self.now_us)
    }

    fn wait(&mut self, us: u64) {
        self.now_us += us;
        self.leg.handle_timeout(self.now_us);
        self.peer.handle_timeout(self.now());
    }

    /// However often the leg is called when it wants to, time passes in between.
    fn due(&mut self) {
        let mut at_once = 0;
        for _ in 0..64 {
            self.exchange();
            if self.leave || self.leg.is_closed() {
                return;
            }
            at_once = if self.timeout_us > self.now_us {
                0
            } else {
                at_once + 1
            };
            assert!(at_once < 32, "time stands still at {} us", self.now_us);
            self.now_us = self.now_us.max(self.timeout_us);
            self.leg.handle_timeout(self.now_us);
            if at_once == 0 {
                return;
            }
        }
    }

    /// As an honest peer does.
    fn connect(&mut self) {
        let check = self.peer.check(&[]);
        self.give(0, check);
        self.peer.handle_timeout(self.now());
        self.exchange();
        if self.peer.is_connected() {
            self.peer.send_init();
            self.exchange();
            self.peer.send_cookie();
            self.exchange();
        }
    }

    /// Both sides hear each other until neither has anything to say.
    fn exchange(&mut self) {
        for _ in 0..16 {
            self.fetch();
            let datagrams = self.peer.poll();
            if datagrams.is_empty() {
                return;
            }
            for datagram in datagrams {
                self.give(0, datagram);
            }
        }
    }

    fn fetch(&mut self) {
        if self.leave {
            return;
        }
        let mut outputs = 0;
        loop {
            match self.leg.poll() {
                LegOutput::Timeout(at_us) => {
                    self.timeout_us = at_us;
                    break;
                }
                LegOutput::Transmit {
                    source,
                    destination,
                    payload,
                } => {
                    assert_eq!(source, SocketAddr::from(SERVER));
                    assert!(
                        self.model.may_hear(destination),
                        "{destination} never passed a check"
                    );
                    assert!((1..=1500).contains(&payload.len()), "{}", payload.len());
                    self.peer.handle_datagram(&payload);
                }
                LegOutput::Rtp(packet) => self.model.rtp(&packet),
                LegOutput::Event(event) => self.model.event(self.now_us, &event),
            }
            outputs += 1;
        }
        assert!(outputs <= OUTPUTS, "{outputs}");
    }

    fn finish(mut self) {
        self.leave = false;
        self.exchange();
        self.leg.close(self.now_us);
        self.fetch();
        assert!(self.leg.is_closed() && !self.leg.is_connected());
        assert!(self.model.is_over() || self.leg.counts().get(Reason::Overrun) > 0);
        assert_eq!(self.timeout_us, u64::MAX);
        self.arrive(address(0), false, &[0x80; 20]);
        self.leg.handle_timeout(self.now_us + 1);
        assert!(matches!(self.leg.poll(), LegOutput::Timeout(u64::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target is worth its name: what the peer protects arrives.
    #[test]
    fn the_peer_is_heard() {
        let mut call = Call::new();
        call.connect();
        let frame = |ahead| Step::Rtp {
            ahead,
            payload_type: 0,
            payload: &[0xfc; 20],
        };
        // 32 packets, each twice.
        for _ in 0..32 {
            call.step(&frame(1));
            call.step(&frame(0));
        }
        assert_eq!(call.model.heard(), 32);
        assert_eq!(call.leg.counts().get(Reason::Media), 32);
        let open = Step::Open {
            stream: 0,
            kind: 0,
            label: b"chat",
        };
        call.step(&open);
        for payload in [&b"hello"[..], b"\xff"] {
            call.step(&Step::Data {
                ahead: 0,
                flags: 3,
                stream: 0,
                protocol: 0,
                payload,
            });
        }
        assert_eq!(call.model.messages(), 1);
        assert_eq!(call.leg.counts().get(Reason::Message), 1);
        // A receiver report: the round trip is told with the next statistics.
        let mut report = vec![0, 0, 0, 1];
        report.extend_from_slice(&[0; 24]);
        call.step(&Step::Rtcp {
            packet_type: 1,
            octets: &report,
        });
        call.finish();
    }
}
