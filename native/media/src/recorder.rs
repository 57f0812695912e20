//! A stereo WAV of both sides of a call (left: received, right: sent), written off the media thread.
//!
//! The media thread hands frames to a writer thread through a bounded queue and never waits: when the disk is
//! slow, frames are dropped, counted, and replaced by silence, so that the timeline holds. The sizes in the header
//! are rewritten once a second, after the samples they cover, so the file can be read whenever the process dies.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// Frames that may wait for the disk: five seconds of 20 ms.
const QUEUE_FRAMES: usize = 250;
/// Longest frame that is taken in one piece.
const FRAME_SAMPLES_MAX: usize = 4800;
/// A crash costs at most what came since the last commit; a second of samples commits by itself.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const HEADER_LEN: usize = 44;
/// Octets of one sample of both channels.
const SAMPLE_LEN: u64 = 4;
/// RIFF sizes are 32 bits: no recording can be longer.
const DATA_LEN_MAX: u64 = u32::MAX as u64 - HEADER_LEN as u64;

/// Why a recording could not be made or completed.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// Not a rate of ours: 8 to 48 kHz.
    #[error("cannot record at {0} Hz")]
    Rate(u32),
    /// The file could not be created.
    #[error("cannot create the recording: {0}")]
    Create(#[source] io::Error),
    /// No thread for the writer.
    #[error("cannot start the recording thread: {0}")]
    Thread(#[source] io::Error),
    /// The disk refused; what had been written before is a valid file.
    #[error("recording stopped: {0}")]
    Write(String),
}

/// What a completed recording holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingSummary {
    /// Length of each channel, dropped frames included as silence.
    pub samples: u64,
    /// Frames that were replaced by silence.
    pub dropped_frames: u64,
}

struct Frame {
    /// Silence due before this frame, in place of dropped ones.
    silence_before: u64,
    /// Interleaved octets, little-endian.
    octets: Vec<u8>,
}

/// One recording; dropping it closes the file in the background.
#[derive(Debug)]
pub struct Recorder {
    rate_hz: u32,
    frames: Option<SyncSender<Frame>>,
    spare: Receiver<Vec<u8>>,
    /// Of the last frame that found no room: kept, so that a disk that is stuck costs no allocations.
    refused: Vec<u8>,
    failure: Receiver<String>,
    writer: Option<JoinHandle<Result<u64, String>>>,
    /// Silence owed for dropped frames; shared so that the writer can append what is owed at the end.
    owed: Arc<AtomicU64>,
    dropped_frames: u64,
}

impl Recorder {
    /// Create (or replace) the file, readable by its owner only, and start the writer. Touches the disk: not for
    /// the media thread.
    ///
    /// # Errors
    /// When the rate is none of ours, or the file or the thread cannot be created.
    pub fn create(path: impl AsRef<Path>, rate_hz: u32) -> Result<Self, RecorderError> {
        let file = open(path.as_ref()).map_err(RecorderError::Create)?;
        Self::start(file, rate_hz)
    }

    /// Record into any seekable sink.
    ///
    /// # Errors
    /// When the rate is none of ours, the header cannot be written, or the thread not started.
    pub fn start<W>(sink: W, rate_hz: u32) -> Result<Self, RecorderError>
    where
        W: Write + Seek + Send + 'static,
    {
        if !(8000..=48_000).contains(&rate_hz) {
            return Err(RecorderError::Rate(rate_hz));
        }
        let wav = WavWriter::new(sink, rate_hz).map_err(RecorderError::Create)?;
        let (frames, queue) = sync_channel(QUEUE_FRAMES);
        let (give_back, spare) = sync_channel(QUEUE_FRAMES + 2);
        let (report, failure) = sync_channel(1);
        let owed = Arc::new(AtomicU64::new(0));
        let owed_at_end = Arc::clone(&owed);
        let work = move || {
            let result =
                write_all_frames(wav, &queue, &give_back, &owed_at_end).map_err(|error| error.to_string());
            if let Err(reason) = &result {
                // Room for one, and there is only one.
                let _ = report.try_send(reason.clone());
            }
            result
        };
        let writer = Builder::new()
            .name("recorder".to_owned())
            .spawn(work)
            .map_err(RecorderError::Thread)?;
        Ok(Self {
            rate_hz,
            frames: Some(frames),
            spare,
            refused: Vec::new(),
            failure,
            writer: Some(writer),
            owed,
            dropped_frames: 0,
        })
    }

    /// Samples per second of each channel.
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// Append a frame of both sides (20 ms each, at most 4800 samples); the shorter side is padded with silence.
    /// Never blocks.
    pub fn push(&mut self, received: &[i16], sent: &[i16]) {
        let samples = received.len().max(sent.len());
        if samples == 0 {
            return;
        }
        let Some(frames) = &self.frames else { return };
        // Relaxed: the writer reads it only once the queue has ended, which orders the two.
        let owed = self.owed.load(Ordering::Relaxed);
        let taken = samples <= FRAME_SAMPLES_MAX && {
            let mut octets = match std::mem::take(&mut self.refused) {
                empty if empty.capacity() == 0 => self.spare.try_recv().unwrap_or_default(),
                octets => octets,
            };
            interleave(received, sent, &mut octets);
            match frames.try_send(Frame {
                silence_before: owed,
                octets,
            }) {
                Ok(()) => true,
                Err(TrySendError::Full(frame) | TrySendError::Disconnected(frame)) => {
                    self.refused = frame.octets;
                    false
                }
            }
        };
        if taken {
            self.owed.store(0, Ordering::Relaxed);
        } else {
            self.owed.store(owed + samples as u64, Ordering::Relaxed);
            self.dropped_frames += 1;
        }
    }

    /// The reason why recording stopped, once.
    pub fn poll_error(&mut self) -> Option<String> {
        self.failure.try_recv().ok()
    }

    /// Frames so far that were replaced by silence (or lost, after an error).
    pub fn dropped_frames(&self) -> u64 {
        self.dropped_frames
    }

    /// Nothing more will come: the writer closes the file by itself. [`Recorder::finish`] may wait for it later.
    pub fn end(&mut self) {
        self.frames = None;
    }

    /// Whether the writer has closed the file after [`Recorder::end`].
    pub fn is_closed(&self) -> bool {
        self.writer.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Close the file and wait for the disk: not for the media thread, which just drops the recorder.
    ///
    /// # Errors
    /// [`RecorderError::Write`] when the recording had stopped before.
    pub fn finish(mut self) -> Result<RecordingSummary, RecorderError> {
        self.frames = None;
        let outcome = self.writer.take().map(JoinHandle::join);
        match outcome {
            Some(Ok(Ok(samples))) => Ok(RecordingSummary {
                samples,
                dropped_frames: self.dropped_frames,
            }),
            Some(Ok(Err(reason))) => Err(RecorderError::Write(reason)),
            Some(Err(_)) | None => Err(RecorderError::Write("the writer ended abnormally".to_owned())),
        }
    }
}

/// The writer thread: until the queue ends or the disk fails. Returns the samples written.
fn write_all_frames<W: Write + Seek>(
    mut wav: WavWriter<W>,
    queue: &Receiver<Frame>,
    give_back: &SyncSender<Vec<u8>>,
    owed_at_end: &AtomicU64,
) -> io::Result<u64> {
    let mut commit_at = Instant::now() + COMMIT_INTERVAL;
    loop {
        match queue.recv_timeout(commit_at.saturating_duration_since(Instant::now())) {
            Ok(Frame {
                silence_before,
                octets,
            }) => {
                wav.append_silence(silence_before)?;
                wav.append(&octets)?;
                // Sized so that it cannot be full.
                let _ = give_back.try_send(octets);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                wav.append_silence(owed_at_end.load(Ordering::Relaxed))?;
                wav.commit()?;
                return Ok(wav.committed / SAMPLE_LEN);
            }
        }
        if Instant::now() >= commit_at {
            wav.commit()?;
            commit_at = Instant::now() + COMMIT_INTERVAL;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn interleave(received: &[i16], sent: &[i16], octets: &mut Vec<u8>) {
    let samples = received.len().max(sent.len());
    octets.clear();
    octets.resize(samples * SAMPLE_LEN as usize, 0);
    for (pair, x) in octets.chunks_exact_mut(4).zip(received) {
        pair[..2].copy_from_slice(&x.to_le_bytes());
    }
    for (pair, x) in octets.chunks_exact_mut(4).zip(sent) {
        pair[2..].copy_from_slice(&x.to_le_bytes());
    }
}

/// A WAV file that is valid after every commit.
struct WavWriter<W> {
    sink: W,
    rate_hz: u32,
    /// Samples not yet written; at most about a second of them.
    pending: Vec<u8>,
    /// Octets of samples in the file and in its header.
    committed: u64,
}

impl<W: Write + Seek> WavWriter<W> {
    fn new(sink: W, rate_hz: u32) -> io::Result<Self> {
        let second = rate_hz as usize * SAMPLE_LEN as usize;
        let pending = Vec::with_capacity(second + FRAME_SAMPLES_MAX * SAMPLE_LEN as usize);
        let mut wav = Self {
            sink,
            rate_hz,
            pending,
            committed: 0,
        };
        wav.write_header()?;
        Ok(wav)
    }

    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(octets);
        if self.pending.len() >= self.second_len() {
            self.commit()?;
        }
        Ok(())
    }

    fn append_silence(&mut self, samples: u64) -> io::Result<()> {
        const PIECE: [u8; 640] = [0; 640];
        let mut left = samples * SAMPLE_LEN;
        while left > 0 {
            let len = left.min(PIECE.len() as u64);
            self.append(&PIECE[..len as usize])?;
            left -= len;
        }
        Ok(())
    }

    /// Samples first, then the header that counts them.
    fn commit(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let total = self.committed + self.pending.len() as u64;
        if total > DATA_LEN_MAX {
            return Err(io::Error::other("the WAV format holds no more"));
        }
        self.sink
            .seek(SeekFrom::Start(HEADER_LEN as u64 + self.committed))?;
        self.sink.write_all(&self.pending)?;
        self.sink.flush()?;
        self.pending.clear();
        self.committed = total;
        self.write_header()
    }

    fn write_header(&mut self) -> io::Result<()> {
        let header = wav_header(self.rate_hz, self.committed as u32);
        self.sink.seek(SeekFrom::Start(0))?;
        self.sink.write_all(&header)?;
        self.sink.flush()
    }

    fn second_len(&self) -> usize {
        self.rate_hz as usize * SAMPLE_LEN as usize
    }
}

/// RIFF/WAVE with a 16-octet PCM format chunk.
fn wav_header(rate_hz: u32, data_len: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let mut put = |at: usize, octets: &[u8]| header[at..at + octets.len()].copy_from_slice(octets);
    put(0, b"RIFF");
    put(4, &(data_len + HEADER_LEN as u32 - 8).to_le_bytes());
    put(8, b"WAVEfmt ");
    put(16, &16_u32.to_le_bytes());
    put(20, &1_u16.to_le_bytes()); // PCM
    put(22, &2_u16.to_le_bytes()); // channels
    put(24, &rate_hz.to_le_bytes());
    put(28, &(rate_hz * SAMPLE_LEN as u32).to_le_bytes());
    put(32, &(SAMPLE_LEN as u16).to_le_bytes());
    put(34, &16_u16.to_le_bytes()); // bits
    put(36, b"data");
    put(40, &data_len.to_le_bytes());
    header
}
