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

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

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

#[derive(Debug, Default)]
struct Port {
    by_address: HashMap<SocketAddr, StreamId>,
    /// Legs that are not locked.
    waiting: Vec<StreamId>,
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
        let Some((index, _)) = fitting.min_by_key(|(_, port)| (port.waiting.len(), port.legs)) else {
            let taken = remote.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
            return Err(PortError::AddressTaken(taken, count));
        };
        let id = self.next_id;
        self.next_id += self.id_step;
        let port = &mut self.ports[index];
        port.waiting.push(id);
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

    /// Media begin, to the address that signalling names; learning starts over when that is a new one.
    ///
    /// # Errors
    /// When another leg has that address on the same port.
    pub fn connect(&mut self, now_us: u64, id: StreamId, remote: SocketAddr) -> Result<(), PortError> {
        let entry = self.entries.get_mut(&id).ok_or(PortError::UnknownStream(id))?;
        if entry.signalled == Some(remote) {
            entry.in_session = true;
            return Ok(());
        }
        let port = &mut self.ports[entry.port];
        if port.by_address.get(&remote).is_some_and(|&other| other != id) {
            return Err(PortError::InUse(remote));
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
        if entry.locked {
            port.waiting.push(id);
        }
        (entry.remote, entry.signalled) = (Some(remote), Some(remote));
        (entry.in_session, entry.locked, entry.learning) = (true, false, None);
        Ok(())
    }

    /// Free a leg.
    pub fn close(&mut self, id: StreamId) {
        if let Some(entry) = self.entries.remove(&id) {
            let port = &mut self.ports[entry.port];
            for address in [entry.remote, entry.signalled].into_iter().flatten() {
                port.by_address.remove(&address);
            }
            port.waiting.retain(|&other| other != id);
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
        let learning = port.waiting.iter().filter_map(|id| {
            let entry = self.entries.get(id)?;
            let known = entry.remote.map(|remote| remote.ip());
            let old = entry
                .old_source
                .is_some_and(|(old, until_us)| old == source && now_us < until_us);
            let expected = known == Some(source.ip()) || entry.origin == Some(source.ip());
            (entry.in_session && expected && !old).then_some(*id)
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
        let before = entry
            .remote
            .replace(source)
            .filter(|&before| Some(before) != entry.signalled);
        if let Some(before) = before {
            port.by_address.remove(&before);
        }
        port.by_address.insert(source, id);
        port.waiting.retain(|&other| other != id);
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(host: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], port))
    }

    /// A leg in session.
    fn leg(table: &mut PortTable, remote: SocketAddr) -> (StreamId, usize) {
        let (id, port) = table.open(Some(remote), None).unwrap();
        table.connect(0, id, remote).unwrap();
        (id, port)
    }

    /// As many packets as it takes to learn an address.
    fn learn(table: &mut PortTable, id: StreamId, source: SocketAddr) -> bool {
        (0..LEARN_AFTER).fold(false, |_, _| table.lock(id, source))
    }

    #[test]
    fn a_peer_behind_nat_is_learnt_once_and_then_locked() {
        let mut table = PortTable::new(1, 0, 1);
        let (id, port) = leg(&mut table, address(1, 4000));
        assert_eq!(table.route(0, port, address(1, 5000)), Route::Offered(id));
        assert!(learn(&mut table, id, address(1, 5000)));
        assert_eq!(table.route(0, port, address(1, 5000)), Route::Locked(id));
        assert_eq!(table.route(0, port, address(1, 6000)), Route::Stranger);
        assert_eq!(table.route(0, port, address(9, 4000)), Route::Stranger);
    }

    #[test]
    fn whoever_signalling_named_wins_over_whoever_came_first() {
        let mut table = PortTable::new(1, 0, 1);
        let (id, port) = leg(&mut table, address(1, 4000));
        assert!(!table.lock(id, address(1, 66)));
        assert!(table.lock(id, address(1, 4000)));
        assert_eq!(table.route(0, port, address(1, 66)), Route::Stranger);
        // Even after another address was learnt.
        let (id, port) = leg(&mut table, address(1, 4002));
        assert!(learn(&mut table, id, address(1, 66)));
        assert_eq!(table.route(0, port, address(1, 4002)), Route::Offered(id));
        assert!(table.lock(id, address(1, 4002)));
        assert_eq!(table.route(0, port, address(1, 66)), Route::Stranger);
        assert_eq!(table.remote(id), Some(address(1, 4002)));
    }

    #[test]
    fn what_may_be_learnt_has_to_come_in_a_row() {
        let mut table = PortTable::new(1, 0, 1);
        let (id, _) = leg(&mut table, address(1, 4000));
        for round in 0..20 {
            assert!(!table.lock(id, address(1, 66 + round % 2)));
        }
    }

    #[test]
    fn an_offer_that_was_not_taken_changes_nothing() {
        let mut table = PortTable::new(1, 0, 1);
        let (id, port) = leg(&mut table, address(1, 4000));
        assert_eq!(table.route(0, port, address(1, 66)), Route::Offered(id));
        assert_eq!(table.route(0, port, address(1, 4000)), Route::Offered(id));
        assert!(table.lock(id, address(1, 4000)));
        assert_eq!(table.route(0, port, address(1, 66)), Route::Stranger);
    }

    #[test]
    fn another_host_is_learnt_only_where_the_call_was_signalled_from() {
        let mut table = PortTable::new(1, 0, 1);
        let behind_nat = address(7, 0).ip();
        let (id, port) = table.open(Some(address(1, 4000)), Some(behind_nat)).unwrap();
        table.connect(0, id, address(1, 4000)).unwrap();
        assert_eq!(table.route(0, port, address(66, 4000)), Route::Stranger);
        assert_eq!(table.route(0, port, address(7, 5000)), Route::Offered(id));
    }

    #[test]
    fn before_the_session_nothing_is_learnt() {
        let mut table = PortTable::new(1, 0, 1);
        let (id, port) = table.open(None, None).unwrap();
        assert_eq!(table.route(0, port, address(66, 1)), Route::Stranger);
        assert!(!table.lock(id, address(66, 1)));
        table.connect(0, id, address(1, 4000)).unwrap();
        assert_eq!(table.route(0, port, address(1, 66)), Route::Offered(id));
    }

    #[test]
    fn two_waiting_legs_are_told_apart_by_host_or_not_at_all() {
        let mut table = PortTable::new(1, 0, 1);
        let (first, port) = leg(&mut table, address(1, 4000));
        let (second, _) = leg(&mut table, address(2, 4000));
        assert_eq!(table.route(0, port, address(3, 1)), Route::Stranger);
        assert_eq!(table.route(0, port, address(2, 77)), Route::Offered(second));
        learn(&mut table, second, address(2, 77));
        assert_eq!(table.route(0, port, address(1, 7)), Route::Offered(first));
        let (_, _) = leg(&mut table, address(1, 4002));
        assert_eq!(table.route(0, port, address(1, 9)), Route::Stranger);
    }

    #[test]
    fn a_new_address_is_learnt_but_not_the_old_source() {
        let mut table = PortTable::new(1, 0, 1);
        let (id, port) = leg(&mut table, address(1, 4000));
        learn(&mut table, id, address(1, 5000));
        // The same session again: nothing changes.
        table.connect(1, id, address(1, 4000)).unwrap();
        assert_eq!(table.route(1, port, address(1, 5000)), Route::Locked(id));
        table.connect(1, id, address(2, 4000)).unwrap();
        assert_eq!(table.route(2, port, address(1, 5000)), Route::Stranger);
        assert_eq!(table.route(2, port, address(2, 4000)), Route::Offered(id));
        assert_eq!(table.route(2, port, address(2, 6000)), Route::Offered(id));
        table.connect(3, id, address(2, 4100)).unwrap();
        assert_eq!(table.route(4, port, address(2, 6000)), Route::Offered(id));
    }

    #[test]
    fn one_address_gets_another_port_for_its_second_leg_and_none_for_its_third() {
        let mut table = PortTable::new(2, 0, 1);
        let (_, first) = table.open(Some(address(1, 4000)), None).unwrap();
        let (id, second) = table.open(Some(address(1, 4000)), None).unwrap();
        assert_ne!(first, second);
        let taken = PortError::AddressTaken(address(1, 4000), 2);
        assert_eq!(table.open(Some(address(1, 4000)), None), Err(taken));
        table.close(id);
        assert!(table.open(Some(address(1, 4000)), None).is_ok());
    }

    #[test]
    fn the_limits_are_named() {
        let mut table = PortTable::new(1, 0, 1);
        let (id, _) = table.open(None, None).unwrap();
        assert!(table.open(None, None).is_ok());
        table.connect(0, id, address(1, 1)).unwrap();
        let (other, _) = table.open(Some(address(2, 1)), None).unwrap();
        assert_eq!(
            table.connect(0, other, address(1, 1)),
            Err(PortError::InUse(address(1, 1)))
        );
        assert_eq!(
            table.connect(0, 77, address(1, 1)),
            Err(PortError::UnknownStream(77))
        );
    }

    #[test]
    fn rtcp_comes_from_the_port_after_the_media() {
        let mut table = PortTable::new(1, 0, 1);
        let (id, port) = leg(&mut table, address(1, 4000));
        assert_eq!(table.route_rtcp(port, address(1, 4001), true), Some(id));
        assert_eq!(table.route_rtcp(port, address(1, 4000), false), Some(id));
        for (source, separate) in [
            (address(1, 4000), true),
            (address(1, 4001), false),
            (address(2, 4001), true),
            (address(1, 0), true),
        ] {
            assert_eq!(table.route_rtcp(port, source, separate), None);
        }
    }

    #[test]
    fn tables_that_share_numbers_give_none_twice() {
        let mut tables = [PortTable::new(1, 0, 2), PortTable::new(1, 1, 2)];
        let mut seen = std::collections::HashSet::new();
        for round in 0..4_u16 {
            for (index, table) in tables.iter_mut().enumerate() {
                let (id, _) = table.open(Some(address(1, round)), None).unwrap();
                assert_eq!(id % 2, index as u64);
                assert!(id > 0 && seen.insert(id));
            }
        }
    }

    proptest! {
        /// Whatever happens, an address leads to one leg, a locked leg takes only its own, and closing leaves nothing.
        #[test]
        fn addresses_and_locks_hold(steps in prop::collection::vec((0..5_u8, 0..4_u8, 0..4_u16, 1..6_u64), 0..80)) {
            let mut table = PortTable::new(2, 0, 1);
            let mut locked: HashMap<StreamId, SocketAddr> = HashMap::new();
            for (now_us, (step, host, port, id)) in steps.into_iter().enumerate() {
                let (at, now_us) = (address(host, port), now_us as u64);
                match step {
                    0 => { let _ = table.open(Some(at), None); }
                    1 => {
                        let moves = table.entries.get(&id).is_some_and(|entry| entry.signalled != Some(at));
                        if table.connect(now_us, id, at).is_ok() && moves {
                            locked.remove(&id);
                        }
                    }
                    2 => { table.close(id); locked.remove(&id); }
                    _ => for index in 0..2 {
                        match table.route(now_us, index, at) {
                            Route::Locked(id) => prop_assert_eq!(locked.get(&id), Some(&at)),
                            Route::Offered(id) => {
                                prop_assert_ne!(locked.get(&id), Some(&at));
                                if table.lock(id, at) {
                                    locked.insert(id, at);
                                }
                            }
                            Route::Stranger => {}
                        }
                    },
                }
                for (id, entry) in &table.entries {
                    let port = &table.ports[entry.port];
                    prop_assert_eq!(entry.locked, locked.contains_key(id));
                    prop_assert_eq!(entry.locked, !port.waiting.contains(id));
                    prop_assert_eq!(entry.remote.and_then(|at| port.by_address.get(&at)), Some(id));
                }
            }
            for id in table.entries.keys().copied().collect::<Vec<_>>() {
                table.close(id);
            }
            for port in &table.ports {
                prop_assert!(port.by_address.is_empty() && port.waiting.is_empty() && port.legs == 0);
            }
        }
    }
}
