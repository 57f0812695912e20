//! What the listener hears next: audio, something made up, or comfort noise.

use super::{AudioDecoder, BridgingBuffer, HYSTERESIS_US, State};
use crate::sequence::Kind;

/// Longest concealment; then the sender is taken to be silent.
const CONCEAL_MAX_US: i64 = 500_000;

/// The packet whose turn it is.
enum Upcoming {
    /// None is there.
    Nothing,
    /// One without a connection to what was decoded before.
    Beginning,
    /// Audio so many ticks behind what was decoded (negative: over it).
    Audio { gap: i64 },
}

impl BridgingBuffer {
    /// Bring the line to at least `need` samples.
    pub(super) fn fill(&mut self, now_us: u64, decoder: &mut impl AudioDecoder, need: usize) {
        while self.line.ahead() < need {
            let wanted = need - self.line.ahead();
            match (self.upcoming(), self.state) {
                (Upcoming::Nothing, State::Quiet) => self.comfort(decoder, wanted),
                (Upcoming::Nothing, _) => self.starve(decoder, wanted),
                (Upcoming::Beginning | Upcoming::Audio { .. }, State::Quiet) => {
                    // Silence is as long as the delay wants it. Within a pull it would only grow for nothing.
                    let waited_us = now_us as i64 - self.us(self.head_ticks());
                    if wanted < need || waited_us < self.allowed_us() {
                        self.comfort(decoder, wanted);
                    } else {
                        let over = self.edge - self.head_ticks();
                        self.edge = self.edge.max(self.head_ticks());
                        self.missing = 0;
                        self.decode_head(decoder, over);
                    }
                }
                (Upcoming::Beginning, _) => {
                    self.edge = self.head_ticks();
                    self.decode_head(decoder, 0);
                }
                (Upcoming::Audio { gap }, _) if gap > 0 => {
                    self.bridge_gap(now_us, decoder, gap, need);
                }
                (Upcoming::Audio { gap }, _) => self.decode_head(decoder, -gap),
            }
        }
    }

    /// Decode further packets until `need` samples wait, as long as they follow each other. Returns whether they do.
    pub(super) fn decode_ahead(&mut self, decoder: &mut impl AudioDecoder, need: usize) -> bool {
        while self.line.ahead() < need {
            let follows = self
                .packets
                .head()
                .is_some_and(|head| head.audio && head.kind == Kind::Next)
                && self.head_ticks() == self.edge;
            if !follows || self.state != State::Speaking {
                return false;
            }
            self.decode_head(decoder, 0);
        }
        true
    }

    /// Look at the packet whose turn it is. What is missing before it is given up: its audio is needed now.
    fn upcoming(&mut self) -> Upcoming {
        while self.packets.held() > 0 {
            let Some(head) = self.packets.head() else {
                self.packets.give_up_head();
                self.missing += 1;
                continue;
            };
            if head.audio {
                return if head.kind == Kind::Next {
                    Upcoming::Audio {
                        gap: self.head_ticks() - self.edge,
                    }
                } else {
                    Upcoming::Beginning
                };
            }
            self.packets.take_head();
            self.stats.aside += 1;
            self.announced = true;
        }
        Upcoming::Nothing
    }

    /// Nothing is there: late, lost, or not sent.
    fn starve(&mut self, decoder: &mut impl AudioDecoder, wanted: usize) {
        if self.announced || self.us_of_samples(self.concealed() as i64) >= CONCEAL_MAX_US {
            self.state = State::Quiet;
            return;
        }
        self.conceal(decoder, wanted);
    }

    /// Packets are missing before the one whose turn it is, or the sender was silent before it.
    fn bridge_gap(&mut self, now_us: u64, decoder: &mut impl AudioDecoder, gap: i64, frame: usize) {
        let lost = self.samples_of(gap.min(self.missing * self.step));
        let silence = self.samples_of(gap) - lost;
        let concealed = self.concealed() as i64;
        // The merge adds some, to be in phase.
        let left = lost - concealed - self.line.merge_slack() as i64;
        if left > 0 && !self.may_skip(now_us, frame, left) {
            if self.us_of_samples(concealed) >= CONCEAL_MAX_US {
                self.state = State::Quiet;
                return;
            }
            let step = self.samples_of(self.step);
            let wanted = (frame - self.line.ahead()) as i64;
            if silence == 0 && lost - concealed == step {
                self.recover(decoder, step as usize, left as usize);
            } else {
                let before_last = if lost - concealed > step {
                    lost - concealed - step
                } else {
                    left
                };
                self.conceal(decoder, wanted.min(before_last) as usize);
            }
        } else if silence > 0 {
            self.state = State::Quiet;
        } else {
            self.edge = self.head_ticks();
            self.state = State::Concealing(0);
            self.decode_head(decoder, 0);
        }
    }

    /// Whether the delay is so large that the rest of a gap need not be filled; some of it always is.
    fn may_skip(&self, now_us: u64, frame: usize, left: i64) -> bool {
        self.concealed() > 0
            && self.slack_us(now_us, frame, self.level() - left) > self.allowed_us() + HYSTERESIS_US
    }

    /// Decode the packet whose turn it is, without its first `over` ticks.
    fn decode_head(&mut self, decoder: &mut impl AudioDecoder, over: i64) {
        let ticks = self.head_ticks();
        let Some((_, arrival_us)) = self.packets.take_head() else {
            return;
        };
        let payload = self.packets.lent();
        let (samples, concealed) = match self.state {
            State::Concealing(_) => self.line.merge(decoder, payload, arrival_us),
            State::Quiet | State::Speaking => (self.line.decode(decoder, payload, arrival_us), 0),
        };
        if samples == 0 {
            // As if it had been lost.
            self.stats.nonsense += 1;
            self.missing += 1;
            return;
        }
        let over = (self.samples_of(over.max(0)) as usize).min(samples);
        self.line.cut(samples, over);
        self.step = self.ticks_of(samples);
        self.edge = self.edge.max(ticks + self.step);
        self.missing = 0;
        self.announced = false;
        self.state = State::Speaking;
        self.stats.released += 1;
        self.stats.decoded += samples as u64;
        self.stats.overlapping += over as u64;
        self.stats.concealed += concealed as u64;
    }

    fn conceal(&mut self, decoder: &mut impl AudioDecoder, wanted: usize) {
        let unit = self.params.decoded_hz as usize / 400;
        let samples = wanted.div_ceil(unit) * unit;
        self.line.fill(samples, |pcm| decoder.conceal(samples, pcm));
        self.count_concealed(samples);
    }

    /// Conceal the lost packet right before the one whose turn it is, which may carry a copy of it.
    /// Only the first `keep` samples are kept.
    fn recover(&mut self, decoder: &mut impl AudioDecoder, samples: usize, keep: usize) {
        let following = self.packets.head().map_or(&[][..], |head| head.payload());
        self.line
            .fill(keep, |pcm| decoder.recover(following, samples, pcm));
        self.count_concealed(keep);
    }

    fn count_concealed(&mut self, samples: usize) {
        self.stats.concealed += samples as u64;
        self.state = State::Concealing(self.concealed() + samples);
    }

    fn comfort(&mut self, decoder: &mut impl AudioDecoder, wanted: usize) {
        self.line.fill(wanted, |pcm| decoder.comfort(wanted, pcm));
        self.stats.comfort += wanted as u64;
    }

    fn ticks_of(&self, samples: usize) -> i64 {
        samples as i64 * i64::from(self.params.clock_hz) / i64::from(self.params.decoded_hz)
    }
}
