//! Both jitter buffers on the recorded traces of whole networks, beside the figures of other buffers on the same
//! traces (`tests/traces_network/README.md`); and on seeded networks of other kinds. Mean delay in ms above the network's
//! least, and what was made up, in percent; CPU time per call-second.
//!
//! `cargo run --release -p media --example bench_jitter`

#[path = "../tests/bridging/support.rs"]
#[allow(dead_code)]
mod support;

use std::time::{Duration, Instant};

use media::bridging::delay::DelayParams;
use media::jitter::{ListeningBuffer, Release, octet_duration};
use support::{FRAME, FRAME_US, Trace, header, play, trace, voice};

/// Name; libwebrtc's `NetEQ`, a fixed buffer of 60 ms: delay and concealment; aiortc 1.16: delay.
const TRACES: [(&str, [f64; 2], [f64; 2], f64); 5] = [
    ("lan", [32.0, 0.43], [60.0, 0.0], 81.0),
    ("wifi", [139.0, 1.39], [60.0, 2.9], 274.0),
    ("lte", [184.0, 2.13], [63.0, 7.0], 280.0),
    ("step", [58.0, 0.33], [60.0, 31.0], 103.0),
    ("ge5", [62.0, 5.66], [60.0, 5.63], 246.0),
];
/// Where the receiver's clock ticks between two packets of the sender is chance: the figures are over all of it.
const PHASES_US: std::ops::Range<u64> = 0..FRAME_US;
const PHASE_STEP: usize = 1000;

/// Mean and worst over the phases, and the time that it took.
struct Bridged {
    delay_ms: [f64; 2],
    concealed_percent: [f64; 2],
    scaled_percent: f64,
    spent: Duration,
}

fn bridge(trace: &Trace, sound: &[i16]) -> Bridged {
    let began = Instant::now();
    let outcomes: Vec<_> = PHASES_US
        .step_by(PHASE_STEP)
        .map(|phase_us| play(trace, sound, DelayParams::default(), phase_us))
        .collect();
    let spent = began.elapsed() / outcomes.len() as u32;
    let over = |figure: fn(&support::Outcome) -> f64| {
        let worst = outcomes.iter().map(figure).fold(0.0, f64::max);
        [
            outcomes.iter().map(figure).sum::<f64>() / outcomes.len() as f64,
            worst,
        ]
    };
    let scaled = |outcome: &support::Outcome| {
        let stats = outcome.stats;
        100.0 * (stats.inserted + stats.removed) as f64 / stats.played as f64
    };
    Bridged {
        delay_ms: over(|outcome| outcome.delay_ms),
        concealed_percent: over(|outcome| outcome.concealed_percent),
        scaled_percent: over(scaled)[0],
        spent,
    }
}

/// Delay and concealment of the listening buffer, polled at every arrival and deadline.
fn listen(trace: &Trace) -> ([f64; 2], Duration) {
    let mut buffer = ListeningBuffer::new(8000, octet_duration);
    let payload = [0; FRAME];
    let floor_ms = network_ms(trace).fold(f64::MAX, f64::min);
    let mut arrivals: Vec<(u64, usize)> = (0..)
        .zip(trace)
        .filter_map(|(index, at_ms)| at_ms.map(|at_ms| ((at_ms * 1000.0) as u64, index)))
        .collect();
    arrivals.sort_unstable();
    let sent_us = network_ms(trace).sum::<f64>() * 1000.0 - floor_ms * 1000.0 * arrivals.len() as f64;
    let mut waited_us = 0;
    let mut drain = |buffer: &mut ListeningBuffer, now_us: u64| {
        while let Some(release) = buffer.poll(now_us) {
            if let Release::Packet { arrival_us, .. } = release {
                waited_us += now_us - arrival_us;
            }
        }
    };
    let began = Instant::now();
    for (at_us, index) in arrivals.into_iter().chain([(u64::MAX, 0)]) {
        while let Some(deadline_us) = buffer
            .next_deadline_us()
            .filter(|&deadline_us| deadline_us < at_us)
        {
            drain(&mut buffer, deadline_us);
        }
        if at_us < u64::MAX {
            buffer.push(at_us, &header(index), &payload);
            drain(&mut buffer, at_us);
        }
    }
    let stats = buffer.stats();
    let delay_ms = (sent_us + waited_us as f64) / 1000.0 / stats.released as f64;
    let lost_percent = 100.0 * stats.lost as f64 / trace.len() as f64;
    ([delay_ms, lost_percent], began.elapsed())
}

fn network_ms(trace: &Trace) -> impl Iterator<Item = f64> {
    (0..)
        .zip(trace)
        .filter_map(|(index, at_ms)| Some((*at_ms)? - 20.0 * f64::from(index)))
}

fn main() {
    let sound = voice(60);
    println!(
        "delay ms / concealed %, 60 s; bridging: mean (worst) over {} phases of the clock",
        PHASES_US.step_by(PHASE_STEP).count()
    );
    println!(
        "{:8} | {:12} | {:29} | {:12} | {:10} | aiortc",
        "trace", "listening", "bridging, worst, scaled %", "NetEQ", "fixed 60"
    );
    let (mut listening, mut bridging) = (Duration::ZERO, Duration::ZERO);
    for (name, neteq, fixed, aiortc) in TRACES {
        let trace = trace(name);
        let (listened, spent) = listen(&trace);
        listening += spent;
        let bridged = bridge(&trace, &sound);
        bridging += bridged.spent;
        println!(
            "{name:8} | {:5.1} / {:4.2} | {:5.1} / {:4.2} ({:5.1} / {:4.2}) {:3.1} | {:5} / {:4} | {:3} / {:4} | {aiortc:4}",
            listened[0],
            listened[1],
            bridged.delay_ms[0],
            bridged.concealed_percent[0],
            bridged.delay_ms[1],
            bridged.concealed_percent[1],
            bridged.scaled_percent,
            neteq[0],
            neteq[1],
            fixed[0],
            fixed[1],
        );
    }
    for (name, trace) in support::networks(20_261_124) {
        let (listened, _) = listen(&trace);
        let bridged = bridge(&trace, &sound);
        println!(
            "{name:8} | {:5.1} / {:4.2} | {:5.1} / {:4.2} ({:5.1} / {:4.2}) {:3.1} |",
            listened[0],
            listened[1],
            bridged.delay_ms[0],
            bridged.concealed_percent[0],
            bridged.delay_ms[1],
            bridged.concealed_percent[1],
            bridged.scaled_percent,
        );
    }
    let per_call_second = |spent: Duration| spent.as_secs_f64() * 1e6 / (60.0 * TRACES.len() as f64);
    println!(
        "CPU-us per call-second: listening {:.1}, bridging with G.711 {:.1}",
        per_call_second(listening),
        per_call_second(bridging)
    );
}
