//! One caller: what a browser is on the wire.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, SeqNo};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

use crate::report::Report;

/// Ticks of the RTP clock in 20 ms (RFC 7587 section 4.1).
const FRAME_TICKS: u32 = 960;
/// Rate at which the one who listens by ear does.
const HEARD_HZ: u32 = 16_000;

pub(crate) struct Caller {
    rtc: Rtc,
    mid: Mid,
    pending: Option<SdpPendingOffer>,
    socket: UdpSocket,
    address: SocketAddr,
    connected: bool,
    sequence: u64,
    last_arrival: Option<(u16, Duration)>,
    ear: Option<opus::Decoder>,
}

impl Caller {
    /// A caller with its offer.
    pub(crate) fn new(now: Instant) -> Result<(Self, String), Box<dyn Error>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        let address = socket.local_addr()?;
        let config = RtcConfig::new().set_rtp_mode(true).clear_codecs();
        let mut rtc = config.enable_opus(true, false).build(now);
        rtc.add_local_candidate(Candidate::host(address, Protocol::Udp)?);
        let mut change = rtc.sdp_api();
        let mid = change.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = change.apply().ok_or("nothing to offer")?;
        let caller = Self {
            rtc,
            mid,
            pending: Some(pending),
            socket,
            address,
            connected: false,
            sequence: 0,
            last_arrival: None,
            ear: None,
        };
        Ok((caller, offer.to_sdp_string()))
    }

    /// Decode what comes.
    pub(crate) fn listen_by_ear(&mut self) -> Result<(), opus::OpusError> {
        self.ear = Some(opus::Decoder::new(HEARD_HZ)?);
        Ok(())
    }

    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(crate) fn accept(&mut self, answer: &str) -> Result<(), Box<dyn Error>> {
        let answer = SdpAnswer::from_sdp_string(answer)?;
        let pending = self.pending.take().ok_or("answered twice")?;
        self.rtc.sdp_api().accept_answer(pending, answer)?;
        Ok(())
    }

    /// Take a datagram that came at that time, by the kernel's clock.
    pub(crate) fn receive(
        &mut self,
        arrival: Duration,
        source: SocketAddr,
        datagram: &[u8],
        report: &mut Report,
    ) -> Result<(), Box<dyn Error>> {
        let received = Receive::new(Protocol::Udp, source, self.address, datagram)?;
        self.rtc.handle_input(Input::Receive(Instant::now(), received))?;
        self.drain(arrival, report)
    }

    /// Let time pass, and say this, if anything. `frame` is the number of these 20 ms.
    pub(crate) fn turn(
        &mut self,
        frame: usize,
        spoken: Option<Arc<[u8]>>,
        report: &mut Report,
    ) -> Result<(), Box<dyn Error>> {
        let now = Instant::now();
        if let Some(payload) = spoken {
            let (mid, sequence) = (self.mid, SeqNo::from(self.sequence));
            let payload_type = self.payload_type()?.into();
            let time = (frame as u32).wrapping_mul(FRAME_TICKS);
            let mut direct = self.rtc.direct_api();
            let stream = direct.stream_tx_by_mid(mid, None).ok_or("no stream to send")?;
            stream.write_rtp(RtpWrite::new(payload_type, sequence, time, now, payload));
            self.sequence += 1;
            report.sent += 1;
        }
        self.rtc.handle_input(Input::Timeout(now))?;
        self.drain(Duration::ZERO, report)
    }

    /// Of Opus, as it was agreed on.
    fn payload_type(&self) -> Result<u8, &'static str> {
        let media = self.rtc.media(self.mid).ok_or("no media")?;
        media
            .remote_pts()
            .first()
            .map(|number| **number)
            .ok_or("no codec was agreed on")
    }

    fn drain(&mut self, arrival: Duration, report: &mut Report) -> Result<(), Box<dyn Error>> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(_) => return Ok(()),
                Output::Transmit(datagram) => {
                    // What the system does not take is lost, as on a network.
                    let _ = self.socket.send_to(&datagram.contents, datagram.destination);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => self.hear(arrival, &packet, report),
                Output::Event(_) => {}
            }
        }
    }

    fn hear(&mut self, arrival: Duration, packet: &RtpPacket, report: &mut Report) {
        let number = packet.header.sequence_number;
        let last = self.last_arrival.replace((number, arrival));
        let since = last.filter(|(earlier, _)| earlier.wrapping_add(1) == number);
        report.note_packet(since.map(|(_, earlier)| arrival.saturating_sub(earlier)));
        if let Some(ear) = &mut self.ear {
            // Room for any packet: 120 ms.
            let mut pcm = [0; HEARD_HZ as usize * 120 / 1000];
            let samples = ear.decode(&packet.payload, &mut pcm).unwrap_or(0);
            report.note_sound(&pcm[..samples]);
        }
    }
}
