//! What concealment is worth: against silence and against repeating the last packet, under random and bursty loss.

mod common;

use codec::plc::Concealment;
use common::{Random, voice};
use proptest::prelude::*;

/// Which of `frames` frames are lost: about `rate` of them, in bursts of `burst` on average (Gilbert's two states).
fn losses(frames: usize, rate: f64, burst: f64, seed: u64) -> Vec<bool> {
    let mut random = Random(seed);
    let mut lost = false;
    let enter = rate / (1.0 - rate) / burst;
    (0..frames)
        .map(|_| {
            lost = random.unit() < if lost { 1.0 - 1.0 / burst } else { enter };
            lost
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Method {
    Silence,
    Repetition,
    Concealment,
}

fn receive(signal: &[i16], rate_hz: u32, lost: &[bool], method: Method) -> Vec<i16> {
    let frame = rate_hz as usize / 50;
    let mut concealment = Concealment::new(rate_hz);
    let mut heard = vec![0; frame];
    let mut output = Vec::new();
    for (original, &lost) in signal.chunks_exact(frame).zip(lost) {
        match (lost, method) {
            (true, Method::Silence) => heard.fill(0),
            (true, Method::Repetition) => {}
            (true, Method::Concealment) => concealment.lost(&mut heard),
            (false, _) => {
                heard.copy_from_slice(original);
                if method == Method::Concealment {
                    concealment.good(&mut heard);
                }
            }
        }
        output.extend_from_slice(&heard);
    }
    output
}

/// Mean over the lost frames, each with the 5 ms after it, of the ratio of signal to error, each held between -10 and
/// 35 dB; frames without speech do not count.
fn segmental_snr_db(signal: &[i16], output: &[i16], frame: usize, lost: &[bool]) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for n in (0..lost.len() - 1).filter(|&n| lost[n]) {
        let (a, b) = (
            &signal[n * frame..][..frame * 5 / 4],
            &output[n * frame..][..frame * 5 / 4],
        );
        let power: f64 = a.iter().map(|&x| f64::from(x).powi(2)).sum();
        if power / (frame as f64) < 200.0_f64.powi(2) {
            continue;
        }
        let error: f64 = a
            .iter()
            .zip(b)
            .map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
            .sum();
        sum += (10.0 * (power / error.max(1.0)).log10()).clamp(-10.0, 35.0);
        count += 1.0;
    }
    sum / count
}

/// Mean over the lost frames of the difference of the spectra's logarithms, in dB: an error that phase does not hide.
fn spectral_distance_db(signal: &[i16], output: &[i16], frame: usize, lost: &[bool]) -> f64 {
    let spectrum = |pcm: &[i16]| -> Vec<f64> {
        (2..32)
            .map(|band| {
                let turn = std::f64::consts::PI * f64::from(band) / 40.0 * 160.0 / frame as f64;
                let (mut re, mut im) = (0.0, 0.0);
                for (n, &sample) in pcm.iter().enumerate() {
                    let weight =
                        f64::from(sample) * (std::f64::consts::PI * (n as f64 + 0.5) / frame as f64).sin();
                    re += weight * (turn * n as f64).cos();
                    im += weight * (turn * n as f64).sin();
                }
                10.0 * (re * re + im * im + 1e5).log10()
            })
            .collect()
    };
    let (mut sum, mut count) = (0.0, 0.0);
    let frames = signal.chunks_exact(frame).zip(output.chunks_exact(frame));
    for (_, (a, b)) in frames.enumerate().filter(|(n, _)| lost[*n]) {
        let squares: f64 = spectrum(a)
            .iter()
            .zip(spectrum(b))
            .map(|(x, y)| (x - y).powi(2))
            .sum();
        sum += (squares / 30.0).sqrt();
        count += 1.0;
    }
    sum / count
}

#[test]
fn concealment_is_nearer_than_silence_and_repetition() {
    for rate_hz in [8000, 16_000] {
        let signal = voice(rate_hz, 12, 1);
        let frame = rate_hz as usize / 50;
        for burst in [1.0, 2.5] {
            let lost = losses(signal.len() / frame, 0.05, burst, 2);
            let [silence, repetition, concealment] = [
                Method::Silence,
                Method::Repetition,
                Method::Concealment,
            ]
            .map(|method| {
                let output = receive(&signal, rate_hz, &lost, method);
                let snr_db = segmental_snr_db(&signal, &output, frame, &lost);
                let distance_db = spectral_distance_db(&signal, &output, frame, &lost);
                println!(
                    "{rate_hz} Hz, bursts of {burst}, {method:?}: {snr_db:.2} dB, {distance_db:.2} dB apart"
                );
                (snr_db, distance_db)
            });
            // Repetition has the spectrum and not the phase, silence neither; but silence is never further off than
            // the signal is loud, which no extrapolation can promise.
            assert!(concealment.0 > repetition.0 + 2.0);
            assert!(concealment.0 > silence.0 - 0.5);
            assert!(concealment.1 < silence.1 / 2.0);
            assert!(concealment.1 < repetition.1 + 1.0);
        }
    }
}

#[test]
fn good_audio_is_untouched_until_a_loss_and_soon_after() {
    let signal = voice(8000, 1, 3);
    let mut lost = vec![false; 50];
    lost[20] = true;
    let output = receive(&signal, 8000, &lost, Method::Concealment);
    assert_eq!(output[..20 * 160], signal[..20 * 160]);
    assert_eq!(output[21 * 160 + 40..], signal[21 * 160 + 40..]);
}

/// No click: where a loss begins and where it ends, neighbours differ no more than the signal's own do.
#[test]
fn the_joins_are_smooth() {
    for period in 20..100 {
        let signal: Vec<i16> = (0..1600)
            .map(|n| (8000.0 * (std::f64::consts::TAU * f64::from(n) / f64::from(period)).sin()) as i16)
            .collect();
        let step = |pcm: &[i16]| {
            pcm.windows(2)
                .map(|pair| pair[0].abs_diff(pair[1]))
                .max()
                .unwrap()
        };
        let mut lost = [false; 10];
        lost[4] = true;
        lost[5] = true;
        let output = receive(&signal, 8000, &lost, Method::Concealment);
        assert!(step(&output) < step(&signal) * 3 / 2, "{period}");
    }
}

#[test]
fn a_long_loss_is_silent_after_60_ms() {
    let mut concealment = Concealment::new(16_000);
    concealment.good(&mut voice(16_000, 1, 4)[..8000]);
    let mut pcm = [1; 1600];
    concealment.lost(&mut pcm);
    assert!(pcm[..800].iter().any(|&sample| sample.abs() > 100));
    assert_eq!(pcm[960..], [0; 640]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any audio in any pieces: no panic.
    #[test]
    fn any_audio_is_safe(pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<i16>(), 0..700)), 0..12)) {
        let mut concealment = Concealment::new(8000);
        for (lost, mut pcm) in pieces {
            if lost { concealment.lost(&mut pcm) } else { concealment.good(&mut pcm) }
        }
    }
}
