//! Connecting, talking, renegotiating, ending.

use crate::support::{Impairment, World};
use std::collections::HashSet;
use webrtc::{Disconnection, IceSeed, LegEvent, Limits, Reason, WebRtcError};

/// A second of 20 ms packets both ways, numbered from `first`.
fn talk(world: &mut World, first: u16, packets: u16) {
    let payload_type = world.leg.audio().payload_type;
    for at in 0..packets {
        let sequence = first.wrapping_add(at);
        let payload = [at as u8; 80];
        world
            .browser
            .send_rtp(world.now(), payload_type, u64::from(sequence), &payload);
        let timestamp = 960 * u32::from(sequence);
        world
            .leg
            .write_rtp(world.now_us, payload_type, sequence, timestamp, at == 0, &payload)
            .unwrap();
        world.run_for(20_000);
    }
}

#[test]
fn a_call_connects_and_carries_audio_and_messages_both_ways() {
    let mut world = World::new(1, Impairment::NONE);
    let audio = world.connect();
    talk(&mut world, 65_500, 50);
    world.leg.send_message(world.now_us, "hello").unwrap();
    assert!(world.browser.send_message(b"ping: 1", false));
    world.run_for(1_000_000);

    let sequences: Vec<u16> = world.rtp.iter().map(|packet| packet.header.sequence).collect();
    assert_eq!(
        sequences,
        (0..50).map(|at| 65_500_u16.wrapping_add(at)).collect::<Vec<_>>()
    );
    assert!(
        world
            .rtp
            .iter()
            .enumerate()
            .all(|(at, packet)| *packet.payload == [at as u8; 80])
    );
    assert!(
        world
            .rtp
            .iter()
            .all(|packet| packet.header.payload_type == audio.payload_type)
    );
    let heard: Vec<u16> = world
        .browser
        .received
        .iter()
        .map(|(_, sequence, _)| *sequence)
        .collect();
    assert_eq!(heard, sequences, "our stream wraps at 65,536 as well");
    assert_eq!(world.browser.messages, ["hello"]);
    assert_eq!(world.messages(), ["ping: 1"]);
}

#[test]
fn loss_reordering_and_duplication_cost_packets_but_neither_repeats_nor_messages() {
    for seed in 1..=12 {
        let mut world = World::new(seed, Impairment::ROUGH);
        world.connect();
        for at in 0..10 {
            world
                .leg
                .send_message(world.now_us, &format!("ours {at}"))
                .unwrap();
            assert!(
                world
                    .browser
                    .send_message(format!("theirs {at}").as_bytes(), false)
            );
            talk(&mut world, 50 * at, 50);
        }
        world.run_for(10_000_000);
        let heard: HashSet<u16> = world.rtp.iter().map(|packet| packet.header.sequence).collect();
        assert_eq!(heard.len(), world.rtp.len(), "seed {seed}: a packet came twice");
        assert!(
            (430..500).contains(&heard.len()),
            "seed {seed}: {} of 500 arrived",
            heard.len()
        );
        let in_order: Vec<String> = (0..10).map(|at| format!("theirs {at}")).collect();
        assert_eq!(world.messages(), in_order, "seed {seed}");
        let in_order: Vec<String> = (0..10).map(|at| format!("ours {at}")).collect();
        assert_eq!(world.browser.messages, in_order, "seed {seed}");
        assert!(
            world.leg.counts().get(Reason::Media) > 0,
            "seed {seed}: repeats are counted"
        );
    }
}

#[test]
fn a_peer_that_falls_silent_loses_its_call_after_the_consent_time_and_gets_nothing_more() {
    let mut world = World::new(2, Impairment::NONE);
    world.connect();
    world.is_cut = true;
    let cut_us = world.now_us;
    world.run_for(20_000_000);
    assert_eq!(world.disconnection(), Some(&Disconnection::ConsentLost));
    assert!(world.leg.is_closed());
    let payload_type = world.leg.audio().payload_type;
    let written = world
        .leg
        .write_rtp(world.now_us, payload_type, 1, 0, false, &[0; 80]);
    assert_eq!(written, Err(Reason::Closed));
    assert!(world.last_sent_by_leg_us <= cut_us + Limits::default().consent_us);
    assert_eq!(
        world
            .events
            .iter()
            .filter(|event| matches!(event, LegEvent::Disconnected(_)))
            .count(),
        1
    );
}

#[test]
fn a_call_that_never_connects_ends() {
    let mut world = World::new(3, Impairment::NONE);
    world.is_cut = true;
    world.run_for(14_999_999);
    assert_eq!(world.disconnection(), None);
    world.run_for(1);
    assert_eq!(world.disconnection(), Some(&Disconnection::ConnectTimeout));
}

#[test]
fn either_side_can_hang_up() {
    let mut world = World::new(4, Impairment::NONE);
    world.connect();
    world.leg.close(world.now_us);
    world.run_for(1_000_000);
    assert_eq!(world.disconnection(), Some(&Disconnection::Closed));
    assert!(world.browser.is_closed, "the browser got the DTLS farewell");

    let mut world = World::new(5, Impairment::NONE);
    world.connect();
    world.browser.rtc.close().unwrap();
    world.run_for(1_000_000);
    assert_eq!(world.disconnection(), Some(&Disconnection::PeerClosed));
}

#[test]
fn a_further_offer_is_answered_and_the_sound_goes_on() {
    let mut world = World::with(6, Impairment::NONE, Limits::default(), false);
    world.connect();
    talk(&mut world, 0, 10);
    let ufrag = world.leg.local_ufrag().to_owned();
    let offer = world.browser.offer(false);
    assert!(offer.contains("m=video"));
    let answer = world
        .leg
        .reanswer(world.now_us, &offer, IceSeed([1; IceSeed::LEN]))
        .unwrap();
    assert!(
        answer.contains("m=video 0 ") && answer.contains("m=audio 9 "),
        "{answer}"
    );
    assert_eq!(world.leg.local_ufrag(), ufrag);
    world.browser.accept(&answer);
    talk(&mut world, 10, 10);
    world.run_for(1_000_000);
    assert_eq!((world.rtp.len(), world.browser.received.len()), (20, 20));
}

#[test]
fn an_ice_restart_gets_new_credentials_and_the_sound_goes_on() {
    let mut world = World::new(7, Impairment::NONE);
    world.connect();
    talk(&mut world, 0, 10);
    let before = world.leg.local_ufrag().to_owned();
    let offer = world.browser.offer(true);
    let seed = IceSeed([9; IceSeed::LEN]);
    let answer = world.leg.reanswer(world.now_us, &offer, seed).unwrap();
    assert_ne!(world.leg.local_ufrag(), before);
    assert!(answer.contains(&format!("a=ice-ufrag:{}\r\n", world.leg.local_ufrag())));
    world.browser.accept(&answer);
    world.run_for(30_000_000);
    assert_eq!(
        world.disconnection(),
        None,
        "checks with the new credentials keep the call"
    );
    talk(&mut world, 10, 10);
    world.run_for(1_000_000);
    assert_eq!((world.rtp.len(), world.browser.received.len()), (20, 20));
}

#[test]
fn the_offers_of_a_minute_are_limited_and_those_of_another_connection_refused() {
    let mut world = World::new(8, Impairment::NONE);
    world.connect();
    let (_, stranger) = crate::support::browser(world.epoch, false, true);
    let refused = world
        .leg
        .reanswer(world.now_us, &stranger, IceSeed([1; IceSeed::LEN]));
    assert!(matches!(refused, Err(WebRtcError::OtherPeer)), "{refused:?}");
    for at in 2..=12 {
        let offer = world.browser.offer(true);
        match world
            .leg
            .reanswer(world.now_us, &offer, IceSeed([at; IceSeed::LEN]))
        {
            Ok(answer) => {
                assert!(at <= 10);
                world.browser.accept(&answer);
                world.exchange();
            }
            Err(error) => assert!(
                at > 10 && matches!(error, WebRtcError::TooManyOffers),
                "{at}: {error}"
            ),
        }
    }
    world.run_for(61_000_000);
    let offer = world.browser.offer(true);
    assert!(
        world
            .leg
            .reanswer(world.now_us, &offer, IceSeed([20; IceSeed::LEN]))
            .is_ok()
    );
}

#[test]
fn the_reports_tell_round_trip_and_loss() {
    let mut world = World::new(
        9,
        Impairment {
            loss: 0.1,
            ..Impairment::NONE
        },
    );
    world.connect();
    talk(&mut world, 0, 1500);
    let qualities: Vec<_> = world
        .events
        .iter()
        .filter_map(|event| match event {
            LegEvent::Quality(quality) => Some(*quality),
            _ => None,
        })
        .collect();
    let round_trips: Vec<u64> = qualities
        .iter()
        .filter_map(|quality| quality.round_trip_us)
        .collect();
    assert!(
        round_trips.iter().any(|us| (38_000..43_000).contains(us)),
        "{round_trips:?}"
    );
    let lost: Vec<f32> = qualities
        .iter()
        .filter_map(|quality| quality.lost_by_peer)
        .collect();
    assert!(lost.iter().any(|share| (0.03..0.2).contains(share)), "{lost:?}");
    let lost: Vec<f32> = qualities.iter().filter_map(|quality| quality.lost_here).collect();
    assert!(lost.iter().any(|share| (0.03..0.2).contains(share)), "{lost:?}");
}

#[test]
fn media_before_the_connection_and_of_a_payload_type_not_agreed_is_refused() {
    let mut world = World::new(10, Impairment::NONE);
    let payload_type = world.leg.audio().payload_type;
    assert_eq!(
        world.leg.write_rtp(0, payload_type, 0, 0, false, &[0]),
        Err(Reason::NotConnected)
    );
    world.connect();
    assert_eq!(
        world.leg.write_rtp(world.now_us, 99, 0, 0, false, &[0]),
        Err(Reason::PayloadType)
    );
    assert_eq!(world.leg.counts().get(Reason::NotConnected), 1);
    assert_eq!(world.leg.counts().get(Reason::PayloadType), 1);
}

#[test]
fn output_that_nobody_fetches_is_bounded() {
    let limits = Limits {
        outputs: 64,
        ..Limits::default()
    };
    let mut world = World::with(11, Impairment::NONE, limits, true);
    world.connect();
    let payload_type = world.leg.audio().payload_type;
    for sequence in 0..1000 {
        world
            .leg
            .write_rtp(world.now_us, payload_type, sequence, 0, false, &[0; 80])
            .unwrap();
    }
    assert_eq!(world.leg.counts().get(Reason::Overrun), 1000 - 64);
}
