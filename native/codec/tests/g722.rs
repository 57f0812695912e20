//! G.722 against two independent implementations, and what it does to tones.
//!
//! `vectors/g722_ffmpeg.bin` is the signal below as libavcodec 62.28 encodes it; libg722 1.2.8 gives
//! the same octets. The hashes are of what both decode.

use codec::g722::{Decoder, Encoder};
use proptest::prelude::*;
use std::f64::consts::TAU;

const ENCODED: &[u8] = include_bytes!("vectors/g722_ffmpeg.bin");

/// A linear congruential generator: the same numbers in any language.
fn random_bits(state: &mut u32) -> i32 {
    *state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345) & 0x7fff_ffff;
    (*state >> 15) as i32
}

fn triangle(n: i32, period: i32) -> i32 {
    let place = n % period;
    (2 * place - period).abs() * 2 * 1000 / period - 1000
}

/// Silence, noise, tones, clipped tones, a full-scale square: an eighth of 8000 samples each.
fn signal() -> Vec<i16> {
    let mut state = 1;
    let sample = |n: i32| {
        let noise = random_bits(&mut state) - 32_768;
        let x = match n / 1000 {
            0 => 0,
            1 => noise.div_euclid(8),
            2 => 9 * triangle(n, 37) + 5 * triangle(n, 11),
            3 => 32 * triangle(n, 23),
            4 => noise,
            5 => 20 * triangle(n, 5) + noise.div_euclid(64),
            6 => [-32_768, 32_767][(n / 9 % 2) as usize],
            _ => triangle(n, 50).div_euclid(20),
        };
        x.clamp(-32_768, 32_767) as i16
    };
    (0..8000).map(sample).collect()
}

/// FNV-1a over the samples in little endian.
fn hash(samples: &[i16]) -> u64 {
    let octets = samples.iter().flat_map(|sample| sample.to_le_bytes());
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn decode(codes: &[u8]) -> Vec<i16> {
    let mut samples = vec![0; 2 * codes.len()];
    assert_eq!(Decoder::default().decode_into(codes, &mut samples), samples.len());
    samples
}

fn encode(samples: &[i16]) -> Vec<u8> {
    let mut codes = vec![0; samples.len() / 2];
    assert_eq!(Encoder::default().encode_into(samples, &mut codes), codes.len());
    codes
}

#[test]
fn encoding_is_bit_exact() {
    assert_eq!(hash(&signal()), 0x1aca_506d_fcc1_29b2);
    assert_eq!(encode(&signal()), ENCODED);
}

#[test]
fn decoding_is_bit_exact() {
    assert_eq!(hash(&decode(ENCODED)), 0xfc72_690f_8bd9_f07a);
}

#[test]
fn decoding_octets_that_no_encoder_made_is_bit_exact() {
    let mut state = 7;
    let octets: Vec<u8> = (0..8000).map(|_| (random_bits(&mut state) >> 1) as u8).collect();
    assert_eq!(hash(&decode(&octets)), 0xfb8e_c998_db32_6945);
}

/// Ratio of a tone to whatever else comes out, in dB, after the filters' 22 samples and the adaptation.
fn tone_snr_db(frequency_hz: f64) -> f64 {
    let turn = TAU * frequency_hz / 16_000.0;
    let tone: Vec<i16> = (0..8000)
        .map(|n| (8000.0 * (turn * f64::from(n)).sin()) as i16)
        .collect();
    let output = &decode(&encode(&tone))[1600..];
    let (mut re, mut im, mut power) = (0.0, 0.0, 0.0);
    for (n, &sample) in output.iter().enumerate() {
        re += f64::from(sample) * (turn * n as f64).cos();
        im += f64::from(sample) * (turn * n as f64).sin();
        power += f64::from(sample).powi(2);
    }
    let tone_power = 2.0 * (re * re + im * im) / output.len() as f64;
    10.0 * (tone_power / (power - tone_power)).log10()
}

/// Six bits below 4 kHz, two above.
#[test]
fn tones_survive_with_the_ratio_of_their_band() {
    for (frequency_hz, least_db) in [
        (300.0, 30.0),
        (1000.0, 30.0),
        (3000.0, 30.0),
        (5000.0, 12.0),
        (6500.0, 12.0),
    ] {
        let snr_db = tone_snr_db(frequency_hz);
        println!("{frequency_hz} Hz: {snr_db:.1} dB");
        assert!(snr_db > least_db, "{frequency_hz} Hz: {snr_db} dB");
    }
}

#[test]
fn lengths_are_the_shorter_of_both() {
    let mut samples = [7; 5];
    assert_eq!(Decoder::default().decode_into(&[0; 9], &mut samples), 4);
    assert_eq!(samples[4], 7);
    assert_eq!(Decoder::default().decode_into(&[0; 2], &mut [0; 5]), 4);
    assert_eq!(Encoder::default().encode_into(&[0; 7], &mut [0; 9]), 3);
    assert_eq!(Encoder::default().encode_into(&[0; 7], &mut [0; 2]), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunking_changes_nothing(codes in prop::collection::vec(any::<u8>(), 0..500), cut in 0..500_usize) {
        let cut = cut.min(codes.len());
        let mut pieces = vec![0; 2 * codes.len()];
        let (before, after) = pieces.split_at_mut(2 * cut);
        let mut decoder = Decoder::default();
        decoder.decode_into(&codes[..cut], before);
        decoder.decode_into(&codes[cut..], after);
        prop_assert_eq!(decode(&codes), pieces);
    }

    #[test]
    fn any_samples_encode(samples in prop::collection::vec(any::<i16>(), 0..1000)) {
        decode(&encode(&samples));
    }
}
