//! The probability of speech of each 32 ms window of a raw file (signed 16-bit little-endian, 16 kHz, mono).
//!
//! `cargo run --release -p silero --example probabilities -- silero_vad.onnx audio.raw`

use std::error::Error;

use silero::{Model, Scratch, State, WINDOW};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(audio)) = (arguments.next(), arguments.next()) else {
        return Err("usage: probabilities MODEL AUDIO".into());
    };
    let model = Model::from_onnx(&std::fs::read(model)?)?;
    let audio = std::fs::read(audio)?;
    let (mut scratch, mut state) = (Scratch::new(), State::new());
    for window in audio.as_chunks::<2>().0.as_chunks::<WINDOW>().0 {
        let window = window.map(|bytes| f32::from(i16::from_le_bytes(bytes)) / 32_768.0);
        println!("{:.6}", model.infer(&mut scratch, &mut state, &window));
    }
    Ok(())
}
