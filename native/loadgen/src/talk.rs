//! What a caller says and when, and how long the other side took to answer.
//!
//! Greeting → (think → speak → await → answer)* → done. The caller takes the other side to have finished after
//! [`Plan::quiet_us`] of silence. A turn's latency runs from the departure of the last packet with the caller's speech to the
//! arrival of the first packet with the answer's. An answer that begins while the caller still speaks, and that the caller
//! did not talk into, is a false end of turn.

use crate::ear::Ear;
use crate::speech::{Draws, Speech};

/// How a caller behaves.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Questions until the caller hangs up; `None`: as many as there is time for.
    pub turns: Option<u32>,
    /// Least and most time from the end of an answer to the next question.
    pub think_us: (u64, u64),
    /// Silence after which an answer has ended.
    pub quiet_us: u64,
    /// The longest wait for an answer, and for the greeting.
    pub patience_us: u64,
    /// Every so many turns the caller talks into the answer; 0: never.
    pub barge_in_every: u32,
    /// How long the answer has sounded by then.
    pub barge_in_after_us: u64,
    /// How long a caller who asks nothing stays after the greeting.
    pub hold_us: u64,
}

/// One question and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// 1 for the first of the call.
    pub number: u32,
    /// Which utterance.
    pub utterance: usize,
    /// Departure of its first and last packet.
    pub began_us: u64,
    /// Departure of its last packet, the one with its last speech.
    pub ended_us: u64,
    /// From there to the arrival of the answer; `None`: no answer in time.
    pub latency_us: Option<u64>,
    /// Answers that began while the caller spoke.
    pub false_ends: u32,
    /// Whether the caller talked into an answer.
    pub barge_in: bool,
    /// Then: from the first packet of speech to the last that was heard of that answer.
    pub silenced_us: Option<u64>,
    /// Whether an answer that began too early went on as if it were the answer to all of it: there is no latency then.
    pub talked_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting { since_us: u64 },
    Thinking { until_us: u64 },
    Speaking { frame: usize },
    Awaiting,
    Answering { since_us: u64 },
    Holding { until_us: u64 },
    Done,
}

/// One caller's side of the conversation.
#[derive(Debug)]
pub struct Talk {
    plan: Plan,
    draws: Draws,
    state: State,
    turn: Turn,
    packets: usize,
}

/// What a tick gives.
#[derive(Debug)]
pub struct Said<'a> {
    /// The payload to send now.
    pub payload: &'a [u8],
    /// A turn that is over.
    pub turn: Option<Turn>,
}

impl Talk {
    /// A caller who was connected just now.
    pub fn new(plan: Plan, mut draws: Draws, now_us: u64) -> Self {
        let packets = draws.below(1_000) as usize;
        let turn = Turn {
            number: 0,
            utterance: 0,
            began_us: 0,
            ended_us: 0,
            latency_us: None,
            false_ends: 0,
            barge_in: false,
            silenced_us: None,
            talked_over: false,
        };
        Self {
            plan,
            draws,
            state: State::Greeting { since_us: now_us },
            turn,
            packets,
        }
    }

    /// Whether the caller has nothing left to say or wait for.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the greeting is over, or was waited for long enough.
    pub fn greeted(&self) -> bool {
        !matches!(self.state, State::Greeting { .. })
    }

    /// Speech of the other side begins.
    pub fn onset(&mut self, at_us: u64) {
        match self.state {
            // The part of a barge-in before the other side has fallen silent is not an answer.
            State::Speaking { .. } if !self.turn.barge_in || self.turn.silenced_us.is_some() => {
                self.turn.false_ends += 1;
            }
            State::Awaiting => {
                self.turn.latency_us = Some(at_us.saturating_sub(self.turn.ended_us));
                self.state = State::Answering { since_us: at_us };
            }
            _ => {}
        }
    }

    /// The packet of these 20 ms, which leaves at `now_us`.
    pub fn tick<'a>(&mut self, ear: &Ear, speech: &'a Speech, now_us: u64) -> Said<'a> {
        self.packets += 1;
        let over = self.advance(ear, speech, now_us);
        let payload = if let State::Speaking { frame } = self.state {
            self.speak(frame, ear, speech, now_us)
        } else {
            speech.noise(self.packets)
        };
        Said { payload, turn: over }
    }

    fn advance(&mut self, ear: &Ear, speech: &Speech, now_us: u64) -> Option<Turn> {
        let Plan {
            quiet_us,
            patience_us,
            ..
        } = self.plan;
        match self.state {
            State::Greeting { since_us } => {
                let ended = ear.first_audible_us().is_some() && ear.quiet_for(quiet_us, now_us);
                if ended || now_us >= since_us + patience_us && ear.quiet_for(quiet_us, now_us) {
                    self.after_answer(now_us);
                }
                None
            }
            State::Thinking { until_us } if now_us >= until_us => {
                self.ask(speech, false, now_us);
                None
            }
            State::Awaiting if self.turn.false_ends > 0 && goes_on(ear, self.turn.ended_us) => {
                self.turn.talked_over = true;
                self.state = State::Answering {
                    since_us: self.turn.ended_us,
                };
                None
            }
            State::Awaiting if now_us >= self.turn.ended_us + patience_us => {
                let turn = self.turn;
                self.after_answer(now_us);
                Some(turn)
            }
            State::Answering { since_us } => {
                let turn = self.turn;
                if ear.quiet_for(quiet_us, now_us) {
                    self.after_answer(now_us);
                    return Some(turn);
                }
                let due = now_us >= since_us + self.plan.barge_in_after_us;
                let next = turn.number + 1;
                if due
                    && self.more()
                    && self.plan.barge_in_every != 0
                    && next.is_multiple_of(self.plan.barge_in_every)
                {
                    self.ask(speech, true, now_us);
                    return Some(turn);
                }
                None
            }
            State::Holding { until_us } if now_us >= until_us => {
                self.state = State::Done;
                None
            }
            _ => None,
        }
    }

    fn speak<'a>(&mut self, frame: usize, ear: &Ear, speech: &'a Speech, now_us: u64) -> &'a [u8] {
        let utterance = &speech.utterances[self.turn.utterance];
        if self.turn.barge_in
            && self.turn.silenced_us.is_none()
            && ear.quiet_for(QUIET_IN_BARGE_IN_US, now_us)
        {
            let last_us = ear.last_audible_us().unwrap_or(self.turn.began_us);
            self.turn.silenced_us = Some(last_us.saturating_sub(self.turn.began_us));
        }
        self.state = if frame + 1 == utterance.frames() {
            self.turn.ended_us = now_us;
            State::Awaiting
        } else {
            State::Speaking { frame: frame + 1 }
        };
        utterance.frame(frame)
    }

    fn more(&self) -> bool {
        self.plan.turns.is_none_or(|turns| self.turn.number < turns)
    }

    fn after_answer(&mut self, now_us: u64) {
        self.state = match self.plan.turns {
            Some(0) => State::Holding {
                until_us: now_us + self.plan.hold_us,
            },
            _ if self.more() => State::Thinking {
                until_us: now_us + self.draws.between(self.plan.think_us.0, self.plan.think_us.1),
            },
            _ => State::Done,
        };
    }

    fn ask(&mut self, speech: &Speech, barge_in: bool, now_us: u64) {
        self.turn = Turn {
            number: self.turn.number + 1,
            utterance: self.draws.below(speech.utterances.len() as u64) as usize,
            began_us: now_us,
            ended_us: now_us,
            latency_us: None,
            false_ends: 0,
            barge_in,
            silenced_us: None,
            talked_over: false,
        };
        self.state = State::Speaking { frame: 0 };
    }
}

/// Whether the other side still speaks so long after the caller's end that nothing has interrupted it.
fn goes_on(ear: &Ear, ended_us: u64) -> bool {
    ear.last_audible_us()
        .is_some_and(|last_us| last_us >= ended_us + NOT_INTERRUPTED_US)
}

/// An answer that is going to be interrupted has stopped by then.
const NOT_INTERRUPTED_US: u64 = 1_000_000;
/// Silence by which an answer that was talked into has stopped.
const QUIET_IN_BARGE_IN_US: u64 = 100_000;
