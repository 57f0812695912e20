//! `mediaserver._native`: what Python sees of the Rust crates. Bindings only, no logic.
//!
//! `media` wraps the media engine, `sip` the SIP parser and transaction layer, `vad` the Silero kernel.

mod media;
mod sip;
mod vad;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    media::register(module)?;
    sip::register(module)?;
    vad::register(module)?;
    Ok(())
}
