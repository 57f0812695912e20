//! The wrapper's promises: lengths, in-band FEC, DTX, stereo, and any packet at all.

use opus::{Application, Decoder, Encoder, OpusError, Settings};
use proptest::prelude::*;
use std::f64::consts::TAU;

const RATE_HZ: u32 = 16_000;
const FRAME: usize = 320;

fn settings() -> Settings {
    Settings {
        application: Application::Voip,
        bitrate_bps: 24_000,
        complexity: 5,
        dtx: false,
        fec_loss_percent: 0,
    }
}

fn packets(settings: Settings, pcm: &[i16]) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(RATE_HZ, settings).unwrap();
    let mut packet = [0; 1276];
    let mut encode = |frame| {
        let octets = encoder.encode(frame, &mut packet).unwrap();
        packet[..octets].to_vec()
    };
    pcm.chunks_exact(FRAME).map(&mut encode).collect()
}

/// A voice that changes its pitch so fast that its past does not tell the next 20 ms.
fn restless(frames: usize) -> Vec<i16> {
    let mut phase = 0.0;
    let sample = |n: usize| {
        let t = n as f64 / f64::from(RATE_HZ);
        phase += (200.0 + 100.0 * (TAU * 9.0 * t).sin()) / f64::from(RATE_HZ);
        let voice: f64 = (1..10)
            .map(|k| (TAU * f64::from(k) * phase).sin() / f64::from(k))
            .sum();
        (4000.0 * voice * (1.0 + (TAU * 7.0 * t).sin())) as i16
    };
    (0..frames * FRAME).map(sample).collect()
}

fn error_power(a: &[i16], b: &[i16]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum()
}

/// RFC 6716, 2.1.7: a lost packet comes back from the one after it.
#[test]
fn forward_error_correction_is_nearer_than_concealment() {
    let pcm = restless(100);
    let sent = packets(
        Settings {
            fec_loss_percent: 20,
            bitrate_bps: 32_000,
            ..settings()
        },
        &pcm,
    );
    let decode = |lost: Option<usize>, recovers: bool| {
        let mut decoder = Decoder::new(RATE_HZ).unwrap();
        let mut output = vec![0; pcm.len()];
        for (n, slot) in output.chunks_exact_mut(FRAME).enumerate() {
            match (lost == Some(n), recovers) {
                (true, true) => decoder.recover(&sent[n + 1], slot).unwrap(),
                (true, false) => decoder.conceal(slot).unwrap(),
                (false, _) => assert_eq!(decoder.decode(&sent[n], slot), Ok(FRAME)),
            }
        }
        output
    };
    let whole = decode(None, false);
    let (mut recovered, mut concealed) = (0.0, 0.0);
    for n in (10..90).step_by(7) {
        let part = n * FRAME..(n + 1) * FRAME;
        recovered += error_power(&whole[part.clone()], &decode(Some(n), true)[part.clone()]);
        concealed += error_power(&whole[part.clone()], &decode(Some(n), false)[part]);
    }
    println!(
        "recovered is {:.1} dB nearer",
        10.0 * (concealed / recovered).log10()
    );
    assert!(recovered * 4.0 < concealed);
}

#[test]
fn silence_needs_no_packets_with_dtx() {
    for application in [Application::Voip, Application::RestrictedLowDelay] {
        let mut pcm = restless(20);
        pcm.resize(80 * FRAME, 0);
        let sent = packets(
            Settings {
                dtx: true,
                application,
                ..settings()
            },
            &pcm,
        );
        let short = sent[40..].iter().filter(|packet| packet.len() <= 2).count();
        assert!(
            sent[..20].iter().all(|packet| packet.len() > 2),
            "{application:?}"
        );
        assert!(short >= 30, "{application:?}: {short}");

        // Short packets decode, and gaps are concealed, to something quiet of the right length.
        let mut decoder = Decoder::new(RATE_HZ).unwrap();
        let mut frame = [0; FRAME];
        for packet in &sent {
            assert_eq!(decoder.decode(packet, &mut frame), Ok(FRAME));
        }
        decoder.conceal(&mut frame).unwrap();
        assert!(frame.iter().all(|sample| sample.unsigned_abs() < 200));
    }
}

#[test]
fn what_is_out_of_range_is_refused() {
    assert_eq!(Decoder::new(44_100).err(), Some(OpusError::Argument));
    assert_eq!(Encoder::new(44_100, settings()).err(), Some(OpusError::Argument));
    assert!(
        Encoder::new(
            RATE_HZ,
            Settings {
                complexity: 11,
                ..settings()
            }
        )
        .is_err()
    );
    let mut encoder = Encoder::new(RATE_HZ, settings()).unwrap();
    assert_eq!(encoder.encode(&[0; 321], &mut [0; 500]), Err(OpusError::Argument));
    assert_eq!(encoder.encode(&[0; FRAME], &mut []), Err(OpusError::Room));
    assert!(encoder.lookahead() > 0);

    let mut decoder = Decoder::new(RATE_HZ).unwrap();
    assert_eq!(decoder.decode(&[], &mut [0; FRAME]), Err(OpusError::Packet));
    assert_eq!(decoder.recover(&[], &mut [0; FRAME]), Err(OpusError::Packet));
    assert_eq!(decoder.conceal(&mut [0; 41]), Err(OpusError::Argument));
    let packet = &packets(settings(), &restless(1))[0];
    assert_eq!(decoder.samples(packet), Ok(FRAME));
    assert_eq!(decoder.decode(packet, &mut [0; FRAME - 1]), Err(OpusError::Room));
    assert_eq!(decoder.decode(packet, &mut [0; FRAME]), Ok(FRAME));
}

#[test]
fn a_stereo_packet_becomes_mono() {
    // The TOC octet says CELT wideband, 20 ms, stereo (RFC 6716, 3.1); the rest is arbitrary.
    let mut packet = [0x5a; 60];
    packet[0] = 23 << 3 | 4;
    let mut decoder = Decoder::new(RATE_HZ).unwrap();
    let mut frame = [0; FRAME];
    assert_eq!(decoder.decode(&packet, &mut frame), Ok(FRAME));
    assert!(frame.iter().any(|&sample| sample != 0));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_packets_are_safe(
        events in prop::collection::vec((0..4_u8, prop::collection::vec(any::<u8>(), 0..300), 0..50_usize), 1..30),
    ) {
        let mut decoder = Decoder::new(RATE_HZ).unwrap();
        let mut pcm = vec![0; 1920];
        for (kind, packet, steps) in events {
            match kind {
                0 => { let _ = decoder.conceal(&mut pcm[..(40 * steps).min(1920)]); }
                1 => { let _ = decoder.recover(&packet, &mut pcm[..(40 * steps).min(1920)]); }
                _ => {
                    if let Ok(samples) = decoder.decode(&packet, &mut pcm) {
                        prop_assert_eq!(decoder.samples(&packet), Ok(samples));
                    }
                }
            }
        }
    }
}
