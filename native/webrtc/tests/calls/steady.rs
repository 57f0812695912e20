//! What a connected call allocates. str0m owns each payload both ways, so it is not nothing; it must not grow.

use crate::support::{Impairment, World};
use counting::allocations_in;
use str0m::Input;
use webrtc::{LegOutput, WebRtcLeg};

const PACKETS: u64 = 500;
const WARMING: u64 = 500;

fn drain(leg: &mut WebRtcLeg) -> usize {
    let mut outputs = 0;
    while !matches!(leg.poll(), LegOutput::Timeout(_)) {
        outputs += 1;
    }
    outputs
}

#[test]
fn a_packet_allocates_twice_on_its_way_out_and_once_on_its_way_in() {
    let mut world = World::new(1, Impairment::NONE);
    let payload_type = world.connect().payload_type;
    // The streams come to be, the buffers grow, and our first reports reach the browser.
    for at in 0..WARMING {
        let now = world.now();
        world.browser.send_rtp(now, payload_type, at, &[7; 80]);
        world.run_for(20_000);
    }
    world.is_cut = true;
    let (mut sending, mut receiving) = (0, 0);
    let (mut sent, mut received) = (0, 0);
    for at in WARMING..WARMING + PACKETS + 50 {
        world.now_us += 2_000;
        let (now, now_us) = (world.now(), world.now_us);
        let leg = &mut world.leg;
        let outgoing = allocations_in(|| {
            leg.write_rtp(now_us, payload_type, at as u16, at as u32 * 960, false, &[7; 80])
                .unwrap();
            sent += drain(leg);
        });
        world.browser.send_rtp(now, payload_type, at, &[7; 80]);
        world.browser.rtc.handle_input(Input::Timeout(now)).unwrap();
        world.sent_by_browser.clear();
        world.exchange();
        let datagrams = std::mem::take(&mut world.sent_by_browser);
        let leg = &mut world.leg;
        let incoming = allocations_in(|| {
            for datagram in datagrams.iter().filter(|datagram| datagram.payload[0] >= 128) {
                let _ = leg.handle_datagram(now_us, datagram.source, datagram.destination, &datagram.payload);
                received += drain(leg);
            }
        });
        if at >= WARMING + 50 {
            sending += outgoing;
            receiving += incoming;
        }
    }
    assert!(
        sent >= PACKETS as usize && received >= PACKETS as usize,
        "{sent} {received}"
    );
    // One in ten more, for the reports and statistics.
    assert!(sending <= 22 * PACKETS / 10, "{sending}");
    assert!(receiving <= 11 * PACKETS / 10, "{receiving}");
}
