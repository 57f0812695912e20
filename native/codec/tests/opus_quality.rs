//! What the settings of our Opus encoder are worth, against the same encoder with more effort and fewer bits.

mod common;

use codec::{Codec, EncoderSettings};
use opus::Decoder;

const RATE_HZ: u32 = 24_000;
const FRAME: usize = 480;
/// Of the transform layer alone, and of the transform's overlap: 2.5 ms (RFC 7587 section 3.1.3).
const LOOKAHEAD: usize = 60;

/// How far the logarithmic spectra are from each other up to 12 kHz, in steps of 200 Hz: root of the mean square over
/// windows of 10 ms with sound.
fn spectral_distance_db(reference: &[i16], output: &[i16]) -> f64 {
    const WINDOW: usize = 240;
    let spectrum = |pcm: &[i16]| -> Vec<f64> {
        (1..60)
            .map(|step| {
                let turn = std::f64::consts::TAU * f64::from(step) * 200.0 / f64::from(RATE_HZ);
                let (mut re, mut im) = (0.0, 0.0);
                for (n, &sample) in pcm.iter().enumerate() {
                    let weight =
                        f64::from(sample) * (std::f64::consts::PI * (n as f64 + 0.5) / WINDOW as f64).sin();
                    re += weight * (turn * n as f64).cos();
                    im += weight * (turn * n as f64).sin();
                }
                10.0 * (re * re + im * im + 1e6).log10()
            })
            .collect()
    };
    let (mut sum, mut count) = (0.0, 0.0);
    let windows = reference.windows(WINDOW).zip(output.windows(WINDOW));
    for (a, b) in windows.step_by(WINDOW / 2) {
        if a.iter().any(|sample| sample.unsigned_abs() > 200) {
            let pairs = spectrum(a).into_iter().zip(spectrum(b));
            sum += pairs.map(|(x, y)| (x - y).powi(2)).sum::<f64>() / 59.0;
            count += 1.0;
        }
    }
    f64::sqrt(sum / count)
}

/// Bursts of noise out of a quiet room, as plosives are, at all places within a frame.
fn plosives() -> Vec<i16> {
    let mut state = 1_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 48) as f64 / 32768.0 - 1.0
    };
    let at = |n: usize| n % 6_037;
    (0..6_037 * 40)
        .map(|n| {
            let level = match at(n) {
                3_000.. => 12_000.0 * (-((at(n) - 3_000) as f64) / 500.0).exp(),
                _ => 0.0,
            };
            (noise() * (level + 15.0)) as i16
        })
        .collect()
}

/// How loud it is in the 10 ms before the bursts, against the bursts.
fn pre_echo_db(pcm: &[i16]) -> f64 {
    let (mut before, mut burst) = (0.0, 0.0);
    for begin in (3_000..pcm.len() - 1_000).step_by(6_037) {
        let power = |part: &[i16]| part.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        before += power(&pcm[begin - 250..begin - 10]);
        burst += power(&pcm[begin..begin + 240]);
    }
    10.0 * (before / burst).log10()
}

/// There and back again, in the place of the original.
fn coded(pcm: &[i16], settings: EncoderSettings) -> Vec<i16> {
    let mut encoder = codec::Encoder::new(Codec::Opus, settings).unwrap();
    let mut decoder = Decoder::new(RATE_HZ).unwrap();
    let (mut packet, mut frame, mut output) = ([0; 1276], [0; FRAME], Vec::new());
    for samples in pcm.chunks_exact(FRAME) {
        let length = encoder.encode(samples, &mut packet).unwrap();
        decoder.decode(&packet[..length], &mut frame).unwrap();
        output.extend(frame);
    }
    output.split_off(LOOKAHEAD)
}

/// Effort in every frame.
fn laborious() -> EncoderSettings {
    EncoderSettings {
        bitrate_bps: 32_000,
        complexity: 4,
        steady_complexity: 4,
        dtx: false,
    }
}

/// 8 kbit/s more sound nearer to the original than effort in every frame does.
#[test]
fn bits_are_worth_more_than_effort() {
    for pcm in [common::voice(RATE_HZ, 2, 1), plosives()] {
        let [ours, theirs] = [EncoderSettings::default(), laborious()]
            .map(|settings| spectral_distance_db(&pcm, &coded(&pcm, settings)));
        println!("{ours:.2} dB, with effort in every frame {theirs:.2} dB");
        assert!(ours < 0.95 * theirs);
    }
}

/// The noise of an onset does not spread over the quiet before it: for that, effort is needed.
#[test]
fn effort_is_made_at_onsets() {
    let pcm = plosives();
    let echo_db = |settings| pre_echo_db(&coded(&pcm, settings));
    let (ours, theirs) = (echo_db(EncoderSettings::default()), echo_db(laborious()));
    let never = echo_db(EncoderSettings {
        complexity: 0,
        ..EncoderSettings::default()
    });
    println!("{ours:.1} dB, with effort in every frame {theirs:.1} dB, in none {never:.1} dB");
    assert!(ours < theirs - 2.0);
    assert!(never > ours + 10.0);
}

#[test]
fn effort_out_of_range_is_refused() {
    for (complexity, steady_complexity) in [(11, 0), (0, 11)] {
        let settings = EncoderSettings {
            complexity,
            steady_complexity,
            ..EncoderSettings::default()
        };
        assert!(codec::Encoder::new(Codec::Opus, settings).is_err());
    }
}
