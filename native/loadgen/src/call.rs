//! One call: signalling, what is heard and what is said, on packets and the time.

use std::net::SocketAddr;

use rtp::packet::{HEADER_LEN, RtpHeader, RtpPacket, is_rtcp};

use crate::FRAME;
use crate::ear::{Ear, Heard};
use crate::histogram::Histogram;
use crate::sip::Message;
use crate::speech::{Draws, Speech};
use crate::talk::{Plan, Talk, Turn};
use crate::uac::{Identity, Outcome, Output, Told, Uac};

/// Octets of a packet that is sent.
pub const PACKET: usize = HEADER_LEN + FRAME;

/// When things happened on the wire; 0: not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Departure of the INVITE.
    pub invited_us: u64,
    /// Arrival of the 200.
    pub answered_us: u64,
    /// Departure of the ACK.
    pub acked_us: u64,
    /// End of the call.
    pub ended_us: u64,
}

/// A caller.
#[derive(Debug)]
pub struct Call {
    /// Number among all calls.
    pub number: u32,
    /// Its signalling.
    pub uac: Uac,
    /// What it hears.
    pub ear: Ear,
    /// When what happened.
    pub times: Times,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Turns that were answered.
    pub answered: u32,
    /// Turns without an answer.
    pub unanswered: u32,
    /// Packets sent.
    pub sent: u64,
    talk: Option<Talk>,
    plan: Plan,
    media: Option<SocketAddr>,
    sequence: u16,
    timestamp: u32,
}

/// What a tick gives to the shell.
#[derive(Debug, Default)]
pub struct Tick {
    /// Where the packet goes that was written; `None`: nothing to send.
    pub to: Option<SocketAddr>,
    /// A turn that is over.
    pub turn: Option<Turn>,
}

impl Call {
    /// Place a call.
    pub fn place(number: u32, identity: Identity, plan: Plan, now_us: u64, out: &mut Output) -> Self {
        let mut draws = Draws::new(u64::from(number) ^ 0xca11);
        Self {
            number,
            uac: Uac::invite(identity, now_us, out),
            ear: Ear::default(),
            times: Times {
                invited_us: now_us,
                ..Times::default()
            },
            outcome: None,
            answered: 0,
            unanswered: 0,
            sent: 0,
            talk: None,
            plan,
            media: None,
            // RFC 3550 5.1: both begin anywhere.
            sequence: draws.below(1 << 16) as u16,
            timestamp: draws.below(1 << 32) as u32,
        }
    }

    /// Whether nothing will come of it any more.
    pub fn over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether the conversation can begin, or never will.
    pub fn settled(&self) -> bool {
        self.over() || self.talk.as_ref().is_some_and(Talk::greeted)
    }

    /// Whether it is up.
    pub fn talking(&self) -> bool {
        self.uac.established()
    }

    /// Take a SIP message that arrived at `at_us`; what it makes us send leaves at `now_us`.
    pub fn signalled(
        &mut self,
        message: &Message<'_>,
        source: SocketAddr,
        at_us: u64,
        now_us: u64,
        out: &mut Output,
    ) {
        let told = self.uac.receive(message, source, now_us, out);
        if let Told::Answered(media) = told {
            self.times.answered_us = at_us;
            self.times.acked_us = now_us;
            self.media = Some(media);
            let draws = Draws::new(u64::from(self.number));
            self.talk = Some(Talk::new(self.plan, draws, now_us));
        }
        self.note(told, at_us);
    }

    /// Take a datagram of the media socket.
    pub fn heard(&mut self, datagram: &[u8], at_us: u64, spacing: &mut Histogram) {
        if is_rtcp(datagram) {
            return;
        }
        let Ok(packet) = RtpPacket::parse(datagram) else {
            self.ear.strange += 1;
            return;
        };
        let heard = self.ear.hear(packet.header, packet.payload, at_us, spacing);
        if let (Heard::Onset, Some(talk)) = (heard, self.talk.as_mut()) {
            talk.onset(at_us);
        }
    }

    /// Everything that is due: repetitions, and the packet of these 20 ms, written into `packet`.
    pub fn tick(
        &mut self,
        speech: &Speech,
        now_us: u64,
        packet: &mut [u8; PACKET],
        out: &mut Output,
    ) -> Tick {
        if self.uac.due_us().is_some_and(|due_us| due_us <= now_us) {
            let told = self.uac.expire(now_us, out);
            self.note(told, now_us);
        }
        let (true, Some(talk), Some(media)) = (self.uac.established(), self.talk.as_mut(), self.media) else {
            return Tick::default();
        };
        let said = talk.tick(&self.ear, speech, now_us);
        let header = RtpHeader {
            marker: self.sent == 0,
            payload_type: 0,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.number + 1,
        };
        header.write(packet);
        packet[HEADER_LEN..].copy_from_slice(said.payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
        self.sent += 1;
        if talk.done() {
            self.uac.hang_up(now_us, out);
        }
        if let Some(turn) = said.turn {
            *(if turn.latency_us.is_some() || turn.talked_over {
                &mut self.answered
            } else {
                &mut self.unanswered
            }) += 1;
        }
        Tick {
            to: Some(media),
            turn: said.turn,
        }
    }

    /// Hang up whatever is being said.
    pub fn hang_up(&mut self, now_us: u64, out: &mut Output) {
        self.uac.hang_up(now_us, out);
    }

    fn note(&mut self, told: Told, at_us: u64) {
        if let Told::Ended(outcome) = told {
            self.outcome = Some(outcome);
            self.times.ended_us = at_us;
        }
    }
}
