//! The echo guard on real speech through simulated echo paths. A larger matrix, on other voices, is the example
//! `echo_matrix`.
//!
//! The two clips of `speech_data` (8 kHz, signed 16 bit, little-endian) were spoken by the Piper voice
//! `en_US-joe-medium` (rhasspy/piper-voices), which is the voice that the product embeds. What the caller says is played
//! a sixth faster, so that it is another voice than the one that echoes.

mod echo_lab;

use counting::allocations_in;
use echo_lab::{BargeIn, GOOD, Network, Noise, Room, is_speech, resampled, rooms, verdicts};
use media::echo::{EchoGuard, Verdict};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn clip(octets: &[u8]) -> Vec<f32> {
    let samples = octets.chunks_exact(2);
    samples
        .map(|two| f32::from(i16::from_le_bytes([two[0], two[1]])))
        .collect()
}

/// At 8 kHz, from the first sound on.
fn caller() -> Vec<f32> {
    let slow = clip(include_bytes!("speech_data/caller_8k.pcm"));
    let length = slow.len() * 6 / 7;
    let fast = (0..length - 2).map(|n| {
        let place = n as f32 * 7.0 / 6.0;
        let (index, part) = (place as usize, place.fract());
        slow[index] * (1.0 - part) + slow[index + 1] * part
    });
    fast.skip_while(|x| x.abs() < 600.0).collect()
}

/// At 16 kHz: a second of silence, a sentence of four seconds, a second, the sentence again.
fn played() -> Vec<f32> {
    let sentence = resampled(
        &clip(include_bytes!("speech_data/receptionist_8k.pcm")),
        8000,
        16_000,
    );
    let pause = vec![0.0; 16_000];
    [&pause[..], &sentence, &pause, &sentence, &pause].concat()
}

/// Over such a line nothing echoes.
fn handset() -> Room {
    Room {
        snr_db: -30.0,
        ..rooms()[0]
    }
}

/// After the first second of speech, of all ticks: hardly any where the echo is no weaker than -20 dB; few where it is
/// hardly more than the noise.
#[test]
fn no_echo_is_taken_for_the_caller() {
    let played = played();
    let (mut wrong, mut faint, mut all) = (vec![], 0, 0);
    for room in rooms() {
        let echo = room.echo(&played);
        let heard = verdicts(&played, &room.line(&echo, &[], 0, GOOD));
        let speech = is_speech(&echo);
        let first = speech.iter().position(|&x| x).unwrap_or(0);
        let ticks = (first + 50..heard.len().min(speech.len())).filter(|&tick| speech[tick]);
        all += ticks.clone().count();
        let missed = ticks.filter(|&tick| heard[tick] != Verdict::Echo);
        if room.gain_db < -20.0 {
            faint += missed.count();
        } else {
            wrong.extend(missed.map(|tick| (room, tick)));
        }
    }
    assert!(
        all > 2000 && 400 * wrong.len() <= all,
        "{} of {all}: {wrong:?}",
        wrong.len()
    );
    assert!(25 * faint <= all, "{faint} of {all}");
}

#[test]
fn the_delay_is_found_whatever_the_network_does() {
    let played = played();
    let networks = [
        GOOD,
        Network { loss: 0.05, ..GOOD },
        Network {
            is_jittery: true,
            ..GOOD
        },
        Network {
            drift_ppm: -100.0,
            ..GOOD
        },
    ];
    let loud = rooms().into_iter().filter(|room| room.gain_db > -20.0);
    for (room, network) in loud.zip(networks.into_iter().cycle()) {
        let mut guard = EchoGuard::new();
        let line = room.line(&room.echo(&played), &[], 0, network);
        for (reference, captured) in played.chunks_exact(echo_lab::TICK).zip(&line) {
            guard.reference(&reference.iter().map(|&x| x as i16).collect::<Vec<_>>());
            guard.captured(captured);
        }
        // Packets that come in bursts are up to 40 ms late.
        let found_ms = guard.delay_ms().map_or(0, |ms| ms as usize);
        assert!(
            (room.delay_ms..=room.delay_ms + 60).contains(&found_ms),
            "{room:?} {network:?} {found_ms}"
        );
    }
}

/// What is asked of a caller so loud against the echo: how many of a hundred are let through within 150 ms beyond the
/// normal. All are in the end.
#[test]
fn a_caller_who_speaks_is_let_through() {
    let (played, speech) = (played(), caller());
    let mut waits = [(6.0, 100, vec![]), (0.0, 90, vec![]), (-6.0, 50, vec![])];
    for (index, room) in rooms().into_iter().step_by(3).enumerate() {
        let echo = room.echo(&played);
        let onset = 8000 * (7 + index % 3);
        let case = BargeIn {
            room,
            played: &played,
            echo: &echo,
            speech: &speech,
            onset,
            network: GOOD,
        };
        for (signal_to_echo_db, _, waits) in &mut waits {
            waits.push(case.wait(&case.against_echo(*signal_to_echo_db)).0);
        }
    }
    for (signal_to_echo_db, share, waits) in waits {
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

/// A caller with a handset speaks into the first words of a call, or later.
#[test]
fn without_an_echo_the_caller_is_let_through() {
    let (played, speech) = (played(), caller());
    let quiet = vec![0.0; played.len() / 2];
    for onset_ms in [1100, 1300, 1700, 2300, 3000, 7000, 8000] {
        for loudness in [1.0, 0.3] {
            let speech: Vec<f32> = speech.iter().map(|x| x * loudness).collect();
            let onset = 8 * onset_ms;
            let case = BargeIn {
                room: handset(),
                played: &played,
                echo: &quiet,
                speech: &speech,
                onset,
                network: GOOD,
            };
            let (wait, share) = case.wait(&speech);
            assert!(
                wait.is_some_and(|ms| ms <= 150) && share > 0.7,
                "{onset_ms} ms: {wait:?}, {share}"
            );
        }
    }
}

#[test]
fn any_lengths_and_any_samples_and_nothing_is_allocated() {
    let mut guard = EchoGuard::new();
    let mut noise = Noise(3);
    for length in (0..500).chain([7, 160, 5000]) {
        let samples: Vec<i16> = (0..length).map(|_| (noise.next() * 40_000.0) as i16).collect();
        let allocations = allocations_in(|| {
            guard.reference(&samples);
            guard.captured(&samples[length / 3..]);
            guard.captured(&[i16::MIN; 33]);
        });
        assert_eq!(allocations, 0);
    }
    let mut silent = EchoGuard::new();
    silent.captured(&vec![20_000; 16_000]);
    assert_eq!((silent.verdict(), silent.delay_ms()), (Verdict::Clear, None));
}
