//! The sockets of one media thread: bound in pairs, read and written in batches.
//!
//! A port of streams is even and the odd one after it takes its RTCP (RFC 3550 section 11), for peers that do not put both on
//! one (RFC 5761). What is read lies in memory that is reused; what is sent is gathered and goes out in one system call for
//! up to [`BATCH`] datagrams. Nothing here is allocated per datagram.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

use super::config::EngineError;

/// Datagrams per system call.
pub(crate) const BATCH: usize = 32;
/// Largest datagram that is read whole; longer ones are cut, and fail to parse or play cut.
pub(crate) const DATAGRAM_MAX: usize = 2048;
/// A burst of all calls must fit while the thread is at something else; the kernel may give less.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Attempts to find a free pair where any port will do.
const PAIR_ATTEMPTS: usize = 64;

/// A port of streams and its RTCP port.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) rtp: UdpSocket,
    pub(crate) rtcp: UdpSocket,
    pub(crate) port: u16,
}

/// Bind `count` pairs from `first` on (an odd number is rounded up), or any where it is 0.
pub(crate) fn bind_pairs(host: IpAddr, first: u16, count: usize) -> Result<Vec<Pair>, EngineError> {
    if first == 0 {
        return (0..count).map(|_| any_pair(host)).collect();
    }
    let even = usize::from(first).next_multiple_of(2);
    if even + 2 * count > 1 << 16 {
        return Err(EngineError::PortRange { first, count });
    }
    (0..count)
        .map(|index| pair(host, (even + 2 * index) as u16))
        .collect()
}

fn any_pair(host: IpAddr) -> Result<Pair, EngineError> {
    let mut refused = None;
    for _ in 0..PAIR_ATTEMPTS {
        let port = bind(host, 0)?.1;
        // The probe is closed again: its number may be odd, or its neighbour taken.
        match pair(host, port & !1) {
            Ok(pair) => return Ok(pair),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or(EngineError::PortRange { first: 0, count: 1 }))
}

fn pair(host: IpAddr, port: u16) -> Result<Pair, EngineError> {
    Ok(Pair {
        rtp: bind(host, port)?.0,
        rtcp: bind(host, port + 1)?.0,
        port,
    })
}

fn bind(host: IpAddr, port: u16) -> Result<(UdpSocket, u16), EngineError> {
    let failed = |source| EngineError::Socket { host, port, source };
    let socket = UdpSocket::bind(SocketAddr::new(host, port)).map_err(failed)?;
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
    let bound = socket.local_addr().map_err(failed)?.port();
    Ok((socket, bound))
}

/// Datagrams that were read together.
pub(crate) struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Box<[[u8; DATAGRAM_MAX]]>,
    /// Length and source of each.
    filled: Vec<(usize, SocketAddr)>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![[0; DATAGRAM_MAX]; BATCH].into_boxed_slice(),
            filled: Vec::with_capacity(BATCH),
        }
    }

    /// Read what waits, at most a batch. Returns whether the batch was full: there may be more.
    ///
    /// # Errors
    /// An ICMP error of an earlier datagram (a peer that has gone), or one of the socket. `WouldBlock` is no error.
    pub(crate) fn read(&mut self, socket: &UdpSocket) -> io::Result<bool> {
        self.filled.clear();
        let mut buffers = self.buffers.iter_mut();
        // A batch of them on the stack: the slices must not outlive the call.
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH] = std::array::from_fn(|_| {
            [IoSliceMut::new(
                buffers.next().map_or(&mut [][..], |buffer| &mut buffer[..]),
            )]
        });
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(socket.as_raw_fd(), &mut self.headers, &mut slices, flags, None) {
            Ok(messages) => {
                let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
                self.filled.extend(messages.map(|message| {
                    let source = message.address.as_ref().and_then(to_std).unwrap_or(nowhere);
                    (message.bytes, source)
                }));
                Ok(self.filled.len() == BATCH)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Datagrams read.
    pub(crate) fn len(&self) -> usize {
        self.filled.len()
    }

    /// One of them, with its source.
    pub(crate) fn datagram(&mut self, index: usize) -> (&mut [u8], SocketAddr) {
        let (length, source) = self.filled[index];
        (&mut self.buffers[index][..length], source)
    }
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(&v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4(v4.into()));
    }
    address.as_sockaddr_in6().map(|&v6| SocketAddr::V6(v6.into()))
}

/// Datagrams that are to leave by one socket.
pub(crate) struct Outbox {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Box<[[u8; DATAGRAM_MAX]]>,
    lengths: [usize; BATCH],
    remotes: [Option<SockaddrStorage>; BATCH],
    count: usize,
}

/// How a batch fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![[0; DATAGRAM_MAX]; BATCH].into_boxed_slice(),
            lengths: [0; BATCH],
            remotes: [None; BATCH],
            count: 0,
        }
    }

    /// No room: [`Outbox::flush`] first.
    pub(crate) fn is_full(&self) -> bool {
        self.count == BATCH
    }

    /// Room for a datagram; it counts only once it is [`Outbox::commit`]ted.
    pub(crate) fn room(&mut self) -> &mut [u8; DATAGRAM_MAX] {
        &mut self.buffers[self.count]
    }

    /// The datagram in [`Outbox::room`] has this length and goes there.
    pub(crate) fn commit(&mut self, length: usize, remote: SocketAddr) {
        self.lengths[self.count] = length;
        self.remotes[self.count] = Some(SockaddrStorage::from(remote));
        self.count += 1;
    }

    /// Put a datagram in. Returns false where there is no room for it.
    pub(crate) fn add(&mut self, datagram: &[u8], remote: SocketAddr) -> bool {
        if self.is_full() {
            return false;
        }
        let Some(room) = self.room().get_mut(..datagram.len()) else {
            return false;
        };
        room.copy_from_slice(datagram);
        self.commit(datagram.len(), remote);
        true
    }

    /// Send all. A datagram that the system refuses is dropped: nothing late is of use, and nothing waits.
    pub(crate) fn flush(&mut self, socket: &UdpSocket) -> Sent {
        let mut outcome = Sent::default();
        let mut begin = 0;
        while begin < self.count {
            match self.send(socket, begin) {
                Err(Errno::EINTR) => {}
                Ok(sent) if sent > 0 => {
                    outcome.sent += sent as u64;
                    begin += sent;
                }
                Ok(_) | Err(_) => {
                    // The error is that of the first; the others may still go.
                    outcome.failed += 1;
                    begin += 1;
                }
            }
        }
        self.count = 0;
        outcome
    }

    fn send(&mut self, socket: &UdpSocket, begin: usize) -> Result<usize, Errno> {
        let count = self.count - begin;
        let buffers = &self.buffers[begin..];
        let lengths = &self.lengths[begin..];
        let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|index| {
            let octets = buffers
                .get(index)
                .map_or(&[][..], |buffer| &buffer[..lengths[index]]);
            [IoSlice::new(octets)]
        });
        let nothing: [ControlMessage<'_>; 0] = [];
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices[..count].iter(),
            &self.remotes[begin..self.count],
            nothing,
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(sent.count())
    }
}
