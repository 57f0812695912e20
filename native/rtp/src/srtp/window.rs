//! Packet indices of one stream: which is highest, which of the latest came, and what a sequence number means.

use super::SrtpError;

/// Indices that the window holds, the highest included (RFC 3711 section 3.3.2 asks for 64 at least).
pub(super) const WINDOW: u64 = 128;
/// RTP indices have 48 bits (RFC 3711 section 3.3.1).
const MAX_RTP_INDEX: u64 = (1 << 48) - 1;

/// The indices seen so far; only authentic ones belong in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct IndexWindow {
    highest: u64,
    /// Bit `n` stands for `highest - n`; zero while nothing came.
    seen: u128,
}

impl IndexWindow {
    /// The highest index, or none while nothing came.
    pub(super) fn highest(&self) -> Option<u64> {
        (self.seen != 0).then_some(self.highest)
    }

    /// The index most likely meant by a sequence number (RFC 3711 section 3.3.1).
    ///
    /// # Errors
    /// [`SrtpError::TooOld`] before the first rollover began, [`SrtpError::KeyExpired`] after the last.
    pub(super) fn rtp_index(&self, sequence: u16) -> Result<u64, SrtpError> {
        const HALF: u16 = 0x8000;
        let Some(highest) = self.highest() else {
            return Ok(u64::from(sequence));
        };
        let (rollover, last) = (highest >> 16, highest as u16);
        let rollover = if last < HALF && sequence > last + HALF {
            rollover.checked_sub(1).ok_or(SrtpError::TooOld)?
        } else if last >= HALF && sequence < last - HALF {
            rollover + 1
        } else {
            rollover
        };
        let index = rollover << 16 | u64::from(sequence);
        if index > MAX_RTP_INDEX {
            return Err(SrtpError::KeyExpired);
        }
        Ok(index)
    }

    /// Whether an index is new.
    ///
    /// # Errors
    /// [`SrtpError::Replayed`] when it was seen, [`SrtpError::TooOld`] when that is no longer known.
    pub(super) fn check(&self, index: u64) -> Result<(), SrtpError> {
        // While nothing came, no bit is set and the highest is zero.
        match self.highest.checked_sub(index) {
            Some(age) if age >= WINDOW => Err(SrtpError::TooOld),
            Some(age) if self.seen >> age & 1 == 1 => Err(SrtpError::Replayed),
            _ => Ok(()),
        }
    }

    /// Remember an index that [`check`](Self::check) passed.
    pub(super) fn insert(&mut self, index: u64) {
        if self.seen == 0 {
            (self.highest, self.seen) = (index, 1);
        } else if index > self.highest {
            let ahead = index - self.highest;
            self.seen = if ahead < WINDOW { self.seen << ahead | 1 } else { 1 };
            self.highest = index;
        } else if self.highest - index < WINDOW {
            self.seen |= 1 << (self.highest - index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(highest: u64) -> IndexWindow {
        let mut window = IndexWindow::default();
        window.insert(highest);
        window
    }

    #[test]
    fn the_counter_ends_at_48_bits() {
        assert_eq!(at(MAX_RTP_INDEX - 1).rtp_index(0xffff), Ok(MAX_RTP_INDEX));
        assert_eq!(at(MAX_RTP_INDEX).rtp_index(0), Err(SrtpError::KeyExpired));
        assert_eq!(at(2).rtp_index(0xffff), Err(SrtpError::TooOld));
    }

    proptest! {
        /// The pseudo-code of RFC 3711 appendix A, in signed numbers.
        #[test]
        fn the_index_is_that_of_the_rfc(highest in 0..=MAX_RTP_INDEX, sequence: u16) {
            let (roc, s_l, seq) = ((highest >> 16) as i64, (highest & 0xffff) as i64, i64::from(sequence));
            let v = if s_l < 32768 {
                if seq - s_l > 32768 { roc - 1 } else { roc }
            } else if s_l - 32768 > seq {
                roc + 1
            } else {
                roc
            };
            let expected = match v {
                -1 => Err(SrtpError::TooOld),
                0x1_0000_0000 => Err(SrtpError::KeyExpired),
                _ => Ok((v as u64) * 65536 + u64::from(sequence)),
            };
            prop_assert_eq!(at(highest).rtp_index(sequence), expected);
        }

        /// Against a set that forgets nothing.
        #[test]
        fn each_index_once(
            start in prop_oneof![Just(0_u64), 0..=MAX_RTP_INDEX],
            steps in prop::collection::vec(-200..=200_i64, 1..200),
        ) {
            let mut window = IndexWindow::default();
            let mut seen = BTreeSet::new();
            let mut index = start;
            for step in steps {
                index = index.saturating_add_signed(step);
                let expected = match seen.last() {
                    Some(highest) if index + WINDOW <= *highest => Err(SrtpError::TooOld),
                    _ if seen.contains(&index) => Err(SrtpError::Replayed),
                    _ => Ok(()),
                };
                prop_assert_eq!(window.check(index), expected);
                if expected.is_ok() {
                    window.insert(index);
                    seen.insert(index);
                }
                prop_assert_eq!(window.highest(), seen.last().copied());
            }
        }
    }
}
