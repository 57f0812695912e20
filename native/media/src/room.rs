//! Legs that hear each other: a bridge of two, a conference, a whisper to one of them.
//!
//! A tick is 20 ms at 16 kHz. Each member contributes a frame, then takes its mix: the sum of the others, each with the
//! gain of that pair. A whisper is a member whose gain is zero towards all but one.
//!
//! Rules:
//!
//! * nobody hears itself, by construction: the mix adds the others up instead of taking one's own away from the sum;
//! * the mix does not depend on the order of contributions; who contributed nothing in a tick is silent in it;
//! * up to half of full scale the sum goes through as it is. Above, each sample is bent towards full scale, which it
//!   never reaches: no wrap, and, as there is no memory, no pumping;
//! * who comes, goes, is muted, or gets another gain does so over 10 ms;
//! * nothing is allocated after [`Room::new`].

use crate::playout::Ramp;

/// The rate of all audio in a room.
pub const ROOM_RATE_HZ: u32 = 16_000;
/// Samples per tick: 20 ms.
pub const ROOM_FRAME: usize = 320;
/// Members at most.
pub const MEMBERS_MAX: usize = 8;
/// 10 ms.
const FADE: usize = ROOM_FRAME / 2;
/// Where the limiter begins, and how much there is above it.
const KNEE: f32 = 16_384.0;
const ABOVE: f32 = 32_767.0 - KNEE;

/// Why a room does not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// There are [`MEMBERS_MAX`].
    #[error("the room has {MEMBERS_MAX} members already")]
    Full,
    /// No such member, or it has left.
    #[error("not a member of the room")]
    Stranger,
    /// A frame is 20 ms.
    #[error("a frame in a room has {ROOM_FRAME} samples, not {0}")]
    Length(usize),
}

/// A member of one room; not given to another while the room lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    seat: usize,
    number: u64,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// It speaks and hears.
    Open,
    /// It only hears: muted, or there to listen alone (a supervisor).
    ListenOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    /// Its last frame fades out; then the seat is free.
    Leaving,
}

#[derive(Debug)]
struct Seat {
    number: u64,
    presence: Presence,
    voice: Voice,
    /// What this member contributed to the tick.
    frame: [i16; ROOM_FRAME],
    has_contributed: bool,
    /// How this member hears each of the others.
    hears: [Path; MEMBERS_MAX],
}

/// From one member to another.
#[derive(Debug, Clone, Copy)]
struct Path {
    /// What was asked for: an amplitude.
    wanted: f32,
    ramp: Ramp,
}

impl Path {
    fn new() -> Self {
        Self {
            wanted: 1.0,
            ramp: Ramp::at(0.0),
        }
    }
}

/// Who is together.
#[derive(Debug)]
pub struct Room {
    seats: [Option<Seat>; MEMBERS_MAX],
    /// Seats that were left, to be taken again.
    spare: Vec<Seat>,
    sum: [f32; ROOM_FRAME],
    joined: u64,
}

impl Room {
    /// Nobody is there.
    pub fn new() -> Self {
        let seat = || Seat {
            number: 0,
            presence: Presence::Here,
            voice: Voice::Open,
            frame: [0; ROOM_FRAME],
            has_contributed: false,
            hears: [Path::new(); MEMBERS_MAX],
        };
        Self {
            seats: [const { None }; MEMBERS_MAX],
            spare: std::iter::repeat_with(seat).take(MEMBERS_MAX).collect(),
            sum: [0.0; ROOM_FRAME],
            joined: 0,
        }
    }

    /// Somebody comes; it is heard by and hears all the others.
    ///
    /// # Errors
    /// [`RoomError::Full`].
    pub fn join(&mut self, voice: Voice) -> Result<Member, RoomError> {
        let place = self
            .seats
            .iter()
            .position(Option::is_none)
            .ok_or(RoomError::Full)?;
        let mut seat = self.spare.pop().ok_or(RoomError::Full)?;
        self.joined += 1;
        seat.number = self.joined;
        seat.presence = Presence::Here;
        seat.voice = voice;
        seat.frame.fill(0);
        seat.has_contributed = false;
        seat.hears = [Path::new(); MEMBERS_MAX];
        self.seats[place] = Some(seat);
        for other in self.seats.iter_mut().flatten() {
            other.hears[place] = Path::new();
        }
        Ok(Member {
            seat: place,
            number: self.joined,
        })
    }

    /// Somebody goes. What it contributes until the end of the tick fades out; it takes no more mixes.
    ///
    /// # Errors
    /// [`RoomError::Stranger`].
    pub fn leave(&mut self, member: Member) -> Result<(), RoomError> {
        self.seat(member)?.presence = Presence::Leaving;
        Ok(())
    }

    /// Mute somebody, or let it speak.
    ///
    /// # Errors
    /// [`RoomError::Stranger`].
    pub fn set_voice(&mut self, member: Member, voice: Voice) -> Result<(), RoomError> {
        self.seat(member)?.voice = voice;
        Ok(())
    }

    /// How loudly `listener` hears `speaker`, as a factor from 0 (not at all) to 4; limited to that; what is not a
    /// number is 0.
    ///
    /// # Errors
    /// [`RoomError::Stranger`] for either.
    pub fn set_gain(&mut self, listener: Member, speaker: Member, factor: f32) -> Result<(), RoomError> {
        self.seat(speaker)?;
        let factor = if factor.is_nan() {
            0.0
        } else {
            factor.clamp(0.0, 4.0)
        };
        self.seat(listener)?.hears[speaker.seat].wanted = factor;
        Ok(())
    }

    /// Members that are there.
    pub fn len(&self) -> usize {
        let seats = self.seats.iter().flatten();
        seats.filter(|seat| seat.presence == Presence::Here).count()
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What somebody says in this tick; a second frame in the same tick takes the place of the first.
    ///
    /// # Errors
    /// [`RoomError::Stranger`], [`RoomError::Length`] unless `frame` has [`ROOM_FRAME`] samples.
    pub fn contribute(&mut self, member: Member, frame: &[i16]) -> Result<(), RoomError> {
        let seat = self.seat(member)?;
        if frame.len() != ROOM_FRAME {
            return Err(RoomError::Length(frame.len()));
        }
        seat.frame.copy_from_slice(frame);
        seat.has_contributed = true;
        Ok(())
    }

    /// What somebody hears in this tick; once per tick and member, after all contributions.
    ///
    /// # Errors
    /// [`RoomError::Stranger`], [`RoomError::Length`] unless `mix` has [`ROOM_FRAME`] samples.
    pub fn mix_for(&mut self, member: Member, mix: &mut [i16]) -> Result<(), RoomError> {
        self.seat(member)?;
        if mix.len() != ROOM_FRAME {
            return Err(RoomError::Length(mix.len()));
        }
        self.sum.fill(0.0);
        for place in (0..MEMBERS_MAX).filter(|&place| place != member.seat) {
            let Some(other) = &self.seats[place] else { continue };
            let is_heard = other.voice == Voice::Open && other.presence == Presence::Here;
            let (frame, has_contributed) = (other.frame, other.has_contributed);
            let Some(seat) = &mut self.seats[member.seat] else {
                continue;
            };
            let path = &mut seat.hears[place];
            path.ramp.go(if is_heard { path.wanted } else { 0.0 }, FADE);
            if has_contributed {
                for (sum, &x) in self.sum.iter_mut().zip(&frame) {
                    *sum += f32::from(x) * path.ramp.step();
                }
            } else {
                for _ in 0..ROOM_FRAME {
                    path.ramp.step();
                }
            }
        }
        for (sample, &sum) in mix.iter_mut().zip(&self.sum) {
            *sample = limit(sum);
        }
        Ok(())
    }

    /// The tick is over: contributions are forgotten, and who left is gone.
    pub fn end_tick(&mut self) {
        for place in &mut self.seats {
            if let Some(seat) = place {
                seat.has_contributed = false;
            }
            if let Some(seat) = place.take_if(|seat| seat.presence == Presence::Leaving) {
                self.spare.push(seat);
            }
        }
    }

    fn seat(&mut self, member: Member) -> Result<&mut Seat, RoomError> {
        self.seats
            .get_mut(member.seat)
            .and_then(Option::as_mut)
            .filter(|seat| seat.number == member.number && seat.presence == Presence::Here)
            .ok_or(RoomError::Stranger)
    }
}

impl Default for Room {
    fn default() -> Self {
        Self::new()
    }
}

/// The identity up to the knee, and then a curve that leaves it without a corner and nears full scale.
fn limit(sum: f32) -> i16 {
    let excess = sum.abs() - KNEE;
    if excess <= 0.0 {
        return sum.round() as i16;
    }
    let bent = KNEE + ABOVE * excess / (excess + ABOVE);
    bent.copysign(sum).round() as i16
}
