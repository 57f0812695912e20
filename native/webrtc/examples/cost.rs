//! What a connected leg costs: CPU for a second of call with 50 packets each way, and allocations for a packet.
//!
//! `cargo run --release -p webrtc --example cost`. The browser's side (str0m as well) runs in the same thread, and
//! is not counted: the clock and the counter of allocations stand still while it works.

use counting::{Counting, allocations_in};
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, SeqNo};
use str0m::{Candidate, Event, Input, Output, Rtc};
use webrtc::{Certificate, IceSeed, LegOutput, LegParams, Limits, WebRtcLeg};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Seconds of call that are measured.
const CALL_S: u64 = 600;
/// The figure is the median over blocks of this length, for on a busy machine some are interrupted.
const BLOCK_S: u64 = 10;
/// 20 ms of Opus at 32 kbit/s.
const PAYLOAD: [u8; 80] = [7; 80];
const TICK_US: u64 = 20_000;

/// What the leg did in one kind of call.
#[derive(Default)]
struct Spent {
    busy: Duration,
    calls: u64,
    allocations: u64,
}

impl Spent {
    fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let mut result = None;
        let started = Instant::now();
        self.allocations += allocations_in(|| result = Some(work()));
        self.busy += started.elapsed();
        self.calls += 1;
        result.expect("the work was done")
    }

    fn print(&self, name: &str) {
        let calls = self.calls as f64;
        println!(
            "{name:<18} {:>7} calls, {:>6.2} us, {:>5.2} allocations each",
            self.calls,
            self.busy.as_secs_f64() * 1e6 / calls,
            self.allocations as f64 / calls,
        );
    }
}

/// What the leg did, by kind.
#[derive(Default)]
struct Costs {
    setup: Spent,
    incoming: Spent,
    outgoing: Spent,
    other: Spent,
    polls: Spent,
    /// `busy` at the end of each block.
    blocks: Vec<Duration>,
}

impl Costs {
    /// Of the connected leg.
    fn busy(&self) -> Duration {
        self.incoming.busy + self.outgoing.busy + self.other.busy + self.polls.busy
    }

    fn print(&self) {
        println!(
            "the handshake took {:.2} ms of the leg",
            self.setup.busy.as_secs_f64() * 1e3
        );
        self.incoming.print("an RTP packet in");
        self.outgoing.print("an RTP packet out");
        self.other.print("STUN and RTCP in");
        self.polls.print("a poll");
        let mut blocks: Vec<Duration> = self
            .blocks
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]))
            .collect();
        blocks.sort_unstable();
        let ms = |busy: Duration| busy.as_secs_f64() * 1e3 / BLOCK_S as f64;
        println!(
            "CPU-ms per call-second: median {:.3}, least {:.3}, most {:.3}",
            ms(blocks[blocks.len() / 2]),
            ms(blocks[0]),
            ms(blocks[blocks.len() - 1])
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

    /// A packet of the browser.
    fn speak(&mut self, mid: Mid, sequence: u64, us: u64) -> Result<(), Box<dyn Error>> {
        let now = self.now(us);
        let packet = RtpWrite::new(
            111.into(),
            SeqNo::from(sequence),
            sequence as u32 * 960,
            now,
            PAYLOAD,
        );
        let mut direct = self.browser.direct_api();
        let stream = direct.stream_tx_by_mid(mid, None).ok_or("no stream")?;
        stream.write_rtp(packet);
        self.browser.handle_input(Input::Timeout(now))?;
        self.drain_browser()
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

fn pair() -> Result<(Pair, Mid), Box<dyn Error>> {
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
    let mut costs = Costs::default();
    let (mut us, mut sequence, mut heard, mut connected_us) = (0, 0_u64, 0, None);
    while connected_us.is_none_or(|start_us| us < start_us + CALL_S * 1_000_000) {
        us += TICK_US;
        let now = pair.now(us);
        pair.browser.handle_input(Input::Timeout(now))?;
        pair.drain_browser()?;
        let leg = &mut pair.leg;
        if pair.is_connected && leg.is_connected() {
            connected_us.get_or_insert(us);
            sequence += 1;
            costs.outgoing.measure(|| {
                leg.write_rtp(us, 111, sequence as u16, sequence as u32 * 960, false, &PAYLOAD)
            })?;
            heard += pair.drain_leg(us, &mut costs.polls)?;
            pair.speak(mid, sequence, us)?;
            if sequence % (BLOCK_S * 1_000_000 / TICK_US) == 0 {
                costs.blocks.push(costs.busy());
            }
        } else {
            costs.setup.measure(|| leg.handle_timeout(us));
            pair.drain_leg(us, &mut costs.setup)?;
        }
        for datagram in std::mem::take(&mut pair.to_server) {
            let is_rtp = datagram[0] >= 128 && datagram[1] & 127 == 111;
            let (work, polls) = match (connected_us, is_rtp) {
                (None, _) => (&mut costs.setup, None),
                (_, true) => (&mut costs.incoming, Some(&mut costs.polls)),
                (_, false) => (&mut costs.other, Some(&mut costs.polls)),
            };
            let (leg, source, destination) = (&mut pair.leg, pair.browser_at, pair.server);
            let _ = work.measure(|| leg.handle_datagram(us, source, destination, &datagram));
            heard += pair.drain_leg(us, polls.unwrap_or(work))?;
        }
    }
    costs.print();
    println!(
        "{heard} packets heard, {} given back of {sequence}",
        pair.received
    );
    Ok(())
}
