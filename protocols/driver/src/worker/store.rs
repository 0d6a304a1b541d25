//! What the shard stores, and what has been stored.
//!
//! A turn of the shard is one commit. So its requests are taken where its batches leave, and what the store has done
//! is looked at before the mail of other workers: that mail may speak of it.

use std::{collections::VecDeque, task::Waker};

use broker_core::{
    LinkId,
    shard::Ticket,
    store::{Journal, JournalRequest},
};

use super::Worker;

/// Pages of the log that a shard takes at the start of one turn. What is left follows in the next turns.
const CATCH_UP_ROUNDS: usize = 4;

/// A worker's end of the node's store.
pub(super) struct Stored {
    journal: Box<dyn Journal>,
    /// What the journal has not taken yet, in order. Bounded by the shard, which holds the links that cause it.
    waiting: VecDeque<(Ticket, JournalRequest)>,
    /// Requests that the journal has.
    in_flight: usize,
    /// Commits that have not completed, waiting ones too, in their order, in which they complete.
    commits: VecDeque<Ticket>,
    /// The journal may have completions, and nobody will be woken for them.
    is_ready: bool,
    /// Wakes the worker.
    waker: Waker,
}

impl Stored {
    pub(super) fn new(journal: Box<dyn Journal>) -> Stored {
        Stored {
            journal,
            waiting: VecDeque::new(),
            in_flight: 0,
            commits: VecDeque::new(),
            is_ready: false,
            waker: Waker::noop().clone(),
        }
    }

    /// A turn begins; completions wake it from now on.
    pub(super) fn begin_turn(&mut self, waker: &Waker) {
        self.waker.clone_from(waker);
        self.is_ready = self.in_flight > 0;
    }

    /// Another look is due, for which no waker was left.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Everything that was to be committed is.
    pub(super) fn is_settled(&self) -> bool {
        self.commits.is_empty()
    }
}

impl Worker {
    /// Passes on everything that the store has done, and what the shard then asks for if that is there already: the
    /// shard follows the log page by page, and is at its end before it looks at anything else.
    pub(super) fn catch_up(&mut self) {
        for _ in 0..CATCH_UP_ROUNDS {
            if !self.poll_stored() {
                return;
            }
            self.submit_stored();
        }
    }

    /// Passes on to the shard what the store has done. What it does meanwhile is left for the next call. True if there
    /// was something, so that there may be batches to send.
    pub(super) fn poll_stored(&mut self) -> bool {
        if !self.stored.is_ready {
            return false;
        }
        let completions_max = self.stored.in_flight;
        for polled in 0..completions_max {
            let stored = &mut self.stored;
            let Some((ticket, result)) = stored.journal.poll(self.now, &stored.waker) else {
                stored.is_ready = false;
                return polled > 0;
            };
            stored.in_flight -= 1;
            if stored.commits.front() == Some(&ticket) {
                stored.commits.pop_front();
            }
            self.shard.handle_stored(self.now, ticket, result);
            self.drain_shard();
        }
        self.stored.is_ready = self.stored.in_flight > 0;
        completions_max > 0
    }

    /// Hands the journal what the shard wants of it, as far as it takes it.
    pub(super) fn submit_stored(&mut self) {
        let stored = &mut self.stored;
        let known = stored.waiting.len();
        self.shard.take_store_requests(&mut stored.waiting);
        if stored.waiting.is_empty() {
            return;
        }
        for (ticket, request) in stored.waiting.iter().skip(known) {
            if let JournalRequest::Commit { .. } = request {
                stored.commits.push_back(*ticket);
            }
        }
        let waiting = stored.waiting.len();
        stored.journal.submit(self.now, &mut stored.waiting);
        let submitted = waiting - stored.waiting.len();
        stored.in_flight += submitted;
        stored.is_ready |= submitted > 0;
        self.counters.store_requests.add(submitted as u64);
    }

    /// The store is slow: the link's client waits until it has caught up.
    pub(super) fn hold(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && !std::mem::replace(&mut link.held, true)
        {
            self.counters.links_held.add(1);
        }
    }

    /// The link is read again.
    pub(super) fn release(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id)
            && std::mem::take(&mut link.held)
        {
            self.touch(id);
        }
    }

    pub(super) fn is_held(&self, id: LinkId) -> bool {
        self.links.get(id).is_some_and(|link| link.held)
    }
}
