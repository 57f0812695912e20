//! What a connected leg costs: CPU for a second of call with 50 packets each way, and allocations for a packet.
//!
//! `cargo run --release -p webrtc --example cost`. The browser's side (str0m as well) runs in the same thread, and
//! is not counted: the clock and the counter of allocations stand still while it works.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, SeqNo};
use str0m::{Candidate, Event, Input, Output, Rtc};
use webrtc::{Certificate, IceSeed, LegOutput, LegParams, Limits, WebRtcLeg};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Seconds of call that are measured.
const CALL_S: u64 = 600;
/// 20 ms of Opus at 32 kbit/s.
const PAYLOAD: [u8; 80] = [7; 80];
const TICK_US: u64 = 20_000;

/// What the leg did in one kind of call.
#[derive(Default)]
struct Spent {
    busy: Duration,
    calls: u64,
    allocations: usize,
    octets: usize,
}

impl Spent {
    fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let region = Region::new(ALLOCATOR);
        let started = Instant::now();
        let result = work();
        self.busy += started.elapsed();
        let change = region.change();
        self.calls += 1;
        self.allocations += change.allocations + change.reallocations;
        self.octets += change.bytes_allocated;
        result
    }

    fn print(&self, name: &str) {
        let calls = self.calls as f64;
        println!(
            "{name:<22} {:>7} calls, {:>6.2} us, {:>5.2} allocations, {:>6.0} octets each",
            self.calls,
            self.busy.as_secs_f64() * 1e6 / calls,
            self.allocations as f64 / calls,
            self.octets as f64 / calls
        );
    }
}

struct Pair {
    epoch: Instant,
    server: SocketAddr,
    browser_at: SocketAddr,
    browser: Rtc,
    leg: WebRtcLeg,
    to_server: Vec<Vec<u8>>,
    is_connected: bool,
    received: u64,
}

impl Pair {
    fn now(&self, us: u64) -> Instant {
        self.epoch + Duration::from_micros(us)
    }

    fn drain_browser(&mut self) -> Result<(), Box<dyn Error>> {
        loop {
            match self.browser.poll_output()? {
                Output::Timeout(_) => return Ok(()),
                Output::Transmit(transmit) => self.to_server.push(transmit.contents.into()),
                Output::Event(Event::Connected) => self.is_connected = true,
                Output::Event(Event::RtpPacket(_)) => self.received += 1,
                Output::Event(_) => {}
            }
        }
    }

    /// Give the browser what the leg has.
    fn drain_leg(&mut self, us: u64, spent: &mut Spent) -> Result<u64, Box<dyn Error>> {
        let mut rtp = 0;
        loop {
            let leg = &mut self.leg;
            match spent.measure(|| leg.poll()) {
                LegOutput::Timeout(_) => return Ok(rtp),
                LegOutput::Transmit { payload, .. } => {
                    let received = Receive::new(Protocol::Udp, self.server, self.browser_at, &payload)?;
                    let now = self.now(us);
                    self.browser.handle_input(Input::Receive(now, received))?;
                    self.drain_browser()?;
                }
                LegOutput::Rtp(_) => rtp += 1,
                LegOutput::Event(_) => {}
            }
        }
    }
}

fn pair() -> Result<(Pair, str0m::media::Mid), Box<dyn Error>> {
    let epoch = Instant::now();
    let (server, browser_at): (SocketAddr, SocketAddr) =
        ("192.0.2.1:4000".parse()?, "192.0.2.2:5000".parse()?);
    let mut browser = Rtc::builder().set_rtp_mode(true).build(epoch);
    browser.add_local_candidate(Candidate::host(browser_at, Protocol::Udp)?);
    let mut change = browser.sdp_api();
    let mid = change.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
    change.add_channel("chat".to_owned());
    let (offer, pending) = change.apply().ok_or("no offer")?;
    let params = LegParams {
        epoch,
        candidates: vec![server],
        certificate: Certificate::generate()?,
        ice_seed: IceSeed([3; IceSeed::LEN]),
        dtx: false,
        limits: Limits::default(),
    };
    let started = Instant::now();
    let (leg, answer) = WebRtcLeg::answer(&offer.to_sdp_string(), params, 0)?;
    println!("an answer takes {:.2} ms", started.elapsed().as_secs_f64() * 1e3);
    browser
        .sdp_api()
        .accept_answer(pending, SdpAnswer::from_sdp_string(&answer)?)?;
    let (to_server, is_connected, received) = (Vec::new(), false, 0);
    Ok((
        Pair {
            epoch,
            server,
            browser_at,
            browser,
            leg,
            to_server,
            is_connected,
            received,
        },
        mid,
    ))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut pair, mid) = pair()?;
    let (mut setup, mut other, mut incoming, mut outgoing, mut polls) = (
        Spent::default(),
        Spent::default(),
        Spent::default(),
        Spent::default(),
        Spent::default(),
    );
    let (mut us, mut sequence, mut heard, mut connected_us) = (0, 0_u64, 0, None);
    while connected_us.is_none_or(|start_us| us < start_us + CALL_S * 1_000_000) {
        us += TICK_US;
        let now = pair.now(us);
        pair.browser.handle_input(Input::Timeout(now))?;
        pair.drain_browser()?;
        if pair.is_connected && pair.leg.is_connected() {
            connected_us.get_or_insert(us);
            sequence += 1;
            let packet = RtpWrite::new(
                111.into(),
                SeqNo::from(sequence),
                sequence as u32 * 960,
                now,
                PAYLOAD,
            );
            pair.browser
                .direct_api()
                .stream_tx_by_mid(mid, None)
                .ok_or("no stream")?
                .write_rtp(packet);
            pair.browser.handle_input(Input::Timeout(now))?;
            pair.drain_browser()?;
            let leg = &mut pair.leg;
            outgoing.measure(|| {
                leg.write_rtp(us, 111, sequence as u16, sequence as u32 * 960, false, &PAYLOAD)
            })?;
            heard += pair.drain_leg(us, &mut polls)?;
        } else {
            let leg = &mut pair.leg;
            setup.measure(|| leg.handle_timeout(us));
            pair.drain_leg(us, &mut setup)?;
        }
        for datagram in std::mem::take(&mut pair.to_server) {
            let is_rtp = datagram[0] >= 128 && datagram[1] & 127 == 111;
            let spent = match (connected_us, is_rtp) {
                (None, _) => &mut setup,
                (_, true) => &mut incoming,
                (_, false) => &mut other,
            };
            let (leg, source, destination) = (&mut pair.leg, pair.browser_at, pair.server);
            let _ = spent.measure(|| leg.handle_datagram(us, source, destination, &datagram));
            heard += pair.drain_leg(
                us,
                if connected_us.is_some() {
                    &mut polls
                } else {
                    &mut setup
                },
            )?;
        }
    }
    println!(
        "the handshake took {:.2} ms of the leg",
        setup.busy.as_secs_f64() * 1e3
    );
    incoming.print("an RTP packet in");
    outgoing.print("an RTP packet out");
    other.print("STUN and RTCP in");
    polls.print("a poll");
    let busy = incoming.busy + outgoing.busy + other.busy + polls.busy;
    let ms = busy.as_secs_f64() * 1e3 / CALL_S as f64;
    println!(
        "{heard} packets heard, {} given back; {ms:.3} CPU-ms per call-second",
        pair.received
    );
    Ok(())
}
