//! What a caller hears: where speech begins and ends, how evenly its packets come, and which never came.

use codec::g711::{Law, decode_into};
use rtp::packet::RtpHeader;

use crate::histogram::Histogram;
use crate::{FRAME, FRAME_US};

/// Level of a packet, root mean square of its 16-bit samples, from which it is speech: -50 dBFS.
const AUDIBLE_RMS: i64 = 104;
/// Silence after which sound counts as speech that begins. Longer than a gap of scheduling, shorter than a pause
/// between two answers.
const ONSET_GAP_US: u64 = 100_000;
const PCMU: u8 = 0;
/// A jump of the sequence number that is a new stream and no loss (as RFC 3550 A.1 has it).
const JUMP: u16 = 3_000;

/// What one packet meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing audible, or more of what sounded already.
    Nothing,
    /// Speech begins with this packet.
    Onset,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    at_us: u64,
    audible: bool,
}

/// The incoming stream of one call.
#[derive(Debug, Default)]
pub struct Ear {
    last: Option<Last>,
    last_audible_us: Option<u64>,
    first_audible_us: Option<u64>,
    /// Packets of RTP with PCMU.
    pub received: u64,
    /// Packets that later ones overtook, less those that came after all.
    pub lost: u64,
    /// Packets that came after a later one.
    pub late: u64,
    /// Packets of another payload type, or of another length than 20 ms.
    pub strange: u64,
    /// Largest spacing error of this call.
    pub spacing_max_us: u64,
}

impl Ear {
    /// Take a packet. `spacing` gets the distance of audible packets that follow one another from their time in the media.
    pub fn hear(&mut self, header: RtpHeader, payload: &[u8], at_us: u64, spacing: &mut Histogram) -> Heard {
        if header.payload_type != PCMU || payload.len() != FRAME {
            self.strange += 1;
            return Heard::Nothing;
        }
        self.received += 1;
        let audible = is_audible(payload);
        let now = Last {
            sequence: header.sequence,
            timestamp: header.timestamp,
            ssrc: header.ssrc,
            at_us,
            audible,
        };
        match self.last {
            Some(last) if last.ssrc == header.ssrc => {
                let ahead = header.sequence.wrapping_sub(last.sequence);
                if ahead == 0 || ahead > u16::MAX - JUMP {
                    self.late += 1;
                    self.lost = self.lost.saturating_sub(1);
                } else {
                    if ahead < JUMP {
                        self.lost += u64::from(ahead) - 1;
                    }
                    if ahead == 1 {
                        self.note_spacing(last, now, header.marker, spacing);
                    }
                    self.last = Some(now);
                }
            }
            _ => self.last = Some(now),
        }
        if !audible {
            return Heard::Nothing;
        }
        let gap = self
            .last_audible_us
            .is_none_or(|last_us| at_us.saturating_sub(last_us) >= ONSET_GAP_US);
        self.first_audible_us.get_or_insert(at_us);
        self.last_audible_us = Some(at_us);
        if gap { Heard::Onset } else { Heard::Nothing }
    }

    /// A talkspurt may begin at any time; within one, the next 20 ms of media are due 20 ms later.
    fn note_spacing(&mut self, last: Last, now: Last, marker: bool, spacing: &mut Histogram) {
        let follows = now.timestamp.wrapping_sub(last.timestamp) == FRAME as u32;
        if last.audible && now.audible && follows && !marker {
            let error_us = now.at_us.saturating_sub(last.at_us).abs_diff(FRAME_US);
            spacing.note(error_us);
            self.spacing_max_us = self.spacing_max_us.max(error_us);
        }
    }

    /// Arrival of the first packet with speech.
    pub fn first_audible_us(&self) -> Option<u64> {
        self.first_audible_us
    }

    /// Arrival of the newest packet with speech.
    pub fn last_audible_us(&self) -> Option<u64> {
        self.last_audible_us
    }

    /// Whether nothing was audible for so long, or ever.
    pub fn quiet_for(&self, gap_us: u64, now_us: u64) -> bool {
        self.last_audible_us
            .is_none_or(|last_us| now_us.saturating_sub(last_us) >= gap_us)
    }
}

fn is_audible(payload: &[u8]) -> bool {
    let mut samples = [0_i16; FRAME];
    let count = decode_into(Law::Mu, payload, &mut samples);
    let energy: i64 = samples[..count]
        .iter()
        .map(|&x| i64::from(x) * i64::from(x))
        .sum();
    energy >= AUDIBLE_RMS * AUDIBLE_RMS * FRAME as i64
}

#[cfg(test)]
mod tests {
    use codec::g711::encode_into;
    use proptest::prelude::*;

    use super::*;

    fn packet(sequence: u16) -> RtpHeader {
        RtpHeader {
            marker: false,
            payload_type: 0,
            sequence,
            timestamp: u32::from(sequence) * 160,
            ssrc: 5,
        }
    }

    fn payload(level: i16) -> [u8; FRAME] {
        let mut codes = [0; FRAME];
        encode_into(Law::Mu, &[level; FRAME], &mut codes);
        codes
    }

    #[test]
    fn speech_begins_after_a_gap_and_ends_with_quiet() {
        let (mut ear, mut spacing) = (Ear::default(), Histogram::default());
        let heard: Vec<_> = [0, 0, 900, 900, 0, 900, 0, 0, 0, 0, 0, 0, 900]
            .iter()
            .enumerate()
            .map(|(at, &level)| {
                ear.hear(
                    packet(at as u16),
                    &payload(level),
                    at as u64 * 20_000,
                    &mut spacing,
                )
            })
            .collect();
        let onsets: Vec<_> = (0..heard.len()).filter(|&at| heard[at] == Heard::Onset).collect();
        assert_eq!(onsets, [2, 12], "a gap of one packet is no end");
        assert_eq!(ear.first_audible_us(), Some(40_000));
        assert!(ear.quiet_for(60_000, 300_000) && !ear.quiet_for(60_001, 300_000));
        assert_eq!(
            (spacing.total(), spacing.max_us),
            (1, 0),
            "only neighbours that both sound"
        );
    }

    #[test]
    fn faint_noise_is_not_speech() {
        let (mut ear, mut spacing) = (Ear::default(), Histogram::default());
        assert_eq!(ear.hear(packet(0), &payload(60), 0, &mut spacing), Heard::Nothing);
        assert_eq!(
            ear.hear(packet(1), &payload(160), 20_000, &mut spacing),
            Heard::Onset
        );
    }

    #[test]
    fn uneven_packets_are_measured_and_talkspurts_are_not() {
        let (mut ear, mut spacing) = (Ear::default(), Histogram::default());
        ear.hear(packet(0), &payload(900), 0, &mut spacing);
        ear.hear(packet(1), &payload(900), 23_000, &mut spacing);
        assert_eq!(spacing.max_us, 3_000);
        let spurt = RtpHeader {
            marker: true,
            ..packet(2)
        };
        ear.hear(spurt, &payload(900), 900_000, &mut spacing);
        assert_eq!(ear.spacing_max_us, 3_000);
        let pause = RtpHeader {
            timestamp: 9_600,
            ..packet(3)
        };
        ear.hear(pause, &payload(900), 2_000_000, &mut spacing);
        assert_eq!(spacing.total(), 1);
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_lost_and_what_comes_late_is_not(
            dropped in prop::collection::btree_set(1_u16..500, 0..50), first: u16, swap in 1_u16..499,
        ) {
            let (mut ear, mut spacing) = (Ear::default(), Histogram::default());
            let mut order: Vec<u16> = (0..=500).filter(|at| !dropped.contains(at)).collect();
            let swap = usize::from(swap) % (order.len() - 2) + 1;
            order.swap(swap, swap - 1);
            // The first packet is what sequence numbers are counted from: what came before it was never awaited.
            let from_start = swap > 1;
            for (at, number) in order.iter().enumerate() {
                ear.hear(packet(first.wrapping_add(*number)), &payload(0), at as u64, &mut spacing);
            }
            prop_assert_eq!(ear.received as usize, order.len());
            prop_assert_eq!(ear.late, 1);
            if from_start {
                prop_assert_eq!(ear.lost as usize, dropped.len());
            }
        }
    }
}
