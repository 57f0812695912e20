//! What is left to do when a media thread ends by a mistake of ours: a panic takes its legs, and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::Budgets;
use super::counters::{Counters, add};
use super::events::{EventQueue, LegEvent, lock};
use super::ports::{PortTable, StreamId};
use crate::stream::StreamEvent;

/// What the threads and the handle share of one thread's streams.
pub(super) struct Aftermath {
    /// Streams whose number leaves this remainder, divided by the number of threads, are the thread's.
    pub(super) index: usize,
    pub(super) threads: usize,
    pub(super) budgets: Arc<Mutex<Budgets>>,
    pub(super) table: Arc<Mutex<PortTable>>,
    pub(super) load: Arc<AtomicUsize>,
    pub(super) failed: Arc<AtomicBool>,
    pub(super) events: Arc<EventQueue>,
    pub(super) counters: Arc<Counters>,
}

impl Aftermath {
    /// Run the thread's work to its end, whatever end that is.
    pub(super) fn of(self, work: impl FnOnce()) {
        // What the work leaves half done it takes with it, but for the table and the budgets, whose entries are dropped here.
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.clear_up();
        }
    }

    /// Give back the places of all streams of the thread, and tell whoever waits for their events.
    fn clear_up(&self) {
        add(&self.counters.failed_threads, 1);
        let mut gone: Vec<StreamId> = Vec::new();
        {
            let mut budgets = lock(&self.budgets);
            // Under the lock that gives places, so that none is given here any more.
            self.failed.store(true, Ordering::Release);
            budgets.retain(|&id, _| {
                let stays = id as usize % self.threads != self.index;
                if !stays {
                    gone.push(id);
                }
                stays
            });
        }
        gone.sort_unstable();
        self.load.fetch_sub(gone.len(), Ordering::Relaxed);
        {
            let mut table = lock(&self.table);
            for &id in &gone {
                table.close(id);
            }
        }
        let mut events: Vec<LegEvent> = gone.into_iter().map(|id| (id, StreamEvent::Failed)).collect();
        let dropped = self.events.append(&mut events);
        add(&self.counters.audio_events_dropped, dropped.audio);
        add(&self.counters.other_events_dropped, dropped.other);
    }
}
