//! A server that gives a browser its own voice and messages back.
//!
//! `cargo run --release -p webrtc --example echo_server -- 127.0.0.1:8080` serves a page at `/`, takes an offer at
//! `POST /offer` (the body is the SDP, so is the answer) and trickled candidates at `PATCH /offer`. Sound and
//! messages come to one UDP socket on the same address. It prints the offer and every event.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use webrtc::demux::local_ufrag;
use webrtc::{Certificate, IceSeed, LegEvent, LegOutput, LegParams, Limits, WebRtcLeg};

const PAGE: &str = include_str!("echo_client.html");

/// An offer and where its answer goes.
type Call = (String, Sender<String>);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .as_deref()
        .unwrap_or("127.0.0.1:8080")
        .parse()?;
    let listener = TcpListener::bind(address)?;
    let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
    let (calls, new_calls) = channel();
    std::thread::spawn(move || serve(&listener, &calls));
    println!("http://{address}/, media on {}", socket.local_addr()?);
    Server::new(socket, new_calls)?.run()
}

struct Entry {
    leg: WebRtcLeg,
    timeout_us: u64,
    sequence: u16,
    packets: u64,
    busy: Duration,
}

struct Server {
    socket: UdpSocket,
    local: SocketAddr,
    epoch: Instant,
    certificate: Certificate,
    new_calls: Receiver<Call>,
    legs: HashMap<String, Entry>,
    by_source: HashMap<SocketAddr, String>,
}

impl Server {
    fn new(socket: UdpSocket, new_calls: Receiver<Call>) -> Result<Self, Box<dyn std::error::Error>> {
        let local = socket.local_addr()?;
        let certificate = Certificate::generate()?;
        let (legs, by_source) = (HashMap::new(), HashMap::new());
        Ok(Self {
            socket,
            local,
            epoch: Instant::now(),
            certificate,
            new_calls,
            legs,
            by_source,
        })
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn run(mut self) -> Result<(), Box<dyn std::error::Error>> {
        let mut buffer = [0; 2048];
        self.socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        loop {
            while let Ok((offer, reply)) = self.new_calls.try_recv() {
                let _ = reply.send(
                    self.call(&offer)
                        .unwrap_or_else(|error| format!("error: {error}")),
                );
            }
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
                self.datagram(source, &buffer[..length]);
            }
            let now_us = self.now_us();
            let due = self.legs.iter().filter(|(_, leg)| leg.timeout_us <= now_us);
            for ufrag in due.map(|(ufrag, _)| ufrag.clone()).collect::<Vec<_>>() {
                self.with(&ufrag, |leg| leg.handle_timeout(now_us));
            }
        }
    }

    fn call(&mut self, offer: &str) -> Result<String, Box<dyn std::error::Error>> {
        println!("--- offer\n{offer}");
        let mut seed = [0; IceSeed::LEN];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
        let params = LegParams {
            epoch: self.epoch,
            candidates: vec![self.local],
            certificate: self.certificate.clone(),
            ice_seed: IceSeed(seed),
            dtx: false,
            limits: Limits::default(),
        };
        let (leg, answer) = WebRtcLeg::answer(offer, params, self.now_us())?;
        println!("--- answer\n{answer}---");
        let ufrag = leg.local_ufrag().to_owned();
        let leg = Entry {
            leg,
            timeout_us: 0,
            sequence: 0,
            packets: 0,
            busy: Duration::ZERO,
        };
        self.legs.insert(ufrag, leg);
        Ok(answer)
    }

    fn datagram(&mut self, source: SocketAddr, datagram: &[u8]) {
        let claimed = || Some(std::str::from_utf8(local_ufrag(datagram)?).ok()?.to_owned());
        let Some(ufrag) = self.by_source.get(&source).cloned().or_else(claimed) else {
            return;
        };
        let (now_us, local) = (self.now_us(), self.local);
        self.with(&ufrag, |leg| {
            if let Err(reason) = leg.handle_datagram(now_us, source, local, datagram) {
                println!("refused {} octets from {source}: {reason}", datagram.len());
            }
        });
    }

    /// Do something with a leg, then all that comes of it.
    fn with(&mut self, ufrag: &str, action: impl FnOnce(&mut WebRtcLeg)) {
        let (now_us, started) = (self.now_us(), Instant::now());
        let Some(entry) = self.legs.get_mut(ufrag) else {
            return;
        };
        action(&mut entry.leg);
        loop {
            match entry.leg.poll() {
                LegOutput::Timeout(at_us) => {
                    entry.timeout_us = at_us;
                    break;
                }
                LegOutput::Transmit {
                    destination, payload, ..
                } => {
                    let _ = self.socket.send_to(&payload, destination);
                }
                LegOutput::Rtp(packet) => {
                    entry.packets += 1;
                    entry.sequence = entry.sequence.wrapping_add(1);
                    let header = packet.header;
                    let (number, sequence) = (header.payload_type, entry.sequence);
                    let _ = entry.leg.write_rtp(
                        now_us,
                        number,
                        sequence,
                        header.timestamp,
                        header.marker,
                        &packet.payload,
                    );
                }
                LegOutput::Event(event) => {
                    println!("{:.3} s: {event:?}", now_us as f64 / 1e6);
                    match event {
                        LegEvent::Bound(source) => {
                            self.by_source.insert(source, ufrag.to_owned());
                        }
                        LegEvent::ChannelMessage(text) => {
                            let _ = entry.leg.send_message(now_us, &format!("echo {text}"));
                        }
                        _ => {}
                    }
                }
            }
        }
        entry.busy += started.elapsed();
        if entry.leg.is_closed() {
            let counts: Vec<_> = entry
                .leg
                .counts()
                .iter()
                .filter(|(_, count)| *count > 0)
                .collect();
            println!(
                "over: {} packets, {:?} busy, refused {counts:?}",
                entry.packets, entry.busy
            );
            self.by_source.retain(|_, of| of.as_str() != ufrag);
            self.legs.remove(ufrag);
        }
    }
}

fn serve(listener: &TcpListener, calls: &Sender<Call>) {
    for stream in listener.incoming().flatten() {
        let calls = calls.clone();
        std::thread::spawn(move || respond(stream, &calls));
    }
}

fn respond(mut stream: TcpStream, calls: &Sender<Call>) -> Option<()> {
    let (mut head, mut body) = (Vec::new(), Vec::new());
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 {
        stream.read_exact(&mut octet).ok()?;
        head.push(octet[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let length: u64 = length.unwrap_or(0);
    stream
        .try_clone()
        .ok()?
        .take(length.min(100_000))
        .read_to_end(&mut body)
        .ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let reply = match head.split(' ').take(2).collect::<Vec<_>>()[..] {
        ["post", "/offer"] => {
            let (reply, answer) = channel();
            calls.send((body, reply)).ok()?;
            answer.recv().ok()?
        }
        ["post", "/report"] => {
            println!("the page: {body}");
            String::new()
        }
        ["get", "/"] => PAGE.to_owned(),
        _ => String::new(),
    };
    let kind = "text/html; charset=utf-8";
    let length = reply.len();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{reply}").ok()
}
