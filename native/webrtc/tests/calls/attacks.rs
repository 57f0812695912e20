//! Whom the leg believes, and that no datagram harms it.

use crate::support::{BROWSER, Impairment, SERVER, World, browser, params};
use proptest::prelude::*;
use std::net::SocketAddr;
use std::time::Instant;
use webrtc::{Disconnection, LegEvent, LegOutput, Reason, WebRtcLeg};

const STRANGER: &str = "203.0.113.66:6666";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The first DTLS record of a browser: a true `ClientHello`, from a call of its own.
fn client_hello() -> Vec<u8> {
    let mut world = World::new(1, Impairment::NONE);
    world.connect();
    let hello = world
        .sent_by_browser
        .iter()
        .find(|datagram| datagram.payload[0] == 22)
        .unwrap();
    assert_eq!(hello.payload[13], 1, "handshake type client_hello");
    hello.payload.clone()
}

fn has_output(leg: &mut WebRtcLeg) -> bool {
    !matches!(leg.poll(), LegOutput::Timeout(_))
}

/// CVE-2023-51443: a `ClientHello` that is faster than the caller must not take the call.
#[test]
fn a_client_hello_before_the_ice_check_is_ignored_and_the_call_connects_all_the_same() {
    let hello = client_hello();
    let mut world = World::new(2, Impairment::NONE);
    for source in [STRANGER, BROWSER] {
        for _ in 0..10 {
            let taken = world
                .leg
                .handle_datagram(0, address(source), address(SERVER), &hello);
            assert_eq!(taken, Err(Reason::UncheckedSource));
        }
    }
    assert!(!has_output(&mut world.leg), "not even an answer");
    assert_eq!(world.leg.counts().get(Reason::UncheckedSource), 20);
    world.connect();
}

#[test]
fn everything_but_stun_is_ignored_from_an_address_without_a_check_during_the_call_too() {
    let mut world = World::new(3, Impairment::NONE);
    world.connect();
    let sent = std::mem::take(&mut world.sent_by_browser);
    world.exchange();
    let others: Vec<_> = sent.iter().filter(|datagram| datagram.payload[0] > 3).collect();
    assert!(others.len() > 5);
    for datagram in &others {
        let taken = world.leg.handle_datagram(
            world.now_us,
            address(STRANGER),
            address(SERVER),
            &datagram.payload,
        );
        assert_eq!(taken, Err(Reason::UncheckedSource));
    }
    assert!(!has_output(&mut world.leg));
    world.run_for(5_000_000);
    assert_eq!(world.disconnection(), None);
}

#[test]
fn a_check_with_the_wrong_password_binds_nobody() {
    let mut right = World::new(4, Impairment::NONE);
    right.exchange();
    right.run_for(1_000);
    let check = right
        .sent_by_browser
        .iter()
        .find(|datagram| datagram.payload[0] == 0)
        .unwrap()
        .clone();
    let mut altered = check.payload.clone();
    let integrity = altered
        .windows(4)
        .position(|window| window == [0, 8, 0, 20])
        .unwrap();
    altered[integrity + 4] ^= 1;
    let taken = right
        .leg
        .handle_datagram(right.now_us, address(STRANGER), address(SERVER), &altered);
    assert!(
        matches!(taken, Err(Reason::Unauthenticated | Reason::Stun)),
        "{taken:?}"
    );
    let mut other = World::new(5, Impairment::NONE);
    let taken = other
        .leg
        .handle_datagram(0, address(BROWSER), address(SERVER), &check.payload);
    assert_eq!(taken, Err(Reason::Unauthenticated));
    assert!(!has_output(&mut right.leg) && !has_output(&mut other.leg));
}

/// What a NAT that changes its mapping does, and what the bound on addresses costs: the oldest gives way.
#[test]
fn the_peer_may_move_and_only_so_many_addresses_are_kept() {
    let mut world = World::new(6, Impairment::NONE);
    world.connect();
    let check = world
        .sent_by_browser
        .iter()
        .find(|datagram| datagram.payload[0] == 0)
        .unwrap()
        .clone();
    for port in 1..=300 {
        let source = SocketAddr::new([203, 0, 113, 5].into(), 1000 + port);
        let now_us = world.now_us + u64::from(port);
        let taken = world
            .leg
            .handle_datagram(now_us, source, address(SERVER), &check.payload);
        assert_eq!(
            taken,
            if port < 256 {
                Ok(())
            } else {
                Err(Reason::TooManySources)
            },
            "{port}"
        );
    }
    world.exchange();
    let count = |wanted: fn(&LegEvent) -> bool| world.events.iter().filter(|event| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, LegEvent::Bound(_))), 256);
    assert_eq!(count(|event| matches!(event, LegEvent::Released(_))), 256 - 8);
}

#[test]
fn a_datagram_to_an_address_that_was_not_offered_is_refused() {
    let mut world = World::new(7, Impairment::NONE);
    world.run_for(200_000);
    let check = world
        .sent_by_browser
        .iter()
        .find(|datagram| datagram.payload[0] == 0)
        .unwrap()
        .clone();
    let taken = world
        .leg
        .handle_datagram(0, check.source, address("192.0.2.99:40000"), &check.payload);
    assert_eq!(taken, Err(Reason::Destination));
}

#[test]
fn a_peer_with_another_certificate_than_offered_fails() {
    let epoch = Instant::now();
    let (peer, offer) = browser(epoch, false, true);
    let at = offer.find("a=fingerprint:sha-256 ").unwrap() + "a=fingerprint:sha-256 ".len();
    let true_one = &offer[at..at + "AB:".len() * 32 - 1];
    let other = if true_one.starts_with("00") { "01" } else { "00" };
    let altered = offer.replace(true_one, &format!("{other}{}", &true_one[2..]));
    let (leg, answer) = WebRtcLeg::answer(&altered, params(epoch, 8), 0).unwrap();
    let mut world = World::of(8, Impairment::NONE, epoch, peer, leg, &answer);
    world.run_for(5_000_000);
    let why = world.disconnection();
    assert!(
        matches!(why, Some(Disconnection::Failed(text)) if text.contains("fingerprint")),
        "{why:?}"
    );
}

#[test]
fn a_repeated_packet_is_refused() {
    let mut world = World::new(9, Impairment::NONE);
    let audio = world.connect();
    world
        .browser
        .send_rtp(world.now(), audio.payload_type, 1, &[7; 80]);
    world.run_for(1_000_000);
    let packet = world
        .sent_by_browser
        .iter()
        .rfind(|datagram| datagram.payload[1] & 127 == audio.payload_type);
    let packet = packet.unwrap().clone();
    let taken = world
        .leg
        .handle_datagram(world.now_us, packet.source, packet.destination, &packet.payload);
    assert_eq!(taken, Err(Reason::Media));
    assert_eq!(world.rtp.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// From strangers and from the peer's own address, before and during the call, whole noise and true
    /// datagrams with altered octets: nothing panics, and the call survives.
    #[test]
    fn no_datagram_harms_a_call(
        seed in 1..1000_u64,
        noise in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 20),
        alterations in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 100),
    ) {
        let mut world = World::new(seed, Impairment::NONE);
        let attack = |world: &mut World| {
            for (is_peer, datagram) in &noise {
                let source = address(if *is_peer { BROWSER } else { STRANGER });
                let _ = world.leg.handle_datagram(world.now_us, source, address(SERVER), datagram);
            }
        };
        attack(&mut world);
        let audio = world.connect();
        attack(&mut world);
        let sent = world.sent_by_browser.clone();
        for (which, at, octet) in &alterations {
            let mut datagram = which.get(&sent).payload.clone();
            let at = at.index(datagram.len());
            datagram[at] = *octet;
            let _ = world.leg.handle_datagram(world.now_us, address(BROWSER), address(SERVER), &datagram);
        }
        world.exchange();
        world.browser.send_rtp(world.now(), audio.payload_type, 1, &[7; 80]);
        world.run_for(5_000_000);
        prop_assert_eq!(world.disconnection(), None);
        prop_assert_eq!(world.rtp.len(), 1);
    }
}
