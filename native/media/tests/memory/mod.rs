//! A file that is not on a disk.

use std::io::{self, Cursor, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

/// A file in memory that the test can read at any moment.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Cursor<Vec<u8>>>>);

impl Memory {
    /// What has been written so far.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        self.0.lock().unwrap().get_ref().clone()
    }
}

impl Write for Memory {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Memory {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.lock().unwrap().seek(to)
    }
}
