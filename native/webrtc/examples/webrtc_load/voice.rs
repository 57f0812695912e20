//! What the callers say: encoded once, as a browser encodes it.

use std::error::Error;
use std::f32::consts::TAU;
use std::sync::Arc;

use codec::resample::Resampler;
use opus::{Application, Encoder, Settings};

const PCM_RATE_HZ: u32 = 24_000;
/// As much of it as is kept.
const FRAMES_MAX: usize = 3_000;
const NOISE_FRAMES: usize = 500;
/// Standard deviation of a room's noise as a microphone has it, -62 dBFS.
const NOISE_LEVEL: f32 = 26.0;
/// A packet so short says that nothing more comes (RFC 6716 section 2.1.9).
const DTX_OCTETS: usize = 2;

/// What a caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Listens, with DTX: a packet every 400 ms.
    Dtx,
    /// Listens, without DTX, which is what browsers do unless the answer asks for it: 50 packets of noise a second.
    Noise,
    /// Speaks.
    Speech,
}

impl Voice {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "dtx" => Some(Self::Dtx),
            "noise" => Some(Self::Noise),
            "speech" => Some(Self::Speech),
            _ => None,
        }
    }
}

/// A payload, or none, for each 20 ms, around and around.
pub(crate) struct Frames(Vec<Option<Arc<[u8]>>>);

impl Frames {
    /// What a caller says that got this answer. `pcm`: 16-bit mono at 24 kHz.
    ///
    /// The encoder is set as libwebrtc sets it for a microphone (`audio_encoder_opus.cc`): the speech application at
    /// complexity 9, 32 kbit/s for the full band and 20 where the answer's `maxplaybackrate` leaves 8 kHz of it (RFC 7587
    /// section 6.1). In-band FEC is empty while nothing is lost.
    pub(crate) fn encode(voice: Voice, pcm: &[u8], answer: &str) -> Result<Self, Box<dyn Error>> {
        let (rate_hz, bitrate_bps) = if answer.contains("maxplaybackrate=16000") {
            (16_000, 20_000)
        } else {
            (48_000, 32_000)
        };
        let frame = rate_hz as usize / 50;
        let samples = pcm.as_chunks().0.iter();
        let samples: Vec<i16> = samples.map(|&sample| i16::from_le_bytes(sample)).collect();
        let mut speech = Vec::new();
        Resampler::new(PCM_RATE_HZ, rate_hz)?.process(&samples, &mut speech);
        let settings = Settings {
            application: Application::Voip,
            bitrate_bps,
            complexity: 9,
            dtx: voice == Voice::Dtx,
            fec_loss_percent: 0,
        };
        let mut encoder = Encoder::new(rate_hz, settings)?;
        let mut packet = [0; 1276];
        let said = match voice {
            Voice::Speech => speech,
            Voice::Dtx | Voice::Noise => {
                // They have spoken before: noise alone would be the loudest that the encoder knows, and no silence.
                for frame in speech.chunks_exact(frame).take(FRAMES_MAX) {
                    encoder.encode(frame, &mut packet)?;
                }
                noise(NOISE_FRAMES * frame)
            }
        };
        let mut silent = false;
        let mut encode = |frame: &[i16]| {
            let octets = encoder.encode(frame, &mut packet)?;
            let was_silent = std::mem::replace(&mut silent, octets <= DTX_OCTETS);
            // The first short one is sent, so that the other side knows.
            Ok((octets > DTX_OCTETS || !was_silent).then(|| Arc::from(&packet[..octets])))
        };
        let frames = said.chunks_exact(frame).take(FRAMES_MAX).map(&mut encode);
        let frames: Vec<_> = frames.collect::<Result<_, opus::OpusError>>()?;
        if frames.is_empty() {
            return Err("less than 20 ms of PCM".into());
        }
        Ok(Self(frames))
    }

    /// What is said in those 20 ms.
    pub(crate) fn at(&self, number: usize) -> Option<Arc<[u8]>> {
        self.0[number % self.0.len()].clone()
    }
}

/// Gaussian noise (Box and Muller 1958) from `xorshift64*`, the same in every run.
fn noise(samples: usize) -> Vec<i16> {
    let mut state = 1_u64;
    let mut uniform = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 + 0.5) / (1 << 24) as f32
    };
    let mut gaussian = || (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos();
    (0..samples).map(|_| (NOISE_LEVEL * gaussian()) as i16).collect()
}
