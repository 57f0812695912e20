//! The echo guard on real speech through simulated echo paths.
//!
//! The two clips of `speech_data` (8 kHz, signed 16 bit, little-endian) were spoken by the Piper voice
//! `en_US-joe-medium` (rhasspy/piper-voices), which is the voice that the product embeds. What the caller says is played
//! a sixth faster, so that it is another voice than the one that echoes.

use codec::g711::{Law, decode_into, encode_into};
use codec::resample::Resampler;
use media::echo::{EchoGuard, Verdict};

const TICK: usize = 320;
/// The bot speaks from the first second on.
const LEAD: usize = 16_000;

fn clip(octets: &[u8]) -> Vec<f32> {
    let narrow: Vec<i16> = octets
        .chunks_exact(2)
        .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let mut wide = Vec::new();
    Resampler::new(8000, 16_000).unwrap().process(&narrow, &mut wide);
    wide.into_iter().map(f32::from).collect()
}

fn receptionist() -> Vec<f32> {
    clip(include_bytes!("speech_data/receptionist_8k.pcm"))
}

fn caller() -> Vec<f32> {
    let slow = clip(include_bytes!("speech_data/caller_8k.pcm"));
    let length = slow.len() * 6 / 7;
    let fast = (0..length - 2).map(|n| {
        let place = n as f32 * 7.0 / 6.0;
        let (index, part) = (place as usize, place.fract());
        slow[index] * (1.0 - part) + slow[index + 1] * part
    });
    let first = |x: &f32| x.abs() > 600.0;
    let fast: Vec<f32> = fast.collect();
    let onset = fast.iter().position(first).unwrap();
    fast[onset..].to_vec()
}

/// A generator of 64-bit numbers (xorshift; Marsaglia 2003), here from -1 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }
}

fn power(samples: &[f32]) -> f32 {
    let loud = samples.iter().filter(|x| x.abs() > 50.0);
    let count = loud.clone().count().max(1);
    loud.map(|x| x * x).sum::<f32>() / count as f32
}

#[derive(Debug, Clone, Copy)]
struct EchoPath {
    delay_ms: usize,
    gain_db: f32,
    rt60_s: f32,
    snr_db: f32,
    law: Law,
    clips: bool,
}

fn paths() -> Vec<EchoPath> {
    let mut paths = Vec::new();
    for (index, delay_ms) in [20, 60, 130, 250, 400].into_iter().enumerate() {
        for (column, gain_db) in [-6.0, -12.0, -20.0, -30.0].into_iter().enumerate() {
            let odd = (index + column) % 2 == 1;
            paths.push(EchoPath {
                delay_ms,
                gain_db,
                rt60_s: if odd { 0.4 } else { 0.2 },
                snr_db: if (index + column) % 3 == 0 { 15.0 } else { 30.0 },
                law: if odd { Law::A } else { Law::Mu },
                clips: (index + column) % 4 < 2,
            });
        }
    }
    paths
}

impl EchoPath {
    /// What comes back of `played`: bent by the loudspeaker, through the room, late.
    fn echo(&self, played: &[f32]) -> Vec<f32> {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15 ^ self.delay_ms as u64);
        let length = (self.rt60_s * 16_000.0 * 0.6) as usize;
        let mut room: Vec<f32> = (0..length)
            .map(|n| noise.next() * 0.3 * 10_f32.powf(-3.0 * n as f32 / (self.rt60_s * 16_000.0)))
            .collect();
        room[0] = 1.0;
        // Late arrivals are sparse enough to leave out most: the bands have enough of them.
        room.iter_mut()
            .skip(1)
            .enumerate()
            .filter(|(n, _)| n % 15 != 0)
            .for_each(|(_, x)| *x = 0.0);
        let bent: Vec<f32> = played
            .iter()
            .map(|&x| {
                if self.clips {
                    12_000.0 * (x / 12_000.0).tanh()
                } else {
                    x
                }
            })
            .collect();
        let mut echo = vec![0.0; played.len()];
        let taps: Vec<(usize, f32)> = room
            .iter()
            .copied()
            .enumerate()
            .filter(|(_, x)| *x != 0.0)
            .collect();
        let late = self.delay_ms * 16;
        for (place, &x) in bent.iter().enumerate().filter(|(_, x)| x.abs() > 1.0) {
            for &(tap, weight) in &taps {
                if let Some(sum) = echo.get_mut(place + late + tap) {
                    *sum += weight * x;
                }
            }
        }
        let scale = 10_f32.powf(self.gain_db / 20.0) * (power(played) / power(&echo)).sqrt();
        for x in &mut echo {
            *x *= scale;
        }
        echo
    }

    /// With noise, and through a codec of 8 kHz.
    fn line(&self, echo: &[f32], speech: &[f32], from: usize) -> Vec<i16> {
        let mut noise = Noise(77 + self.delay_ms as u64);
        let level = (3.0 * power(echo) * 10_f32.powf(-self.snr_db / 10.0)).sqrt();
        let sum = echo.iter().enumerate().map(|(n, &x)| {
            let said = n.checked_sub(from).and_then(|n| speech.get(n)).unwrap_or(&0.0);
            (x + said + level * noise.next()) as i16
        });
        let mut narrow = Vec::new();
        Resampler::new(16_000, 8000)
            .unwrap()
            .process(&sum.collect::<Vec<_>>(), &mut narrow);
        let mut octets = vec![0; narrow.len()];
        encode_into(self.law, &narrow, &mut octets);
        decode_into(self.law, &octets, &mut narrow);
        let mut wide = Vec::new();
        Resampler::new(8000, 16_000).unwrap().process(&narrow, &mut wide);
        wide
    }
}

/// Twice the same sentence, after a second.
fn played(speech: &[f32], level_db: f32) -> Vec<f32> {
    let factor = 10_f32.powf(level_db / 20.0);
    let mut played = vec![0.0; LEAD];
    for pause in [8000, 16_000] {
        played.extend(speech.iter().map(|x| x * factor));
        played.resize(played.len() + pause, 0.0);
    }
    played
}

/// The verdict after each tick.
fn verdicts(played: &[f32], line: &[i16]) -> Vec<Verdict> {
    let mut guard = EchoGuard::new();
    let played: Vec<i16> = played.iter().map(|&x| x as i16).collect();
    let ticks = played.chunks_exact(TICK).zip(line.chunks_exact(TICK));
    ticks
        .map(|(reference, captured)| {
            guard.reference(reference);
            guard.captured(captured);
            guard.verdict()
        })
        .collect()
}

/// The speech detector has three windows of 32 ms to make sure of an onset; the verdict is asked for after that.
const NORMAL_MS: usize = 100;

/// Milliseconds beyond that until a verdict lets the caller through.
fn detected_ms(
    path: EchoPath,
    echo: &[f32],
    played: &[f32],
    onset: usize,
    signal_to_echo_db: f32,
) -> Option<usize> {
    let speech = caller();
    // Over the same 300 ms, which decide; in a pause of the echo, against all of it.
    let there = &echo[onset..onset + 4800];
    let there = (there.iter().map(|x| x * x).sum::<f32>() / 4800.0).max(power(echo));
    let first = speech[..4800].iter().map(|x| x * x).sum::<f32>() / 4800.0;
    let wanted = (there * 10_f32.powf(signal_to_echo_db / 10.0) / first).sqrt();
    let speech: Vec<f32> = speech.iter().map(|x| x * wanted).collect();
    let line = path.line(echo, &speech, onset);
    let verdicts = verdicts(played, &line);
    let after = &verdicts[onset / TICK..verdicts.len().min((onset + speech.len()) / TICK)];
    let free = after
        .iter()
        .skip(NORMAL_MS / 20)
        .position(|&verdict| verdict != Verdict::Echo)?;
    Some(20 * free)
}

/// Onsets while we speak for the second time.
const ONSETS_S: [usize; 3] = [6, 7, 8];

/// Both clips, at two levels, over all paths, from the first word of a call on.
#[test]
fn no_echo_is_taken_for_the_caller() {
    let mut wrong = Vec::new();
    for (speech, level_db) in [(receptionist(), 0.0), (receptionist(), -12.0), (caller(), 0.0)] {
        let played = played(&speech, level_db);
        for path in paths() {
            let line = path.line(&path.echo(&played), &[], 0);
            let verdicts = verdicts(&played, &line);
            if let Some(tick) = verdicts
                .iter()
                .position(|&verdict| verdict == Verdict::DoubleTalk)
            {
                wrong.push((path, level_db, 20 * tick));
            }
        }
    }
    assert!(wrong.is_empty(), "{} {wrong:?}", wrong.len());
}

/// What is asked of a caller so loud against the echo: how many of a hundred are let through within 150 ms beyond the
/// normal. All are in the end.
#[test]
fn a_caller_who_speaks_is_let_through() {
    let played = played(&receptionist(), 0.0);
    let echoes: Vec<_> = paths()
        .into_iter()
        .map(|path| (path, path.echo(&played)))
        .collect();
    for (signal_to_echo_db, share) in [(6.0, 100), (0.0, 95), (-6.0, 60)] {
        let waits = echoes.iter().flat_map(|(path, echo)| {
            ONSETS_S.map(|onset_s| detected_ms(*path, echo, &played, onset_s * 16_000, signal_to_echo_db))
        });
        let waits: Vec<_> = waits.collect();
        let in_time = waits.iter().flatten().filter(|&&ms| ms <= 150).count();
        assert!(
            waits.iter().all(Option::is_some),
            "{signal_to_echo_db} dB: {waits:?}"
        );
        assert!(
            100 * in_time >= share * waits.len(),
            "{signal_to_echo_db} dB: {in_time}, {waits:?}"
        );
    }
}

/// A caller with a handset, whom nothing echoes, speaks over us.
#[test]
fn without_an_echo_the_caller_is_let_through() {
    let played = played(&receptionist(), 0.0);
    let quiet = EchoPath {
        gain_db: -70.0,
        ..paths()[0]
    };
    let speech: Vec<f32> = caller().iter().map(|x| x * 0.5).collect();
    for onset in ONSETS_S {
        let onset = onset * 16_000;
        let line = quiet.line(&vec![1.0; played.len()], &speech, onset);
        let after = &verdicts(&played, &line)[onset / TICK + NORMAL_MS / 20..];
        let free = after.iter().position(|&verdict| verdict != Verdict::Echo);
        assert!(free.is_some_and(|ticks| 20 * ticks <= 150), "{free:?}");
    }
}

#[test]
fn any_lengths_and_any_samples() {
    let mut guard = EchoGuard::new();
    let mut noise = Noise(3);
    for length in (0..500).chain([7, 160, 5000]) {
        let samples: Vec<i16> = (0..length).map(|_| (noise.next() * 40_000.0) as i16).collect();
        guard.reference(&samples);
        guard.captured(&samples[length / 3..]);
        guard.captured(&[i16::MIN; 33]);
    }
    let mut silent = EchoGuard::new();
    silent.captured(&vec![20_000; 16_000]);
    assert_eq!((silent.verdict(), silent.delay_ms()), (Verdict::Clear, None));
}
