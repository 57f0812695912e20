//! The caller's side of a SIP call over UDP: one INVITE, one dialog, one BYE from either side (RFC 3261 12 to 17).
//!
//! INVITE and BYE are repeated until answered (timers A, B, E and F), a 200 that comes again is acknowledged again. What a
//! measurement does not need is not here: forks, authentication, offers of the server in the dialog (488).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::sip::{Message, Start, addresses, uri};

/// RFC 3261 17.1.1.1: the round trip that is assumed.
pub const T1_US: u64 = 500_000;
/// RFC 3261 17.1.2.2: the longest time between two repetitions of a BYE.
pub const T2_US: u64 = 4_000_000;
/// Timers B and F.
pub const GIVE_UP_US: u64 = 64 * T1_US;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// We hung up, and the server said 200.
    Completed,
    /// The server hung up.
    HungUp,
    /// The INVITE's final status.
    Refused(u16),
    /// No final response to the INVITE.
    Unanswered,
    /// No response to the BYE.
    ByeUnanswered,
    /// A BYE that the server does not know the call of.
    ByeRefused(u16),
    /// An answer without PCMU at an IP address.
    BadAnswer,
}

/// What a message meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing new.
    Nothing,
    /// The first 200, whose ACK is in the output; media go to this address.
    Answered(SocketAddr),
    /// The call is over.
    Ended(Outcome),
}

/// Messages to send, each with its destination.
pub type Output = Vec<(SocketAddr, Vec<u8>)>;

/// Who calls whom, in words.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Unique among all calls.
    pub call_id: String,
    /// User part of the number called.
    pub number: String,
    /// Host and port of the number's URI.
    pub domain: String,
    /// Where SIP comes back to.
    pub local: SocketAddr,
    /// Where the INVITE goes.
    pub server: SocketAddr,
    /// Where media are expected.
    pub media: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Inviting,
    Proceeding,
    Established,
    Leaving(Outcome),
    Ended,
}

#[derive(Debug, Clone, Copy)]
// All of them are times.
#[allow(clippy::struct_field_names)]
struct Repeat {
    due_us: u64,
    interval_us: u64,
    give_up_us: u64,
}

/// One call's signalling.
#[derive(Debug)]
pub struct Uac {
    identity: Identity,
    state: State,
    /// The request that waits for its response.
    request: Vec<u8>,
    ack: Vec<u8>,
    repeat: Option<Repeat>,
    remote_to: String,
    target: String,
    routes: Vec<String>,
    next_hop: SocketAddr,
    /// Requests sent again.
    pub repeated: u32,
}

impl Uac {
    /// Place the call.
    pub fn invite(identity: Identity, now_us: u64, out: &mut Output) -> Self {
        let target = format!("sip:{}@{}", identity.number, identity.domain);
        let mut uac = Self {
            remote_to: format!("<{target}>"),
            next_hop: identity.server,
            target,
            identity,
            state: State::Inviting,
            request: Vec::new(),
            ack: Vec::new(),
            repeat: None,
            routes: Vec::new(),
            repeated: 0,
        };
        let offer = uac.offer();
        uac.begin(uac.message("INVITE", 1, "i", Some(&offer)), now_us, out);
        uac
    }

    /// Whether the call is up: answered, and nobody has hung up.
    pub fn established(&self) -> bool {
        self.state == State::Established
    }

    /// When [`Self::expire`] has something to do.
    pub fn due_us(&self) -> Option<u64> {
        self.repeat.map(|repeat| repeat.due_us.min(repeat.give_up_us))
    }

    /// Repeat what was not answered, or give it up.
    pub fn expire(&mut self, now_us: u64, out: &mut Output) -> Told {
        let Some(repeat) = self.repeat.as_mut() else {
            return Told::Nothing;
        };
        if now_us >= repeat.give_up_us {
            return self.end(match self.state {
                State::Leaving(Outcome::Completed) => Outcome::ByeUnanswered,
                State::Leaving(outcome) => outcome,
                _ => Outcome::Unanswered,
            });
        }
        if now_us >= repeat.due_us {
            repeat.interval_us *= 2;
            if matches!(self.state, State::Leaving(_)) {
                repeat.interval_us = repeat.interval_us.min(T2_US);
            }
            repeat.due_us = now_us + repeat.interval_us;
            self.repeated += 1;
            out.push((self.next_hop, self.request.clone()));
        }
        Told::Nothing
    }

    /// End an answered call.
    pub fn hang_up(&mut self, now_us: u64, out: &mut Output) {
        if self.state == State::Established {
            self.leave(Outcome::Completed, now_us, out);
        }
    }

    /// Take a message of this call, which came from `source`.
    pub fn receive(
        &mut self,
        message: &Message<'_>,
        source: SocketAddr,
        now_us: u64,
        out: &mut Output,
    ) -> Told {
        match (message.start, message.cseq()) {
            (Start::Response(status), Some((1, "INVITE"))) => {
                self.invite_response(status, message, now_us, out)
            }
            (Start::Response(status), Some((2, "BYE"))) => self.bye_response(status),
            (Start::Request(method), _) => self.request(method, message, source, out),
            _ => Told::Nothing,
        }
    }

    fn invite_response(&mut self, status: u16, message: &Message<'_>, now_us: u64, out: &mut Output) -> Told {
        match (self.state, status) {
            (State::Inviting, 100..200) => {
                // RFC 3261 17.1.1.2: a provisional response ends the repetitions; the wait for the final one is ours.
                self.state = State::Proceeding;
                self.repeat = self.repeat.map(|repeat| Repeat {
                    due_us: u64::MAX,
                    ..repeat
                });
                Told::Nothing
            }
            (State::Inviting | State::Proceeding, 200..300) => self.answered(message, now_us, out),
            (State::Inviting | State::Proceeding, 300..) => {
                self.acknowledge_failure(message, out);
                self.end(Outcome::Refused(status))
            }
            (State::Established | State::Leaving(_), 200..300) => {
                out.push((self.next_hop, self.ack.clone()));
                Told::Nothing
            }
            (State::Ended, 300..) => {
                self.acknowledge_failure(message, out);
                Told::Nothing
            }
            _ => Told::Nothing,
        }
    }

    fn answered(&mut self, message: &Message<'_>, now_us: u64, out: &mut Output) -> Told {
        self.repeat = None;
        self.state = State::Established;
        if let Some(to) = message.header("To") {
            to.clone_into(&mut self.remote_to);
        }
        // RFC 3261 12.1.2: the routes in reverse, the peer's contact as the target.
        self.routes = message
            .all("Record-Route")
            .flat_map(addresses)
            .map(str::to_owned)
            .collect();
        self.routes.reverse();
        if let Some(contact) = message.header("Contact") {
            uri(contact).clone_into(&mut self.target);
        }
        if let Some(hop) = self
            .routes
            .first()
            .map_or(host_port(&self.target), |route| host_port(uri(route)))
        {
            self.next_hop = hop;
        }
        self.ack = self.message("ACK", 1, "a", None);
        out.push((self.next_hop, self.ack.clone()));
        if let Some(media) = media_address(message.body) {
            return Told::Answered(media);
        }
        self.leave(Outcome::BadAnswer, now_us, out);
        Told::Nothing
    }

    /// The ACK of a refusal belongs to the INVITE's transaction: its branch, its URI, its hop (RFC 3261 17.1.1.3).
    fn acknowledge_failure(&mut self, message: &Message<'_>, out: &mut Output) {
        if let Some(to) = message.header("To") {
            to.clone_into(&mut self.remote_to);
        }
        out.push((self.identity.server, self.message("ACK", 1, "i", None)));
    }

    fn bye_response(&mut self, status: u16) -> Told {
        match (self.state, status) {
            (State::Leaving(outcome), 200..300) => self.end(outcome),
            (State::Leaving(_), 300..) => self.end(Outcome::ByeRefused(status)),
            _ => Told::Nothing,
        }
    }

    fn request(&mut self, method: &str, message: &Message<'_>, source: SocketAddr, out: &mut Output) -> Told {
        let (status, reason) = match method {
            "ACK" => return Told::Nothing,
            "BYE" | "OPTIONS" | "INFO" => (200, "OK"),
            "INVITE" | "UPDATE" => (488, "Not Acceptable Here"),
            _ => (501, "Not Implemented"),
        };
        out.push((source, message.respond(status, reason, "caller").into_bytes()));
        match (method, self.state) {
            ("BYE", State::Established) => self.end(Outcome::HungUp),
            // Both hung up at once: the call was completed.
            ("BYE", State::Leaving(outcome)) => self.end(outcome),
            _ => Told::Nothing,
        }
    }

    fn leave(&mut self, outcome: Outcome, now_us: u64, out: &mut Output) {
        self.state = State::Leaving(outcome);
        self.begin(self.message("BYE", 2, "b", None), now_us, out);
    }

    fn end(&mut self, outcome: Outcome) -> Told {
        self.state = State::Ended;
        self.repeat = None;
        Told::Ended(outcome)
    }

    fn begin(&mut self, request: Vec<u8>, now_us: u64, out: &mut Output) {
        self.repeat = Some(Repeat {
            due_us: now_us + T1_US,
            interval_us: T1_US,
            give_up_us: now_us + GIVE_UP_US,
        });
        out.push((self.next_hop, request.clone()));
        self.request = request;
    }

    fn message(&self, method: &str, cseq: u32, branch: &str, body: Option<&str>) -> Vec<u8> {
        let Identity { call_id, local, .. } = &self.identity;
        let mut text = format!("{method} {} SIP/2.0\r\n", self.target);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "Via: SIP/2.0/UDP {local};rport;branch=z9hG4bK-{call_id}-{branch}\r\nMax-Forwards: 70\r\n\
             From: <sip:load@{local}>;tag=load\r\nTo: {}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n",
            self.remote_to
        );
        for route in &self.routes {
            let _ = write!(text, "Route: {route}\r\n");
        }
        if method != "ACK" {
            let _ = write!(text, "Contact: <sip:load@{local}>\r\nUser-Agent: loadgen\r\n");
        }
        if let Some(body) = body {
            let _ = write!(
                text,
                "Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        } else {
            text += "Content-Length: 0\r\n\r\n";
        }
        text.into_bytes()
    }

    fn offer(&self) -> String {
        let media = self.identity.media;
        let (family, host) = (if media.is_ipv6() { 6 } else { 4 }, media.ip());
        format!(
            "v=0\r\no=load 1 1 IN IP{family} {host}\r\ns=-\r\nc=IN IP{family} {host}\r\nt=0 0\r\n\
             m=audio {} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\na=sendrecv\r\n",
            media.port()
        )
    }
}

/// The address of a SIP URI whose host is an IP address; names are not looked up.
fn host_port(uri: &str) -> Option<SocketAddr> {
    let rest = uri.strip_prefix("sip:")?;
    let rest = rest.split([';', '?']).next()?;
    let host = rest.rsplit('@').next()?;
    host.parse().ok().or_else(|| {
        host.trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .ok()
            .map(|ip| SocketAddr::from((ip, 5060)))
    })
}

/// Where the answer wants PCMU: the first audio section's port at its own or the session's address (RFC 8866 5.7).
fn media_address(sdp: &str) -> Option<SocketAddr> {
    let (mut session, mut section, mut port) = (None, None, None);
    for line in sdp.lines() {
        if let Some(rest) = line.strip_prefix("m=") {
            if port.is_some() {
                break;
            }
            let mut words = rest.split(' ');
            if words.next() == Some("audio") {
                port = words
                    .next()
                    .and_then(|word| word.parse::<u16>().ok())
                    .filter(|&port| port != 0);
                words.skip(1).find(|format| *format == "0")?;
            }
        } else if let Some(address) = line
            .strip_prefix("c=IN IP4 ")
            .or_else(|| line.strip_prefix("c=IN IP6 "))
        {
            let place = if port.is_some() {
                &mut section
            } else {
                &mut session
            };
            *place = address.trim().parse::<IpAddr>().ok();
        }
    }
    Some(SocketAddr::from((section.or(session)?, port?)))
}
