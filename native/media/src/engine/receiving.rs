//! What comes to the media thread from the network: whose it is, and what becomes of it.

use std::net::SocketAddr;

use rtp::packet::{RtpPacket, header_len, is_rtcp};

use super::clock::now_us;
use super::counters::add;
use super::events::lock;
use super::leg::{Leg, Link};
use super::ports::{Route, StreamId};
use super::readable::Pass;
use super::sockets::Inbox;
use super::thread::MediaThread;
use super::wire::{Heard, WireError};

impl MediaThread {
    /// Read the sockets that have something, as far as there is time.
    pub(super) fn read(&mut self, inbox: &mut Inbox) {
        let mut pass = Pass::begin(now_us());
        while let Some(socket) = self.readable.next() {
            if self.read_batch(socket, inbox) {
                self.readable.note(socket);
            }
            if !pass.goes_on(now_us()) {
                let cut_short = !self.readable.is_empty();
                add(&self.parts.counters.read_passes_cut_short, u64::from(cut_short));
                return;
            }
        }
    }

    /// Read a batch from a socket: that of the streams of a port, or (odd) of their RTCP. Returns whether there may be more.
    fn read_batch(&mut self, socket: usize, inbox: &mut Inbox) -> bool {
        let (port, separate_rtcp) = (socket / 2, socket % 2 == 1);
        let pair = &self.parts.pairs[port];
        let read = inbox.read(if separate_rtcp { &pair.rtcp } else { &pair.rtp });
        // An error is that of an earlier packet, told by ICMP (a peer that has gone); the socket is fine, and holds more.
        add(&self.parts.counters.receive_failed, u64::from(read.is_err()));
        add(&self.parts.counters.received, inbox.len() as u64);
        for index in 0..inbox.len() {
            let (datagram, source) = inbox.datagram(index);
            if let Some(id) = self.ice.route(port, source, datagram) {
                self.browser_datagram(id, port, source, datagram);
            } else if separate_rtcp || is_rtcp(datagram) {
                self.report(port, source, datagram, separate_rtcp);
            } else {
                self.datagram(port, source, datagram);
            }
        }
        !matches!(read, Ok(false))
    }

    /// Take a datagram of a browser's leg. The address of a check that passed is its own from then on, unless it is another's.
    pub(super) fn browser_datagram(
        &mut self,
        id: StreamId,
        port: usize,
        source: SocketAddr,
        datagram: &[u8],
    ) {
        let Some(Leg {
            link: Link::Web(web), ..
        }) = self.legs.get_mut(&id)
        else {
            return;
        };
        let checked = web.datagram(now_us(), source, datagram);
        if checked && !self.ice.is_bound(port, source, id) {
            let taken = lock(&self.parts.table).is_locked(port, source);
            let refused = taken || !self.ice.bind(port, source, id);
            add(&self.parts.counters.refused_addresses, u64::from(refused));
        }
        self.settle_web(id, None);
    }

    /// Take a report about a leg, or about its peer's stream.
    pub(super) fn report(&mut self, port: usize, source: SocketAddr, datagram: &mut [u8], separate: bool) {
        let counters = &self.parts.counters;
        add(&counters.rtcp, 1);
        let id = lock(&self.parts.table).route_rtcp(port, source, separate);
        let leg = id.and_then(|id| self.legs.get_mut(&id));
        let Some(Leg {
            link: Link::Rtp(wire),
            stream,
            random,
            remote,
            ..
        }) = leg
        else {
            add(&counters.unknown_source, 1);
            return;
        };
        let now_us = now_us();
        let heard = wire.report(now_us, datagram);
        if heard.is_ok() && remote.is_some_and(|remote| remote.ip() == source.ip()) {
            wire.heard(now_us);
        }
        match heard {
            Ok(Heard::Collision) => wire.avoid_collision(now_us, stream, random),
            Ok(Heard::Report | Heard::Bye) => {}
            Err(WireError::Srtp(reason)) => add(&counters.srtp[reason as usize], 1),
            Err(WireError::Rtcp(reason)) => add(&counters.bad_reports[reason as usize], 1),
        }
    }

    pub(super) fn datagram(&mut self, port: usize, source: SocketAddr, datagram: &mut [u8]) {
        let counters = &self.parts.counters;
        if let Err(reason) = header_len(datagram) {
            add(&counters.malformed[reason as usize], 1);
            return;
        }
        let now_us = now_us();
        let route = lock(&self.parts.table).route(now_us, port, source);
        let (Route::Locked(id) | Route::Offered(id)) = route else {
            add(&counters.unknown_source, 1);
            return;
        };
        // Absent only while its command is on the way.
        let Some(leg) = self.legs.get_mut(&id) else {
            add(&counters.unknown_source, 1);
            return;
        };
        let valid = match &mut leg.link {
            Link::Rtp(wire) => match wire.open(datagram) {
                Ok(length) => match RtpPacket::parse(&datagram[..length]) {
                    Ok(packet) => {
                        let valid = leg.stream.handle_packet(now_us, &packet, &mut self.leg_events);
                        let late = leg.stream.late();
                        if valid && wire.received(now_us, &packet.header, late) {
                            wire.avoid_collision(now_us, &mut leg.stream, &mut leg.random);
                        }
                        valid
                    }
                    Err(reason) => {
                        add(&counters.malformed[reason as usize], 1);
                        false
                    }
                },
                Err(reason) => {
                    add(&counters.srtp[reason as usize], 1);
                    false
                }
            },
            Link::None | Link::Web(_) => {
                add(&counters.unknown_source, 1);
                false
            }
        };
        if valid && matches!(route, Route::Offered(_)) {
            let locked = lock(&self.parts.table).lock(id, source);
            if locked {
                let learnt = leg.remote.replace(source) != Some(source);
                add(&counters.learnt_source, u64::from(learnt));
            }
        }
        // From elsewhere it says nothing about whoever gets our media.
        if let Link::Rtp(wire) = &mut leg.link
            && valid
            && leg.remote == Some(source)
        {
            wire.heard(now_us);
        }
        self.collect(id);
    }
}
