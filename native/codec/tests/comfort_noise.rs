//! Comfort noise both ways: its level, its spectrum, and any payload at all.

use codec::comfort_noise::{NoiseEstimator, NoiseGenerator, NoiseParameters, ORDER_MAX};
use proptest::prelude::*;
use std::f64::consts::TAU;

const RATE_HZ: u32 = 8000;

fn noise(parameters: &NoiseParameters, seed: u64, samples: usize) -> Vec<i16> {
    let mut generator = NoiseGenerator::new(RATE_HZ, seed);
    generator.set(parameters);
    let mut pcm = Vec::new();
    generator.generate(samples, &mut pcm);
    pcm
}

fn estimate(pcm: &[i16], order: usize) -> NoiseParameters {
    let mut estimator = NoiseEstimator::new(RATE_HZ);
    pcm.chunks(160).for_each(|frame| estimator.hear(frame));
    estimator.parameters(order)
}

fn level_dbov(pcm: &[i16]) -> f64 {
    let power: f64 = pcm.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    20.0 * ((power / pcm.len() as f64).sqrt() / 32_768.0).log10()
}

/// Power in the 250 Hz around each of 250, 750, … 3750 Hz, in dB, by averaged short spectra.
fn spectrum_db(pcm: &[i16]) -> Vec<f64> {
    let band = |index: u32| {
        let bins = 16 * index + 4..16 * index + 12;
        let power: f64 = pcm
            .chunks_exact(256)
            .flat_map(|chunk| bins.clone().map(move |bin| (chunk, bin)))
            .map(|(chunk, bin)| {
                let turn = TAU * f64::from(bin) / 256.0;
                let (mut re, mut im) = (0.0, 0.0);
                for (n, &sample) in chunk.iter().enumerate() {
                    let windowed = f64::from(sample) * (0.5 - 0.5 * (TAU * n as f64 / 256.0).cos());
                    re += windowed * (turn * n as f64).cos();
                    im += windowed * (turn * n as f64).sin();
                }
                re * re + im * im
            })
            .sum();
        10.0 * power.log10()
    };
    (0..8).map(band).collect()
}

/// RFC 3389, 3.1 and 3.2: seven bits of level; 127 is zero, and a step is 258 of 2^15.
#[test]
fn payloads_are_read_as_the_rfc_says() {
    let parameters = NoiseParameters::parse(&[0xb2, 127, 128, 0, 254, 255]).unwrap();
    assert_eq!((parameters.level, parameters.order), (50, 5));
    let expected = [
        0.0,
        258.0 / 32_768.0,
        -127.0 * 258.0 / 32_768.0,
        127.0 * 258.0 / 32_768.0,
        1.0,
    ];
    assert_eq!(parameters.reflections[..5], expected);
    assert_eq!(NoiseParameters::parse(&[]), None);
    assert_eq!(NoiseParameters::parse(&[78]), Some(NoiseParameters::white(78)));

    let mut out = [9; 7];
    assert_eq!(parameters.write(&mut out), 6);
    assert_eq!(out, [50, 127, 128, 0, 254, 254, 9]);
    assert_eq!(parameters.write(&mut out[..2]), 2);
    assert_eq!(parameters.write(&mut []), 0);
}

#[test]
fn the_level_is_within_a_decibel() {
    for (coded, level) in [
        (&[][..], 20),
        (&[], 40),
        (&[], 70),
        (&[60, 140, 120], 35),
        (&[200, 160], 50),
        (&[2], 45),
    ] {
        let payload = [&[level], coded].concat();
        let pcm = noise(&NoiseParameters::parse(&payload).unwrap(), 1, 40_000);
        let heard_dbov = level_dbov(&pcm);
        assert!(
            (heard_dbov + f64::from(level)).abs() < 1.0,
            "{payload:?}: {heard_dbov} dBov"
        );
        assert!(estimate(&pcm, 0).level.abs_diff(level) <= 1, "{payload:?}");
    }
    assert!(
        noise(&NoiseParameters::white(127), 1, 1000)
            .iter()
            .all(|&sample| sample == 0)
    );
}

#[test]
fn white_noise_is_white_and_tilted_noise_is_tilted() {
    let white = spectrum_db(&noise(&NoiseParameters::white(30), 2, 40_000));
    let mean_db = white.iter().sum::<f64>() / 8.0;
    assert!(
        white.iter().all(|band_db| (band_db - mean_db).abs() < 1.0),
        "{white:?}"
    );

    // One pole at ±0.7: 20·log10(1.7/0.3) = 15 dB from one end of the band to the other.
    for (code, falls) in [(127 - 89, true), (127 + 89, false)] {
        let tilted = spectrum_db(&noise(&NoiseParameters::parse(&[30, code]).unwrap(), 3, 40_000));
        let fall_db = tilted[0] - tilted[7];
        assert_eq!(fall_db > 0.0, falls);
        assert!((13.0..16.0).contains(&fall_db.abs()), "{fall_db}");
    }
}

#[test]
fn a_spectrum_survives_description_and_generation() {
    // A car: a low rumble; and a fan: a hump at 1 kHz.
    for coded in [&[50, 140, 127, 120][..], &[60, 220, 127, 135, 125, 130]] {
        let original = noise(
            &NoiseParameters::parse(&[&[40], coded].concat()).unwrap(),
            4,
            40_000,
        );
        let mut payload = [0; 11];
        assert_eq!(estimate(&original, 10).write(&mut payload), 11);
        let copy = noise(&NoiseParameters::parse(&payload).unwrap(), 5, 40_000);
        for (a, b) in spectrum_db(&original).iter().zip(spectrum_db(&copy)) {
            assert!((a - b).abs() < 2.0, "{a} {b} {payload:?}");
        }
        // The estimate finds the coefficients that made it.
        for (a, b) in payload[1..].iter().zip(coded) {
            assert!(a.abs_diff(*b) < 15, "{payload:?} {coded:?}");
        }
    }
}

#[test]
fn silence_and_full_scale_are_described() {
    assert_eq!(estimate(&[0; 800], 10).level, 127);
    assert_eq!(NoiseEstimator::new(RATE_HZ).parameters(10).level, 127);
    assert_eq!(estimate(&[i16::MIN; 800], 10).level, 0);
}

#[test]
fn a_change_of_level_is_no_step() {
    let mut generator = NoiseGenerator::new(RATE_HZ, 6);
    let mut pcm = Vec::new();
    generator.generate(160, &mut pcm);
    assert_eq!(pcm, [0; 160], "silent until told");
    for (level, least_dbov, most_dbov) in [(70, -72.0, -68.0), (30, -55.0, -33.0), (30, -32.0, -28.0)] {
        generator.set(&NoiseParameters::white(level));
        pcm.clear();
        generator.generate(
            if level == 30 && least_dbov < -40.0 {
                80
            } else {
                4000
            },
            &mut pcm,
        );
        let heard_dbov = level_dbov(&pcm);
        assert!(
            (least_dbov..most_dbov).contains(&heard_dbov),
            "{level}: {heard_dbov}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_payloads_are_safe(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..10), seed: u64) {
        let mut generator = NoiseGenerator::new(RATE_HZ, seed);
        let mut pcm = Vec::new();
        for payload in &payloads {
            if let Some(parameters) = NoiseParameters::parse(payload) {
                generator.set(&parameters);
                // What was read is written back, but for the bit without a meaning and the code beyond one.
                let mut out = [0; ORDER_MAX + 1];
                let octets = parameters.write(&mut out);
                prop_assert_eq!(NoiseParameters::parse(&out[..octets]).unwrap().level, payload[0] & 0x7f);
                for (a, b) in out[1..octets].iter().zip(&payload[1..]) {
                    prop_assert_eq!(*a, (*b).min(254));
                }
            }
            generator.generate(160, &mut pcm);
        }
        prop_assert_eq!(pcm.len(), 160 * payloads.len());
    }

    #[test]
    fn any_audio_is_described(pcm in prop::collection::vec(any::<i16>(), 0..2000), chunk in 1..400_usize, order in 0..20_usize) {
        let mut estimator = NoiseEstimator::new(RATE_HZ);
        pcm.chunks(chunk).for_each(|frame| estimator.hear(frame));
        let parameters = estimator.parameters(order);
        prop_assert!(parameters.reflections.iter().all(|k| k.abs() < 1.0));
        prop_assert!(parameters.order <= ORDER_MAX && parameters.level <= 127);
    }
}
