//! The data channels: which are open, what waits to be sent, and how fast messages may come.

use crate::reason::Reason;
use std::collections::VecDeque;
use str0m::Rtc;
use str0m::channel::{ChannelData, ChannelId};

/// Messages that wait for a channel or for the peer to take earlier ones.
const MAX_WAITING_MESSAGES: usize = 64;

/// Why a message was not taken. Nothing that was taken is dropped while the leg lives: clients count on the
/// order of messages, so a full queue refuses the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Longer than [`crate::Limits::message_octets`].
    #[error("the message is too long")]
    TooLong,
    /// The peer does not take messages as fast as they come.
    #[error("too many messages wait to be sent")]
    Full,
    /// The call is over.
    #[error("the leg is closed")]
    Closed,
}

/// The state of the data channels of a leg.
#[derive(Debug)]
pub(crate) struct Channels {
    /// In the order of opening.
    open: Vec<ChannelId>,
    waiting: VecDeque<String>,
    waiting_octets: usize,
    max_open: usize,
    max_message_octets: usize,
    rate: Rate,
}

impl Channels {
    pub(crate) fn new(max_open: usize, max_message_octets: usize, messages_per_second: u32) -> Self {
        Self {
            open: Vec::new(),
            waiting: VecDeque::new(),
            waiting_octets: 0,
            max_open,
            max_message_octets,
            rate: Rate::new(messages_per_second),
        }
    }

    /// Whether a channel that the peer opened may stay.
    pub(crate) fn opened(&mut self, id: ChannelId) -> Result<(), Reason> {
        if self.open.len() == self.max_open {
            return Err(Reason::TooManyChannels);
        }
        self.open.push(id);
        Ok(())
    }

    /// Whether the last open one is closed now.
    pub(crate) fn closed(&mut self, id: ChannelId) -> bool {
        let before = self.open.len();
        self.open.retain(|open| *open != id);
        before > 0 && self.open.is_empty()
    }

    /// The text of a message of the peer.
    pub(crate) fn received(&mut self, now_us: u64, message: ChannelData) -> Result<String, Reason> {
        if !self.rate.take(now_us) {
            return Err(Reason::TooManyMessages);
        }
        if message.binary || message.data.len() > self.max_message_octets {
            return Err(Reason::Message);
        }
        String::from_utf8(message.data).map_err(|_| Reason::Message)
    }

    /// Take a message to send.
    pub(crate) fn queue(&mut self, message: &str) -> Result<(), SendError> {
        if message.len() > self.max_message_octets {
            return Err(SendError::TooLong);
        }
        let octets = self.waiting_octets + message.len();
        if self.waiting.len() == MAX_WAITING_MESSAGES || octets > 4 * self.max_message_octets {
            return Err(SendError::Full);
        }
        self.waiting_octets = octets;
        self.waiting.push_back(message.to_owned());
        Ok(())
    }

    /// Hand on what waits, as far as SCTP takes it; whether it took anything.
    pub(crate) fn flush(&mut self, rtc: &mut Rtc) -> bool {
        let Some(&id) = self.open.last() else {
            return false;
        };
        let mut any = false;
        while let Some(message) = self.waiting.front()
            && let Some(mut channel) = rtc.channel(id)
            // An error is a channel on its way out: the message waits for the next one.
            && channel.write(false, message.as_bytes()).unwrap_or(false)
        {
            self.waiting_octets -= message.len();
            self.waiting.pop_front();
            any = true;
        }
        any
    }
}

/// A bucket of as many tokens as one second brings.
#[derive(Debug)]
struct Rate {
    per_second: u64,
    /// In millionths.
    tokens: u64,
    last_us: u64,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        let per_second = u64::from(per_second);
        Self {
            per_second,
            tokens: per_second * 1_000_000,
            last_us: 0,
        }
    }

    fn take(&mut self, now_us: u64) -> bool {
        let gained = now_us
            .saturating_sub(self.last_us)
            .saturating_mul(self.per_second);
        self.last_us = self.last_us.max(now_us);
        self.tokens = self
            .tokens
            .saturating_add(gained)
            .min(self.per_second * 1_000_000);
        let granted = self.tokens >= 1_000_000;
        if granted {
            self.tokens -= 1_000_000;
        }
        granted
    }
}
