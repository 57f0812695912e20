//! The room against its rules.

use media::room::{MEMBERS_MAX, Member, ROOM_FRAME, Room, RoomError, Voice};
use proptest::prelude::*;

fn tick(room: &mut Room, frames: &[(Member, Vec<i16>)], listeners: &[Member]) -> Vec<Vec<i16>> {
    for (member, frame) in frames {
        room.contribute(*member, frame).unwrap();
    }
    let mixes = listeners.iter().map(|&listener| {
        let mut mix = vec![1; ROOM_FRAME];
        room.mix_for(listener, &mut mix).unwrap();
        mix
    });
    let mixes = mixes.collect();
    room.end_tick();
    mixes
}

/// So many members whose fades are over.
fn settled(count: usize) -> (Room, Vec<Member>) {
    let mut room = Room::new();
    let members: Vec<Member> = (0..count).map(|_| room.join(Voice::Open).unwrap()).collect();
    tick(&mut room, &[], &members);
    (room, members)
}

fn frame(value: i16) -> Vec<i16> {
    vec![value; ROOM_FRAME]
}

#[test]
fn a_bridge_of_two_is_transparent_below_the_knee() {
    let (mut room, members) = settled(2);
    let voice: Vec<i16> = (0..ROOM_FRAME as i16).map(|n| n * 97 % 16_384).collect();
    let mixes = tick(&mut room, &[(members[0], voice.clone())], &members);
    assert_eq!(mixes, [frame(0), voice]);
}

#[test]
fn a_whisper_is_heard_by_one_alone() {
    let (mut room, members) = settled(3);
    let [caller, agent, coach] = members[..] else {
        unreachable!()
    };
    room.set_gain(caller, coach, 0.0).unwrap();
    tick(&mut room, &[], &members);
    let said = [(caller, frame(100)), (agent, frame(20)), (coach, frame(3))];
    assert_eq!(
        tick(&mut room, &said, &members),
        [frame(20), frame(103), frame(120)]
    );
}

#[test]
fn who_only_listens_is_not_heard_and_fades_when_muted() {
    let (mut room, members) = settled(2);
    let said = [(members[0], frame(1600))];
    assert_eq!(tick(&mut room, &said, &members[1..]), [frame(1600)]);
    room.set_voice(members[0], Voice::ListenOnly).unwrap();
    let fading = &tick(&mut room, &said, &members[1..])[0];
    assert!(
        fading
            .windows(2)
            .all(|pair| (0..=11).contains(&(pair[0] - pair[1])))
    );
    assert_eq!(fading[ROOM_FRAME / 2 + 2..], frame(0)[ROOM_FRAME / 2 + 2..]);
    assert_eq!(tick(&mut room, &said, &members[1..]), [frame(0)]);
}

#[test]
fn who_comes_fades_in_and_who_goes_fades_out() {
    let (mut room, members) = settled(1);
    let guest = room.join(Voice::Open).unwrap();
    let said = [(guest, frame(1600))];
    let coming = &tick(&mut room, &said, &members)[0];
    assert!(
        coming[0] == 0
            && coming
                .windows(2)
                .all(|pair| (0..=11).contains(&(pair[1] - pair[0])))
    );
    assert_eq!(tick(&mut room, &said, &members), [frame(1600)]);
    room.contribute(guest, &frame(1600)).unwrap();
    room.leave(guest).unwrap();
    assert_eq!(room.contribute(guest, &frame(9)), Err(RoomError::Stranger));
    let mut going = frame(0);
    room.mix_for(members[0], &mut going).unwrap();
    room.end_tick();
    assert!(going[0] == 1600 && going[ROOM_FRAME - 1] == 0);
    assert_eq!((room.len(), tick(&mut room, &[], &members)), (1, vec![frame(0)]));
}

#[test]
fn a_room_is_bounded_and_a_seat_that_is_taken_again_has_another_member() {
    let (mut room, members) = settled(MEMBERS_MAX);
    assert_eq!(room.join(Voice::Open), Err(RoomError::Full));
    room.leave(members[3]).unwrap();
    room.end_tick();
    let new = room.join(Voice::Open).unwrap();
    assert_ne!(new, members[3]);
    assert_eq!(room.leave(members[3]), Err(RoomError::Stranger));
    assert_eq!(room.contribute(new, &[0; 160]), Err(RoomError::Length(160)));
    assert_eq!(room.mix_for(new, &mut [0; 160]), Err(RoomError::Length(160)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Up to the knee the mix is the exact sum of the others, in whatever order they contribute.
    #[test]
    fn each_hears_the_others_and_never_itself(
        frames in prop::collection::vec(prop::collection::vec(-2000_i16..2000, ROOM_FRAME), 2..=MEMBERS_MAX),
        rotation in 0_usize..8,
    ) {
        let (mut room, members) = settled(frames.len());
        let mut said: Vec<_> = members.iter().copied().zip(frames.iter().cloned()).collect();
        let mixes = tick(&mut room, &said, &members);
        said.rotate_left(rotation % frames.len());
        prop_assert_eq!(&mixes, &tick(&mut room, &said, &members));
        for (own, mix) in mixes.iter().enumerate() {
            for (n, &sample) in mix.iter().enumerate() {
                let others = (0..frames.len()).filter(|&other| other != own);
                prop_assert_eq!(sample, others.map(|other| frames[other][n]).sum::<i16>());
            }
        }
    }

    /// Louder in, louder out; never beyond full scale, never the other sign; the same samples whatever came before.
    #[test]
    fn the_limiter_neither_wraps_nor_pumps(loud in prop::collection::vec(any::<i16>(), ROOM_FRAME), count in 2_usize..8) {
        let (mut room, members) = settled(count);
        let quiet: Vec<i16> = loud.iter().map(|x| x / 64).collect();
        let say = |frame: &[i16]| members[1..].iter().map(|&member| (member, frame.to_vec())).collect::<Vec<_>>();
        let before = tick(&mut room, &say(&quiet), &members[..1]);
        let mix = tick(&mut room, &say(&loud), &members[..1]);
        prop_assert_eq!(before, tick(&mut room, &say(&quiet), &members[..1]));
        let mut pairs: Vec<(i16, i16)> = loud.iter().copied().zip(mix[0].iter().copied()).collect();
        pairs.sort_unstable();
        for pair in pairs.windows(2) {
            prop_assert!(pair[0].1 <= pair[1].1);
        }
        for (x, y) in pairs {
            prop_assert!(y != i16::MIN && i32::from(x.signum()) * i32::from(y.signum()) >= 0);
        }
    }

    #[test]
    fn any_calls_in_any_order(calls in prop::collection::vec((0_u8..7, 0_usize..10, any::<f32>()), 0..120)) {
        let mut room = Room::new();
        let mut members = Vec::new();
        let mut mix = [0; ROOM_FRAME];
        for (call, index, factor) in calls {
            let member: Option<Member> = members.get(index).copied();
            match (call, member) {
                (0, _) => members.extend(room.join(Voice::Open)),
                (1, Some(member)) => drop(room.leave(member)),
                (2, Some(member)) => drop(room.contribute(member, &[i16::MIN; ROOM_FRAME])),
                (3, Some(member)) => drop(room.set_gain(member, members[0], factor)),
                (4, Some(member)) => drop(room.mix_for(member, &mut mix)),
                (5, Some(member)) => drop(room.set_voice(member, Voice::ListenOnly)),
                _ => room.end_tick(),
            }
            prop_assert!(room.len() <= MEMBERS_MAX);
        }
    }
}
