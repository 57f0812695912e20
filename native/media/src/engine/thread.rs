//! The thread itself: poll, read, tick, send. It takes commands, never waits for a lock that is held across a system
//! call, and never touches the interpreter.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use mio::{Events, Poll, Token};
use rtp::packet::HEADER_LEN;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use super::Command;
use super::clock::{BEAT, Clock, SUB_TICK_US, now_us};
use super::counters::{Counters, add};
use super::events::{EventQueue, LegEvent};
use super::leg::{Leg, Link};
use super::ports::{PortTable, StreamId};
use super::readable::Readable;
use super::rooms::Rooms;
use super::sending::{ntp_now, send_report};
use super::sockets::{Inbox, Outbox, Pair};
use super::web::IceTable;
use super::wire::REPORT_MAX;
use crate::recorder::Recorder;
use crate::speech::{Listening, SpeechCutter};
use crate::stream::{FRAME_US, StreamEvent};

pub(crate) const WAKE: Token = Token(usize::MAX);
/// Legs tick in this many groups, one after the other.
pub(super) const PHASES: usize = (FRAME_US / SUB_TICK_US) as usize;
/// With so many legs, packets that come one by one are read together.
const MODERATED_LEGS: usize = 16;
/// At this distance, as network cards space their interrupts: a wake-up costs as much as a packet. With a read at every
/// beat too, a packet waits for 0.7 ms on average.
const READ_EVERY_US: u64 = 1_500;
/// A beat that is as near is waited for in the poll, which the system ends more exactly than a sleep.
const BEAT_NEAR_US: u64 = 200;
/// Ticks later than this are not caught up but left out.
const RESYNC_US: u64 = 200_000;

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
    pub(super) parts: Parts,
    pub(super) legs: HashMap<StreamId, Leg>,
    pub(super) ice: IceTable,
    pub(super) rooms: Rooms,
    /// By port, so that what leaves by one socket leaves together.
    pub(super) phases: [Vec<(usize, StreamId)>; PHASES],
    pub(super) leg_events: Vec<StreamEvent>,
    pub(super) outbox: Vec<LegEvent>,
    /// Legs that may have audio to judge.
    pub(super) heard: Vec<StreamId>,
    pub(super) lent: Vec<(StreamId, Box<SpeechCutter>)>,
    /// Recordings whose files may still be open.
    pub(super) ended: Vec<Recorder>,
    /// When the next sub-tick is due, and whose turn it is.
    pub(super) due_us: u64,
    pub(super) phase: usize,
    pub(super) readable: Readable,
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
            readable: Readable::new(2 * parts.pairs.len()),
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
        }
    }

    pub(crate) fn run(mut self) {
        let mut ready = Events::with_capacity(256);
        let (mut inbox, mut outbox) = (Inbox::new(), Outbox::new());
        let mut woken_us = 0;
        loop {
            self.moderate(woken_us);
            // Sockets announce news only; what was left in them is read at once.
            let wait = (!self.readable.is_empty()).then_some(Duration::ZERO);
            // Interrupted system calls are no reason to stop.
            let _ = self.parts.poll.poll(&mut ready, wait);
            woken_us = now_us();
            if !self.take_commands() {
                break;
            }
            for event in &ready {
                match event.token() {
                    WAKE => {}
                    BEAT => self.parts.clock.acknowledge(),
                    Token(socket) => self.readable.note(socket),
                }
            }
            self.read(&mut inbox);
            self.listen();
            self.tick(&mut outbox);
            self.listen();
            let dropped = self.parts.events.append(&mut self.outbox);
            add(&self.parts.counters.audio_events_dropped, dropped.audio);
            add(&self.parts.counters.other_events_dropped, dropped.other);
        }
        self.close();
    }

    /// Let packets gather that come one by one, for no more than [`READ_EVERY_US`] since the thread was woken.
    fn moderate(&self, woken_us: u64) {
        if self.legs.len() < MODERATED_LEGS || !self.readable.is_empty() {
            return;
        }
        let until_us = (woken_us + READ_EVERY_US).min(self.due_us.saturating_sub(BEAT_NEAR_US));
        let rest_us = until_us.saturating_sub(now_us());
        if rest_us > 0 {
            thread::sleep(Duration::from_micros(rest_us));
        }
    }

    /// The end: every recording is on the disk before the engine is closed.
    pub(super) fn close(self) {
        let open = self.legs.into_values().filter_map(|leg| leg.stream.close());
        for recording in open.collect::<Vec<_>>().into_iter().chain(self.ended) {
            // A failure was an event of its stream, if anybody still listens.
            let _ = recording.finish();
        }
    }

    /// Keep a recording until its writer has closed the file.
    pub(super) fn ended(&mut self, recording: Option<Recorder>) {
        self.ended.retain(|earlier| !earlier.is_closed());
        self.ended.extend(recording);
    }

    /// Returns false when the thread shall end.
    pub(super) fn take_commands(&mut self) -> bool {
        loop {
            match self.parts.inbox.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Ok(command) => self.command(command),
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Take the events of a leg that was given a packet or a tick, and see to it that what it heard is judged.
    pub(super) fn collect(&mut self, id: StreamId) {
        self.outbox
            .extend(self.leg_events.drain(..).map(|event| (id, event)));
        if self.parts.listening.is_some() && self.heard.last() != Some(&id) {
            self.heard.push(id);
        }
    }

    /// Judge what the legs have heard, all in one go.
    pub(super) fn listen(&mut self) {
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
    pub(super) fn tick(&mut self, outbox: &mut Outbox) {
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
    pub(super) fn flush(&self, port: usize, outbox: &mut Outbox) {
        let outcome = outbox.flush(&self.parts.pairs[port].rtp);
        add(&self.parts.counters.sent, outcome.sent);
        add(&self.parts.counters.send_failed, outcome.failed);
    }

    fn tick_web(&mut self, now_us: u64, id: StreamId, outbox: &mut Outbox) {
        if let Some(Leg {
            link: Link::Web(web), ..
        }) = self.legs.get_mut(&id)
            && web.tick(now_us)
        {
            self.settle_web(id, Some(outbox));
        }
    }

    pub(super) fn tick_leg(&mut self, id: StreamId, outbox: &mut Outbox) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let now_us = now_us();
        if let Link::Rtp(wire) = &mut leg.link
            && leg.stream.is_sending()
        {
            let stopped = leg.stream.withhold(!wire.consents(now_us));
            add(&self.parts.counters.sending_stopped, u64::from(stopped));
        }
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
                if let Some(written) = written {
                    // That lets time pass too, so that seldom anything is due afterwards.
                    web.write(now_us, &room[..written.length]);
                    self.settle_web(id, Some(outbox));
                }
                self.tick_web(now_us, id, outbox);
            }
        }
        self.collect(id);
    }
}
