//! Any sequence of calls against models of the rules.

use std::collections::VecDeque;

use media::playout::PlayoutEvent;
use proptest::prelude::*;

use super::{Leg, RATES};

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

/// The rules of a leg whose chunks have its rate, sample by sample.
#[derive(Debug, Default)]
struct Model {
    /// Samples in 10 ms.
    fade: usize,
    chunks: VecDeque<VecDeque<i16>>,
    cut: Option<VecDeque<i16>>,
    again: Vec<i16>,
    state: Hold,
    is_speaking: bool,
    played: usize,
}

impl Model {
    fn take(&mut self, count: usize) -> Vec<i16> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let Some(chunk) = self.chunks.front_mut() else {
                self.is_speaking = false;
                break;
            };
            let some = chunk.len().min(count - taken.len());
            taken.extend(chunk.drain(..some));
            self.is_speaking |= some > 0;
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        self.played += taken.len();
        taken
    }

    fn flush(&mut self) {
        let is_heard = self.is_speaking && matches!(self.state, Hold::No | Hold::Pausing);
        self.state = Hold::No;
        self.again.clear();
        if self.cut.is_none() {
            self.cut = self.chunks.pop_front().filter(|_| is_heard);
            self.is_speaking &= self.cut.is_some();
        }
        self.chunks.clear();
    }

    fn frame(&mut self) -> Vec<i16> {
        let length = self.fade;
        let scale = |x: i16, step: usize| (i32::from(x) * step as i32 / length as i32) as i16;
        let fade_out = |(step, &x): (usize, &i16)| scale(x, length - step);
        let mut frame = if let Some(mut chunk) = self.cut.take() {
            self.is_speaking = false;
            let head: Vec<i16> = chunk.drain(..chunk.len().min(length)).collect();
            self.played += head.len();
            head.iter().enumerate().map(fade_out).collect()
        } else {
            match self.state {
                Hold::No => self.take(2 * length),
                Hold::Paused => vec![],
                Hold::Pausing => {
                    self.state = Hold::Paused;
                    self.again = self.take(length);
                    self.again.iter().enumerate().map(fade_out).collect()
                }
                Hold::Resuming => {
                    self.state = Hold::No;
                    let mut frame = std::mem::take(&mut self.again);
                    frame.extend(self.take(2 * length - frame.len()));
                    for (step, x) in frame.iter_mut().take(length).enumerate() {
                        *x = scale(*x, step);
                    }
                    frame
                }
            }
        };
        frame.resize(2 * length, 0);
        frame
    }
}

proptest! {
    #[test]
    fn marks_end_in_order_exactly_once(steps in steps()) {
        let mut leg = Leg::new();
        let mut reference = Reference::default();
        let (mut mark, mut last_ms, mut flushing) = (0, 0, false);
        // A frame, and what the filter of the chunk before had held: 16 periods of 8 kHz at most, which are heard over
        // the chunk after. Where the rate changed in between, what the old filter was behind comes besides.
        let mut at_most_ms = 22;
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
                Step::Rate(rate_hz) => {
                    leg.playout.set_rate(rate_hz).unwrap();
                    at_most_ms = 24;
                }
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
            prop_assert!(last_ms <= played_ms && played_ms <= last_ms + at_most_ms);
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
    fn what_goes_out_is_what_the_rules_say(steps in steps(), rate_hz in prop::sample::select(&RATES[..])) {
        let mut leg = Leg::new();
        leg.playout.set_rate(rate_hz).unwrap();
        let mut model = Model { fade: rate_hz as usize / 100, ..Model::default() };
        let mut frame = vec![0; leg.playout.frame_len()];
        let mut next = 1_i16;
        for (mark, step) in (0..).zip(steps) {
            match step {
                Step::Play(_, length) => {
                    let samples: Vec<i16> = (0..length as i16 / 8).map(|n| next.wrapping_add(n)).collect();
                    next = next.wrapping_add(samples.len() as i16);
                    model.chunks.push_back(samples.iter().copied().collect());
                    leg.play(mark, rate_hz, samples);
                }
                Step::Pause => {
                    leg.playout.pause();
                    model.state = match model.state {
                        Hold::No | Hold::Pausing => Hold::Pausing,
                        Hold::Paused | Hold::Resuming => Hold::Paused,
                    };
                }
                Step::Resume => {
                    leg.playout.resume();
                    model.state = match model.state {
                        Hold::No | Hold::Pausing => Hold::No,
                        Hold::Paused | Hold::Resuming => Hold::Resuming,
                    };
                }
                Step::Flush => {
                    leg.playout.flush();
                    model.flush();
                }
                Step::Frame => {
                    leg.playout.next_frame(&mut frame);
                    prop_assert_eq!(&frame, &model.frame());
                    prop_assert_eq!(leg.playout.played_ms(), model.played as u64 * 1000 / u64::from(rate_hz));
                }
                Step::Settle | Step::Rate(_) => {}
            }
        }
    }

    /// Sines of whole periods, joined, cut, held, faded and mixed, and backgrounds that replace each other: no step is
    /// larger than those of the sines and of the fades.
    #[test]
    fn nothing_clicks(
        steps in steps(), gains in prop::collection::vec(-40_f32..0.0, 150),
        rate_hz in prop::sample::select(&RATES[..]),
    ) {
        let mut leg = Leg::new();
        leg.playout.set_rate(rate_hz).unwrap();
        let sine = |tone_hz: u32, peak: f64, periods: u32| -> Vec<i16> {
            let turns = |n: u32| f64::from(n * tone_hz) / f64::from(rate_hz);
            (0..periods * rate_hz / tone_hz).map(|n| (peak * (turns(n) * std::f64::consts::TAU).sin()) as i16).collect()
        };
        let background = |leg: &mut Leg| {
            let chunk = leg.budget.chunk(sine(200, 2000.0, 10), rate_hz, 999).unwrap();
            leg.playout.loop_chunk(chunk);
        };
        background(&mut leg);
        // 8000 of 250 Hz and twice 2000 of 200 Hz by the sample, and all faded within 10 ms.
        let limit = (8000.0 * 250.0 + 4000.0 * 200.0) * std::f64::consts::TAU / f64::from(rate_hz)
            + 3.0 * 12_000.0 / (f64::from(rate_hz) / 100.0);
        let (mut frame, mut last) = (vec![0; leg.playout.frame_len()], 0);
        for ((mark, step), gain_db) in (0..).zip(steps).zip(gains) {
            match step {
                Step::Play(_, length) => {
                    leg.play(mark, rate_hz, sine(250, 8000.0, length as u32 / 100 + 1));
                    leg.playout.set_gain_db(gain_db);
                }
                Step::Pause => leg.playout.pause(),
                Step::Resume => leg.playout.resume(),
                Step::Flush => leg.playout.flush(),
                Step::Rate(_) => background(&mut leg),
                Step::Frame | Step::Settle => {
                    leg.playout.next_frame(&mut frame);
                    for &x in &frame {
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
