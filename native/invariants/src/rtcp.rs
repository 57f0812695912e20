//! RTCP datagrams.

use rtp::rtcp::{Compound, CompoundWriter, DelayBlock, Form, Packet, ReportBlock, RtcpError, XrBlock};

pub(crate) fn any_datagram(datagram: &[u8]) {
    let compound = Compound::parse(datagram, Form::Compound);
    let reduced = Compound::parse(datagram, Form::ReducedSize);
    match (compound, reduced) {
        (Ok(compound), Ok(reduced)) => {
            assert_eq!(compound, reduced);
            assert!(matches!(
                compound.packets().next(),
                Some(Packet::SenderReport { .. } | Packet::ReceiverReport { .. })
            ));
        }
        (Err(RtcpError::First), _) => {}
        (Err(reason), Err(same)) => assert_eq!(reason, same),
        (compound, reduced) => panic!("{compound:?}, but of reduced size {reduced:?}"),
    }
    if let Ok(reduced) = reduced {
        walk(datagram, &reduced);
    }
}

/// The packets are as many as the length fields say, each holds what its count says, and each is read again as written.
fn walk(datagram: &[u8], compound: &Compound<'_>) {
    let mut rest = datagram;
    let mut packets = compound.packets();
    while let Some((head, _)) = rest.split_first_chunk::<4>() {
        let packet = packets.next().expect("a packet for every header");
        look_into(usize::from(head[0] & 0x1f), datagram, packet);
        rest = &rest[4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]))..];
    }
    assert!(rest.is_empty());
    assert!(packets.next().is_none());
}

fn look_into(count: usize, datagram: &[u8], packet: Packet<'_>) {
    match packet {
        Packet::SenderReport { ssrc, info, blocks } => {
            assert_eq!(blocks.clone().count(), count);
            for block in blocks {
                let again = written(|writer| writer.sender_report(ssrc, &info, Some(&block)));
                let Some(Packet::SenderReport {
                    ssrc: s,
                    info: i,
                    blocks: b,
                }) = again.first()
                else {
                    panic!("{again:?}")
                };
                assert_eq!((s, i, b.collect::<Vec<_>>()), (ssrc, info, vec![block]));
            }
        }
        Packet::ReceiverReport { ssrc, blocks } => {
            assert_eq!(blocks.clone().count(), count);
            blocks.for_each(|block| report_again(ssrc, block));
        }
        Packet::SourceDescription(chunks) => {
            assert_eq!(chunks.clone().count(), count);
            for cname in chunks.filter_map(|chunk| chunk.cname) {
                assert!(cname.len() <= 255 && lies_within(datagram, cname));
            }
        }
        Packet::Bye { sources, reason } => {
            assert_eq!(sources.count(), count);
            assert!(reason.is_none_or(|reason| reason.len() <= 255 && lies_within(datagram, reason)));
        }
        Packet::Extended { ssrc, blocks } => blocks.for_each(|block| extended_again(ssrc, block)),
        Packet::Feedback | Packet::Application | Packet::Other(_) => {}
    }
}

fn report_again(ssrc: u32, block: ReportBlock) {
    let again = written(|writer| writer.receiver_report(ssrc, Some(&block)));
    let Some(Packet::ReceiverReport { ssrc: same, blocks }) = again.first() else {
        panic!("{again:?}")
    };
    assert_eq!((same, blocks.collect::<Vec<_>>()), (ssrc, vec![block]));
}

fn extended_again(ssrc: u32, block: XrBlock<'_>) {
    let (reference, delay, metrics): (_, Vec<DelayBlock>, _) = match block {
        XrBlock::ReferenceTime { ntp } => (Some(ntp), Vec::new(), None),
        XrBlock::Delay(delays) => (None, delays.collect(), None),
        XrBlock::VoipMetrics(metrics) => (None, Vec::new(), Some(metrics)),
        XrBlock::Other(_) => return,
    };
    let again = written(|writer| writer.extended(ssrc, reference, delay.first(), metrics.as_ref()));
    match again.first() {
        Some(Packet::Extended {
            ssrc: same,
            mut blocks,
        }) => {
            assert_eq!(same, ssrc);
            match blocks.next() {
                Some(XrBlock::ReferenceTime { ntp }) => assert_eq!(Some(ntp), reference),
                Some(XrBlock::Delay(mut delays)) => assert_eq!(delays.next(), delay.first().copied()),
                Some(XrBlock::VoipMetrics(same)) => assert_eq!(Some(same), metrics),
                other => panic!("{other:?}"),
            }
            assert!(blocks.next().is_none());
        }
        None => assert!(reference.is_none() && delay.is_empty() && metrics.is_none()),
        other => panic!("{other:?}"),
    }
}

/// One packet, in a buffer that is just large enough for any.
#[derive(Debug)]
struct Written(Vec<u8>);

fn written(write: impl Fn(&mut CompoundWriter<'_>)) -> Written {
    let mut out = [0xaa; 128];
    let mut writer = CompoundWriter::new(&mut out);
    write(&mut writer);
    let len = writer.finish().expect("room for a packet");
    if let Some(short) = len.checked_sub(1) {
        let mut out = [0; 128];
        let mut writer = CompoundWriter::new(&mut out[..short]);
        write(&mut writer);
        assert_eq!(writer.finish(), None);
    }
    Written(out[..len].to_vec())
}

impl Written {
    fn first(&self) -> Option<Packet<'_>> {
        let mut packets = Compound::parse(&self.0, Form::ReducedSize).ok()?.packets();
        packets.next()
    }
}

fn lies_within(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.as_ptr_range().contains(&part.as_ptr())
}
