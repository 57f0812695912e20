//! What every codec promises through the common interface.

use codec::{Codec, CodecError, Decoder, Encoder, EncoderSettings};

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
        assert_eq!(
            encoder.encode(&frame, &mut payload[..159]),
            Err(CodecError::Room(159))
        );
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
