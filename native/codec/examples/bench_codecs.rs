//! What the codecs cost: CPU-ms per call-second, each way, on one core; then Opus by application and complexity.
//!
//! `cargo run --release -p codec --example bench_codecs [--no-settings] [speech48k.raw]`: 16-bit mono at 48 kHz instead of
//! the synthetic voice; without the settings of Opus it takes a few seconds.

#[path = "../tests/common/mod.rs"]
mod common;

use codec::comfort_noise::{NoiseEstimator, NoiseGenerator};
use codec::resample::Resampler;
use codec::{Codec, Decoder, Encoder, EncoderSettings};
use opus::{Application, Settings};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;

/// Enough repetitions for a measurement: each figure takes about this much CPU time.
const MEASURE_MS: f64 = 150.0;

fn cpu_ms() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// CPU-ms per second of audio of `work`, which handles `seconds` of it.
fn cost(seconds: f64, mut work: impl FnMut()) -> f64 {
    work();
    let start = cpu_ms();
    let mut rounds = 0.0;
    while cpu_ms() - start < MEASURE_MS {
        work();
        rounds += 1.0;
    }
    (cpu_ms() - start) / (rounds * seconds)
}

fn at_rate(speech: &[i16], rate_hz: u32) -> Vec<i16> {
    let mut pcm = Vec::new();
    Resampler::new(48_000, rate_hz).unwrap().process(speech, &mut pcm);
    pcm
}

fn codecs(speech: &[i16]) {
    println!("| codec | encode | decode | conceal |\n| --- | --- | --- | --- |");
    for codec in Codec::ALL {
        let pcm = at_rate(speech, codec.encoded_hz());
        let seconds = pcm.len() as f64 / f64::from(codec.encoded_hz());
        let frame = codec.encoded_hz() as usize / 50;
        let mut encoder = Encoder::new(codec, EncoderSettings::default()).unwrap();
        let mut payload = vec![0; codec.payload_max()];
        let mut payloads = Vec::new();
        for frame in pcm.chunks_exact(frame) {
            let octets = encoder.encode(frame, &mut payload).unwrap();
            payloads.push(payload[..octets].to_vec());
        }
        let encoding = cost(seconds, || {
            for frame in pcm.chunks_exact(frame) {
                black_box(encoder.encode(frame, &mut payload).unwrap());
            }
        });
        let mut decoder = Decoder::new(codec).unwrap();
        let mut output = Vec::new();
        let decoding = cost(seconds, || {
            for payload in &payloads {
                output.clear();
                decoder.decode(payload, &mut output).unwrap();
                black_box(&output);
            }
        });
        // A loss after every good packet: the analysis is what costs.
        let lossy = cost(seconds, || {
            for payload in payloads.iter().step_by(2) {
                output.clear();
                decoder.decode(payload, &mut output).unwrap();
                decoder.conceal(codec.decoded_hz() as usize / 50, &mut output);
                black_box(&output);
            }
        });
        let concealing = 2.0 * lossy - decoding;
        println!(
            "| {} | {encoding:.3} | {decoding:.3} | {concealing:.3} |",
            codec.name()
        );
    }
}

fn comfort_noise(speech: &[i16]) {
    let pcm = at_rate(speech, 8000);
    let seconds = pcm.len() as f64 / 8000.0;
    let mut estimator = NoiseEstimator::new(8000);
    let estimating = cost(seconds, || {
        pcm.chunks_exact(160).for_each(|frame| estimator.hear(frame));
    });
    let mut generator = NoiseGenerator::new(8000, 1);
    generator.set(&estimator.parameters(10));
    let mut output = Vec::new();
    let generating = cost(seconds, || {
        output.clear();
        generator.generate(pcm.len(), &mut output);
    });
    println!("| CN | {estimating:.3} | {generating:.3} | |");
}

/// Bit rate, cost, and how much louder the original is than the error of what the decoder gives, in the band below
/// 8 kHz: a coarse measure of quality that puts the settings of one application in order.
fn opus_row(speech: &[i16], rate_hz: u32, settings: Settings) -> (f64, f64, f64, f64) {
    let pcm = at_rate(speech, rate_hz);
    let reference = at_rate(speech, 16_000);
    let seconds = pcm.len() as f64 / f64::from(rate_hz);
    let mut encoder = opus::Encoder::new(rate_hz, settings).unwrap();
    let mut packet = [0; 1276];
    let mut octets = 0;
    let mut output = vec![0; pcm.len() * 16_000 / rate_hz as usize + 320];
    let mut decoder = opus::Decoder::new(16_000).unwrap();
    let mut packets = Vec::new();
    for (n, frame) in pcm.chunks_exact(rate_hz as usize / 50).enumerate() {
        let length = encoder.encode(frame, &mut packet).unwrap();
        octets += length;
        packets.push(packet[..length].to_vec());
        decoder.decode(&packet[..length], &mut output[n * 320..]).unwrap();
    }
    let encoding = cost(seconds, || {
        for frame in pcm.chunks_exact(rate_hz as usize / 50) {
            black_box(encoder.encode(frame, &mut packet).unwrap());
        }
    });
    let mut frame = [0; 320];
    let decoding = cost(seconds, || {
        for packet in &packets {
            black_box(decoder.decode(packet, &mut frame).unwrap());
        }
    });
    let distance_db = spectral_distance_db(
        &reference,
        &output,
        encoder.lookahead() * 16_000 / rate_hz as usize,
    );
    (
        octets as f64 * 8.0 / seconds / 1000.0,
        encoding,
        decoding,
        distance_db,
    )
}

/// Mean distance of the logarithmic spectra, 100 to 7500 Hz in steps of 100 Hz, over frames with sound.
fn spectral_distance_db(reference: &[i16], output: &[i16], delay: usize) -> f64 {
    let spectrum = |pcm: &[i16]| -> Vec<f64> {
        (2..75)
            .map(|step| {
                let turn = std::f64::consts::TAU * f64::from(step) / 160.0;
                let (mut re, mut im) = (0.0, 0.0);
                for (n, &sample) in pcm.iter().enumerate() {
                    let weight = f64::from(sample) * (std::f64::consts::PI * (n as f64 + 0.5) / 320.0).sin();
                    re += weight * (turn * n as f64).cos();
                    im += weight * (turn * n as f64).sin();
                }
                10.0 * (re * re + im * im + 1e6).log10()
            })
            .collect()
    };
    let (mut sum, mut count) = (0.0, 0.0);
    for (a, b) in reference.chunks_exact(320).zip(output[delay..].chunks_exact(320)) {
        if a.iter().any(|sample| sample.unsigned_abs() > 500) {
            let squares: f64 = spectrum(a)
                .iter()
                .zip(spectrum(b))
                .map(|(x, y)| (x - y).powi(2))
                .sum();
            sum += (squares / 73.0).sqrt();
            count += 1.0;
        }
    }
    sum / count
}

fn opus_table(speech: &[i16]) {
    println!("\n| Opus | input | kbit/s asked | complexity | kbit/s | encode | decode | spectral distance |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let row = |name: &str, rate_hz: u32, settings: Settings| {
        let (kbps, encoding, decoding, distance_db) = opus_row(speech, rate_hz, settings);
        let (asked, effort) = (settings.bitrate_bps / 1000, settings.complexity);
        println!(
            "| {name} | {rate_hz} | {asked} | {effort} | {kbps:.1} | {encoding:.2} | {decoding:.2} | {distance_db:.2} dB |"
        );
    };
    let settings = |application, bitrate_bps, complexity| Settings {
        application,
        bitrate_bps,
        complexity,
        dtx: false,
        fec_loss_percent: 0,
    };
    for complexity in 0..=10 {
        row(
            "low delay",
            24_000,
            settings(Application::RestrictedLowDelay, 32_000, complexity),
        );
    }
    for complexity in 0..=10 {
        row("VOIP", 24_000, settings(Application::Voip, 32_000, complexity));
    }
    for rate_hz in [16_000, 24_000, 48_000] {
        for bitrate_bps in [24_000, 32_000, 40_000, 48_000] {
            row(
                "low delay",
                rate_hz,
                settings(Application::RestrictedLowDelay, bitrate_bps, 5),
            );
        }
    }
}

fn main() {
    let (options, paths): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|it| it.starts_with("--"));
    let speech = match paths.first() {
        Some(path) => {
            let octets = std::fs::read(path).expect("a file of 16-bit samples");
            octets
                .as_chunks()
                .0
                .iter()
                .map(|&sample| i16::from_le_bytes(sample))
                .collect()
        }
        None => common::voice(48_000, 4, 1),
    };
    println!("CPU-ms per call-second\n");
    codecs(&speech);
    comfort_noise(&speech);
    if !options.iter().any(|option| option == "--no-settings") {
        opus_table(&speech);
    }
}
