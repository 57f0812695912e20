//! The time, and the beat of the sub-ticks.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// Distance of the sub-ticks.
pub(crate) const SUB_TICK_US: u64 = 5_000;
pub(crate) const BEAT: Token = Token(usize::MAX - 1);

/// The clock of all `*_us` values: microseconds of `CLOCK_MONOTONIC`.
pub fn now_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000
}

/// Wakes a poll at every sub-tick. The system keeps the beat on absolute times, more finely than the milliseconds of a
/// poll's timeout.
#[derive(Debug)]
pub(crate) struct Clock {
    timer: OwnedFd,
    pub(crate) first_us: u64,
}

impl Clock {
    /// Beat from `first_us` on.
    pub(crate) fn start(registry: &Registry, first_us: u64) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let beat = Itimerspec {
            it_value: timespec(first_us),
            it_interval: timespec(SUB_TICK_US),
        };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &beat)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), BEAT, Interest::READABLE)?;
        Ok(Self { timer, first_us })
    }

    /// Take note of a beat, so that the next one wakes again.
    pub(crate) fn acknowledge(&self) {
        // How many beats there were follows from the time; none when the wake-up was for something else.
        let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
    }
}

fn timespec(us: u64) -> Timespec {
    Timespec {
        tv_sec: (us / 1_000_000) as i64,
        tv_nsec: (us % 1_000_000 * 1000) as i64,
    }
}
