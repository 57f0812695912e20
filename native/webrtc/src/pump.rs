//! What str0m gives, turned into the output of the leg.

use crate::leg::{State, WebRtcLeg, instant};
use crate::output::{Disconnection, LegEvent, LegOutput, RtpIn};
use crate::reason::Reason;
use str0m::rtp::RtpPacket;
use str0m::{Event, IceConnectionState, Input, Output};

impl WebRtcLeg {
    /// Let str0m work at the present time.
    pub(crate) fn advance(&mut self) {
        let now = instant(self.epoch, self.now_us);
        if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
            return self.end(Disconnection::Failed(error.to_string()));
        }
        self.pump();
    }

    /// Fetch all that str0m has; it must be drained after each change.
    pub(crate) fn pump(&mut self) {
        self.drain();
        if self.channels.flush(&mut self.rtc) {
            self.drain();
        }
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    // Upwards: a microsecond too early nothing is due, and the caller would come at once again.
                    let us = at.saturating_duration_since(self.epoch).as_nanos().div_ceil(1000);
                    self.rtc_timeout_us = u64::try_from(us).unwrap_or(u64::MAX);
                    return;
                }
                Ok(Output::Transmit(transmit)) => self.give(LegOutput::Transmit {
                    source: transmit.source,
                    destination: transmit.destination,
                    payload: transmit.contents.into(),
                }),
                Ok(Output::Event(event)) => self.on_event(event),
                Err(error) => return self.end(Disconnection::Failed(error.to_string())),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::RtpPacket(packet) => self.on_rtp(&packet),
            Event::Connected => {
                self.state = State::Connected;
                self.give(LegOutput::Event(LegEvent::Connected(self.audio)));
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => match self.state {
                State::Connecting { .. } => self.end(Disconnection::ConnectTimeout),
                State::Connected => self.end(Disconnection::ConsentLost),
                State::Closing | State::Closed => {}
            },
            Event::ChannelOpen(id, label) => match self.channels.opened(id) {
                Ok(()) => self.give(LegOutput::Event(LegEvent::ChannelOpen(label))),
                Err(reason) => {
                    self.counts.add(reason);
                    self.rtc.direct_api().close_data_channel(id);
                }
            },
            Event::ChannelData(message) => match self.channels.received(self.now_us, message) {
                Ok(text) => self.give(LegOutput::Event(LegEvent::ChannelMessage(text))),
                Err(reason) => {
                    self.counts.add(reason);
                }
            },
            Event::ChannelClose(id) if self.channels.closed(id) => {
                self.give(LegOutput::Event(LegEvent::ChannelClosed));
            }
            Event::Closed => self.end(Disconnection::PeerClosed),
            // str0m gives the statistics of the incoming stream before those of the outgoing one.
            Event::MediaIngressStats(stats) if stats.mid == self.mid => {
                self.quality.lost_here = stats.loss;
                self.quality.jitter_here = Some(stats.jitter);
            }
            Event::MediaEgressStats(stats) if stats.mid == self.mid => {
                self.quality.round_trip_us = stats
                    .rtt
                    .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
                self.quality.lost_by_peer = stats.loss;
                self.quality.jitter_of_peer = stats.remote.map(|remote| remote.jitter);
                self.give(LegOutput::Event(LegEvent::Quality(self.quality)));
            }
            _ => {}
        }
    }

    fn on_rtp(&mut self, packet: &RtpPacket) {
        self.quality.packets_received += 1;
        let header = rtp::packet::RtpHeader {
            marker: packet.header.marker,
            payload_type: *packet.header.payload_type,
            sequence: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            ssrc: *packet.header.ssrc,
        };
        self.give(LegOutput::Rtp(RtpIn {
            header,
            payload: packet.payload.clone(),
        }));
    }

    /// The end of the call, once: what is left to say goes out, then the event.
    pub(crate) fn end(&mut self, why: Disconnection) {
        if matches!(self.state, State::Closing | State::Closed) {
            return;
        }
        self.state = State::Closing;
        // Without consent nothing may be sent (RFC 7675 section 5.1), and after a failure nothing can be.
        if matches!(why, Disconnection::Closed | Disconnection::PeerClosed) && self.rtc.close().is_ok() {
            self.drain();
        }
        self.rtc.disconnect();
        self.state = State::Closed;
        self.give(LegOutput::Event(LegEvent::Disconnected(why)));
    }

    pub(crate) fn give(&mut self, output: LegOutput) {
        if self.outputs.len() >= self.limits.outputs {
            self.outputs.pop_front();
            self.counts.add(Reason::Overrun);
        }
        self.outputs.push_back(output);
    }
}
