//! Nothing is allocated per packet, nor per tick; counted on the calling thread.

use rtp::srtp::{MAX_RTCP_OVERHEAD, MasterKey, Profile, Receiver, Sender};
use rtp::telephone_event::{DtmfReceiver, DtmfSender};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

#[test]
fn none_for_an_srtp_packet() {
    for profile in Profile::ALL {
        let key = MasterKey::new(profile, &vec![7; profile.material_len()]).unwrap();
        let (mut sender, mut receiver) = (Sender::new(&key), Receiver::new(&key));
        let counted = counting::allocations_in(|| {
            // More streams than are remembered, so that the table is full and one is forgotten.
            for ssrc in 0..17 {
                if ssrc == 16 {
                    // The far end's new stream, under the same key.
                    sender = Sender::new(&key);
                }
                for sequence in 0..100_u8 {
                    let mut packet = [0; 172 + MAX_RTCP_OVERHEAD];
                    packet[..4].copy_from_slice(&[0x80, 0, 0, sequence]);
                    packet[11] = ssrc;
                    let len = sender.protect_rtp(&mut packet, 172).unwrap();
                    packet[100] ^= 1;
                    assert!(receiver.unprotect_rtp(&mut packet[..len]).is_err());
                    packet[100] ^= 1;
                    assert_eq!(receiver.unprotect_rtp(&mut packet[..len]), Ok(172));
                    packet[7] = ssrc;
                    let len = sender.protect_rtcp(&mut packet, 100).unwrap();
                    assert_eq!(receiver.unprotect_rtcp(&mut packet[..len]), Ok(100));
                }
            }
        });
        assert_eq!(receiver.evicted(), 1);
        // The second sender: two transforms and a table.
        assert_eq!(counted, 3, "{profile:?}");
    }
}

#[test]
fn none_for_an_event_packet() {
    let (mut sender, mut receiver) = (DtmfSender::new(8000), DtmfReceiver::new(8000));
    let mut heard = 0;
    let counted = counting::allocations_in(|| {
        for tick in 0..1000 {
            let _ = sender.press('5', 100);
            if let Some(packet) = sender.tick(160 * tick) {
                let digit = receiver.push(packet.timestamp, &packet.payload);
                heard += usize::from(digit.is_some());
            }
        }
    });
    assert_eq!((heard, counted), (125, 0));
}
