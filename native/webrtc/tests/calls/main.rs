//! Whole calls over a simulated network.

mod support;

use support::{Impairment, World};

#[test]
fn a_call_connects_and_carries_audio_and_messages_both_ways() {
    let mut world = World::new(1, Impairment::NONE);
    let audio = world.connect();
    for sequence in 0..50_u16 {
        let payload = [sequence as u8; 80];
        world
            .browser
            .send_rtp(world.now(), audio.payload_type, u64::from(sequence), &payload);
        world
            .leg
            .write_rtp(
                world.now_us,
                audio.payload_type,
                65_500_u16.wrapping_add(sequence),
                960 * u32::from(sequence),
                false,
                &payload,
            )
            .unwrap();
        world.run_for(20_000);
    }
    world.leg.send_message(world.now_us, "hello").unwrap();
    assert!(world.browser.send_message(b"ping: 1", false));
    world.run_for(1_000_000);
    assert_eq!(world.rtp.len(), 50);
    assert_eq!(world.browser.received.len(), 50);
    assert_eq!(world.browser.messages, ["hello"]);
    assert_eq!(world.messages(), ["ping: 1"]);
}
