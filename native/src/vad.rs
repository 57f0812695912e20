//! The Silero kernel for Python, one stream of audio at a time: tests and offline tools. Calls use the engine.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use silero::{EnergyGate, Model, Scratch, State, WINDOW};

/// Bytes per window of signed 16-bit samples.
const WINDOW_BYTES: usize = 2 * WINDOW;

/// Probability of speech, window by window.
#[pyclass(module = "mediaserver._native")]
struct SileroVad {
    model: Model,
    scratch: Scratch,
    state: State,
    gate: Option<EnergyGate>,
    /// The beginning of the next window.
    rest: Vec<u8>,
}

#[pymethods]
impl SileroVad {
    #[new]
    #[pyo3(signature = (model, *, gated = false))]
    fn new(model: &[u8], gated: bool) -> PyResult<Self> {
        let model = Model::from_onnx(model).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let gate = gated.then(EnergyGate::new);
        Ok(Self {
            model,
            scratch: Scratch::new(),
            state: State::new(),
            gate,
            rest: Vec::new(),
        })
    }

    fn infer(&mut self, py: Python<'_>, pcm16k: &[u8]) -> Vec<f32> {
        py.detach(|| {
            self.rest.extend_from_slice(pcm16k);
            let audio = std::mem::take(&mut self.rest);
            let (windows, rest) = audio.as_chunks::<WINDOW_BYTES>();
            self.rest.extend_from_slice(rest);
            windows.iter().map(|window| self.probability(window)).collect()
        })
    }

    fn reset(&mut self) {
        self.state = State::new();
        self.gate = self.gate.is_some().then(EnergyGate::new);
        self.rest.clear();
    }
}

impl SileroVad {
    fn probability(&mut self, window: &[u8; WINDOW_BYTES]) -> f32 {
        let (samples, _) = window.as_chunks::<2>();
        let window = std::array::from_fn(|n| f32::from(i16::from_le_bytes(samples[n])) / 32_768.0);
        if self.gate.as_mut().is_none_or(|gate| gate.admits(&window)) {
            self.model.infer(&mut self.scratch, &mut self.state, &window)
        } else {
            self.state.skip(&window);
            0.0
        }
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SileroVad>()
}
