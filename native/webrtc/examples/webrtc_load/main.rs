//! Many browsers' calls from one process, cheaply enough to load a media thread: what `perf/` measures with.
//!
//! `webrtc_load PCM CALLS SECONDS dtx|noise|speech`, all of it bounded. Each caller is what a browser is on the wire: full
//! ICE in the controlling role, DTLS, SRTP, Opus, RTCP, by a socket and from an address of its own. What they say is
//! encoded once, from PCM (16-bit mono at 24 kHz) or from faint noise, and shared; what they hear is counted, and decoded
//! for one of them.
//!
//! Standard output and input hold one JSON text a line: the offers (a list of SDP) go out, the answers (the same) come
//! in, `"connected"` goes out when all calls are, and after so many seconds of talk what happened.
//!
//! Callers speak one after the other, evenly spread over the 20 ms, as callers do that know nothing of each other.

//!
//! A caller reads its socket when it is its turn to speak, with the times at which the kernel took the datagrams. So nobody
//! here is woken by a datagram, and what the server's thread pays for sending is no more than to a network.

mod caller;
mod inbox;
mod report;
mod voice;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use caller::Caller;
use inbox::Inbox;
use report::Report;
use voice::{Frames, Voice};

const FRAME: Duration = Duration::from_millis(20);
const CALLS_MAX: usize = 200;
const SECONDS_MAX: f64 = 120.0;
const CONNECT: Duration = Duration::from_secs(20);
/// Callers are that many frames apart in what they say.
const STAGGER: usize = 37;

/// The callers, who take turns.
struct Load {
    callers: Vec<Caller>,
    inbox: Inbox,
    report: Report,
}

impl Load {
    /// The callers, and their offers.
    fn new(calls: usize) -> Result<(Self, Vec<String>), Box<dyn Error>> {
        let now = Instant::now();
        let made = (0..calls).map(|_| Caller::new(now));
        let (mut callers, offers): (Vec<_>, Vec<_>) =
            made.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        if let Some(first) = callers.first_mut() {
            first.listen_by_ear()?;
        }
        let load = Self {
            callers,
            inbox: Inbox::new(),
            report: Report::new(ask_for_realtime()),
        };
        Ok((load, offers))
    }

    fn accept(&mut self, answers: &[String]) -> Result<(), Box<dyn Error>> {
        if answers.len() != self.callers.len() {
            return Err(format!("{} answers for {} calls", answers.len(), self.callers.len()).into());
        }
        for (caller, answer) in self.callers.iter_mut().zip(answers) {
            caller.accept(answer)?;
        }
        Ok(())
    }

    /// Carry the calls until `done`; the callers talk, or only keep their connections.
    fn run(
        &mut self,
        talk: Option<&Frames>,
        mut done: impl FnMut(&[Caller]) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let (calls, began) = (self.callers.len(), Instant::now());
        for turn in 0.. {
            let (round, number) = (turn / calls, turn % calls);
            let due = began + FRAME.mul_f64(turn as f64 / calls as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if done(&self.callers) {
                break;
            }
            if talk.is_some() {
                self.report.note_lateness(due.elapsed());
            }
            let spoken = talk.and_then(|frames| frames.at(round + number * STAGGER));
            self.turn(number, round, spoken)?;
        }
        Ok(())
    }

    /// Let a caller read what has come, and speak.
    fn turn(&mut self, number: usize, round: usize, spoken: Option<Arc<[u8]>>) -> Result<(), Box<dyn Error>> {
        let caller = &mut self.callers[number];
        loop {
            let more = self.inbox.read(caller.socket());
            for (arrival, source, datagram) in self.inbox.datagrams() {
                caller.receive(arrival, source, datagram, &mut self.report)?;
            }
            if !more {
                return caller.turn(round, spoken, &mut self.report);
            }
        }
    }
}

/// Real-time scheduling where the system permits it, as the engine has: callers far away are not delayed by what runs here.
fn ask_for_realtime() -> bool {
    let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, fifo).is_ok()
}

fn cpu_ms() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 * 1e3 + spent.tv_nsec as f64 / 1e6
}

fn main() -> Result<(), Box<dyn Error>> {
    const USAGE: &str = "usage: webrtc_load PCM CALLS SECONDS dtx|noise|speech";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pcm, calls, seconds, voice] = &arguments[..] else {
        return Err(USAGE.into());
    };
    let (calls, seconds): (usize, f64) = (calls.parse()?, seconds.parse()?);
    let voice = Voice::of(voice).ok_or(USAGE)?;
    if !(1..=CALLS_MAX).contains(&calls) || !(0.0..=SECONDS_MAX).contains(&seconds) {
        return Err(format!("{USAGE}: 1 to {CALLS_MAX} calls, at most {SECONDS_MAX} s").into());
    }
    let pcm = std::fs::read(pcm)?;
    let (mut load, offers) = Load::new(calls)?;
    println!("{}", json!(offers));

    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let answers: Vec<String> = serde_json::from_str(&line)?;
    load.accept(&answers)?;
    let frames = Frames::encode(voice, &pcm, &answers[0])?;
    let deadline = Instant::now() + CONNECT;
    load.run(None, |callers| {
        callers.iter().all(Caller::is_connected) || Instant::now() > deadline
    })?;
    if !load.callers.iter().all(Caller::is_connected) {
        return Err("not all calls are connected".into());
    }
    println!("{}", json!("connected"));

    let (end, spent_ms) = (Instant::now() + Duration::from_secs_f64(seconds), cpu_ms());
    load.run(Some(&frames), |_| Instant::now() > end)?;
    println!("{}", load.report.json(cpu_ms() - spent_ms));
    Ok(())
}
