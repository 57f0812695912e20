//! Reading RTCP: the datagram is checked as a whole once, then walked without copying.

use super::xr::XrBlocks;
use super::{ReportBlock, RtcpError, SenderInfo, packet_type as pt};

/// Which packets a datagram may begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A report comes first (RFC 3550 section 6.1).
    Compound,
    /// Any packet may come first or stand alone (RFC 5506, `a=rtcp-rsize`).
    ReducedSize,
}

/// A datagram whose every packet is known to be well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compound<'a> {
    datagram: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Check a datagram by RFC 3550 A.2, and what its packets count within themselves.
    ///
    /// A missing SDES is forgiven. A sole packet may be padded, for it is also the last.
    ///
    /// # Errors
    /// The first reason for which this is no valid RTCP.
    pub fn parse(datagram: &'a [u8], form: Form) -> Result<Self, RtcpError> {
        let mut rest = datagram;
        let mut first = true;
        while first || !rest.is_empty() {
            let (raw, after) = split(rest)?;
            let report = matches!(raw.packet_type, pt::SENDER_REPORT | pt::RECEIVER_REPORT);
            if first && !report && form == Form::Compound {
                return Err(RtcpError::First);
            }
            raw.read()?;
            (rest, first) = (after, false);
        }
        Ok(Self { datagram })
    }

    /// Its packets, in order.
    pub fn packets(&self) -> Packets<'a> {
        Packets { rest: self.datagram }
    }
}

/// The packets of a [`Compound`].
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        // Both were checked: an error is the end.
        let (raw, rest) = split(self.rest).ok()?;
        self.rest = rest;
        raw.read().ok()
    }
}

/// One packet of a datagram.
#[derive(Debug, Clone)]
pub enum Packet<'a> {
    /// SR (RFC 3550 section 6.4.1).
    SenderReport {
        /// Who reports.
        ssrc: u32,
        /// Its own stream.
        info: SenderInfo,
        /// The streams that it receives.
        blocks: ReportBlocks<'a>,
    },
    /// RR (section 6.4.2).
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// The streams that it receives.
        blocks: ReportBlocks<'a>,
    },
    /// SDES (section 6.5).
    SourceDescription(Chunks<'a>),
    /// BYE (section 6.6).
    Bye {
        /// Who leaves.
        sources: Sources<'a>,
        /// Why, meant to be UTF-8.
        reason: Option<&'a [u8]>,
    },
    /// XR (RFC 3611).
    Extended {
        /// Who reports.
        ssrc: u32,
        /// Its report blocks.
        blocks: XrBlocks<'a>,
    },
    /// Feedback on transport or payload (RFC 4585), not looked into.
    Feedback,
    /// APP (RFC 3550 section 6.7), not looked into.
    Application,
    /// A packet type that is not known here.
    Other(u8),
}

struct Raw<'a> {
    count: u8,
    packet_type: u8,
    /// What follows the header, without padding.
    body: &'a [u8],
}

fn split(datagram: &[u8]) -> Result<(Raw<'_>, &[u8]), RtcpError> {
    let (head, tail) = datagram.split_first_chunk::<4>().ok_or(RtcpError::Truncated)?;
    if head[0] >> 6 != 2 {
        return Err(RtcpError::Version);
    }
    let len = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
    let (mut body, rest) = tail.split_at_checked(len).ok_or(RtcpError::Length)?;
    if head[0] & 0x20 != 0 {
        let padding = usize::from(*body.last().ok_or(RtcpError::Padding)?);
        if !rest.is_empty() || padding == 0 || padding % 4 != 0 || padding > len {
            return Err(RtcpError::Padding);
        }
        body = &body[..len - padding];
    }
    let raw = Raw {
        count: head[0] & 0x1f,
        packet_type: head[1],
        body,
    };
    Ok((raw, rest))
}

impl<'a> Raw<'a> {
    fn read(&self) -> Result<Packet<'a>, RtcpError> {
        match self.packet_type {
            pt::SENDER_REPORT => {
                let (fixed, rest) = self.body.split_first_chunk::<24>().ok_or(RtcpError::Body)?;
                let info = SenderInfo {
                    ntp: u64::from(word(fixed, 1)) << 32 | u64::from(word(fixed, 2)),
                    rtp_timestamp: word(fixed, 3),
                    packets: word(fixed, 4),
                    octets: word(fixed, 5),
                };
                let (ssrc, blocks) = (word(fixed, 0), self.blocks(rest)?);
                Ok(Packet::SenderReport { ssrc, info, blocks })
            }
            pt::RECEIVER_REPORT => {
                let (ssrc, rest) = self.body.split_first_chunk::<4>().ok_or(RtcpError::Body)?;
                let (ssrc, blocks) = (word(ssrc, 0), self.blocks(rest)?);
                Ok(Packet::ReceiverReport { ssrc, blocks })
            }
            pt::SOURCE_DESCRIPTION => self.chunks().map(Packet::SourceDescription),
            pt::BYE => self.bye(),
            pt::APPLICATION => Ok(Packet::Application),
            pt::TRANSPORT_FEEDBACK | pt::PAYLOAD_FEEDBACK => Ok(Packet::Feedback),
            pt::EXTENDED_REPORT => {
                let (ssrc, rest) = self.body.split_first_chunk::<4>().ok_or(RtcpError::Body)?;
                let (ssrc, blocks) = (word(ssrc, 0), XrBlocks::parse(rest)?);
                Ok(Packet::Extended { ssrc, blocks })
            }
            other => Ok(Packet::Other(other)),
        }
    }

    /// What follows the blocks is a profile's extension (RFC 3550 section 6.4.3), which nobody uses.
    fn blocks(&self, rest: &'a [u8]) -> Result<ReportBlocks<'a>, RtcpError> {
        let len = 24 * usize::from(self.count);
        let rest = rest.get(..len).ok_or(RtcpError::Body)?;
        Ok(ReportBlocks { rest })
    }

    fn chunks(&self) -> Result<Chunks<'a>, RtcpError> {
        let chunks = Chunks {
            left: self.count,
            rest: self.body,
        };
        let mut rest = self.body;
        for _ in 0..self.count {
            (_, rest) = chunk(rest)?;
        }
        Ok(chunks)
    }

    fn bye(&self) -> Result<Packet<'a>, RtcpError> {
        let sources_len = 4 * usize::from(self.count);
        let (rest, after) = self.body.split_at_checked(sources_len).ok_or(RtcpError::Body)?;
        let reason = match after.split_first() {
            Some((&len, text)) => Some(text.get(..usize::from(len)).ok_or(RtcpError::Body)?),
            None => None,
        };
        let sources = Sources { rest };
        Ok(Packet::Bye { sources, reason })
    }
}

/// The `n`th 32-bit word of a fixed part.
fn word(fixed: &[u8], n: usize) -> u32 {
    let at = 4 * n;
    u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
}

/// The report blocks of an SR or RR.
#[derive(Debug, Clone)]
pub struct ReportBlocks<'a> {
    rest: &'a [u8],
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.rest.split_first_chunk::<24>()?;
        self.rest = rest;
        let lost = word(block, 1);
        Some(ReportBlock {
            ssrc: word(block, 0),
            fraction_lost: (lost >> 24) as u8,
            // Shifted up and down again for the sign.
            cumulative_lost: (lost << 8) as i32 >> 8,
            highest_sequence: word(block, 2),
            jitter: word(block, 3),
            last_sr: word(block, 4),
            delay_since_last_sr: word(block, 5),
        })
    }
}

/// Those who leave by a BYE.
#[derive(Debug, Clone)]
pub struct Sources<'a> {
    rest: &'a [u8],
}

impl Iterator for Sources<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (ssrc, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(word(ssrc, 0))
    }
}

/// What an SDES packet says of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The source.
    pub ssrc: u32,
    /// Its canonical name, meant to be UTF-8; other items are skipped.
    pub cname: Option<&'a [u8]>,
}

/// The chunks of an SDES packet.
#[derive(Debug, Clone)]
pub struct Chunks<'a> {
    left: u8,
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (item, rest) = chunk(self.rest).ok()?;
        self.rest = rest;
        Some(item)
    }
}

/// Read one chunk; the end of the packet stands for a missing null octet.
fn chunk(body: &[u8]) -> Result<(Chunk<'_>, &[u8]), RtcpError> {
    const CNAME: u8 = 1;
    let (ssrc, items) = body.split_first_chunk::<4>().ok_or(RtcpError::Body)?;
    let mut cname = None;
    let mut at = 0;
    while let Some(&kind) = items.get(at) {
        if kind == 0 {
            // The list ends with a null octet, and the chunk at the next multiple of four (section 6.5).
            at += 1;
            break;
        }
        let len = usize::from(*items.get(at + 1).ok_or(RtcpError::Body)?);
        let text = items.get(at + 2..at + 2 + len).ok_or(RtcpError::Body)?;
        if kind == CNAME && cname.is_none() {
            cname = Some(text);
        }
        at += 2 + len;
    }
    let ssrc = word(ssrc, 0);
    let rest = items.get(at.next_multiple_of(4)..).unwrap_or_default();
    Ok((Chunk { ssrc, cname }, rest))
}
