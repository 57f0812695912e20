//! Datagrams and when the kernel took them.

use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use nix::sys::time::TimeSpec;

/// Datagrams of a system call: more than come to one caller between two of its turns, but for the handshake.
const BATCH: usize = 8;
const DATAGRAM_MAX: usize = 2048;

pub(crate) struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: [[u8; DATAGRAM_MAX]; BATCH],
    /// Time, source and length of each.
    filled: Vec<(Duration, SocketAddr, usize)>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(TimeSpec))),
            buffers: [[0; DATAGRAM_MAX]; BATCH],
            filled: Vec::with_capacity(BATCH),
        }
    }

    /// Read what waits, at most a batch; returns whether there may be more.
    pub(crate) fn read(&mut self, socket: &UdpSocket) -> bool {
        self.filled.clear();
        let mut slices = self.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(socket.as_raw_fd(), &mut self.headers, &mut slices, flags, None) {
            Ok(messages) => {
                for message in messages {
                    let source = message
                        .address
                        .and_then(|address| Some(*address.as_sockaddr_in()?));
                    let arrival = message.cmsgs().ok().and_then(|mut said| {
                        said.find_map(|said| match said {
                            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                            _ => None,
                        })
                    });
                    if let (Some(source), Some(arrival)) = (source, arrival) {
                        let source = SocketAddr::V4(source.into());
                        self.filled.push((arrival, source, message.bytes));
                    }
                }
                self.filled.len() == BATCH
            }
            // Interrupted, or told of an earlier datagram: the other side may have closed its port.
            Err(Errno::EINTR | Errno::ECONNREFUSED) => true,
            Err(_) => false,
        }
    }

    /// What was read.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (Duration, SocketAddr, &[u8])> {
        let filled = self.filled.iter().zip(&self.buffers);
        filled.map(|(&(arrival, source, length), buffer)| (arrival, source, &buffer[..length]))
    }
}
