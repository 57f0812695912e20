//! The thread itself: poll, read, tick, send. It takes commands, never waits for a lock that is held across a system
//! call, and never touches the interpreter.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Events, Poll, Token};
use silero::Scratch;

use crate::engine::{Command, Counters, EventQueue, LATENESS_BOUNDS_US, StreamShared, add, lock, now_us};
use crate::ports::{PortTable, StreamId};
use crate::stream::{FRAME_US, PACKET_LEN, Stream, StreamEvent};

pub(crate) const WAKE: Token = Token(usize::MAX);
const SUB_TICK_US: u64 = 5_000;
/// Legs tick in this many groups, one after the other.
const PHASES: usize = (FRAME_US / SUB_TICK_US) as usize;
/// A tick later than this is not caught up: the clock starts anew.
const RESYNC_US: u64 = 200_000;
/// Largest datagram that is read whole; longer ones are cut, and fail to parse or play cut.
const DATAGRAM_LEN: usize = 2048;
/// Datagrams read from one socket before the others have their turn.
const READ_BURST: usize = 64;

/// What the thread is made of.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) inbox: Receiver<Command>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) table: Arc<Mutex<PortTable>>,
    pub(crate) shared: Arc<Mutex<HashMap<StreamId, Arc<StreamShared>>>>,
}

struct Leg {
    stream: Stream,
    port: usize,
    remote: Option<SocketAddr>,
    shared: Option<Arc<StreamShared>>,
    phase: usize,
}

pub(crate) struct MediaThread {
    parts: Parts,
    legs: HashMap<StreamId, Leg>,
    phases: [Vec<StreamId>; PHASES],
    scratch: Scratch,
    leg_events: Vec<StreamEvent>,
    outbox: Vec<(StreamId, StreamEvent)>,
    /// When the next sub-tick is due, and whose turn it is.
    due_us: u64,
    phase: usize,
    /// Sockets that had more to read than one burst.
    unfinished: Vec<usize>,
}

impl MediaThread {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            legs: HashMap::new(),
            phases: Default::default(),
            scratch: Scratch::new(),
            leg_events: Vec::new(),
            outbox: Vec::new(),
            due_us: now_us(),
            phase: 0,
            unfinished: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) {
        let mut ready = Events::with_capacity(256);
        loop {
            let wait_us = if self.unfinished.is_empty() {
                self.due_us.saturating_sub(now_us())
            } else {
                0
            };
            // Interrupted system calls are no reason to stop.
            let _ = self
                .parts
                .poll
                .poll(&mut ready, Some(Duration::from_micros(wait_us)));
            if !self.take_commands() {
                return;
            }
            let mut readable = std::mem::take(&mut self.unfinished);
            readable.extend(
                ready
                    .iter()
                    .filter(|event| event.token() != WAKE)
                    .map(|event| event.token().0),
            );
            for port in readable {
                self.read(port);
            }
            self.tick();
            let dropped = self.parts.events.append(&mut self.outbox);
            add(&self.parts.counters.events_dropped, dropped);
        }
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
            Command::Open(id, port, params) => {
                // The least busy group keeps the packets of all legs evenly spread.
                let phase = (0..PHASES)
                    .min_by_key(|&phase| self.phases[phase].len())
                    .unwrap_or(0);
                self.phases[phase].push(id);
                let shared = lock(&self.parts.shared).get(&id).cloned();
                let leg = Leg {
                    stream: Stream::new(*params),
                    port,
                    remote: None,
                    shared,
                    phase,
                };
                self.legs.insert(id, leg);
            }
            Command::Close(id) => {
                if let Some(leg) = self.legs.remove(&id) {
                    self.phases[leg.phase].retain(|&other| other != id);
                }
            }
            Command::StreamStats(id, answer) => {
                if let Some(leg) = self.legs.get(&id) {
                    // The asker may have given up; then nobody wants the answer.
                    let _ = answer.try_send(leg.stats());
                }
            }
            Command::Stop => {}
            Command::Connect(id, remote, format) => {
                if let Some(leg) = self.legs.get_mut(&id) {
                    leg.remote = Some(remote);
                    leg.stream.connect(format, now_us());
                }
            }
            Command::Play(id, mark, rate_hz, pcm) => {
                if let Some(leg) = self.legs.get_mut(&id)
                    && leg.stream.play(mark, rate_hz, pcm).is_err()
                {
                    add(&self.parts.counters.playout_refused, 1);
                }
            }
            Command::Flush(id) => self.with_leg(id, |leg| leg.stream.playout().flush()),
            Command::Pause(id) => self.with_leg(id, |leg| leg.stream.playout().pause()),
            Command::Resume(id) => self.with_leg(id, |leg| leg.stream.playout().resume()),
            Command::Record(id, recorder) => self.with_leg(id, |leg| leg.stream.record(*recorder)),
        }
    }

    /// Commands for a leg that has been closed meanwhile are without object.
    fn with_leg(&mut self, id: StreamId, act: impl FnOnce(&mut Leg)) {
        if let Some(leg) = self.legs.get_mut(&id) {
            act(leg);
        }
    }

    fn read(&mut self, port: usize) {
        let mut datagram = [0_u8; DATAGRAM_LEN];
        for _ in 0..READ_BURST {
            match self.parts.sockets[port].recv_from(&mut datagram) {
                Ok((length, source)) => self.datagram(port, source, &datagram[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier packet (a peer that has gone); the socket is fine.
                Err(_) => add(&self.parts.counters.receive_failed, 1),
            }
        }
        self.unfinished.push(port);
    }

    fn datagram(&mut self, port: usize, source: SocketAddr, datagram: &[u8]) {
        let counters = &self.parts.counters;
        add(&counters.received, 1);
        let found = lock(&self.parts.table).find(port, source);
        let Some((id, learnt)) = found else {
            add(&counters.unknown_source, 1);
            return;
        };
        let Some(leg) = self.legs.get_mut(&id) else {
            add(&counters.unknown_source, 1);
            return;
        };
        if learnt {
            add(&counters.learnt_source, 1);
            leg.remote = Some(source);
        }
        leg.stream
            .handle_packet(&mut self.scratch, now_us(), datagram, &mut self.leg_events);
        self.outbox
            .extend(self.leg_events.drain(..).map(|event| (id, event)));
    }

    /// Run the sub-ticks that are due.
    fn tick(&mut self) {
        let mut now = now_us();
        if now > self.due_us + RESYNC_US {
            add(&self.parts.counters.clock_resyncs, 1);
            self.due_us = now;
        }
        while now >= self.due_us {
            self.note_lateness(now - self.due_us);
            let legs = std::mem::take(&mut self.phases[self.phase]);
            for &id in &legs {
                self.tick_leg(id);
            }
            self.phases[self.phase] = legs;
            self.phase = (self.phase + 1) % PHASES;
            self.due_us += SUB_TICK_US;
            now = now_us();
        }
    }

    fn tick_leg(&mut self, id: StreamId) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let mut packet = [0_u8; PACKET_LEN];
        let send = leg
            .stream
            .tick(&mut self.scratch, now_us(), &mut packet, &mut self.leg_events);
        if send && let Some(remote) = leg.remote {
            match self.parts.sockets[leg.port].send_to(&packet, remote) {
                Ok(_) => add(&self.parts.counters.sent, 1),
                Err(_) => add(&self.parts.counters.send_failed, 1),
            }
        }
        if let Some(shared) = &leg.shared {
            shared
                .queued_ms
                .store(leg.stream.playout().queued_ms(), Ordering::Relaxed);
        }
        self.outbox
            .extend(self.leg_events.drain(..).map(|event| (id, event)));
    }

    fn note_lateness(&self, late_us: u64) {
        let counters = &self.parts.counters;
        let bucket = LATENESS_BOUNDS_US
            .iter()
            .position(|&bound| late_us <= bound)
            .unwrap_or(LATENESS_BOUNDS_US.len());
        add(&counters.ticks, 1);
        add(&counters.lateness[bucket], 1);
        counters.lateness_max_us.fetch_max(late_us, Ordering::Relaxed);
    }
}

impl Leg {
    fn stats(&self) -> Vec<(&'static str, u64)> {
        let (sent, drops, listening) = self.stream.stats();
        vec![
            ("sent", sent),
            ("received", listening.received),
            ("released", listening.released),
            ("lost", listening.lost),
            ("late", listening.late),
            ("duplicate", listening.duplicate),
            ("reordered", listening.reordered),
            ("reset", listening.reset),
            ("overflow", listening.overflow),
            ("dropped_malformed", drops.malformed.iter().sum()),
            ("dropped_rtcp", drops.rtcp),
            ("dropped_payload_type", drops.payload_type),
            ("dropped_not_receiving", drops.not_receiving),
        ]
    }
}
