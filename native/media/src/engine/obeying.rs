//! What the media thread is told to do, leg by leg.

use super::clock::now_us;
use super::counters::add;
use super::events::lock;
use super::leg::{Leg, Link, Membership, Random, cname};
use super::ports::StreamId;
use super::rooms::RoomId;
use super::sending::{ntp_now, send, send_report};
use super::sockets::Outbox;
use super::thread::{MediaThread, PHASES};
use super::web::{Deed, Web};
use super::wire::{REPORT_MAX, Wire};
use super::{Command, Connection, Reoffer};
use crate::room::{ROOM_FRAME, Voice};
use crate::stream::{Stream, StreamParams};

impl MediaThread {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Open(id, port, params) => self.open(id, port, &params, Link::None),
            Command::OpenWeb(id, port, params, web) => {
                self.ice.register(web.local_ufrag(), id);
                self.open(id, port, &params, Link::Web(web));
            }
            Command::Close(id) => self.close_leg(id),
            Command::Join(room, id, voice) => self.join(room, id, voice),
            Command::Leave(id) => self.leave(id),
            Command::Hear {
                listener,
                speaker,
                factor,
            } => {
                let membership = self.legs.get(&listener).and_then(|leg| leg.membership.as_ref());
                if let Some(room) = membership.map(|membership| membership.room) {
                    self.rooms.hear(room, listener, speaker, factor);
                }
            }
            Command::StreamStats(id, answer) => {
                if let Some(leg) = self.legs.get(&id) {
                    // The asker may have given up; then nobody wants the answer.
                    let _ = answer.try_send(leg.stats());
                }
            }
            Command::Quality(id, answer) => {
                if let Some(leg) = self.legs.get(&id) {
                    let _ = answer.try_send(leg.quality());
                }
            }
            Command::Stop => {}
            #[cfg(test)]
            Command::Do(work) => work(),
            Command::Connect(id, connection) => self.connect(id, *connection),
            Command::Reoffer(id, offer, answer) => {
                let outcome = self.reoffer(id, &offer);
                let _ = answer.try_send(outcome);
            }
            Command::Message(id, text) => {
                self.with_web(id, |web| {
                    // Refused when the browser does not take what it is sent; counted by the leg.
                    let _ = web.leg().send_message(now_us(), &text);
                });
            }
            Command::Press(id, digit, duration_ms) => {
                let mut refused = false;
                self.with_leg(id, |leg| refused = leg.stream.press(digit, duration_ms).is_err());
                add(&self.parts.counters.refused_keys, u64::from(refused));
            }
            Command::Play(id, chunk) => self.with_leg(id, |leg| leg.stream.play(chunk)),
            Command::Loop(id, chunk) => self.with_leg(id, |leg| leg.stream.playout().loop_chunk(chunk)),
            Command::StopLoop(id) => self.with_leg(id, |leg| leg.stream.playout().stop_loop()),
            Command::Gain(id, gain_db) => {
                self.with_leg(id, |leg| leg.stream.playout().set_gain_db(gain_db));
            }
            Command::Flush(id) => self.with_leg(id, |leg| leg.stream.playout().flush()),
            Command::Pause(id) => self.with_leg(id, |leg| leg.stream.playout().pause()),
            Command::Resume(id) => self.with_leg(id, |leg| leg.stream.playout().resume()),
            Command::Record(id, recorder) => {
                let leg = self.legs.get_mut(&id);
                let replaced = leg.and_then(|leg| leg.stream.record(*recorder));
                self.ended(replaced);
            }
        }
    }

    pub(super) fn open(&mut self, id: StreamId, port: usize, params: &StreamParams, link: Link) {
        // The least busy group keeps the packets of all legs evenly spread.
        let phase = (0..PHASES)
            .min_by_key(|&phase| self.phases[phase].len())
            .unwrap_or(0);
        let place = self.phases[phase].partition_point(|&other| other < (port, id));
        self.phases[phase].insert(place, (port, id));
        let leg = Leg {
            stream: Stream::new(params),
            port,
            phase,
            remote: None,
            link,
            random: Random::new(u64::from(params.ssrc) << 32 | u64::from(params.first_timestamp)),
            membership: None,
        };
        self.legs.insert(id, leg);
    }

    pub(super) fn connect(&mut self, id: StreamId, connection: Connection) {
        let remote = lock(&self.parts.table).remote(id);
        let now_us = now_us();
        self.with_leg(id, |leg| {
            let moved = std::mem::replace(&mut leg.remote, remote) != remote;
            let quiet_us = leg.stream.media_timeout_us();
            let Connection {
                format,
                coding,
                terms,
            } = connection;
            leg.stream.connect(now_us, format, *coding);
            if let Link::Rtp(wire) = &mut leg.link {
                wire.renew(terms, quiet_us, moved);
            } else {
                let name = cname(id, &mut leg.random);
                let ssrc = leg.stream.ssrc();
                let wire = Wire::new(terms, quiet_us, ssrc, &name, now_us, leg.random.next());
                leg.link = Link::Rtp(Box::new(wire));
            }
        });
    }

    pub(super) fn join(&mut self, room: RoomId, id: StreamId, voice: Voice) {
        self.leave(id);
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let phase = self.rooms.phase(room, leg.phase);
        if !self.rooms.join(room, id, voice) {
            add(&self.parts.counters.refused_members, 1);
            return;
        }
        let membership = Membership {
            room,
            mix: [0; ROOM_FRAME],
        };
        leg.membership = Some(Box::new(membership));
        leg.stream.set_bridged(true);
        // All members tick together. Once, a leg that moves has up to 15 ms less or more between two packets.
        let place = (leg.port, id);
        let before = std::mem::replace(&mut leg.phase, phase);
        self.phases[before].retain(|&other| other != place);
        let at = self.phases[phase].partition_point(|&other| other < place);
        self.phases[phase].insert(at, place);
    }

    pub(super) fn leave(&mut self, id: StreamId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Some(membership) = leg.membership.take() {
            leg.stream.set_bridged(false);
            self.rooms.leave(membership.room, id);
        }
    }

    pub(super) fn close_leg(&mut self, id: StreamId) {
        self.leave(id);
        let Some(mut leg) = self.legs.remove(&id) else {
            return;
        };
        self.phases[leg.phase].retain(|&(_, other)| other != id);
        self.ice.forget(id);
        let pair = &self.parts.pairs[leg.port];
        self.parts.counters.legs.add_stream(&leg.stream.stats());
        match &mut leg.link {
            Link::None => {}
            Link::Rtp(wire) => {
                let mut out = [0; REPORT_MAX];
                let length = wire.goodbye(now_us(), ntp_now(), &mut out);
                if let (Some(length), Some(remote)) = (length, leg.remote) {
                    send_report(pair, wire, remote, &out[..length], &self.parts.counters);
                }
            }
            Link::Web(web) => {
                web.leg().close(now_us());
                self.parts.counters.legs.add_web(web.leg().counts());
                let counters = &self.parts.counters;
                web.settle(now_us(), &mut leg.stream, &mut self.leg_events, |deed| {
                    if let Deed::Send(datagram, remote) = deed {
                        send(&pair.rtp, datagram, remote, counters);
                    }
                });
                // Nobody is there to hear of it.
                self.leg_events.clear();
            }
        }
        let recording = leg.stream.close();
        self.ended(recording);
    }

    pub(super) fn reoffer(&mut self, id: StreamId, offer: &Reoffer) -> Result<String, String> {
        let Some(Leg {
            link: Link::Web(web), ..
        }) = self.legs.get_mut(&id)
        else {
            return Err("no browser is at this stream".to_owned());
        };
        let answer = web.leg().reanswer(now_us(), &offer.sdp, offer.seed);
        self.ice.register(web.local_ufrag(), id);
        self.settle_web(id, None);
        answer.map_err(|error| error.to_string())
    }

    pub(super) fn with_web(&mut self, id: StreamId, act: impl FnOnce(&mut Web)) {
        if let Some(Leg {
            link: Link::Web(web), ..
        }) = self.legs.get_mut(&id)
        {
            act(web);
            self.settle_web(id, None);
        }
    }

    /// Send and report what a browser's leg has come up with: at once, or as far as there is room in `outbox`, which leaves by
    /// the leg's port, with it.
    pub(super) fn settle_web(&mut self, id: StreamId, mut outbox: Option<&mut Outbox>) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Link::Web(web) = &mut leg.link else { return };
        let (pair, counters, ice) = (&self.parts.pairs[leg.port], &self.parts.counters, &mut self.ice);
        let port = leg.port;
        web.settle(
            now_us(),
            &mut leg.stream,
            &mut self.leg_events,
            |deed| match deed {
                Deed::Send(datagram, remote) => {
                    if !outbox
                        .as_deref_mut()
                        .is_some_and(|outbox| outbox.add(datagram, remote))
                    {
                        send(&pair.rtp, datagram, remote, counters);
                    }
                }
                Deed::Unbind(source) => ice.unbind(port, source, id),
            },
        );
        self.collect(id);
    }

    /// Commands for a leg that has been closed meanwhile are without object.
    pub(super) fn with_leg(&mut self, id: StreamId, act: impl FnOnce(&mut Leg)) {
        if let Some(leg) = self.legs.get_mut(&id) {
            act(leg);
        }
    }
}
