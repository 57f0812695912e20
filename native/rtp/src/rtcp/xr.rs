//! Extended reports (RFC 3611): receiver reference time, delay since it, voice metrics (there named for their IP).

use super::RtcpError;

/// A level, return loss or score that is not known (RFC 3611 section 4.7).
pub const UNAVAILABLE: u8 = 127;

pub(crate) const REFERENCE_TIME: u8 = 4;
pub(crate) const DELAY: u8 = 5;
pub(crate) const VOIP_METRICS: u8 = 7;
/// Octets of a voice metrics block after its header.
pub(crate) const VOIP_METRICS_LEN: usize = 32;

/// One report block of an XR packet.
#[derive(Debug, Clone)]
pub enum XrBlock<'a> {
    /// Receiver reference time (section 4.4): the reporter's NTP time, so that one who sends nothing can measure too.
    ReferenceTime {
        /// NTP time at which the block was sent.
        ntp: u64,
    },
    /// Delay since the last receiver reference time (section 4.5), for each receiver.
    Delay(DelayBlocks<'a>),
    /// Voice metrics (section 4.7).
    VoipMetrics(VoipMetrics),
    /// Another type, or one of these at another length than the RFC's.
    Other(u8),
}

/// The answer to a receiver reference time (RFC 3611 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayBlock {
    /// The receiver that is answered.
    pub ssrc: u32,
    /// Middle 32 bits of its reference time; 0 where none came.
    pub last_rr: u32,
    /// From its arrival to this report, in 1/65536 s.
    pub delay_since_last_rr: u32,
}

/// Voice metrics of one received stream since reception began (RFC 3611 section 4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VoipMetrics {
    /// The stream.
    pub ssrc: u32,
    /// Lost in the network, in 1/256 of the packets.
    pub loss_rate: u8,
    /// Discarded by the jitter buffer, in 1/256 of the packets.
    pub discard_rate: u8,
    /// Lost or discarded within bursts, in 1/256.
    pub burst_density: u8,
    /// Lost or discarded within gaps, in 1/256.
    pub gap_density: u8,
    /// Mean length of a burst.
    pub burst_duration_ms: u16,
    /// Mean length of a gap.
    pub gap_duration_ms: u16,
    /// Round trip between the RTP interfaces; 0 where not known.
    pub round_trip_ms: u16,
    /// Delay inside the reporter: jitter buffer, decoder, playout, and the same on the way out.
    pub end_system_ms: u16,
    /// Speech level in dBm0, signed; [`UNAVAILABLE`] where not known.
    pub signal_level: u8,
    /// Noise level in dBm0, signed; [`UNAVAILABLE`] where not known.
    pub noise_level: u8,
    /// Residual echo return loss in dB; [`UNAVAILABLE`] where not known.
    pub echo_return_loss: u8,
    /// Received packets in a row that end a burst.
    pub gmin: u8,
    /// Transmission rating R, 0 to 100; [`UNAVAILABLE`] where not known.
    pub r_factor: u8,
    /// R of an outer network segment; [`UNAVAILABLE`] where there is none.
    pub external_r_factor: u8,
    /// MOS for listening times ten, 10 to 50; [`UNAVAILABLE`] where not known.
    pub mos_lq: u8,
    /// MOS for conversation times ten, 10 to 50; [`UNAVAILABLE`] where not known.
    pub mos_cq: u8,
    /// Concealment (2 bits), buffer adaptation (2 bits), its rate (4 bits) (section 4.7.6).
    pub receiver_configuration: u8,
    /// Delay of the jitter buffer for a packet on time.
    pub buffer_nominal_ms: u16,
    /// The same for the earliest packet that is not discarded.
    pub buffer_maximum_ms: u16,
    /// The most to which the buffer may adapt.
    pub buffer_absolute_maximum_ms: u16,
}

impl VoipMetrics {
    fn parse(body: &[u8; VOIP_METRICS_LEN]) -> Self {
        let half = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        Self {
            ssrc: u32::from_be_bytes([body[0], body[1], body[2], body[3]]),
            loss_rate: body[4],
            discard_rate: body[5],
            burst_density: body[6],
            gap_density: body[7],
            burst_duration_ms: half(8),
            gap_duration_ms: half(10),
            round_trip_ms: half(12),
            end_system_ms: half(14),
            signal_level: body[16],
            noise_level: body[17],
            echo_return_loss: body[18],
            gmin: body[19],
            r_factor: body[20],
            external_r_factor: body[21],
            mos_lq: body[22],
            mos_cq: body[23],
            receiver_configuration: body[24],
            buffer_nominal_ms: half(26),
            buffer_maximum_ms: half(28),
            buffer_absolute_maximum_ms: half(30),
        }
    }

    pub(crate) fn to_octets(self) -> [u8; VOIP_METRICS_LEN] {
        let mut out = [0; VOIP_METRICS_LEN];
        out[0..4].copy_from_slice(&self.ssrc.to_be_bytes());
        out[4..8].copy_from_slice(&[
            self.loss_rate,
            self.discard_rate,
            self.burst_density,
            self.gap_density,
        ]);
        let durations = [
            self.burst_duration_ms,
            self.gap_duration_ms,
            self.round_trip_ms,
            self.end_system_ms,
        ];
        let buffer = [
            self.buffer_nominal_ms,
            self.buffer_maximum_ms,
            self.buffer_absolute_maximum_ms,
        ];
        for (n, value) in durations.into_iter().enumerate() {
            out[8 + 2 * n..10 + 2 * n].copy_from_slice(&value.to_be_bytes());
        }
        out[16..25].copy_from_slice(&[
            self.signal_level,
            self.noise_level,
            self.echo_return_loss,
            self.gmin,
            self.r_factor,
            self.external_r_factor,
            self.mos_lq,
            self.mos_cq,
            self.receiver_configuration,
        ]);
        for (n, value) in buffer.into_iter().enumerate() {
            out[26 + 2 * n..28 + 2 * n].copy_from_slice(&value.to_be_bytes());
        }
        out
    }
}

/// The report blocks of an XR packet.
#[derive(Debug, Clone)]
pub struct XrBlocks<'a> {
    rest: &'a [u8],
}

impl<'a> XrBlocks<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, RtcpError> {
        let mut rest = body;
        while !rest.is_empty() {
            (_, _, rest) = split(rest).ok_or(RtcpError::Body)?;
        }
        Ok(Self { rest: body })
    }
}

/// Type, contents, and what follows.
fn split(rest: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    let len = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
    let (body, rest) = tail.split_at_checked(len)?;
    Some((head[0], body, rest))
}

impl<'a> Iterator for XrBlocks<'a> {
    type Item = XrBlock<'a>;

    fn next(&mut self) -> Option<XrBlock<'a>> {
        let (kind, body, rest) = split(self.rest)?;
        self.rest = rest;
        Some(match kind {
            REFERENCE_TIME => match <&[u8; 8]>::try_from(body) {
                Ok(ntp) => XrBlock::ReferenceTime {
                    ntp: u64::from_be_bytes(*ntp),
                },
                Err(_) => XrBlock::Other(kind),
            },
            DELAY if body.len() % 12 == 0 => XrBlock::Delay(DelayBlocks { rest: body }),
            VOIP_METRICS => match body.try_into() {
                Ok(body) => XrBlock::VoipMetrics(VoipMetrics::parse(body)),
                Err(_) => XrBlock::Other(kind),
            },
            _ => XrBlock::Other(kind),
        })
    }
}

/// The answers in one block of delays.
#[derive(Debug, Clone)]
pub struct DelayBlocks<'a> {
    rest: &'a [u8],
}

impl Iterator for DelayBlocks<'_> {
    type Item = DelayBlock;

    fn next(&mut self) -> Option<DelayBlock> {
        let (block, rest) = self.rest.split_first_chunk::<12>()?;
        self.rest = rest;
        let word = |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        Some(DelayBlock {
            ssrc: word(0),
            last_rr: word(4),
            delay_since_last_rr: word(8),
        })
    }
}
