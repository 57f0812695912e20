//! Every interleaving of threads that share a [`PlayoutBudget`], with loom: `make loom`.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;
use media::playout::{Playout, PlayoutBudget};

const MAX_MS: u64 = 50;
/// 30 ms: one fits, two do not.
const SAMPLES: usize = 240;

/// Go through all interleavings. There are several, or the budget does not use loom's atomics and this shows nothing.
fn in_every_order(model: impl Fn() + Send + Sync + 'static) {
    static ORDERS: AtomicUsize = AtomicUsize::new(0);
    let before = ORDERS.load(Ordering::Relaxed);
    loom::model(move || {
        ORDERS.fetch_add(1, Ordering::Relaxed);
        model();
    });
    assert!(ORDERS.load(Ordering::Relaxed) > before + 1);
}

#[test]
fn no_more_is_reserved_than_there_is_and_all_of_it_comes_back() {
    in_every_order(|| {
        let budget = PlayoutBudget::new(MAX_MS);
        let spawn = |mark| {
            let budget = Arc::clone(&budget);
            thread::spawn(move || {
                let chunk = budget.chunk(vec![0; SAMPLES], 8000, mark);
                assert!(budget.queued_ms() <= MAX_MS);
                chunk
            })
        };
        let threads = [spawn(1), spawn(2)];
        let chunks = threads.map(|thread| thread.join().unwrap());
        // Both held on to theirs: just one can have had room.
        assert_eq!(chunks.iter().filter(|chunk| chunk.is_ok()).count(), 1);
        assert_eq!((budget.queued_ms(), budget.refused()), (30, 1));
        drop(chunks);
        assert_eq!(budget.queued_ms(), 0);
    });
}

#[test]
fn what_is_dropped_elsewhere_makes_room() {
    in_every_order(|| {
        let budget = PlayoutBudget::new(MAX_MS);
        let first = budget.chunk(vec![0; SAMPLES], 8000, 1).unwrap();
        let media_thread = thread::spawn(move || drop(first));
        let second = budget.chunk(vec![0; SAMPLES], 8000, 2);
        assert!(budget.queued_ms() <= MAX_MS);
        media_thread.join().unwrap();
        let left = if second.is_ok() { 30 } else { 0 };
        assert_eq!(budget.queued_ms(), left);
        drop(second);
        assert_eq!(budget.queued_ms(), 0);
        assert!(budget.chunk(vec![0; SAMPLES], 8000, 3).is_ok());
    });
}

#[test]
fn what_is_played_in_pieces_comes_back_once() {
    in_every_order(|| {
        let budget = PlayoutBudget::new(MAX_MS);
        let first = budget.chunk(vec![100; SAMPLES], 8000, 1).unwrap();
        let media_thread = thread::spawn(move || {
            let mut playout = Playout::new(8000).unwrap();
            playout.enqueue(first);
            let mut frame = [0; 160];
            // The second frame has the rest of the chunk and silence.
            assert_eq!(playout.next_frame(&mut frame).samples, 160);
            assert_eq!(playout.next_frame(&mut frame).samples, 80);
        });
        let second = budget.chunk(vec![0; SAMPLES], 8000, 2);
        assert!(budget.queued_ms() <= MAX_MS);
        media_thread.join().unwrap();
        assert_eq!(budget.queued_ms(), if second.is_ok() { 30 } else { 0 });
        drop(second);
        assert_eq!(budget.queued_ms(), 0);
    });
}
