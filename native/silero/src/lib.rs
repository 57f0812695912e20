//! Silero voice activity detection as a hand-written kernel on the weights of the published ONNX file.
//!
//! [`Model`] computes the probability of speech of 32 ms windows, for many calls at once; [`Detector`] turns
//! the probabilities of one call into starts and stops of speech; [`EnergyGate`] spares the model windows
//! that are too quiet to hold speech. No clock, no socket, no thread, and no allocation per window.

#![allow(
    clippy::inline_always,
    reason = "code outside the function that pulp compiles per instruction set would be compiled for the oldest one"
)]

mod activation;
mod detector;
mod gate;
mod matrix;
mod model;
mod onnx;
mod spectrum;

pub use detector::{Detector, DetectorParams, Transition};
pub use gate::EnergyGate;
pub use model::{Model, Scratch, State};

/// Sample rate of the windows.
pub const RATE_HZ: u32 = 16_000;
/// Samples per window: 32 ms.
pub const WINDOW: usize = 512;
/// Length of a window.
pub const WINDOW_MS: u32 = 32;
/// Samples before the window that the model sees again.
const CONTEXT: usize = 64;

/// Why a file is not the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// A length runs beyond the end of the file.
    #[error("the model file ends in the middle of a field")]
    Truncated,
    /// Not the wire format of protobuf.
    #[error("the model file is not protobuf")]
    Malformed,
    /// The message holds no graph.
    #[error("the model file holds no graph")]
    NoGraph,
    /// The graph does not choose between sample rates.
    #[error("the model has no branch for 16 kHz")]
    NoBranch,
    /// A tensor is absent from the 16 kHz branch.
    #[error("the model lacks the tensor {name}")]
    MissingTensor {
        /// Its name.
        name: &'static str,
    },
    /// A tensor has another shape or type than Silero VAD 5 and 6 give it.
    #[error("the model's tensor {name} has another shape or type")]
    Shape {
        /// Its name.
        name: &'static str,
    },
    /// A tensor holds NaN or infinity.
    #[error("the model's tensor {name} holds a value that is not finite")]
    NotFinite {
        /// Its name.
        name: &'static str,
    },
    /// The first layer is not the windowed Fourier basis that the kernel relies on.
    #[error("the model's first layer is not a windowed Fourier basis")]
    NotFourier,
}
