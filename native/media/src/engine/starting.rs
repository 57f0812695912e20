//! How the engine comes to be: its sockets, dealt out among its threads, and the threads.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use mio::{Interest, Poll, Token, Waker};
use webrtc::Certificate;

use super::aftermath::Aftermath;
use super::clock::{Clock, now_us};
use super::config::{EngineConfig, EngineError, THREADS_MAX};
use super::counters::Counters;
use super::events::EventQueue;
use super::ports::PortTable;
use super::sockets::{Pair, bind_pairs};
use super::thread::{MediaThread, Parts, WAKE, ask_for_realtime};
use super::{COMMAND_CAPACITY, Engine, Shard, browsers};
use crate::speech::Listening;

impl Engine {
    /// Open the sockets and start the threads.
    ///
    /// # Errors
    /// When a port is in use or the system refuses a descriptor or a thread.
    pub fn start(config: &EngineConfig) -> Result<Self, EngineError> {
        let threads = config.threads;
        if threads == 0 || threads > THREADS_MAX.min(config.port_count) {
            return Err(EngineError::Threads(threads, THREADS_MAX));
        }
        let events = Arc::new(EventQueue::new(config.event_capacity)?);
        let counters = Arc::new(Counters::default());
        let mut dealt: Vec<Vec<Pair>> = (0..threads).map(|_| Vec::new()).collect();
        let pairs = bind_pairs(config.host, config.first_port, config.port_count)?;
        for (index, pair) in pairs.into_iter().enumerate() {
            dealt[index % threads].push(pair);
        }
        let mut engine = Self {
            shards: Vec::with_capacity(threads),
            events,
            counters,
            budgets: Arc::default(),
            host: config.host,
            max_streams: config.max_streams,
            hears: config.model.is_some(),
            realtime: Ok(()),
            public: config.public(),
            certificate: Certificate::generate().map_err(browsers::BrowserError::from)?,
            rooms: AtomicU64::new(0),
        };
        for (index, pairs) in dealt.into_iter().enumerate() {
            // An error ends the threads that run already: dropping the engine closes it.
            engine.start_thread(config, index, pairs)?;
        }
        Ok(engine)
    }

    fn start_thread(
        &mut self,
        config: &EngineConfig,
        index: usize,
        mut pairs: Vec<Pair>,
    ) -> Result<(), EngineError> {
        let poll = Poll::new()?;
        for (index, pair) in pairs.iter_mut().enumerate() {
            let registry = poll.registry();
            registry.register(&mut pair.rtp, Token(2 * index), Interest::READABLE)?;
            registry.register(&mut pair.rtcp, Token(2 * index + 1), Interest::READABLE)?;
        }
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let clock = Clock::start(poll.registry(), now_us())?;
        let (commands, inbox) = sync_channel(COMMAND_CAPACITY);
        let table = Arc::new(Mutex::new(PortTable::new(pairs.len(), index, config.threads)));
        let ports = pairs.iter().map(|pair| pair.port).collect();
        let inside = Parts {
            poll,
            clock,
            pairs,
            inbox,
            events: Arc::clone(&self.events),
            counters: Arc::clone(&self.counters),
            table: Arc::clone(&table),
            listening: config.model.clone().map(Listening::new),
        };
        let load = Arc::new(AtomicUsize::new(0));
        let failed = Arc::new(AtomicBool::new(false));
        let aftermath = Aftermath {
            index,
            threads: config.threads,
            budgets: Arc::clone(&self.budgets),
            table: Arc::clone(&table),
            load: Arc::clone(&load),
            failed: Arc::clone(&failed),
            events: Arc::clone(&self.events),
            counters: Arc::clone(&self.counters),
        };
        let realtime = config.realtime;
        let (report, reports) = sync_channel(1);
        let handle = Builder::new().name(format!("media-{index}")).spawn(move || {
            // Room for one, and there is only one.
            let _ = report.try_send(if realtime { ask_for_realtime() } else { Ok(()) });
            aftermath.of(|| MediaThread::new(inside).run());
        })?;
        if let Ok(Err(reason)) = reports.recv() {
            self.realtime = Err(reason);
        }
        self.shards.push(Shard {
            commands,
            waker,
            table,
            ports,
            load,
            failed,
            thread: Mutex::new(Some(handle)),
        });
        Ok(())
    }
}
