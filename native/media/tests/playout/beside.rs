//! What goes beside the words: marks, gains, backgrounds.

use media::playout::{FRAME, MARKS_MAX, PlayoutBudget, PlayoutError, PlayoutEvent, Reached};

use super::{Leg, RATES, STARTED};

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
fn a_background_fades_into_the_next() {
    let mut leg = Leg::new();
    for (mark, level) in [(1, 1000), (2, 3000), (3, 2000)] {
        let music = leg.budget.chunk(vec![level; 100], 8000, mark).unwrap();
        leg.playout.loop_chunk(music);
        if mark != 2 {
            leg.frame();
        }
    }
    // The second was replaced before it was heard.
    assert_eq!(leg.frame().0, [2000; FRAME]);
    let music = leg.budget.chunk(vec![-2000; 100], 8000, 4).unwrap();
    leg.playout.loop_chunk(music);
    let (frame, _, events) = leg.frame();
    assert!(
        frame
            .windows(2)
            .all(|pair| (0..=52).contains(&(pair[0] - pair[1])))
    );
    assert_eq!((frame[0], &frame[82..]), (2000, &[-2000; 78][..]));
    assert_eq!(events, [PlayoutEvent::BackgroundEnded { mark: 3 }]);
}

/// A tone goes round in phase when the leg changes its rate while it sounds.
#[test]
fn a_background_goes_on_at_another_rate() {
    for (before, after) in RATES
        .into_iter()
        .flat_map(|before| RATES.map(|after| (before, after)))
    {
        let mut leg = Leg::new();
        leg.playout.set_rate(before).unwrap();
        let turns = |n: i32| f64::from(n) / 40.0 * std::f64::consts::TAU;
        let tone = (0..400).map(|n| (8000.0 * turns(n).sin()) as i16).collect();
        leg.playout.loop_chunk(leg.budget.chunk(tone, 8000, 1).unwrap());
        let (mut last, mut peak) = (0, 0);
        for index in 0..20 {
            if index == 10 {
                leg.playout.set_rate(after).unwrap();
            }
            let mut frame = vec![0; leg.playout.frame_len()];
            leg.playout.next_frame(&mut frame);
            let rate_hz = f64::from(leg.playout.rate_hz().min(before));
            for &x in &frame {
                // By the slower sample, where the seam may be; and a little, as the filter begins.
                let most = 1.1 * 8000.0 * 200.0 * std::f64::consts::TAU / rate_hz.min(f64::from(after));
                assert!(
                    f64::from((x - last).abs()) <= most,
                    "{before} to {after} Hz: {x} after {last}"
                );
                last = x;
            }
            peak = frame.iter().copied().max().unwrap_or(0);
        }
        assert!((7900..8100).contains(&peak), "{before} to {after} Hz: {peak}");
    }
}
