//! Which leg a datagram belongs to: few shared sockets, told apart by the peer's address.
//!
//! Rules:
//!
//! * on one local port an address belongs to one leg;
//! * a leg in session that has not been heard yet may learn its peer's address (symmetric RTP behind NAT): a stranger is
//!   offered to the one such leg with the same host, else to the only one that waits at all;
//! * only valid packets of the session make the offer good ([`PortTable::lock`]): one from the address that signalling
//!   named, several in a row from another; from then on the leg takes no third address until signalling gives it a new one,
//!   and the one that signalling named may always have it back;
//! * RTCP that does not share its port comes from and goes to the port after that of the media (RFC 3550 section 11);
//! * everything else is a stranger's and dropped.
//!
//! What a datagram costs does not grow with the legs that wait: they are found by the hosts that they may hear from.

mod waiting;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use self::waiting::Waiting;

/// After a change of address the old source sends on for a while; it must not be learnt as the new one.
const OLD_SOURCE_US: u64 = 2_000_000;

/// Packets in a row from an address that signalling did not name until it is learnt: one alone may be anybody's.
const LEARN_AFTER: u8 = 3;

/// Number of a leg; never used twice.
pub type StreamId = u64;

/// A leg cannot have its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The peer's address is in use on every port.
    #[error("the remote address {0} already has a stream on each of the {1} local ports (port_count)")]
    AddressTaken(SocketAddr, usize),
    /// The peer's address is in use on this leg's port.
    #[error("another stream on the same local port has the remote address {0}")]
    InUse(SocketAddr),
    /// No such leg.
    #[error("there is no stream {0}")]
    UnknownStream(StreamId),
}

/// Where a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To the leg that is locked to its source.
    Locked(StreamId),
    /// To this leg, if it is a valid packet of its session; then [`PortTable::lock`].
    Offered(StreamId),
    /// To nobody.
    Stranger,
}

#[derive(Debug)]
struct Entry {
    port: usize,
    /// Where packets go: signalled, or learnt.
    remote: Option<SocketAddr>,
    signalled: Option<SocketAddr>,
    in_session: bool,
    locked: bool,
    /// The host that signalling came from: behind NAT, media come from there and not from where the SDP says.
    origin: Option<IpAddr>,
    /// An address that may come to be learnt, and how many packets in a row came from it.
    learning: Option<(SocketAddr, u8)>,
    /// The source before the address changed, and until when it is not to be learnt.
    old_source: Option<(SocketAddr, u64)>,
}

impl Entry {
    /// Where a stranger's packet has to come from for this leg to learn its address. A leg has its address by the time it
    /// is in session, so there is none that waits for a packet from anywhere.
    fn hosts(&self) -> impl Iterator<Item = IpAddr> {
        let announced = self.remote.map(|remote| remote.ip());
        let signalling = self.origin.filter(|&origin| Some(origin) != announced);
        announced.into_iter().chain(signalling)
    }

    /// Whether this leg may learn its address from a packet.
    fn may_learn(&self) -> bool {
        self.in_session && !self.locked
    }

    fn is_old_source(&self, now_us: u64, source: SocketAddr) -> bool {
        self.old_source
            .is_some_and(|(old, until_us)| old == source && now_us < until_us)
    }
}

#[derive(Debug, Default)]
struct Port {
    by_address: HashMap<SocketAddr, StreamId>,
    /// Legs that may learn their address.
    waiting: Waiting,
    /// Legs that are not locked.
    unlocked: usize,
    legs: usize,
}

/// The table of legs by local port and remote address.
#[derive(Debug)]
pub struct PortTable {
    ports: Vec<Port>,
    entries: HashMap<StreamId, Entry>,
    next_id: StreamId,
    id_step: u64,
}

impl PortTable {
    /// An empty table for `ports` sockets, the `index`th of `tables` that share the numbers of legs among them.
    pub fn new(ports: usize, index: usize, tables: usize) -> Self {
        Self {
            ports: (0..ports).map(|_| Port::default()).collect(),
            entries: HashMap::new(),
            // From 1 on: 0 is nobody's.
            next_id: (index + tables) as u64,
            id_step: tables as u64,
        }
    }

    /// Reserve a leg on the port with the fewest waiting legs that can tell it from its own; returns its number and the
    /// port's index.
    ///
    /// # Errors
    /// When no port can.
    pub fn open(
        &mut self,
        remote: Option<SocketAddr>,
        origin: Option<IpAddr>,
    ) -> Result<(StreamId, usize), PortError> {
        let count = self.ports.len();
        let free = |port: &Port| remote.is_none_or(|remote| !port.by_address.contains_key(&remote));
        let fitting = self.ports.iter().enumerate().filter(|(_, port)| free(port));
        let Some((index, _)) = fitting.min_by_key(|(_, port)| (port.unlocked, port.legs)) else {
            let taken = remote.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
            return Err(PortError::AddressTaken(taken, count));
        };
        let id = self.next_id;
        self.next_id += self.id_step;
        let port = &mut self.ports[index];
        port.unlocked += 1;
        port.legs += 1;
        if let Some(remote) = remote {
            port.by_address.insert(remote, id);
        }
        let entry = Entry {
            port: index,
            remote,
            signalled: remote,
            in_session: false,
            locked: false,
            origin,
            learning: None,
            old_source: None,
        };
        self.entries.insert(id, entry);
        Ok((id, index))
    }

    /// Reserve a leg on the port with the fewest, whose datagrams are told apart by other means than an address.
    pub fn open_unaddressed(&mut self) -> (StreamId, usize) {
        let index = (0..self.ports.len())
            .min_by_key(|&port| self.ports[port].legs)
            .unwrap_or(0);
        let id = self.next_id;
        self.next_id += self.id_step;
        self.ports[index].legs += 1;
        let entry = Entry {
            port: index,
            remote: None,
            signalled: None,
            in_session: false,
            locked: true,
            origin: None,
            learning: None,
            old_source: None,
        };
        self.entries.insert(id, entry);
        (id, index)
    }

    /// Whether [`PortTable::connect`] would be granted.
    ///
    /// # Errors
    /// As it has.
    pub fn may_connect(&self, id: StreamId, remote: SocketAddr) -> Result<(), PortError> {
        let entry = self.entries.get(&id).ok_or(PortError::UnknownStream(id))?;
        let holder = self.ports[entry.port].by_address.get(&remote);
        if holder.is_some_and(|&other| other != id) {
            return Err(PortError::InUse(remote));
        }
        Ok(())
    }

    /// Media begin, to the address that signalling names; learning starts over when that is a new one.
    ///
    /// # Errors
    /// When another leg has that address on the same port.
    pub fn connect(&mut self, now_us: u64, id: StreamId, remote: SocketAddr) -> Result<(), PortError> {
        self.may_connect(id, remote)?;
        let entry = self.entries.get_mut(&id).ok_or(PortError::UnknownStream(id))?;
        let port = &mut self.ports[entry.port];
        if entry.signalled == Some(remote) {
            if !std::mem::replace(&mut entry.in_session, true) && !entry.locked {
                port.waiting.insert(id, entry.hosts());
            }
            return Ok(());
        }
        if entry.may_learn() {
            port.waiting.remove(id, entry.hosts());
        }
        if let Some(named) = entry.signalled {
            port.by_address.remove(&named);
        }
        if let Some(before) = entry.remote {
            port.by_address.remove(&before);
            if entry.locked && before != remote {
                entry.old_source = Some((before, now_us + OLD_SOURCE_US));
            }
        }
        port.by_address.insert(remote, id);
        port.unlocked += usize::from(entry.locked);
        (entry.remote, entry.signalled) = (Some(remote), Some(remote));
        (entry.in_session, entry.locked, entry.learning) = (true, false, None);
        port.waiting.insert(id, entry.hosts());
        Ok(())
    }

    /// Free a leg.
    pub fn close(&mut self, id: StreamId) {
        if let Some(entry) = self.entries.remove(&id) {
            let port = &mut self.ports[entry.port];
            for address in [entry.remote, entry.signalled].into_iter().flatten() {
                port.by_address.remove(&address);
            }
            if entry.may_learn() {
                port.waiting.remove(id, entry.hosts());
            }
            port.unlocked -= usize::from(!entry.locked);
            port.legs -= 1;
        }
    }

    /// Where a leg's packets go.
    pub fn remote(&self, id: StreamId) -> Option<SocketAddr> {
        self.entries.get(&id)?.remote
    }

    /// Where a datagram from `source` on `port` goes.
    pub fn route(&self, now_us: u64, port: usize, source: SocketAddr) -> Route {
        let port = &self.ports[port];
        if let Some(&id) = port.by_address.get(&source) {
            let held = |entry: &Entry| entry.locked && entry.remote == Some(source);
            let locked = self.entries.get(&id).is_some_and(held);
            return if locked {
                Route::Locked(id)
            } else {
                Route::Offered(id)
            };
        }
        // Only from where the session was said to be, or where the call was signalled from: a stranger elsewhere learns
        // nothing by sending first.
        let expecting = port.waiting.expecting(source.ip()).iter().copied();
        let learning = expecting.filter(|id| {
            let entry = self.entries.get(id);
            entry.is_some_and(|entry| !entry.is_old_source(now_us, source))
        });
        let chosen = only(learning);
        chosen.map_or(Route::Stranger, Route::Offered)
    }

    /// The leg in session whose RTCP comes from `source`: to its own port from the address of its media, or to the port
    /// after that, `separate`, from the one after the peer's.
    pub fn route_rtcp(&self, port: usize, source: SocketAddr, separate: bool) -> Option<StreamId> {
        let mut media = source;
        if separate {
            media.set_port(source.port().checked_sub(1)?);
        }
        let id = *self.ports[port].by_address.get(&media)?;
        self.entries.get(&id)?.in_session.then_some(id)
    }

    /// The leg has received a valid packet from `source`. Returns whether it is locked to that address now, which is
    /// where its packets go.
    pub fn lock(&mut self, id: StreamId, source: SocketAddr) -> bool {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.in_session) else {
            return false;
        };
        if entry.signalled != Some(source) {
            let so_far = entry.learning.filter(|(address, _)| *address == source);
            let packets = so_far.map_or(0, |(_, packets)| packets) + 1;
            entry.learning = Some((source, packets));
            if packets < LEARN_AFTER {
                return false;
            }
        }
        let port = &mut self.ports[entry.port];
        if entry.may_learn() {
            port.waiting.remove(id, entry.hosts());
            port.unlocked -= 1;
        }
        let before = entry
            .remote
            .replace(source)
            .filter(|&before| Some(before) != entry.signalled);
        if let Some(before) = before {
            port.by_address.remove(&before);
        }
        port.by_address.insert(source, id);
        (entry.locked, entry.learning) = (true, None);
        true
    }

    /// Whether a leg is locked to this address.
    pub fn is_locked(&self, port: usize, source: SocketAddr) -> bool {
        matches!(self.route(0, port, source), Route::Locked(_))
    }
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;
