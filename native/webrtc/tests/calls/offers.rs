//! Offers of browsers and of others.

use crate::support::params;
use proptest::prelude::*;
use std::time::Instant;
use webrtc::{AgreedAudio, AudioCodec, IceSeed, LegParams, OfferError, WebRtcError, WebRtcLeg};

/// As Chromium 156 made it, for a microphone, two sections of video and a data channel.
const CHROMIUM: &str = include_str!("../fixtures/chromium_156.sdp");
/// What it offered in the same call ten seconds later.
const CHROMIUM_AGAIN: &str = include_str!("../fixtures/chromium_156_again.sdp");
/// In the form of Firefox 128 (order, capitals, session-level fingerprint, mDNS candidate, one clock rate of
/// telephone-event), composed, with the video first.
const FIREFOX: &str = include_str!("../fixtures/firefox_form.sdp");

fn answer(offer: &str) -> Result<(WebRtcLeg, String), WebRtcError> {
    WebRtcLeg::answer(offer, params(Instant::now(), 1), 0)
}

fn refusal(offer: &str) -> OfferError {
    match answer(offer) {
        Err(WebRtcError::Offer(error)) => error,
        other => panic!("{:?}", other.map(|(_, answer)| answer)),
    }
}

fn sections(answer: &str) -> Vec<&str> {
    answer.lines().filter(|line| line.starts_with("m=")).collect()
}

#[test]
fn chromium_gets_opus_and_its_channel_but_no_video() {
    let (leg, answer) = answer(CHROMIUM).unwrap();
    let audio = leg.audio();
    assert_eq!((audio.codec, audio.payload_type), (AudioCodec::Opus, 111));
    assert!(audio.telephone_event.is_some());
    let sections = sections(&answer);
    assert!(
        sections[0].starts_with("m=audio 9 UDP/TLS/RTP/SAVPF 111"),
        "{sections:?}"
    );
    assert!(
        sections[1].starts_with("m=video 0 UDP/TLS/RTP/SAVPF 96") && sections[2].starts_with("m=video 0 ")
    );
    assert!(sections[3].starts_with("m=application 9 UDP/DTLS/SCTP"));
    for line in [
        "a=ice-lite",
        "a=setup:passive",
        "a=group:BUNDLE 0 3",
        "a=sendrecv",
        "a=fmtp:111 minptime=10;useinbandfec=1;maxplaybackrate=16000",
        "a=ptime:20",
        "a=max-message-size:16384",
    ] {
        assert!(
            answer.lines().any(|found| found == line),
            "{line} is missing\n{answer}"
        );
    }
    for attribute in ["transport-cc", "nack", "abs-send-time", "usedtx", "red/"] {
        assert!(!answer.contains(attribute), "{attribute}\n{answer}");
    }
}

#[test]
fn chromium_may_offer_again() {
    let (mut leg, first) = answer(CHROMIUM).unwrap();
    let again = leg
        .reanswer(1_000_000, CHROMIUM_AGAIN, IceSeed([2; IceSeed::LEN]))
        .unwrap();
    assert_eq!(sections(&again), sections(&first));
}

#[test]
fn firefox_with_the_video_first_finds_the_candidates_in_the_audio_section() {
    let (leg, answer) = answer(FIREFOX).unwrap();
    let expected = AgreedAudio {
        codec: AudioCodec::Opus,
        payload_type: 109,
        telephone_event: Some(101),
        event_clock_rate_hz: 8_000,
    };
    assert_eq!(leg.audio(), expected);
    assert!(answer.contains("a=group:BUNDLE 1 2\r\n"), "{answer}");
    let audio = &answer[answer.find("m=audio").unwrap()..];
    assert!(
        audio.contains("a=candidate:") && audio.contains(" 192.0.2.1 40000 typ host"),
        "{answer}"
    );
    assert_eq!(answer.matches("a=candidate:").count(), 1);
}

/// The answer must have a section for each of the offer, in the same order (RFC 3264 section 6), also for what str0m
/// does not know: other media, other transports, a second section of data channels. Found by fuzzing.
#[test]
fn sections_of_any_kind_are_refused_in_their_places() {
    let section = |line: &str, mid: &str| format!("{line}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n");
    let text = section("m=text 9 RTP/AVP 98", "t") + "a=rtpmap:98 t140/1000\r\n";
    let floor = section("m=application 9 UDP/BFCP *", "f");
    let channels = section("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c") + "a=sctp-port:5000\r\n";
    let offer = CHROMIUM.replacen("m=video", &format!("{text}{floor}m=video"), 1) + &channels;
    let (mut leg, first) = answer(&offer).unwrap();
    let again = leg
        .reanswer(1_000_000, &offer, IceSeed([2; IceSeed::LEN]))
        .unwrap();
    for answer in [first, again] {
        let sections = sections(&answer);
        assert_eq!(sections.len(), 7, "{sections:?}");
        assert_eq!(
            sections[1..3],
            ["m=text 0 RTP/AVP 98", "m=application 0 UDP/BFCP *"]
        );
        assert_eq!(sections[6], "m=application 0 UDP/DTLS/SCTP webrtc-datachannel");
        assert!(sections[5].starts_with("m=application 9 "), "{sections:?}");
        let refused = &answer[answer.find("m=text").unwrap()..answer.find("m=application 0").unwrap()];
        assert!(refused.ends_with("a=rtpmap:98 t140/1000\r\n"), "{refused}");
    }
}

/// str0m stops reading at a line that it does not know, without an error: the answer lacked what came behind. Found by
/// fuzzing.
#[test]
fn lines_that_str0m_does_not_know_cut_nothing_off() {
    let expected = sections(&answer(CHROMIUM).unwrap().1).join("\n");
    let line = CHROMIUM
        .lines()
        .find(|line| line.starts_with("a=ice-ufrag"))
        .unwrap();
    for strange in [
        "b=AS:64\r\nb=TIAS:64000",
        "i=a title",
        "k=prompt",
        "no line at all",
        "a=x\ry",
    ] {
        let offer = CHROMIUM.replacen(line, &format!("{strange}\r\n{line}"), 1);
        assert_eq!(
            sections(&answer(&offer).unwrap().1).join("\n"),
            expected,
            "{strange}"
        );
        let offer = CHROMIUM.replacen("t=0 0", &format!("t=0 0\r\n{strange}"), 1);
        assert_eq!(
            sections(&answer(&offer).unwrap().1).join("\n"),
            expected,
            "{strange}"
        );
    }
    // What it cannot read within an attribute is an error.
    let offer = CHROMIUM.replacen("a=mid:1", "a=mid:", 1);
    assert!(matches!(
        answer(&offer),
        Err(WebRtcError::Sdp(_) | WebRtcError::Offer(_))
    ));
}

#[test]
fn dtx_is_asked_for_where_wanted() {
    let params = LegParams {
        dtx: true,
        ..params(Instant::now(), 1)
    };
    let (_, answer) = WebRtcLeg::answer(CHROMIUM, params, 0).unwrap();
    assert!(answer.contains("useinbandfec=1;usedtx=1"), "{answer}");
}

#[test]
fn without_opus_it_is_g711() {
    let without = |names: &[&str]| {
        let keep = |line: &&str| !names.iter().any(|name| line.contains(name));
        FIREFOX.lines().filter(keep).collect::<Vec<_>>().join("\r\n")
    };
    let (leg, _) = answer(&without(&["opus/48000"])).unwrap();
    assert_eq!(
        (leg.audio().codec, leg.audio().payload_type),
        (AudioCodec::Pcmu, 0)
    );
    let offer = without(&["opus/48000", "PCMU/8000"]).replace("109 9 0 8 101", "109 9 8 101");
    let (leg, answered) = answer(&offer).unwrap();
    assert_eq!(
        (leg.audio().codec, leg.audio().payload_type),
        (AudioCodec::Pcma, 8)
    );
    assert!(answered.contains("a=rtpmap:8 PCMA/8000") && answered.contains("telephone-event/8000"));
    let offer = without(&["rtpmap", "fmtp"]).replace("109 9 0 8 101", "0");
    let (leg, answered) = answer(&offer).unwrap();
    assert_eq!(
        leg.audio().payload_type,
        0,
        "a static payload type needs no a=rtpmap"
    );
    assert!(answered.contains("a=rtpmap:0 PCMU/8000"), "{answered}");
    let offer = without(&["opus/48000", "PCM"]).replace("109 9 0 8 101", "109 9 101");
    assert_eq!(refusal(&offer), OfferError::NoCodec);
}

#[test]
fn an_offer_that_cannot_be_answered_says_why() {
    let without = |name: &str| {
        let keep = |line: &&str| !line.starts_with(name);
        CHROMIUM.lines().filter(keep).collect::<Vec<_>>().join("\r\n")
    };
    let only_video = CHROMIUM.replace("m=audio 9", "m=audio 0");
    let plain = CHROMIUM.replace("m=audio 9 UDP/TLS/RTP/SAVPF", "m=audio 9 RTP/AVP");
    let lite = CHROMIUM.replacen("t=0 0", "t=0 0\r\na=ice-lite", 1);
    let endless = format!("v=0\r\n{}", "m=audio 9 RTP/AVP 0\r\n".repeat(40));
    for (offer, error) in [
        (String::new(), OfferError::NotSdp),
        ("{\"sdp\": \"v=0\"}".to_owned(), OfferError::NotSdp),
        ("v=0\r\nm=audio\r\n".to_owned(), OfferError::NotSdp),
        ("v=0\r\ns=-\r\n".to_owned(), OfferError::NoAudio),
        ("x".repeat(1_000_000), OfferError::TooLong(1_000_000)),
        (only_video, OfferError::NoAudio),
        (plain, OfferError::Profile("RTP/AVP".to_owned())),
        (without("a=ice-ufrag"), OfferError::NoIce),
        (without("a=ice-pwd"), OfferError::NoIce),
        (without("a=fingerprint"), OfferError::NoFingerprint),
        (without("a=mid"), OfferError::NoMid),
        (lite, OfferError::BothLite),
        (endless, OfferError::TooMany("sections", 32)),
    ] {
        assert_eq!(refusal(&offer), error);
        assert!(!error.to_string().is_empty());
    }
}

/// An offer with so many lines more at the end of its audio section.
fn with_lines(count: usize, line: impl Fn(usize) -> String) -> String {
    let more: String = (0..count).map(|number| line(number) + "\r\n").collect();
    CHROMIUM.replacen("m=video", &(more + "m=video"), 1)
}

#[test]
fn what_an_offer_may_have_many_of_is_bounded_and_the_bound_is_named() {
    let ssrcs = |first: usize| move |number: usize| format!("a=ssrc:{} cname:x", first + number);
    let candidate = |_| "a=candidate:1 1 udp 2122260223 192.0.2.9 5000 typ host".to_owned();
    let named = CHROMIUM
        .split("m=video")
        .next()
        .unwrap()
        .matches("a=ssrc")
        .count();
    let there = CHROMIUM.matches("a=candidate").count();
    for (offer, words) in [
        (
            with_lines(17 - named, ssrcs(1)),
            "more than 16 a=ssrc lines for its audio",
        ),
        (with_lines(257 - there, candidate), "more than 256 candidates"),
        (
            with_lines(600, |_| "a=x".to_owned()),
            "more than 512 lines in a section",
        ),
    ] {
        let error = refusal(&offer);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(answer(&with_lines(16 - named, ssrcs(1))).is_ok());
    assert!(answer(&with_lines(256 - there, candidate)).is_ok());
}

#[test]
fn the_streams_that_a_call_names_are_bounded_over_its_life() {
    let (mut leg, _) = answer(CHROMIUM).unwrap();
    let mut again = |round: usize| {
        let offer = with_lines(8, |number| format!("a=ssrc:{} cname:x", 8 * round + number));
        // A minute later each, so that their rate is none of the matter.
        leg.reanswer(
            60_000_000 * (1 + round as u64),
            &offer,
            IceSeed([2; IceSeed::LEN]),
        )
    };
    let refused = (0..10).find(|&round| matches!(again(round), Err(WebRtcError::TooManyStreams(64))));
    assert_eq!(refused, Some(7));
    assert!(again(0).is_ok(), "what was named before costs nothing");
}

#[test]
fn a_leg_needs_an_address_that_can_be_reached() {
    let with = |candidates| {
        let params = LegParams {
            candidates,
            ..params(Instant::now(), 1)
        };
        WebRtcLeg::answer(CHROMIUM, params, 0).map(|_| ())
    };
    assert!(matches!(with(vec![]), Err(WebRtcError::NoCandidate)));
    assert!(matches!(
        with(vec!["0.0.0.0:5000".parse().unwrap()]),
        Err(WebRtcError::Candidate(_))
    ));
    assert!(
        with(vec![
            "[2001:db8::1]:5000".parse().unwrap(),
            "127.0.0.1:5000".parse().unwrap()
        ])
        .is_ok()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Lines left out, doubled, swapped, cut, altered: an answer or an error, never a panic.
    #[test]
    fn any_alteration_of_an_offer_is_answered_or_refused(
        edits in proptest::collection::vec((0..5_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..8),
        is_firefox: bool,
    ) {
        let mut lines: Vec<String> =
            if is_firefox { FIREFOX } else { CHROMIUM }.lines().map(str::to_owned).collect();
        for (edit, first, second, octet) in edits {
            let (first, second) = (first.index(lines.len()), second.index(lines.len()));
            match edit {
                0 => lines.swap(first, second),
                1 => { let line = lines[first].clone(); lines.insert(second, line); }
                2 if lines.len() > 1 => { lines.remove(first); }
                3 => { let half = lines[first].len() / 2; lines[first].truncate(half); }
                _ => {
                    let mut octets = lines[first].clone().into_bytes();
                    if let Some(at) = octets.len().checked_sub(1) {
                        octets[usize::from(octet) % (at + 1)] = octet & 0x7f;
                    }
                    lines[first] = String::from_utf8(octets).unwrap();
                }
            }
        }
        let _ = answer(&lines.join("\r\n"));
    }

    #[test]
    fn any_text_is_refused(text in ".{0,200}") {
        prop_assert!(answer(&text).is_err());
        let begun = format!("v=0\r\n{text}");
        prop_assert!(answer(&begun).is_err());
    }
}
