//! What the broker sends and no stream of the application takes.

use std::collections::BTreeSet;

use broker_core::SubscriptionIds;

use super::super::queue::{Item, Queue};

/// Filters that a client with a resumed session has given up, of which the broker may still send what waited.
const RELEASED_MAX: usize = 4096;

/// Deliveries that no stream of the application claims.
///
/// Those of a subscription that the session has from before, or that was detached, wait unacknowledged (so there are
/// at most as many as the client's receive maximum) until the application subscribes to the filter again or
/// unsubscribes from it. Others are acknowledged and counted.
#[derive(Default)]
pub(super) struct Unclaimed {
    held: Vec<(SubscriptionIds, Item)>,
    /// The session is one from before: it may have subscriptions that this client has not made.
    resumed: bool,
    /// Subscriptions that the client had and gave up.
    released: BTreeSet<u32>,
    /// Subscriptions that the client left to the session.
    detached: BTreeSet<u32>,
}

impl Unclaimed {
    pub(super) fn new(resumed: bool) -> Unclaimed {
        Unclaimed {
            resumed,
            ..Unclaimed::default()
        }
    }

    /// Keeps the delivery if its subscription may still be taken up; if not, letting it go acknowledges it.
    pub(super) fn hold(&mut self, ids: SubscriptionIds, item: Item) -> bool {
        let is_held = item.ticket.is_some() && ids.iter().any(|id| self.is_awaited(*id));
        if is_held {
            self.held.push((ids, item));
        }
        is_held
    }

    /// The stream ends, the subscription stays.
    pub(super) fn detach(&mut self, id: u32, queue: &Queue) {
        self.detached.insert(id);
        self.give_back(id, queue);
    }

    fn is_awaited(&self, id: u32) -> bool {
        self.detached.contains(&id) || (self.resumed && !self.released.contains(&id))
    }

    /// The application subscribes: it gets what was held, each message with the first subscription that claims it.
    pub(super) fn claim(&mut self, id: u32, queue: &Queue) {
        self.detached.remove(&id);
        self.released.remove(&id);
        for (_, item) in self.held.extract_if(.., |(ids, _)| ids.contains(&id)) {
            queue.push(item);
        }
    }

    /// The application has no stream after all: what it has not taken waits again.
    pub(super) fn give_back(&mut self, id: u32, queue: &Queue) {
        for item in queue.drain() {
            if item.ticket.is_some() {
                self.detached.insert(id);
                self.held.push((SubscriptionIds::from_slice(&[id]), item));
            }
        }
    }

    /// The application wants nothing of this subscription: letting go of what is held acknowledges it.
    pub(super) fn release(&mut self, id: u32) {
        self.detached.remove(&id);
        if self.resumed && self.released.len() < RELEASED_MAX {
            self.released.insert(id);
        } else {
            // Nobody gives up thousands of subscriptions before taking up those of the session again.
            self.resumed = false;
            self.released.clear();
        }
        let (detached, resumed, released) = (&self.detached, self.resumed, &self.released);
        let is_awaited = |id: &u32| detached.contains(id) || (resumed && !released.contains(id));
        self.held.retain(|(ids, _)| ids.iter().any(is_awaited));
    }
}
