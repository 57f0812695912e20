//! What callers say: G.711 µ-law from files, each ending with the packet that holds its last speech.

use std::fs;
use std::path::Path;

use codec::g711::{Law, encode_into};

use crate::FRAME;
use crate::error::LoadError;

/// Longest utterance: a minute.
const FRAMES_MAX: usize = 3_000;
/// A second of noise; callers begin at different places of it.
const NOISE_FRAMES: usize = 50;
/// Half the width of uniform noise whose root mean square is -60 dBFS.
const NOISE_PEAK: i64 = 57;

/// One thing to say.
#[derive(Debug, Clone)]
pub struct Utterance {
    /// What the report calls it.
    pub name: String,
    codes: Vec<u8>,
}

impl Utterance {
    /// From µ-law codes and where speech ends in them: a sample number, exclusive. Packets after it are left away.
    pub fn new(name: &str, codes: &[u8], end_sample: usize) -> Option<Self> {
        let frames = end_sample.div_ceil(FRAME);
        let enough = (1..=FRAMES_MAX).contains(&frames) && end_sample <= codes.len();
        let mut codes = enough.then(|| codes[..codes.len().min(frames * FRAME)].to_vec())?;
        codes.resize(frames * FRAME, Law::Mu.silence());
        Some(Self {
            name: name.to_owned(),
            codes,
        })
    }

    /// Packets that it takes.
    pub fn frames(&self) -> usize {
        self.codes.len() / FRAME
    }

    /// The payload of a packet.
    pub fn frame(&self, number: usize) -> &[u8] {
        &self.codes[number * FRAME..(number + 1) * FRAME]
    }
}

/// Everything that callers may say, and what a line sounds like in between.
#[derive(Debug, Clone)]
pub struct Speech {
    /// At least one.
    pub utterances: Vec<Utterance>,
    noise: Vec<u8>,
}

impl Speech {
    /// Utterances and faint noise.
    pub fn new(utterances: Vec<Utterance>) -> Self {
        let mut draws = Draws::new(1);
        let samples: Vec<i16> = (0..NOISE_FRAMES * FRAME)
            .map(|_| (draws.below(2 * NOISE_PEAK as u64 + 1) as i64 - NOISE_PEAK) as i16)
            .collect();
        let mut noise = vec![0; samples.len()];
        encode_into(Law::Mu, &samples, &mut noise);
        Self { utterances, noise }
    }

    /// Read `manifest.txt` of a folder: lines of `FILE END_SAMPLE`, FILE being µ-law at 8 kHz beside it.
    ///
    /// # Errors
    /// A file that is not there, or is not as described.
    pub fn read(folder: &Path) -> Result<Self, LoadError> {
        let manifest = folder.join("manifest.txt");
        let wrong = |path: &Path, reason: &str| LoadError::Speech {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let text = fs::read_to_string(&manifest).map_err(|error| wrong(&manifest, &error.to_string()))?;
        let mut utterances = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let (Some(file), Some(Ok(end))) = (words.next(), words.next().map(str::parse)) else {
                return Err(wrong(&manifest, &format!("{line:?} is not FILE END_SAMPLE")));
            };
            let path = folder.join(file);
            let codes = fs::read(&path).map_err(|error| wrong(&path, &error.to_string()))?;
            let name = file.split('.').next().unwrap_or(file);
            let utterance = Utterance::new(name, &codes, end);
            utterances.push(utterance.ok_or_else(|| wrong(&path, "no speech, or more than a minute"))?);
        }
        if utterances.is_empty() {
            return Err(wrong(&manifest, "names no utterance"));
        }
        Ok(Self::new(utterances))
    }

    /// The payload of a packet in which nobody speaks.
    pub fn noise(&self, number: usize) -> &[u8] {
        let at = number % NOISE_FRAMES * FRAME;
        &self.noise[at..at + FRAME]
    }
}

/// Numbers that look random and follow from a seed (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub struct Draws(u64);

impl Draws {
    /// From any seed.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds shall not give neighbouring numbers, and the state must not be 0.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound.max(1)
    }

    /// A number of a range, both ends included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }
}

#[cfg(test)]
mod tests {
    use codec::g711::decode_into;

    use super::*;

    #[test]
    fn an_utterance_ends_with_the_packet_of_its_last_sample() {
        let codes = vec![0x80; 1_000];
        let utterance = Utterance::new("a", &codes, 481).unwrap();
        assert_eq!(utterance.frames(), 4);
        assert_eq!(utterance.frame(3), &codes[..FRAME]);
        let padded = Utterance::new("b", &codes, 1_000).unwrap();
        assert_eq!(padded.frames(), 7);
        assert_eq!(padded.frame(6)[40..], [0xff; 120]);
        assert!(Utterance::new("c", &codes, 1_001).is_none() && Utterance::new("d", &codes, 0).is_none());
    }

    #[test]
    fn the_line_between_is_at_minus_60_dbfs() {
        let speech = Speech::new(Vec::new());
        let mut energy = 0.0;
        for number in 0..NOISE_FRAMES {
            let mut samples = [0; FRAME];
            decode_into(Law::Mu, speech.noise(number), &mut samples);
            energy += samples.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        }
        let dbfs = 10.0 * (energy / (NOISE_FRAMES * FRAME) as f64 / (32_768.0 * 32_768.0)).log10();
        assert!((-61.0..-59.0).contains(&dbfs), "{dbfs}");
    }
}
