//! RTCP sessions: two that talk to each other over anything, and hear anything else besides.

use arbitrary::{Arbitrary, Unstructured};
use rtp::packet::RtpHeader;
use rtp::quality::QualityCodec;
use rtp::rtcp::{
    Compound, Form, LocalView, MAX_DATAGRAM_LEN, Packet, RtcpEvent, RtcpParams, RtcpSession, ntp_from_unix_us,
};

const CODECS: [QualityCodec; 4] = [
    QualityCodec::G711,
    QualityCodec::G711Concealed,
    QualityCodec::G722,
    QualityCodec::Opus,
];

#[derive(Debug, Arbitrary)]
struct Setup {
    name: String,
    clock: [u32; 2],
    metrics: bool,
    receiver_rtt: bool,
    reduced_size: bool,
    min_interval_us: u32,
    begins_us: u32,
    wall_us: u64,
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// Time passes; where `long`, in units of a second.
    Wait {
        units: u16,
        long: bool,
    },
    /// One end sends a packet; the other gets it unless it is lost.
    Media {
        from: bool,
        lost: bool,
        jump: i8,
        units: u16,
        len: u16,
    },
    /// A packet from nowhere.
    Stray {
        to: bool,
        sequence: u16,
        timestamp: u32,
        ssrc: u8,
    },
    Discarded {
        at: bool,
        count: u8,
    },
    /// A report, which the other end gets unless it is lost, with octets changed on the way.
    Report {
        from: bool,
        random: u32,
        lost: bool,
        change: Option<(u16, u8)>,
    },
    /// Whatever is due is said.
    Due {
        random: u32,
    },
    Octets {
        to: bool,
        octets: Vec<u8>,
    },
    Short {
        from: bool,
        room: u8,
    },
    Codec {
        at: bool,
        codec: u8,
        clock_hz: u32,
    },
    Ssrc {
        at: bool,
    },
    Local {
        at: bool,
        delay_ms: u16,
        level: Option<i8>,
        adapts: Option<bool>,
    },
    Bye {
        from: bool,
        reason: String,
    },
}

/// One end and what it was told.
struct End {
    session: RtcpSession,
    ssrc: u32,
    form: Form,
    sequence: u16,
    timestamp: u32,
    /// Datagrams given to it, and how many of them it refused.
    given: u64,
    refused: u64,
}

struct Pair {
    ends: [End; 2],
    now_us: u64,
    wall_us: u64,
    next_ssrc: u32,
}

pub(crate) fn any_steps(input: &[u8]) {
    let mut octets = Unstructured::new(input);
    let Ok(setup) = octets.arbitrary::<Setup>() else {
        return;
    };
    let mut pair = Pair::new(&setup);
    for step in crate::steps(&mut octets) {
        pair.step(step);
        for end in &pair.ends {
            end.check();
        }
    }
}

impl Pair {
    fn new(setup: &Setup) -> Self {
        let now_us = u64::from(setup.begins_us);
        let end = |n: u32| {
            let params = RtcpParams {
                xr_voip_metrics: setup.metrics,
                xr_receiver_rtt: setup.receiver_rtt,
                reduced_size: setup.reduced_size,
                min_interval_us: u64::from(setup.min_interval_us),
                ..RtcpParams::new(n, setup.name.clone(), setup.clock[n as usize], CODECS[n as usize])
            };
            End {
                session: RtcpSession::new(params, now_us, setup.begins_us),
                ssrc: n,
                form: if setup.reduced_size {
                    Form::ReducedSize
                } else {
                    Form::Compound
                },
                sequence: 0xfff0,
                timestamp: u32::MAX - 1000,
                given: 0,
                refused: 0,
            }
        };
        Self {
            ends: [end(0), end(1)],
            now_us,
            wall_us: setup.wall_us,
            next_ssrc: 2,
        }
    }

    fn ntp(&self) -> u64 {
        ntp_from_unix_us(self.wall_us.wrapping_add(self.now_us))
    }

    fn step(&mut self, step: Step) {
        let now_us = self.now_us;
        match step {
            Step::Wait { units, long } => {
                self.now_us += u64::from(units) * if long { 1_000_000 } else { 10 };
            }
            Step::Media {
                from,
                lost,
                jump,
                units,
                len,
            } => self.media(from, lost, jump, units, len),
            Step::Stray {
                to,
                sequence,
                timestamp,
                ssrc,
            } => {
                let header = header(sequence, timestamp, u32::from(ssrc));
                self.ends[usize::from(to)].hear(now_us, &header);
            }
            Step::Discarded { at, count } => self.at(at).session.note_discarded(u32::from(count)),
            Step::Report {
                from,
                random,
                lost,
                change,
            } => self.report(from, random, lost, change),
            Step::Due { random } => {
                for from in [false, true] {
                    if self.at(from).session.due_us() <= now_us {
                        self.report(from, random, false, None);
                        assert!(self.at(from).session.due_us() > now_us);
                    }
                }
            }
            Step::Octets { to, octets } => self.at(to).take(now_us, &octets),
            Step::Short { from, room } => {
                let ntp = self.ntp();
                let mut out = vec![0; usize::from(room)];
                let len = self.at(from).session.write_report(now_us, ntp, 0, &mut out);
                assert!(len <= out.len());
                self.at(from).says(&out[..len]);
            }
            Step::Codec { at, codec, clock_hz } => {
                let codec = CODECS[usize::from(codec) % CODECS.len()];
                self.at(at).session.set_codec(codec, clock_hz);
            }
            Step::Ssrc { at } => {
                let ssrc = self.next_ssrc;
                self.next_ssrc += 1;
                let end = self.at(at);
                end.ssrc = ssrc;
                end.session.change_ssrc(ssrc);
            }
            Step::Local {
                at,
                delay_ms,
                level,
                adapts,
            } => self.at(at).session.set_local(LocalView {
                end_system_ms: delay_ms,
                signal_dbm0: level,
                buffer_adapts: adapts,
                ..LocalView::default()
            }),
            Step::Bye { from, reason } => self.bye(from, &reason),
        }
    }

    fn at(&mut self, which: bool) -> &mut End {
        &mut self.ends[usize::from(which)]
    }

    fn media(&mut self, from: bool, lost: bool, jump: i8, units: u16, len: u16) {
        let now_us = self.now_us;
        let end = self.at(from);
        end.sequence = end.sequence.wrapping_add_signed(i16::from(jump));
        end.timestamp = end.timestamp.wrapping_add(u32::from(units));
        let header = header(end.sequence, end.timestamp, end.ssrc);
        end.session.on_rtp_sent(now_us, end.timestamp, usize::from(len));
        if !lost {
            self.at(!from).hear(now_us, &header);
        }
    }

    fn report(&mut self, from: bool, random: u32, lost: bool, change: Option<(u16, u8)>) {
        let (now_us, ntp) = (self.now_us, self.ntp());
        let mut out = [0; MAX_DATAGRAM_LEN];
        let len = self.at(from).session.write_report(now_us, ntp, random, &mut out);
        assert_ne!(len, 0, "there is room for every report");
        let datagram = &mut out[..len];
        self.at(from).says(datagram);
        if let Some((place, bits)) = change {
            datagram[usize::from(place) % len] ^= bits;
        }
        if !lost {
            self.at(!from).take(now_us, datagram);
        }
    }

    fn bye(&mut self, from: bool, reason: &str) {
        let (now_us, ntp) = (self.now_us, self.ntp());
        let mut out = [0; MAX_DATAGRAM_LEN];
        let len = self.at(from).session.write_bye(now_us, ntp, reason, &mut out);
        assert_ne!(len, 0, "there is room for every BYE");
        self.at(from).says(&out[..len]);
        assert_eq!(self.at(from).session.due_us(), u64::MAX);
        let compound = Compound::parse(&out[..len], Form::Compound).expect("what we say is valid");
        let said = compound.packets().last();
        let Some(Packet::Bye { reason: said, .. }) = said else {
            panic!("{said:?} is no BYE")
        };
        let said = std::str::from_utf8(said.unwrap_or_default()).expect("whole characters");
        assert!(reason.starts_with(said) && (said.len() == reason.len() || said.len() > 251));
        self.at(!from).take(now_us, &out[..len]);
    }
}

impl End {
    fn hear(&mut self, now_us: u64, header: &RtpHeader) {
        let before = self.session.reception().received();
        let collision = self.session.on_rtp_received(now_us, header);
        if header.ssrc == self.ssrc {
            assert_eq!(self.session.reception().received(), before);
        } else {
            assert!(collision.is_none());
        }
    }

    fn take(&mut self, now_us: u64, datagram: &[u8]) {
        self.given += 1;
        let valid = Compound::parse(datagram, self.form);
        match (self.session.on_rtcp_received(now_us, datagram), valid) {
            (Ok(event), Ok(_)) => {
                if let Some(RtcpEvent::PeerReport(view)) = event {
                    assert_eq!(view.block.ssrc, self.ssrc);
                }
            }
            (Err(reason), Err(same)) => {
                assert_eq!(reason, same);
                self.refused += 1;
            }
            (event, valid) => panic!("{event:?} of {valid:?}"),
        }
    }

    /// What a session says is a compound packet that begins with its report and its name.
    fn says(&self, datagram: &[u8]) {
        if datagram.is_empty() {
            return;
        }
        let compound = Compound::parse(datagram, Form::Compound).expect("what we say is valid");
        let mut packets = compound.packets();
        match packets.next() {
            Some(Packet::SenderReport { ssrc, blocks, .. } | Packet::ReceiverReport { ssrc, blocks }) => {
                assert_eq!(ssrc, self.ssrc);
                for block in blocks {
                    assert_eq!(Some(block.ssrc), self.session.reception().ssrc());
                }
            }
            other => panic!("{other:?}"),
        }
        let name = packets.next();
        let Some(Packet::SourceDescription(mut chunks)) = name else {
            panic!("{name:?} is no name")
        };
        let chunk = chunks.next().expect("one name");
        assert_eq!(chunk.ssrc, self.ssrc);
        let name = chunk.cname.expect("a canonical name");
        assert!(std::str::from_utf8(name).is_ok(), "whole characters");
    }

    fn check(&self) {
        let counters = self.session.counters();
        assert_eq!(counters.datagrams, self.given - self.refused);
        assert_eq!(counters.rejected.iter().sum::<u64>(), self.refused);
        let reception = self.session.reception();
        assert_eq!(
            reception.lost(),
            reception.expected() as i64 - reception.received() as i64
        );
        assert!(reception.duplicates() <= reception.received());
        let pattern = reception.pattern();
        assert_eq!(pattern.packets, reception.expected());
        for share in [
            pattern.loss_rate,
            pattern.discard_rate,
            pattern.loss_rate + pattern.discard_rate,
            pattern.burst_density,
            pattern.gap_density,
        ] {
            assert!((0.0..=1.0 + 1e-9).contains(&share), "{pattern:?}");
        }
        assert!(pattern.burst_ratio >= 1.0);
        let quality = self.session.quality();
        assert!(quality.jitter_ms.is_finite() && quality.jitter_ms >= 0.0);
        if let Some(trip) = quality.round_trip {
            assert!(0.0 <= trip.min_ms && trip.min_ms <= trip.last_ms && trip.last_ms <= trip.max_ms);
        }
        assert_eq!(quality.scores.is_some(), pattern.packets > 0);
        if let Some(scores) = quality.scores {
            assert!(scores.r_factor.is_finite());
            assert!((1.0..=4.5).contains(&scores.mos_lq), "{scores:?}");
            assert!((1.0..=4.5).contains(&scores.mos_cq), "{scores:?}");
        }
        if let Some(metrics) = self.session.voip_metrics() {
            assert_eq!(Some(metrics.ssrc), reception.ssrc());
            assert!((10..=50).contains(&metrics.mos_lq) && (10..=50).contains(&metrics.mos_cq));
        }
    }
}

fn header(sequence: u16, timestamp: u32, ssrc: u32) -> RtpHeader {
    RtpHeader {
        marker: false,
        payload_type: 0,
        sequence,
        timestamp,
        ssrc,
    }
}
