//! What every codec promises through the common interface.

use codec::{Codec, CodecError, Decoder, Encoder, EncoderSettings};
use proptest::prelude::*;
use std::f64::consts::TAU;

#[test]
fn names_are_those_of_sdp_in_any_case() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_name(codec.name()), Some(codec));
        assert_eq!(Codec::from_name(&codec.name().to_lowercase()), Some(codec));
        assert_eq!(Codec::from_name(&codec.name().to_uppercase()), Some(codec));
    }
    assert_eq!(Codec::from_name("G729"), None);
    assert_eq!(Codec::from_name(""), None);
}

#[test]
fn durations_of_sample_codecs_are_their_octets() {
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722] {
        assert_eq!(codec.duration()(&[0; 160]), 160);
        assert_eq!(codec.duration()(&[]), 0);
    }
}

/// RFC 6716, 3.1, table 2 and 3.2: the configuration's frame size times the frames of the packet.
#[test]
fn durations_of_opus_follow_the_toc() {
    let duration = Codec::Opus.duration();
    for (config, ms_tenths) in [
        (0, 100),
        (3, 600),
        (4, 100),
        (11, 600),
        (12, 100),
        (15, 200),
        (16, 25),
        (31, 200),
    ] {
        let frame = ms_tenths * 48 / 10;
        assert_eq!(duration(&[config << 3]), frame, "{config}");
        assert_eq!(duration(&[config << 3 | 1]), 2 * frame, "{config}");
        assert_eq!(duration(&[config << 3 | 2]), 2 * frame, "{config}");
        assert_eq!(duration(&[config << 3 | 3, 2]), 2 * frame, "{config}");
        assert_eq!(duration(&[config << 3 | 3]), 0, "{config}");
        assert_eq!(duration(&[config << 3 | 3, 0]), 0, "{config}");
    }
    assert_eq!(duration(&[]), 0);
    assert_eq!(duration(&[31 << 3 | 3, 6]), 5760);
    assert_eq!(duration(&[31 << 3 | 3, 7]), 0, "longer than 120 ms");
}

#[test]
fn g711_goes_both_ways() {
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let frame: Vec<i16> = (0..160).map(|n| (n * 191 % 20_000) as i16 - 10_000).collect();
        let mut payload = [0; 160];
        let mut encoder = Encoder::new(codec, EncoderSettings::default()).unwrap();
        assert_eq!(encoder.encode(&frame, &mut payload), Ok(160));
        assert_eq!(encoder.encode(&frame, &mut payload[..159]), Err(CodecError::Room));
        assert_eq!(encoder.encode(&[], &mut payload), Err(CodecError::Frame(0)));

        let mut pcm = vec![7];
        let mut decoder = Decoder::new(codec).unwrap();
        assert_eq!(decoder.decode(&[], &mut pcm), Err(CodecError::Payload));
        assert_eq!(pcm, [7]);
        decoder.decode(&payload, &mut pcm).unwrap();
        assert_eq!(pcm.len(), 161);
        for (a, b) in frame.iter().zip(&pcm[1..]) {
            assert!(i32::from(*a).abs_diff(i32::from(*b)) <= 8 + i32::from(*a).unsigned_abs() / 16);
        }
        decoder.conceal(160, &mut pcm);
        assert_eq!(pcm.len(), 321);
    }
}

fn tone(rate_hz: u32, frequency_hz: f64, samples: usize) -> Vec<i16> {
    let turn = TAU * frequency_hz / f64::from(rate_hz);
    (0..samples)
        .map(|n| (8000.0 * (turn * n as f64).sin()) as i16)
        .collect()
}

fn payloads(codec: Codec, settings: EncoderSettings, pcm: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(codec, settings).unwrap();
    let frames = pcm.chunks_exact(codec.encoded_hz() as usize / 50);
    let mut payload = vec![0; codec.payload_max()];
    frames
        .map(|frame| {
            let octets = encoder.encode(frame, &mut payload).unwrap();
            payload[..octets].to_vec()
        })
        .collect()
}

/// Ratio of one frequency to everything else, in dB.
fn tone_snr_db(pcm: &[i16], rate_hz: u32, frequency_hz: f64) -> f64 {
    let turn = TAU * frequency_hz / f64::from(rate_hz);
    let (mut re, mut im, mut power) = (0.0, 0.0, 0.0);
    for (n, &sample) in pcm.iter().enumerate() {
        re += f64::from(sample) * (turn * n as f64).cos();
        im += f64::from(sample) * (turn * n as f64).sin();
        power += f64::from(sample).powi(2);
    }
    let tone = 2.0 * (re * re + im * im) / pcm.len() as f64;
    10.0 * (tone / (power - tone)).log10()
}

#[test]
fn a_tone_goes_both_ways_through_every_codec() {
    for codec in Codec::ALL {
        let pcm = tone(codec.encoded_hz(), 997.0, codec.encoded_hz() as usize);
        let mut decoder = Decoder::new(codec).unwrap();
        let mut output = Vec::new();
        for payload in payloads(codec, EncoderSettings::default(), &pcm) {
            assert!((1..=codec.payload_max()).contains(&payload.len()));
            assert_eq!(codec.duration()(&payload), codec.clock_hz() / 50);
            decoder.decode(&payload, &mut output).unwrap();
        }
        assert_eq!(output.len(), codec.decoded_hz() as usize);
        let settled = &output[output.len() / 5..];
        let snr_db = tone_snr_db(settled, codec.decoded_hz(), 997.0);
        println!("{}: {snr_db:.1} dB", codec.name());
        let least_db = if codec == Codec::Opus { 20.0 } else { 30.0 };
        assert!(snr_db > least_db, "{}: {snr_db} dB", codec.name());
    }
}

#[test]
fn concealment_gives_exactly_what_is_asked_for() {
    for codec in Codec::ALL {
        let mut decoder = Decoder::new(codec).unwrap();
        let mut pcm = Vec::new();
        for samples in [0, 1, 39, 160, 161, 320, 5000] {
            pcm.clear();
            decoder.conceal(samples, &mut pcm);
            assert_eq!(pcm.len(), samples);
            decoder.recover(&[0xff; 10], samples, &mut pcm);
            decoder.recover(&[], samples, &mut pcm);
            assert_eq!(pcm.len(), 3 * samples);
        }
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    for settings in [
        EncoderSettings {
            complexity: 11,
            ..EncoderSettings::default()
        },
        EncoderSettings {
            bitrate_bps: 0,
            ..EncoderSettings::default()
        },
    ] {
        let refused = Encoder::new(Codec::Opus, settings).err();
        assert_eq!(refused, Some(CodecError::Unavailable(Codec::Opus)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever arrives, in whatever order: no panic, exact lengths, and nothing appended for what is refused.
    #[test]
    fn any_payload_is_safe(
        index in 0..4_usize,
        events in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 0..30),
    ) {
        let codec = Codec::ALL[index];
        let mut decoder = Decoder::new(codec).unwrap();
        let mut pcm = Vec::new();
        for (kind, payload) in events {
            let before = pcm.len();
            let duration = codec.duration()(&payload);
            match kind % 4 {
                0 => {
                    decoder.conceal(usize::from(kind), &mut pcm);
                    prop_assert_eq!(pcm.len() - before, usize::from(kind));
                }
                1 => {
                    decoder.recover(&payload, usize::from(kind), &mut pcm);
                    prop_assert_eq!(pcm.len() - before, usize::from(kind));
                }
                _ => {
                    let result = decoder.decode(&payload, &mut pcm);
                    let ticks = (pcm.len() - before) as u32 * (codec.clock_hz() / 8000) / (codec.decoded_hz() / 8000);
                    prop_assert_eq!(ticks, if result.is_ok() { duration } else { 0 });
                }
            }
        }
    }

    #[test]
    fn any_frame_is_safe(index in 0..4_usize, frame in prop::collection::vec(any::<i16>(), 0..2000), room in 0..200_usize) {
        let mut encoder = Encoder::new(Codec::ALL[index], EncoderSettings::default()).unwrap();
        let mut payload = vec![0; room];
        if let Ok(octets) = encoder.encode(&frame, &mut payload) {
            prop_assert!(octets <= room);
        }
    }
}
