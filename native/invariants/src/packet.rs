//! RTP headers.

use rtp::packet::{HEADER_LEN, RtpError, RtpPacket, header_len, is_rtcp};

pub(crate) fn any_datagram(datagram: &[u8]) {
    let packet = RtpPacket::parse(datagram);
    let header = header_len(datagram);
    match (packet, header) {
        (Ok(packet), Ok(header)) => reads_what_is_there(datagram, header, &packet),
        // Padding alone is not the header's affair.
        (Err(RtpError::Padding), Ok(_)) => assert_ne!(datagram[0] & 0x20, 0),
        (Err(reason), Err(same)) => assert_eq!(reason, same),
        (packet, header) => panic!("{packet:?} with a header of {header:?}"),
    }
}

fn reads_what_is_there(datagram: &[u8], header: usize, packet: &RtpPacket<'_>) {
    let mut written = [0; HEADER_LEN];
    packet.header.write(&mut written);
    assert_eq!(written[1..], datagram[1..HEADER_LEN]);
    let end = header + packet.payload.len();
    assert_eq!(packet.payload, &datagram[header..end]);
    let padding = datagram.len() - end;
    if datagram[0] & 0x20 == 0 {
        assert_eq!(padding, 0);
        // The end of a datagram is nothing but the end of the payload.
        let shorter = RtpPacket::parse(&datagram[..header]).map(|packet| packet.payload.len());
        assert_eq!(shorter, Ok(0));
    } else {
        assert_eq!(padding, usize::from(datagram[datagram.len() - 1]));
        assert_ne!(padding, 0);
    }
    let taken_for_rtcp = packet.header.marker && (64..96).contains(&packet.header.payload_type);
    assert_eq!(is_rtcp(datagram), taken_for_rtcp);
}
