//! telephone-event, heard and sent.

use arbitrary::{Arbitrary, Unstructured};
use rtp::telephone_event::{
    Digit, DtmfReceiver, DtmfSender, EventPacket, MAX_PRESS_MS, MIN_PRESS_MS, QUEUE_LEN,
};

const KEYS: &[u8; 16] = b"0123456789*#ABCD";
const CLOCKS: [u32; 3] = [8000, 16_000, 48_000];
const TICK_US: u64 = 20_000;

#[derive(Debug, Arbitrary)]
enum Heard {
    /// Relative to the last timestamp.
    Packet {
        ahead: i8,
        event: [u8; 4],
    },
    Far {
        timestamp: u32,
        event: [u8; 4],
    },
    /// The same once more.
    Again,
    Octets {
        timestamp: u32,
        payload: Vec<u8>,
    },
    Wait {
        ms: u16,
    },
}

/// No press out of nothing, and a repeated packet is no press.
pub(crate) fn any_packets(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let Ok(clock_hz) = octets.arbitrary() else { return };
    let mut receiver = DtmfReceiver::new(clock_hz);
    let (mut last, mut now_us) = ((0_u32, [0; 4]), 0_u64);
    let (mut presses, mut packets) = (0, 0);
    for step in crate::steps(&mut octets) {
        let mut again = false;
        let digit = match step {
            Heard::Packet { ahead, event } => {
                last = (last.0.wrapping_add_signed(160 * i32::from(ahead)), event);
                receiver.push(last.0, &last.1)
            }
            Heard::Far { timestamp, event } => {
                last = (timestamp, event);
                receiver.push(timestamp, &event)
            }
            Heard::Again => {
                again = true;
                receiver.push(last.0, &last.1)
            }
            Heard::Octets { timestamp, payload } => {
                if let Some(&event) = payload.first_chunk() {
                    last = (timestamp, event);
                }
                receiver.push(timestamp, &payload)
            }
            Heard::Wait { ms } => {
                now_us += u64::from(ms) * 1000;
                receiver.poll(now_us)
            }
        };
        packets += u32::from(!again);
        presses += u32::from(digit.is_some_and(is_a_key));
    }
    let mut left = 0;
    while let Some(digit) = receiver.finish() {
        is_a_key(digit);
        left += 1;
        assert!(left <= 2);
    }
    // Each press needs a packet of its own, but for `Again` as the very first.
    assert!(presses + left <= packets + 1, "{presses} and {left} of {packets}");
}

fn is_a_key(digit: Digit) -> bool {
    assert!(KEYS.contains(&(digit.digit as u8)), "{digit:?}");
    true
}

#[derive(Debug, Arbitrary)]
struct Press {
    key: u8,
    /// Above the shortest.
    ms: u16,
    /// Ticks to wait before it is pressed.
    after: u8,
}

/// A press over the network.
#[derive(Debug)]
struct OnTheWire {
    key: char,
    units: u32,
    /// Of the packets that arrived: first and last timestamp, longest duration under the last.
    arrived: Option<(u32, u32, u32)>,
}

/// A key's press is over, and was heard, as far as its packets say, whichever of them were lost or came twice.
pub(crate) fn any_losses(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let Ok((clock, timestamp, presses)) = octets.arbitrary::<(u8, u32, [Press; 6])>() else {
        return;
    };
    let clock_hz = CLOCKS[usize::from(clock) % CLOCKS.len()];
    let mut line = Line {
        clock_hz,
        sender: DtmfSender::new(clock_hz),
        receiver: DtmfReceiver::new(clock_hz),
        timestamp,
        now_us: 0,
        lost_in_a_row: 0,
        expected: Vec::new(),
        started: None,
        heard: Vec::new(),
    };
    let mut keys = Vec::new();
    for press in presses {
        for _ in 0..press.after {
            line.tick(&mut octets, &mut keys);
        }
        line.press(&press, &mut keys);
    }
    // The longest queue: six presses of at most a minute.
    while !line.sender.is_idle() {
        line.tick(&mut octets, &mut keys);
    }
    line.hang_up();
}

struct Line {
    clock_hz: u32,
    sender: DtmfSender,
    receiver: DtmfReceiver,
    timestamp: u32,
    now_us: u64,
    lost_in_a_row: u32,
    /// Presses that have begun, as the network let them through.
    expected: Vec<OnTheWire>,
    /// Of the press on its way: its first timestamp.
    started: Option<u32>,
    heard: Vec<Digit>,
}

impl Line {
    fn press(&mut self, press: &Press, keys: &mut Vec<(char, u32)>) {
        let mut key = usize::from(press.key) % KEYS.len();
        // The same key, again, at the place where a longer press would be continued, is ambiguous by design.
        if keys.last().is_some_and(|last| last.0 == char::from(KEYS[key])) {
            key = (key + 1) % KEYS.len();
        }
        let key = char::from(KEYS[key]);
        let ms = (MIN_PRESS_MS + u32::from(press.ms)).min(MAX_PRESS_MS);
        let queued = self.sender.waiting();
        assert!(queued < QUEUE_LEN);
        assert_eq!(self.sender.press(key, ms), Ok(()));
        keys.push((key, ms));
    }

    fn tick(&mut self, octets: &mut Unstructured<'_>, keys: &mut [(char, u32)]) {
        if let Some(packet) = self.sender.tick(self.timestamp) {
            if packet.marker {
                assert_eq!(packet.timestamp, self.timestamp);
                self.begin(keys);
            }
            let started = self.started.expect("a marker before anything else");
            let elapsed = packet.timestamp.wrapping_sub(started);
            let press = self.expected.last().expect("just begun");
            assert!(elapsed + duration(&packet) <= press.units);
            let fate = octets.arbitrary::<u8>().unwrap_or(0);
            // 160 ms: after 200 ms without a packet a press is taken to be over.
            if fate & 1 == 0 || self.lost_in_a_row == 8 {
                self.lost_in_a_row = 0;
                self.arrives(&packet);
                if fate & 2 != 0 {
                    self.arrives(&packet);
                }
            } else {
                self.lost_in_a_row += 1;
            }
        }
        self.timestamp = self.timestamp.wrapping_add(self.clock_hz / 50);
        self.now_us += TICK_US;
        self.heard.extend(self.receiver.poll(self.now_us));
    }

    fn begin(&mut self, keys: &[(char, u32)]) {
        let (key, ms) = keys[self.expected.len()];
        let units = u32::try_from(u64::from(self.clock_hz) * u64::from(ms) / 1000).expect("a minute fits");
        self.started = Some(self.timestamp);
        self.expected.push(OnTheWire {
            key,
            units,
            arrived: None,
        });
    }

    fn arrives(&mut self, packet: &EventPacket) {
        let press = self.expected.last_mut().expect("just begun");
        assert_eq!(char::from(KEYS[usize::from(packet.payload[0])]), press.key);
        press.arrived = Some(match press.arrived {
            Some((first, last, longest)) if last == packet.timestamp => {
                (first, last, longest.max(duration(packet)))
            }
            Some((first, ..)) => (first, packet.timestamp, duration(packet)),
            None => (packet.timestamp, packet.timestamp, duration(packet)),
        });
        self.heard
            .extend(self.receiver.push(packet.timestamp, &packet.payload));
    }

    fn hang_up(mut self) {
        self.heard.extend(std::iter::from_fn(|| self.receiver.finish()));
        let clock_hz = u64::from(self.clock_hz);
        let expected = self.expected.iter().filter_map(|press| {
            let (first, last, longest) = press.arrived?;
            let units = u64::from(last.wrapping_sub(first)) + u64::from(longest);
            Some(Digit {
                digit: press.key,
                duration_ms: (units * 1000 / clock_hz) as u32,
            })
        });
        assert_eq!(self.heard, expected.collect::<Vec<_>>());
    }
}

fn duration(packet: &EventPacket) -> u32 {
    u32::from(u16::from_be_bytes([packet.payload[2], packet.payload[3]]))
}
