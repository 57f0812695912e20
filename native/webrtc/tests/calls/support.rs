//! A browser (str0m as the client, full ICE) and the leg, over a simulated network in virtual time.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, SeqNo};
use str0m::{Candidate, Event, Input, Output, Rtc};
use webrtc::{
    AgreedAudio, Certificate, Disconnection, IceSeed, LegEvent, LegOutput, LegParams, Limits, RtpIn,
    WebRtcLeg,
};

pub const SERVER: &str = "192.0.2.1:40000";
pub const BROWSER: &str = "198.51.100.7:50000";

/// xorshift64*: a seed gives the same run everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }
}

/// What the network does to datagrams, either way.
#[derive(Clone, Copy)]
pub struct Impairment {
    pub delay_us: u64,
    pub jitter_us: u64,
    pub loss: f64,
    pub duplication: f64,
}

impl Impairment {
    pub const NONE: Self = Self {
        delay_us: 20_000,
        jitter_us: 0,
        loss: 0.0,
        duplication: 0.0,
    };
    /// Jitter larger than the packet interval, so packets overtake each other.
    pub const ROUGH: Self = Self {
        delay_us: 40_000,
        jitter_us: 50_000,
        loss: 0.05,
        duplication: 0.05,
    };
}

#[derive(Debug, Clone)]
pub struct Datagram {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: Vec<u8>,
}

/// The browser's side.
pub struct Browser {
    pub rtc: Rtc,
    pub audio: Mid,
    pub channel: Option<ChannelId>,
    pub is_connected: bool,
    pub is_closed: bool,
    pub received: Vec<(u8, u16, Vec<u8>)>,
    pub messages: Vec<String>,
    pub channels_closed: usize,
    pending: Option<SdpPendingOffer>,
    timeout: Instant,
}

pub struct World {
    pub epoch: Instant,
    pub now_us: u64,
    pub random: Random,
    pub impairment: Impairment,
    /// Nothing passes from the browser to the server.
    pub is_cut: bool,
    flight: BTreeMap<(u64, u64), Datagram>,
    order: u64,
    pub browser: Browser,
    pub leg: WebRtcLeg,
    pub events: Vec<LegEvent>,
    pub rtp: Vec<RtpIn>,
    /// Everything that the browser sent, for attacks and repeats.
    pub sent_by_browser: Vec<Datagram>,
    pub last_sent_by_leg_us: u64,
    leg_timeout_us: u64,
}

pub fn params(epoch: Instant, seed: u8) -> LegParams {
    LegParams {
        epoch,
        candidates: vec![SERVER.parse().unwrap()],
        certificate: Certificate::generate().unwrap(),
        ice_seed: IceSeed(std::array::from_fn(|at| seed.wrapping_add(at as u8))),
        dtx: false,
        limits: Limits::default(),
    }
}

/// A browser with audio and, if wanted, video and a data channel; and its offer.
pub fn browser(epoch: Instant, with_video: bool, with_channel: bool) -> (Browser, String) {
    let mut rtc = Rtc::builder().set_rtp_mode(true).build(epoch);
    let address: SocketAddr = BROWSER.parse().unwrap();
    rtc.add_local_candidate(Candidate::host(address, Protocol::Udp).unwrap());
    let mut change = rtc.sdp_api();
    let audio = change.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
    if with_video {
        change.add_media(MediaKind::Video, Direction::SendRecv, None, None, None);
    }
    let channel = with_channel.then(|| change.add_channel("chat".to_owned()));
    let (offer, pending) = change.apply().unwrap();
    let browser = Browser {
        rtc,
        audio,
        channel,
        is_connected: false,
        is_closed: false,
        received: Vec::new(),
        messages: Vec::new(),
        channels_closed: 0,
        pending: Some(pending),
        timeout: epoch,
    };
    (browser, offer.to_sdp_string())
}

impl Browser {
    pub fn accept(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        self.rtc
            .sdp_api()
            .accept_answer(self.pending.take().unwrap(), answer)
            .unwrap();
    }

    /// A further offer, of an ICE restart if wanted.
    pub fn offer(&mut self, restart: bool) -> String {
        let mut change = self.rtc.sdp_api();
        if restart {
            change.ice_restart(true);
        } else {
            change.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        }
        let (offer, pending) = change.apply().unwrap();
        self.pending = Some(pending);
        offer.to_sdp_string()
    }

    pub fn send_rtp(&mut self, now: Instant, payload_type: u8, sequence: u64, payload: &[u8]) {
        let packet = RtpWrite::new(
            payload_type.into(),
            SeqNo::from(sequence),
            sequence as u32 * 960,
            now,
            payload,
        );
        let mid = self.audio;
        self.rtc
            .direct_api()
            .stream_tx_by_mid(mid, None)
            .unwrap()
            .write_rtp(packet);
    }

    pub fn send_message(&mut self, message: &[u8], binary: bool) -> bool {
        let id = self.channel.unwrap();
        self.rtc
            .channel(id)
            .is_some_and(|mut channel| channel.write(binary, message).unwrap())
    }

    pub fn open_channel(&mut self, label: &str) {
        let config = ChannelConfig {
            label: label.to_owned(),
            ..ChannelConfig::default()
        };
        self.rtc.direct_api().create_data_channel(config);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::ChannelClose(_) => self.channels_closed += 1,
            Event::Connected => self.is_connected = true,
            Event::Closed => self.is_closed = true,
            Event::RtpPacket(packet) => self.received.push((
                *packet.header.payload_type,
                packet.header.sequence_number,
                packet.payload.to_vec(),
            )),
            Event::ChannelData(data) => self.messages.push(String::from_utf8(data.data).unwrap()),
            _ => {}
        }
    }
}

impl World {
    pub fn new(seed: u64, impairment: Impairment) -> Self {
        Self::with(seed, impairment, Limits::default(), true)
    }

    pub fn with(seed: u64, impairment: Impairment, limits: Limits, with_video: bool) -> Self {
        let epoch = Instant::now();
        let (browser, offer) = browser(epoch, with_video, true);
        let params = LegParams {
            limits,
            ..params(epoch, seed as u8)
        };
        let (leg, answer) = WebRtcLeg::answer(&offer, params, 0).unwrap();
        Self::of(seed, impairment, epoch, browser, leg, &answer)
    }

    pub fn of(
        seed: u64,
        impairment: Impairment,
        epoch: Instant,
        mut browser: Browser,
        leg: WebRtcLeg,
        answer: &str,
    ) -> Self {
        browser.accept(answer);
        Self {
            epoch,
            now_us: 0,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            impairment,
            is_cut: false,
            flight: BTreeMap::new(),
            order: 0,
            browser,
            leg,
            events: Vec::new(),
            rtp: Vec::new(),
            sent_by_browser: Vec::new(),
            last_sent_by_leg_us: 0,
            leg_timeout_us: 0,
        }
    }

    pub fn now(&self) -> Instant {
        self.epoch + Duration::from_micros(self.now_us)
    }

    fn post(&mut self, datagram: &Datagram) {
        let copies = 1 + usize::from(self.random.chance(self.impairment.duplication));
        for _ in 0..copies {
            if self.random.chance(self.impairment.loss) {
                continue;
            }
            let jitter_us = self.random.next() % (self.impairment.jitter_us + 1);
            let at_us = self.now_us + self.impairment.delay_us + jitter_us;
            self.order += 1;
            self.flight.insert((at_us, self.order), datagram.clone());
        }
    }

    /// Fetch what both sides have to say.
    pub fn exchange(&mut self) {
        loop {
            match self.leg.poll() {
                LegOutput::Timeout(at_us) => {
                    self.leg_timeout_us = at_us;
                    break;
                }
                LegOutput::Transmit {
                    source,
                    destination,
                    payload,
                } => {
                    self.last_sent_by_leg_us = self.now_us;
                    self.post(&Datagram {
                        source,
                        destination,
                        payload,
                    });
                }
                LegOutput::Rtp(packet) => self.rtp.push(packet),
                LegOutput::Event(event) => self.events.push(event),
            }
        }
        loop {
            match self.browser.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.browser.timeout = at;
                    break;
                }
                Output::Transmit(transmit) => {
                    let datagram = Datagram {
                        source: transmit.source,
                        destination: transmit.destination,
                        payload: transmit.contents.into(),
                    };
                    self.sent_by_browser.push(datagram.clone());
                    if !self.is_cut {
                        self.post(&datagram);
                    }
                }
                Output::Event(event) => self.browser.on_event(event),
            }
        }
    }

    fn deliver(&mut self, datagram: &Datagram) {
        if datagram.destination == SERVER.parse().unwrap() {
            let _ = self.leg.handle_datagram(
                self.now_us,
                datagram.source,
                datagram.destination,
                &datagram.payload,
            );
        } else {
            let Ok(received) = Receive::new(
                Protocol::Udp,
                datagram.source,
                datagram.destination,
                &datagram.payload,
            ) else {
                return;
            };
            self.browser
                .rtc
                .handle_input(Input::Receive(self.now(), received))
                .unwrap();
        }
        self.exchange();
    }

    /// Let virtual time pass.
    pub fn run_until(&mut self, end_us: u64) {
        self.exchange();
        loop {
            let flight_us = self.flight.keys().next().map_or(u64::MAX, |(at_us, _)| *at_us);
            let browser_us = self
                .browser
                .timeout
                .saturating_duration_since(self.epoch)
                .as_micros() as u64;
            let next_us = flight_us
                .min(browser_us)
                .min(self.leg_timeout_us)
                .max(self.now_us);
            if next_us > end_us {
                break;
            }
            self.now_us = next_us;
            if flight_us <= next_us {
                let (_, datagram) = self.flight.pop_first().unwrap();
                self.deliver(&datagram);
            } else if self.leg_timeout_us <= next_us {
                self.leg.handle_timeout(next_us);
                self.exchange();
            } else {
                self.browser.rtc.handle_input(Input::Timeout(self.now())).unwrap();
                self.exchange();
            }
        }
        self.now_us = self.now_us.max(end_us);
    }

    pub fn run_for(&mut self, us: u64) {
        self.run_until(self.now_us + us);
    }

    pub fn connect(&mut self) -> AgreedAudio {
        self.run_for(10_000_000);
        assert!(
            self.leg.is_connected() && self.browser.is_connected,
            "{:?}",
            self.events
        );
        self.events
            .iter()
            .find_map(|event| match event {
                LegEvent::Connected(audio) => Some(*audio),
                _ => None,
            })
            .unwrap()
    }

    pub fn disconnection(&self) -> Option<&Disconnection> {
        self.events.iter().find_map(|event| match event {
            LegEvent::Disconnected(why) => Some(why),
            _ => None,
        })
    }

    pub fn messages(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                LegEvent::ChannelMessage(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}
