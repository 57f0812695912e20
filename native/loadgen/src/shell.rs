//! Sockets and the clock around the calls.
//!
//! Calls have a place each, and places take turns of half a millisecond, so that what leaves is spread evenly over the
//! 20 ms. At its turn a place reads its socket and sends its packet. Nothing waits for a packet: the kernel says when
//! each one came, to the nanosecond, however late it is read.

use std::collections::HashMap;
use std::io::{self, IoSliceMut, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt};
use nix::sys::time::TimeSpec;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use crate::FRAME_US;
use crate::call::{Call, PACKET};
use crate::error::LoadError;
use crate::options::Options;
use crate::report::{Report, Totals};
use crate::sip::Message;
use crate::speech::Speech;
use crate::uac::{Identity, Output};

/// Turns in 20 ms.
const TURNS: usize = 40;
const TURN_US: u64 = FRAME_US / TURNS as u64;
/// Datagrams of one read, and the longest that is read whole.
const BATCH: usize = 16;
const DATAGRAM: usize = 4_096;
/// Calls that still wait for the answer to a BYE when everything else is over are given so long.
const LAST_BYES_US: u64 = 5_000_000;

/// Microseconds of the monotonic clock.
fn now_us() -> u64 {
    micros(clock_gettime(ClockId::Monotonic))
}

fn micros(time: Timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000
}

/// Reads datagrams with the time at which the kernel had them.
struct Inbox {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Vec<[u8; DATAGRAM]>,
}

impl Inbox {
    fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(TimeSpec))),
            buffers: vec![[0; DATAGRAM]; BATCH],
        }
    }

    /// Empty a socket; `offset_us` is the wall clock less the monotonic one.
    fn read(
        &mut self,
        socket: &UdpSocket,
        now_us: u64,
        offset_us: u64,
        mut take: impl FnMut(&[u8], SocketAddr, u64),
    ) {
        loop {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
                .buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let read = recvmmsg(
                socket.as_raw_fd(),
                &mut self.headers,
                &mut slices,
                MsgFlags::MSG_DONTWAIT,
                None,
            );
            let results = match read {
                Ok(results) => results,
                // A closed port of the peer's: the error of an earlier packet.
                Err(Errno::EINTR | Errno::ECONNREFUSED) => continue,
                Err(_) => return,
            };
            let mut count = 0;
            for message in results {
                count += 1;
                let stamped = message.cmsgs().ok().and_then(|mut all| {
                    all.find_map(|one| match one {
                        ControlMessageOwned::ScmTimestampns(time) => {
                            Some(time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1000)
                        }
                        _ => None,
                    })
                });
                let at_us = stamped.map_or(now_us, |at_us| at_us.saturating_sub(offset_us).min(now_us));
                if let (Some(source), Some(data)) =
                    (message.address.as_ref().and_then(address), message.iovs().next())
                {
                    take(data, source, at_us);
                }
            }
            if count < BATCH {
                return;
            }
        }
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let four = storage
        .as_sockaddr_in()
        .map(|address| SocketAddr::from((address.ip(), address.port())));
    four.or_else(|| {
        storage
            .as_sockaddr_in6()
            .map(|address| SocketAddr::from((address.ip(), address.port())))
    })
}

fn bind(local: std::net::IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((local, 0))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    Ok(socket)
}

/// A call and the socket of its media.
struct Place {
    socket: UdpSocket,
    call: Call,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Filling,
    Measuring { until_us: u64 },
    Closing { give_up_us: u64 },
}

struct Run<'a, W: Write> {
    options: &'a Options,
    speech: &'a Speech,
    signalling: UdpSocket,
    local: SocketAddr,
    places: Vec<Option<Place>>,
    by_number: HashMap<u32, usize>,
    free: Vec<usize>,
    phase: Phase,
    next_call_us: u64,
    updated_us: u64,
    totals: Totals,
    report: Report<W>,
    out: Output,
}

/// Make the calls and report on them.
///
/// # Errors
/// Sockets that cannot be had, or a report that nobody reads.
pub fn run<W: Write>(options: &Options, speech: &Speech, out: W) -> Result<(), LoadError> {
    let signalling = bind(options.local)?;
    let began_us = now_us();
    let mut run = Run {
        options,
        speech,
        local: signalling.local_addr()?,
        signalling,
        places: (0..options.calls).map(|_| None).collect(),
        by_number: HashMap::new(),
        free: (0..options.calls).rev().collect(),
        phase: Phase::Filling,
        next_call_us: began_us,
        updated_us: began_us,
        totals: Totals::default(),
        report: Report::new(out, began_us),
        out: Output::new(),
    };
    run.go(began_us)?;
    Ok(())
}

impl<W: Write> Run<'_, W> {
    fn go(&mut self, began_us: u64) -> io::Result<()> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        let realtime = self.options.realtime && ask_for_realtime();
        let mut inbox = Inbox::new();
        if self.options.seconds.is_none() {
            self.report.mark("begin", began_us, 0, &self.totals)?;
        }
        for turn in 0_u64.. {
            let due_us = began_us + turn * TURN_US;
            if now_us() < due_us {
                arm(&timer, due_us)?;
                rustix::io::read(&timer, &mut [0_u8; 8])?;
            }
            self.read_signalling(&mut inbox)?;
            for place in (turn as usize % TURNS..self.places.len()).step_by(TURNS) {
                self.serve(place, due_us, &mut inbox)?;
            }
            let now_us = now_us();
            self.place_calls(now_us)?;
            self.send_signalling();
            if turn.is_multiple_of(TURNS as u64) && self.advance(now_us)? {
                break;
            }
        }
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        self.report
            .summary(now_us(), &self.totals, realtime, micros(spent) as f64 / 1000.0)
    }

    fn read_signalling(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        let (now_us, offset_us) = clocks();
        let Self {
            signalling,
            by_number,
            places,
            totals,
            out,
            ..
        } = self;
        let mut over = Vec::new();
        inbox.read(signalling, now_us, offset_us, |datagram, source, at_us| {
            let Some(message) = Message::parse(datagram) else {
                totals.stray += 1;
                return;
            };
            let number = message
                .header("Call-ID")
                .and_then(|id| id.split('-').nth(1))
                .and_then(|id| id.parse().ok());
            let index = number.and_then(|number: u32| by_number.get(&number)).copied();
            let Some(place) = index.and_then(|index| places[index].as_mut()) else {
                totals.stray += 1;
                if matches!(message.start, crate::sip::Start::Request(method) if method != "ACK") {
                    out.push((
                        source,
                        message.respond(481, "Call Does Not Exist", "caller").into_bytes(),
                    ));
                }
                return;
            };
            place.call.signalled(&message, source, at_us, self::now_us(), out);
            if place.call.over() {
                over.extend(index);
            }
        });
        self.send_signalling();
        over.into_iter().try_for_each(|index| self.free_place(index))
    }

    /// What a place does each 20 ms.
    fn serve(&mut self, index: usize, due_us: u64, inbox: &mut Inbox) -> io::Result<()> {
        let Self {
            places,
            totals,
            speech,
            out,
            phase,
            ..
        } = self;
        let Some(Place { socket, call }) = places[index].as_mut() else {
            return Ok(());
        };
        let (now_us, offset_us) = clocks();
        inbox.read(socket, now_us, offset_us, |datagram, _, at_us| {
            call.heard(datagram, at_us, &mut totals.spacing);
        });
        let mut packet = [0; PACKET];
        let now_us = self::now_us();
        if matches!(phase, Phase::Closing { .. }) {
            call.hang_up(now_us, out);
        }
        let tick = call.tick(speech, now_us, &mut packet, out);
        if let Some(to) = tick.to {
            totals.lateness.note(now_us.saturating_sub(due_us));
            // What the system does not take is lost, as on a network.
            totals.unsent += u64::from(socket.send_to(&packet, to).is_err());
        }
        let number = call.number;
        let over = call.over();
        if let Some(turn) = tick.turn {
            self.report.turn(number, &turn, speech)?;
        }
        if over { self.free_place(index) } else { Ok(()) }
    }

    fn free_place(&mut self, index: usize) -> io::Result<()> {
        let Some(place) = self.places[index].take() else {
            return Ok(());
        };
        self.by_number.remove(&place.call.number);
        self.free.push(index);
        self.report.call(&place.call)
    }

    /// Calls that may be placed by now: a call that fails before the time that counts is not placed again.
    fn limit(&self) -> u32 {
        match self.phase {
            Phase::Filling if self.options.seconds.is_some() => {
                self.options.total.min(self.options.calls as u32)
            }
            Phase::Filling | Phase::Measuring { .. } => self.options.total,
            Phase::Closing { .. } => 0,
        }
    }

    fn place_calls(&mut self, now_us: u64) -> io::Result<()> {
        while now_us >= self.next_call_us && self.totals.placed < self.limit() {
            let Some(index) = self.free.pop() else {
                // Who waits for a place does not make up for it afterwards.
                self.next_call_us = now_us;
                return Ok(());
            };
            self.next_call_us += (1e6 / self.options.rate) as u64;
            let socket = bind(self.options.local)?;
            let number = self.totals.placed;
            let identity = Identity {
                call_id: format!("load{}-{number}", self.options.seed),
                number: self.options.number.clone(),
                domain: self.options.domain.clone(),
                local: self.local,
                server: self.options.server,
                media: socket.local_addr()?,
            };
            let call = Call::place(number, identity, self.options.plan, self::now_us(), &mut self.out);
            // At once: the INVITE's time of departure is the call's begin.
            self.send_signalling();
            self.places[index] = Some(Place { socket, call });
            self.by_number.insert(number, index);
            self.totals.placed += 1;
        }
        Ok(())
    }

    fn send_signalling(&mut self) {
        for (to, datagram) in self.out.drain(..) {
            self.totals.unsent += u64::from(self.signalling.send_to(&datagram, to).is_err());
        }
    }

    /// Follow the run's phases; true: it is over.
    fn advance(&mut self, now_us: u64) -> io::Result<bool> {
        let up = self.calls().filter(|call| call.talking()).count();
        self.totals.call_s += up as f64 * (now_us - self.updated_us) as f64 / 1e6;
        self.updated_us = now_us;
        let exhausted = self.totals.placed >= self.options.total && self.by_number.is_empty();
        match (self.phase, self.options.seconds) {
            (Phase::Filling, Some(seconds))
                if self.totals.placed >= self.limit() && self.calls().all(Call::settled) =>
            {
                self.next_call_us = now_us;
                self.report.mark("begin", now_us, up, &self.totals)?;
                let until_us = now_us + (seconds * 1e6) as u64;
                self.phase = Phase::Measuring { until_us };
            }
            (Phase::Measuring { until_us }, _) if now_us >= until_us => {
                self.report.mark("end", now_us, up, &self.totals)?;
                let give_up_us = now_us + LAST_BYES_US;
                self.phase = Phase::Closing { give_up_us };
            }
            (Phase::Filling, None) if exhausted => {
                self.report.mark("end", now_us, up, &self.totals)?;
                return Ok(true);
            }
            (Phase::Closing { give_up_us }, _) if self.by_number.is_empty() || now_us >= give_up_us => {
                for index in 0..self.places.len() {
                    self.free_place(index)?;
                }
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.places.iter().flatten().map(|place| &place.call)
    }
}

/// The monotonic clock, and how far the wall clock is ahead of it.
fn clocks() -> (u64, u64) {
    let now_us = now_us();
    (now_us, micros(clock_gettime(ClockId::Realtime)) - now_us)
}

/// Real-time scheduling where the system permits it: callers far away are not delayed by what runs here.
fn ask_for_realtime() -> bool {
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, fifo).is_ok()
}

/// Let the timer expire once, then.
fn arm(timer: &OwnedFd, at_us: u64) -> io::Result<()> {
    let once = Itimerspec {
        it_value: Timespec {
            tv_sec: (at_us / 1_000_000) as i64,
            tv_nsec: (at_us % 1_000_000 * 1000) as i64,
        },
        it_interval: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
    };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once)?;
    Ok(())
}
