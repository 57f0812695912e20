//! RTCP on octets: what another implementation writes, what we write, and anything at all.

use proptest::prelude::*;
use rtp::rtcp::{
    Compound, CompoundWriter, DelayBlock, Form, Packet, ReportBlock, RtcpError, SenderInfo, VoipMetrics,
    XrBlock, ntp_from_unix_us, ntp_middle,
};

// Written by the RTCP classes of aiortc 1.16.0 (aiortc/rtp.py).
const SR_SDES: &str = "81c8000c12345678e4a1b2c3d4e5f607deadbeef000005dc0003a9800a0b0c0d1afffffd0001fff0\
    0000002a112233440001000081ca000512345678010a63616c6c65724070627800000000";
const RR_TWO_BLOCKS: &str = "82c9000d123456780a0b0c0d1afffffd0001fff00000002a11223344000100000e0e0e0eff7fffff\
    00000007ffffffff0000000000000000";
const RR_SDES_BYE: &str = "80c900011234567881ca000512345678010a63616c6c6572407062780000000081cb000112345678";
const NACK: &str = "81cd0003123456780a0b0c0d000c0081";
const RR_PLI: &str = "80c900011234567881ce0002123456780a0b0c0d";

const SSRC: u32 = 0x1234_5678;
const BLOCK: ReportBlock = ReportBlock {
    ssrc: 0x0a0b_0c0d,
    fraction_lost: 26,
    cumulative_lost: -3,
    highest_sequence: 0x0001_fff0,
    jitter: 42,
    last_sr: 0x1122_3344,
    delay_since_last_sr: 0x0001_0000,
};
const INFO: SenderInfo = SenderInfo {
    ntp: 0xe4a1_b2c3_d4e5_f607,
    rtp_timestamp: 0xdead_beef,
    packets: 1500,
    octets: 240_000,
};

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn packets(datagram: &[u8], form: Form) -> Vec<Packet<'_>> {
    Compound::parse(datagram, form).unwrap().packets().collect()
}

fn reason(datagram: &[u8]) -> RtcpError {
    Compound::parse(datagram, Form::Compound).unwrap_err()
}

#[test]
fn sender_report_and_name_of_aiortc() {
    let datagram = octets(SR_SDES);
    let read = packets(&datagram, Form::Compound);
    let [
        Packet::SenderReport { ssrc, info, blocks },
        Packet::SourceDescription(chunks),
    ] = &read[..]
    else {
        panic!("{read:?}");
    };
    assert_eq!((*ssrc, *info), (SSRC, INFO));
    assert_eq!(blocks.clone().collect::<Vec<_>>(), [BLOCK]);
    let chunks: Vec<_> = chunks.clone().collect();
    assert_eq!(chunks.len(), 1);
    assert_eq!(
        (chunks[0].ssrc, chunks[0].cname),
        (SSRC, Some(&b"caller@pbx"[..]))
    );
}

#[test]
fn receiver_report_of_aiortc() {
    let datagram = octets(RR_TWO_BLOCKS);
    let read = packets(&datagram, Form::Compound);
    let [Packet::ReceiverReport { ssrc, blocks }] = &read[..] else {
        panic!("{read:?}");
    };
    let blocks: Vec<_> = blocks.clone().collect();
    assert_eq!((*ssrc, blocks[0]), (SSRC, BLOCK));
    assert_eq!(
        (
            blocks[1].fraction_lost,
            blocks[1].cumulative_lost,
            blocks[1].jitter
        ),
        (255, 0x7f_ffff, u32::MAX)
    );
}

#[test]
fn bye_of_aiortc() {
    let datagram = octets(RR_SDES_BYE);
    let read = packets(&datagram, Form::Compound);
    let Some(Packet::Bye { sources, reason }) = read.last() else {
        panic!("{read:?}");
    };
    assert_eq!((sources.clone().collect::<Vec<_>>(), *reason), (vec![SSRC], None));
}

#[test]
fn feedback_of_aiortc() {
    let datagram = octets(RR_PLI);
    assert!(matches!(
        packets(&datagram, Form::Compound)[..],
        [Packet::ReceiverReport { .. }, Packet::Feedback]
    ));
    let alone = octets(NACK);
    assert_eq!(reason(&alone), RtcpError::First);
    assert!(matches!(
        packets(&alone, Form::ReducedSize)[..],
        [Packet::Feedback]
    ));
}

/// The same calls, the same octets: our writer against aiortc's.
#[test]
fn written_as_aiortc_writes() {
    let mut out = [0; 200];
    let mut writer = CompoundWriter::new(&mut out);
    writer.sender_report(SSRC, &INFO, Some(&BLOCK));
    writer.cname(SSRC, "caller@pbx");
    let len = writer.finish().unwrap();
    assert_eq!(out[..len], octets(SR_SDES));

    let mut writer = CompoundWriter::new(&mut out);
    writer.receiver_report(SSRC, None);
    writer.cname(SSRC, "caller@pbx");
    writer.bye(SSRC, "");
    let len = writer.finish().unwrap();
    assert_eq!(out[..len], octets(RR_SDES_BYE));
}

#[test]
fn each_reason() {
    let rr = [0x80, 201, 0, 1, 0, 0, 0, 1];
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut datagram = rr.to_vec();
        change(&mut datagram);
        reason(&datagram)
    };
    assert_eq!(reason(&[]), RtcpError::Truncated);
    assert_eq!(with(&|d| d.extend([0x80, 202, 0])), RtcpError::Truncated);
    assert_eq!(with(&|d| d[0] = 0x40), RtcpError::Version);
    assert_eq!(with(&|d| d[3] = 2), RtcpError::Length);
    assert_eq!(with(&|d| d[1] = 202), RtcpError::First);
    // Padding: of a packet that is not the last, of none, of no whole word, of more than there is.
    assert_eq!(
        with(&|d| d.extend([0xa0, 204, 0, 1, 0, 0, 0, 0])),
        RtcpError::Padding
    );
    assert_eq!(
        with(&|d| d.extend([0xa0, 204, 0, 1, 0, 0, 0, 3])),
        RtcpError::Padding
    );
    assert_eq!(
        with(&|d| d.extend([0xa0, 204, 0, 1, 0, 0, 0, 8])),
        RtcpError::Padding
    );
    assert_eq!(with(&|d| d.extend([0xa0, 204, 0, 0])), RtcpError::Padding);
    let mut early = vec![0xa0, 201, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4];
    assert!(Compound::parse(&early, Form::Compound).is_ok());
    early.extend(rr);
    assert_eq!(reason(&early), RtcpError::Padding);
    // Contents: report blocks, chunks, an item, BYE's sources and reason, an XR block.
    assert_eq!(with(&|d| d[0] = 0x81), RtcpError::Body);
    assert_eq!(with(&|d| d.extend([0x81, 202, 0, 0])), RtcpError::Body);
    let item = [0x81, 202, 0, 2, 0, 0, 0, 1, 1, 3, 0, 0];
    assert_eq!(with(&|d| d.extend(item)), RtcpError::Body);
    assert_eq!(with(&|d| d.extend([0x81, 203, 0, 0])), RtcpError::Body);
    assert_eq!(
        with(&|d| d.extend([0x80, 203, 0, 1, 4, 0, 0, 0])),
        RtcpError::Body
    );
    let block = [0x80, 207, 0, 2, 0, 0, 0, 1, 4, 0, 0, 2];
    assert_eq!(with(&|d| d.extend(block)), RtcpError::Body);
    assert_eq!(RtcpError::Body as usize, RtcpError::COUNT - 1);
}

#[test]
fn what_is_not_known_is_skipped() {
    let datagram = [
        &[0x80, 201, 0, 1, 0, 0, 0, 1][..],
        // SDES: a chunk with a note, a name and another name, and a chunk without.
        &[0x82, 202, 0, 6, 0, 0, 0, 5],
        &[7, 2, b'h', b'i', 1, 1, b'a', 1, 1, b'b', 0, 0],
        &[0, 0, 0, 6, 0, 0, 0, 0],
        &[0x80, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e'],
        &[0x80, 210, 0, 0],
        // XR: an unknown block, and a reference time of the wrong length.
        &[0x80, 207, 0, 4, 0, 0, 0, 1, 99, 0, 0, 0, 4, 0, 0, 1, 0, 0, 0, 0],
    ]
    .concat();
    let read = packets(&datagram, Form::Compound);
    let Packet::SourceDescription(chunks) = &read[1] else {
        panic!("{read:?}");
    };
    let names: Vec<_> = chunks.clone().map(|chunk| (chunk.ssrc, chunk.cname)).collect();
    assert_eq!(names, [(5, Some(&b"a"[..])), (6, None)]);
    assert!(matches!(read[2], Packet::Application));
    assert!(matches!(read[3], Packet::Other(210)));
    let Packet::Extended { blocks, .. } = &read[4] else {
        panic!("{read:?}");
    };
    let blocks: Vec<_> = blocks.clone().collect();
    assert!(matches!(blocks[..], [XrBlock::Other(99), XrBlock::Other(4)]));
}

/// RFC 3550 section 6.4.1, figure 2: 10 Nov 1995 11:33:25.125 UTC is b44d:b705 with the fraction 2000 and b705:2000 the
/// middle.
#[test]
fn ntp_of_the_rfc() {
    let ntp = ntp_from_unix_us(816_003_205_125_000);
    assert_eq!(ntp, 0xb44d_b705_2000_0000);
    assert_eq!(ntp_middle(ntp), 0xb705_2000);
}

#[test]
fn a_short_buffer_is_told() {
    let mut whole = [0; 200];
    let mut writer = CompoundWriter::new(&mut whole);
    writer.sender_report(SSRC, &INFO, Some(&BLOCK));
    writer.cname(SSRC, "name");
    let len = writer.finish().unwrap();
    for short in 0..len {
        let mut out = vec![0; short];
        let mut writer = CompoundWriter::new(&mut out);
        writer.sender_report(SSRC, &INFO, Some(&BLOCK));
        writer.cname(SSRC, "name");
        assert_eq!(writer.finish(), None, "{short}");
    }
}

prop_compose! {
    fn block()(
        ssrc: u32, fraction_lost: u8, cumulative_lost in -0x80_0000..0x80_0000,
        highest_sequence: u32, jitter: u32, last_sr: u32, delay_since_last_sr: u32,
    ) -> ReportBlock {
        ReportBlock {
            ssrc, fraction_lost, cumulative_lost, highest_sequence, jitter, last_sr, delay_since_last_sr,
        }
    }
}

prop_compose! {
    fn metrics()(
        ssrc: u32, rates: [u8; 4], times: [u16; 4], levels: [u8; 4], scores: [u8; 4],
        receiver_configuration: u8, buffer: [u16; 3],
    ) -> VoipMetrics {
        VoipMetrics {
            ssrc,
            loss_rate: rates[0], discard_rate: rates[1], burst_density: rates[2], gap_density: rates[3],
            burst_duration_ms: times[0], gap_duration_ms: times[1], round_trip_ms: times[2], end_system_ms: times[3],
            signal_level: levels[0], noise_level: levels[1], echo_return_loss: levels[2], gmin: levels[3],
            r_factor: scores[0], external_r_factor: scores[1], mos_lq: scores[2], mos_cq: scores[3],
            receiver_configuration,
            buffer_nominal_ms: buffer[0], buffer_maximum_ms: buffer[1], buffer_absolute_maximum_ms: buffer[2],
        }
    }
}

proptest! {
    #[test]
    fn any_datagram_is_safe(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        walk(&bytes);
    }

    /// Headers that pass, with anything in them.
    #[test]
    fn any_contents_are_safe(parts in proptest::collection::vec(
        (0x80u8..=0xbf, 200u8..=208, proptest::collection::vec(any::<u8>(), 0..80)), 0..5,
    )) {
        let mut datagram = Vec::new();
        for (first, packet_type, mut body) in parts {
            body.resize(body.len().next_multiple_of(4), 0);
            datagram.extend([first, packet_type, 0, (body.len() / 4) as u8]);
            datagram.extend(body);
        }
        walk(&datagram);
    }

    #[test]
    fn reports_parse_back(
        ssrc: u32, ntp: u64, rtp_timestamp: u32, packet_count: u32, octet_count: u32,
        block in proptest::option::of(block()), sender: bool, name in ".{0,300}", reason in ".{0,300}",
    ) {
        let info = SenderInfo { ntp, rtp_timestamp, packets: packet_count, octets: octet_count };
        let mut out = [0; 1000];
        let mut writer = CompoundWriter::new(&mut out);
        if sender {
            writer.sender_report(ssrc, &info, block.as_ref());
        } else {
            writer.receiver_report(ssrc, block.as_ref());
        }
        writer.cname(ssrc, &name);
        writer.bye(ssrc, &reason);
        let len = writer.finish().unwrap();
        let read = packets(&out[..len], Form::Compound);
        prop_assert_eq!(read.len(), 3);
        match &read[0] {
            Packet::SenderReport { ssrc: from, info: read, blocks } => {
                prop_assert!(sender);
                prop_assert_eq!((*from, *read), (ssrc, info));
                prop_assert_eq!(blocks.clone().next(), block);
            }
            Packet::ReceiverReport { ssrc: from, blocks } => {
                prop_assert!(!sender);
                prop_assert_eq!(*from, ssrc);
                prop_assert_eq!(blocks.clone().next(), block);
            }
            other => prop_assert!(false, "{:?}", other),
        }
        let Packet::SourceDescription(chunks) = &read[1] else { panic!("{read:?}") };
        let chunk = chunks.clone().next().unwrap();
        prop_assert_eq!(chunk.ssrc, ssrc);
        prop_assert!(clipped(chunk.cname.unwrap(), &name));
        let Packet::Bye { sources, reason: read } = &read[2] else { panic!("{read:?}") };
        prop_assert_eq!(sources.clone().next(), Some(ssrc));
        prop_assert_eq!(read.is_none(), reason.is_empty());
        prop_assert!(clipped(read.unwrap_or_default(), &reason));
    }

    #[test]
    fn extended_reports_parse_back(
        ssrc: u32, ntp in proptest::option::of(any::<u64>()),
        delay in proptest::option::of(any::<(u32, u32, u32)>()), metrics in proptest::option::of(metrics()),
    ) {
        let delay = delay.map(|(ssrc, last_rr, delay_since_last_rr)| DelayBlock { ssrc, last_rr, delay_since_last_rr });
        let mut out = [0; 200];
        let mut writer = CompoundWriter::new(&mut out);
        writer.receiver_report(ssrc, None);
        writer.extended(ssrc, ntp, delay.as_ref(), metrics.as_ref());
        let len = writer.finish().unwrap();
        let (mut read_ntp, mut read_delay, mut read_metrics) = (None, None, None);
        for packet in Compound::parse(&out[..len], Form::Compound).unwrap().packets() {
            let Packet::Extended { blocks, .. } = packet else { continue };
            for block in blocks {
                match block {
                    XrBlock::ReferenceTime { ntp } => read_ntp = Some(ntp),
                    XrBlock::Delay(mut delays) => read_delay = delays.next(),
                    XrBlock::VoipMetrics(metrics) => read_metrics = Some(metrics),
                    XrBlock::Other(kind) => prop_assert!(false, "block {}", kind),
                }
            }
        }
        prop_assert_eq!((read_ntp, read_delay, read_metrics), (ntp, delay, metrics));
    }
}

/// Read everything that there is.
fn walk(datagram: &[u8]) {
    for form in [Form::Compound, Form::ReducedSize] {
        let Ok(compound) = Compound::parse(datagram, form) else {
            continue;
        };
        let mut count = 0;
        for packet in compound.packets() {
            count += 1;
            match packet {
                Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. } => {
                    assert!(blocks.count() <= 31);
                }
                Packet::SourceDescription(chunks) => assert!(chunks.count() <= 31),
                Packet::Bye { sources, .. } => assert!(sources.count() <= 31),
                Packet::Extended { blocks, .. } => {
                    for block in blocks {
                        if let XrBlock::Delay(delays) = block {
                            assert!(delays.count() * 12 <= datagram.len());
                        }
                    }
                }
                Packet::Feedback | Packet::Application | Packet::Other(_) => {}
            }
        }
        assert!((1..=datagram.len() / 4).contains(&count));
    }
}

/// All of `text`, or as many whole characters as 255 octets hold.
fn clipped(read: &[u8], text: &str) -> bool {
    let whole = std::str::from_utf8(read).is_ok_and(|read| text.starts_with(read));
    whole && read.len() <= 255 && (read.len() == text.len() || read.len() > 251)
}
