//! In the steady state, no codec allocates (what libopus does in C is its own affair: it allocates at creation).

mod common;

use codec::comfort_noise::{NoiseEstimator, NoiseGenerator};
use codec::resample::Resampler;
use codec::{Codec, Decoder, Encoder, EncoderSettings};
use common::voice;
use counting::{Counting, allocations_in};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRAMES: usize = 1000;

#[test]
fn no_codec_allocates_per_frame() {
    for codec in Codec::ALL {
        let frame = codec.encoded_hz() as usize / 50;
        let signal = voice(codec.encoded_hz(), 2, 1);
        let mut encoder = Encoder::new(codec, EncoderSettings::default()).unwrap();
        let mut decoder = Decoder::new(codec).unwrap();
        let mut payload = vec![0; codec.payload_max()];
        let mut pcm = Vec::new();
        let mut run = |frames: usize| {
            for (n, frame) in signal.chunks_exact(frame).cycle().take(frames).enumerate() {
                let octets = encoder.encode(frame, &mut payload).unwrap();
                pcm.clear();
                match n % 20 {
                    18 => decoder.conceal(codec.decoded_hz() as usize / 50, &mut pcm),
                    19 => {
                        decoder.recover(&payload[..octets], codec.decoded_hz() as usize / 50, &mut pcm);
                        decoder.decode(&payload[..octets], &mut pcm).unwrap();
                    }
                    _ => decoder.decode(&payload[..octets], &mut pcm).unwrap(),
                }
            }
        };
        run(40);
        assert_eq!(allocations_in(|| run(FRAMES)), 0, "{}", codec.name());
    }
}

#[test]
fn comfort_noise_does_not_allocate_per_frame() {
    let mut estimator = NoiseEstimator::new(8000);
    let mut generator = NoiseGenerator::new(8000, 1);
    let signal = voice(8000, 1, 2);
    let mut pcm = Vec::new();
    let mut run = |frames: usize| {
        for frame in signal.chunks_exact(160).cycle().take(frames) {
            estimator.hear(frame);
            generator.set(&estimator.parameters(10));
            pcm.clear();
            generator.generate(160, &mut pcm);
        }
    };
    run(2);
    assert_eq!(allocations_in(|| run(FRAMES)), 0);
}

#[test]
fn no_resampler_allocates_per_frame() {
    for from_hz in [8000, 16_000, 24_000, 48_000] {
        for to_hz in [8000, 16_000, 24_000, 48_000] {
            let mut resampler = Resampler::new(from_hz, to_hz).unwrap();
            let frame = vec![100; from_hz as usize / 50];
            let mut pcm = Vec::new();
            let mut run = |frames: usize| {
                for _ in 0..frames {
                    pcm.clear();
                    resampler.process(&frame, &mut pcm);
                }
            };
            run(2);
            assert_eq!(allocations_in(|| run(FRAMES)), 0, "{from_hz} -> {to_hz}");
        }
    }
}

#[test]
fn the_count_is_real() {
    assert_eq!(allocations_in(|| drop(std::hint::black_box(vec![1; 10]))), 1);
}
