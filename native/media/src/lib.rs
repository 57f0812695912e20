//! The media engine: RTP, G.711, jitter buffer, resampling, playout, recorder, the media thread.

pub mod activity;
pub mod clock;
pub mod engine;
pub mod events;
pub mod g711;
pub mod jitter;
mod media_thread;
pub mod playout;
pub mod ports;
pub mod recorder;
pub mod resample;
pub mod rtp;
pub mod speech;
pub mod stream;
pub mod taping;
pub mod telephone_event;
