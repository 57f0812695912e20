//! What the resampler does to tones, impulses and chunk boundaries, measured.

use codec::resample::{ResampleError, Resampler};
use proptest::prelude::*;
use std::f64::consts::TAU;

const RATES_HZ: [u32; 4] = [8000, 16000, 24000, 48000];
const AMPLITUDE: f64 = 20_000.0;

fn pairs() -> impl Iterator<Item = (u32, u32)> {
    let all = RATES_HZ
        .into_iter()
        .flat_map(|from_hz| RATES_HZ.map(|to_hz| (from_hz, to_hz)));
    all.filter(|(from_hz, to_hz)| from_hz != to_hz)
}

fn tone(rate_hz: u32, frequency_hz: f64, samples: usize) -> Vec<i16> {
    let turn = TAU * frequency_hz / f64::from(rate_hz);
    (0..samples)
        .map(|n| (AMPLITUDE * (turn * n as f64).sin()).round() as i16)
        .collect()
}

fn convert(from_hz: u32, to_hz: u32, input: &[i16]) -> Vec<i16> {
    let mut output = Vec::new();
    Resampler::new(from_hz, to_hz)
        .unwrap()
        .process(input, &mut output);
    output
}

/// Level of one frequency relative to the tone that was put in, in dB, over the settled part of `output`.
fn level_db(output: &[i16], rate_hz: u32, frequency_hz: f64) -> f64 {
    let settled = &output[output.len() / 5..];
    let turn = TAU * frequency_hz / f64::from(rate_hz);
    let (mut re, mut im, mut weight) = (0.0, 0.0, 0.0);
    for (n, &sample) in settled.iter().enumerate() {
        // A Hann window keeps other tones out of the measurement.
        let window = 0.5 - 0.5 * (TAU * n as f64 / settled.len() as f64).cos();
        re += window * f64::from(sample) * (turn * n as f64).cos();
        im += window * f64::from(sample) * (turn * n as f64).sin();
        weight += window;
    }
    20.0 * (2.0 * re.hypot(im) / weight / AMPLITUDE).log10()
}

/// Where a tone of `frequency_hz` shows up after sampling at `rate_hz`.
fn folded(frequency_hz: f64, rate_hz: u32) -> f64 {
    let rate_hz = f64::from(rate_hz);
    let within = frequency_hz.rem_euclid(rate_hz);
    within.min(rate_hz - within)
}

fn grid(from_hz: f64, to_hz: f64) -> impl Iterator<Item = f64> {
    (0..=20).map(move |step| from_hz + (to_hz - from_hz) * f64::from(step) / 20.0)
}

#[test]
fn pass_band_ripple_is_below_a_hundredth_of_a_decibel() {
    for (from_hz, to_hz) in pairs() {
        let edge_hz = 0.425 * f64::from(from_hz.min(to_hz));
        let mut worst_db = 0.0_f64;
        for frequency_hz in grid(50.0, edge_hz) {
            let output = convert(from_hz, to_hz, &tone(from_hz, frequency_hz, from_hz as usize / 4));
            worst_db = worst_db.max(level_db(&output, to_hz, frequency_hz).abs());
        }
        println!("{from_hz} -> {to_hz}: ripple {worst_db:.4} dB up to {edge_hz} Hz");
        assert!(worst_db < 0.01, "{from_hz} -> {to_hz}: {worst_db} dB");
    }
}

#[test]
fn images_and_aliases_are_75_decibels_down() {
    for (from_hz, to_hz) in pairs() {
        let low_hz = f64::from(from_hz.min(to_hz));
        let mut worst_db = f64::MIN;
        if to_hz > from_hz {
            // A pass-band tone leaves images around the multiples of the old rate.
            for frequency_hz in grid(50.0, 0.425 * low_hz) {
                let output = convert(from_hz, to_hz, &tone(from_hz, frequency_hz, from_hz as usize / 4));
                for multiple in 1..to_hz.div_ceil(from_hz) {
                    for sign in [-1.0, 1.0] {
                        let image_hz = folded(f64::from(multiple * from_hz) + sign * frequency_hz, to_hz);
                        if (image_hz - frequency_hz).abs() > 100.0 {
                            worst_db = worst_db.max(level_db(&output, to_hz, image_hz));
                        }
                    }
                }
            }
        } else {
            // A tone above the new band folds into it.
            for frequency_hz in grid(0.575 * low_hz, 0.49 * f64::from(from_hz)) {
                let output = convert(from_hz, to_hz, &tone(from_hz, frequency_hz, from_hz as usize / 4));
                worst_db = worst_db.max(level_db(&output, to_hz, folded(frequency_hz, to_hz)));
            }
        }
        println!("{from_hz} -> {to_hz}: stop band {worst_db:.1} dB");
        assert!(worst_db < -75.0, "{from_hz} -> {to_hz}: {worst_db} dB");
    }
}

/// Whatever else comes out, at any frequency: images, aliases, also those of the rational pairs, and rounding.
#[test]
fn nothing_but_the_tone_comes_out_of_the_pass_band() {
    for (from_hz, to_hz) in pairs() {
        // Multiples of 50 Hz have whole periods in the settled 200 ms.
        let highest = (0.425 * f64::from(from_hz.min(to_hz)) / 50.0) as u32;
        let mut worst_db = f64::MIN;
        for frequency_hz in (0..12).map(|n| f64::from(1 + (highest - 1) * n / 11) * 50.0) {
            let output = convert(from_hz, to_hz, &tone(from_hz, frequency_hz, from_hz as usize / 4));
            let settled = &output[to_hz as usize / 20..];
            let turn = TAU * frequency_hz / f64::from(to_hz);
            let (mut re, mut im) = (0.0, 0.0);
            for (n, &sample) in settled.iter().enumerate() {
                re += 2.0 * f64::from(sample) * (turn * n as f64).cos() / settled.len() as f64;
                im += 2.0 * f64::from(sample) * (turn * n as f64).sin() / settled.len() as f64;
            }
            let rest = settled.iter().enumerate().map(|(n, &sample)| {
                let fitted = re * (turn * n as f64).cos() + im * (turn * n as f64).sin();
                (f64::from(sample) - fitted).powi(2)
            });
            let rest = rest.sum::<f64>() / settled.len() as f64;
            worst_db = worst_db.max(10.0 * (2.0 * rest / AMPLITUDE.powi(2)).log10());
        }
        println!("{from_hz} -> {to_hz}: everything else {worst_db:.1} dB");
        assert!(worst_db < -73.0, "{from_hz} -> {to_hz}: {worst_db} dB");
    }
}

#[test]
fn an_impulse_peaks_after_the_stated_delay() {
    for (from_hz, to_hz) in pairs() {
        let delay_us = Resampler::new(from_hz, to_hz).unwrap().delay_us();
        assert!((1..=2000).contains(&delay_us), "{from_hz} -> {to_hz}: {delay_us}");
        // An instant that both rates sample.
        let mut input = vec![0; from_hz as usize / 50];
        input[from_hz as usize / 200] = 30_000;
        let output = convert(from_hz, to_hz, &input);
        let peak = (0..output.len()).max_by_key(|&n| output[n]).unwrap();
        let peak_us = peak as u32 * 1000 / (to_hz / 1000);
        assert!(
            peak_us.abs_diff(5000 + delay_us) <= 500_000 / to_hz,
            "{from_hz} -> {to_hz}: {peak_us}"
        );
    }
}

#[test]
fn a_constant_stays_a_constant() {
    for (from_hz, to_hz) in pairs() {
        for value in [i16::MIN, -1, 0, 12_345, i16::MAX] {
            let output = convert(from_hz, to_hz, &vec![value; from_hz as usize / 50]);
            let settled = &output[output.len() / 2..];
            assert!(
                settled.iter().all(|&sample| sample == value),
                "{from_hz} -> {to_hz}: {settled:?}"
            );
        }
    }
}

#[test]
fn overshoot_clips_instead_of_wrapping() {
    let square: Vec<i16> = (0..400)
        .map(|n| if n / 20 % 2 == 0 { i16::MAX } else { i16::MIN })
        .collect();
    let output = convert(8000, 16000, &square);
    let delay = 32;
    for (n, &sample) in output[delay..].iter().enumerate() {
        let within = n % 40;
        if (4..36).contains(&within) {
            assert!(i32::from(sample).abs() > 25_000, "{n}: {sample}");
            assert_eq!(sample > 0, n / 40 % 2 == 0, "{n}: {sample}");
        }
    }
    assert!(output.contains(&i16::MAX));
}

#[test]
fn doubling_keeps_the_original_samples() {
    let input = tone(8000, 440.0, 800);
    let output = convert(8000, 16000, &input);
    for (n, sample) in input[..700].iter().enumerate() {
        assert!(output[2 * n + 32].abs_diff(*sample) <= 1, "{n}");
    }
}

#[test]
fn equal_rates_pass_through() {
    let input = tone(8000, 440.0, 100);
    assert_eq!(convert(8000, 8000, &input), input);
    assert_eq!(Resampler::new(8000, 8000).unwrap().delay_us(), 0);
}

#[test]
fn other_rates_are_refused() {
    assert_eq!(
        Resampler::new(44_100, 8000).unwrap_err(),
        ResampleError::UnsupportedRate(44_100)
    );
    assert_eq!(
        Resampler::new(8000, 0).unwrap_err(),
        ResampleError::UnsupportedRate(0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunking_changes_nothing(
        from in 0..4_usize,
        to in 0..4_usize,
        input in prop::collection::vec(any::<i16>(), 0..3000),
        cuts in prop::collection::vec(0..3000_usize, 0..20),
    ) {
        let (from_hz, to_hz) = (RATES_HZ[from], RATES_HZ[to]);
        let whole = convert(from_hz, to_hz, &input);
        prop_assert_eq!(whole.len(), (input.len() * to_hz as usize).div_ceil(from_hz as usize));

        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let mut resampler = Resampler::new(from_hz, to_hz).unwrap();
        for _ in 0..2 {
            let mut pieces = Vec::new();
            for pair in cuts.windows(2) {
                resampler.process(&input[pair[0]..pair[1]], &mut pieces);
            }
            prop_assert_eq!(&whole, &pieces);
            resampler.reset();
        }
    }
}
