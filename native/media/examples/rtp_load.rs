//! Many callers' RTP from one process, cheaply enough to load a media thread beyond its core: what `perf/` measures with.
//!
//! `rtp_load CODES CALLS CALLS_PER_SOCKET SECONDS`, all of it bounded. CODES is a file of 20 ms PCMU payloads that every
//! caller sends around and around, each from another place. The sockets' addresses are printed as one line of JSON, one
//! per call; sending begins when standard input names the engine's port for each call, and ends after SECONDS with a
//! second line: packets sent and received, how late the sender was, and its own CPU time.
//!
//! Callers that share a socket send together and are told apart by the engine's port; the sockets take turns, evenly
//! spread over the 20 ms, so that the engine meets a small burst on all of its ports at a time.

use std::error::Error;
use std::io::{self, BufRead, IoSlice, IoSliceMut, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use media::engine::now_us;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use rtp::packet::{HEADER_LEN, RtpHeader};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

const FRAME: usize = 160;
const FRAME_US: u64 = 20_000;
const PACKET: usize = HEADER_LEN + FRAME;
const CALLS_MAX: usize = 10_000;
/// Most callers on one socket, and datagrams of a system call.
const GROUP_MAX: usize = 32;
const SECONDS_MAX: u64 = 300;
/// Callers are that many packets apart in the conversation.
const STAGGER: usize = 7;
/// Upper bounds of how late a burst left; the last bucket is open.
const LATE_US: [u64; 4] = [250, 1_000, 5_000, 20_000];

/// Callers on one socket.
struct Group {
    socket: UdpSocket,
    first_call: usize,
    targets: Vec<Option<SockaddrStorage>>,
    headers: MultiHeaders<SockaddrStorage>,
    packets: Box<[[u8; PACKET]]>,
}

impl Group {
    fn bind(first_call: usize, calls: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            first_call,
            targets: vec![None; calls],
            headers: MultiHeaders::preallocate(GROUP_MAX, None),
            packets: vec![[0; PACKET]; calls].into_boxed_slice(),
        })
    }

    /// Send the packet of these 20 ms for every caller; returns how many the system took.
    fn send(&mut self, number: usize, codes: &[u8]) -> usize {
        let frames = codes.len() / FRAME;
        for (index, packet) in self.packets.iter_mut().enumerate() {
            let call = self.first_call + index;
            let header = RtpHeader {
                marker: false,
                payload_type: 0,
                sequence: number as u16,
                timestamp: (number * FRAME) as u32,
                ssrc: call as u32 + 1,
            };
            header.write(packet);
            let at = (number + call * STAGGER) % frames * FRAME;
            packet[HEADER_LEN..].copy_from_slice(&codes[at..at + FRAME]);
        }
        let packets = &self.packets;
        let slices: [[IoSlice<'_>; 1]; GROUP_MAX] =
            std::array::from_fn(|index| [IoSlice::new(packets.get(index).map_or(&[][..], |packet| packet))]);
        let nothing: [ControlMessage<'_>; 0] = [];
        // What the system does not take is lost, as on a network.
        sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.headers,
            slices[..self.targets.len()].iter(),
            &self.targets,
            nothing,
            MsgFlags::MSG_DONTWAIT,
        )
        .map_or(0, Iterator::count)
    }
}

/// Takes what came for the callers and counts it.
struct Inbox {
    /// Its own: those of a sender point at the addresses that it sends to.
    headers: MultiHeaders<SockaddrStorage>,
    buffers: [[u8; PACKET]; GROUP_MAX],
}

impl Inbox {
    fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(GROUP_MAX, None),
            buffers: [[0; PACKET]; GROUP_MAX],
        }
    }

    /// Empty a socket.
    fn read(&mut self, socket: &UdpSocket) -> usize {
        let mut received = 0;
        loop {
            let mut buffers = self.buffers.iter_mut();
            let mut slices: [[IoSliceMut<'_>; 1]; GROUP_MAX] = std::array::from_fn(|_| {
                [IoSliceMut::new(
                    buffers.next().map_or(&mut [][..], |buffer| &mut buffer[..]),
                )]
            });
            let flags = MsgFlags::MSG_DONTWAIT;
            let read = recvmmsg(socket.as_raw_fd(), &mut self.headers, &mut slices, flags, None);
            match read.map(Iterator::count) {
                Ok(count) if count == GROUP_MAX => received += count,
                Ok(count) => return received + count,
                // The engine may have closed a port: an error of an earlier packet.
                Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(_) => return received,
            }
        }
    }
}

/// Real-time scheduling where the system permits it, as the engine has: callers far away are not delayed by what runs here.
fn ask_for_realtime() -> bool {
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, fifo).is_ok()
}

/// What happened.
#[derive(Default)]
struct Report {
    realtime: bool,
    sent: usize,
    received: usize,
    late: [u64; LATE_US.len() + 1],
}

impl Report {
    fn note_lateness(&mut self, late_us: u64) {
        let bucket = LATE_US.iter().position(|&bound| late_us <= bound);
        self.late[bucket.unwrap_or(LATE_US.len())] += 1;
    }

    fn print(&self, cpu_ms: f64) {
        println!(
            r#"{{"sent": {}, "received": {}, "late_bounds_us": {LATE_US:?}, "late": {:?}, "realtime": {}, "cpu_ms": {cpu_ms:.1}}}"#,
            self.sent, self.received, self.late, self.realtime
        );
    }
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

fn run(groups: &mut [Group], codes: &[u8], seconds: u64) -> io::Result<Report> {
    let turns = groups.len() as u64;
    let began_us = now_us() + FRAME_US;
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let (mut report, mut inbox) = (Report::default(), Inbox::new());
    report.realtime = ask_for_realtime();
    for turn in 0..seconds * 1_000_000 / FRAME_US * turns {
        let due_us = began_us + turn * FRAME_US / turns;
        if now_us() < due_us {
            arm(&timer, due_us)?;
            rustix::io::read(&timer, &mut [0_u8; 8])?;
        }
        report.note_lateness(now_us().saturating_sub(due_us));
        let group = &mut groups[(turn % turns) as usize];
        report.received += inbox.read(&group.socket);
        report.sent += group.send((turn / turns) as usize, codes);
    }
    Ok(report)
}

fn bind(calls: usize, calls_per_socket: usize) -> io::Result<Vec<Group>> {
    (0..calls)
        .step_by(calls_per_socket)
        .map(|first| Group::bind(first, calls_per_socket.min(calls - first)))
        .collect()
}

/// Tell where each caller sends from, and hear where to.
fn rendezvous(groups: &mut [Group]) -> Result<(), Box<dyn Error>> {
    let mut sources = Vec::new();
    for group in &*groups {
        let port = group.socket.local_addr()?.port();
        sources.resize(sources.len() + group.targets.len(), port);
    }
    println!("{sources:?}");
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let ports = line
        .split_whitespace()
        .map(str::parse::<u16>)
        .collect::<Result<Vec<_>, _>>()?;
    let targets = groups.iter_mut().flat_map(|group| &mut group.targets);
    if ports.len() != sources.len() {
        return Err(format!("{} ports for {} calls", ports.len(), sources.len()).into());
    }
    for (target, port) in targets.zip(ports) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        *target = Some(SockaddrStorage::from(address));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    const USAGE: &str = "usage: rtp_load CODES CALLS CALLS_PER_SOCKET SECONDS";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [codes, calls, calls_per_socket, seconds] = &arguments[..] else {
        return Err(USAGE.into());
    };
    let codes = std::fs::read(codes)?;
    let (calls, calls_per_socket): (usize, usize) = (calls.parse()?, calls_per_socket.parse()?);
    let seconds: u64 = seconds.parse()?;
    let bounded = (1..=CALLS_MAX).contains(&calls)
        && (1..=GROUP_MAX).contains(&calls_per_socket)
        && seconds <= SECONDS_MAX;
    if !bounded || codes.len() < FRAME {
        return Err(format!("{USAGE}: 1 to {CALLS_MAX} calls, 1 to {GROUP_MAX} on a socket, at most {SECONDS_MAX} s, at least 20 ms of codes").into());
    }
    let mut groups = bind(calls, calls_per_socket)?;
    rendezvous(&mut groups)?;
    let report = run(&mut groups, &codes, seconds)?;
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    report.print(spent.tv_sec as f64 * 1e3 + spent.tv_nsec as f64 / 1e6);
    Ok(())
}
