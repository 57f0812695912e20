//! Which leg a datagram belongs to: few shared sockets, told apart by the peer's address.
//!
//! Rules:
//!
//! * on one local port a peer's address belongs to one leg;
//! * a leg whose peer has not been heard yet learns its address from the first packet that can only be meant for it (the
//!   same host first, then the only leg that still waits), once; afterwards it is locked;
//! * everything else is a stranger's and dropped.

use std::collections::HashMap;
use std::net::SocketAddr;

/// Number of a leg.
pub type StreamId = u64;

/// No local port can take another leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The limit of legs is reached.
    #[error("{0} streams are open and no more are allowed")]
    TooMany(usize),
    /// The peer's address is in use on every port.
    #[error("the remote address {0} already has a stream on each of the {1} local ports")]
    AddressTaken(SocketAddr, usize),
    /// Each port has a leg whose peer is not known yet.
    #[error("each of the {0} local ports already has a stream that waits for an unknown remote address")]
    Ambiguous(usize),
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    port: usize,
    remote: Option<SocketAddr>,
    locked: bool,
}

/// The table of legs by local port and remote address.
#[derive(Debug)]
pub struct PortTable {
    ports: usize,
    limit: usize,
    entries: HashMap<StreamId, Entry>,
    by_address: HashMap<(usize, SocketAddr), StreamId>,
    per_port: Vec<usize>,
    next_id: StreamId,
}

impl PortTable {
    /// An empty table for `ports` sockets and at most `limit` legs.
    pub fn new(ports: usize, limit: usize) -> Self {
        Self {
            ports,
            limit,
            entries: HashMap::new(),
            by_address: HashMap::new(),
            per_port: vec![0; ports],
            next_id: 1,
        }
    }

    /// Reserve a leg on the emptiest port that can take it; returns its number and the port's index.
    ///
    /// # Errors
    /// When no port can.
    pub fn open(&mut self, remote: Option<SocketAddr>) -> Result<(StreamId, usize), PortError> {
        if self.entries.len() >= self.limit {
            return Err(PortError::TooMany(self.limit));
        }
        let fits = |port: usize| match remote {
            Some(address) => !self.by_address.contains_key(&(port, address)),
            None => !self
                .entries
                .values()
                .any(|entry| entry.port == port && entry.remote.is_none()),
        };
        let port = (0..self.ports)
            .filter(|&port| fits(port))
            .min_by_key(|&port| self.per_port[port])
            .ok_or(match remote {
                Some(address) => PortError::AddressTaken(address, self.ports),
                None => PortError::Ambiguous(self.ports),
            })?;
        let id = self.next_id;
        self.next_id += 1;
        self.entries.insert(
            id,
            Entry {
                port,
                remote,
                locked: false,
            },
        );
        if let Some(address) = remote {
            self.by_address.insert((port, address), id);
        }
        self.per_port[port] += 1;
        Ok((id, port))
    }

    /// The peer's address as signalling says it; learning starts over when it changes.
    ///
    /// # Errors
    /// When another leg has that address on the same port.
    pub fn set_remote(&mut self, id: StreamId, remote: SocketAddr) -> Result<(), PortError> {
        let Some(entry) = self.entries.get_mut(&id) else {
            return Ok(());
        };
        if entry.remote == Some(remote) {
            return Ok(());
        }
        if self.by_address.contains_key(&(entry.port, remote)) {
            return Err(PortError::AddressTaken(remote, 1));
        }
        if let Some(old) = entry.remote.replace(remote) {
            self.by_address.remove(&(entry.port, old));
        }
        entry.locked = false;
        self.by_address.insert((entry.port, remote), id);
        Ok(())
    }

    /// Free a leg.
    pub fn close(&mut self, id: StreamId) {
        if let Some(entry) = self.entries.remove(&id) {
            self.per_port[entry.port] -= 1;
            if let Some(address) = entry.remote {
                self.by_address.remove(&(entry.port, address));
            }
        }
    }

    /// The leg that a datagram from `source` on `port` is for, and whether it was learnt just now.
    pub fn find(&mut self, port: usize, source: SocketAddr) -> Option<(StreamId, bool)> {
        if let Some(&id) = self.by_address.get(&(port, source)) {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.locked = true;
            }
            return Some((id, false));
        }
        let waiting = || {
            self.entries
                .iter()
                .filter(|(_, entry)| entry.port == port && !entry.locked)
        };
        let same_host =
            || waiting().filter(|(_, entry)| entry.remote.is_some_and(|known| known.ip() == source.ip()));
        let id = only(same_host()).or_else(|| only(waiting()))?;
        let entry = self.entries.get_mut(&id)?;
        if let Some(old) = entry.remote.replace(source) {
            self.by_address.remove(&(port, old));
        }
        entry.locked = true;
        self.by_address.insert((port, source), id);
        Some((id, true))
    }
}

/// The only element, if there is exactly one.
fn only<'a>(mut entries: impl Iterator<Item = (&'a StreamId, &'a Entry)>) -> Option<StreamId> {
    let (&id, _) = entries.next()?;
    entries.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    #[test]
    fn a_peer_behind_nat_is_learnt_once_and_then_locked() {
        let mut table = PortTable::new(1, 10);
        let (id, port) = table.open(Some(address(1, 4000))).unwrap();
        assert_eq!(table.find(port, address(1, 5000)), Some((id, true)));
        assert_eq!(table.find(port, address(1, 5000)), Some((id, false)));
        assert_eq!(table.find(port, address(1, 4000)), None);
        assert_eq!(table.find(port, address(9, 4000)), None);
    }

    #[test]
    fn two_waiting_legs_are_told_apart_by_host_or_not_at_all() {
        let mut table = PortTable::new(1, 10);
        let (first, port) = table.open(Some(address(1, 4000))).unwrap();
        let (second, _) = table.open(Some(address(2, 4000))).unwrap();
        assert_eq!(table.find(port, address(3, 1)), None);
        assert_eq!(table.find(port, address(2, 77)), Some((second, true)));
        assert_eq!(table.find(port, address(3, 1)), Some((first, true)));
    }

    #[test]
    fn one_address_gets_another_port_for_its_second_leg_and_none_for_its_third() {
        let mut table = PortTable::new(2, 10);
        let (_, first) = table.open(Some(address(1, 4000))).unwrap();
        let (id, second) = table.open(Some(address(1, 4000))).unwrap();
        assert_ne!(first, second);
        assert_eq!(
            table.open(Some(address(1, 4000))),
            Err(PortError::AddressTaken(address(1, 4000), 2))
        );
        table.close(id);
        assert!(table.open(Some(address(1, 4000))).is_ok());
    }

    #[test]
    fn the_limits_are_named() {
        let mut table = PortTable::new(1, 2);
        table.open(None).unwrap();
        assert_eq!(table.open(None), Err(PortError::Ambiguous(1)));
        table.open(Some(address(1, 1))).unwrap();
        assert_eq!(table.open(Some(address(2, 1))), Err(PortError::TooMany(2)));
    }
}
