//! Decoders, concealment and comfort noise.

use arbitrary::{Arbitrary, Unstructured};
use codec::comfort_noise::{NoiseEstimator, NoiseGenerator, NoiseParameters, ORDER_MAX};
use codec::{Codec, Decoder, Encoder, EncoderSettings};

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Decode(&'a [u8]),
    Conceal(u16),
    Recover(&'a [u8], u16),
    /// What the encoder makes of these samples; silence where there are few.
    Coded {
        level: i16,
        slope: i16,
        changed: Option<(u8, u8)>,
    },
    Noise(&'a [u8], u8),
}

struct Run {
    codec: Codec,
    decoder: Decoder,
    encoder: Encoder,
    generator: NoiseGenerator,
    estimator: NoiseEstimator,
    pcm: Vec<i16>,
}

pub(crate) fn any_payloads(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let Ok(&codec) = octets.choose(&Codec::ALL) else {
        return;
    };
    let mut run = Run {
        codec,
        decoder: Decoder::new(codec).expect("memory for a decoder"),
        encoder: Encoder::new(codec, EncoderSettings::default()).expect("memory for an encoder"),
        generator: NoiseGenerator::new(8000, 1),
        estimator: NoiseEstimator::new(8000),
        pcm: Vec::new(),
    };
    // Decoding is slow: what the first steps do not show, another input will.
    for step in crate::steps(&mut octets).into_iter().take(32) {
        run.pcm.clear();
        // Something in front that must stay.
        run.pcm.extend([1, 2, 3]);
        run.step(&step);
        assert_eq!(run.pcm[..3], [1, 2, 3]);
    }
}

impl Run {
    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Decode(payload) => self.decode(payload),
            Step::Conceal(samples) => {
                self.decoder.conceal(usize::from(samples), &mut self.pcm);
                assert_eq!(self.pcm.len(), 3 + usize::from(samples));
            }
            Step::Recover(following, samples) => {
                self.decoder
                    .recover(following, usize::from(samples), &mut self.pcm);
                assert_eq!(self.pcm.len(), 3 + usize::from(samples));
            }
            Step::Coded {
                level,
                slope,
                changed,
            } => self.coded(level, slope, changed),
            Step::Noise(payload, samples) => self.noise(payload, usize::from(samples)),
        }
    }

    /// What is decoded lasts as long as the jitter buffer believed; what is not leaves nothing behind.
    fn decode(&mut self, payload: &[u8]) {
        let ticks = u64::from(self.codec.duration()(payload));
        let samples = ticks * u64::from(self.codec.decoded_hz()) / u64::from(self.codec.clock_hz());
        match self.decoder.decode(payload, &mut self.pcm) {
            Ok(()) => {
                assert_eq!(self.pcm.len() as u64, 3 + samples);
                assert_ne!(samples, 0);
            }
            Err(_) => assert_eq!(self.pcm.len(), 3),
        }
    }

    fn coded(&mut self, level: i16, slope: i16, changed: Option<(u8, u8)>) {
        let mut sample = level;
        let frame: Vec<i16> = (0..self.codec.encoded_hz() / 50)
            .map(|_| {
                sample = sample.wrapping_add(slope);
                sample
            })
            .collect();
        let mut payload = vec![0; self.codec.payload_max()];
        let octets = self
            .encoder
            .encode(&frame, &mut payload)
            .expect("a frame of 20 ms");
        payload.truncate(octets);
        if payload.is_empty() {
            return;
        }
        if let Some((place, bits)) = changed {
            let place = usize::from(place) % payload.len();
            payload[place] ^= bits;
            self.decode(&payload);
            return;
        }
        self.decode(&payload);
        assert_eq!(self.pcm.len() as u32, 3 + self.codec.decoded_hz() / 50);
    }

    /// What is read is written again, and what is measured of the noise can be said.
    fn noise(&mut self, payload: &[u8], samples: usize) {
        let Some(parameters) = NoiseParameters::parse(payload) else {
            assert!(payload.is_empty());
            return;
        };
        let mut again = [0; ORDER_MAX + 1];
        let octets = parameters.write(&mut again);
        assert_eq!(octets, payload.len().min(ORDER_MAX + 1));
        assert_eq!(again[0], payload[0] & 0x7f);
        for (code, given) in again[1..octets].iter().zip(&payload[1..]) {
            // 255 is beyond one.
            assert_eq!(*code, (*given).min(254));
        }
        self.generator.set(&parameters);
        self.generator.generate(samples, &mut self.pcm);
        assert_eq!(self.pcm.len(), 3 + samples);
        self.estimator.hear(&self.pcm[3..]);
        let heard = self.estimator.parameters(ORDER_MAX);
        assert!(heard.level <= 127 && heard.order <= ORDER_MAX);
        assert!(heard.reflections.iter().all(|k| k.abs() <= 1.0), "{heard:?}");
    }
}
