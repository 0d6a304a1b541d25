//! What every back end of [`Kv`], [`Journal`] and [`Fabric`](super::Fabric) has to pass:
//! to be called from the tests of the crate that holds the back end.
//!
//! A function panics at the first difference, as tests do, and if a completion is ten seconds late. Each opens
//! stores of its own by a [`Factory`]; `now` is the time at which everything happens. Limits are tried out, so the
//! factory's stores should have low ones, but room for 64 KiB and eight dedup ids.
//!
//! Alone in this crate it parks its thread, to wait for back ends that work on others.

mod fabric;
mod journal;
mod kv;

use std::{
    collections::VecDeque,
    num::NonZeroU16,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use bytes::Bytes;

use super::{Durability, Journal, Kv, Page};
use crate::shard::Ticket;

pub use fabric::{FabricFactory, fabric, fabric_frames, fabric_limits, fabric_membership, fabric_requests};
pub use journal::{
    journal, journal_atomic, journal_crash, journal_crash_in_flight, journal_dedup, journal_entries,
    journal_in_flight, journal_limits, journal_order, journal_read, journal_read_after_commit,
    journal_read_keep, journal_tail, journal_tail_waits, journal_trim,
};
pub use kv::{kv, kv_compare_and_set, kv_crash, kv_in_flight, kv_limits, kv_scan, kv_watch};

/// Makes the stores to be tested.
pub trait Factory {
    /// A store: what its handles share.
    type Store;
    /// A handle on its log.
    type Journal: Journal;
    /// A handle on its entries.
    type Kv: Kv;

    /// A new store without content.
    fn open(&mut self) -> Self::Store;

    /// Another handle on its log.
    fn journal(&mut self, store: &Self::Store) -> Self::Journal;

    /// Another handle on its entries.
    fn kv(&mut self, store: &Self::Store) -> Self::Kv;

    /// Ends all work on the store as `kill -9` would, whatever is in flight, and opens it again. Its handles were
    /// dropped just before. `None`: the store is volatile; its durability must be [`Durability::None`].
    fn crash(&mut self, store: Self::Store) -> Option<Self::Store>;
}

fn check_crash(durability: Durability, is_volatile: bool) {
    assert_eq!(
        durability == Durability::None,
        is_volatile,
        "a store of durability {durability:?} survives the end of its process unless that is none"
    );
}

/// One handle, its requests, and what has completed.
struct Caller<S, Q, A> {
    store: S,
    submit: fn(&mut S, &mut VecDeque<(Ticket, Q)>),
    poll: fn(&mut S, &Waker) -> Option<(Ticket, A)>,
    tickets: u64,
    done: VecDeque<(Ticket, A)>,
}

impl<S, Q, A> Caller<S, Q, A> {
    fn send(&mut self, request: Q) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let mut requests = VecDeque::from([(ticket, request)]);
        (self.submit)(&mut self.store, &mut requests);
        assert!(
            requests.is_empty(),
            "a request was not taken though there was room"
        );
        ticket
    }

    /// The answer to one request; those of others are kept.
    fn answer(&mut self, ticket: Ticket) -> A {
        loop {
            if let Some(at) = self.done.iter().position(|(done, _)| *done == ticket) {
                let (_, answer) = self.done.remove(at).expect("it was just found there");
                return answer;
            }
            let completion = wait(|waker| (self.poll)(&mut self.store, waker));
            assert!(
                (1..=self.tickets).contains(&completion.0.0)
                    && self.done.iter().all(|done| done.0 != completion.0),
                "{:?} was not asked, or is answered twice",
                completion.0
            );
            self.done.push_back(completion);
        }
    }

    /// The next completions, in the order in which they come.
    fn completions(&mut self, count: usize) -> Vec<(Ticket, A)> {
        assert!(self.done.is_empty(), "nothing else is waited for");
        (0..count)
            .map(|_| wait(|waker| (self.poll)(&mut self.store, waker)))
            .collect()
    }

    fn ask(&mut self, request: Q) -> A {
        let ticket = self.send(request);
        self.answer(ticket)
    }

    /// Nothing is to be told until `write`, and then the waker is used, without another poll.
    fn check_wake<T>(&mut self, write: impl FnOnce() -> T) -> T {
        let unpark = Unpark::new();
        let waker = Waker::from(Arc::clone(&unpark));
        assert!(
            (self.poll)(&mut self.store, &waker).is_none(),
            "nothing has happened"
        );
        let written = write();
        // Another waker of this thread may have left its mark: two rounds without being meant are enough.
        for _ in 0..3 {
            if unpark.woken.load(Ordering::Acquire) {
                return written;
            }
            thread::park_timeout(Duration::from_secs(10));
        }
        panic!("not woken");
    }

    fn has_answered(&self, ticket: Ticket) -> bool {
        self.done.iter().any(|(done, _)| *done == ticket)
    }

    /// Asks more than fits at once: exactly `in_flight_max` are taken, and each polled completion makes room.
    fn check_in_flight(&mut self, in_flight_max: usize, request: impl Fn() -> Q) {
        let mut requests: VecDeque<_> = (0..in_flight_max as u64 + 3)
            .map(|number| (Ticket(number), request()))
            .collect();
        (self.submit)(&mut self.store, &mut requests);
        assert_eq!(requests.len(), 3, "in_flight_max requests are taken");
        assert_eq!(requests[0].0, Ticket(in_flight_max as u64), "from the front");
        for left in (0..3).rev() {
            wait(|waker| (self.poll)(&mut self.store, waker));
            (self.submit)(&mut self.store, &mut requests);
            assert_eq!(requests.len(), left, "a completion makes room for one");
        }
        for _ in 0..in_flight_max {
            wait(|waker| (self.poll)(&mut self.store, waker));
        }
        assert!((self.poll)(&mut self.store, Waker::noop()).is_none());
    }
}

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Unpark {
    fn new() -> Arc<Unpark> {
        Arc::new(Unpark {
            thread: thread::current(),
            woken: AtomicBool::new(false),
        })
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Polls until there is something, and again only when woken.
fn wait<T>(mut poll: impl FnMut(&Waker) -> Option<T>) -> T {
    let waker = Waker::from(Unpark::new());
    // A wake-up that brings nothing is allowed; wake-ups without end are not.
    for _ in 0..1000 {
        if let Some(found) = poll(&waker) {
            return found;
        }
        thread::park_timeout(Duration::from_secs(10));
    }
    panic!("no completion");
}

fn page(items_max: u16, bytes_max: usize) -> Page {
    Page {
        items_max: NonZeroU16::new(items_max).expect("no test asks for empty pages"),
        bytes_max,
    }
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}
