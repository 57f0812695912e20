//! Recordings on good, slow and full disks.

mod memory;

use media::recorder::{Recorder, RecorderError, RecordingSummary};
use memory::Memory;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const RATE_HZ: u32 = 8000;
const FRAME: usize = 160;

/// A disk with room for so many octets.
struct Small {
    disk: Memory,
    room: u64,
}

impl Write for Small {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let at = self.disk.stream_position()?;
        if at + octets.len() as u64 > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.disk.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Small {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.disk.seek(to)
    }
}

/// A disk that reports each flush after the header's, and goes on when it is told to.
struct Stalling {
    disk: Memory,
    flushes: u32,
    stalled: Sender<()>,
    go_on: Receiver<()>,
}

impl Write for Stalling {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.disk.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        if self.flushes > 1 {
            let _ = self.stalled.send(());
            let _ = self.go_on.recv();
        }
        Ok(())
    }
}

impl Seek for Stalling {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.disk.seek(to)
    }
}

/// A stalling disk, what is on it, the word that it stalls, and the hold on it: dropped, the disk goes on.
fn stalling() -> (Stalling, Memory, Receiver<()>, Sender<()>) {
    let (stalled, is_stalled) = channel();
    let (resume, go_on) = channel();
    let disk = Memory::default();
    let sink = Stalling {
        disk: disk.clone(),
        flushes: 0,
        stalled,
        go_on,
    };
    (sink, disk, is_stalled, resume)
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
}

/// (left, right) samples that the header claims, after checking every field of it.
fn read(file: &[u8]) -> Vec<(i16, i16)> {
    assert_eq!(&file[..4], b"RIFF");
    assert_eq!(&file[8..16], b"WAVEfmt ");
    assert_eq!(u32_at(file, 16), 16);
    assert_eq!(u32_at(file, 20), 2 << 16 | 1, "PCM, two channels");
    assert_eq!(u32_at(file, 24), RATE_HZ);
    assert_eq!(u32_at(file, 28), RATE_HZ * 4);
    assert_eq!(u32_at(file, 32), 16 << 16 | 4, "block of four octets, 16 bits");
    assert_eq!(&file[36..40], b"data");
    let data_len = u32_at(file, 40);
    assert_eq!(u32_at(file, 4), data_len + 36);
    assert!(
        44 + data_len as usize <= file.len(),
        "the header claims more than there is"
    );
    let sample = |octets: &[u8]| i16::from_le_bytes([octets[0], octets[1]]);
    let blocks = file[44..44 + data_len as usize].chunks_exact(4);
    blocks
        .map(|block| (sample(&block[..2]), sample(&block[2..])))
        .collect()
}

/// A file name of this test process, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("recorder-{}-{name}.wav", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn left_is_received_and_right_is_sent() {
    let scratch = Scratch::new("stereo");
    let mut recorder = Recorder::create(&scratch.0, RATE_HZ).unwrap();
    for n in 0..200 {
        recorder.push(&[n; FRAME], &[-n; FRAME]);
    }
    // The shorter side is padded.
    recorder.push(&[1, 2], &[3]);
    recorder.push(&[], &[]);
    let samples = 200 * FRAME as u64 + 2;
    assert_eq!(
        recorder.finish().unwrap(),
        RecordingSummary {
            samples,
            dropped_frames: 0
        }
    );

    let file = std::fs::read(&scratch.0).unwrap();
    let heard = read(&file);
    assert_eq!(heard.len() as u64, samples);
    assert_eq!(file.len() as u64, 44 + 4 * samples);
    for (n, pair) in heard[..200 * FRAME].iter().enumerate() {
        let value = (n / FRAME) as i16;
        assert_eq!(*pair, (value, -value));
    }
    assert_eq!(heard[200 * FRAME..], [(1, 3), (2, 0)]);
}

#[cfg(unix)]
#[test]
fn a_recording_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("private");
    Recorder::create(&scratch.0, RATE_HZ).unwrap().finish().unwrap();
    let mode = std::fs::metadata(&scratch.0).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0);
    assert!(read(&std::fs::read(&scratch.0).unwrap()).is_empty());
}

#[test]
fn a_path_that_cannot_be_created_is_refused() {
    let error = Recorder::create("/nonexistent/folder/call.wav", RATE_HZ).unwrap_err();
    assert!(matches!(error, RecorderError::Create(_)), "{error}");
    for rate_hz in [0, u32::MAX] {
        let error = Recorder::start(Memory::default(), rate_hz).unwrap_err();
        assert!(matches!(error, RecorderError::Rate(_)), "{error}");
    }
}

#[test]
fn what_is_owed_at_the_end_is_appended() {
    let (sink, disk, is_stalled, resume) = stalling();
    let mut recorder = Recorder::start(sink, RATE_HZ).unwrap();
    for _ in 0..50 {
        recorder.push(&[1; FRAME], &[1; FRAME]);
    }
    is_stalled.recv_timeout(Duration::from_secs(10)).unwrap();
    for _ in 50..400 {
        recorder.push(&[1; FRAME], &[1; FRAME]);
    }
    // Too long for a frame: silence as well.
    recorder.push(&[1; 5000], &[]);
    drop(resume);
    let summary = recorder.finish().unwrap();
    assert_eq!(
        summary,
        RecordingSummary {
            samples: 400 * FRAME as u64 + 5000,
            dropped_frames: 101
        }
    );
    let heard = read(&disk.snapshot());
    assert_eq!(heard.len() as u64, summary.samples);
    assert!(heard[..300 * FRAME].iter().all(|pair| *pair == (1, 1)));
    assert!(heard[300 * FRAME..].iter().all(|pair| *pair == (0, 0)));
}

#[test]
fn a_slow_disk_costs_silence_not_time() {
    let (sink, disk, is_stalled, resume) = stalling();
    let mut recorder = Recorder::start(sink, RATE_HZ).unwrap();
    // One second makes the writer commit; there it stalls, after the samples and before the header.
    for n in 1..=50 {
        recorder.push(&[n; FRAME], &[n; FRAME]);
    }
    is_stalled.recv_timeout(Duration::from_secs(10)).unwrap();
    // A crash now: the samples are there, the header does not claim them yet.
    assert!(read(&disk.snapshot()).is_empty());
    assert_eq!(disk.snapshot().len(), 44 + 50 * FRAME * 4);

    // Ten seconds meet a queue of five.
    let started = Instant::now();
    for n in 51..=550 {
        recorder.push(&[n; FRAME], &[n; FRAME]);
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "push waited for the disk"
    );
    assert_eq!(recorder.dropped_frames(), 250);
    drop(resume);
    // The stalled header, then the next commit: by then the queue has room again.
    for _ in 0..2 {
        is_stalled.recv_timeout(Duration::from_secs(10)).unwrap();
    }
    recorder.push(&[551; FRAME], &[551; FRAME]);
    let summary = recorder.finish().unwrap();
    assert_eq!(
        summary,
        RecordingSummary {
            samples: 551 * FRAME as u64,
            dropped_frames: 250
        }
    );

    let heard = read(&disk.snapshot());
    assert_eq!(heard.len(), 551 * FRAME);
    for (index, frame) in heard.chunks(FRAME).enumerate() {
        let value = index as i16 + 1;
        let expected = if (301..=550).contains(&value) { 0 } else { value };
        assert!(
            frame.iter().all(|pair| *pair == (expected, expected)),
            "frame {value}: {:?}",
            frame[0]
        );
    }
}

#[test]
fn a_full_disk_ends_the_recording_with_a_reason_and_a_valid_file() {
    let disk = Memory::default();
    // Room for two seconds and a half: the third commit fails.
    let sink = Small {
        disk: disk.clone(),
        room: 44 + 80_000,
    };
    let mut recorder = Recorder::start(sink, RATE_HZ).unwrap();
    for n in 0..200 {
        recorder.push(&[n; FRAME], &[n; FRAME]);
    }
    let started = Instant::now();
    let reason = loop {
        if let Some(reason) = recorder.poll_error() {
            break reason;
        }
        assert!(started.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    };
    assert!(!reason.is_empty());
    assert_eq!(recorder.poll_error(), None);
    // The call goes on.
    let before = recorder.dropped_frames();
    for _ in 0..1000 {
        recorder.push(&[0; FRAME], &[0; FRAME]);
    }
    assert!(recorder.dropped_frames() >= before + 750);
    let error = recorder.finish().unwrap_err();
    assert!(
        matches!(&error, RecorderError::Write(text) if *text == reason),
        "{error}"
    );
    assert_eq!(read(&disk.snapshot()).len(), 2 * RATE_HZ as usize);
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_without_room_is_refused_at_once() {
    let error = Recorder::create("/dev/full", RATE_HZ).unwrap_err();
    assert!(matches!(error, RecorderError::Create(_)), "{error}");
}

#[test]
fn every_write_leaves_a_file_that_can_be_read() {
    /// Keeps a copy of the file after every write: what a crash would leave.
    struct Watched {
        disk: Memory,
        copies: Arc<Mutex<Vec<Vec<u8>>>>,
    }
    impl Write for Watched {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            let count = self.disk.write(octets)?;
            self.copies.lock().unwrap().push(self.disk.snapshot());
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Seek for Watched {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.disk.seek(to)
        }
    }
    let copies = Arc::default();
    let sink = Watched {
        disk: Memory::default(),
        copies: Arc::clone(&copies),
    };
    let mut recorder = Recorder::start(sink, RATE_HZ).unwrap();
    for n in 0..230 {
        recorder.push(&[n; FRAME], &[n; FRAME]);
    }
    recorder.finish().unwrap();
    let copies = copies.lock().unwrap();
    let lengths: Vec<usize> = copies.iter().map(|file| read(file).len()).collect();
    // The header, then samples and header for each second and for the rest.
    assert_eq!(
        lengths,
        [0, 0, 8000, 8000, 16000, 16000, 24000, 24000, 32000, 32000, 36800]
    );
}
