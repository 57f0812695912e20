//! The playout of one leg: whole chunks in, one 20 ms frame out per tick, and the truth about what was heard.
//!
//! Rules:
//!
//! * chunks play in order and back to back; a chunk's mark is reported when its last sample has gone out;
//! * `played_ms` counts samples that went out, so pauses and flushes never add to it;
//! * pause, resume and flush fade over 10 ms, so that nothing clicks; the faded samples were heard and count;
//! * nothing is resampled before its tick: a chunk of a minute costs the media thread no more than one of 20 ms.

use std::collections::VecDeque;

use crate::resample::{ResampleError, Resampler};

/// Samples of a frame: 20 ms at 8 kHz.
pub const FRAME_SAMPLES: usize = 160;
/// The leg's sample rate.
pub const LEG_RATE_HZ: u32 = 8000;
const FADE_SAMPLES: usize = 80;
const SAMPLES_PER_MS: u64 = 8;

/// Why a chunk was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlayoutError {
    /// The playout holds its limit.
    #[error("the playout is full: {queued_ms} ms are queued, {limit_ms} ms are allowed")]
    Full {
        /// What is queued.
        queued_ms: u64,
        /// What is allowed.
        limit_ms: u64,
    },
    /// The chunk's sample rate is none of ours.
    #[error(transparent)]
    Rate(#[from] ResampleError),
}

/// What happened in the playout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlayoutEvent {
    /// The first frame of `mark` goes out after silence.
    Started {
        /// The chunk.
        mark: u64,
    },
    /// The last sample of the chunk goes out with this frame.
    Played {
        /// The chunk.
        mark: u64,
        /// All that was played on this leg so far.
        played_ms: u64,
    },
    /// Everything queued was dropped.
    Flushed {
        /// The chunk that was playing; 0 when none was.
        mark: u64,
        /// How much of it was heard.
        heard_ms: u64,
        /// How long it was.
        chunk_ms: u64,
        /// All that was played on this leg so far.
        played_ms: u64,
        /// What was dropped, the rest of the current chunk included.
        dropped_ms: u64,
    },
}

#[derive(Debug)]
struct Chunk {
    mark: u64,
    rate_hz: u32,
    pcm: Vec<i16>,
    /// Samples of `pcm` that went into the resampler.
    consumed: usize,
    /// Samples at the leg's rate that went out.
    played: u64,
}

impl Chunk {
    fn total(&self) -> u64 {
        self.pcm.len() as u64 * u64::from(LEG_RATE_HZ) / u64::from(self.rate_hz)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Playing,
    /// The next frame fades out, then `Paused`.
    Pausing,
    Paused,
    /// The next frame fades in, then `Playing`.
    Resuming,
    /// The next frame fades out, then everything is dropped.
    Flushing,
}

/// The playout of one leg.
#[derive(Debug)]
pub struct Playout {
    chunks: VecDeque<Chunk>,
    /// One converter per source rate, kept between chunks so that their seams are not audible.
    resamplers: Vec<(u32, Resampler)>,
    /// Converted samples that did not fit into the last frame (less than one frame).
    carry: Vec<i16>,
    state: State,
    sounding: bool,
    played_samples: u64,
    queued_samples: u64,
    limit_samples: u64,
}

impl Playout {
    /// An empty playout that holds at most `limit_ms`.
    pub fn new(limit_ms: u64) -> Self {
        Self {
            chunks: VecDeque::new(),
            resamplers: Vec::new(),
            carry: Vec::with_capacity(FRAME_SAMPLES),
            state: State::Playing,
            sounding: false,
            played_samples: 0,
            queued_samples: 0,
            limit_samples: limit_ms * SAMPLES_PER_MS,
        }
    }

    /// Append a chunk of signed 16-bit mono PCM.
    ///
    /// # Errors
    /// When the limit would be exceeded, or the rate is not 8000, 16000, 24000 or 48000 Hz.
    pub fn enqueue(&mut self, mark: u64, rate_hz: u32, pcm: Vec<i16>) -> Result<(), PlayoutError> {
        if !self.resamplers.iter().any(|(rate, _)| *rate == rate_hz) {
            self.resamplers
                .push((rate_hz, Resampler::new(rate_hz, LEG_RATE_HZ)?));
        }
        let chunk = Chunk {
            mark,
            rate_hz,
            pcm,
            consumed: 0,
            played: 0,
        };
        let queued = self.queued_samples + chunk.total();
        if queued > self.limit_samples {
            return Err(PlayoutError::Full {
                queued_ms: self.queued_samples / SAMPLES_PER_MS,
                limit_ms: self.limit_samples / SAMPLES_PER_MS,
            });
        }
        self.queued_samples = queued;
        self.chunks.push_back(chunk);
        Ok(())
    }

    /// Fade out with the next frame and hold what is queued.
    pub fn pause(&mut self) {
        self.state = match self.state {
            State::Playing if self.sounding => State::Pausing,
            State::Playing | State::Resuming => State::Paused,
            other => other,
        };
    }

    /// Go on where `pause` stopped.
    pub fn resume(&mut self) {
        self.state = match self.state {
            State::Pausing => State::Playing,
            State::Paused => State::Resuming,
            other => other,
        };
    }

    /// Fade out with the next frame and drop everything; reported by `Flushed`. Ends a pause.
    pub fn flush(&mut self) {
        self.state = State::Flushing;
    }

    /// All that was played so far, in milliseconds.
    pub fn played_ms(&self) -> u64 {
        self.played_samples / SAMPLES_PER_MS
    }

    /// What is queued, in milliseconds.
    pub fn queued_ms(&self) -> u64 {
        self.queued_samples / SAMPLES_PER_MS
    }

    /// The next 20 ms. Returns whether anything sounds in them; events are appended in order.
    pub fn next_frame(&mut self, frame: &mut [i16; FRAME_SAMPLES], events: &mut Vec<PlayoutEvent>) -> bool {
        frame.fill(0);
        let filled = match self.state {
            State::Paused => 0,
            State::Playing => self.fill(frame, events),
            State::Resuming => {
                let filled = self.fill(frame, events);
                fade(&mut frame[..filled.min(FADE_SAMPLES)], true);
                self.state = State::Playing;
                filled
            }
            State::Pausing => {
                let filled = self.fade_out(frame, events);
                self.state = State::Paused;
                filled
            }
            State::Flushing => {
                let filled = if self.sounding {
                    self.fade_out(frame, events)
                } else {
                    0
                };
                self.drop_all(events);
                self.state = State::Playing;
                filled
            }
        };
        self.sounding = filled > 0 && !self.chunks.is_empty() || filled == FRAME_SAMPLES;
        filled > 0
    }

    fn fade_out(&mut self, frame: &mut [i16; FRAME_SAMPLES], events: &mut Vec<PlayoutEvent>) -> usize {
        let filled = self.fill(&mut frame[..FADE_SAMPLES], events);
        fade(&mut frame[..filled], false);
        filled
    }

    /// Play into `frame` until it is full or nothing is queued; returns how much sounds.
    fn fill(&mut self, frame: &mut [i16], events: &mut Vec<PlayoutEvent>) -> usize {
        let mut filled = 0;
        while filled < frame.len() {
            let Some(chunk) = self.chunks.front_mut() else {
                break;
            };
            if !self.sounding && filled == 0 && chunk.played == 0 {
                events.push(PlayoutEvent::Started { mark: chunk.mark });
            }
            let left = chunk.total() - chunk.played;
            let take = (frame.len() - filled).min(usize::try_from(left).unwrap_or(usize::MAX));
            if self.carry.len() < take {
                Self::convert(&mut self.resamplers, &mut self.carry, chunk, take);
            }
            let take = take.min(self.carry.len());
            frame[filled..filled + take].copy_from_slice(&self.carry[..take]);
            self.carry.drain(..take);
            filled += take;
            chunk.played += take as u64;
            self.played_samples += take as u64;
            self.queued_samples -= take as u64;
            if chunk.played >= chunk.total() {
                events.push(PlayoutEvent::Played {
                    mark: chunk.mark,
                    played_ms: self.played_samples / SAMPLES_PER_MS,
                });
                self.chunks.pop_front();
            }
        }
        filled
    }

    /// Bring at least `wanted` converted samples of `chunk` into `carry`; past its end the converter is fed silence,
    /// which brings out what its filter still holds.
    fn convert(resamplers: &mut [(u32, Resampler)], carry: &mut Vec<i16>, chunk: &mut Chunk, wanted: usize) {
        let Some((_, resampler)) = resamplers.iter_mut().find(|(rate, _)| *rate == chunk.rate_hz) else {
            return;
        };
        let ratio = (chunk.rate_hz / LEG_RATE_HZ).max(1) as usize;
        while carry.len() < wanted {
            let need = (wanted - carry.len()) * ratio;
            let end = (chunk.consumed + need).min(chunk.pcm.len());
            if chunk.consumed < end {
                resampler.process(&chunk.pcm[chunk.consumed..end], carry);
                chunk.consumed = end;
            } else {
                resampler.process(&[0; 6][..ratio.min(6)], carry);
            }
        }
    }

    fn drop_all(&mut self, events: &mut Vec<PlayoutEvent>) {
        let current = self.chunks.front();
        events.push(PlayoutEvent::Flushed {
            mark: current.map_or(0, |chunk| chunk.mark),
            heard_ms: current.map_or(0, |chunk| chunk.played / SAMPLES_PER_MS),
            chunk_ms: current.map_or(0, |chunk| chunk.total() / SAMPLES_PER_MS),
            played_ms: self.played_samples / SAMPLES_PER_MS,
            dropped_ms: self.queued_samples / SAMPLES_PER_MS,
        });
        self.chunks.clear();
        self.carry.clear();
        self.queued_samples = 0;
        for (_, resampler) in &mut self.resamplers {
            resampler.reset();
        }
    }
}

/// A linear ramp over the samples: up from silence, or down to it.
fn fade(samples: &mut [i16], up: bool) {
    let length = samples.len() as i32;
    for (index, sample) in samples.iter_mut().enumerate() {
        let step = index as i32;
        let gain = if up { step + 1 } else { length - 1 - step };
        *sample = (i32::from(*sample) * gain / length.max(1)) as i16;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(playout: &mut Playout) -> ([i16; FRAME_SAMPLES], Vec<PlayoutEvent>, bool) {
        let mut samples = [0; FRAME_SAMPLES];
        let mut events = Vec::new();
        let sounds = playout.next_frame(&mut samples, &mut events);
        (samples, events, sounds)
    }

    #[test]
    fn a_chunk_plays_whole_and_reports_its_mark_with_its_last_frame() {
        let mut playout = Playout::new(10_000);
        playout.enqueue(7, 8000, vec![1000; 400]).unwrap();
        let (first, events, sounds) = frame(&mut playout);
        assert!(sounds);
        assert_eq!(events, [PlayoutEvent::Started { mark: 7 }]);
        assert_eq!(first, [1000; FRAME_SAMPLES]);
        assert_eq!(frame(&mut playout).1, []);
        let (last, events, sounds) = frame(&mut playout);
        assert!(sounds);
        assert_eq!(
            events,
            [PlayoutEvent::Played {
                mark: 7,
                played_ms: 50
            }]
        );
        assert_eq!(&last[..80], &[1000; 80]);
        assert_eq!(&last[80..], &[0; 80]);
        assert!(!frame(&mut playout).2);
    }

    #[test]
    fn a_flush_fades_within_the_next_frame_and_reports_what_was_heard() {
        let mut playout = Playout::new(10_000);
        playout.enqueue(1, 8000, vec![8000; 8000]).unwrap();
        playout.enqueue(2, 8000, vec![8000; 8000]).unwrap();
        for _ in 0..10 {
            frame(&mut playout);
        }
        playout.flush();
        let (samples, events, _) = frame(&mut playout);
        assert!(samples[..80].windows(2).all(|pair| pair[0] >= pair[1]));
        assert_eq!(&samples[79..], &[0; 81]);
        assert_eq!(
            events,
            [PlayoutEvent::Flushed {
                mark: 1,
                heard_ms: 210,
                chunk_ms: 1000,
                played_ms: 210,
                dropped_ms: 1790
            }]
        );
        assert!(!frame(&mut playout).2);
        playout.enqueue(3, 8000, vec![1; 160]).unwrap();
        assert_eq!(frame(&mut playout).1[0], PlayoutEvent::Started { mark: 3 });
    }

    #[test]
    fn a_pause_holds_and_a_resume_goes_on_where_it_stopped() {
        let mut playout = Playout::new(10_000);
        let ramp: Vec<i16> = (0..1600).collect();
        playout.enqueue(1, 8000, ramp).unwrap();
        frame(&mut playout);
        playout.pause();
        frame(&mut playout);
        for _ in 0..5 {
            assert!(!frame(&mut playout).2);
        }
        assert_eq!(playout.played_ms(), 30);
        playout.resume();
        let (samples, _, _) = frame(&mut playout);
        assert_eq!(samples[FADE_SAMPLES..], (320..400).collect::<Vec<i16>>());
    }

    #[test]
    fn a_full_playout_refuses_and_a_strange_rate_too() {
        let mut playout = Playout::new(100);
        playout.enqueue(1, 16000, vec![0; 1600]).unwrap();
        assert!(matches!(
            playout.enqueue(2, 16000, vec![0; 16]),
            Err(PlayoutError::Full { .. })
        ));
        assert!(matches!(
            playout.enqueue(2, 11025, vec![0; 16]),
            Err(PlayoutError::Rate(_))
        ));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Enqueue(u32, usize),
        Pause,
        Resume,
        Flush,
        Frame,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let rate = prop::sample::select(vec![8000_u32, 16000, 24000, 48000]);
        let step = prop_oneof![
            2 => (rate, 0_usize..4000).prop_map(|(rate, length)| Step::Enqueue(rate, length)),
            1 => Just(Step::Pause),
            1 => Just(Step::Resume),
            1 => Just(Step::Flush),
            8 => Just(Step::Frame),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        #[test]
        fn marks_come_in_order_once_and_played_ms_counts_what_went_out(steps in steps()) {
            let mut playout = Playout::new(60_000);
            let (mut mark, mut reported, mut last_played_ms) = (0_u64, Vec::new(), 0);
            let mut flush_asked = false;
            for step in steps {
                match step {
                    Step::Enqueue(rate, length) => {
                        mark += 1;
                        playout.enqueue(mark, rate, vec![500; length]).unwrap();
                    }
                    Step::Pause => playout.pause(),
                    Step::Resume => playout.resume(),
                    Step::Flush => { playout.flush(); flush_asked = true; }
                    Step::Frame => {
                        let (_, events, _) = frame(&mut playout);
                        for event in events {
                            match event {
                                PlayoutEvent::Played { mark, played_ms } => {
                                    prop_assert!(played_ms >= last_played_ms);
                                    last_played_ms = played_ms;
                                    reported.push(mark);
                                }
                                PlayoutEvent::Flushed { heard_ms, chunk_ms, played_ms, .. } => {
                                    prop_assert!(flush_asked);
                                    prop_assert!(heard_ms <= chunk_ms);
                                    prop_assert!(played_ms >= last_played_ms);
                                    last_played_ms = played_ms;
                                    flush_asked = false;
                                }
                                PlayoutEvent::Started { .. } => {}
                            }
                        }
                    }
                }
                prop_assert!(playout.played_ms() >= last_played_ms);
            }
            prop_assert!(reported.windows(2).all(|pair| pair[0] < pair[1]));
        }

        #[test]
        fn any_rate_plays_for_as_long_as_the_chunk_lasts(rate in prop::sample::select(vec![8000_u32, 16000, 24000, 48000]), ms in 1_usize..800) {
            let mut playout = Playout::new(60_000);
            playout.enqueue(1, rate, vec![500; ms * rate as usize / 1000]).unwrap();
            let mut frames = 0;
            while frame(&mut playout).2 {
                frames += 1;
            }
            prop_assert_eq!(playout.played_ms(), ms as u64);
            prop_assert_eq!(frames, ms.div_ceil(20));
        }
    }
}
