//! What the echo guard costs per second of a call (CPU time of the thread), by who is heard.

use media::echo::{EchoGuard, Verdict};
use rustix::time::{ClockId, clock_gettime};

const SECONDS: usize = 600;
const TICK: usize = 320;

/// Speech at 16 kHz, from 8 kHz by repetition: what it costs does not depend on the sound of it.
fn speech() -> Vec<i16> {
    include_bytes!("../tests/speech_data/receptionist_8k.pcm")
        .chunks_exact(2)
        .map(|two| i16::from_le_bytes([two[0], two[1]]))
        .flat_map(|x| [x, x])
        .collect()
}

fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn run(what: &str, is_playing: bool, is_coming: bool) {
    const SILENCE: [i16; TICK] = [0; TICK];
    let speech = speech();
    let frames: Vec<&[i16]> = speech.chunks_exact(TICK).collect();
    let mut guard = EchoGuard::new();
    let mut echoes = 0;
    let begin = cpu_ms();
    for tick in 0..SECONDS * 50 {
        guard.reference(if is_playing {
            frames[tick % frames.len()]
        } else {
            &SILENCE
        });
        // An echo 100 ms later.
        let late = (tick + frames.len() - 5) % frames.len();
        guard.captured(if is_coming { frames[late] } else { &SILENCE });
        echoes += u32::from(guard.verdict() == Verdict::Echo);
    }
    let cost_ms = (cpu_ms() - begin) / SECONDS as f64;
    println!("echo guard, {what}: {cost_ms:.3} CPU-ms per call-second ({echoes} echoes)");
}

fn main() {
    run("we speak, it echoes", true, true);
    run("we speak, the caller is silent", true, false);
    run("we are silent, the caller speaks", false, true);
    run("nobody speaks", false, false);
}
