//! The echo guard on other voices: who is taken for an echo, and which echo for a caller.
//!
//! `cargo run --release -p media --example echo_matrix -- FOLDER` with WAV files (16 kHz, mono, 16 bit) of speech. Names
//! that share all before the last `_` are one speaker, who does not call itself. Recorded speech comes with the Debian
//! packages asterisk-core-sounds-{en,fr,it,ru}-wav, pocketsphinx-testdata and alsa-utils, more voices with espeak-ng.

#[path = "../tests/echo_lab/mod.rs"]
mod echo_lab;

use echo_lab::{BargeIn, GOOD, Network, Room, is_speech, resampled, rooms, verdicts};
use media::echo::Verdict;

struct Voice {
    speaker: String,
    name: String,
    /// At 16 kHz.
    speech: Vec<f32>,
}

fn voices(folder: &str) -> Vec<Voice> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let voice = |path: std::path::PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let octets = std::fs::read(&path).unwrap();
        let data = octets.windows(4).position(|four| four == b"data").unwrap() + 8;
        let samples = octets[data..]
            .chunks_exact(2)
            .map(|two| f32::from(i16::from_le_bytes([two[0], two[1]])));
        let speaker = name.rsplit_once('_').unwrap().0.to_owned();
        Voice {
            speaker,
            name,
            speech: samples.collect(),
        }
    };
    paths.into_iter().map(voice).collect()
}

/// From the first sound on, at 8 kHz.
fn onset(speech: &[f32]) -> Vec<f32> {
    let narrow = resampled(speech, 16_000, 8000);
    let first = narrow
        .chunks(80)
        .position(|hop| hop.iter().map(|x| x * x).sum::<f32>() > 80.0 * 4e5);
    narrow[80 * first.unwrap_or(0)..].to_vec()
}

/// A second of silence, the voice, a second, the voice again.
fn played(speech: &[f32]) -> Vec<f32> {
    let pause = vec![0.0; 16_000];
    [&pause[..], speech, &pause, speech, &pause].concat()
}

#[derive(Default)]
struct Score {
    calls: u32,
    wrong: u32,
    episodes: u32,
    early: u32,
    waits: Vec<Option<usize>>,
    shares: Vec<f32>,
}

impl Score {
    fn echo_only(&mut self, room: Room, played: &[f32], echo: &[f32], network: Network) {
        let line = room.line(echo, &[], 0, network);
        let verdicts = verdicts(played, &line);
        let speech = is_speech(echo);
        let wrong: Vec<usize> = (0..verdicts.len().min(speech.len()))
            .filter(|&tick| speech[tick] && verdicts[tick] != Verdict::Echo)
            .collect();
        let first = wrong.iter().enumerate();
        let starts: Vec<usize> = first
            .filter(|&(n, &tick)| n == 0 || tick > wrong[n - 1] + 25)
            .map(|(_, &t)| t)
            .collect();
        let first_speech = speech.iter().position(|&x| x).unwrap_or(0);
        self.calls += 1;
        self.wrong += u32::from(!wrong.is_empty());
        self.episodes += starts.len() as u32;
        self.early += starts.iter().filter(|&&tick| tick < first_speech + 50).count() as u32;
    }

    fn barge_in(&mut self, case: BargeIn, speech: &[f32]) {
        let (wait, share) = case.wait(speech);
        self.waits.push(wait);
        self.shares.push(share);
    }

    fn print(&self, what: &str) {
        if self.calls > 0 {
            println!(
                "{what:44} calls {:3}  with a false pause {:3}  false pauses {:3}, {:3} of them in the first second",
                self.calls, self.wrong, self.episodes, self.early
            );
        } else {
            let within = |ms: usize| self.waits.iter().flatten().filter(|&&wait| wait <= ms).count();
            let share = self.shares.iter().sum::<f32>() / self.shares.len() as f32;
            println!(
                "{what:44} cases {:3}  at once {:3}  <=60 ms {:3}  <=150 ms {:3}  <=300 ms {:3}  never {:3}  free {share:.2}",
                self.waits.len(),
                within(0),
                within(60),
                within(150),
                within(300),
                self.waits.iter().filter(|wait| wait.is_none()).count(),
            );
        }
    }
}

const NETWORKS: [(&str, Network); 5] = [
    ("good", GOOD),
    (
        "jitter",
        Network {
            is_jittery: true,
            ..GOOD
        },
    ),
    ("3 % loss", Network { loss: 0.03, ..GOOD }),
    (
        "+100 ppm",
        Network {
            drift_ppm: 100.0,
            ..GOOD
        },
    ),
    (
        "-2000 ppm (7 min of -100)",
        Network {
            drift_ppm: -2000.0,
            ..GOOD
        },
    ),
];

fn main() {
    let folder = std::env::args().nth(1).expect("a folder of WAV files");
    let voices = voices(&folder);
    let rooms = rooms();
    let callers: Vec<Vec<f32>> = voices.iter().map(|voice| onset(&voice.speech)).collect();
    let caller = |bot: usize, turn: usize| {
        let others: Vec<usize> = (0..voices.len())
            .filter(|&v| voices[v].speaker != voices[bot].speaker)
            .collect();
        &callers[others[turn % others.len()]]
    };
    for (name, network) in NETWORKS {
        let mut score = Score::default();
        let mut loud = [6.0, 0.0, -6.0].map(|db| (db, Score::default()));
        for (bot, voice) in voices.iter().enumerate() {
            let played = played(&voice.speech);
            let some = if name == "good" { 2 } else { 7 };
            for (index, room) in rooms.iter().enumerate().skip(bot % some).step_by(some) {
                let echo = room.echo(&played);
                score.echo_only(*room, &played, &echo, network);
                let second = 16_000 + voice.speech.len();
                let onset = second / 2 + 8000 * (index % 3) + 8000;
                let speech = caller(bot, index);
                let case = BargeIn {
                    room: *room,
                    played: &played,
                    echo: &echo,
                    speech,
                    onset,
                    network,
                };
                for (db, score) in &mut loud {
                    score.barge_in(case, &case.against_echo(*db));
                }
            }
        }
        score.print(&format!("{name}: echo alone"));
        for (db, score) in loud {
            score.print(&format!("{name}: caller at {db:+} dB, second sentence"));
        }
    }
    greeting(&voices, &rooms, caller);
    changes(&voices, &rooms);
}

/// The caller speaks into the first words.
fn greeting<'a>(voices: &[Voice], rooms: &[Room], caller: impl Fn(usize, usize) -> &'a Vec<f32>) {
    for at_ms in [300, 800, 1500] {
        let mut handset = Score::default();
        let mut loud = [6.0, 0.0].map(|db| (db, Score::default()));
        for (bot, voice) in voices.iter().enumerate() {
            let played = played(&voice.speech);
            for (index, room) in rooms.iter().enumerate().skip(bot % 4).step_by(4) {
                let speech = caller(bot, index / 4);
                let onset = 8000 + 8 * at_ms;
                let quiet: Vec<f32> = vec![0.0; played.len() / 2];
                let case = BargeIn {
                    room: Room {
                        snr_db: -30.0,
                        ..*room
                    },
                    played: &played,
                    echo: &quiet,
                    speech,
                    onset,
                    network: GOOD,
                };
                let level: Vec<f32> = speech.iter().map(|x| x * [1.0, 0.5, 0.25][index % 3]).collect();
                handset.barge_in(case, &level);
                let echo = room.echo(&played);
                let case = BargeIn {
                    room: *room,
                    echo: &echo,
                    ..case
                };
                for (db, score) in &mut loud {
                    score.barge_in(case, &case.against_echo(*db));
                }
            }
        }
        handset.print(&format!("greeting +{at_ms} ms: caller without echo"));
        for (db, score) in loud {
            score.print(&format!("greeting +{at_ms} ms: caller at {db:+} dB"));
        }
    }
}

/// In mid-call the telephone is put on its loudspeaker, or elsewhere.
fn changes(voices: &[Voice], rooms: &[Room]) {
    let mut score = Score::default();
    for (bot, voice) in voices.iter().enumerate() {
        let played = played(&voice.speech);
        for pair in 0..5 {
            let (before, after) = (rooms[(bot + 4 * pair) % 20], rooms[(bot * 7 + 3 * pair + 5) % 20]);
            let mut echo = before.echo(&played);
            let half = echo.len() / 2;
            echo[half..].copy_from_slice(&after.echo(&played)[half..]);
            score.echo_only(before, &played, &echo, GOOD);
        }
        let _ = &voice.name;
    }
    score.print("another path in mid-call: echo alone");
}
