//! Datagrams that leave by themselves, beside the batches of media.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use mio::net::UdpSocket;
use rtp::rtcp::ntp_from_unix_us;

use super::counters::{Counters, add};
use super::sockets::Pair;
use super::wire::Wire;

/// The wall clock for sender reports (RFC 3550 section 4).
pub(super) fn ntp_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    ntp_from_unix_us(since.map_or(0, |since| since.as_micros() as u64))
}

/// Send something that is not worth a batch. What the system refuses is dropped and counted.
pub(super) fn send(socket: &UdpSocket, datagram: &[u8], remote: SocketAddr, counters: &Counters) {
    let counter = match socket.send_to(datagram, remote) {
        Ok(_) => &counters.sent,
        Err(_) => &counters.send_failed,
    };
    add(counter, 1);
}

pub(super) fn send_report(pair: &Pair, wire: &Wire, media: SocketAddr, datagram: &[u8], counters: &Counters) {
    if let Some((remote, by_media_port)) = wire.reports_to(media) {
        let socket = if by_media_port { &pair.rtp } else { &pair.rtcp };
        send(socket, datagram, remote, counters);
        add(&counters.rtcp_sent, 1);
    }
}
