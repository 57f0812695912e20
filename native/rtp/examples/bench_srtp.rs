//! What SRTP costs: ns per packet of 172 octets (20 ms of G.711), and CPU per call.
//!
//! `cargo run --release -p rtp --example bench_srtp`

use std::hint::black_box;
use std::time::Instant;

use rtp::packet::{HEADER_LEN, RtpHeader};
use rtp::srtp::{MAX_RTP_OVERHEAD, MasterKey, Profile, Receiver, Sender};

const PLAIN_LEN: usize = HEADER_LEN + 160;
const PACKETS: u32 = 50_000;
const ROUNDS: usize = 9;
const PACKETS_PER_CALL_SECOND: f64 = 50.0;

fn main() {
    println!("profile                    protect   unprotect   both directions");
    for profile in Profile::ALL {
        // The fastest of the rounds: what else runs on the machine only adds.
        let rounds = (0..ROUNDS).map(|_| round(profile));
        let (protect_ns, unprotect_ns) = rounds.fold((f64::MAX, f64::MAX), |best, round| {
            (best.0.min(round.0), best.1.min(round.1))
        });
        let cpu_ms = (protect_ns + unprotect_ns) * PACKETS_PER_CALL_SECOND / 1e6;
        println!(
            "{:24} {protect_ns:6.0} ns   {unprotect_ns:6.0} ns   {cpu_ms:.4} CPU-ms per call-second",
            profile.name()
        );
    }
}

/// Nanoseconds per packet to protect and to unprotect.
fn round(profile: Profile) -> (f64, f64) {
    let key = MasterKey::new(profile, &vec![7; profile.material_len()]).expect("the right length");
    let mut sender = Sender::new(&key);
    let mut receiver = Receiver::new(&key);
    let mut packets = vec![[0x55; PLAIN_LEN + MAX_RTP_OVERHEAD]; PACKETS as usize];
    for (packet, sequence) in packets.iter_mut().zip(0_u16..) {
        let header = RtpHeader {
            marker: false,
            payload_type: 0,
            sequence,
            timestamp: 160 * u32::from(sequence),
            ssrc: 1,
        };
        header.write(packet);
    }
    let mut len = 0;
    let start = Instant::now();
    for packet in &mut packets {
        len = sender
            .protect_rtp(black_box(packet), PLAIN_LEN)
            .expect("protected");
    }
    let protect = start.elapsed();
    let start = Instant::now();
    for packet in &mut packets {
        black_box(receiver.unprotect_rtp(&mut packet[..len]).expect("authentic"));
    }
    let unprotect = start.elapsed();
    let per_packet = |elapsed: std::time::Duration| elapsed.as_secs_f64() * 1e9 / f64::from(PACKETS);
    (per_packet(protect), per_packet(unprotect))
}
