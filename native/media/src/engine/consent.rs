//! Whether a telephone's peer still wants what it is sent.
//!
//! Signalling alone proves little about the address in its SDP: media to somebody who never asked are an attack, and media to
//! somebody who has gone are waste. So what we send depends on what valid comes from there, RTP or RTCP (browsers have a protocol
//! of their own for that, RFC 7675): media go for [`UNHEARD_US`] without a sign, then stop until there is one, and stop too when
//! the signs do. Sans-IO.

/// How long media are sent to a peer that has shown no sign.
const UNHEARD_US: u64 = 5_000_000;
/// The same for a peer that sends no media by agreement: its reports come about every 5 s (RFC 3550 section 6.2), and some
/// are lost.
const UNHEARD_LISTENER_US: u64 = 30_000_000;

/// What signs can be expected of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signs {
    /// It sends media.
    pub(crate) media: bool,
    /// It sends reports.
    pub(crate) reports: bool,
    /// How long it may be quiet after the first sign; 0: for ever.
    pub(crate) quiet_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has been sent.
    Fresh,
    /// Sent to, and no sign yet.
    Unheard {
        since_us: u64,
    },
    Heard {
        last_us: u64,
    },
}

/// The consent of one leg's peer.
#[derive(Debug)]
pub(crate) struct Consent {
    signs: Signs,
    state: State,
}

impl Consent {
    pub(crate) fn new(signs: Signs) -> Self {
        Self {
            signs,
            state: State::Fresh,
        }
    }

    /// A later offer and answer. `moved`: the media go elsewhere, where nobody was heard yet. An address that showed no sign
    /// hands its time on to the next, so that no sequence of them is sent more than one would be.
    pub(crate) fn renew(&mut self, signs: Signs, moved: bool) {
        self.signs = signs;
        if moved && matches!(self.state, State::Heard { .. }) {
            self.state = State::Fresh;
        }
    }

    /// Something valid came from where the media go.
    pub(crate) fn heard(&mut self, now_us: u64) {
        self.state = State::Heard { last_us: now_us };
    }

    /// Whether media may be sent, at a time when there are any to send.
    pub(crate) fn holds(&mut self, now_us: u64) -> bool {
        let unheard_us = if self.signs.media {
            UNHEARD_US
        } else {
            UNHEARD_LISTENER_US
        };
        match self.state {
            State::Fresh => {
                self.state = State::Unheard { since_us: now_us };
                true
            }
            State::Unheard { since_us } => now_us.saturating_sub(since_us) < unheard_us,
            State::Heard { last_us } => {
                let Signs {
                    media,
                    reports,
                    quiet_us,
                } = self.signs;
                let none_can_come = !media && !reports;
                let limit_us = quiet_us.max(unheard_us);
                none_can_come || quiet_us == 0 || now_us.saturating_sub(last_us) < limit_us
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPEAKER: Signs = Signs {
        media: true,
        reports: true,
        quiet_us: 20_000_000,
    };
    const LISTENER: Signs = Signs {
        media: false,
        ..SPEAKER
    };
    const TICK_US: u64 = 20_000;

    /// How long is sent from `from_us` on, while nothing comes.
    fn sent_us(consent: &mut Consent, from_us: u64) -> u64 {
        let ticks = (0..10_000).take_while(|tick| consent.holds(from_us + tick * TICK_US));
        TICK_US * ticks.count() as u64
    }

    #[test]
    fn who_shows_no_sign_gets_five_seconds_and_a_listener_thirty() {
        assert_eq!(sent_us(&mut Consent::new(SPEAKER), 7), 5_000_000);
        assert_eq!(sent_us(&mut Consent::new(LISTENER), 7), 30_000_000);
    }

    #[test]
    fn the_first_sign_lets_media_go_again_until_signs_stop() {
        let mut consent = Consent::new(SPEAKER);
        sent_us(&mut consent, 0);
        assert!(!consent.holds(60_000_000));
        consent.heard(60_000_000);
        assert_eq!(sent_us(&mut consent, 60_000_000), 20_000_000);
        consent.heard(90_000_000);
        assert!(consent.holds(90_000_000));
    }

    #[test]
    fn a_quiet_peer_that_reports_is_sent_to_throughout() {
        for signs in [SPEAKER, LISTENER] {
            let mut consent = Consent::new(signs);
            // The first report after 3 s, then every 7.5 s, every second one lost.
            for tick in 0..20_000 {
                let now_us = tick * TICK_US;
                assert!(consent.holds(now_us), "{now_us}");
                if now_us >= 3_000_000 && (now_us - 3_000_000).is_multiple_of(15_000_000) {
                    consent.heard(now_us);
                }
            }
        }
    }

    #[test]
    fn who_was_heard_and_can_give_no_sign_any_more_is_believed() {
        let mut consent = Consent::new(SPEAKER);
        consent.heard(0);
        let silent = Signs {
            reports: false,
            ..LISTENER
        };
        consent.renew(silent, false);
        assert!(consent.holds(u64::MAX));
        consent.renew(silent, true);
        assert_eq!(sent_us(&mut consent, 0), 30_000_000);
    }

    #[test]
    fn without_a_media_timeout_who_was_heard_may_be_quiet() {
        let mut consent = Consent::new(Signs {
            quiet_us: 0,
            ..SPEAKER
        });
        consent.heard(0);
        assert!(consent.holds(u64::MAX));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Tick(u32),
        Heard,
        Renew { listens: bool, moved: bool },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1..500_u32).prop_map(Step::Tick),
            1 => Just(Step::Heard),
            1 => (any::<bool>(), any::<bool>()).prop_map(|(listens, moved)| Step::Renew { listens, moved }),
        ];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        /// Between two signs no more is sent than the longest silence that is borne, for one address and the next that it is
        /// moved to, whatever is agreed on meanwhile; and after a sign something is always sent.
        #[test]
        fn what_is_sent_without_a_sign_is_bounded(steps in steps()) {
            let mut consent = Consent::new(SPEAKER);
            let (mut now_us, mut unanswered_us, mut fresh) = (0_u64, 0_u64, true);
            for step in steps {
                match step {
                    Step::Tick(ticks) => for _ in 0..ticks {
                        now_us += TICK_US;
                        let sent = consent.holds(now_us);
                        prop_assert!(sent || !fresh);
                        fresh = false;
                        unanswered_us += if sent { TICK_US } else { 0 };
                    },
                    Step::Heard => {
                        consent.heard(now_us);
                        (unanswered_us, fresh) = (0, true);
                    }
                    Step::Renew { listens, moved } => {
                        consent.renew(if listens { LISTENER } else { SPEAKER }, moved);
                    }
                }
                prop_assert!(unanswered_us <= 2 * UNHEARD_LISTENER_US, "{unanswered_us}");
            }
        }
    }
}
