//! The media engine: jitter buffers, speech, playout, recorder, and the thread that runs them on sockets.

pub mod activity;
pub mod bridging;
pub mod echo;
pub mod engine;
pub mod jitter;
pub mod playout;
pub mod recorder;
pub mod room;
mod sequence;
pub mod speech;
pub mod stream;
pub mod taping;
pub mod tones;
