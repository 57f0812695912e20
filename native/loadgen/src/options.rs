//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::LoadError;
use crate::talk::Plan;

/// What is printed where the command line is wrong.
pub const USAGE: &str = "usage: loadgen --server IP:PORT --number USER --speech FOLDER [--calls 10] [--total N] \
[--rate 10] [--seconds S] [--turns K] [--think-ms 500-1500] [--quiet-ms 600] [--patience-ms 10000] \
[--barge-in-every N] [--barge-in-after-ms 600] [--hold-ms 2000] [--local IP] [--domain HOST:PORT] [--seed N] [--no-realtime]";

/// A run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where INVITEs go.
    pub server: SocketAddr,
    /// The user part of the URI that is called.
    pub number: String,
    /// The rest of it.
    pub domain: String,
    /// The folder with what is said.
    pub speech: PathBuf,
    /// Calls at a time.
    pub calls: usize,
    /// Calls in all; `None`: as many as `seconds` allow, or one after the other's place.
    pub total: u32,
    /// New calls a second.
    pub rate: f64,
    /// From when all calls are up until they hang up; `None`: each call has its own end.
    pub seconds: Option<f64>,
    /// Our address.
    pub local: IpAddr,
    /// Where Call-IDs begin, so that two runs do not share any.
    pub seed: u64,
    /// Whether to ask for `SCHED_FIFO`.
    pub realtime: bool,
    /// How callers behave.
    pub plan: Plan,
}

const CALLS_MAX: usize = 20_000;

impl Options {
    /// Read arguments without the program's name.
    ///
    /// # Errors
    /// What is wrong with them, and the usage.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, LoadError> {
        let mut given = Given(Vec::new());
        let mut arguments = arguments.peekable();
        while let Some(name) = arguments.next() {
            let Some(name) = name.strip_prefix("--") else {
                return Err(usage(&format!("{name:?} is no option")));
            };
            let value = arguments
                .next_if(|next| !next.starts_with("--"))
                .unwrap_or_default();
            given.0.push((name.to_owned(), value));
        }
        let server: SocketAddr = given
            .take("server")?
            .ok_or_else(|| usage("--server is missing"))?;
        let millis = |value: Option<u64>, default: u64| value.unwrap_or(default).saturating_mul(1000);
        let calls = given.take("calls")?.unwrap_or(10);
        let seconds: Option<f64> = given.take("seconds")?;
        let turns: Option<u32> = given.take("turns")?;
        let options = Self {
            number: given
                .take("number")?
                .ok_or_else(|| usage("--number is missing"))?,
            domain: given.take("domain")?.unwrap_or_else(|| server.to_string()),
            speech: given
                .take("speech")?
                .ok_or_else(|| usage("--speech is missing"))?,
            total: given
                .take("total")?
                .unwrap_or(if seconds.is_some() { u32::MAX } else { calls as u32 }),
            rate: given.take("rate")?.unwrap_or(10.0),
            local: given.take("local")?.unwrap_or(IpAddr::from([127, 0, 0, 1])),
            seed: given.take("seed")?.unwrap_or(0),
            realtime: given.take::<String>("no-realtime")?.is_none(),
            plan: Plan {
                turns: turns.or(if seconds.is_some() { None } else { Some(3) }),
                think_us: given.range("think-ms")?.unwrap_or((500_000, 1_500_000)),
                quiet_us: millis(given.take("quiet-ms")?, 600),
                patience_us: millis(given.take("patience-ms")?, 10_000),
                barge_in_every: given.take("barge-in-every")?.unwrap_or(0),
                barge_in_after_us: millis(given.take("barge-in-after-ms")?, 600),
                hold_us: millis(given.take("hold-ms")?, 2_000),
            },
            calls,
            seconds,
            server,
        };
        if let Some((name, _)) = given.0.first() {
            return Err(usage(&format!("--{name} is not known")));
        }
        let bounded = (1..=CALLS_MAX).contains(&options.calls)
            && (0.01..=10_000.0).contains(&options.rate)
            && options
                .seconds
                .is_none_or(|seconds| (0.0..=100_000.0).contains(&seconds));
        if bounded {
            Ok(options)
        } else {
            Err(usage("calls, rate or seconds out of range"))
        }
    }
}

fn usage(why: &str) -> LoadError {
    LoadError::Usage(format!("{why}\n{USAGE}"))
}

struct Given(Vec<(String, String)>);

impl Given {
    fn take<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, LoadError> {
        let Some(at) = self.0.iter().position(|(given, _)| given == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        let read = value
            .parse()
            .map_err(|_| usage(&format!("--{name} cannot be {value:?}")))?;
        Ok(Some(read))
    }

    /// `A-B` milliseconds as microseconds.
    fn range(&mut self, name: &str) -> Result<Option<(u64, u64)>, LoadError> {
        let Some(value) = self.take::<String>(name)? else {
            return Ok(None);
        };
        value
            .split_once('-')
            .and_then(|(least, most)| Some((least.parse::<u32>().ok()?, most.parse::<u32>().ok()?)))
            .filter(|(least, most)| least <= most)
            .map(|(least, most)| Some((u64::from(least) * 1000, u64::from(most) * 1000)))
            .ok_or_else(|| usage(&format!("--{name} cannot be {value:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, LoadError> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_run_has_an_end_of_its_own_or_each_call_has() {
        let base = "--server 127.0.0.1:5060 --number +1555 --speech var";
        let windowed = parse(&format!("{base} --calls 100 --seconds 20 --think-ms 0-250")).unwrap();
        assert_eq!((windowed.plan.turns, windowed.total), (None, u32::MAX));
        assert_eq!(windowed.plan.think_us, (0, 250_000));
        let counted = parse(&format!("{base} --calls 7 --no-realtime")).unwrap();
        assert_eq!(
            (counted.plan.turns, counted.total, counted.realtime),
            (Some(3), 7, false)
        );
    }

    #[test]
    fn what_is_not_meant_is_refused() {
        for line in [
            "--number 1 --speech x",
            "--server localhost --number 1 --speech x",
            "--server 127.0.0.1:1 --number 1 --speech x --calls 0",
            "--server 127.0.0.1:1 --number 1 --speech x --think-ms 9-1",
            "--server 127.0.0.1:1 --number 1 --speech x --cals 3",
            "--server 127.0.0.1:1 --number 1 --speech x 7",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
