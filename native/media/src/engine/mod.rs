//! The media threads: sockets, the tick, and two bounded queues to the rest of the program.
//!
//! A stream lives on one thread. A thread never waits for anybody: commands come through a bounded queue, events leave through another whose reader
//! is woken by an eventfd once per batch. Legs tick every 20 ms on an absolute clock, spread over four sub-ticks of 5 ms.

mod clock;
mod config;
mod counters;
pub mod events;
pub mod ports;
mod sockets;
mod thread;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use mio::{Interest, Poll, Token, Waker};

pub use self::clock::now_us;
pub use self::config::{EngineConfig, EngineError, THREADS_MAX};
pub use self::counters::LATENESS_BOUNDS_US;
pub use self::events::LegEvent;
pub use self::ports::{PortError, StreamId};

use self::clock::Clock;
use self::counters::{Counters, add};
use self::events::{EventQueue, lock};
use self::ports::PortTable;
use self::sockets::{Pair, bind_pairs};
use self::thread::{MediaThread, Parts, WAKE};
use crate::playout::{Chunk, PlayoutBudget};
use crate::recorder::Recorder;
use crate::speech::Listening;
use crate::stream::{Coding, Format, StreamParams};

const COMMAND_CAPACITY: usize = 4096;
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) enum Command {
    Open(StreamId, usize, Box<StreamParams>),
    Connect(StreamId, Format, Box<Coding>),
    Close(StreamId),
    Play(StreamId, Chunk),
    Flush(StreamId),
    Pause(StreamId),
    Resume(StreamId),
    Record(StreamId, Box<Recorder>),
    StreamStats(StreamId, SyncSender<Vec<(&'static str, u64)>>),
    Stop,
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

    /// Reserve a stream; returns its number and its local port.
    ///
    /// # Errors
    /// When a limit is reached; the error names it.
    pub fn open(
        &self,
        remote: Option<SocketAddr>,
        origin: Option<IpAddr>,
        max_playout_ms: u64,
        mut params: StreamParams,
    ) -> Result<(StreamId, u16), EngineError> {
        if !self.hears {
            params.speech = None;
        }
        self.open_for_commands()?;
        let remote = remote.map(|remote| self.reachable(remote)).transpose()?;
        let (id, port) = self.place(remote, origin, max_playout_ms)?;
        if let Err(error) = self.send(id, Command::Open(id, port, Box::new(params))) {
            self.forget(id);
            return Err(error);
        }
        Ok((id, self.shard(id).ports[port]))
    }

    /// A number and a port for a stream, on the thread with the fewest that has a port for it.
    fn place(
        &self,
        remote: Option<SocketAddr>,
        origin: Option<IpAddr>,
        max_playout_ms: u64,
    ) -> Result<(StreamId, usize), EngineError> {
        // Held throughout, so that the limit is exact.
        let mut budgets = lock(&self.budgets);
        if budgets.len() >= self.max_streams {
            return Err(EngineError::TooMany(self.max_streams));
        }
        let mut shards: Vec<&Shard> = self.shards.iter().collect();
        shards.sort_by_key(|shard| shard.load.load(Ordering::Relaxed));
        let mut refused = None;
        for shard in shards {
            match lock(&shard.table).open(remote, origin) {
                Ok((id, port)) => {
                    shard.load.fetch_add(1, Ordering::Relaxed);
                    budgets.insert(id, PlayoutBudget::new(max_playout_ms));
                    return Ok((id, port));
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.map_or(EngineError::Closed, EngineError::from))
    }

    fn shard(&self, id: StreamId) -> &Shard {
        &self.shards[id as usize % self.shards.len()]
    }

    /// Begin media, or change them.
    ///
    /// # Errors
    /// When the stream is unknown or its peer's address belongs to another stream on the same port.
    pub fn connect(&self, id: StreamId, remote: SocketAddr, format: Format) -> Result<(), EngineError> {
        self.budget(id)?;
        let remote = self.reachable(remote)?;
        let coding = Box::new(Coding::new(format.codec)?);
        lock(&self.shard(id).table).connect(now_us(), id, remote)?;
        self.send(id, Command::Connect(id, format, coding))
    }

    /// Append a chunk to the playout.
    ///
    /// # Errors
    /// When the stream is unknown, its playout is full, or the rate cannot be played.
    pub fn play(&self, id: StreamId, mark: u64, rate_hz: u32, pcm: Vec<i16>) -> Result<(), EngineError> {
        let budget = self.budget(id)?;
        let chunk = budget
            .chunk(pcm, rate_hz, mark)
            .inspect_err(|_| add(&self.counters.refused_chunks, 1))?;
        self.send(id, Command::Play(id, chunk))
    }

    /// Stop and drop what is queued.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn flush(&self, id: StreamId) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(id, Command::Flush(id))
    }

    /// Hold the playout.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn pause(&self, id: StreamId) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(id, Command::Pause(id))
    }

    /// Go on.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn resume(&self, id: StreamId) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(id, Command::Resume(id))
    }

    /// Record the stream.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn record(&self, id: StreamId, recorder: Recorder) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(id, Command::Record(id, Box::new(recorder)))
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
        let (answer, answers) = sync_channel(1);
        self.send(id, Command::StreamStats(id, answer))?;
        let mut stats = answers
            .recv_timeout(ANSWER_TIMEOUT)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => EngineError::Busy,
                RecvTimeoutError::Disconnected => EngineError::UnknownStream(id),
            })?;
        stats.push(("queued_ms", budget.queued_ms()));
        stats.push(("refused_chunks", budget.refused()));
        Ok(stats)
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
