//! Chunks, flushes, pauses, rates.

use media::playout::{FRAME, Flushed, PlayoutBudget, PlayoutError, PlayoutEvent};

use super::{FADE, Leg, RATES, RING, STARTED};

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
