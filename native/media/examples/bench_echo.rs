//! What the echo guard costs per second of a call, while we speak and the caller's side is audible.

use std::time::Instant;

use media::echo::EchoGuard;

const SECONDS: u32 = 600;

fn main() {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as i16 / 8
    };
    let frames: Vec<[i16; 320]> = (0..50).map(|_| std::array::from_fn(|_| noise())).collect();
    let mut guard = EchoGuard::new();
    let start = Instant::now();
    for tick in 0..SECONDS as usize * 50 {
        guard.reference(&frames[tick % 50]);
        guard.captured(&frames[(tick * 7 + 3) % 50]);
    }
    let cost_ms = start.elapsed().as_secs_f64() * 1000.0 / f64::from(SECONDS);
    println!(
        "echo guard: {cost_ms:.3} ms per call-second ({:?})",
        guard.verdict()
    );
}
