//! What the listener's waveform looks like: pitch, level, seams.

use codec::g711::{Law, decode_into, encode_into};
use media::bridging::delay::DelayParams;
use media::bridging::time_scale::{Care, TimeScale};

use crate::support::{self, RATE_HZ, Seeded, network};

fn tone(rate_hz: usize, pitch_hz: f64, amplitude: f64, samples: usize) -> Vec<i16> {
    let sample = |n: usize| {
        let phase = std::f64::consts::TAU * pitch_hz * n as f64 / rate_hz as f64;
        // Two harmonics, so that the half of the pitch period does not fit.
        (amplitude * (0.7 * phase.sin() + 0.3 * (2.0 * phase).cos())) as i16
    };
    (0..samples).map(sample).collect()
}

/// Power at a frequency (Goertzel), as a share of all power.
fn share_at(samples: &[i16], rate_hz: usize, pitch_hz: f64) -> f64 {
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        let phase = std::f64::consts::TAU * pitch_hz * n as f64 / rate_hz as f64;
        let sample = f64::from(sample);
        re += sample * phase.cos();
        im += sample * phase.sin();
        all += sample * sample;
    }
    2.0 * (re * re + im * im) / (samples.len() as f64 * all.max(1.0))
}

fn steepest(samples: &[i16]) -> i32 {
    samples
        .windows(2)
        .map(|pair| (i32::from(pair[1]) - i32::from(pair[0])).abs())
        .max()
        .unwrap_or(0)
}

fn rms(samples: &[i16]) -> f64 {
    let power: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    (power / samples.len() as f64).sqrt()
}

#[test]
fn a_harmonic_tone_stays_what_it_is_when_its_time_changes() {
    for rate_hz in [8000, 16_000, 24_000, 48_000] {
        let scale = TimeScale::new(rate_hz as u32);
        for pitch_hz in [80.0, 123.4, 200.0, 317.0] {
            let original = tone(rate_hz, pitch_hz, 10_000.0, rate_hz);
            let (pure, steep) = (share_at(&original, rate_hz, pitch_hz), steepest(&original));
            for faster in [true, false] {
                let mut line = original.clone();
                let mut changed = 0;
                for step in 1..10 {
                    let at = step * rate_hz / 20;
                    let lag = if faster {
                        scale.accelerate(&mut line, at, Care::Patient, usize::MAX)
                    } else {
                        scale.expand(&mut line, at, Care::Patient)
                    };
                    let lag = lag.unwrap_or_else(|| panic!("no seam in {pitch_hz} Hz at {rate_hz}"));
                    assert!(lag <= scale.longest());
                    changed += lag;
                    // A whole number of periods, to a sample and the width of the correlation's peak.
                    let periods = lag as f64 * pitch_hz / rate_hz as f64;
                    let off = (periods - periods.round()).abs() * rate_hz as f64 / pitch_hz;
                    assert!(
                        off <= 1.5 + rate_hz as f64 / 8000.0,
                        "{lag} samples: {periods} periods"
                    );
                }
                let expected = if faster {
                    line.len() + changed
                } else {
                    line.len() - changed
                };
                assert_eq!(expected, original.len());
                let what = format!("{pitch_hz} Hz at {rate_hz}, faster: {faster}");
                assert!(
                    steepest(&line) <= steep * 5 / 4,
                    "{what}: {} of {steep}",
                    steepest(&line)
                );
                // Between the seams it is the very tone, so that its power stays where it was but for a slow phase drift.
                let window = rate_hz / 10;
                for part in line.chunks_exact(window) {
                    let share = share_at(part, rate_hz, pitch_hz);
                    assert!(share > 0.85 * pure, "{what}: {share} of {pure}");
                    assert!((rms(part) / rms(&original) - 1.0).abs() < 0.1, "{what}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_periodic_is_left_alone_unless_it_is_quiet_or_urgent() {
    let scale = TimeScale::new(8000);
    let mut seeded = Seeded(9);
    let mut noise = |amplitude: f64| -> Vec<i16> {
        let samples = (0..800).map(|_| (amplitude * (seeded.uniform() - 0.5)) as i16);
        samples.collect()
    };
    let (mut loud, mut quiet) = (noise(20_000.0), noise(100.0));
    let before = loud.clone();
    assert_eq!(scale.accelerate(&mut loud, 200, Care::Patient, usize::MAX), None);
    assert_eq!(scale.expand(&mut loud, 200, Care::Patient), None);
    assert_eq!(loud, before);
    assert!(
        scale
            .accelerate(&mut quiet, 200, Care::Patient, usize::MAX)
            .is_some()
    );
    assert!(scale.expand(&mut quiet, 200, Care::Patient).is_some());
}

#[test]
fn too_little_around_the_seam_changes_nothing() {
    let scale = TimeScale::new(8000);
    let original = tone(8000, 200.0, 8000.0, 239);
    let mut line = original.clone();
    for at in [0, 1, 119, 120, 121, 239, 240] {
        assert_eq!(scale.accelerate(&mut line, at, Care::Urgent, usize::MAX), None);
        assert_eq!(scale.expand(&mut line, at, Care::Urgent), None);
    }
    line.extend_from_slice(&original);
    assert_eq!(
        scale.accelerate(&mut line, 0, Care::Urgent, 39),
        None,
        "less than the shortest stretch"
    );
    assert!(scale.accelerate(&mut line, 0, Care::Urgent, 40).is_some());
}

/// A spiky network without loss: the delay goes up and down, the tone does not.
#[test]
fn a_tone_through_a_spiky_network_keeps_its_pitch_and_has_no_clicks() {
    let mut spikes = Seeded(3);
    let trace = network(true, |_| {
        let spike = spikes.uniform() < 0.02;
        Some(2.0 * spikes.uniform() + if spike { 60.0 * spikes.uniform() } else { 0.0 })
    });
    let sound = tone(RATE_HZ, 200.0, 8000.0, 60 * RATE_HZ);
    let outcome = support::play(&trace, &sound, DelayParams::default(), 0);
    let stats = outcome.stats;
    println!("{stats:?}");
    assert!(
        stats.inserted > RATE_HZ as u64 / 10 && stats.removed > RATE_HZ as u64 / 10,
        "too easy: {stats:?}"
    );
    let mut codes = vec![0; sound.len()];
    encode_into(Law::Mu, &sound, &mut codes);
    let mut sent = vec![0; sound.len()];
    decode_into(Law::Mu, &codes, &mut sent);
    let pure = share_at(&sent[..800], RATE_HZ, 200.0);
    let heard = &outcome.heard[RATE_HZ..];
    let parts: Vec<f64> = heard
        .chunks_exact(800)
        .map(|part| share_at(part, RATE_HZ, 200.0) / pure)
        .collect();
    let pitched = parts.iter().filter(|&&share| share > 0.9).count();
    // Concealment by the test's own simple decoder is in the rest.
    assert!(pitched * 100 >= parts.len() * 97, "{pitched} of {}", parts.len());
    assert!(
        steepest(heard) <= steepest(&sent) * 3 / 2,
        "{} of {}",
        steepest(heard),
        steepest(&sent)
    );
}
