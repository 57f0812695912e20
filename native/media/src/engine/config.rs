//! What the engine is set up with, and why it may refuse.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use silero::Model;

use super::COMMAND_CAPACITY;
use super::browsers::BrowserError;
use super::ports::{PortError, StreamId};
use crate::playout::PlayoutError;
use crate::stream::CodingError;

/// Most media threads: one per core of a large machine.
pub const THREADS_MAX: usize = 64;

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Address to bind.
    pub host: IpAddr,
    /// First of the ports; 0: any free ones. Each stream port is even, and the odd one after it is its RTCP port.
    pub first_port: u16,
    /// Number of ports for streams; as many again for RTCP.
    pub port_count: usize,
    /// Media threads, 1 to [`THREADS_MAX`] and at most one per port; the ports are dealt out among them.
    pub threads: usize,
    /// Ask the system for real-time scheduling of the media threads.
    pub realtime: bool,
    /// Addresses by which browsers reach our ports; empty: the bound one.
    pub public_addresses: Vec<IpAddr>,
    /// Limit of streams.
    pub max_streams: usize,
    /// Limit of unread events.
    pub event_capacity: usize,
    /// What speech is detected with; without it nobody listens.
    pub model: Option<Arc<Model>>,
}

impl EngineConfig {
    /// The addresses by which browsers reach our ports.
    pub(super) fn public(&self) -> Vec<IpAddr> {
        if self.public_addresses.is_empty() {
            vec![self.host]
        } else {
            self.public_addresses.clone()
        }
    }
}

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
    /// The range does not fit.
    #[error("{count} ports of streams and as many for RTCP from {first} on end beyond 65535")]
    PortRange {
        /// Where the range begins.
        first: u16,
        /// Ports for streams.
        count: usize,
    },
    /// No such number of threads.
    #[error("{0} media threads: 1 to {1} are possible, and no more than port_count")]
    Threads(usize, usize),
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
    /// The limit of streams is reached.
    #[error("{0} streams are open and no more are allowed (max_streams)")]
    TooMany(usize),
    /// No port for the stream.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The playout holds its limit, or cannot play that.
    #[error(transparent)]
    Playout(#[from] PlayoutError),
    /// The browser cannot be answered.
    #[error(transparent)]
    Browser(#[from] BrowserError),
    /// Streams of one room run on one thread.
    #[error("stream {0} runs on another media thread than the room: open it beside one of the room's")]
    OtherThread(StreamId),
    /// The codec could not be set up.
    #[error(transparent)]
    Coding(#[from] CodingError),
}
