//! Streams whose peer is a browser.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use webrtc::{IceSeed, LegParams, Limits, WebRtcError, WebRtcLeg};

use super::clock::now_us;
use super::ports::PortTable;
use super::web::{Web, codec_of};
use super::{Command, Engine, EngineError, Reoffer, StreamId};
use crate::stream::{Coding, StreamParams};

/// Why a browser could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// The offer, or our answer to it.
    #[error(transparent)]
    WebRtc(#[from] WebRtcError),
    /// A later offer of the same browser.
    #[error("{0}")]
    Reoffer(String),
    /// A longer message than the channel takes.
    #[error("a message of {0} octets: at most {1} are possible")]
    Message(usize, usize),
}

impl Engine {
    /// Answer a browser's offer; returns the number of the stream and the answer. Media begin with
    /// [`WebConnected`](crate::stream::StreamEvent::WebConnected).
    ///
    /// `seed`: randomness for the credentials, from a generator fit for secrets.
    ///
    /// # Errors
    /// When the offer cannot be answered, or a limit is reached.
    pub fn open_web(
        &self,
        offer: &str,
        seed: IceSeed,
        max_playout_ms: u64,
        params: StreamParams,
    ) -> Result<(StreamId, String), EngineError> {
        let place = |table: &mut PortTable| Ok(table.open_unaddressed());
        let (id, port) = self.place(None, max_playout_ms, place)?;
        let made = self.answer(offer, seed, self.shard(id).ports[port]);
        let (web, answer) = made.inspect_err(|_| self.forget(id))?;
        let params = Box::new(self.audible(params));
        self.begin(id, Command::OpenWeb(id, port, params, Box::new(web)))?;
        Ok((id, answer))
    }

    fn answer(&self, offer: &str, seed: IceSeed, port: u16) -> Result<(Web, String), EngineError> {
        let candidates: Vec<SocketAddr> = self
            .public
            .iter()
            .map(|&address| SocketAddr::new(address, port))
            .collect();
        let now_us = now_us();
        let now = Instant::now();
        let params = LegParams {
            // Our microseconds and an Instant count on the same clock.
            epoch: now.checked_sub(Duration::from_micros(now_us)).unwrap_or(now),
            candidates: candidates.clone(),
            certificate: self.certificate.clone(),
            ice_seed: seed,
            dtx: false,
            limits: Limits::default(),
        };
        let (leg, answer) = WebRtcLeg::answer(offer, params, now_us).map_err(BrowserError::from)?;
        let coding = Box::new(Coding::new(codec_of(leg.audio().codec))?);
        Ok((Web::new(leg, candidates, coding), answer))
    }

    /// Answer a later offer of the same browser: a renegotiation or an ICE restart.
    ///
    /// # Errors
    /// When the stream is unknown or no browser's, or the offer cannot be answered; the call goes on as it was.
    pub fn reoffer_web(&self, id: StreamId, offer: &str, seed: IceSeed) -> Result<String, EngineError> {
        self.budget(id)?;
        let sdp = offer.to_owned();
        let reoffer = Box::new(Reoffer { sdp, seed });
        let outcome = self.ask(id, |answer| Command::Reoffer(id, reoffer, answer))?;
        Ok(outcome.map_err(BrowserError::Reoffer)?)
    }

    /// Send a text by the browser's data channel; it waits until one is open.
    ///
    /// # Errors
    /// When the stream is unknown or the message too long.
    pub fn send_message(&self, id: StreamId, text: &str) -> Result<(), EngineError> {
        let limit = Limits::default().message_octets;
        if text.len() > limit {
            return Err(BrowserError::Message(text.len(), limit).into());
        }
        self.tell(id, Command::Message(id, text.to_owned()))
    }
}
