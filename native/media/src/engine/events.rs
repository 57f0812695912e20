//! Events on their way to the reader: a bounded queue, and a descriptor that is readable while it holds any.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::ports::StreamId;
use crate::speech::SpeechEvent;
use crate::stream::StreamEvent;

/// What is drained.
pub type LegEvent = (StreamId, StreamEvent);

/// Two queues that number their events, so that the oldest audio is found at once when room is needed.
#[derive(Debug, Default)]
struct Queues {
    next: u64,
    audio: VecDeque<(u64, LegEvent)>,
    other: VecDeque<(u64, LegEvent)>,
}

/// What room was made by dropping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Pieces of speech.
    pub audio: u64,
    /// Other events, only when no speech was left.
    pub other: u64,
}

/// The queue of one engine.
#[derive(Debug)]
pub struct EventQueue {
    queues: Mutex<Queues>,
    wake: OwnedFd,
    capacity: usize,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsFd for EventQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl EventQueue {
    /// Room for `capacity` events.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self {
            queues: Mutex::default(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            capacity: capacity.max(1),
        })
    }

    /// The descriptor that is readable while events wait.
    pub fn fd(&self) -> RawFd {
        self.wake.as_fd().as_raw_fd()
    }

    /// Append; past the capacity the oldest piece of speech, key or message goes, or else the oldest event.
    pub fn append(&self, events: &mut Vec<LegEvent>) -> Dropped {
        let mut dropped = Dropped::default();
        if events.is_empty() {
            return dropped;
        }
        let was_empty = {
            let mut queues = lock(&self.queues);
            let was_empty = queues.len() == 0;
            for event in events.drain(..) {
                if queues.len() == self.capacity {
                    queues.make_room(&mut dropped);
                }
                queues.push(event);
            }
            was_empty
        };
        if was_empty {
            // Fails only when the counter is at its limit, and then the reader is awake anyway.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        dropped
    }

    /// All events in their order, and the descriptor quiet again.
    pub fn drain(&self) -> Vec<LegEvent> {
        // Before the events are taken: one that comes in between wakes the reader once too often, not too rarely.
        // Nothing to read when somebody drains without having been woken.
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        let Queues { audio, other, .. } = {
            let mut queues = lock(&self.queues);
            let next = queues.next;
            std::mem::replace(
                &mut *queues,
                Queues {
                    next,
                    ..Queues::default()
                },
            )
        };
        merge(audio, other)
    }
}

impl Queues {
    fn len(&self) -> usize {
        self.audio.len() + self.other.len()
    }

    fn push(&mut self, event: LegEvent) {
        let queue = match event.1 {
            // What a peer can make many of: it gives way before anything that says how a call stands.
            StreamEvent::Speech(SpeechEvent::Audio { .. })
            | StreamEvent::Digit { .. }
            | StreamEvent::ChannelMessage(_) => &mut self.audio,
            _ => &mut self.other,
        };
        queue.push_back((self.next, event));
        self.next += 1;
    }

    fn make_room(&mut self, dropped: &mut Dropped) {
        if self.audio.pop_front().is_some() {
            dropped.audio += 1;
        } else if self.other.pop_front().is_some() {
            dropped.other += 1;
        }
    }
}

fn merge(audio: VecDeque<(u64, LegEvent)>, other: VecDeque<(u64, LegEvent)>) -> Vec<LegEvent> {
    let mut merged = Vec::with_capacity(audio.len() + other.len());
    let (mut audio, mut other) = (audio.into_iter().peekable(), other.into_iter().peekable());
    loop {
        let audio_first = match (audio.peek(), other.peek()) {
            (Some((a, _)), Some((b, _))) => a < b,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let next = if audio_first { audio.next() } else { other.next() };
        match next {
            Some((_, event)) => merged.push(event),
            None => return merged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio(media_ms: u64) -> LegEvent {
        let pcm = Vec::new();
        (1, StreamEvent::Speech(SpeechEvent::Audio { media_ms, pcm }))
    }

    fn timeout(silent_ms: u64) -> LegEvent {
        (1, StreamEvent::MediaTimeout { silent_ms })
    }

    fn is_awake(queue: &EventQueue) -> bool {
        let mut wait = [rustix::event::PollFd::new(
            &queue.wake,
            rustix::event::PollFlags::IN,
        )];
        rustix::event::poll(&mut wait, Some(&rustix::event::Timespec::default())).unwrap() == 1
    }

    #[test]
    fn the_order_is_kept_and_the_descriptor_tells() {
        let queue = EventQueue::new(10).unwrap();
        assert!(!is_awake(&queue));
        let events = vec![timeout(1), audio(2), timeout(3), audio(4)];
        assert_eq!(queue.append(&mut events[..2].to_vec()), Dropped::default());
        queue.append(&mut events[2..].to_vec());
        assert!(is_awake(&queue));
        assert_eq!(queue.drain(), events);
        assert!(!is_awake(&queue));
        assert_eq!(queue.drain(), []);
        queue.append(&mut vec![audio(5)]);
        assert!(is_awake(&queue));
    }

    #[test]
    fn speech_goes_first_when_the_reader_is_slow() {
        let queue = EventQueue::new(3).unwrap();
        queue.append(&mut vec![timeout(1), audio(2), timeout(3)]);
        let dropped = queue.append(&mut vec![audio(4), timeout(5), timeout(6)]);
        assert_eq!(dropped, Dropped { audio: 2, other: 1 });
        assert_eq!(queue.drain(), [timeout(3), timeout(5), timeout(6)]);
    }
}
