//! The media thread: sockets, the tick, and two bounded queues to the rest of the program.
//!
//! The thread never waits for anybody: commands come through a bounded queue, events leave through another whose reader
//! is woken by an eventfd once per batch. Legs tick every 20 ms on an absolute clock, spread over four sub-ticks of 5 ms.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Interest, Poll, Token, Waker};

use silero::Model;

use crate::clock::{Clock, now_us};
use crate::events::{EventQueue, LegEvent, lock};
use crate::media_thread::{MediaThread, Parts, WAKE};
use crate::playout::{Chunk, PlayoutBudget, PlayoutError};
use crate::ports::{PortError, PortTable, StreamId};
use crate::recorder::Recorder;
use crate::speech::Listening;
use crate::stream::{Format, StreamParams};
use rtp::packet::RtpError;

const COMMAND_CAPACITY: usize = 4096;
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Upper bounds of the tick lateness histogram, in microseconds; the last bucket is open.
pub const LATENESS_BOUNDS_US: [u64; 6] = [250, 1_000, 2_000, 5_000, 10_000, 50_000];

/// Why the engine could not do something.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The sockets could not be opened.
    #[error("cannot open UDP port {port} on {host}: {source}")]
    Socket {
        /// The address.
        host: IpAddr,
        /// The port; 0: any.
        port: u16,
        /// The system's reason.
        source: io::Error,
    },
    /// A resource of the operating system is missing.
    #[error("cannot start the media thread: {0}")]
    Thread(#[from] io::Error),
    /// The engine was closed.
    #[error("the media engine is closed")]
    Closed,
    /// The media thread does not keep up with its commands.
    #[error("the media thread's command queue is full ({COMMAND_CAPACITY})")]
    Busy,
    /// No such stream.
    #[error("there is no stream {0}")]
    UnknownStream(StreamId),
    /// The sockets are of the other family.
    #[error("the media ports on {host} cannot reach {remote}")]
    Unreachable {
        /// The address of the sockets.
        host: IpAddr,
        /// The peer's.
        remote: SocketAddr,
    },
    /// No port for the stream.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The playout holds its limit, or cannot play that.
    #[error(transparent)]
    Playout(#[from] PlayoutError),
}

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Address to bind.
    pub host: IpAddr,
    /// First of consecutive ports; 0: any free ones.
    pub first_port: u16,
    /// Number of sockets.
    pub port_count: usize,
    /// Limit of streams.
    pub max_streams: usize,
    /// Limit of unread events.
    pub event_capacity: usize,
    /// What speech is detected with; without it nobody listens.
    pub model: Option<Arc<Model>>,
}

pub(crate) enum Command {
    Open(StreamId, usize, Box<StreamParams>),
    Connect(StreamId, Format),
    Close(StreamId),
    Play(StreamId, Chunk),
    Flush(StreamId),
    Pause(StreamId),
    Resume(StreamId),
    Record(StreamId, Box<Recorder>),
    StreamStats(StreamId, SyncSender<Vec<(&'static str, u64)>>),
    Stop,
}

/// Counters of the engine, shared with readers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) unknown_source: AtomicU64,
    pub(crate) learnt_source: AtomicU64,
    pub(crate) send_failed: AtomicU64,
    pub(crate) receive_failed: AtomicU64,
    pub(crate) rtcp: AtomicU64,
    pub(crate) malformed: [AtomicU64; RtpError::COUNT],
    pub(crate) audio_events_dropped: AtomicU64,
    pub(crate) other_events_dropped: AtomicU64,
    pub(crate) refused_chunks: AtomicU64,
    pub(crate) refused_commands: AtomicU64,
    pub(crate) clock_resyncs: AtomicU64,
    pub(crate) ticks: AtomicU64,
    pub(crate) lateness_max_us: AtomicU64,
    pub(crate) lateness: [AtomicU64; LATENESS_BOUNDS_US.len() + 1],
}

pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// What is known of a stream outside the thread.
type Budgets = HashMap<StreamId, Arc<PlayoutBudget>>;

/// The handle of the media engine.
#[derive(Debug)]
pub struct Engine {
    commands: SyncSender<Command>,
    waker: Arc<Waker>,
    events: Arc<EventQueue>,
    counters: Arc<Counters>,
    table: Arc<Mutex<PortTable>>,
    budgets: Mutex<Budgets>,
    host: IpAddr,
    /// Whether there is a model.
    hears: bool,
    ports: Vec<u16>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Open the sockets and start the thread.
    ///
    /// # Errors
    /// When a port is in use or the system refuses a descriptor or a thread.
    pub fn start(config: &EngineConfig) -> Result<Self, EngineError> {
        let poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(config.port_count);
        let mut ports = Vec::with_capacity(config.port_count);
        for index in 0..config.port_count {
            let port = if config.first_port == 0 {
                0
            } else {
                config.first_port.saturating_add(index as u16)
            };
            let failed = |source| EngineError::Socket {
                host: config.host,
                port,
                source,
            };
            let mut socket = UdpSocket::bind(SocketAddr::new(config.host, port)).map_err(failed)?;
            // A burst of all calls must fit while the thread is at something else; the kernel may give less.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1 << 20);
            ports.push(socket.local_addr().map_err(failed)?.port());
            poll.registry()
                .register(&mut socket, Token(index), Interest::READABLE)?;
            sockets.push(socket);
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let clock = Clock::start(poll.registry(), now_us())?;
        let (commands, inbox) = sync_channel(COMMAND_CAPACITY);
        let events = Arc::new(EventQueue::new(config.event_capacity)?);
        let counters = Arc::new(Counters::default());
        let table = Arc::new(Mutex::new(PortTable::new(config.port_count, config.max_streams)));
        let inside = Parts {
            poll,
            clock,
            sockets,
            inbox,
            events: Arc::clone(&events),
            counters: Arc::clone(&counters),
            table: Arc::clone(&table),
            listening: config.model.clone().map(Listening::new),
        };
        let handle = Builder::new()
            .name("media".to_owned())
            .spawn(move || MediaThread::new(inside).run())?;
        Ok(Self {
            commands,
            waker,
            events,
            counters,
            table,
            budgets: Mutex::default(),
            host: config.host,
            hears: config.model.is_some(),
            ports,
            thread: Mutex::new(Some(handle)),
        })
    }

    /// The local ports.
    pub fn ports(&self) -> &[u16] {
        &self.ports
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
        let (id, port) = lock(&self.table).open(remote, origin)?;
        lock(&self.budgets).insert(id, PlayoutBudget::new(max_playout_ms));
        if let Err(error) = self.send(Command::Open(id, port, Box::new(params))) {
            self.forget(id);
            return Err(error);
        }
        Ok((id, self.ports[port]))
    }

    /// Begin media, or change them.
    ///
    /// # Errors
    /// When the stream is unknown or its peer's address belongs to another stream on the same port.
    pub fn connect(&self, id: StreamId, remote: SocketAddr, format: Format) -> Result<(), EngineError> {
        self.budget(id)?;
        let remote = self.reachable(remote)?;
        lock(&self.table).connect(now_us(), id, remote)?;
        self.send(Command::Connect(id, format))
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
        self.send(Command::Play(id, chunk))
    }

    /// Stop and drop what is queued.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn flush(&self, id: StreamId) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(Command::Flush(id))
    }

    /// Hold the playout.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn pause(&self, id: StreamId) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(Command::Pause(id))
    }

    /// Go on.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn resume(&self, id: StreamId) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(Command::Resume(id))
    }

    /// Record the stream.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn record(&self, id: StreamId, recorder: Recorder) -> Result<(), EngineError> {
        self.budget(id)?;
        self.send(Command::Record(id, Box::new(recorder)))
    }

    /// Free a stream.
    ///
    /// # Errors
    /// When the stream is unknown or the engine is closed.
    pub fn close_stream(&self, id: StreamId) -> Result<(), EngineError> {
        self.budget(id)?;
        self.forget(id);
        // Refused, the leg would stay for ever. A full queue is drained by the thread, so this waits no longer than a tick.
        self.commands
            .send(Command::Close(id))
            .map_err(|_| EngineError::Closed)?;
        let _ = self.waker.wake();
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
        self.send(Command::StreamStats(id, answer))?;
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
        let c = &self.counters;
        let mut stats: Vec<(String, u64)> = [
            ("received", &c.received),
            ("sent", &c.sent),
            ("dropped_unknown_source", &c.unknown_source),
            ("dropped_rtcp", &c.rtcp),
            ("dropped_truncated", &c.malformed[RtpError::Truncated as usize]),
            ("dropped_version", &c.malformed[RtpError::Version as usize]),
            ("dropped_csrc", &c.malformed[RtpError::Csrc as usize]),
            ("dropped_extension", &c.malformed[RtpError::Extension as usize]),
            ("dropped_padding", &c.malformed[RtpError::Padding as usize]),
            ("learnt_source", &c.learnt_source),
            ("send_failed", &c.send_failed),
            ("receive_failed", &c.receive_failed),
            ("dropped_audio_events", &c.audio_events_dropped),
            ("dropped_other_events", &c.other_events_dropped),
            ("refused_chunks", &c.refused_chunks),
            ("refused_commands", &c.refused_commands),
            ("clock_resyncs", &c.clock_resyncs),
            ("ticks", &c.ticks),
            ("tick_lateness_max_us", &c.lateness_max_us),
        ]
        .into_iter()
        .map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)))
        .collect();
        for (index, bucket) in c.lateness.iter().enumerate() {
            let name = LATENESS_BOUNDS_US.get(index).map_or_else(
                || "tick_lateness_more".to_owned(),
                |bound| format!("tick_lateness_le_{bound}_us"),
            );
            stats.push((name, bucket.load(Ordering::Relaxed)));
        }
        stats.push(("streams".to_owned(), lock(&self.budgets).len() as u64));
        stats
    }

    /// Stop the thread and wait for it. Safe to call twice.
    pub fn close(&self) {
        let Some(thread) = lock(&self.thread).take() else {
            return;
        };
        // A full queue is drained by the thread, so this waits no longer than a tick.
        let _ = self.commands.send(Command::Stop);
        let _ = self.waker.wake();
        let _ = thread.join();
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
        lock(&self.budgets).remove(&id);
        lock(&self.table).close(id);
    }

    fn open_for_commands(&self) -> Result<(), EngineError> {
        let ended = lock(&self.thread).as_ref().is_none_or(JoinHandle::is_finished);
        if ended {
            return Err(EngineError::Closed);
        }
        Ok(())
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => {
                add(&self.counters.refused_commands, 1);
                EngineError::Busy
            }
            TrySendError::Disconnected(_) => EngineError::Closed,
        })?;
        // The thread looks at its queue at every sub-tick anyway; a failed wake-up costs 5 ms.
        let _ = self.waker.wake();
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
