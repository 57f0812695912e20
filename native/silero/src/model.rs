//! The network: 16 kHz branch of Silero VAD 5 and 6.
//!
//! 64 samples of context and the 512 of the window, 64 more mirrored at the right end → four frames of 129
//! magnitudes (256 samples, hop 128) → convolutions over time of width 3, each rectified: 128 channels, 64
//! (stride 2), 64 (stride 2), 128, zeros beyond the ends; one step of time is left → LSTM cell with 128 units
//! → rectified → one weighted sum → sigmoid.
//!
//! Activations are stored `[item][time][channel]`, so the input of a convolution at one time is a contiguous
//! slice and a convolution is a product with overlapping columns. Taps that only ever meet the zero padding
//! are dropped when the weights are packed.

use pulp::{Arch, Simd, WithSimd};

use crate::activation::{sigmoid, tanh};
use crate::matrix::{Layout, Matrix};
use crate::onnx::Branch;
use crate::spectrum::{BASIS, BINS, FRAME, Spectrum};
use crate::{CONTEXT, ModelError, WINDOW};

const HOP: usize = FRAME / 2;
const FRAMES: usize = 4;
/// Context, window and mirrored end: as long as the context.
const SAMPLES: usize = CONTEXT + WINDOW + CONTEXT;
const UNITS: usize = 128;
const GATES: usize = 4 * UNITS;
const WIDE: usize = 128;
const NARROW: usize = 64;
/// Inferences done together: the activations of more would push the weights out of the L2 cache.
const BLOCK: usize = 18;

/// Items of the scratch, floats.
const MAGNITUDES: usize = FRAMES * BINS;
const FIRST: usize = FRAMES * WIDE;
const SECOND: usize = 2 * NARROW;

/// The weights, ready for use; shared by all calls.
#[derive(Debug, Clone)]
pub struct Model {
    arch: Arch,
    spectrum: Spectrum,
    encoder: [Matrix; 4],
    gates: Matrix,
    output: Box<[f32; UNITS]>,
    output_bias: f32,
}

/// What one call carries from window to window.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    context: [f32; CONTEXT],
    hidden: [f32; UNITS],
    cell: [f32; UNITS],
}

impl State {
    /// The state at the beginning of a call.
    pub fn new() -> Self {
        Self {
            context: [0.0; CONTEXT],
            hidden: [0.0; UNITS],
            cell: [0.0; UNITS],
        }
    }

    /// Pass over a window without inference: its end becomes the context of the next one, the memory of the
    /// network stays as it was.
    pub fn skip(&mut self, window: &[f32; WINDOW]) {
        self.context.copy_from_slice(&window[WINDOW - CONTEXT..]);
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Room for the intermediate results of a block of inferences; one per thread, so that inferring allocates
/// nothing.
#[derive(Debug, Clone)]
pub struct Scratch {
    folded: Vec<f32>,
    waves: Vec<f32>,
    magnitudes: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
    third: Vec<f32>,
    /// Encoder output and hidden state side by side: the input of the LSTM cell.
    joined: Vec<f32>,
    gates: Vec<f32>,
}

impl Scratch {
    /// Allocates about 260 kB.
    pub fn new() -> Self {
        let items = |floats: usize| vec![0.0; BLOCK * floats];
        Self {
            folded: items(FRAMES * FRAME),
            waves: items(FRAMES * FRAME),
            magnitudes: items(MAGNITUDES),
            first: items(FIRST),
            second: items(SECOND),
            third: items(NARROW),
            joined: items(2 * UNITS),
            gates: items(GATES),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// Read the weights from the bytes of `silero_vad.onnx`.
    ///
    /// # Errors
    /// When the bytes are not such a file, or a tensor is missing or not as expected.
    pub fn from_onnx(bytes: &[u8]) -> Result<Self, ModelError> {
        let branch = Branch::parse(bytes)?;
        let basis = branch.floats(BASIS, &[2 * BINS as u64, 1, FRAME as u64])?;
        let spectrum = Spectrum::from_basis(&basis)?;
        let encoder = [
            convolution(&branch, ENCODER[0], BINS, 0..3, Spectrum::bin)?,
            convolution(&branch, ENCODER[1], WIDE, 0..3, |channel| channel)?,
            convolution(&branch, ENCODER[2], NARROW, 1..3, |channel| channel)?,
            convolution(&branch, ENCODER[3], NARROW, 1..2, |channel| channel)?,
        ];
        let shape = [GATES as u64, UNITS as u64];
        let input = branch.floats("decoder.rnn.weight_ih", &shape)?;
        let recurrent = branch.floats("decoder.rnn.weight_hh", &shape)?;
        let input_bias = branch.floats("decoder.rnn.bias_ih", &shape[..1])?;
        let recurrent_bias = branch.floats("decoder.rnn.bias_hh", &shape[..1])?;
        let bias = input_bias
            .iter()
            .zip(&recurrent_bias)
            .map(|(a, b)| a + b)
            .collect();
        let gates = Matrix::pack(2 * UNITS, bias, false, |gate, unit| {
            if unit < UNITS {
                input[gate * UNITS + unit]
            } else {
                recurrent[gate * UNITS + unit - UNITS]
            }
        });
        let mut output = Box::new([0.0; UNITS]);
        output.copy_from_slice(&branch.floats("decoder.decoder.2.weight", &[1, UNITS as u64, 1])?);
        let output_bias = branch.floats("decoder.decoder.2.bias", &[1])?[0];
        Ok(Self {
            arch: Arch::new(),
            spectrum,
            encoder,
            gates,
            output,
            output_bias,
        })
    }

    /// The probability that the window (16 kHz, full scale 1.0) holds speech; the state moves on by it.
    pub fn infer(&self, scratch: &mut Scratch, state: &mut State, window: &[f32; WINDOW]) -> f32 {
        let mut probability = [0.0];
        self.infer_batch(scratch, &mut [(state, window)], &mut probability);
        probability[0]
    }

    /// `infer` for one window each of many calls, which reads the weights once per block of them.
    ///
    /// # Panics
    /// When `out` is not as long as `windows`.
    pub fn infer_batch(
        &self,
        scratch: &mut Scratch,
        windows: &mut [(&mut State, &[f32; WINDOW])],
        out: &mut [f32],
    ) {
        assert_eq!(windows.len(), out.len(), "one probability per window");
        for (windows, out) in windows.chunks_mut(BLOCK).zip(out.chunks_mut(BLOCK)) {
            self.arch.dispatch(Pass {
                model: self,
                scratch,
                windows,
                out,
            });
        }
    }
}

/// Names of weights and biases, and the number of output channels.
type Names = (&'static str, &'static str, usize);

const ENCODER: [Names; 4] = [
    (
        "encoder.0.reparam_conv.weight",
        "encoder.0.reparam_conv.bias",
        WIDE,
    ),
    (
        "encoder.1.reparam_conv.weight",
        "encoder.1.reparam_conv.bias",
        NARROW,
    ),
    (
        "encoder.2.reparam_conv.weight",
        "encoder.2.reparam_conv.bias",
        NARROW,
    ),
    (
        "encoder.3.reparam_conv.weight",
        "encoder.3.reparam_conv.bias",
        WIDE,
    ),
];

/// A convolution of width 3 as a matrix over `taps` steps of time; `channel` maps our order to the file's.
fn convolution(
    branch: &Branch<'_>,
    (weight, bias, outputs): Names,
    inputs: usize,
    taps: std::ops::Range<usize>,
    channel: impl Fn(usize) -> usize,
) -> Result<Matrix, ModelError> {
    let weights = branch.floats(weight, &[outputs as u64, inputs as u64, 3])?;
    let bias = branch.floats(bias, &[outputs as u64])?;
    Ok(Matrix::pack(taps.len() * inputs, bias, true, |output, input| {
        let (tap, input) = (taps.start + input / inputs, channel(input % inputs));
        weights[(output * inputs + input) * 3 + tap]
    }))
}

/// One block of inferences, compiled once per instruction set.
struct Pass<'a, 's, 'w> {
    model: &'a Model,
    scratch: &'a mut Scratch,
    windows: &'a mut [(&'s mut State, &'w [f32; WINDOW])],
    out: &'a mut [f32],
}

impl WithSimd for Pass<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.spectrum(simd);
        self.encode(simd);
        self.remember(simd);
    }
}

impl Pass<'_, '_, '_> {
    /// Samples to magnitudes.
    #[inline(always)]
    fn spectrum<S: Simd>(&mut self, simd: S) {
        let (spectrum, scratch) = (&self.model.spectrum, &mut *self.scratch);
        let (folded, _) = scratch.folded.as_chunks_mut::<FRAME>();
        for ((state, window), folded) in self.windows.iter_mut().zip(folded.chunks_exact_mut(FRAMES)) {
            let samples = lay_out(&state.context, window);
            state.skip(window);
            for (frame, folded) in folded.iter_mut().enumerate() {
                if let Some(frame) = samples[frame * HOP..].first_chunk::<FRAME>() {
                    spectrum.fold(frame, folded);
                }
            }
        }
        spectrum.apply(
            simd,
            self.windows.len() * FRAMES,
            &scratch.folded,
            &mut scratch.waves,
        );
        let (folded, _) = scratch.folded.as_chunks::<FRAME>();
        let (waves, _) = scratch.waves.as_chunks::<FRAME>();
        let items = scratch
            .magnitudes
            .chunks_exact_mut(MAGNITUDES)
            .take(self.windows.len());
        let frames = folded.chunks_exact(FRAMES).zip(waves.chunks_exact(FRAMES));
        for (item, (folded, waves)) in items.zip(frames) {
            let (rows, _) = item.as_chunks_mut::<BINS>();
            for ((row, folded), waves) in rows.iter_mut().zip(folded).zip(waves) {
                Spectrum::magnitudes(folded, waves, row);
            }
        }
    }

    /// Magnitudes to the input of the LSTM cell.
    #[inline(always)]
    fn encode<S: Simd>(&mut self, simd: S) {
        let ([first, second, third, fourth], scratch) = (&self.model.encoder, &mut *self.scratch);
        let items = self.windows.len();
        let steps = |start, per_item, item_stride, step_stride| Layout {
            start,
            per_item,
            item_stride,
            step_stride,
        };
        // The first frame has nothing before it, the last nothing behind it.
        let frames = [
            (0..1, BINS..first.inputs()),
            (1..FRAMES - 1, 0..first.inputs()),
            (FRAMES - 1..FRAMES, 0..first.inputs() - BINS),
        ];
        for (frames, inputs) in frames {
            let from = steps(
                (frames.start + inputs.start / BINS) * BINS - BINS,
                frames.len(),
                MAGNITUDES,
                BINS,
            );
            let to = steps(frames.start * WIDE, frames.len(), FIRST, WIDE);
            first.apply_part(
                simd,
                items * frames.len(),
                inputs,
                (&scratch.magnitudes, from),
                (&mut scratch.first, to),
            );
        }
        for step in 0..2 {
            let inputs = if step == 0 {
                WIDE..second.inputs()
            } else {
                0..second.inputs()
            };
            let from = Layout::single(WIDE * step, FIRST);
            let to = Layout::single(NARROW * step, SECOND);
            second.apply_part(
                simd,
                items,
                inputs,
                (&scratch.first, from),
                (&mut scratch.second, to),
            );
        }
        let (from, to) = (Layout::single(0, SECOND), Layout::single(0, NARROW));
        third.apply(simd, items, (&scratch.second, from), (&mut scratch.third, to));
        let (from, to) = (Layout::single(0, NARROW), Layout::single(0, 2 * UNITS));
        fourth.apply(simd, items, (&scratch.third, from), (&mut scratch.joined, to));
    }

    /// The LSTM cell and the output. Gates in the file's order: input, forget, cell, output.
    #[inline(always)]
    fn remember<S: Simd>(&mut self, simd: S) {
        let (model, scratch) = (self.model, &mut *self.scratch);
        let (joined, _) = scratch.joined.as_chunks_mut::<{ 2 * UNITS }>();
        for ((state, _), joined) in self.windows.iter().zip(joined) {
            joined[UNITS..].copy_from_slice(&state.hidden);
        }
        let (from, to) = (Layout::single(0, 2 * UNITS), Layout::single(0, GATES));
        model.gates.apply(
            simd,
            self.windows.len(),
            (&scratch.joined, from),
            (&mut scratch.gates, to),
        );
        let (gates, _) = scratch.gates.as_chunks::<GATES>();
        for (((state, _), gates), out) in self.windows.iter_mut().zip(gates).zip(self.out.iter_mut()) {
            advance(gates, &mut state.cell, &mut state.hidden);
            *out = sigmoid(positive_dot(&state.hidden, &model.output) + model.output_bias);
        }
    }
}

/// One step of the cell. Each line goes over all units, so that the compiler makes vectors of it.
#[inline(always)]
fn advance(gates: &[f32; GATES], cell: &mut [f32; UNITS], hidden: &mut [f32; UNITS]) {
    let gate = |index: usize| -> &[f32; UNITS] { &gates.as_chunks().0[index] };
    let (admit, forget) = (each(gate(0), sigmoid), each(gate(1), sigmoid));
    let (candidate, output) = (each(gate(2), tanh), each(gate(3), sigmoid));
    for unit in 0..UNITS {
        cell[unit] = forget[unit] * cell[unit] + admit[unit] * candidate[unit];
    }
    let squashed = each(cell, tanh);
    for unit in 0..UNITS {
        hidden[unit] = output[unit] * squashed[unit];
    }
}

#[inline(always)]
fn each(values: &[f32; UNITS], function: impl Fn(f32) -> f32) -> [f32; UNITS] {
    let mut results = [0.0; UNITS];
    for (result, &value) in results.iter_mut().zip(values) {
        *result = function(value);
    }
    results
}

/// Context, window and the 64 samples before the last one mirrored behind it.
#[inline(always)]
fn lay_out(context: &[f32; CONTEXT], window: &[f32; WINDOW]) -> [f32; SAMPLES] {
    let mut samples = [0.0; SAMPLES];
    samples[..CONTEXT].copy_from_slice(context);
    samples[CONTEXT..CONTEXT + WINDOW].copy_from_slice(window);
    let mirrored = window[WINDOW - 1 - CONTEXT..WINDOW - 1].iter().rev();
    for (sample, value) in samples[CONTEXT + WINDOW..].iter_mut().zip(mirrored) {
        *sample = *value;
    }
    samples
}

/// Sum of `relu(values) * weights`, in eight partial sums.
#[inline(always)]
fn positive_dot(values: &[f32; UNITS], weights: &[f32; UNITS]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (values, weights) in values.as_chunks::<8>().0.iter().zip(weights.as_chunks::<8>().0) {
        for ((sum, value), weight) in sums.iter_mut().zip(values).zip(weights) {
            *sum += value.max(0.0) * weight;
        }
    }
    sums.iter().sum()
}
