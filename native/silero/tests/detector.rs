//! The detector and the gate on random input.

mod common;

use common::Noise;
use proptest::prelude::*;
use silero::{Detector, DetectorParams, EnergyGate, Transition, WINDOW, WINDOW_MS};

const STEP_MS: u64 = WINDOW_MS as u64;

fn params(threshold: f32, start_ms: u32, stop_ms: u32) -> DetectorParams {
    DetectorParams {
        threshold,
        start_ms,
        stop_ms,
    }
}

/// Feed one probability per window from time 0 on; when each transition was reported, and what.
fn run(params: DetectorParams, probabilities: &[f32]) -> Vec<(u64, Transition)> {
    let mut detector = Detector::new(params);
    let times = (0..).step_by(WINDOW_MS as usize);
    times
        .zip(probabilities)
        .filter_map(|(media_ms, p)| detector.update(*p, media_ms).map(|t| (media_ms + STEP_MS, t)))
        .collect()
}

#[test]
fn starts_after_start_ms_and_stops_after_stop_ms() {
    let speech = [
        0.0, 0.0, 0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1,
    ];
    assert_eq!(
        run(params(0.5, 96, 200), &speech),
        [
            (160, Transition::Started { media_ms: 64 }),
            (416, Transition::Stopped { media_ms: 192 })
        ]
    );
}

#[test]
fn between_the_thresholds_speech_goes_on_but_does_not_begin() {
    assert_eq!(run(params(0.5, 64, 64), &[0.4; 20]), []);
    let dip = [0.9, 0.9, 0.4, 0.4, 0.4, 0.4, 0.9, 0.4];
    assert_eq!(
        run(params(0.5, 64, 64), &dip),
        [(64, Transition::Started { media_ms: 0 })]
    );
}

#[test]
fn a_click_does_not_start_speech_but_a_dip_does_not_delay_it() {
    assert_eq!(run(params(0.5, 96, 200), &[0.9, 0.9, 0.1, 0.9, 0.9, 0.1]), []);
    let dip = [0.9, 0.9, 0.45, 0.9];
    assert_eq!(
        run(params(0.5, 96, 200), &dip),
        [(128, Transition::Started { media_ms: 0 })]
    );
}

#[test]
fn an_onset_does_not_wait_longer_than_stop_ms() {
    let mut long = vec![0.9];
    long.extend([0.45; 10]);
    long.extend([0.9, 0.9]);
    assert_eq!(
        run(params(0.5, 64, 200), &long),
        [(416, Transition::Started { media_ms: 352 })]
    );
}

#[test]
fn lost_media_counts_as_silence() {
    let mut detector = Detector::new(params(0.5, 32, 200));
    assert_eq!(detector.update(0.9, 0), Some(Transition::Started { media_ms: 0 }));
    assert_eq!(
        detector.update(0.1, 5_000),
        Some(Transition::Stopped { media_ms: 32 })
    );
}

#[test]
fn no_number_counts_as_silence() {
    assert_eq!(
        run(params(0.5, 32, 32), &[f32::NAN, 0.9, f32::NAN]),
        [
            (64, Transition::Started { media_ms: 32 }),
            (96, Transition::Stopped { media_ms: 64 })
        ]
    );
}

/// Runs of similar probabilities, as real speech has.
fn probabilities() -> impl Strategy<Value = Vec<f32>> {
    let run = (
        prop_oneof![Just(0.05f32), Just(0.42), Just(0.95), 0.0f32..1.0],
        1usize..15,
    );
    proptest::collection::vec(run, 0..60)
        .prop_map(|runs| runs.into_iter().flat_map(|(p, count)| vec![p; count]).collect())
}

proptest! {
    #[test]
    fn transitions_alternate_and_media_time_never_goes_back(
        probabilities in probabilities(), start_ms in 0u32..400, stop_ms in 0u32..600,
    ) {
        let mut speaking = false;
        let mut last_ms = 0;
        for (_, transition) in run(params(0.5, start_ms, stop_ms), &probabilities) {
            let media_ms = match transition {
                Transition::Started { media_ms } => {
                    prop_assert!(!speaking);
                    speaking = true;
                    media_ms
                }
                Transition::Stopped { media_ms } => {
                    prop_assert!(speaking);
                    speaking = false;
                    media_ms
                }
            };
            prop_assert!(media_ms >= last_ms);
            last_ms = media_ms;
        }
    }

    #[test]
    fn a_start_has_start_ms_of_speech_and_a_stop_stop_ms_of_silence(
        probabilities in probabilities(), start_ms in 1u32..400, stop_ms in 1u32..600,
    ) {
        let windows = |from_ms: u64, to_ms: u64| {
            &probabilities[(from_ms / STEP_MS) as usize..(to_ms / STEP_MS) as usize]
        };
        for (now_ms, transition) in run(params(0.5, start_ms, stop_ms), &probabilities) {
            match transition {
                Transition::Started { media_ms } => {
                    let onset = windows(media_ms, now_ms);
                    let speech = onset.iter().filter(|p| **p >= 0.5).count() as u64 * STEP_MS;
                    prop_assert!(speech >= u64::from(start_ms));
                    prop_assert!(speech < u64::from(start_ms) + STEP_MS, "no later than needed");
                    prop_assert!(onset[0] >= 0.5 && onset.iter().all(|p| *p >= 0.35));
                }
                Transition::Stopped { media_ms } => {
                    prop_assert!(now_ms - media_ms >= u64::from(stop_ms));
                    prop_assert!(now_ms - media_ms < u64::from(stop_ms) + STEP_MS, "no later than needed");
                    prop_assert!(windows(media_ms, now_ms).iter().all(|p| *p < 0.35));
                    prop_assert!(windows(media_ms - STEP_MS, media_ms)[0] >= 0.35);
                }
            }
        }
    }

    #[test]
    fn enough_speech_after_silence_always_starts(
        before in probabilities(), start_ms in 0u32..400, stop_ms in 0u32..600,
    ) {
        let mut detector = Detector::new(params(0.5, start_ms, stop_ms));
        let times = || (0u64..).step_by(WINDOW_MS as usize);
        for (media_ms, p) in times().zip(&before) {
            detector.update(*p, media_ms);
        }
        let later = times().skip(before.len());
        let silence = stop_ms.div_ceil(WINDOW_MS).max(1) as usize;
        let speech = start_ms.div_ceil(WINDOW_MS).max(1) as usize;
        for media_ms in later.clone().take(silence) {
            detector.update(0.0, media_ms);
        }
        prop_assert!(!detector.is_speech());
        for media_ms in later.skip(silence).take(speech) {
            detector.update(1.0, media_ms);
        }
        prop_assert!(detector.is_speech());
    }

    #[test]
    fn the_gate_admits_every_window_above_its_limit(gains in proptest::collection::vec(0.0f32..0.1, 1..80)) {
        let mut gate = EnergyGate::new();
        let mut noise = Noise(11);
        for gain in gains {
            let window = noise.window(gain);
            let power = window.iter().map(|x| x * x).sum::<f32>() / WINDOW as f32;
            let admitted = gate.admits(&window);
            prop_assert!(admitted || power < 3.2e-5, "-45 dBFS and louder always passes");
        }
    }
}

#[test]
fn the_gate_closes_after_half_a_second_and_opens_at_once() {
    let mut gate = EnergyGate::new();
    let mut noise = Noise(12);
    assert!((0..50).all(|_| gate.admits(&noise.window(0.2))));
    let admitted = (0..100).filter(|_| gate.admits(&[0.0; WINDOW])).count();
    assert_eq!((admitted, gate.skipped()), (16, 84));
    assert!(gate.admits(&noise.window(0.02)), "-45 dBFS");
}

#[test]
fn steady_line_noise_is_gated_and_speech_above_it_is_not() {
    let mut gate = EnergyGate::new();
    let mut noise = Noise(13);
    let line = 0.0155; // -47 dBFS
    let admitted = (0..200).filter(|_| gate.admits(&noise.window(line))).count();
    assert!(admitted < 20, "{admitted}");
    assert!(gate.admits(&noise.window(line * 1.8)), "5 dB above the noise");
}
