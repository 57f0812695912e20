//! The bridging jitter buffer: from one human to another, through us.
//!
//! A human needs a steady stream: every 20 ms of the receiver's clock asks for exactly 20 ms of audio. How long packets wait
//! so that most are there when asked for follows the network ([`delay`]); the way from one delay to another, and the
//! sender's clock that is not ours, are hidden in the waveform ([`time_scale`]):
//!
//! * silence is as long as the delay wants it;
//! * a delay too large leaves out pitch periods, one too small repeats some;
//! * while a packet is overdue, what is left is stretched: it may come before concealment must begin;
//! * what is lost is concealed by the codec, a little less of it while the delay is too large;
//! * what is only late is concealed too, and then played: the words are kept, and the delay has grown as it had to.
//!
//! Sans-IO. Packets come with the time of their arrival; the decoder is called when its audio is needed.

pub mod delay;
mod fill;
mod line;
pub mod time_scale;

use crate::sequence::{Insertion, Kind, PacketSequence, SLOTS};
use delay::{DelayEstimator, DelayParams};
use line::Line;
use rtp::packet::RtpHeader;
use time_scale::Care;

/// More media than this never wait: the oldest are thrown away down to what the network needs.
pub const WAITING_MAX_US: i64 = 500_000;
/// The most that is allowed for above the network's least delay.
const ALLOWED_MAX_US: i64 = 400_000;
/// Timestamps that run away from the clock by more than this begin anew.
const JUMP_US: i64 = 1_000_000;
/// An overtaken packet is at most this far behind on the media timeline.
const OVERTAKEN_US: i64 = 2_000_000;
/// A delay that is larger than wanted by less than this is left alone.
const HYSTERESIS_US: i64 = 4000;
/// A delay that is larger than wanted by more than this is brought down in a hurry.
const FAR_OFF_US: i64 = 40_000;
/// So much time, or twice what packets are allowed beyond the ordinary, is plenty for one that is overdue.
const PLENTY_US: i64 = 40_000;
/// Pulls between two changes of the time scale, ordinarily and in a hurry.
const PACE: u32 = 4;
const PACE_HURRIED: u32 = 1;

/// What turns payloads into samples, and makes up what is missing. All methods append to `pcm`.
pub trait AudioDecoder {
    /// Append the samples of a payload; nothing if it cannot be decoded.
    fn decode(&mut self, payload: &[u8], pcm: &mut Vec<i16>);

    /// Append `samples` samples (always a multiple of 2.5 ms) in place of lost ones.
    fn conceal(&mut self, samples: usize, pcm: &mut Vec<i16>);

    /// As [`AudioDecoder::conceal`], right before `following`, which may carry a copy of what was lost.
    fn recover(&mut self, following: &[u8], samples: usize, pcm: &mut Vec<i16>) {
        let _ = following;
        self.conceal(samples, pcm);
    }

    /// Append `samples` samples of comfort noise: the sender is silent.
    fn comfort(&mut self, samples: usize, pcm: &mut Vec<i16>) {
        pcm.resize(pcm.len() + samples, 0);
    }
}

/// What a leg's audio is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BridgingParams {
    /// Rate of the RTP timestamps.
    pub clock_hz: u32,
    /// Rate of the decoded samples, 8000 to 48000.
    pub decoded_hz: u32,
    /// How the delay follows the network.
    pub delay: DelayParams,
}

/// What was heard, in samples at the decoded rate, and what became of the packets.
///
/// `played + ahead == decoded + concealed + comfort + inserted - removed - overlapping`, where `ahead` is what waits
/// decoded ([`BridgingBuffer::ahead`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BridgingStats {
    /// Packets pushed.
    pub received: u64,
    /// Packets decoded.
    pub released: u64,
    /// Packets without audio whose turn came.
    pub aside: u64,
    /// Packets that the decoder refused.
    pub nonsense: u64,
    /// Packets that were not there when their audio was needed and a later one was.
    pub lost: u64,
    /// Packets dropped because they came after they had been concealed, or belong to an earlier beginning.
    pub late: u64,
    /// Packets dropped because they had already come.
    pub duplicate: u64,
    /// Packets that came after a later one and were put back in order.
    pub reordered: u64,
    /// New beginnings: sequence or timestamp jumps and SSRC changes.
    pub reset: u64,
    /// Packets dropped for want of room or because of their size.
    pub overflow: u64,
    /// Packets thrown away because too much was waiting.
    pub flushed: u64,
    /// Packets whose first sample was played.
    pub begun: u64,
    /// Sum over these of the time between arrival and playout.
    pub waited_us: u64,
    /// Samples handed out.
    pub played: u64,
    /// Samples that the decoder made from payloads.
    pub decoded: u64,
    /// Samples made up, because the audio was lost or late; recovered ones count too.
    pub concealed: u64,
    /// Samples of comfort noise: nothing had begun, the sender was silent, or gone for long.
    pub comfort: u64,
    /// Samples repeated to slow down.
    pub inserted: u64,
    /// Samples left out to catch up.
    pub removed: u64,
    /// Samples left out because their timestamps say that their time had been played.
    pub overlapping: u64,
}

/// What the listener hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Comfort noise until the next packet has waited long enough.
    Quiet,
    /// The sender.
    Speaking,
    /// Something made up since the end of what was decoded: so many samples.
    Concealing(usize),
}

/// The buffer of one leg. Memory is bounded and reused.
#[derive(Debug)]
pub struct BridgingBuffer {
    params: BridgingParams,
    packets: PacketSequence,
    /// Media times of the packets that wait, by their place.
    ticks: Box<[i64]>,
    newest: Option<Newest>,
    delay: DelayEstimator,
    line: Line,
    /// Media time of the end of what was decoded.
    edge: i64,
    /// Ticks that the last packet lasted: the best guess for a lost one.
    step: i64,
    /// Packets given up since the last one decoded.
    missing: i64,
    /// Whether the timestamps of the next audio mean nothing to the earlier ones.
    rebase: bool,
    /// Whether the sender said that it will be silent.
    announced: bool,
    state: State,
    pulls_since_change: u32,
    stats: BridgingStats,
}

/// The packet that is furthest on the media timeline.
#[derive(Debug, Clone, Copy)]
struct Newest {
    place: u64,
    ticks: i64,
    timestamp: u32,
    arrival_us: u64,
}

impl BridgingBuffer {
    /// An empty buffer.
    pub fn new(params: BridgingParams) -> Self {
        let params = BridgingParams {
            clock_hz: params.clock_hz.max(1),
            decoded_hz: params.decoded_hz.clamp(8000, 48_000),
            ..params
        };
        Self {
            params,
            packets: PacketSequence::new(params.clock_hz),
            ticks: vec![0; SLOTS].into_boxed_slice(),
            newest: None,
            delay: DelayEstimator::new(params.delay),
            line: Line::new(params.decoded_hz),
            edge: 0,
            step: i64::from(params.clock_hz) / 50,
            missing: 0,
            rebase: false,
            announced: false,
            state: State::Quiet,
            pulls_since_change: 0,
            stats: BridgingStats::default(),
        }
    }

    /// Take an audio packet.
    pub fn push(&mut self, now_us: u64, header: &RtpHeader, payload: &[u8]) {
        match self.packets.insert(now_us, header, Some(payload)) {
            Insertion::Held(place, kind) => {
                let ticks = self.media_time(now_us, header, place, kind);
                self.ticks[place as usize % SLOTS] = ticks;
                if self.newest.is_none_or(|newest| place > newest.place) {
                    self.newest = Some(Newest {
                        place,
                        ticks,
                        timestamp: header.timestamp,
                        arrival_us: now_us,
                    });
                }
                self.delay.packet(now_us, now_us as i64 - self.us(ticks));
            }
            Insertion::Late => self.learn_from_late(now_us, header),
            Insertion::Dropped => {}
        }
    }

    /// Take a packet of the same source without audio (comfort noise, telephone-event). It announces that what does not
    /// come after it was not sent: comfort noise then, and no concealment.
    pub fn push_aside(&mut self, now_us: u64, header: &RtpHeader) {
        let inserted = self.packets.insert(now_us, header, None);
        // Its timestamp may be that of an event's beginning, and says nothing about the next audio.
        self.rebase |= matches!(inserted, Insertion::Held(_, kind) if kind != Kind::Next);
    }

    /// The next `out.len()` samples, for the 20 ms (or what `out` lasts) that begin at `now_us`. `out` is always
    /// filled.
    pub fn pull(&mut self, now_us: u64, decoder: &mut impl AudioDecoder, out: &mut [i16]) {
        self.flush();
        self.fill(now_us, decoder, out.len());
        self.adapt(now_us, decoder, out.len());
        let begun = self.line.take(now_us, out);
        self.stats.begun += begun.packets;
        self.stats.waited_us += begun.waited_us;
        self.stats.played += out.len() as u64;
    }

    /// Samples that are decoded and not yet played.
    pub fn ahead(&self) -> usize {
        self.line.ahead()
    }

    /// Media that wait, decoded or not, in microseconds.
    pub fn waiting_us(&self) -> i64 {
        self.us_of_samples(self.level())
    }

    /// What is allowed for above the network's least delay.
    pub fn allowed_delay_us(&self) -> i64 {
        self.allowed_us() - self.delay.floor_us()
    }

    /// Counters since the beginning.
    pub fn stats(&self) -> BridgingStats {
        let packets = self.packets.stats();
        BridgingStats {
            received: packets.received,
            lost: packets.lost,
            late: packets.late,
            duplicate: packets.duplicate,
            reordered: packets.reordered,
            reset: packets.reset,
            overflow: packets.overflow,
            ..self.stats
        }
    }

    /// What came too late says how long to wait for the next such packet, if that can be waited for.
    fn learn_from_late(&mut self, now_us: u64, header: &RtpHeader) {
        let Some(newest) = self.newest else { return };
        let back = i64::from(newest.timestamp.wrapping_sub(header.timestamp) as i32);
        let transit_us = now_us as i64 - self.us(newest.ticks - back);
        if (0..ALLOWED_MAX_US).contains(&(transit_us - self.delay.floor_us())) {
            self.delay.packet(now_us, transit_us);
        }
    }

    /// The timestamp on one timeline for all beginnings: a new one is taken to have come in ordinary time.
    fn media_time(&mut self, now_us: u64, header: &RtpHeader, place: u64, kind: Kind) -> i64 {
        let Some(newest) = self.newest else { return 0 };
        let forward = i64::from(header.timestamp.wrapping_sub(newest.timestamp) as i32);
        let ticks = newest.ticks + forward;
        if kind == Kind::Next && place < newest.place {
            // An overtaken one: its timestamp lies behind, whatever it says.
            return ticks.clamp(newest.ticks - self.ticks_of_us(OVERTAKEN_US), newest.ticks);
        }
        let elapsed_us = now_us.saturating_sub(newest.arrival_us) as i64;
        let believable = forward >= 0 && self.us(forward) <= elapsed_us + JUMP_US;
        let rebase = std::mem::take(&mut self.rebase) || kind != Kind::Next;
        if !rebase && believable {
            return ticks;
        }
        if !rebase {
            self.packets.count_reset();
        }
        let ordinary = self.ticks_of_us(now_us as i64 - self.delay.typical_us());
        ordinary.max(newest.ticks + self.step)
    }

    /// Throw away the oldest while too much waits: gaps first, then packets, but never the last.
    fn flush(&mut self) {
        if self.us_of_samples(self.level()) <= WAITING_MAX_US {
            return;
        }
        let enough_us = self.allowed_us() - self.delay.floor_us();
        while self.packets.held() > 0 && self.us_of_samples(self.level()) > enough_us {
            let ticks = self.head_ticks();
            let Some(head) = self.packets.head() else {
                self.packets.give_up_head();
                continue;
            };
            let audio = head.audio;
            if audio && ticks > self.edge {
                self.edge = ticks;
            } else if self.packets.held() == 1 {
                break;
            } else {
                self.packets.take_head();
                self.stats.flushed += u64::from(audio);
                self.stats.aside += u64::from(!audio);
                self.edge = if audio { ticks + self.step } else { self.edge };
            }
            self.missing = 0;
            if self.state != State::Quiet {
                self.state = State::Concealing(0);
            }
        }
    }

    /// Change the time scale where the delay is not as wanted.
    fn adapt(&mut self, now_us: u64, decoder: &mut impl AudioDecoder, frame: usize) {
        self.pulls_since_change = self.pulls_since_change.saturating_add(1);
        if self.state != State::Speaking || frame == 0 {
            return;
        }
        let slack_us = self.slack_us(now_us, frame, self.level());
        let surplus = self.surplus(frame, slack_us);
        if self.overdue(now_us, slack_us) {
            self.expand(Care::Urgent);
        } else if slack_us < self.allowed_us() {
            if self.pulls_since_change > PACE_HURRIED {
                self.expand(Care::Pressed);
            }
        } else if surplus > 0 {
            let far_off = self.us_of_samples(surplus) > FAR_OFF_US;
            let (pace, care) = if far_off {
                (PACE_HURRIED, Care::Pressed)
            } else {
                (PACE, Care::Patient)
            };
            let enough = frame + self.line.longest_change();
            if self.pulls_since_change > pace && self.decode_ahead(decoder, enough) {
                self.accelerate(care, surplus as usize);
            }
        }
    }

    /// How many samples could be left out without the delay becoming too small.
    fn surplus(&self, frame: usize, slack_us: i64) -> i64 {
        let (level, frame) = (self.level(), frame as i64);
        let pull_us = self.us_of_samples(frame).max(1);
        let above_us = slack_us - self.allowed_us();
        let pulls = level.div_euclid(frame) - (above_us - HYSTERESIS_US).max(0) / pull_us;
        level - pulls * frame
    }

    fn expand(&mut self, care: Care) {
        if let Some(inserted) = self.line.expand(care) {
            self.stats.inserted += inserted as u64;
            self.pulls_since_change = 0;
        }
    }

    fn accelerate(&mut self, care: Care, most: usize) {
        if let Some(removed) = self.line.accelerate(care, most) {
            self.stats.removed += removed as u64;
            self.pulls_since_change = 0;
        }
    }

    /// Whether the next packet takes so long that it may come too late: a fifth of what it is allowed beyond the
    /// ordinary is over, and there is not plenty left.
    fn overdue(&self, now_us: u64, slack_us: i64) -> bool {
        let taken_us = now_us as i64 - self.us(self.end_ticks());
        let typical_us = self.delay.typical_us();
        let allowance_us = self.allowed_us() - typical_us;
        let plenty_us = (2 * allowance_us).max(PLENTY_US);
        !self.announced && taken_us > typical_us + allowance_us / 5 && slack_us - taken_us < plenty_us
    }

    fn allowed_us(&self) -> i64 {
        let most_us = self.delay.floor_us() + ALLOWED_MAX_US;
        self.delay.allowed_us().min(most_us)
    }

    /// Transit time at which the next packet to arrive would be just in time, if `level` samples waited:
    /// it is needed at the first pull that what waits cannot serve. Delay within the frame of a pull buys nothing.
    fn slack_us(&self, now_us: u64, frame: usize, level: i64) -> i64 {
        let frame = frame as i64;
        let pulls = level.div_euclid(frame);
        now_us as i64 + self.us_of_samples(pulls * frame) - self.us(self.end_ticks())
    }

    /// Samples that wait, decoded or not, without what has been concealed already.
    fn level(&self) -> i64 {
        let first = self.packets.waiting().find(|(_, held)| held.audio);
        let Some((place, _)) = first else {
            return self.line.ahead() as i64;
        };
        let first = self.ticks[place as usize % SLOTS];
        let gap = match self.state {
            State::Quiet => 0,
            State::Speaking | State::Concealing(_) => self.samples_of((first - self.edge).max(0)),
        };
        let held = self.samples_of((self.end_ticks() - first.max(self.edge)).max(0));
        self.line.ahead() as i64 + held + (gap - self.concealed() as i64).max(0)
    }

    /// Samples made up since the end of what was decoded.
    fn concealed(&self) -> usize {
        match self.state {
            State::Concealing(samples) => samples,
            State::Quiet | State::Speaking => 0,
        }
    }

    /// Media time of the end of what arrived.
    fn end_ticks(&self) -> i64 {
        match self.newest {
            Some(newest) if self.packets.held() > 0 => (newest.ticks + self.step).max(self.edge),
            _ => self.edge,
        }
    }

    fn head_ticks(&self) -> i64 {
        self.ticks[self.packets.next_place() as usize % SLOTS]
    }

    fn us(&self, ticks: i64) -> i64 {
        (i128::from(ticks) * 1_000_000 / i128::from(self.params.clock_hz)) as i64
    }

    fn ticks_of_us(&self, us: i64) -> i64 {
        (i128::from(us) * i128::from(self.params.clock_hz) / 1_000_000) as i64
    }

    fn us_of_samples(&self, samples: i64) -> i64 {
        samples * 1_000_000 / i64::from(self.params.decoded_hz)
    }

    fn samples_of(&self, ticks: i64) -> i64 {
        ticks * i64::from(self.params.decoded_hz) / i64::from(self.params.clock_hz)
    }
}
