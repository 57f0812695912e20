//! Streams that hear each other: a bridge of two, a conference, a whisper.
//!
//! A room runs on one media thread, and its members tick together: at each tick all contribute what they have to play out of
//! their bridging buffers, and then each is given the sum of the others.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::leg::Leg;
use super::ports::StreamId;
use super::{Command, Engine, EngineError};
use crate::room::{Member, ROOM_FRAME, Room, Voice};

/// Number of a room; never used twice.
pub type RoomId = u64;

impl Engine {
    /// A room on the thread of `beside`; it is gone with its last member.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn open_room(&self, beside: StreamId) -> Result<RoomId, EngineError> {
        self.budget(beside)?;
        let threads = self.shards.len() as u64;
        let number = self.rooms.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(number * threads + beside % threads)
    }

    /// Let a stream into a room; it leaves the one where it was.
    ///
    /// # Errors
    /// When the stream is unknown or runs on another thread. Beyond the members that a room can have it is refused and counted
    /// (`refused_members`).
    pub fn join_room(&self, room: RoomId, id: StreamId, voice: Voice) -> Result<(), EngineError> {
        let threads = self.shards.len() as u64;
        if room % threads != id % threads {
            return Err(EngineError::OtherThread(id));
        }
        self.tell(id, Command::Join(room, id, voice))
    }

    /// Let a stream out of its room.
    ///
    /// # Errors
    /// When the stream is unknown.
    pub fn leave_room(&self, id: StreamId) -> Result<(), EngineError> {
        self.tell(id, Command::Leave(id))
    }

    /// How loudly a stream hears another of its room: 0 (not at all) to 4.
    ///
    /// # Errors
    /// When the listener is unknown.
    pub fn set_hearing(&self, listener: StreamId, speaker: StreamId, factor: f32) -> Result<(), EngineError> {
        self.tell(
            listener,
            Command::Hear {
                listener,
                speaker,
                factor,
            },
        )
    }
}

#[derive(Debug)]
struct Gathering {
    room: Box<Room>,
    members: Vec<(StreamId, Member)>,
    phase: usize,
}

/// The rooms of one media thread.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: HashMap<RoomId, Gathering>,
}

impl Rooms {
    /// The phase in which a room ticks, which is `phase` where this makes it.
    pub(crate) fn phase(&mut self, id: RoomId, phase: usize) -> usize {
        let gathering = self.rooms.entry(id).or_insert_with(|| Gathering {
            room: Box::new(Room::new()),
            members: Vec::new(),
            phase,
        });
        gathering.phase
    }

    /// Returns whether there was a place.
    pub(crate) fn join(&mut self, id: RoomId, leg: StreamId, voice: Voice) -> bool {
        let Some(gathering) = self.rooms.get_mut(&id) else {
            return false;
        };
        let Ok(member) = gathering.room.join(voice) else {
            return false;
        };
        gathering.members.push((leg, member));
        true
    }

    pub(crate) fn leave(&mut self, id: RoomId, leg: StreamId) {
        let Some(gathering) = self.rooms.get_mut(&id) else {
            return;
        };
        let place = gathering.members.iter().position(|&(member, _)| member == leg);
        if let Some(place) = place {
            let (_, member) = gathering.members.swap_remove(place);
            // It is a member: it has just been found.
            let _ = gathering.room.leave(member);
        }
        if gathering.members.is_empty() {
            self.rooms.remove(&id);
        }
    }

    pub(crate) fn hear(&mut self, id: RoomId, listener: StreamId, speaker: StreamId, factor: f32) {
        let Some(gathering) = self.rooms.get_mut(&id) else {
            return;
        };
        let find = |leg| {
            gathering
                .members
                .iter()
                .find(|(member, _)| *member == leg)
                .map(|&(_, member)| member)
        };
        if let (Some(listener), Some(speaker)) = (find(listener), find(speaker)) {
            let _ = gathering.room.set_gain(listener, speaker, factor);
        }
    }

    /// The tick of the rooms of a phase, before that of their legs.
    pub(crate) fn tick(&mut self, phase: usize, now_us: u64, legs: &mut HashMap<StreamId, Leg>) {
        let mut frame = [0; ROOM_FRAME];
        for gathering in self
            .rooms
            .values_mut()
            .filter(|gathering| gathering.phase == phase)
        {
            let room = &mut gathering.room;
            for &(id, member) in &gathering.members {
                if let Some(leg) = legs.get_mut(&id) {
                    leg.stream.contribute(now_us, &mut frame);
                    // A member of this room, and a frame of its length.
                    let _ = room.contribute(member, &frame);
                }
            }
            for &(id, member) in &gathering.members {
                if let Some(membership) = legs.get_mut(&id).and_then(|leg| leg.membership.as_mut()) {
                    let _ = room.mix_for(member, &mut membership.mix);
                }
            }
            room.end_tick();
        }
    }
}
