//! The media threads: sockets, the tick, and two bounded queues to the rest of the program.
//!
//! A stream lives on one thread. A thread never waits for anybody: commands come through a bounded queue, events leave through another whose reader
//! is woken by an eventfd once per batch. Legs tick every 20 ms on an absolute clock, spread over four sub-ticks of 5 ms.

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
mod thread;
mod web;
mod wire;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use codec::Codec;
use mio::{Interest, Poll, Token, Waker};
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

use self::clock::Clock;
use self::counters::{Counters, add};
use self::events::{EventQueue, lock};
use self::ports::PortTable;
use self::sockets::{Pair, bind_pairs};
use self::thread::{MediaThread, Parts, WAKE};
use self::web::Web;
use self::wire::WireTerms;
use crate::playout::{Chunk, PlayoutBudget};
use crate::recorder::Recorder;
use crate::room::Voice;
use crate::speech::Listening;
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
    load: AtomicUsize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The handle of the media engine.
#[derive(Debug)]
pub struct Engine {
    shards: Vec<Shard>,
    events: Arc<EventQueue>,
    counters: Arc<Counters>,
    budgets: Mutex<Budgets>,
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
    /// Open the sockets and start the threads.
    ///
    /// # Errors
    /// When a port is in use or the system refuses a descriptor or a thread.
    pub fn start(config: &EngineConfig) -> Result<Self, EngineError> {
        let threads = config.threads;
        if threads == 0 || threads > THREADS_MAX.min(config.port_count) {
            return Err(EngineError::Threads(threads, THREADS_MAX));
        }
        let events = Arc::new(EventQueue::new(config.event_capacity)?);
        let counters = Arc::new(Counters::default());
        let mut dealt: Vec<Vec<Pair>> = (0..threads).map(|_| Vec::new()).collect();
        let pairs = bind_pairs(config.host, config.first_port, config.port_count)?;
        for (index, pair) in pairs.into_iter().enumerate() {
            dealt[index % threads].push(pair);
        }
        let mut engine = Self {
            shards: Vec::with_capacity(threads),
            events,
            counters,
            budgets: Mutex::default(),
            host: config.host,
            max_streams: config.max_streams,
            hears: config.model.is_some(),
            realtime: Ok(()),
            public: config.public(),
            certificate: Certificate::generate().map_err(browsers::BrowserError::from)?,
            rooms: AtomicU64::new(0),
        };
        for (index, pairs) in dealt.into_iter().enumerate() {
            // An error ends the threads that run already: dropping the engine closes it.
            engine.start_thread(config, index, pairs)?;
        }
        Ok(engine)
    }

    fn start_thread(
        &mut self,
        config: &EngineConfig,
        index: usize,
        mut pairs: Vec<Pair>,
    ) -> Result<(), EngineError> {
        let poll = Poll::new()?;
        for (index, pair) in pairs.iter_mut().enumerate() {
            let registry = poll.registry();
            registry.register(&mut pair.rtp, Token(2 * index), Interest::READABLE)?;
            registry.register(&mut pair.rtcp, Token(2 * index + 1), Interest::READABLE)?;
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let clock = Clock::start(poll.registry(), now_us())?;
        let (commands, inbox) = sync_channel(COMMAND_CAPACITY);
        let table = Arc::new(Mutex::new(PortTable::new(pairs.len(), index, config.threads)));
        let ports = pairs.iter().map(|pair| pair.port).collect();
        let inside = Parts {
            poll,
            clock,
            pairs,
            inbox,
            events: Arc::clone(&self.events),
            counters: Arc::clone(&self.counters),
            table: Arc::clone(&table),
            listening: config.model.clone().map(Listening::new),
        };
        let realtime = config.realtime;
        let (report, reports) = sync_channel(1);
        let handle = Builder::new().name(format!("media-{index}")).spawn(move || {
            // Room for one, and there is only one.
            let _ = report.try_send(if realtime {
                thread::ask_for_realtime()
            } else {
                Ok(())
            });
            MediaThread::new(inside).run();
        })?;
        if let Ok(Err(reason)) = reports.recv() {
            self.realtime = Err(reason);
        }
        self.shards.push(Shard {
            commands,
            waker,
            table,
            ports,
            load: AtomicUsize::new(0),
            thread: Mutex::new(Some(handle)),
        });
        Ok(())
    }

    /// Whether the media threads have the real-time scheduling that was asked for, or why not.
    ///
    /// # Errors
    /// The system's reason.
    pub fn realtime(&self) -> Result<(), &str> {
        self.realtime.as_ref().copied().map_err(String::as_str)
    }

    /// Whether all media threads run.
    pub fn is_alive(&self) -> bool {
        self.open_for_commands().is_ok()
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
            return Err(EngineError::TooMany(self.max_streams));
        }
        let mut shards: Vec<&Shard> = match beside {
            Some(id) => vec![self.shard(id)],
            None => self.shards.iter().collect(),
        };
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
        lock(&self.shard(id).table).connect(now_us(), id, remote)?;
        let connection = Box::new(Connection {
            format,
            coding,
            terms,
        });
        self.send(id, Command::Connect(id, connection))
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
        let _ = shard.waker.wake();
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
            let _ = shard.waker.wake();
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
        let ended = |shard: &Shard| lock(&shard.thread).as_ref().is_none_or(JoinHandle::is_finished);
        if self.shards.iter().any(ended) {
            return Err(EngineError::Closed);
        }
        Ok(())
    }

    fn send(&self, id: StreamId, command: Command) -> Result<(), EngineError> {
        let shard = self.shard(id);
        shard.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => {
                add(&self.counters.refused_commands, 1);
                EngineError::Busy
            }
            TrySendError::Disconnected(_) => EngineError::Closed,
        })?;
        // The thread looks at its queue at every sub-tick anyway; a failed wake-up costs 5 ms.
        let _ = shard.waker.wake();
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
