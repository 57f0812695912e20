//! What RFC 3711 says of packet indices and replays, stated over everything that was ever accepted.

use std::collections::BTreeSet;

use rtp::srtp::{MAX_STREAMS, SrtpError};

/// Indices that a window remembers, the highest included.
const WINDOW: u64 = 128;

/// One SSRC.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    ssrc: u32,
    rtp: BTreeSet<u64>,
    rtcp: BTreeSet<u64>,
    used: u64,
}

impl Stream {
    /// The index next to the highest whose low 16 bits are `sequence` (section 3.3.1); the rollover counter stays where
    /// two are equally near.
    pub(crate) fn index(&self, sequence: u16) -> Result<u64, SrtpError> {
        let sequence = i128::from(sequence);
        let Some(&highest) = self.rtp.last() else {
            return Ok(sequence as u64);
        };
        let highest = i128::from(highest);
        let rollover = highest >> 16;
        let candidates = [rollover, rollover - 1, rollover + 1].map(|rollover| (rollover << 16) + sequence);
        let nearest = candidates
            .into_iter()
            .min_by_key(|index| (index - highest).abs())
            .expect("three candidates");
        u64::try_from(nearest).map_err(|_| SrtpError::TooOld)
    }

    pub(crate) fn may_take_rtp(&self, index: u64) -> Result<(), SrtpError> {
        may_take(&self.rtp, index)
    }

    pub(crate) fn may_take_rtcp(&self, index: u64) -> Result<(), SrtpError> {
        may_take(&self.rtcp, index)
    }

    pub(crate) fn next_rtcp(&self) -> u64 {
        self.rtcp.last().map_or(0, |highest| highest + 1)
    }
}

fn may_take(taken: &BTreeSet<u64>, index: u64) -> Result<(), SrtpError> {
    match taken.last() {
        Some(&highest) if index + WINDOW <= highest => Err(SrtpError::TooOld),
        _ if taken.contains(&index) => Err(SrtpError::Replayed),
        _ => Ok(()),
    }
}

/// One direction under one key.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    streams: Vec<Stream>,
    packets: u64,
    pub(crate) evicted: u64,
}

impl Direction {
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn stream(&self, ssrc: u32) -> Stream {
        let known = self.streams.iter().find(|stream| stream.ssrc == ssrc);
        known.cloned().unwrap_or_default()
    }

    pub(crate) fn may_send(&self, ssrc: u32) -> Result<(), SrtpError> {
        let known = self.streams.iter().any(|stream| stream.ssrc == ssrc);
        if known || self.streams.len() < MAX_STREAMS {
            Ok(())
        } else {
            Err(SrtpError::TooManyStreams)
        }
    }

    pub(crate) fn took_rtp(&mut self, ssrc: u32, index: u64) {
        self.touch(ssrc).rtp.insert(index);
    }

    pub(crate) fn took_rtcp(&mut self, ssrc: u32, index: u64) {
        self.touch(ssrc).rtcp.insert(index);
    }

    /// The stream idle longest makes place for a new one.
    fn touch(&mut self, ssrc: u32) -> &mut Stream {
        self.packets += 1;
        if !self.streams.iter().any(|stream| stream.ssrc == ssrc) {
            if self.streams.len() == MAX_STREAMS {
                let idle = self.streams.iter().map(|stream| stream.used).min();
                self.streams.retain(|stream| Some(stream.used) != idle);
                self.evicted += 1;
            }
            self.streams.push(Stream {
                ssrc,
                ..Stream::default()
            });
        }
        let known = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc);
        let stream = known.expect("just admitted");
        stream.used = self.packets;
        stream
    }
}
