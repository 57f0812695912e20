//! What a run found, as lines of JSON on standard output: `begin`, `turn`, `call`, `end`, and one `summary` at last.
//! Times are milliseconds; `at_ms` counts from the run's begin.

use std::io::{self, Write};

use crate::call::Call;
use crate::histogram::Histogram;
use crate::speech::Speech;
use crate::talk::Turn;
use crate::uac::Outcome;

/// What all calls have in common.
#[derive(Debug, Default)]
pub struct Totals {
    /// Distance of the server's audible packets from 20 ms.
    pub spacing: Histogram,
    /// How late our own packets left.
    pub lateness: Histogram,
    /// Calls placed.
    pub placed: u32,
    /// Seconds that calls were up, summed.
    pub call_s: f64,
    /// Packets that the system did not take.
    pub unsent: u64,
    /// SIP datagrams that could not be read or belong to no call.
    pub stray: u64,
}

/// Writes lines.
#[derive(Debug)]
pub struct Report<W: Write> {
    out: W,
    began_us: u64,
}

impl<W: Write> Report<W> {
    /// A report of a run that begins now.
    pub fn new(out: W, began_us: u64) -> Self {
        Self { out, began_us }
    }

    fn at_ms(&self, at_us: u64) -> f64 {
        ms(at_us.saturating_sub(self.began_us))
    }

    /// The time that counts begins or ends: `name` is `begin` or `end`; `up` calls are up.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn mark(&mut self, name: &str, now_us: u64, up: usize, totals: &Totals) -> io::Result<()> {
        let (at, call_s, placed) = (self.at_ms(now_us), totals.call_s, totals.placed);
        writeln!(
            self.out,
            r#"{{"event": "{name}", "at_ms": {at:.3}, "up": {up}, "placed": {placed}, "call_s": {call_s:.3}}}"#
        )?;
        self.out.flush()
    }

    /// A turn is over.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn turn(&mut self, call: u32, turn: &Turn, speech: &Speech) -> io::Result<()> {
        let name = &speech.utterances[turn.utterance].name;
        let at = self.at_ms(turn.ended_us);
        let spoken = ms(turn.ended_us.saturating_sub(turn.began_us));
        let (latency, silenced) = (maybe(turn.latency_us), maybe(turn.silenced_us));
        let Turn {
            number,
            false_ends,
            barge_in,
            talked_over,
            ..
        } = turn;
        writeln!(
            self.out,
            r#"{{"event": "turn", "call": {call}, "turn": {number}, "utterance": "{name}", "at_ms": {at:.3}, "spoken_ms": {spoken:.3}, "latency_ms": {latency}, "false_ends": {false_ends}, "barge_in": {barge_in}, "silenced_ms": {silenced}, "talked_over": {talked_over}}}"#
        )
    }

    /// A call is over.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn call(&mut self, call: &Call) -> io::Result<()> {
        let (times, ear) = (&call.times, &call.ear);
        let after = |since: u64, at: u64| {
            if since == 0 || at == 0 {
                None
            } else {
                Some(at.saturating_sub(since))
            }
        };
        let invited = self.at_ms(times.invited_us);
        let setup = maybe(after(times.invited_us, times.answered_us));
        let greeting = maybe(after(times.acked_us, ear.first_audible_us().unwrap_or(0)));
        let lasted = maybe(after(times.acked_us, times.ended_us));
        let (outcome, status) = words(call.outcome);
        writeln!(
            self.out,
            r#"{{"event": "call", "call": {}, "invited_ms": {invited:.3}, "outcome": "{outcome}", "status": {status}, "setup_ms": {setup}, "greeting_ms": {greeting}, "lasted_ms": {lasted}, "answered": {}, "unanswered": {}, "sent": {}, "received": {}, "lost": {}, "late": {}, "strange": {}, "spacing_max_ms": {:.3}, "repeated": {}}}"#,
            call.number,
            call.answered,
            call.unanswered,
            call.sent,
            ear.received,
            ear.lost,
            ear.late,
            ear.strange,
            ms(ear.spacing_max_us),
            call.uac.repeated,
        )
    }

    /// Everything is over.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn summary(&mut self, now_us: u64, totals: &Totals, realtime: bool, cpu_ms: f64) -> io::Result<()> {
        writeln!(
            self.out,
            r#"{{"event": "summary", "at_ms": {:.3}, "placed": {}, "call_s": {:.3}, "spacing": {}, "lateness": {}, "unsent": {}, "stray": {}, "realtime": {realtime}, "cpu_ms": {cpu_ms:.1}}}"#,
            self.at_ms(now_us),
            totals.placed,
            totals.call_s,
            spread(&totals.spacing),
            spread(&totals.lateness),
            totals.unsent,
            totals.stray,
        )?;
        self.out.flush()
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn maybe(us: Option<u64>) -> String {
    us.map_or_else(|| "null".to_owned(), |us| format!("{:.3}", ms(us)))
}

fn spread(histogram: &Histogram) -> String {
    let of = |permille| maybe(histogram.permille(permille));
    format!(
        r#"{{"samples": {}, "p50_ms": {}, "p95_ms": {}, "p99_ms": {}, "p99_9_ms": {}, "max_ms": {:.3}}}"#,
        histogram.total(),
        of(500),
        of(950),
        of(990),
        of(999),
        ms(histogram.max_us),
    )
}

fn words(outcome: Option<Outcome>) -> (&'static str, u16) {
    match outcome {
        None => ("cut off", 0),
        Some(Outcome::Completed) => ("completed", 200),
        Some(Outcome::HungUp) => ("server hung up", 200),
        Some(Outcome::Refused(status)) => ("refused", status),
        Some(Outcome::Unanswered) => ("unanswered", 0),
        Some(Outcome::ByeUnanswered) => ("bye unanswered", 0),
        Some(Outcome::ByeRefused(status)) => ("bye refused", status),
        Some(Outcome::BadAnswer) => ("bad answer", 200),
    }
}
