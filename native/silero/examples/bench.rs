//! CPU time per inference, one by one and in batches.
//!
//! `cargo run --release -p silero --example bench -- silero_vad.onnx`

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use silero::{Model, Scratch, State, WINDOW};

/// Best of several rounds: the machine may be doing other things as well.
const ROUNDS: usize = 30;
const INFERENCES: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: bench MODEL")?;
    let model = Model::from_onnx(&std::fs::read(path)?)?;
    let mut scratch = Scratch::new();
    let mut seed = 1u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    for batch in [1, 2, 4, 8, 16, 32, 64] {
        let windows: Vec<[f32; WINDOW]> = (0..batch).map(|_| std::array::from_fn(|_| noise())).collect();
        let mut states = vec![State::new(); batch];
        let mut out = vec![0.0; batch];
        let mut best_us = f64::INFINITY;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            for _ in 0..INFERENCES / batch {
                let mut work: Vec<_> = states.iter_mut().zip(&windows).collect();
                model.infer_batch(&mut scratch, black_box(&mut work), &mut out);
            }
            best_us = best_us.min(started.elapsed().as_secs_f64() * 1e6 / INFERENCES as f64);
        }
        println!("batch {batch:2}: {best_us:6.2} us per inference");
    }
    Ok(())
}
