//! The speech codecs of a leg: what SDP calls them, their clocks and sizes.

/// A codec that we can negotiate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law, 64 kbit/s.
    Pcmu,
    /// G.711 A-law, 64 kbit/s.
    Pcma,
    /// G.722 at 64 kbit/s: 7 kHz of audio.
    G722,
    /// Opus (RFC 6716, RFC 7587).
    Opus,
}

impl Codec {
    /// Every codec that we know.
    pub const ALL: [Self; 4] = [Self::Pcmu, Self::Pcma, Self::G722, Self::Opus];

    /// The encoding name of SDP's `a=rtpmap`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
        }
    }

    /// The codec of an encoding name, whatever its case (RFC 8866, 6.6). None: not one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The rate of the RTP timestamps. G.722 samples at 16 kHz and counts at 8 kHz (RFC 3551, 4.5.2); Opus always
    /// counts at 48 kHz (RFC 7587, 4.1).
    pub const fn clock_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 8000,
            Self::Opus => 48_000,
        }
    }

    /// The rate of the samples that [`Decoder`](crate::Decoder) gives. Opus decodes straight to what speech recognition takes.
    pub const fn decoded_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8000,
            Self::G722 | Self::Opus => 16_000,
        }
    }

    /// The rate of the samples that [`Encoder`](crate::Encoder) takes.
    pub const fn encoded_hz(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8000,
            Self::G722 => 16_000,
            Self::Opus => 24_000,
        }
    }

    /// How many ticks of [`Codec::clock_hz`] a payload lasts; 0 for what no encoder of the codec makes.
    pub fn duration(self) -> fn(&[u8]) -> u32 {
        match self {
            // G.722 packs two samples of 16 kHz, one tick of 8 kHz, into an octet.
            Self::Pcmu | Self::Pcma | Self::G722 => octets,
            Self::Opus => opus_duration,
        }
    }

    /// The most octets that a 20 ms frame encodes to.
    pub const fn payload_max(self) -> usize {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 160,
            // One TOC octet and one frame (RFC 6716, 3.1 and 3.2.1).
            Self::Opus => 1276,
        }
    }
}

fn octets(payload: &[u8]) -> u32 {
    payload.len() as u32
}

/// RFC 6716, 3.1: duration of a frame by configuration (table 2), and how many frames the packet has (3.2).
fn opus_duration(payload: &[u8]) -> u32 {
    const MAX: u32 = 5760; // 120 ms, requirement R5 of 3.4.
    let Some(&toc) = payload.first() else { return 0 };
    let config = usize::from(toc >> 3);
    let frame = match config {
        0..12 => [480, 960, 1920, 2880][config % 4],
        12..16 => [480, 960][config % 2],
        _ => [120, 240, 480, 960][config % 4],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => payload.get(1).map_or(0, |count| u32::from(count & 0x3f)),
    };
    if frames * frame > MAX { 0 } else { frames * frame }
}
