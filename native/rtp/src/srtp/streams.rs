//! The streams of one session: a small table by SSRC.

use super::window::IndexWindow;

/// SSRCs that a session remembers.
pub const MAX_STREAMS: usize = 16;

/// What is known of one SSRC.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stream {
    ssrc: u32,
    pub(super) rtp: IndexWindow,
    pub(super) rtcp: IndexWindow,
    /// When it was last used, in packets of the session.
    used: u64,
}

/// At most [`MAX_STREAMS`] streams; a few in practice, so a search in line is the fastest.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    table: Vec<Stream>,
    packets: u64,
    evicted: u64,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            table: Vec::with_capacity(MAX_STREAMS),
            packets: 0,
            evicted: 0,
        }
    }

    /// A copy of what is known of an SSRC.
    pub(super) fn find(&self, ssrc: u32) -> Option<Stream> {
        self.table.iter().find(|stream| stream.ssrc == ssrc).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.table.len() == MAX_STREAMS
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The stream of an authentic packet; a new one takes the place of the one idle longest when all are taken.
    pub(super) fn touch(&mut self, ssrc: u32) -> &mut Stream {
        self.packets += 1;
        let known = self.table.iter().position(|stream| stream.ssrc == ssrc);
        let slot = known.unwrap_or_else(|| self.admit(ssrc));
        let stream = &mut self.table[slot];
        stream.used = self.packets;
        stream
    }

    fn admit(&mut self, ssrc: u32) -> usize {
        let stream = Stream {
            ssrc,
            rtp: IndexWindow::default(),
            rtcp: IndexWindow::default(),
            used: self.packets,
        };
        if !self.is_full() {
            self.table.push(stream);
            return self.table.len() - 1;
        }
        self.evicted += 1;
        let idle = (0..MAX_STREAMS)
            .min_by_key(|slot| self.table[*slot].used)
            .unwrap_or_default();
        self.table[idle] = stream;
        idle
    }
}
