//! The thread itself: poll, read, tick, send. It takes commands, never waits for a lock that is held across a system
//! call, and never touches the interpreter.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::net::UdpSocket;
use mio::{Events, Poll, Token};
use rtp::packet::{HEADER_LEN, RtpPacket, header_len, is_rtcp};
use rtp::rtcp::ntp_from_unix_us;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use super::clock::{BEAT, Clock, SUB_TICK_US, now_us};
use super::counters::{Counters, add};
use super::events::{EventQueue, LegEvent, lock};
use super::leg::{Leg, Link, Membership, Random, cname};
use super::ports::{PortTable, Route, StreamId};
use super::rooms::{RoomId, Rooms};
use super::sockets::{Inbox, Outbox, Pair};
use super::web::{Deed, IceTable, Web};
use super::wire::{Heard, REPORT_MAX, Wire, WireError};
use super::{Command, Connection, Reoffer};
use crate::recorder::Recorder;
use crate::room::{ROOM_FRAME, Voice};
use crate::speech::{Listening, SpeechCutter};
use crate::stream::{FRAME_US, Stream, StreamEvent, StreamParams};

pub(crate) const WAKE: Token = Token(usize::MAX);
/// Legs tick in this many groups, one after the other.
const PHASES: usize = (FRAME_US / SUB_TICK_US) as usize;
/// Ticks later than this are not caught up but left out.
const RESYNC_US: u64 = 200_000;
/// Batches read from one socket before the others have their turn.
const READ_BURST: usize = 4;

/// What the thread is made of.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) clock: Clock,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) inbox: Receiver<Command>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) table: Arc<Mutex<PortTable>>,
    pub(crate) listening: Option<Listening>,
}

pub(crate) struct MediaThread {
    parts: Parts,
    legs: HashMap<StreamId, Leg>,
    ice: IceTable,
    rooms: Rooms,
    /// By port, so that what leaves by one socket leaves together.
    phases: [Vec<(usize, StreamId)>; PHASES],
    leg_events: Vec<StreamEvent>,
    outbox: Vec<LegEvent>,
    /// Legs that may have audio to judge.
    heard: Vec<StreamId>,
    lent: Vec<(StreamId, Box<SpeechCutter>)>,
    /// Recordings whose files may still be open.
    ended: Vec<Recorder>,
    /// When the next sub-tick is due, and whose turn it is.
    due_us: u64,
    phase: usize,
    /// Sockets that had more to read than one burst.
    unfinished: Vec<usize>,
    spare: Vec<usize>,
}

/// Real-time scheduling for the calling thread, so that nothing else on the machine delays the beat. The lowest of the
/// real-time priorities: it only has to stand above ordinary work.
pub(crate) fn ask_for_realtime() -> Result<(), String> {
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, fifo)
        .map_err(|error| error.to_string())
}

impl MediaThread {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            due_us: parts.clock.first_us,
            parts,
            legs: HashMap::new(),
            ice: IceTable::default(),
            rooms: Rooms::default(),
            phases: Default::default(),
            leg_events: Vec::new(),
            outbox: Vec::new(),
            heard: Vec::new(),
            lent: Vec::new(),
            ended: Vec::new(),
            phase: 0,
            unfinished: Vec::new(),
            spare: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        let mut ready = Events::with_capacity(256);
        let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
        loop {
            // Sockets announce news only; what was left in them is read at once.
            let wait = (!self.unfinished.is_empty()).then_some(Duration::ZERO);
            // Interrupted system calls are no reason to stop.
            let _ = self.parts.poll.poll(&mut ready, wait);
            if !self.take_commands() {
                break;
            }
            let spare = std::mem::take(&mut self.spare);
            let mut readable = std::mem::replace(&mut self.unfinished, spare);
            for event in &ready {
                match event.token() {
                    WAKE => {}
                    BEAT => self.parts.clock.acknowledge(),
                    Token(socket) => readable.push(socket),
                }
            }
            for socket in readable.drain(..) {
                self.read(socket, &mut inbox);
            }
            self.spare = readable;
            self.listen();
            self.tick(&mut outbox);
            self.listen();
            let dropped = self.parts.events.append(&mut self.outbox);
            add(&self.parts.counters.audio_events_dropped, dropped.audio);
            add(&self.parts.counters.other_events_dropped, dropped.other);
        }
        self.close();
    }

    /// The end: every recording is on the disk before the engine is closed.
    fn close(self) {
        let open = self.legs.into_values().filter_map(|leg| leg.stream.close());
        for recording in open.collect::<Vec<_>>().into_iter().chain(self.ended) {
            // A failure was an event of its stream, if anybody still listens.
            let _ = recording.finish();
        }
    }

    /// Keep a recording until its writer has closed the file.
    fn ended(&mut self, recording: Option<Recorder>) {
        self.ended.retain(|earlier| !earlier.is_closed());
        self.ended.extend(recording);
    }

    /// Returns false when the thread shall end.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.parts.inbox.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Ok(command) => self.command(command),
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn command(&mut self, command: Command) {
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

    fn open(&mut self, id: StreamId, port: usize, params: &StreamParams, link: Link) {
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

    fn connect(&mut self, id: StreamId, connection: Connection) {
        let remote = lock(&self.parts.table).remote(id);
        let now_us = now_us();
        self.with_leg(id, |leg| {
            leg.remote = remote;
            let Connection {
                format,
                coding,
                terms,
            } = connection;
            leg.stream.connect(now_us, format, *coding);
            if let Link::Rtp(wire) = &mut leg.link {
                wire.renew(terms);
            } else {
                let name = cname(id, &mut leg.random);
                let wire = Wire::new(terms, leg.stream.ssrc(), &name, now_us, leg.random.next());
                leg.link = Link::Rtp(Box::new(wire));
            }
        });
    }

    fn join(&mut self, room: RoomId, id: StreamId, voice: Voice) {
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

    fn leave(&mut self, id: StreamId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        if let Some(membership) = leg.membership.take() {
            leg.stream.set_bridged(false);
            self.rooms.leave(membership.room, id);
        }
    }

    fn close_leg(&mut self, id: StreamId) {
        self.leave(id);
        let Some(mut leg) = self.legs.remove(&id) else {
            return;
        };
        self.phases[leg.phase].retain(|&(_, other)| other != id);
        self.ice.forget(id);
        let pair = &self.parts.pairs[leg.port];
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

    fn reoffer(&mut self, id: StreamId, offer: &Reoffer) -> Result<String, String> {
        let Some(Leg {
            link: Link::Web(web), ..
        }) = self.legs.get_mut(&id)
        else {
            return Err("no browser is at this stream".to_owned());
        };
        let answer = web.leg().reanswer(now_us(), &offer.sdp, offer.seed);
        self.ice.register(web.local_ufrag(), id);
        self.settle_web(id);
        answer.map_err(|error| error.to_string())
    }

    fn with_web(&mut self, id: StreamId, act: impl FnOnce(&mut Web)) {
        if let Some(Leg {
            link: Link::Web(web), ..
        }) = self.legs.get_mut(&id)
        {
            act(web);
            self.settle_web(id);
        }
    }

    /// Send and report what a browser's leg has come up with.
    fn settle_web(&mut self, id: StreamId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Link::Web(web) = &mut leg.link else { return };
        let (pair, counters, ice) = (&self.parts.pairs[leg.port], &self.parts.counters, &mut self.ice);
        let port = leg.port;
        web.settle(
            now_us(),
            &mut leg.stream,
            &mut self.leg_events,
            |deed| match deed {
                Deed::Send(datagram, remote) => send(&pair.rtp, datagram, remote, counters),
                Deed::Unbind(source) => ice.unbind(port, source, id),
            },
        );
        self.collect(id);
    }

    /// Commands for a leg that has been closed meanwhile are without object.
    fn with_leg(&mut self, id: StreamId, act: impl FnOnce(&mut Leg)) {
        if let Some(leg) = self.legs.get_mut(&id) {
            act(leg);
        }
    }

    /// Read a socket: that of the streams of a port, or (odd) of their RTCP.
    fn read(&mut self, socket: usize, inbox: &mut Inbox) {
        let (port, separate_rtcp) = (socket / 2, socket % 2 == 1);
        for _ in 0..READ_BURST {
            let pair = &self.parts.pairs[port];
            let read = inbox.read(if separate_rtcp { &pair.rtcp } else { &pair.rtp });
            // An error is that of an earlier packet, told by ICMP (a peer that has gone); the socket is fine.
            add(&self.parts.counters.receive_failed, u64::from(read.is_err()));
            add(&self.parts.counters.received, inbox.len() as u64);
            for index in 0..inbox.len() {
                let (datagram, source) = inbox.datagram(index);
                if let Some(id) = self.ice.route(port, source, datagram) {
                    self.browser_datagram(id, port, source, datagram);
                } else if separate_rtcp || is_rtcp(datagram) {
                    self.report(port, source, datagram, separate_rtcp);
                } else {
                    self.datagram(port, source, datagram);
                }
            }
            if matches!(read, Ok(false)) {
                return;
            }
        }
        self.unfinished.push(socket);
    }

    /// Take a datagram of a browser's leg. The address of a check that passed is its own from then on, unless it is another's.
    fn browser_datagram(&mut self, id: StreamId, port: usize, source: SocketAddr, datagram: &[u8]) {
        let Some(Leg {
            link: Link::Web(web), ..
        }) = self.legs.get_mut(&id)
        else {
            return;
        };
        let checked = web.datagram(now_us(), source, datagram);
        if checked && !self.ice.is_bound(port, source, id) {
            let taken = lock(&self.parts.table).is_locked(port, source);
            let refused = taken || !self.ice.bind(port, source, id);
            add(&self.parts.counters.refused_addresses, u64::from(refused));
        }
        self.settle_web(id);
    }

    /// Take a report about a leg, or about its peer's stream.
    fn report(&mut self, port: usize, source: SocketAddr, datagram: &mut [u8], separate: bool) {
        let counters = &self.parts.counters;
        add(&counters.rtcp, 1);
        let id = lock(&self.parts.table).route_rtcp(port, source, separate);
        let leg = id.and_then(|id| self.legs.get_mut(&id));
        let Some(Leg {
            link: Link::Rtp(wire),
            stream,
            random,
            ..
        }) = leg
        else {
            add(&counters.unknown_source, 1);
            return;
        };
        match wire.report(now_us(), datagram) {
            Ok(Heard::Collision) => {
                wire.avoid_collision(now_us(), stream, random);
            }
            Ok(Heard::Report | Heard::Bye) => {}
            Err(WireError::Srtp(reason)) => add(&counters.srtp[reason as usize], 1),
            Err(WireError::Rtcp(reason)) => add(&counters.bad_reports[reason as usize], 1),
        }
    }

    fn datagram(&mut self, port: usize, source: SocketAddr, datagram: &mut [u8]) {
        let counters = &self.parts.counters;
        if let Err(reason) = header_len(datagram) {
            add(&counters.malformed[reason as usize], 1);
            return;
        }
        let now_us = now_us();
        let route = lock(&self.parts.table).route(now_us, port, source);
        let (Route::Locked(id) | Route::Offered(id)) = route else {
            add(&counters.unknown_source, 1);
            return;
        };
        // Absent only while its command is on the way.
        let Some(leg) = self.legs.get_mut(&id) else {
            add(&counters.unknown_source, 1);
            return;
        };
        let valid = match &mut leg.link {
            Link::Rtp(wire) => match wire.open(datagram) {
                Ok(length) => match RtpPacket::parse(&datagram[..length]) {
                    Ok(packet) => {
                        let valid = leg.stream.handle_packet(now_us, &packet, &mut self.leg_events);
                        let late = leg.stream.late();
                        if valid && wire.received(now_us, &packet.header, late) {
                            wire.avoid_collision(now_us, &mut leg.stream, &mut leg.random);
                        }
                        valid
                    }
                    Err(reason) => {
                        add(&counters.malformed[reason as usize], 1);
                        false
                    }
                },
                Err(reason) => {
                    add(&counters.srtp[reason as usize], 1);
                    false
                }
            },
            Link::None | Link::Web(_) => {
                add(&counters.unknown_source, 1);
                false
            }
        };
        if valid && matches!(route, Route::Offered(_)) {
            let locked = lock(&self.parts.table).lock(id, source);
            if locked {
                let learnt = leg.remote.replace(source) != Some(source);
                add(&counters.learnt_source, u64::from(learnt));
            }
        }
        self.collect(id);
    }

    /// Take the events of a leg that was given a packet or a tick, and see to it that what it heard is judged.
    fn collect(&mut self, id: StreamId) {
        self.outbox
            .extend(self.leg_events.drain(..).map(|event| (id, event)));
        if self.parts.listening.is_some() && self.heard.last() != Some(&id) {
            self.heard.push(id);
        }
    }

    /// Judge what the legs have heard, all in one go.
    fn listen(&mut self) {
        let Some(listening) = &mut self.parts.listening else {
            return;
        };
        for id in self.heard.drain(..) {
            let speech = self.legs.get_mut(&id).and_then(|leg| leg.stream.lend_speech());
            // None: nobody listens to this leg, or it was lent already.
            self.lent.extend(speech.map(|speech| (id, speech)));
        }
        listening.judge(self.lent.iter_mut().map(|(_, speech)| &mut **speech));
        for (id, speech) in self.lent.drain(..) {
            if let Some(leg) = self.legs.get_mut(&id) {
                leg.stream.take_back_speech(speech, &mut self.leg_events);
                self.outbox
                    .extend(self.leg_events.drain(..).map(|event| (id, event)));
            }
        }
    }

    /// Run the sub-ticks that are due.
    fn tick(&mut self, outbox: &mut Outbox) {
        let mut now = now_us();
        if now > self.due_us + RESYNC_US {
            // Whole frames, so that every leg keeps its place among the sub-ticks.
            let frames = (now - self.due_us) / FRAME_US;
            self.due_us += frames * FRAME_US;
            add(&self.parts.counters.clock_resyncs, 1);
            self.legs.values_mut().for_each(|leg| leg.stream.skip(frames));
        }
        while now >= self.due_us {
            self.parts.counters.note_lateness(now - self.due_us);
            let legs = std::mem::take(&mut self.phases[self.phase]);
            self.rooms.tick(self.phase, now, &mut self.legs);
            let mut leaving = 0;
            for &(port, id) in &legs {
                if port != leaving || outbox.is_full() {
                    self.flush(leaving, outbox);
                    leaving = port;
                }
                self.tick_leg(id, outbox);
            }
            self.flush(leaving, outbox);
            self.phases[self.phase] = legs;
            self.phase = (self.phase + 1) % PHASES;
            self.due_us += SUB_TICK_US;
            now = now_us();
        }
    }

    /// Send what was gathered for a port.
    fn flush(&self, port: usize, outbox: &mut Outbox) {
        let outcome = outbox.flush(&self.parts.pairs[port].rtp);
        add(&self.parts.counters.sent, outcome.sent);
        add(&self.parts.counters.send_failed, outcome.failed);
    }

    fn tick_leg(&mut self, id: StreamId, outbox: &mut Outbox) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let now_us = now_us();
        let room = outbox.room();
        let mix = leg.membership.as_ref().map(|membership| &membership.mix[..]);
        let written = leg.stream.tick(now_us, mix, room, &mut self.leg_events);
        let pair = &self.parts.pairs[leg.port];
        match &mut leg.link {
            Link::None => {}
            Link::Rtp(wire) => {
                if let (Some(written), Some(remote)) = (written, leg.remote) {
                    wire.sent(now_us, written.header.timestamp, written.length - HEADER_LEN);
                    match wire.seal(room, written.length) {
                        Ok(length) => outbox.commit(length, remote),
                        Err(reason) => add(&self.parts.counters.srtp[reason as usize], 1),
                    }
                }
                let mut out = [0; REPORT_MAX];
                let length = wire.poll_report(now_us, ntp_now, leg.random.next(), &mut out);
                if let (Some(length), Some(remote)) = (length, leg.remote) {
                    send_report(pair, wire, remote, &out[..length], &self.parts.counters);
                }
            }
            Link::Web(web) => {
                web.tick(now_us);
                if let Some(written) = written {
                    web.write(now_us, &room[..written.length]);
                }
                self.settle_web(id);
            }
        }
        self.collect(id);
    }
}

/// The wall clock for sender reports (RFC 3550 section 4).
fn ntp_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    ntp_from_unix_us(since.map_or(0, |since| since.as_micros() as u64))
}

/// Send something that is not worth a batch. What the system refuses is dropped and counted.
fn send(socket: &UdpSocket, datagram: &[u8], remote: SocketAddr, counters: &Counters) {
    let counter = match socket.send_to(datagram, remote) {
        Ok(_) => &counters.sent,
        Err(_) => &counters.send_failed,
    };
    add(counter, 1);
}

fn send_report(pair: &Pair, wire: &Wire, media: SocketAddr, datagram: &[u8], counters: &Counters) {
    if let Some((remote, by_media_port)) = wire.reports_to(media) {
        let socket = if by_media_port { &pair.rtp } else { &pair.rtcp };
        send(socket, datagram, remote, counters);
        add(&counters.rtcp_sent, 1);
    }
}
