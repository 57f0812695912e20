//! Whole networks: no worse than libwebrtc's `NetEQ` on the recorded traces, and as steady on others.

use media::bridging::delay::DelayParams;

use crate::support::{self, FRAME, FRAME_US, Outcome, RATE_HZ, Seeded, Trace, network, play, trace, voice};

/// Every 5 ms of where the receiver's clock may tick between the sender's packets.
fn outcomes(trace: &Trace) -> Vec<Outcome> {
    let sound = voice(60);
    let phases_us = (0..FRAME_US).step_by(5000);
    phases_us
        .map(|phase_us| play(trace, &sound, DelayParams::default(), phase_us))
        .collect()
}

#[test]
fn no_worse_than_neteq_on_each_trace_and_at_each_phase() {
    // Mean delay in ms and concealment in percent of NetEQ: tests/traces_network/README.md.
    for (name, delay_ms, concealed_percent) in [
        ("lan", 32.0, 0.43),
        ("wifi", 139.0, 1.39),
        ("lte", 184.0, 2.13),
        ("step", 58.0, 0.33),
        ("ge5", 62.0, 5.66),
    ] {
        let trace = trace(name);
        for outcome in outcomes(&trace) {
            println!(
                "{name}: {:.1} ms, {:.2} %",
                outcome.delay_ms, outcome.concealed_percent
            );
            assert!(outcome.delay_ms <= delay_ms, "{name}: {} ms", outcome.delay_ms);
            assert!(
                outcome.concealed_percent <= concealed_percent,
                "{name}: {} %",
                outcome.concealed_percent
            );
            assert_eq!((outcome.stats.flushed, outcome.stats.reset), (0, 0), "{name}");
        }
    }
}

#[test]
fn other_networks_cost_little_more_than_their_loss() {
    for seed in [1, 20_261_124, 77_777] {
        for (name, trace) in support::networks(seed) {
            let lost = trace.iter().filter(|at_ms| at_ms.is_none()).count();
            let lost_percent = 100.0 * lost as f64 / trace.len() as f64;
            for outcome in outcomes(&trace) {
                let (delay_ms, percent) = (outcome.delay_ms, outcome.concealed_percent);
                println!("{name} {seed}: {delay_ms:.1} ms, {percent:.2} % of which lost {lost_percent:.2} %");
                assert!(percent <= lost_percent + 2.0, "{name} {seed}: {percent} %");
                assert!(delay_ms <= 200.0, "{name} {seed}: {delay_ms} ms");
            }
        }
    }
}

#[test]
fn an_hour_of_clock_drift_costs_no_concealment_and_no_delay() {
    let sound = voice(60);
    for drift in [-200e-6, 200e-6] {
        let mut jitter = Seeded(42);
        let packets = 180_000;
        let trace: Trace = (0..packets)
            .map(|index| Some(20.0 * index as f64 * (1.0 + drift) + 3.0 * jitter.uniform() + 1000.0))
            .collect();
        let outcome = play(&trace, &sound, DelayParams::default(), 0);
        let stats = outcome.stats;
        let drifted = (packets * FRAME) as f64 * drift;
        let changed = stats.inserted as f64 - stats.removed as f64;
        println!(
            "{drift}: {stats:?}, waiting at most {} us",
            outcome.waiting_max_us
        );
        // What the clocks drift apart, 720 ms in the hour, was repeated or left out.
        assert!(
            (changed - drifted).abs() < 0.1 * RATE_HZ as f64,
            "{changed} of {drifted}"
        );
        assert!(outcome.waiting_max_us < 80_000);
        assert!(stats.concealed < RATE_HZ as u64 / 10, "{stats:?}");
        assert_eq!((stats.reset, stats.flushed, stats.lost), (0, 0, 0));
    }
}

#[test]
fn a_shorter_path_is_noticed_within_two_seconds() {
    let trace = network(true, |index| {
        Some(if index < 1500 { 200.0 } else { 0.0 } + (index % 3) as f64)
    });
    let mut short = trace.clone();
    short.truncate(1600);
    let short = play(&short, &voice(60), DelayParams::default(), 0);
    let long = play(&trace, &voice(60), DelayParams::default(), 0);
    // From there on a packet waits 25 ms at most.
    let waited_us = long.stats.waited_us - short.stats.waited_us;
    let mean_us = waited_us / (long.stats.begun - short.stats.begun);
    assert!(mean_us < 25_000, "{mean_us}");
    assert_eq!(long.stats.concealed, 0);
}

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    let trace = trace("ge5");
    let mut leg = support::Leg::new(&voice(60), DelayParams::default(), 0);
    leg.play(&trace[..1500], 0);
    let allocations = allocation_counter::measure(|| leg.play(&trace[1500..], 1500));
    assert_eq!(allocations.count_total, 0);
}
