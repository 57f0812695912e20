//! The media engine: RTP, G.711, jitter buffer, resampling, playout, recorder, the media thread.

pub mod g711;
pub mod jitter;
pub mod recorder;
pub mod resample;
pub mod rtp;
pub mod telephone_event;
