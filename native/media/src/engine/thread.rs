//! The thread itself: poll, read, tick, send. It takes commands, never waits for a lock that is held across a system
//! call, and never touches the interpreter.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::{Events, Poll, Token};
use rtp::packet::{RtpPacket, is_rtcp};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use super::Command;
use super::clock::{BEAT, Clock, SUB_TICK_US, now_us};
use super::counters::{Counters, add};
use super::events::{EventQueue, LegEvent, lock};
use super::ports::{PortTable, Route, StreamId};
use super::sockets::{Inbox, Outbox, Pair};
use crate::recorder::Recorder;
use crate::speech::{Listening, SpeechCutter};
use crate::stream::{FRAME_US, Stream, StreamEvent};

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

struct Leg {
    stream: Stream,
    remote: Option<SocketAddr>,
    phase: usize,
}

pub(crate) struct MediaThread {
    parts: Parts,
    legs: HashMap<StreamId, Leg>,
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
            Command::Open(id, port, params) => {
                // The least busy group keeps the packets of all legs evenly spread.
                let phase = (0..PHASES)
                    .min_by_key(|&phase| self.phases[phase].len())
                    .unwrap_or(0);
                let place = self.phases[phase].partition_point(|&other| other < (port, id));
                self.phases[phase].insert(place, (port, id));
                let leg = Leg {
                    stream: Stream::new(&params),
                    remote: None,
                    phase,
                };
                self.legs.insert(id, leg);
            }
            Command::Close(id) => {
                if let Some(leg) = self.legs.remove(&id) {
                    self.phases[leg.phase].retain(|&(_, other)| other != id);
                    let recording = leg.stream.close();
                    self.ended(recording);
                }
            }
            Command::StreamStats(id, answer) => {
                if let Some(leg) = self.legs.get(&id) {
                    // The asker may have given up; then nobody wants the answer.
                    let _ = answer.try_send(leg.stats());
                }
            }
            Command::Stop => {}
            Command::Connect(id, format, coding) => {
                let remote = lock(&self.parts.table).remote(id);
                self.with_leg(id, |leg| {
                    leg.remote = remote;
                    leg.stream.connect(now_us(), format, *coding);
                });
            }
            Command::Play(id, chunk) => self.with_leg(id, |leg| leg.stream.play(chunk)),
            Command::Flush(id) => self.with_leg(id, |leg| leg.stream.playout().flush()),
            Command::Pause(id) => self.with_leg(id, |leg| leg.stream.playout().pause()),
            Command::Resume(id) => self.with_leg(id, |leg| leg.stream.playout().resume()),
            Command::Record(id, recorder) => {
                let replaced = self
                    .legs
                    .get_mut(&id)
                    .and_then(|leg| leg.stream.record(*recorder));
                self.ended(replaced);
            }
        }
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
                if separate_rtcp || is_rtcp(datagram) {
                    add(&self.parts.counters.rtcp, 1);
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

    fn datagram(&mut self, port: usize, source: SocketAddr, datagram: &[u8]) {
        let counters = &self.parts.counters;
        let packet = match RtpPacket::parse(datagram) {
            Ok(packet) => packet,
            Err(reason) => {
                add(&counters.malformed[reason as usize], 1);
                return;
            }
        };
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
        let valid = leg.stream.handle_packet(now_us, &packet, &mut self.leg_events);
        if valid && matches!(route, Route::Offered(_)) {
            leg.remote = Some(source);
            let learnt = lock(&self.parts.table).lock(id, source);
            add(&counters.learnt_source, u64::from(learnt));
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
        let written = leg
            .stream
            .tick(now_us(), None, outbox.room(), &mut self.leg_events);
        if let (Some(written), Some(remote)) = (written, leg.remote) {
            outbox.commit(written.length, remote);
        }
        self.collect(id);
    }
}

impl Leg {
    fn stats(&self) -> Vec<(&'static str, u64)> {
        let stats = self.stream.stats();
        let listening = stats.listening;
        vec![
            ("sent", stats.sent),
            ("received", listening.received),
            ("released", listening.released),
            ("aside", listening.aside),
            ("lost", listening.lost),
            ("late", listening.late),
            ("duplicate", listening.duplicate),
            ("reordered", listening.reordered),
            ("reset", listening.reset),
            ("overflow", listening.overflow),
            ("undecodable", stats.undecodable),
            ("unencodable", stats.unencodable),
            ("dropped_payload_type", stats.payload_type),
            ("dropped_not_receiving", stats.not_receiving),
            ("dropped_not_connected", stats.not_connected),
            ("skipped_frames", stats.skipped_frames),
            ("played_ms", stats.played_ms),
            ("vad_windows", stats.windows.0),
            ("vad_windows_quiet", stats.windows.1),
            ("recording_dropped_frames", stats.recording_dropped),
        ]
    }
}
