//! What keeps a run from starting.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why callers cannot be had.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// A file of speech.
    #[error("{path}: {reason}")]
    Speech {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Sockets, timers, standard output.
    #[error(transparent)]
    Io(#[from] io::Error),
}
