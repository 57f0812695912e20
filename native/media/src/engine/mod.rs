//! The media threads: sockets, the tick, and two bounded queues to the rest of the program.
//!
//! A stream lives on one thread. A thread never waits for anybody: commands come through a bounded queue, events leave through another whose reader
//! is woken by an eventfd once per batch. Legs tick every 20 ms on an absolute clock, spread over four sub-ticks of 5 ms.

mod aftermath;
mod browsers;
mod clock;
mod config;
mod consent;
mod counters;
pub mod events;
mod leg;
mod obeying;
mod playing;
pub mod ports;
mod readable;
mod receiving;
mod rooms;
mod sending;
mod sockets;
mod starting;
mod thread;
mod web;
mod wire;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use codec::Codec;
use mio::Waker;
use rtp::quality::{LegQuality, QualityCodec};
use webrtc::{Certificate, IceSeed};

pub use self::clock::now_us;
pub use self::config::{EngineConfig, EngineError, THREADS_MAX};
pub use self::counters::LATENESS_BOUNDS_US;
pub use self::events::LegEvent;
pub use self::playing::Utterance;
pub use self::ports::{PortError, StreamId};
pub use self::rooms::RoomId;
pub use self::wire::{RtcpTerms, SrtpKeys};

use self::counters::{Counters, add};
use self::events::{EventQueue, lock};
use self::ports::PortTable;
use self::web::Web;
use self::wire::WireTerms;
use crate::playout::{Chunk, PlayoutBudget};
use crate::recorder::Recorder;
use crate::room::Voice;
use crate::stream::{Coding, Format, StreamParams};

const COMMAND_CAPACITY: usize = 4096;
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) enum Command {
    Open(StreamId, usize, Box<StreamParams>),
    OpenWeb(StreamId, usize, Box<StreamParams>, Box<Web>),
    Connect(StreamId, Box<Connection>),
    Reoffer(StreamId, Box<Reoffer>, SyncSender<Result<String, String>>),
    Message(StreamId, String),
    Press(StreamId, char, u32),
    Close(StreamId),
    Play(StreamId, Chunk),
    Loop(StreamId, Chunk),
    StopLoop(StreamId),
    Gain(StreamId, f32),
    Flush(StreamId),
    Pause(StreamId),
    Resume(StreamId),
    Record(StreamId, Box<Recorder>),
    Join(RoomId, StreamId, Voice),
    Leave(StreamId),
    Hear {
        listener: StreamId,
        speaker: StreamId,
        factor: f32,
    },
    StreamStats(StreamId, SyncSender<Vec<(&'static str, u64)>>),
    Quality(StreamId, SyncSender<Option<LegQuality>>),
    Stop,
    /// Whatever a test wants to happen on the thread.
    #[cfg(test)]
    Do(Box<dyn FnOnce() + Send>),
}

/// All that a leg needs to begin, or to go on otherwise.
pub(crate) struct Connection {
    pub(crate) format: Format,
    pub(crate) coding: Box<Coding>,
    pub(crate) terms: WireTerms,
}

/// A later offer of a browser.
pub(crate) struct Reoffer {
    pub(crate) sdp: String,
    pub(crate) seed: IceSeed,
}

/// What is known of a stream outside the thread.
type Budgets = HashMap<StreamId, Arc<PlayoutBudget>>;

/// One media thread, seen from outside.
#[derive(Debug)]
struct Shard {
    commands: SyncSender<Command>,
    waker: Arc<Waker>,
    table: Arc<Mutex<PortTable>>,
    ports: Vec<u16>,
    /// Streams that it carries.
    load: Arc<AtomicUsize>,
    /// Set when the thread has panicked, before its streams are reported.
    failed: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The handle of the media engine.
#[derive(Debug)]
pub struct Engine {
    shards: Vec<Shard>,
    events: Arc<EventQueue>,
    counters: Arc<Counters>,
    budgets: Arc<Mutex<Budgets>>,
    host: IpAddr,
    max_streams: usize,
    /// Whether there is a model.
    hears: bool,
    realtime: Result<(), String>,
    /// Addresses by which browsers reach our ports, and what we identify ourselves to them with.
    public: Vec<IpAddr>,
    certificate: Certificate,
    rooms: AtomicU64,
}

impl Engine {
    /// Whether the media threads have the real-time scheduling that was asked for, or why not.
    ///
    /// # Errors
    /// The system's reason.
    pub fn realtime(&self) -> Result<(), &str> {
        self.realtime.as_ref().copied().map_err(String::as_str)
    }

    /// Whether any media thread runs: new streams go to those that do.
    pub fn is_alive(&self) -> bool {
        self.open_for_commands().is_ok()
    }

    /// Media threads that have ended by a mistake of ours; their streams have had
    /// [`Failed`](crate::stream::StreamEvent::Failed).
    pub fn failed_threads(&self) -> u64 {
        self.counters.failed_threads.load(Ordering::Relaxed)
    }

    /// The local ports of streams.
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self
            .shards
            .iter()
            .flat_map(|shard| &shard.ports)
            .copied()
            .collect();
        ports.sort_unstable();
        ports
    }

    /// The descriptor that is readable while events wait.
    pub fn event_fd(&self) -> RawFd {
        self.events.fd()
    }

    /// Reserve a stream; returns its number and its local port. `beside`: on the thread of that stream, to share a room.
    ///
    /// # Errors
    /// When a limit is reached; the error names it.
    pub fn open(
        &self,
        remote: Option<SocketAddr>,
        origin: Option<IpAddr>,
        beside: Option<StreamId>,
        max_playout_ms: u64,
        params: StreamParams,
    ) -> Result<(StreamId, u16), EngineError> {
        let remote = remote.map(|remote| self.reachable(remote)).transpose()?;
        // An origin of the other family (signalling over IPv6, media over IPv4) is where no packet comes from.
        let seen = |origin| self.reachable(SocketAddr::new(origin, 0)).ok();
        let origin = origin.and_then(seen).map(|address| address.ip());
        let place = |table: &mut PortTable| table.open(remote, origin);
        let (id, port) = self.place(beside, max_playout_ms, place)?;
        let params = Box::new(self.audible(params));
        self.begin(id, Command::Open(id, port, params))?;
        Ok((id, self.shard(id).ports[port]))
    }

    /// Without a model nobody listens.
    fn audible(&self, mut params: StreamParams) -> StreamParams {
        params.speech = params.speech.filter(|_| self.hears);
        params
    }

    /// Tell the thread of a stream that has its place, or give the place back.
    fn begin(&self, id: StreamId, command: Command) -> Result<(), EngineError> {
        self.send(id, command).inspect_err(|_| self.forget(id))
    }

    /// A number and a port for a stream, on the thread with the fewest that has a port for it.
    fn place(
        &self,
        beside: Option<StreamId>,
        max_playout_ms: u64,
        mut open: impl FnMut(&mut PortTable) -> Result<(StreamId, usize), PortError>,
    ) -> Result<(StreamId, usize), EngineError> {
        self.open_for_commands()?;
        // Held throughout, so that the limit is exact.
        let mut budgets = lock(&self.budgets);
        if budgets.len() >= self.max_streams {
            add(&self.counters.refused_streams, 1);
            return Err(EngineError::TooMany(self.max_streams));
        }
        let mut shards: Vec<&Shard> = match beside {
            Some(id) => vec![self.shard(id)],
            None => self.shards.iter().collect(),
        };
        shards.retain(|shard| shard.is_running());
        shards.sort_by_key(|shard| shard.load.load(Ordering::Relaxed));
        let mut refused = EngineError::Closed;
        for shard in shards {
            match open(&mut lock(&shard.table)) {
                Ok((id, port)) => {
                    shard.load.fetch_add(1, Ordering::Relaxed);
                    budgets.insert(id, PlayoutBudget::new(max_playout_ms));
                    return Ok((id, port));
                }
                Err(error) => refused = error.into(),
            }
        }
        Err(refused)
    }

    fn shard(&self, id: StreamId) -> &Shard {
        &self.shards[id as usize % self.shards.len()]
    }

    /// Begin media, or change them.
    ///
    /// # Errors
    /// When the stream is unknown, a codec cannot be set up, or the peer's address belongs to another stream on the same port.
    pub fn connect(
        &self,
        id: StreamId,
        remote: SocketAddr,
        format: Format,
        srtp: Option<SrtpKeys>,
        rtcp: Option<RtcpTerms>,
    ) -> Result<(), EngineError> {
        self.budget(id)?;
        let remote = self.reachable(remote)?;
        let rtcp = match rtcp {
            Some(terms) => Some(RtcpTerms {
                remote: terms.remote.map(|remote| self.reachable(remote)).transpose()?,
                ..terms
            }),
            None => None,
        };
        let terms = WireTerms {
            srtp,
            rtcp,
            codec: match format.codec {
                Codec::Pcmu | Codec::Pcma => QualityCodec::G711Concealed,
                Codec::G722 => QualityCodec::G722,
                Codec::Opus => QualityCodec::Opus,
            },
            clock_hz: format.codec.clock_hz(),
            receives: format.receive,
        };
        let coding = Box::new(Coding::new(format.codec)?);
        let connection = Box::new(Connection {
            format,
            coding,
            terms,
        });
        let shard = self.shard(id);
        {
            // The thread, which asks the table for the address, waits until both have changed or neither has.
            let mut table = lock(&shard.table);
            table.may_connect(id, remote)?;
            self.enqueue(shard, Command::Connect(id, connection))?;
            table.connect(now_us(), id, remote)?;
        }
        shard.wake();
        Ok(())
    }

    /// Free a stream.
    ///
    /// # Errors
    /// When the stream is unknown or the engine is closed.
    pub fn close_stream(&self, id: StreamId) -> Result<(), EngineError> {
        self.budget(id)?;
        self.forget(id);
        // Refused, the leg would stay for ever. A full queue is drained by the thread, so this waits no longer than a tick.
        let shard = self.shard(id);
        let sent = shard.commands.send(Command::Close(id));
        sent.map_err(|_| EngineError::Closed)?;
        shard.wake();
        Ok(())
    }

    /// All pending events, and the descriptor quiet again.
    pub fn drain(&self) -> Vec<LegEvent> {
        self.events.drain()
    }

    /// Counters of a stream.
    ///
    /// # Errors
    /// When the stream is unknown or the thread does not answer.
    pub fn stream_stats(&self, id: StreamId) -> Result<Vec<(&'static str, u64)>, EngineError> {
        let budget = self.budget(id)?;
        let mut stats = self.ask(id, |answer| Command::StreamStats(id, answer))?;
        stats.push(("queued_ms", budget.queued_ms()));
        stats.push(("refused_chunks", budget.refused()));
        Ok(stats)
    }

    /// How good a stream is, both ways; none before it is connected.
    ///
    /// # Errors
    /// When the stream is unknown or the thread does not answer.
    pub fn quality(&self, id: StreamId) -> Result<Option<LegQuality>, EngineError> {
        self.budget(id)?;
        self.ask(id, |answer| Command::Quality(id, answer))
    }

    /// Ask the thread of a stream, and wait for its answer.
    fn ask<T>(
        &self,
        id: StreamId,
        question: impl FnOnce(SyncSender<T>) -> Command,
    ) -> Result<T, EngineError> {
        let (answer, answers) = sync_channel(1);
        self.send(id, question(answer))?;
        answers.recv_timeout(ANSWER_TIMEOUT).map_err(|error| match error {
            RecvTimeoutError::Timeout => EngineError::Busy,
            RecvTimeoutError::Disconnected => EngineError::UnknownStream(id),
        })
    }

    /// Counters of the engine.
    pub fn stats(&self) -> Vec<(String, u64)> {
        let mut stats = self.counters.snapshot();
        stats.push(("streams".to_owned(), lock(&self.budgets).len() as u64));
        stats
    }

    /// Stop the threads and wait for them. Safe to call twice.
    pub fn close(&self) {
        let running = self.shards.iter().filter_map(|shard| {
            let thread = lock(&shard.thread).take()?;
            // A full queue is drained by the thread, so this waits no longer than a tick.
            let _ = shard.commands.send(Command::Stop);
            shard.wake();
            Some(thread)
        });
        for thread in running.collect::<Vec<_>>() {
            let _ = thread.join();
        }
    }

    /// The address as the sockets see it: IPv6 sockets know IPv4 peers by mapped addresses (RFC 4291 2.5.5.2).
    fn reachable(&self, remote: SocketAddr) -> Result<SocketAddr, EngineError> {
        match (self.host, remote) {
            (IpAddr::V4(_), SocketAddr::V4(_)) | (IpAddr::V6(_), SocketAddr::V6(_)) => Ok(remote),
            (IpAddr::V6(host), SocketAddr::V4(peer)) if host.is_unspecified() => {
                let mapped = peer.ip().to_ipv6_mapped();
                Ok(SocketAddr::new(mapped.into(), peer.port()))
            }
            (host, remote) => Err(EngineError::Unreachable { host, remote }),
        }
    }

    fn budget(&self, id: StreamId) -> Result<Arc<PlayoutBudget>, EngineError> {
        self.open_for_commands()?;
        let budget = lock(&self.budgets).get(&id).cloned();
        budget.ok_or(EngineError::UnknownStream(id))
    }

    fn forget(&self, id: StreamId) {
        if lock(&self.budgets).remove(&id).is_some() {
            let shard = self.shard(id);
            shard.load.fetch_sub(1, Ordering::Relaxed);
            lock(&shard.table).close(id);
        }
    }

    fn open_for_commands(&self) -> Result<(), EngineError> {
        if self.shards.iter().any(Shard::is_running) {
            return Ok(());
        }
        Err(EngineError::Closed)
    }

    fn send(&self, id: StreamId, command: Command) -> Result<(), EngineError> {
        let shard = self.shard(id);
        self.enqueue(shard, command)?;
        shard.wake();
        Ok(())
    }

    fn enqueue(&self, shard: &Shard, command: Command) -> Result<(), EngineError> {
        shard.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => {
                add(&self.counters.refused_commands, 1);
                EngineError::Busy
            }
            TrySendError::Disconnected(_) => EngineError::Closed,
        })
    }
}

impl Shard {
    fn is_running(&self) -> bool {
        !self.failed.load(Ordering::Acquire) && lock(&self.thread).is_some()
    }

    fn wake(&self) {
        // The thread looks at its queue at every sub-tick anyway; a failed wake-up costs 5 ms.
        let _ = self.waker.wake();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
