//! What others hear of a leg: its audio on our clock.

use codec::comfort_noise::{NoiseGenerator, NoiseParameters};
use codec::resample::Resampler;
use codec::{Codec, Decoder};
use rtp::packet::RtpHeader;

use super::{FRAMES_PER_S, LISTENED_HZ};
use crate::bridging::delay::DelayParams;
use crate::bridging::{AudioDecoder, BridgingBuffer, BridgingParams, BridgingStats};

/// The bridging side of a leg; it has a decoder of its own, since it plays what it gets at other times than the listening side.
#[derive(Debug)]
pub(super) struct Bridged {
    buffer: BridgingBuffer,
    sound: Sound,
    to_listened: Resampler,
    frame: Vec<i16>,
    listened: Vec<i16>,
}

#[derive(Debug)]
struct Sound {
    decoder: Decoder,
    noise: NoiseGenerator,
}

impl Bridged {
    /// Nothing where the codec cannot be set up a second time.
    pub(super) fn new(codec: Codec) -> Option<Self> {
        let rate_hz = codec.decoded_hz();
        let params = BridgingParams {
            clock_hz: codec.clock_hz(),
            decoded_hz: rate_hz,
            delay: DelayParams::default(),
        };
        Some(Self {
            buffer: BridgingBuffer::new(params),
            sound: Sound {
                decoder: Decoder::new(codec).ok()?,
                noise: NoiseGenerator::new(rate_hz, 1),
            },
            to_listened: Resampler::new(rate_hz, LISTENED_HZ).ok()?,
            frame: vec![0; (rate_hz / FRAMES_PER_S) as usize],
            listened: Vec::with_capacity(2 * (LISTENED_HZ / FRAMES_PER_S) as usize),
        })
    }

    pub(super) fn push(&mut self, now_us: u64, header: &RtpHeader, payload: &[u8]) {
        self.buffer.push(now_us, header, payload);
    }

    /// A packet without audio; comfort noise says what silence sounds like (RFC 3389).
    pub(super) fn push_aside(&mut self, now_us: u64, header: &RtpHeader, noise: Option<&[u8]>) {
        self.buffer.push_aside(now_us, header);
        if let Some(parameters) = noise.and_then(NoiseParameters::parse) {
            self.sound.noise.set(&parameters);
        }
    }

    /// The next 20 ms, as listened to.
    pub(super) fn pull(&mut self, now_us: u64, out: &mut [i16]) {
        self.buffer.pull(now_us, &mut self.sound, &mut self.frame);
        self.listened.clear();
        self.to_listened.process(&self.frame, &mut self.listened);
        out.fill(0);
        for (sample, &heard) in out.iter_mut().zip(&self.listened) {
            *sample = heard;
        }
    }

    pub(super) fn stats(&self) -> BridgingStats {
        self.buffer.stats()
    }
}

impl AudioDecoder for Sound {
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>) {
        // Refused: nothing is appended, and the buffer conceals.
        let _ = self.decoder.decode(payload, pcm);
    }

    fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        self.decoder.conceal(samples, pcm);
    }

    fn recover(&mut self, following: &[u8], samples: usize, pcm: &mut Vec<i16>) {
        self.decoder.recover(following, samples, pcm);
    }

    fn comfort(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        self.noise.generate(samples, pcm);
    }
}
