//! The table of peers, by link and by whom they speak with.

use std::collections::HashMap;

use broker_core::{Close, Effects, LinkId, Outbox, Peer, Remote, Request, Timestamp, timer::TimerQueue};

/// A peer.
struct Link {
    peer: Box<dyn Peer>,
    /// Its socket, and whom it speaks with; the one that takes what needs no connection (QoS −1) speaks with nobody.
    place: (usize, Option<Remote>),
    /// A timer is armed for this time or an earlier one.
    armed: Timestamp,
}

/// What a call of a peer has left to be done.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Datagrams, for whom it speaks with.
    pub(super) wire: Outbox,
    pub(super) requests: Vec<Request>,
    /// It has ended, with its client id if it had one.
    pub(super) closed: Option<(Close, Option<String>)>,
    pub(super) place: Option<(usize, Option<Remote>)>,
}

/// All peers.
pub(super) struct Links {
    links: HashMap<LinkId, Link>,
    by_place: HashMap<(usize, Option<Remote>), LinkId>,
    timers: TimerQueue<LinkId>,
    opened: u64,
}

impl Links {
    pub(super) fn new() -> Links {
        Links {
            links: HashMap::new(),
            by_place: HashMap::new(),
            timers: TimerQueue::new(),
            opened: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn find(&self, place: &(usize, Option<Remote>)) -> Option<LinkId> {
        self.by_place.get(place).copied()
    }

    pub(super) fn insert(&mut self, peer: Box<dyn Peer>, place: (usize, Option<Remote>)) -> LinkId {
        self.opened += 1;
        let id = LinkId(self.opened);
        self.by_place.insert(place.clone(), id);
        let armed = Timestamp::NEVER;
        self.links.insert(id, Link { peer, place, armed });
        id
    }

    pub(super) fn contains(&self, id: LinkId) -> bool {
        self.links.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            self.by_place.remove(&link.place);
        }
    }

    /// Calls a peer. One that ends is forgotten.
    pub(super) fn call(&mut self, id: LinkId, call: impl FnOnce(&mut dyn Peer, &mut Effects<'_>)) -> Left {
        let mut left = Left::default();
        let Some(link) = self.links.get_mut(&id) else {
            return left;
        };
        let client_id = link.peer.client_id().map(str::to_owned);
        let mut close = None;
        let mut effects = Effects {
            wire: &mut left.wire,
            requests: &mut left.requests,
            close: &mut close,
        };
        call(&mut *link.peer, &mut effects);
        left.place = Some(link.place.clone());
        if let Some(close) = close {
            left.closed = Some((close, client_id));
            self.by_place.remove(&link.place);
            self.links.remove(&id);
        } else if let Some(at) = link.peer.poll_timeout()
            && at < link.armed
        {
            link.armed = at;
            self.timers.arm(at, id);
        }
        left
    }

    /// When [`Links::pop_due`] has something.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    /// A peer whose time may have come. If it has not, it is armed again.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<LinkId> {
        while let Some(id) = self.timers.pop_due(now) {
            let Some(link) = self.links.get_mut(&id) else {
                continue;
            };
            // Left over from before it was armed for a later time.
            if link.armed > now {
                continue;
            }
            link.armed = Timestamp::NEVER;
            match link.peer.poll_timeout() {
                Some(at) if at <= now => return Some(id),
                Some(at) => {
                    link.armed = at;
                    self.timers.arm(at, id);
                }
                None => {}
            }
        }
        None
    }
}
