//! Writing RTCP into the caller's buffer.

use super::xr::{DELAY, REFERENCE_TIME, VOIP_METRICS, VOIP_METRICS_LEN};
use super::{DelayBlock, ReportBlock, SenderInfo, VoipMetrics, packet_type as pt};

/// Octets that an SDES item or a reason holds at most (RFC 3550 sections 6.5, 6.6).
pub(crate) const TEXT_MAX: usize = 255;

/// Puts packets one after another; valid by section 6.1 when a report and the name come first.
#[derive(Debug)]
pub struct CompoundWriter<'a> {
    out: &'a mut [u8],
    len: usize,
    fits: bool,
}

impl<'a> CompoundWriter<'a> {
    /// Write to the beginning of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self {
            out,
            len: 0,
            fits: true,
        }
    }

    /// Octets written; `None` where `out` was too short for any of the packets.
    pub fn finish(self) -> Option<usize> {
        self.fits.then_some(self.len)
    }

    /// SR (RFC 3550 section 6.4.1) with at most one report block.
    pub fn sender_report(&mut self, ssrc: u32, info: &SenderInfo, block: Option<&ReportBlock>) {
        let start = self.begin(u8::from(block.is_some()), pt::SENDER_REPORT);
        self.word(ssrc);
        self.put(&info.ntp.to_be_bytes());
        self.word(info.rtp_timestamp);
        self.word(info.packets);
        self.word(info.octets);
        self.block(block);
        self.end(start);
    }

    /// RR (section 6.4.2) with at most one report block.
    pub fn receiver_report(&mut self, ssrc: u32, block: Option<&ReportBlock>) {
        let start = self.begin(u8::from(block.is_some()), pt::RECEIVER_REPORT);
        self.word(ssrc);
        self.block(block);
        self.end(start);
    }

    /// SDES with the canonical name alone (section 6.5.1); at most 255 octets of it.
    pub fn cname(&mut self, ssrc: u32, name: &str) {
        let start = self.begin(1, pt::SOURCE_DESCRIPTION);
        self.word(ssrc);
        self.put(&[1]);
        self.text(name);
        // At least one null octet ends the list.
        self.put(&[0]);
        self.end(start);
    }

    /// BYE (section 6.6); at most 255 octets of the reason, none where it is empty.
    pub fn bye(&mut self, ssrc: u32, reason: &str) {
        let start = self.begin(1, pt::BYE);
        self.word(ssrc);
        if !reason.is_empty() {
            self.text(reason);
        }
        self.end(start);
    }

    /// XR (RFC 3611) with the blocks that are given; nothing where none is.
    pub fn extended(
        &mut self,
        ssrc: u32,
        reference_ntp: Option<u64>,
        delay: Option<&DelayBlock>,
        metrics: Option<&VoipMetrics>,
    ) {
        if reference_ntp.is_none() && delay.is_none() && metrics.is_none() {
            return;
        }
        let start = self.begin(0, pt::EXTENDED_REPORT);
        self.word(ssrc);
        if let Some(ntp) = reference_ntp {
            self.put(&[REFERENCE_TIME, 0, 0, 2]);
            self.put(&ntp.to_be_bytes());
        }
        if let Some(delay) = delay {
            self.put(&[DELAY, 0, 0, 3]);
            self.word(delay.ssrc);
            self.word(delay.last_rr);
            self.word(delay.delay_since_last_rr);
        }
        if let Some(metrics) = metrics {
            self.put(&[VOIP_METRICS, 0, 0, (VOIP_METRICS_LEN / 4) as u8]);
            self.put(&metrics.to_octets());
        }
        self.end(start);
    }

    fn block(&mut self, block: Option<&ReportBlock>) {
        let Some(block) = block else { return };
        let lost = block.cumulative_lost.clamp(-0x0080_0000, 0x007f_ffff);
        self.word(block.ssrc);
        self.word(u32::from(block.fraction_lost) << 24 | lost as u32 & 0x00ff_ffff);
        self.word(block.highest_sequence);
        self.word(block.jitter);
        self.word(block.last_sr);
        self.word(block.delay_since_last_sr);
    }

    fn begin(&mut self, count: u8, packet_type: u8) -> usize {
        let start = self.len;
        self.put(&[0x80 | count, packet_type, 0, 0]);
        start
    }

    /// Fill up to a whole word and write the length, in words without the header.
    fn end(&mut self, start: usize) {
        while self.fits && !self.len.is_multiple_of(4) {
            self.put(&[0]);
        }
        if self.fits {
            let words = ((self.len - start) / 4 - 1) as u16;
            self.out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        let text = clip(text);
        self.put(&[text.len() as u8]);
        self.put(text.as_bytes());
    }

    fn word(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn put(&mut self, octets: &[u8]) {
        let end = self.len + octets.len();
        match self.out.get_mut(self.len..end) {
            Some(place) if self.fits => {
                place.copy_from_slice(octets);
                self.len = end;
            }
            _ => self.fits = false,
        }
    }
}

/// As many whole characters as 255 octets hold.
pub(crate) fn clip(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
