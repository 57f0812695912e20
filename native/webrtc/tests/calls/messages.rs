//! The data channel and its bounds.

use crate::support::{Impairment, World};
use webrtc::{LegEvent, Limits, Reason, SendError};

#[test]
fn what_is_sent_before_the_channel_opens_waits_up_to_a_bound() {
    let mut world = World::new(1, Impairment::NONE);
    for at in 0..64 {
        world.leg.send_message(0, &at.to_string()).unwrap();
    }
    assert_eq!(world.leg.send_message(0, "one too many"), Err(SendError::Full));
    assert_eq!(world.leg.counts().get(Reason::SendQueue), 1);
    assert_eq!(
        world.leg.send_message(0, &"x".repeat(65_537)),
        Err(SendError::TooLong)
    );
    world.connect();
    assert_eq!(
        world.browser.messages,
        (0..64).map(|at| at.to_string()).collect::<Vec<_>>()
    );
}

#[test]
fn a_message_of_the_full_length_passes_both_ways() {
    let mut world = World::new(2, Impairment::ROUGH);
    world.connect();
    let text = "ä".repeat(8_192);
    world.leg.send_message(world.now_us, &text).unwrap();
    assert!(world.browser.send_message(text.as_bytes(), false));
    world.run_for(30_000_000);
    assert_eq!(world.messages(), [text.as_str()]);
    assert_eq!(world.browser.messages, [text.as_str()]);
}

#[test]
fn binary_and_broken_text_are_counted_and_dropped() {
    let mut world = World::new(3, Impairment::NONE);
    world.connect();
    assert!(world.browser.send_message(b"binary", true));
    assert!(world.browser.send_message(b"\xff\xfe", false));
    world.run_for(1_000_000);
    assert_eq!(world.messages(), Vec::<&str>::new());
    assert_eq!(world.leg.counts().get(Reason::Message), 2);
}

#[test]
fn messages_beyond_the_rate_are_dropped() {
    let mut world = World::new(4, Impairment::NONE);
    world.connect();
    for at in 0..300 {
        assert!(world.browser.send_message(format!("{at}").as_bytes(), false));
    }
    world.run_for(500_000);
    let taken = world.messages().len() as u64;
    assert!((20..=40).contains(&taken), "{taken}");
    assert_eq!(taken + world.leg.counts().get(Reason::TooManyMessages), 300);
}

#[test]
fn channels_beyond_the_limit_are_closed() {
    let limits = Limits {
        channels: 2,
        ..Limits::default()
    };
    let mut world = World::with(5, Impairment::NONE, limits, false);
    world.connect();
    for at in 0..5 {
        world.browser.open_channel(&format!("extra {at}"));
        world.run_for(1_000_000);
    }
    let opened = world
        .events
        .iter()
        .filter(|event| matches!(event, LegEvent::ChannelOpen(_)))
        .count();
    assert_eq!((opened, world.leg.counts().get(Reason::TooManyChannels)), (2, 4));
    assert_eq!(world.browser.channels_closed, 4);
    assert!(world.browser.send_message(b"still here", false));
    world.run_for(1_000_000);
    assert_eq!(world.messages(), ["still here"]);
}
