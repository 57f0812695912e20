//! The answer as str0m makes it, with what str0m does not know.

use crate::offer::{AgreedAudio, AudioCodec, Refused};
use std::fmt::Write as _;
use str0m::IceCreds;

/// How long the packets of the peer shall be (RFC 8866 section 6.4): what the media engine's tick has.
const PACKET_MS: u32 = 20;
/// The longest packet that we take at once.
const MAX_PACKET_MS: u32 = 60;
/// What we make of the peer's Opus (RFC 7587 section 6.1): the media engine decodes to this rate, so that whatever the
/// peer's encoder spent on higher sound would cost bits and work, here as well, and be thrown away.
const PLAYBACK_HZ: u32 = 16_000;

/// Complete an answer.
///
/// - The audio section gets `a=ptime` and `a=maxptime`, and Opus `maxplaybackrate`.
/// - When the first section is refused, the candidates move to the first that is not, which is the one whose
///   transport the bundle uses (RFC 8843 section 7.3); a browser does not look into a refused section.
/// - A refused section gets its line from the offer: str0m knows video in its place.
/// - `replace` changes the ICE credentials from those that str0m drew for an ICE restart to ours.
pub(crate) fn complete(
    sdp: &str,
    audio: AgreedAudio,
    refused: &[Option<Refused>],
    replace: Option<(&IceCreds, &IceCreds)>,
) -> String {
    let opus = (audio.codec == AudioCodec::Opus).then(|| format!("a=fmtp:{} ", audio.payload_type));
    let mut head = String::new();
    let mut sections: Vec<String> = Vec::new();
    for line in sdp.lines() {
        if line.starts_with("m=") {
            sections.push(String::with_capacity(1024));
        }
        let text = sections.last_mut().unwrap_or(&mut head);
        match replace {
            Some((old, new)) if line.strip_prefix("a=ice-ufrag:") == Some(old.ufrag.as_str()) => {
                text.push_str("a=ice-ufrag:");
                text.push_str(&new.ufrag);
            }
            Some((old, new)) if line.strip_prefix("a=ice-pwd:") == Some(old.pass.as_str()) => {
                text.push_str("a=ice-pwd:");
                text.push_str(&new.pass);
            }
            Some((old, new)) if line.starts_with("a=candidate:") => {
                text.push_str(&line.replace(&old.ufrag, &new.ufrag));
            }
            _ => text.push_str(line),
        }
        if opus.as_ref().is_some_and(|opus| line.starts_with(opus)) {
            let _ = write!(text, ";maxplaybackrate={PLAYBACK_HZ}");
        }
        text.push_str("\r\n");
    }
    move_candidates(&mut sections);
    for section in &mut sections {
        if section.starts_with("m=audio ") && !is_refused(section) {
            let _ = write!(section, "a=ptime:{PACKET_MS}\r\na=maxptime:{MAX_PACKET_MS}\r\n");
        }
    }
    for (section, refused) in sections.iter_mut().zip(refused) {
        let Some(Refused { line, map }) = refused else {
            continue;
        };
        let (_, rest) = section.split_once("\r\n").unwrap_or_default();
        let map_end = if map.is_empty() { "" } else { "\r\n" };
        *section = format!("{line}\r\n{rest}{map}{map_end}");
    }
    head + &sections.concat()
}

fn is_refused(section: &str) -> bool {
    section.split(' ').nth(1) == Some("0")
}

fn move_candidates(sections: &mut [String]) {
    let Some(at) = sections.iter().position(|section| !is_refused(section)) else {
        return;
    };
    if at == 0 {
        return;
    }
    let is_candidate = |line: &&str| line.starts_with("a=candidate:") || *line == "a=end-of-candidates";
    let candidates: String = sections[0]
        .lines()
        .filter(is_candidate)
        .flat_map(|line| [line, "\r\n"])
        .collect();
    sections[0] = sections[0]
        .lines()
        .filter(|line| !is_candidate(line))
        .flat_map(|line| [line, "\r\n"])
        .collect();
    sections[at].push_str(&candidates);
}
