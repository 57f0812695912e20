//! Whose a datagram is: cases, and any sequence of events against a plain scan.

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

/// Where a datagram goes, by comparing it with every leg.
fn scanned(table: &PortTable, now_us: u64, port: usize, source: SocketAddr) -> Route {
    let here = || table.entries.iter().filter(|(_, entry)| entry.port == port);
    let at = |entry: &Entry| entry.remote == Some(source) || entry.signalled == Some(source);
    if let Some((&id, entry)) = here().find(|(_, entry)| at(entry)) {
        return if entry.locked && entry.remote == Some(source) {
            Route::Locked(id)
        } else {
            Route::Offered(id)
        };
    }
    let host = Some(source.ip());
    let expecting = here().filter(|(_, entry)| {
        let known = entry.remote.map(|remote| remote.ip()) == host || entry.origin == host;
        entry.in_session && !entry.locked && known && !entry.is_old_source(now_us, source)
    });
    only(expecting.map(|(&id, _)| id)).map_or(Route::Stranger, Route::Offered)
}

#[derive(Debug, Clone)]
enum Step {
    Open(Option<SocketAddr>, Option<u8>),
    Browser,
    Connect(StreamId, SocketAddr),
    Close(StreamId),
    Packet(SocketAddr),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = || (0..4_u8, 0..4_u16).prop_map(|(host, port)| address(host, port));
    let step = prop_oneof![
        2 => (prop::option::of(at()), prop::option::of(0..4_u8)).prop_map(|(at, origin)| Step::Open(at, origin)),
        1 => Just(Step::Browser),
        3 => (1..8_u64, at()).prop_map(|(id, at)| Step::Connect(id, at)),
        1 => (1..8_u64).prop_map(Step::Close),
        6 => at().prop_map(Step::Packet),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    /// Whatever happens, an address leads to one leg, a locked leg takes only its own, a packet goes where a scan of all
    /// legs says, and closing leaves nothing.
    #[test]
    fn addresses_and_locks_hold(steps in steps()) {
        let mut table = PortTable::new(2, 0, 1);
        let mut locked: HashMap<StreamId, Option<SocketAddr>> = HashMap::new();
        let mut now_us = 0;
        for step in steps {
            now_us += 1;
            match step {
                Step::Open(at, origin) => {
                    let _ = table.open(at, origin.map(|host| address(host, 0).ip()));
                }
                Step::Browser => {
                    locked.insert(table.open_unaddressed().0, None);
                }
                Step::Connect(id, at) => {
                    let moves = table.entries.get(&id).is_some_and(|entry| entry.signalled != Some(at));
                    if table.connect(now_us, id, at).is_ok() && moves {
                        locked.remove(&id);
                    }
                }
                Step::Close(id) => {
                    table.close(id);
                    locked.remove(&id);
                }
                Step::Wait => now_us += OLD_SOURCE_US,
                Step::Packet(at) => for index in 0..2 {
                    let route = table.route(now_us, index, at);
                    prop_assert_eq!(route, scanned(&table, now_us, index, at));
                    match route {
                        Route::Locked(id) => prop_assert_eq!(locked.get(&id), Some(&Some(at))),
                        Route::Offered(id) => {
                            prop_assert_ne!(locked.get(&id), Some(&Some(at)));
                            if table.lock(id, at) {
                                locked.insert(id, Some(at));
                            }
                        }
                        Route::Stranger => {}
                    }
                },
            }
            for (id, entry) in &table.entries {
                let port = &table.ports[entry.port];
                prop_assert_eq!(entry.locked, locked.contains_key(id));
                let waits = entry.hosts().all(|host| port.waiting.expecting(host).contains(id));
                prop_assert!(!entry.may_learn() || waits);
                let leads_here = entry.remote.is_none_or(|at| port.by_address.get(&at) == Some(id));
                prop_assert!(leads_here);
            }
            for (index, port) in table.ports.iter().enumerate() {
                let unlocked = table.entries.values().filter(|entry| entry.port == index && !entry.locked);
                prop_assert_eq!(port.unlocked, unlocked.count());
            }
        }
        for id in table.entries.keys().copied().collect::<Vec<_>>() {
            table.close(id);
        }
        for port in &table.ports {
            prop_assert!(port.by_address.is_empty() && port.waiting.is_empty());
            prop_assert_eq!((port.unlocked, port.legs), (0, 0));
        }
    }
}
