//! `loadgen --server IP:PORT --number USER --speech FOLDER …`: place calls, talk, and print what was measured.

use std::io::{self, BufWriter};
use std::process::ExitCode;

use loadgen::error::LoadError;
use loadgen::options::Options;
use loadgen::shell;
use loadgen::speech::Speech;

fn measure() -> Result<(), LoadError> {
    let options = Options::parse(std::env::args().skip(1))?;
    let speech = Speech::read(&options.speech)?;
    shell::run(&options, &speech, BufWriter::new(io::stdout().lock()))
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}
