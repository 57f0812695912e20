//! The media engine: jitter buffers, speech, playout, recorder, and the thread that runs them on sockets.

pub mod activity;
pub mod bridging;
pub mod clock;
pub mod engine;
pub mod events;
pub mod jitter;
mod media_thread;
pub mod playout;
pub mod ports;
pub mod recorder;
mod sequence;
pub mod speech;
pub mod stream;
pub mod taping;
