//! An offer as it comes from a browser: what of it can be agreed, and the offer without the rest.
//!
//! str0m reads SDP and makes the answer. What is decided here first: the one audio section, its codec, and that
//! every other section of media is refused (its port becomes 0 and it leaves the bundle). ICE candidates of the
//! peer are left out, for an ICE-lite agent never sends a check (RFC 8445 section 2.5).

use std::fmt::Write as _;

/// The longest offer that is read. A browser's has 3 to 10 KiB.
pub(crate) const MAX_OFFER_OCTETS: usize = 64 * 1024;
/// The most sections; a conference has dozens, a call has two to four.
const MAX_SECTIONS: usize = 32;
/// The most lines of a section; a browser's video, with every format that it knows, has about 150.
const MAX_LINES: usize = 512;
/// The most `a=ssrc` and `a=ssrc-group` lines of the audio: one microphone has two to four, and str0m keeps a stream for each.
const MAX_SSRC_LINES: usize = 16;
/// The most candidates, which are left out: a machine with many networks has dozens a section.
const MAX_CANDIDATES: usize = 256;
/// The one profile of WebRTC (RFC 8827 section 6.5, RFC 8834 section 4.2); TCP as offered by RFC 8829 5.1.2 too.
const SECURE_PROFILE: &str = "TLS/RTP/SAVPF";

/// Why an offer cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Longer than any browser makes it.
    #[error("the offer has {0} octets, more than {MAX_OFFER_OCTETS}")]
    TooLong(usize),
    /// It does not begin as SDP does (`v=0`).
    #[error("the offer is not SDP")]
    NotSdp,
    /// More of something than any browser offers: of what, and the most that is read.
    #[error("the offer has more than {1} {0}")]
    TooMany(&'static str, usize),
    /// There is no section of audio, or its port is 0.
    #[error("the offer has no audio")]
    NoAudio,
    /// The audio is not offered over DTLS-SRTP with feedback; the profile that it has.
    #[error("the audio is offered as {0}, a browser call needs UDP/TLS/RTP/SAVPF")]
    Profile(String),
    /// Neither Opus nor G.711.
    #[error("the audio has no codec in common: Opus, PCMU or PCMA is needed")]
    NoCodec,
    /// A later offer without the codec that is in use, or with another number for it.
    #[error("the offer no longer has the agreed codec")]
    CodecChanged,
    /// No `a=mid` in the audio section (RFC 8843).
    #[error("the audio has no a=mid")]
    NoMid,
    /// No `a=ice-ufrag` and `a=ice-pwd`.
    #[error("the offer has no ICE credentials")]
    NoIce,
    /// No `a=fingerprint`, so DTLS could not tell the peer.
    #[error("the offer has no DTLS fingerprint")]
    NoFingerprint,
    /// The peer is ICE-lite as we are: nobody would check.
    #[error("both sides are ICE-lite")]
    BothLite,
}

/// The codecs of a browser call; both are mandatory for WebRTC endpoints (RFC 7874).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AudioCodec {
    /// RFC 7587; the media clock has 48 kHz whatever the audio has.
    Opus,
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
}

impl AudioCodec {
    /// In order of preference.
    const ALL: [Self; 3] = [Self::Opus, Self::Pcmu, Self::Pcma];

    /// Rate of the media clock.
    pub fn clock_rate_hz(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
        }
    }

    /// As `a=rtpmap` has it, in lower case.
    fn encoding(self) -> &'static str {
        match self {
            Self::Opus => "opus/48000/2",
            Self::Pcmu => "pcmu/8000",
            Self::Pcma => "pcma/8000",
        }
    }

    /// The number that needs no `a=rtpmap` (RFC 3551 section 6).
    fn static_payload_type(self) -> Option<u8> {
        match self {
            Self::Opus => None,
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
        }
    }
}

/// What both sides send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreedAudio {
    /// The codec.
    pub codec: AudioCodec,
    /// Its payload type.
    pub payload_type: u8,
    /// The payload type of telephone-event (RFC 4733), when the peer has it.
    pub telephone_event: Option<u8>,
    /// The clock rate of its durations: the codec's where the peer has that, else 8000 (Firefox has no other).
    pub event_clock_rate_hz: u32,
}

impl AgreedAudio {
    /// As the line of the section has them.
    fn formats(self) -> String {
        let event = self.telephone_event.map(|number| format!(" {number}"));
        format!("{}{}", self.payload_type, event.unwrap_or_default())
    }

    /// Whether a line is not about another format.
    fn is_about(self, line: &str) -> bool {
        let value = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"]
            .into_iter()
            .find_map(|name| line.strip_prefix(name));
        value.is_none_or(|value| {
            let format = value.split(' ').next().unwrap_or(value);
            let number = format.parse().ok();
            number == Some(self.payload_type) || number.is_some() && number == self.telephone_event
        })
    }
}

/// What was read of an offer.
#[derive(Debug)]
pub(crate) struct Offer {
    /// The offer for str0m: one section of audio, the data channel, the others refused.
    pub(crate) text: String,
    pub(crate) audio: AgreedAudio,
    pub(crate) mid: String,
    /// Of the peer's certificate, in lower case; another one is another peer connection.
    pub(crate) fingerprint: String,
    /// What the audio's `a=ssrc` lines name.
    pub(crate) ssrcs: Vec<u32>,
    /// What the answer says of each section that is refused.
    pub(crate) refused: Vec<Option<Refused>>,
}

/// What the answer has for a section that it refuses: of its own kind, over its own transport, with its first format.
/// Any format would do (RFC 3264 section 6), but aiortc looks for one in common with its offer all the same.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The `m=` line.
    pub(crate) line: String,
    /// The `a=rtpmap` of the format, or nothing.
    pub(crate) map: String,
}

/// One section: the lines from `m=` to the next.
struct Section<'a> {
    media: &'a str,
    port: &'a str,
    profile: &'a str,
    formats: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn open(line: &'a str) -> Option<Self> {
        let mut words = line.strip_prefix("m=")?.splitn(4, ' ');
        Some(Self {
            media: words.next()?,
            port: words.next()?,
            profile: words.next()?,
            formats: words.next()?,
            lines: Vec::new(),
        })
    }

    fn attribute(&self, name: &str) -> Option<&'a str> {
        attribute(&self.lines, name)
    }

    /// Port 0 refuses a section, unless it says that it shares the transport of another (RFC 8843 section 6).
    fn is_offered(&self) -> bool {
        self.port != "0" || self.lines.contains(&"a=bundle-only")
    }

    fn agree(&self) -> Option<AgreedAudio> {
        AudioCodec::ALL.into_iter().find_map(|codec| {
            let payload_type = self.payload_type(codec.encoding()).or_else(|| {
                let number = codec.static_payload_type()?;
                self.has_format(number).then_some(number)
            })?;
            let clocks = [codec.clock_rate_hz(), 8_000];
            let event = clocks.into_iter().find_map(|clock_rate_hz| {
                let payload_type = self.payload_type(&format!("telephone-event/{clock_rate_hz}"))?;
                Some((payload_type, clock_rate_hz))
            });
            Some(AgreedAudio {
                codec,
                payload_type,
                telephone_event: event.map(|(payload_type, _)| payload_type),
                event_clock_rate_hz: event.map_or(codec.clock_rate_hz(), |(_, clock_rate_hz)| clock_rate_hz),
            })
        })
    }

    fn payload_type(&self, encoding: &str) -> Option<u8> {
        self.lines
            .iter()
            .filter_map(|line| line.strip_prefix("a=rtpmap:"))
            .find_map(|map| {
                let (number, name) = map.split_once(' ')?;
                let number = number.parse().ok().filter(|number| *number < 128)?;
                // One channel may be said or not (RFC 8866 section 6.6).
                let name = name.strip_suffix("/1").unwrap_or(name);
                (name.eq_ignore_ascii_case(encoding) && self.has_format(number)).then_some(number)
            })
    }

    fn refused(&self) -> Refused {
        let Self { media, profile, .. } = self;
        let format = self.formats.split(' ').next().unwrap_or("0");
        let map = format!("a=rtpmap:{format} ");
        let map = self
            .lines
            .iter()
            .find(|line| line.starts_with(&map))
            .map_or("", |line| line);
        Refused {
            line: format!("m={media} 0 {profile} {format}"),
            map: map.to_owned(),
        }
    }

    fn ssrcs(&self) -> Vec<u32> {
        let named = self.lines.iter().filter_map(|line| line.strip_prefix("a=ssrc:"));
        named
            .filter_map(|value| value.split(' ').next()?.parse().ok())
            .collect()
    }

    /// Whether it is for data channels (RFC 8841 section 4).
    fn has_channels(&self) -> bool {
        self.media == "application" && self.profile.ends_with("DTLS/SCTP")
    }

    fn has_format(&self, payload_type: u8) -> bool {
        self.formats
            .split(' ')
            .any(|format| format.parse() == Ok(payload_type))
    }
}

fn attribute<'a>(lines: &[&'a str], name: &str) -> Option<&'a str> {
    lines
        .iter()
        .find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
}

impl Offer {
    /// Read an offer.
    ///
    /// # Errors
    /// The first thing for which it cannot be answered.
    pub(crate) fn read(sdp: &str) -> Result<Self, OfferError> {
        if sdp.len() > MAX_OFFER_OCTETS {
            return Err(OfferError::TooLong(sdp.len()));
        }
        let (session, sections) = split(sdp)?;
        if session.contains(&"a=ice-lite") {
            return Err(OfferError::BothLite);
        }
        let audio_at = sections
            .iter()
            .position(|section| section.media == "audio" && section.is_offered())
            .ok_or(OfferError::NoAudio)?;
        let audio = &sections[audio_at];
        check_bounds(&session, &sections, audio)?;
        if !audio.profile.ends_with(SECURE_PROFILE) {
            return Err(OfferError::Profile(audio.profile.to_owned()));
        }
        let agreed = audio.agree().ok_or(OfferError::NoCodec)?;
        let mid = audio.attribute("mid").ok_or(OfferError::NoMid)?.to_owned();
        let of_call = |name| audio.attribute(name).or_else(|| attribute(&session, name));
        if of_call("ice-ufrag").is_none() || of_call("ice-pwd").is_none() {
            return Err(OfferError::NoIce);
        }
        let fingerprint = of_call("fingerprint")
            .ok_or(OfferError::NoFingerprint)?
            .to_ascii_lowercase();
        let refused = (0..sections.len())
            .map(|at| is_refused(&sections, audio_at, at).then(|| sections[at].refused()))
            .collect();
        let text = rewrite(&session, &sections, audio_at, agreed);
        Ok(Self {
            text,
            audio: agreed,
            mid,
            fingerprint,
            ssrcs: audio.ssrcs(),
            refused,
        })
    }
}

/// Hold an offer to the bounds on what it may have many of.
fn check_bounds(session: &[&str], sections: &[Section<'_>], audio: &Section<'_>) -> Result<(), OfferError> {
    let within = |count: usize, most: usize, what| {
        if count > most {
            return Err(OfferError::TooMany(what, most));
        }
        Ok(())
    };
    let lines = || std::iter::once(session).chain(sections.iter().map(|section| &section.lines[..]));
    within(
        lines().map(<[_]>::len).max().unwrap_or(0),
        MAX_LINES,
        "lines in a section",
    )?;
    let candidates = lines().flatten().filter(|line| is_candidate(line));
    within(candidates.count(), MAX_CANDIDATES, "candidates")?;
    let sources = audio.lines.iter().filter(|line| line.starts_with("a=ssrc"));
    within(sources.count(), MAX_SSRC_LINES, "a=ssrc lines for its audio")
}

fn split(sdp: &str) -> Result<(Vec<&str>, Vec<Section<'_>>), OfferError> {
    let mut lines = sdp
        .split(['\r', '\n'])
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .peekable();
    if lines.peek() != Some(&"v=0") {
        return Err(OfferError::NotSdp);
    }
    let (mut session, mut sections) = (Vec::new(), Vec::<Section<'_>>::new());
    for line in lines {
        if line.starts_with("m=") {
            if sections.len() == MAX_SECTIONS {
                return Err(OfferError::TooMany("sections", MAX_SECTIONS));
            }
            sections.push(Section::open(line).ok_or(OfferError::NotSdp)?);
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(line);
        } else {
            session.push(line);
        }
    }
    Ok((session, sections))
}

/// All but the audio and the first section of data channels.
fn is_refused(sections: &[Section<'_>], audio_at: usize, at: usize) -> bool {
    at != audio_at && sections.iter().position(Section::has_channels) != Some(at)
}

/// The offer with every section refused but the audio, which keeps the agreed formats, and the data channel. Of the rest
/// the attributes are left and what SDP cannot do without: str0m stops at a line that it does not know (`i=`, a second
/// `b=`), and reads nothing behind it.
fn rewrite(session: &[&str], sections: &[Section<'_>], audio_at: usize, agreed: AgreedAudio) -> String {
    let is_refused = |at: usize| is_refused(sections, audio_at, at);
    let refused: Vec<&str> = (0..sections.len())
        .filter(|&at| is_refused(at))
        .filter_map(|at| sections[at].attribute("mid"))
        .collect();
    let mut text = String::with_capacity(4096);
    let mut put = |line: std::fmt::Arguments<'_>| {
        let _ = text.write_fmt(format_args!("{line}\r\n"));
    };
    for line in session {
        if let Some(mids) = line.strip_prefix("a=group:BUNDLE ") {
            let kept: Vec<&str> = mids.split(' ').filter(|mid| !refused.contains(mid)).collect();
            put(format_args!("a=group:BUNDLE {}", kept.join(" ")));
        } else if !is_candidate(line) && ["v=", "o=", "s=", "t=", "a="].contains(&line.get(..2).unwrap_or(""))
        {
            put(format_args!("{line}"));
        }
    }
    for (at, section) in sections.iter().enumerate() {
        let Section {
            media,
            port,
            profile,
            formats,
            lines,
        } = section;
        let is_kept = |line: &&&str| {
            line.starts_with("a=") && !is_candidate(line) && (at != audio_at || agreed.is_about(line))
        };
        if is_refused(at) {
            // Whatever it is, str0m shall count it: it reads no other transport, and leaves out other media.
            put(format_args!("m=video 0 UDP/{SECURE_PROFILE} 0"));
            if let Some(mid) = section.attribute("mid") {
                put(format_args!("a=mid:{mid}"));
            }
            put(format_args!("a=inactive"));
            continue;
        }
        if at == audio_at {
            put(format_args!("m={media} {port} {profile} {}", agreed.formats()));
        } else {
            put(format_args!("m={media} {port} {profile} {formats}"));
        }
        for line in lines.iter().filter(is_kept) {
            put(format_args!("{line}"));
        }
        let encoding = agreed.codec.encoding();
        if at == audio_at && section.payload_type(encoding).is_none() {
            // A static payload type needs no map, but str0m does.
            put(format_args!("a=rtpmap:{} {encoding}", agreed.payload_type));
        }
    }
    text
}

fn is_candidate(line: &str) -> bool {
    line.starts_with("a=candidate:") || line == "a=end-of-candidates"
}
