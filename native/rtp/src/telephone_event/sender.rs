//! The sending side: what goes out in place of audio while keys are pressed.

use std::collections::VecDeque;

use super::{DIGITS, SEGMENT_UNITS};

/// Presses that wait at most.
pub const QUEUE_LEN: usize = 32;
/// Shortest press; what every receiver of the tones must recognise (ITU-T Q.24 table A.1).
pub const MIN_PRESS_MS: u32 = 40;
/// Longest press.
pub const MAX_PRESS_MS: u32 = 60_000;
/// One packet each; the repetition interval of RFC 4733 section 2.5.1.2.
const TICKS_PER_S: u32 = 50;
/// RFC 4733 section 2.5.1.4: the end three times, so twice more.
const REPEATS: u32 = 2;
/// Ticks from the end of one press to the next: 60 ms, and 50 are asked for. The repeats fall into them.
const PAUSE_TICKS: u32 = 3;
/// -10 dBm0 (section 2.3.4).
const VOLUME: u8 = 10;
const END: u8 = 0x80;

/// Why a press was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PressError {
    /// None of `0` to `9`, `*`, `#`, `A` to `D`.
    #[error("not a DTMF digit")]
    Digit,
    /// Not from [`MIN_PRESS_MS`] to [`MAX_PRESS_MS`].
    #[error("a press lasts from 40 ms to 60 s")]
    Duration,
    /// [`QUEUE_LEN`] presses wait already.
    #[error("too many presses wait")]
    QueueFull,
}

/// A telephone-event packet without its sequence number, SSRC and payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPacket {
    /// First packet of a press.
    pub marker: bool,
    /// When the press, or this segment of it, began; the same for all its packets.
    pub timestamp: u32,
    /// Event code, end flag and volume, duration (section 2.3).
    pub payload: [u8; 4],
}

#[derive(Debug, Clone, Copy)]
struct Key {
    code: u8,
    /// In units of the media clock.
    duration: u32,
}

/// A press on its way; durations in units of the media clock.
#[derive(Debug, Clone, Copy)]
struct Press {
    key: Key,
    /// Beginning of the segment.
    timestamp: u32,
    /// Duration of the segments before.
    before: u32,
    /// So far, those segments included.
    elapsed: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    Pressed(Press),
    /// The end was sent, so many ticks ago.
    Released {
        last: EventPacket,
        ticks: u32,
    },
}

/// The sending side of one leg, ticked every 20 ms.
///
/// A press of 100 ms takes seven ticks: 20 (marker), 40, 60, 80 ms, and 100 ms with the end flag three times.
#[derive(Debug, Clone)]
pub struct DtmfSender {
    clock_hz: u32,
    queue: VecDeque<Key>,
    state: State,
}

impl DtmfSender {
    /// Nothing pressed, on a media clock of `clock_hz`: that of the audio replaced (RFC 4733 section 2.1).
    pub fn new(clock_hz: u32) -> Self {
        Self {
            clock_hz,
            queue: VecDeque::with_capacity(QUEUE_LEN),
            state: State::Idle,
        }
    }

    /// Press a key for so long, after those that wait.
    ///
    /// # Errors
    /// When it is no digit, too short or long, or when too many wait.
    pub fn press(&mut self, digit: char, duration_ms: u32) -> Result<(), PressError> {
        let digit = digit.to_ascii_uppercase();
        let code = DIGITS
            .iter()
            .position(|known| char::from(*known) == digit)
            .ok_or(PressError::Digit)?;
        if !(MIN_PRESS_MS..=MAX_PRESS_MS).contains(&duration_ms) {
            return Err(PressError::Duration);
        }
        if self.queue.len() == QUEUE_LEN {
            return Err(PressError::QueueFull);
        }
        let duration = u64::from(self.clock_hz) * u64::from(duration_ms) / 1000;
        self.queue.push_back(Key {
            code: code as u8,
            duration: u32::try_from(duration).unwrap_or(u32::MAX),
        });
        Ok(())
    }

    /// The packet of this tick, whose audio would have this timestamp; it is sent in place of that audio.
    pub fn tick(&mut self, timestamp: u32) -> Option<EventPacket> {
        match self.state {
            State::Idle => self.begin(timestamp),
            State::Pressed(press) => Some(self.advance(press)),
            State::Released { ticks, .. } if ticks == PAUSE_TICKS => self.begin(timestamp),
            State::Released { last, ticks } => {
                self.state = State::Released {
                    last,
                    ticks: ticks + 1,
                };
                (ticks < REPEATS).then_some(last)
            }
        }
    }

    /// Presses that wait, the one on its way not counted.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether every press is over, the pause after it included.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle) && self.queue.is_empty()
    }

    fn begin(&mut self, timestamp: u32) -> Option<EventPacket> {
        self.state = State::Idle;
        let key = self.queue.pop_front()?;
        let packet = self.advance(Press {
            key,
            timestamp,
            before: 0,
            elapsed: 0,
        });
        Some(EventPacket {
            marker: true,
            ..packet
        })
    }

    /// One tick more of a press.
    fn advance(&mut self, mut press: Press) -> EventPacket {
        // A clock slower than the ticks, which no session has, must not hold a key for ever.
        let tick_units = (self.clock_hz / TICKS_PER_S).max(1);
        press.elapsed = press.elapsed.saturating_add(tick_units).min(press.key.duration);
        let duration = press.elapsed - press.before;
        if duration > SEGMENT_UNITS {
            // RFC 4733 section 2.5.1.3: the full length without the end flag; the rest under a new timestamp.
            let packet = press.packet(SEGMENT_UNITS, 0);
            press.before += SEGMENT_UNITS;
            press.timestamp = press.timestamp.wrapping_add(SEGMENT_UNITS);
            self.state = State::Pressed(press);
            return packet;
        }
        if press.elapsed < press.key.duration {
            self.state = State::Pressed(press);
            return press.packet(duration, 0);
        }
        let last = press.packet(duration, END);
        self.state = State::Released { last, ticks: 0 };
        last
    }
}

impl Press {
    fn packet(&self, duration: u32, flags: u8) -> EventPacket {
        let [_, _, high, low] = duration.to_be_bytes();
        EventPacket {
            marker: false,
            timestamp: self.timestamp,
            payload: [self.key.code, flags | VOLUME, high, low],
        }
    }
}
