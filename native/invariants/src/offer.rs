//! Offers of a browser call, and of what is none.

use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};
use webrtc::{Certificate, IceSeed, LegOutput, LegParams, Limits, WebRtcLeg};

/// What edits begin with.
const TEMPLATES: [&str; 3] = [
    include_str!("../../webrtc/tests/fixtures/firefox_form.sdp"),
    include_str!("../../webrtc/tests/fixtures/chromium_156_again.sdp"),
    "",
];

#[derive(Debug, Arbitrary)]
enum Edit<'a> {
    Remove {
        line: u8,
    },
    /// Lines from here on, once more at another place.
    Repeat {
        line: u8,
        lines: u8,
        at: u8,
    },
    Insert {
        at: u8,
        text: &'a str,
    },
    /// Some octets of a line become others.
    Text {
        line: u8,
        at: u8,
        octets: u8,
        text: &'a str,
    },
    /// The line of another template.
    Other {
        template: u8,
        line: u8,
        at: u8,
    },
}

/// What a leg of the fuzz targets is made of.
pub(crate) fn params(epoch: Instant) -> LegParams {
    thread_local! {
        static CERTIFICATE: Certificate = Certificate::generate().expect("a certificate can be made");
    }
    LegParams {
        epoch,
        candidates: vec![([192, 0, 2, 1], 40_000).into()],
        certificate: CERTIFICATE.with(Certificate::clone),
        ice_seed: IceSeed(std::array::from_fn(|at| at as u8)),
        dtx: false,
        limits: Limits::default(),
    }
}

/// The input is the text of an offer, or edits of one: it is refused, or answered as RFC 3264 asks.
pub(crate) fn any_text(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let Ok(template) = octets.int_in_range(0..=TEMPLATES.len() - 1) else {
        return;
    };
    let text = if TEMPLATES[template].is_empty() {
        String::from_utf8_lossy(octets.take_rest()).into_owned()
    } else {
        let mut lines: Vec<String> = TEMPLATES[template].lines().map(str::to_owned).collect();
        for edit in crate::steps(&mut octets) {
            apply(&edit, &mut lines);
        }
        lines.join("\r\n")
    };
    answer(&text);
}

fn apply(edit: &Edit<'_>, lines: &mut Vec<String>) {
    let count = lines.len();
    if count == 0 || count > 1000 {
        return;
    }
    match *edit {
        Edit::Remove { line } => {
            lines.remove(usize::from(line) % count);
        }
        Edit::Repeat {
            line,
            lines: more,
            at,
        } => {
            let line = usize::from(line) % count;
            let end = (line + usize::from(more)).min(count);
            let copy = lines[line..end].to_vec();
            let at = usize::from(at) % count;
            lines.splice(at..at, copy);
        }
        Edit::Insert { at, text } => lines.insert(usize::from(at) % count, text.to_owned()),
        Edit::Text {
            line,
            at,
            octets,
            text,
        } => {
            let line = &mut lines[usize::from(line) % count];
            let at = boundary(line, usize::from(at) % (line.len() + 1));
            let end = boundary(line, at + usize::from(octets % 16));
            line.replace_range(at..end, text);
        }
        Edit::Other { template, line, at } => {
            let others = TEMPLATES[usize::from(template) % 2];
            let line = usize::from(line) % others.lines().count();
            lines.insert(
                usize::from(at) % count,
                others.lines().nth(line).unwrap_or_default().to_owned(),
            );
        }
    }
}

/// The end of the last character that ends there or before.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    let found = (0..=at).rev().find(|&at| text.is_char_boundary(at));
    found.unwrap_or(0)
}

fn answer(offer: &str) {
    let epoch = Instant::now();
    let params = params(epoch);
    let connect_us = params.limits.connect_us;
    let Ok((mut leg, answer)) = WebRtcLeg::answer(offer, params, 0) else {
        return;
    };
    check(&leg, offer, &answer);
    let before = leg.audio();
    if let Ok(again) = leg.reanswer(1000, offer, IceSeed([7; IceSeed::LEN])) {
        check(&leg, offer, &again);
    }
    assert_eq!(leg.audio(), before);
    // Nobody comes.
    assert!(matches!(leg.poll(), LegOutput::Timeout(_)));
    leg.handle_timeout(connect_us);
    assert!(leg.is_closed());
}

/// The answer fits the offer, section by section, and tells of this leg.
fn check(leg: &WebRtcLeg, offer: &str, answer: &str) {
    let context = || format!("{offer}\n--\n{answer}");
    assert!(answer.len() < 2 * offer.len() + 4096, "{}", context());
    assert!(
        answer.starts_with("v=0\r\n") && answer.ends_with("\r\n"),
        "{}",
        context()
    );
    assert_eq!(
        answer.matches('\n').count(),
        answer.matches("\r\n").count(),
        "{}",
        context()
    );
    let offered = sections(offer);
    let answered = sections(answer);
    let media =
        |sections: &[&str]| -> Vec<String> { sections.iter().map(|line| word(line, 0).to_owned()).collect() };
    assert_eq!(media(&offered), media(&answered), "{}", context());
    // Of what is not refused: one audio with the agreed format, and the data channel.
    let accepted = answered.iter().filter(|line| word(line, 1) != "0");
    let payload_type = leg.audio().payload_type.to_string();
    let mut audio = 0;
    for line in accepted {
        match word(line, 0) {
            "m=audio" => {
                audio += 1;
                assert_eq!(word(line, 3), payload_type, "{}", context());
            }
            "m=application" => {}
            _ => panic!("{}", context()),
        }
    }
    assert_eq!(audio, 1, "{}", context());
    let ufrag = format!("a=ice-ufrag:{}", leg.local_ufrag());
    assert!(answer.lines().any(|line| line == ufrag), "{}", context());
    assert!(answer.lines().any(|line| line == "a=ice-lite"), "{}", context());
    assert!(
        answer.lines().any(|line| line.starts_with("a=candidate:")),
        "{}",
        context()
    );
}

fn sections(sdp: &str) -> Vec<&str> {
    let lines = sdp.split(['\r', '\n']).map(str::trim_end);
    lines.filter(|line| line.starts_with("m=")).collect()
}

fn word(line: &str, at: usize) -> &str {
    line.split(' ').nth(at).unwrap_or_default()
}
