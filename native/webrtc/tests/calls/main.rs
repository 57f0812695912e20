//! Whole calls over a simulated network in virtual time: one binary, for each links all of the cryptography.

mod attacks;
mod conversation;
mod demux;
mod messages;
mod offers;
mod support;
