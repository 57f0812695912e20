//! The playout against its rules, by example and by reference model.

use std::collections::VecDeque;
use std::sync::Arc;

use media::playout::{
    FRAME, Flushed, MARKS_MAX, Playout, PlayoutBudget, PlayoutError, PlayoutEvent, Reached,
};
use proptest::prelude::*;

/// 10 ms, and the length of the conversion filter.
const FADE: usize = 80;
const RING: usize = 32;

struct Leg {
    playout: Playout,
    budget: Arc<PlayoutBudget>,
}

impl Leg {
    fn new() -> Self {
        Self {
            playout: Playout::new(8000).unwrap(),
            budget: PlayoutBudget::new(600_000),
        }
    }

    fn play(&mut self, mark: u64, rate_hz: u32, samples: Vec<i16>) {
        let chunk = self.budget.chunk(samples, rate_hz, mark).unwrap();
        self.playout.enqueue(chunk);
    }

    fn frame(&mut self) -> ([i16; FRAME], usize, Vec<PlayoutEvent>) {
        let mut frame = [0; FRAME];
        let info = self.playout.next_frame(&mut frame);
        (frame, info.samples, self.events())
    }

    fn events(&mut self) -> Vec<PlayoutEvent> {
        std::iter::from_fn(|| self.playout.poll_event()).collect()
    }
}

const STARTED: fn(u64) -> PlayoutEvent = |mark| PlayoutEvent::Started { mark };

#[test]
fn a_chunk_plays_whole_and_reports_its_mark_with_its_last_frame() {
    let mut leg = Leg::new();
    leg.play(7, 8000, vec![1000; 400]);
    assert_eq!(leg.frame(), ([1000; FRAME], FRAME, vec![STARTED(7)]));
    assert_eq!(leg.frame().2, []);
    let (last, samples, events) = leg.frame();
    assert_eq!(samples, 80);
    assert_eq!(
        events,
        [PlayoutEvent::Played {
            mark: 7,
            played_ms: 50
        }]
    );
    assert_eq!((&last[..80], &last[80..]), (&[1000; 80][..], &[0; 80][..]));
    assert_eq!(leg.frame(), ([0; FRAME], 0, vec![]));
    assert!(leg.playout.is_idle());
    assert_eq!(leg.budget.queued_ms(), 0);
}

#[test]
fn chunks_that_come_in_time_are_one_talkspurt() {
    let mut leg = Leg::new();
    leg.play(1, 8000, (0..160).collect());
    assert_eq!(leg.frame().2[0], STARTED(1));
    // Queued after the last sample of the first went out, but before the next frame.
    leg.play(2, 8000, (160..320).collect());
    let (frame, _, events) = leg.frame();
    assert_eq!(frame.to_vec(), (160..320).collect::<Vec<i16>>());
    assert_eq!(
        events,
        [PlayoutEvent::Played {
            mark: 2,
            played_ms: 40
        }]
    );
    leg.frame();
    leg.play(3, 8000, vec![5; 160]);
    assert_eq!(leg.frame().2[0], STARTED(3));
}

#[test]
fn a_flush_fades_within_the_next_frame_and_reports_what_was_heard() {
    let mut leg = Leg::new();
    leg.play(1, 8000, vec![8000; 8000]);
    leg.play(2, 8000, vec![8000; 8000]);
    for _ in 0..10 {
        leg.frame();
    }
    leg.playout.flush();
    // Enqueued before the fade, but after the flush: it survives.
    leg.play(3, 8000, vec![9000; 160]);
    let (frame, samples, events) = leg.frame();
    assert_eq!(samples, 80);
    assert!(frame.windows(2).all(|pair| pair[0] >= pair[1]));
    assert_eq!(frame[80..], [0; 80]);
    let flushed = Flushed {
        mark: Some(1),
        heard_ms: 210,
        chunk_ms: 1000,
        played_ms: 210,
        dropped_ms: 1790,
        reached: None,
    };
    assert_eq!(events, [PlayoutEvent::Flushed(flushed)]);
    let (frame, _, events) = leg.frame();
    assert_eq!(frame, [9000; FRAME]);
    assert_eq!(
        events,
        [
            STARTED(3),
            PlayoutEvent::Played {
                mark: 3,
                played_ms: 230
            }
        ]
    );
    assert_eq!(leg.budget.queued_ms(), 0);
}

#[test]
fn a_flush_of_silence_is_answered_at_once() {
    let mut leg = Leg::new();
    leg.playout.flush();
    let nothing = Flushed {
        mark: None,
        heard_ms: 0,
        chunk_ms: 0,
        played_ms: 0,
        dropped_ms: 0,
        reached: None,
    };
    assert_eq!(leg.events(), [PlayoutEvent::Flushed(nothing)]);
    leg.play(4, 16_000, vec![1; 3200]);
    leg.playout.flush();
    let unheard = Flushed {
        mark: Some(4),
        chunk_ms: 200,
        dropped_ms: 200,
        ..nothing
    };
    assert_eq!(leg.events(), [PlayoutEvent::Flushed(unheard)]);
}

#[test]
fn a_flush_ends_a_pause_and_says_what_was_heard_before_it() {
    let mut leg = Leg::new();
    leg.play(1, 24_000, vec![3000; 24_000]);
    leg.frame();
    leg.playout.pause();
    leg.frame();
    leg.frame();
    leg.playout.flush();
    let flushed = Flushed {
        mark: Some(1),
        heard_ms: 30,
        chunk_ms: 1000,
        played_ms: 30,
        dropped_ms: 970,
        reached: None,
    };
    assert_eq!(leg.events(), [PlayoutEvent::Flushed(flushed)]);
    leg.play(2, 8000, vec![1; 160]);
    assert_eq!(leg.frame().2[0], STARTED(2));
}

#[test]
fn nothing_is_sent_and_still_a_flush_is_answered() {
    let mut leg = Leg::new();
    leg.play(1, 8000, vec![1; 1600]);
    leg.frame();
    leg.playout.flush();
    assert_eq!(leg.events(), []);
    leg.playout.settle();
    assert!(matches!(
        leg.events()[..],
        [PlayoutEvent::Flushed(Flushed { heard_ms: 20, .. })]
    ));
}

#[test]
fn a_pause_holds_and_a_resume_steps_back_by_its_fade() {
    let mut leg = Leg::new();
    leg.play(1, 8000, (0..1600).collect());
    leg.frame();
    leg.playout.pause();
    assert_eq!(leg.frame().1, 80);
    for _ in 0..5 {
        assert_eq!(leg.frame(), ([0; FRAME], 0, vec![]));
    }
    assert_eq!(leg.playout.played_ms(), 30);
    leg.playout.resume();
    let (frame, _, events) = leg.frame();
    assert_eq!(events, []);
    assert_eq!(frame[0], 0);
    assert_eq!(frame[40], 200 / 2, "the middle of what had faded");
    assert_eq!(frame[FADE..], (240..320).collect::<Vec<i16>>());
    assert_eq!(leg.playout.played_ms(), 40);
}

#[test]
fn marks_within_a_chunk_are_reached_at_their_sample() {
    let mut leg = Leg::new();
    let chunk = leg.budget.chunk(vec![100; 16_000], 16_000, 1).unwrap();
    let chunk = chunk.with_mark_at(7000, 12).unwrap();
    let chunk = chunk.with_mark_at(0, 10).unwrap();
    let chunk = chunk.with_mark_at(320, 11).unwrap();
    leg.playout.enqueue(chunk.with_mark_at(usize::MAX, 13).unwrap());
    let mark = |mark, played_ms| PlayoutEvent::Mark { mark, played_ms };
    assert_eq!(leg.frame().2, [STARTED(1), mark(10, 0)]);
    assert_eq!(leg.frame().2, [mark(11, 20)]);
    let later: Vec<_> = (2..25).flat_map(|_| leg.frame().2).collect();
    assert_eq!(later, [mark(12, 437)]);
    leg.playout.flush();
    let events = leg.frame().2;
    let [PlayoutEvent::Flushed(flushed)] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((flushed.heard_ms, flushed.played_ms), (510, 510));
    let reached = Reached {
        mark: 12,
        heard_ms: 72,
    };
    assert_eq!(flushed.reached, Some(reached));
}

#[test]
fn a_chunk_carries_so_many_marks() {
    let budget = PlayoutBudget::new(1000);
    let mut chunk = budget.chunk(vec![0; 800], 8000, 1).unwrap();
    for mark in 0..MARKS_MAX {
        chunk = chunk.with_mark_at(mark, mark as u64).unwrap();
    }
    assert!(matches!(chunk.with_mark_at(0, 0), Err(PlayoutError::Marks(_))));
    assert_eq!(budget.queued_ms(), 0);
}

#[test]
fn gains_of_leg_and_chunk_add_up_and_saturate() {
    let mut leg = Leg::new();
    leg.playout.set_gain_db(-6.0206);
    let chunk = leg.budget.chunk(vec![10_000; 480], 8000, 1).unwrap();
    leg.playout.enqueue(chunk.with_gain_db(-6.0206));
    assert_eq!(leg.frame().0, [2500; FRAME], "no ramp out of silence");
    leg.playout.set_gain_db(12.0);
    let frame = leg.frame().0;
    assert!(
        frame
            .windows(2)
            .all(|pair| (0..=219).contains(&(pair[1] - pair[0])))
    );
    assert_eq!(frame[81..], [19_905; 79]);
    leg.playout.set_gain_db(0.0);
    let chunk = leg.budget.chunk(vec![-30_000; 480], 8000, 2).unwrap();
    leg.playout.enqueue(chunk.with_gain_db(12.0));
    leg.frame();
    assert_eq!(leg.frame().0[81..], [i16::MIN; 79]);
}

#[test]
fn a_background_gives_way_to_a_chunk_and_returns() {
    let mut leg = Leg::new();
    let music = leg.budget.chunk(vec![1000; 100], 8000, 9).unwrap();
    leg.playout.loop_chunk(music);
    let (frame, samples, events) = leg.frame();
    assert!(
        frame
            .windows(2)
            .all(|pair| (0..=13).contains(&(pair[1] - pair[0])))
    );
    assert_eq!((samples, events), (FRAME, vec![]));
    assert_eq!(leg.frame().0, [1000; FRAME]);
    leg.play(1, 8000, vec![5000; 240]);
    let (frame, _, events) = leg.frame();
    assert_eq!((frame[0], &frame[82..]), (6000, &[5000; 78][..]));
    assert_eq!(events, [STARTED(1)]);
    let frame = leg.frame().0;
    assert_eq!(frame[..80], [5000; 80]);
    assert!(frame[80..].windows(2).all(|pair| pair[0] <= pair[1]) && frame[80] < 20);
    assert_eq!(leg.playout.played_ms(), 30, "the background is not counted");
    leg.events();
    leg.playout.pause();
    leg.frame();
    assert_eq!(leg.frame().0, [0; FRAME]);
    leg.playout.flush();
    leg.frame();
    assert_eq!(leg.frame().0, [1000; FRAME]);
    leg.events();
    leg.playout.stop_loop();
    let (frame, _, events) = leg.frame();
    assert_eq!(events, [PlayoutEvent::BackgroundEnded { mark: 9 }]);
    assert_eq!((frame[0], &frame[82..]), (1000, &[0; 78][..]));
    assert!(leg.playout.is_idle());
    assert_eq!(leg.budget.queued_ms(), 0);
}

#[test]
fn what_the_filter_holds_is_heard_after_the_chunk_and_not_before_the_next() {
    let mut leg = Leg::new();
    let tone = |count: usize| (0..count).map(|n| (9000.0 * (n as f64 * 0.2).sin()) as i16);
    leg.play(1, 24_000, tone(480).collect());
    let (first, samples, _) = leg.frame();
    let (second, none, _) = leg.frame();
    assert_eq!((samples, none), (FRAME, 0));
    assert!(first.iter().any(|&x| x != 0));
    assert!(second[..16].iter().any(|&x| x.abs() > 500), "the tail");
    assert_eq!(second[RING..], [0; FRAME - RING]);
    for _ in 0..3 {
        assert_eq!(leg.frame().0, [0; FRAME]);
    }
    leg.play(2, 24_000, vec![0; 480]);
    assert_eq!(leg.frame().0, [0; FRAME]);
}

/// Two halves in time, or with the second half late by less than the filter's ringing: the same samples.
#[test]
fn the_seam_of_two_chunks_is_that_of_one() {
    let tone: Vec<i16> = (0..1440)
        .map(|n| (9000.0 * (n as f64 * 0.1).sin()) as i16)
        .collect();
    let mut whole = Leg::new();
    whole.play(1, 24_000, tone.clone());
    let mut halves = Leg::new();
    halves.play(1, 24_000, tone[..600].to_vec());
    halves.play(2, 24_000, tone[600..].to_vec());
    for _ in 0..5 {
        assert_eq!(whole.frame().0, halves.frame().0);
    }
}

#[test]
fn the_budget_refuses_and_a_strange_rate_too() {
    let budget = PlayoutBudget::new(100);
    let half = budget.chunk(vec![0; 800], 16_000, 1).unwrap();
    let other = budget.chunk(vec![0; 800], 16_000, 2).unwrap();
    let full = PlayoutError::Full {
        queued_ms: 100,
        chunk_ms: 50,
        max_ms: 100,
    };
    assert_eq!(budget.chunk(vec![0; 800], 16_000, 3).unwrap_err(), full);
    assert!(
        budget.chunk(vec![], 8000, 3).is_err(),
        "even an empty chunk costs a frame"
    );
    drop(other);
    assert!(budget.chunk(vec![], 8000, 3).is_ok());
    drop(half);
    assert_eq!((budget.queued_ms(), budget.refused()), (0, 2));
    assert_eq!(
        budget.chunk(vec![], 11_025, 3).unwrap_err(),
        PlayoutError::Rate(11_025)
    );
}

/// A tone goes on in phase when the leg changes its rate in the middle of it.
#[test]
fn a_change_of_rate_goes_on_where_the_listener_is() {
    for (from, before, after) in RATES.into_iter().flat_map(|from| {
        RATES
            .into_iter()
            .flat_map(move |before| RATES.into_iter().map(move |after| (from, before, after)))
    }) {
        let mut leg = Leg::new();
        let tone = |seconds: f64| 8000.0 * (seconds * 300.0 * std::f64::consts::TAU).sin();
        // What the tone changes by in one sample of the slower leg.
        let sample = 8000.0 * 300.0 * std::f64::consts::TAU / f64::from(before.min(after));
        let samples = (0..from).map(|n| tone(f64::from(n) / f64::from(from)) as i16);
        leg.play(1, from, samples.collect());
        leg.playout.set_rate(before).unwrap();
        let delay = if from == before {
            0.0
        } else {
            16.0 / f64::from(from.min(before))
        };
        for frame_index in 0..50 {
            if frame_index == 7 {
                leg.playout.set_rate(after).unwrap();
            }
            let rate_hz = leg.playout.rate_hz();
            let mut frame = vec![0; leg.playout.frame_len()];
            leg.playout.next_frame(&mut frame);
            for (n, &x) in (0..).zip(&frame).filter(|_| (1..49).contains(&frame_index)) {
                let seconds = f64::from(frame_index) * 0.02 + f64::from(n) / f64::from(rate_hz) - delay;
                let error = (f64::from(x) - tone(seconds)).abs();
                assert!(
                    error < if frame_index < 7 { 30.0 } else { sample },
                    "{from} Hz, {before} to {after} Hz: {error} at {seconds}"
                );
            }
        }
        // The end may wait for what the first filter held.
        leg.playout.next_frame(&mut [0; 960]);
        assert!(leg.events().contains(&PlayoutEvent::Played {
            mark: 1,
            played_ms: 1000
        }));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Play(u32, usize),
    Pause,
    Resume,
    Flush,
    Settle,
    Rate(u32),
    Frame,
}

const RATES: [u32; 4] = [8000, 16_000, 24_000, 48_000];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rate = prop::sample::select(&RATES[..]);
    let leg_rate = rate.clone();
    let step = prop_oneof![
        4 => (rate, 0_usize..2500).prop_map(|(rate, length)| Step::Play(rate, length)),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => Just(Step::Flush),
        1 => Just(Step::Settle),
        1 => leg_rate.prop_map(Step::Rate),
        10 => Just(Step::Frame),
    ];
    prop::collection::vec(step, 0..150)
}

/// What the events say must follow from the calls alone.
#[derive(Default)]
struct Reference {
    /// Marks that have not ended; a flush owes an answer for those before `owed`.
    waiting: VecDeque<u64>,
    owed: Option<usize>,
    played_ms: u64,
}

impl Reference {
    fn check(&mut self, events: Vec<PlayoutEvent>, now_ms: u64) -> Result<(), TestCaseError> {
        for event in events {
            match event {
                PlayoutEvent::Started { mark } => prop_assert!(self.waiting.contains(&mark)),
                PlayoutEvent::Played { mark, played_ms } => {
                    prop_assert_eq!(self.owed, None);
                    prop_assert_eq!(self.waiting.pop_front(), Some(mark));
                    prop_assert!(self.played_ms <= played_ms && played_ms <= now_ms);
                    self.played_ms = played_ms;
                }
                PlayoutEvent::Mark { .. } | PlayoutEvent::BackgroundEnded { .. } => {
                    prop_assert!(false, "there are none");
                }
                PlayoutEvent::Flushed(flushed) => {
                    let count = self.owed.take();
                    prop_assert!(count.is_some());
                    prop_assert_eq!(flushed.mark, self.waiting.front().copied());
                    self.waiting.drain(..count.unwrap_or(0));
                    prop_assert!(flushed.heard_ms <= flushed.chunk_ms);
                    prop_assert_eq!(flushed.played_ms, now_ms);
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default, PartialEq)]
enum Hold {
    #[default]
    No,
    Pausing,
    Paused,
    Resuming,
}

/// The rules of a leg of 8 kHz, sample by sample.
#[derive(Debug, Default)]
struct Model {
    queue: VecDeque<i16>,
    again: Vec<i16>,
    state: Hold,
    played: u64,
}

impl Model {
    fn take(&mut self, count: usize) -> Vec<i16> {
        let count = count.min(self.queue.len());
        self.played += count as u64;
        self.queue.drain(..count).collect()
    }

    fn frame(&mut self) -> Vec<i16> {
        let fade = |x: i16, step: usize| (i32::from(x) * step as i32 / 80) as i16;
        let mut frame = match self.state {
            Hold::No => self.take(160),
            Hold::Paused => vec![],
            Hold::Pausing => {
                self.state = Hold::Paused;
                self.again = self.take(80);
                let steps = self.again.iter().enumerate();
                steps.map(|(step, &x)| fade(x, 80 - step)).collect()
            }
            Hold::Resuming => {
                self.state = Hold::No;
                let mut frame = std::mem::take(&mut self.again);
                frame.extend(self.take(160 - frame.len()));
                for (step, x) in frame.iter_mut().take(80).enumerate() {
                    *x = fade(*x, step);
                }
                frame
            }
        };
        frame.resize(160, 0);
        frame
    }
}

proptest! {
    #[test]
    fn marks_end_in_order_exactly_once(steps in steps()) {
        let mut leg = Leg::new();
        let mut reference = Reference::default();
        let (mut mark, mut last_ms, mut flushing) = (0, 0, false);
        for step in steps {
            match step {
                Step::Play(rate, length) => {
                    mark += 1;
                    reference.waiting.push_back(mark);
                    leg.play(mark, rate, vec![500; length]);
                }
                Step::Pause => leg.playout.pause(),
                Step::Resume => leg.playout.resume(),
                Step::Flush => {
                    leg.playout.flush();
                    flushing = true;
                    reference.owed = Some(reference.waiting.len());
                }
                Step::Settle => leg.playout.settle(),
                Step::Rate(rate_hz) => leg.playout.set_rate(rate_hz).unwrap(),
                Step::Frame => {
                    let mut frame = vec![0; leg.playout.frame_len()];
                    let samples = leg.playout.next_frame(&mut frame).samples;
                    let half = frame.len() / 2;
                    if std::mem::take(&mut flushing) {
                        let rung_out = frame.len() * 7 / 10;
                        prop_assert!(frame[rung_out..].iter().all(|&x| x == 0) || samples > half);
                    }
                }
            }
            let played_ms = leg.playout.played_ms();
            prop_assert!(last_ms <= played_ms && played_ms <= last_ms + 22);
            last_ms = played_ms;
            reference.check(leg.events(), played_ms)?;
        }
        leg.playout.resume();
        while !leg.playout.is_idle() {
            let mut frame = vec![0; leg.playout.frame_len()];
            leg.playout.next_frame(&mut frame);
            let played_ms = leg.playout.played_ms();
            reference.check(leg.events(), played_ms)?;
        }
        prop_assert!(reference.waiting.is_empty() && reference.owed.is_none());
        prop_assert_eq!(leg.budget.queued_ms(), 0);
    }

    /// Whatever the rates of chunks and leg, and however often the latter changes: what was played is as long as what
    /// was enqueued, to the tick of 48 kHz.
    #[test]
    fn the_accounts_are_exact_at_any_rate(
        chunks in prop::collection::vec((prop::sample::select(&RATES[..]), 1_usize..3000), 1..12),
        changes in prop::collection::vec(prop::option::of(prop::sample::select(&RATES[..])), 0..40),
    ) {
        let mut leg = Leg::new();
        let mut ticks = 0;
        let mut ends = Vec::new();
        for (mark, &(rate, length)) in (0..).zip(&chunks) {
            leg.play(mark, rate, vec![500; length]);
            ticks += length as u64 * u64::from(48_000 / rate);
            ends.push((mark, ticks / 48));
        }
        let mut changes = changes.into_iter();
        let (mut handed_out, mut reported) = (0, Vec::new());
        let mut changed = 0;
        while !leg.playout.is_idle() {
            if let Some(rate_hz) = changes.next().flatten() {
                changed += u64::from(rate_hz != leg.playout.rate_hz());
                leg.playout.set_rate(rate_hz).unwrap();
            }
            let mut frame = vec![0; leg.playout.frame_len()];
            let samples = leg.playout.next_frame(&mut frame).samples as u64;
            handed_out += samples * u64::from(48_000 / leg.playout.rate_hz());
            reported.extend(leg.events().into_iter().filter_map(|event| match event {
                PlayoutEvent::Played { mark, played_ms } => Some((mark, played_ms)),
                _ => None,
            }));
        }
        prop_assert_eq!(reported, ends);
        // A sample for every end of a chunk, and the filter's 2 ms for every change.
        let tolerance = 6 * chunks.len() as u64 + (96 + 12) * changed;
        prop_assert!(handed_out.abs_diff(ticks) <= tolerance, "{handed_out} of {ticks}");
        prop_assert_eq!(leg.budget.queued_ms(), 0);
    }

    /// Against a model that knows of each sample whether it went out, faded or not: nothing twice but the step back.
    #[test]
    fn what_goes_out_is_what_the_rules_say(steps in steps()) {
        let mut leg = Leg::new();
        let mut model = Model::default();
        let mut next = 1_i16;
        for (mark, step) in (0..).zip(steps) {
            match step {
                Step::Play(_, length) => {
                    let samples: Vec<i16> = (0..length as i16 / 8).map(|n| next.wrapping_add(n)).collect();
                    next = next.wrapping_add(samples.len() as i16);
                    model.queue.extend(&samples);
                    leg.play(mark, 8000, samples);
                }
                Step::Pause if model.state == Hold::Resuming => {
                    leg.playout.pause();
                    model.state = Hold::Paused;
                }
                Step::Pause if model.state == Hold::No => {
                    leg.playout.pause();
                    model.state = Hold::Pausing;
                }
                Step::Resume if model.state == Hold::Pausing => {
                    leg.playout.resume();
                    model.state = Hold::No;
                }
                Step::Resume if model.state == Hold::Paused => {
                    leg.playout.resume();
                    model.state = Hold::Resuming;
                }
                Step::Frame | Step::Pause | Step::Resume => {
                    prop_assert_eq!(leg.frame().0.to_vec(), model.frame());
                    prop_assert_eq!(leg.playout.played_ms(), model.played / 8);
                }
                Step::Flush | Step::Settle | Step::Rate(_) => {}
            }
        }
    }

    /// Sines of whole periods, joined, cut, held, faded and mixed: no step is larger than those of the sines and of the
    /// fades.
    #[test]
    fn nothing_clicks(steps in steps(), gains in prop::collection::vec(-40_f32..0.0, 150)) {
        let mut leg = Leg::new();
        let sine = |tone_hz: f64, peak: f64, rate: u32, length: usize| -> Vec<i16> {
            let turns = |n: usize| n as f64 * tone_hz / f64::from(rate);
            (0..length).map(|n| (peak * (turns(n) * std::f64::consts::TAU).sin()) as i16).collect()
        };
        leg.playout.loop_chunk(leg.budget.chunk(sine(200.0, 2000.0, 8000, 400), 8000, 999).unwrap());
        // 8000 of 250 Hz and 2000 of 200 Hz by the sample of 8 kHz, and both faded within 80.
        let limit = 8000.0 * 250.0 * std::f64::consts::TAU / 8000.0 + 2000.0 * 200.0 * std::f64::consts::TAU / 8000.0
            + 3.0 * 10_000.0 / 80.0;
        let mut last = 0;
        for ((mark, step), gain_db) in (0..).zip(steps).zip(gains) {
            match step {
                Step::Play(_, length) => {
                    let periods = length / 100 + 1;
                    leg.play(mark, 8000, sine(250.0, 8000.0, 8000, periods * 32));
                    leg.playout.set_gain_db(gain_db);
                }
                Step::Pause => leg.playout.pause(),
                Step::Resume => leg.playout.resume(),
                Step::Flush => leg.playout.flush(),
                Step::Frame | Step::Settle | Step::Rate(_) => {
                    for x in leg.frame().0 {
                        prop_assert!(f64::from((x - last).abs()) <= limit, "{} after {}", x, last);
                        last = x;
                    }
                }
            }
        }
    }

    /// Each mark within chunks is reached once, in order, at its place; or else the flush dropped it.
    #[test]
    fn marks_within_chunks_end_once(
        chunks in prop::collection::vec(
            (prop::sample::select(&RATES[..]), prop::collection::vec(0_usize..3000, 0..8)), 1..8),
        leg_rate in prop::sample::select(&RATES[..]), flush_at in prop::option::of(0_usize..40),
    ) {
        let mut leg = Leg::new();
        leg.playout.set_rate(leg_rate).unwrap();
        let (mut expected, mut begin) = (Vec::new(), 0);
        for (index, (rate, places)) in chunks.iter().enumerate() {
            let mut chunk = leg.budget.chunk(vec![7; 2500], *rate, index as u64).unwrap();
            let ticks = u64::from(48_000 / rate);
            let mut here = Vec::new();
            for (n, &place) in places.iter().enumerate() {
                let mark = 100 * (index as u64 + 1) + n as u64;
                chunk = chunk.with_mark_at(place, mark).unwrap();
                here.push((place.min(2500), mark, (begin + place.min(2500) as u64 * ticks) / 48));
            }
            here.sort_by_key(|&(place, ..)| place);
            expected.extend(here.into_iter().map(|(_, mark, at_ms)| (mark, at_ms)));
            begin += 2500 * ticks;
            leg.playout.enqueue(chunk);
        }
        let (mut reached, mut frame, mut index) = (Vec::new(), vec![0; leg_rate as usize / 50], 0);
        while !leg.playout.is_idle() {
            if flush_at == Some(index) {
                leg.playout.flush();
            }
            index += 1;
            leg.playout.next_frame(&mut frame);
            for event in leg.events() {
                match event {
                    PlayoutEvent::Mark { mark, played_ms } => reached.push((mark, played_ms)),
                    PlayoutEvent::Flushed(flushed) => {
                        let due = expected.iter().take_while(|&&(_, at_ms)| at_ms < flushed.played_ms).count();
                        prop_assert!(reached.len() >= due && reached.len() <= expected.len());
                        expected.truncate(reached.len());
                    }
                    _ => {}
                }
            }
        }
        prop_assert_eq!(reached, expected);
    }

    /// Every sample has its own value, so that what goes out twice or not at all shows.
    #[test]
    fn samples_go_out_once_and_in_order(
        lengths in prop::collection::vec(0_usize..500, 1..20), gap in 0_usize..4,
    ) {
        let mut leg = Leg::new();
        let (mut next, mut out) = (1_i16, Vec::new());
        for (index, length) in lengths.into_iter().enumerate() {
            leg.play(index as u64, 8000, (next..next + length as i16).collect());
            next += length as i16;
            for _ in 0..gap {
                out.extend(leg.frame().0);
            }
        }
        while !leg.playout.is_idle() {
            out.extend(leg.frame().0);
        }
        out.retain(|&x| x != 0);
        prop_assert_eq!(out, (1..next).collect::<Vec<_>>());
    }

    #[test]
    fn any_rate_plays_for_as_long_as_the_chunk_lasts(
        rate in prop::sample::select(&RATES[..]), leg_rate in prop::sample::select(&RATES[..]),
        ms in 1_usize..800,
    ) {
        let mut leg = Leg::new();
        leg.playout.set_rate(leg_rate).unwrap();
        leg.play(1, rate, vec![500; ms * rate as usize / 1000]);
        let mut frames = 0;
        let mut frame = vec![0; leg_rate as usize / 50];
        while leg.playout.next_frame(&mut frame).samples > 0 {
            frames += 1;
        }
        prop_assert_eq!(leg.playout.played_ms(), ms as u64);
        prop_assert_eq!(frames, ms.div_ceil(20));
    }
}
