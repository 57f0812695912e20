//! DTMF digits as telephone-event packets (RFC 4733): heard, each key press exactly once, and sent.
//!
//! A press is identified by its timestamp (section 2.5.1.2): updates and the three end packets repeat it. So a
//! press is over when an end packet arrives, when another press begins, or when nothing came for a while. The
//! marker bit adds nothing to that, so it may be missing.

mod sender;

pub use sender::{DtmfSender, EventPacket, MAX_PRESS_MS, MIN_PRESS_MS, PressError, QUEUE_LEN};

/// Silence after which a press whose end packets were all lost is over: updates come at least every 50 ms.
const IDLE_US: u64 = 200_000;
/// A timestamp up to this far behind is an old packet; further is a restarted clock.
const STALE_S: u32 = 10;
/// Section 2.5.1.3: a press longer than this goes on under a new timestamp.
const SEGMENT_UNITS: u32 = 0xffff;
/// How far from the full length a sender may end a segment.
const SEGMENT_SLACK_UNITS: u32 = 0x1000;
/// How many of a segment's last update packets may be lost and the press still be continued.
const SEGMENT_SLACK_MS: u32 = 500;
/// The events that are digits, at their codes (section 3.2).
const DIGITS: &[u8; 16] = b"0123456789*#ABCD";

/// A completed key press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digit {
    /// `0` to `9`, `*`, `#`, `A` to `D`.
    pub digit: char,
    /// Length as far as it was heard.
    pub duration_ms: u32,
}

#[derive(Debug, Clone, Copy)]
struct Press {
    timestamp: u32,
    /// Duration of earlier segments of the same press.
    before: u32,
    code: u8,
    duration: u32,
}

/// The receiving side of one leg.
#[derive(Debug, Clone)]
pub struct DtmfReceiver {
    clock_hz: u32,
    current: Option<Press>,
    /// Timestamp of the last press that is over: its repeated end packets are not another one.
    done: Option<u32>,
    /// A second digit completed by the same packet; goes out with the next call.
    ready: Option<Digit>,
    heard_us: u64,
    touched: bool,
}

impl DtmfReceiver {
    /// Nothing pressed; timestamps and durations count a clock of `clock_hz`, as the session description has it (0 counts as
    /// 1).
    pub fn new(clock_hz: u32) -> Self {
        Self {
            clock_hz: clock_hz.max(1),
            current: None,
            done: None,
            ready: None,
            heard_us: 0,
            touched: false,
        }
    }

    /// Take the payload of a telephone-event packet; returns a press that is now known to be over.
    ///
    /// Malformed payloads and events that are no digit are ignored; of several events in one packet
    /// (section 2.5.1.5) the first counts.
    pub fn push(&mut self, timestamp: u32, payload: &[u8]) -> Option<Digit> {
        let event = *payload.first_chunk::<4>()?;
        // A digit waits only while nothing is pressed, so this event completes at most one more.
        if let Some(waiting) = self.ready.take() {
            self.ready = self.take(timestamp, event);
            return Some(waiting);
        }
        self.take(timestamp, event)
    }

    /// Call with the time every so often (each tick): a press whose end was lost, 200 ms after its last packet.
    pub fn poll(&mut self, now_us: u64) -> Option<Digit> {
        if std::mem::take(&mut self.touched) {
            self.heard_us = now_us;
        }
        if let Some(digit) = self.ready.take() {
            return Some(digit);
        }
        if now_us.saturating_sub(self.heard_us) < IDLE_US {
            return None;
        }
        self.end()
    }

    /// The stream is over: what is left (call until `None`).
    pub fn finish(&mut self) -> Option<Digit> {
        self.ready.take().or_else(|| self.end())
    }

    fn take(&mut self, timestamp: u32, [code, flags, high, low]: [u8; 4]) -> Option<Digit> {
        if self.is_old(timestamp) {
            return None;
        }
        self.touched = true;
        let duration = u32::from(u16::from_be_bytes([high, low]));
        let slack = (u64::from(self.clock_hz) * u64::from(SEGMENT_SLACK_MS) / 1000) as u32;
        let mut earlier = None;
        match &mut self.current {
            Some(press) if press.timestamp == timestamp => {
                press.duration = press.duration.max(duration);
            }
            Some(press) if press.is_continued_by(timestamp, code, slack) => {
                press.before = press
                    .before
                    .saturating_add(timestamp.wrapping_sub(press.timestamp));
                press.timestamp = timestamp;
                press.duration = duration;
            }
            _ => {
                earlier = self.end();
                self.current = Some(Press {
                    timestamp,
                    before: 0,
                    code,
                    duration,
                });
            }
        }
        if flags & 0x80 == 0 {
            return earlier;
        }
        let ended = self.end();
        if earlier.is_some() {
            self.ready = ended;
            return earlier;
        }
        ended
    }

    /// Of a press that is over, or overtaken by a later one.
    fn is_old(&self, timestamp: u32) -> bool {
        let stale = self.clock_hz.saturating_mul(STALE_S);
        let behind = |reference: u32| reference.wrapping_sub(timestamp);
        let finished = self.done.is_some_and(|done| behind(done) < stale);
        let overtaken = self
            .current
            .is_some_and(|press| (1..stale).contains(&behind(press.timestamp)));
        finished || overtaken
    }

    fn end(&mut self) -> Option<Digit> {
        let press = self.current.take()?;
        self.done = Some(press.timestamp);
        let digit = *DIGITS.get(usize::from(press.code))?;
        let duration = u64::from(press.before) + u64::from(press.duration);
        let duration_ms = duration * 1000 / u64::from(self.clock_hz);
        Some(Digit {
            digit: char::from(digit),
            duration_ms: u32::try_from(duration_ms).unwrap_or(u32::MAX),
        })
    }
}

impl Press {
    /// Whether an event is this press going on under a new timestamp; `slack` in units of the media clock.
    fn is_continued_by(&self, timestamp: u32, code: u8, slack: u32) -> bool {
        let ahead = timestamp.wrapping_sub(self.timestamp);
        code == self.code
            && (SEGMENT_UNITS - SEGMENT_SLACK_UNITS..=SEGMENT_UNITS).contains(&ahead)
            && self.duration >= SEGMENT_UNITS.saturating_sub(slack)
    }
}
