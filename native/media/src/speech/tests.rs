//! What is cut from given probabilities and loudness.

use proptest::prelude::*;

use super::*;

const PARAMS: SpeechParams = SpeechParams {
    detector: DetectorParams {
        threshold: 0.5,
        start_ms: 96,
        stop_ms: 192,
    },
    preroll_ms: 300,
    chunk_ms: 200,
    pause_ms: 0,
};

/// Push 20 ms packets whose samples count up, and judge by a given probability per window.
fn run(params: SpeechParams, windows: &[f32]) -> Vec<SpeechEvent> {
    run_with(params, windows, |_| true)
}

/// The sample at a place: quiet ones are below what counts as audible.
fn sample_at(place: u64, is_loud: &impl Fn(u64) -> bool) -> i16 {
    let bound = if is_loud(place / 320) { 30_000 } else { 90 };
    (place % bound) as i16
}

/// The same with packets that are loud or quiet.
fn run_with(params: SpeechParams, windows: &[f32], is_loud: impl Fn(u64) -> bool) -> Vec<SpeechEvent> {
    let mut cutter = SpeechCutter::new(params);
    let (mut place, mut judged, mut events) = (0_u64, 0, Vec::new());
    for packet in 0.. {
        let pcm: Vec<i16> = (place..place + 320).map(|x| sample_at(x, &is_loud)).collect();
        place += 320;
        cutter.push(&pcm, packet * 20_000);
        events.extend(cutter.drain_events());
        while cutter.held_until() - cutter.judged >= WINDOW as u64 {
            let Some(&probability) = windows.get(judged) else {
                return events;
            };
            judged += 1;
            cutter.judge(probability);
            events.extend(cutter.drain_events());
        }
    }
    events
}

fn probabilities(pattern: &[(f32, usize)]) -> Vec<f32> {
    let runs = pattern.iter().map(|&(p, count)| vec![p; count]);
    runs.flatten().collect()
}

#[test]
fn silence_that_the_detector_still_calls_speech_is_not_its_end() {
    let mut cutter = SpeechCutter::new(PARAMS);
    for packet in 0..50_u64 {
        let level = if packet < 40 { 3_000 } else { 20 };
        cutter.push(&[level; 320], packet * 20_000);
    }
    // The detector holds on until 860 ms; the last audible packet is that of 780 to 800 ms.
    assert_eq!(cutter.end_of_speech(860 * SAMPLES_PER_MS), 39 * 20_000);
    assert_eq!(cutter.end_of_speech(700 * SAMPLES_PER_MS), 34 * 20_000);
    // Nothing audible nearby: quiet speech, where the detector is all there is.
    assert_eq!(cutter.end_of_speech(1_000 * SAMPLES_PER_MS), 49 * 20_000);
}

#[test]
fn a_stretch_of_speech_with_its_times() {
    let events = run(PARAMS, &probabilities(&[(0.0, 20), (0.9, 20), (0.0, 10)]));
    let SpeechEvent::Started { media_ms, at_us, pcm } = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(*media_ms, 640);
    // Certain after three windows, at 736 ms: the packet of 720 to 740 ms.
    assert_eq!(*at_us, 36 * 20_000);
    assert_eq!(pcm.len() as u64, (300 + 96) * SAMPLES_PER_MS);
    assert_eq!(pcm[0], (640 - 300) * 16);
    let SpeechEvent::Audio { media_ms, pcm } = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!((*media_ms, pcm.len()), (736, 3200));
    let Some(SpeechEvent::Stopped {
        media_ms,
        at_us,
        last_speech_at_us,
        ..
    }) = events.last()
    else {
        panic!("{events:?}")
    };
    // Speech ends with window 40, at 1280 ms: the packet of 1260 ms; certain 192 ms later.
    assert_eq!((*media_ms, *last_speech_at_us), (1280, 63 * 20_000));
    assert_eq!(*at_us, 73 * 20_000);
}

/// Pauses and resumptions with their times; the rest is left out.
fn pauses(events: &[SpeechEvent]) -> Vec<(&'static str, u64, u64)> {
    let of = |event: &SpeechEvent| match *event {
        SpeechEvent::Paused { media_ms, at_us, .. } => Some(("paused", media_ms, at_us / 1000)),
        SpeechEvent::Resumed { media_ms, at_us } => Some(("resumed", media_ms, at_us / 1000)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

const PAUSING: SpeechParams = SpeechParams {
    pause_ms: 40,
    ..PARAMS
};

#[test]
fn a_pause_is_reported_with_the_packet_that_makes_it() {
    // Audible up to 1000 ms; the detector holds on until 1056 ms.
    let events = run_with(PAUSING, &probabilities(&[(0.9, 33), (0.0, 12)]), |packet| {
        packet < 50
    });
    assert_eq!(pauses(&events), [("paused", 1000, 1020)]);
    let Some(SpeechEvent::Paused {
        last_speech_at_us, ..
    }) = events
        .iter()
        .find(|event| matches!(event, SpeechEvent::Paused { .. }))
    else {
        panic!("{events:?}")
    };
    assert_eq!(*last_speech_at_us, 49 * 20_000);
    assert!(matches!(events.last(), Some(SpeechEvent::Stopped { .. })));
}

#[test]
fn speech_after_a_gap_in_a_word_resumes() {
    let is_loud = |packet| !(50..54).contains(&packet);
    let events = run_with(PAUSING, &probabilities(&[(0.9, 60)]), is_loud);
    // The window of 1056 to 1088 ms has the first audible packet, of 1080 ms, which came at 1080 ms.
    assert_eq!(pauses(&events), [("paused", 1000, 1020), ("resumed", 1056, 1080)]);
}

#[test]
fn a_click_is_no_resumption() {
    let is_loud = |packet| packet < 50 || packet == 55;
    let events = run_with(PAUSING, &probabilities(&[(0.9, 33), (0.1, 12)]), is_loud);
    assert_eq!(pauses(&events), [("paused", 1000, 1020)]);
}

#[test]
fn in_noise_the_detector_finds_the_pause() {
    let windows = probabilities(&[(0.9, 30), (0.1, 3), (0.9, 10), (0.1, 12)]);
    let events = run(PAUSING, &windows);
    // 960 ms of speech, two windows without it; three windows later speech again.
    assert_eq!(
        pauses(&events),
        [
            ("paused", 960, 1020),
            ("resumed", 1056, 1080),
            ("paused", 1376, 1420)
        ]
    );
}

proptest! {
    /// Pieces of a stretch join; stretches do not overlap; the samples are those that came.
    #[test]
    fn audio_has_no_gap_and_no_overlap(
        pattern in prop::collection::vec((prop::sample::select(vec![0.0_f32, 0.45, 0.9]), 1_usize..30), 0..12),
        preroll_ms in 0_u32..800, chunk_ms in 20_u32..500, start_ms in 0_u32..200,
        pause_ms in prop::sample::select(vec![0_u32, 20, 60, 150]),
        loud in prop::collection::vec((any::<bool>(), 1_usize..12), 1..12),
    ) {
        let detector = DetectorParams { start_ms, ..PARAMS.detector };
        let params = SpeechParams { detector, preroll_ms, chunk_ms, pause_ms };
        let loud: Vec<bool> = loud.iter().flat_map(|&(loud, packets)| vec![loud; packets]).collect();
        let is_loud = |packet: u64| loud[packet as usize % loud.len()];
        let (mut place, mut speaking, mut paused, mut last_ms) = (0_u64, false, false, 0);
        for event in run_with(params, &probabilities(&pattern), is_loud) {
            let pcm = match event {
                SpeechEvent::Started { media_ms, pcm, .. } => {
                    prop_assert!(!std::mem::replace(&mut speaking, true));
                    prop_assert!(media_ms >= last_ms);
                    let onset = media_ms * SAMPLES_PER_MS;
                    place = onset.saturating_sub(u64::from(preroll_ms) * SAMPLES_PER_MS).max(place);
                    prop_assert!(place + pcm.len() as u64 > onset);
                    paused = false;
                    pcm
                }
                SpeechEvent::Audio { media_ms, pcm } => {
                    prop_assert!(speaking);
                    prop_assert_eq!(media_ms, place / SAMPLES_PER_MS);
                    pcm
                }
                SpeechEvent::Paused { pcm, at_us, last_speech_at_us, .. } => {
                    prop_assert!(speaking && pause_ms > 0);
                    prop_assert!(!std::mem::replace(&mut paused, true));
                    prop_assert!(last_speech_at_us < at_us);
                    pcm
                }
                SpeechEvent::Resumed { .. } => {
                    prop_assert!(speaking);
                    prop_assert!(std::mem::replace(&mut paused, false));
                    Vec::new()
                }
                SpeechEvent::Stopped { media_ms, pcm, at_us, last_speech_at_us } => {
                    prop_assert!(std::mem::replace(&mut speaking, false));
                    prop_assert!(last_speech_at_us < at_us);
                    last_ms = media_ms;
                    pcm
                }
            };
            for sample in pcm {
                prop_assert_eq!(sample, sample_at(place, &is_loud));
                place += 1;
            }
        }
    }
}

/// Speech in packets of 20 ms, of which those from `late` on come after so many frames of assumed silence, at once.
fn stalled(params: SpeechParams, late: u64, assumed: u64) -> (Vec<SpeechEvent>, Vec<i16>) {
    let mut cutter = SpeechCutter::new(params);
    let (mut events, mut spoken) = (Vec::new(), Vec::new());
    let mut judge = |cutter: &mut SpeechCutter| {
        while cutter.held_until() - cutter.judged >= WINDOW as u64 {
            let from = (cutter.judged - cutter.held_from) as usize;
            let loud = cutter.held.range(from..from + WINDOW).any(|&x| x != 0);
            cutter.judge(if loud { 0.9 } else { 0.0 });
        }
        events.extend(cutter.drain_events());
    };
    for packet in 0..150_u64 {
        if packet == late {
            for frame in 0..assumed {
                cutter.assume_silence(320, (packet + frame) * 20_000);
                judge(&mut cutter);
            }
        }
        // Not zero anywhere, and different everywhere within the second that matters.
        let level = i16::from(packet < 100);
        let pcm: Vec<i16> = (0..320)
            .map(|x| level * (3_000 + (packet * 320 + x) as i16 % 20_000))
            .collect();
        if packet < 100 {
            spoken.extend(&pcm);
        }
        cutter.push(&pcm, (packet.max(late) + assumed) * 20_000);
        judge(&mut cutter);
    }
    (events, spoken)
}

/// All that was handed over.
fn handed_over(events: &[SpeechEvent]) -> Vec<i16> {
    let of = |event: &SpeechEvent| match event {
        SpeechEvent::Started { pcm, .. }
        | SpeechEvent::Audio { pcm, .. }
        | SpeechEvent::Paused { pcm, .. }
        | SpeechEvent::Stopped { pcm, .. } => pcm.clone(),
        SpeechEvent::Resumed { .. } => Vec::new(),
    };
    events.iter().flat_map(of).collect()
}

#[test]
fn silence_that_was_assumed_is_not_in_what_was_said() {
    for pause_ms in [0, 20, 40] {
        for assumed in 0..9 {
            for late in [30, 31, 37, 50, 99] {
                let params = SpeechParams { pause_ms, ..PARAMS };
                let (events, spoken) = stalled(params, late, assumed);
                let heard = handed_over(&events);
                assert!(
                    heard.starts_with(&spoken),
                    "{late}, {assumed}, {pause_ms}: {:?}",
                    heard.iter().zip(&spoken).position(|(x, y)| x != y)
                );
                assert!(heard[spoken.len()..].iter().all(|&x| x == 0));
            }
        }
    }
}

#[test]
fn a_stall_within_speech_is_a_pause_that_is_taken_back() {
    let params = SpeechParams {
        pause_ms: 20,
        ..PARAMS
    };
    let (events, _) = stalled(params, 50, 4);
    let kinds: Vec<&str> = pauses(&events).iter().map(|&(kind, ..)| kind).collect();
    assert_eq!(kinds, ["paused", "resumed", "paused"]);
}

#[test]
fn silence_that_is_confirmed_ends_what_was_said() {
    let mut cutter = SpeechCutter::new(PARAMS);
    for packet in 0..50 {
        cutter.push(&[3_000; 320], packet * 20_000);
    }
    while cutter.held_until() - cutter.judged >= WINDOW as u64 {
        cutter.judge(0.9);
    }
    for frame in 0..5 {
        cutter.assume_silence(320, (50 + frame) * 20_000);
    }
    cutter.confirm_silence();
    cutter.push(&[0; 320], 55 * 20_000);
    for _ in 0..8 {
        cutter.push(&[0; 320], 56 * 20_000);
        while cutter.held_until() - cutter.judged >= WINDOW as u64 {
            cutter.judge(0.0);
        }
    }
    let events: Vec<_> = cutter.drain_events().collect();
    let heard = handed_over(&events);
    assert_eq!(heard.iter().filter(|&&x| x != 0).count(), 50 * 320);
    assert!(matches!(
        events.last(),
        Some(SpeechEvent::Stopped {
            media_ms: 992..=1_024,
            ..
        })
    ));
}
