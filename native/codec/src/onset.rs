//! Where sound sets in: the frames on which an encoder's effort is well spent.

/// Samples of a block: 2.5 ms at 24 kHz.
const BLOCK: usize = 60;
/// How much of the loudest past still masks a block later, as energy: 1.5 dB less for each 2.5 ms, so that the pulses of
/// the deepest voice are no onsets.
const DECAY: f32 = 0.7;
/// A block that much louder than what it follows is an onset, as energy: 6 dB.
const RATIO: f32 = 4.0;
/// Energy of a block that is too quiet to matter, whatever it follows: differences of neighbouring samples of 40, -58 dBFS.
const FLOOR: f32 = (BLOCK * 40 * 40 / 64) as f32;

/// Tells the frames in which sound sets in. It listens to the differences of neighbouring samples, since sharp onsets are
/// high in frequency.
#[derive(Debug, Clone, Default)]
pub(crate) struct Onset {
    /// Energy of the past, decaying.
    past: f32,
    /// The last block had one: an encoder that looks ahead has yet to code it.
    held: bool,
}

impl Onset {
    /// Whether sound sets in within `frame`, or did at the end of the one before.
    pub(crate) fn hear(&mut self, frame: &[i16]) -> bool {
        let mut found = std::mem::take(&mut self.held);
        for block in frame.chunks(BLOCK) {
            let energy = energy(block);
            self.held = energy > RATIO * self.past.max(FLOOR);
            found |= self.held;
            self.past = energy.max(DECAY * self.past);
        }
        found
    }
}

/// Sum of the squared differences of neighbours, in eighths so that it fits: 60 times 8191 squared is below 2 to the 32.
fn energy(block: &[i16]) -> f32 {
    let steps = block.iter().zip(&block[1..]);
    let squares = steps.map(|(&a, &b)| {
        let step = (i32::from(b) - i32::from(a)) >> 3;
        (step * step) as u32
    });
    squares.fold(0, u32::wrapping_add) as f32
}
