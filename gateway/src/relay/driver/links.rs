//! The table of peers, by link and by whom they speak with.

use std::collections::{HashMap, VecDeque};

use broker_core::{Close, Effects, LinkId, Outbox, Peer, Remote, Request, Timestamp, timer::TimerQueue};

/// Entries of peers that have ended or gone on, which are not worth being sought out.
const STALE: usize = 64;

/// A peer.
struct Link {
    peer: Box<dyn Peer>,
    /// Its socket, and whom it speaks with; the one that takes what needs no connection (QoS −1) speaks with nobody.
    place: (usize, Option<Remote>),
    /// A timer is armed for this time or an earlier one.
    armed: Timestamp,
    /// More than its first datagram has come of it.
    has_gone_on: bool,
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
    /// By socket: how many there are.
    counts: Vec<usize>,
    /// By socket: those that may be false addresses, the oldest first, and some others.
    newcomers: Vec<VecDeque<LinkId>>,
}

impl Links {
    pub(super) fn new(sockets: usize) -> Links {
        Links {
            counts: vec![0; sockets],
            newcomers: vec![VecDeque::new(); sockets],
            links: HashMap::new(),
            by_place: HashMap::new(),
            timers: TimerQueue::new(),
            opened: 0,
        }
    }

    /// Peers of this socket, the common one included.
    pub(super) fn count(&self, socket: usize) -> usize {
        self.counts[socket]
    }

    /// Another datagram of its client has come.
    pub(super) fn go_on(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.has_gone_on = true;
        }
    }

    /// One that has just been opened, by one datagram whose address may be false: it gives way to others if nothing more
    /// comes of it.
    pub(super) fn enter_newcomer(&mut self, id: LinkId, socket: usize) {
        let (links, newcomers) = (&self.links, &mut self.newcomers[socket]);
        newcomers.push_back(id);
        if newcomers.len() > 2 * self.counts[socket] + STALE {
            newcomers.retain(|id| links.get(id).is_some_and(|link| !link.has_gone_on));
            newcomers.shrink_to(2 * newcomers.len());
        }
    }

    /// The oldest of the socket's peers of which only one datagram has come. It is named but once.
    pub(super) fn pop_newcomer(&mut self, socket: usize) -> Option<LinkId> {
        let links = &self.links;
        let is_new = |id: &LinkId| links.get(id).is_some_and(|link| !link.has_gone_on);
        let newcomers = &mut self.newcomers[socket];
        std::iter::from_fn(|| newcomers.pop_front()).find(is_new)
    }

    pub(super) fn find(&self, place: &(usize, Option<Remote>)) -> Option<LinkId> {
        self.by_place.get(place).copied()
    }

    pub(super) fn insert(&mut self, peer: Box<dyn Peer>, place: (usize, Option<Remote>)) -> LinkId {
        self.opened += 1;
        let id = LinkId(self.opened);
        self.by_place.insert(place.clone(), id);
        self.counts[place.0] += 1;
        let link = Link {
            peer,
            place,
            armed: Timestamp::NEVER,
            has_gone_on: false,
        };
        self.links.insert(id, link);
        id
    }

    pub(super) fn contains(&self, id: LinkId) -> bool {
        self.links.contains_key(&id)
    }

    pub(super) fn remove(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            self.by_place.remove(&link.place);
            self.counts[link.place.0] -= 1;
        }
    }

    /// Calls a peer. One that ends is forgotten.
    pub(super) fn call(&mut self, id: LinkId, call: impl FnOnce(&mut dyn Peer, &mut Effects<'_>)) -> Left {
        let mut left = Left::default();
        let Some(link) = self.links.get_mut(&id) else {
            return left;
        };
        let mut close = None;
        let mut effects = Effects {
            wire: &mut left.wire,
            requests: &mut left.requests,
            close: &mut close,
        };
        call(&mut *link.peer, &mut effects);
        left.place = Some(link.place.clone());
        if let Some(close) = close {
            left.closed = Some((close, link.peer.client_id().map(str::to_owned)));
            self.remove(id);
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

#[cfg(test)]
mod tests {
    use broker_core::Event;

    use super::*;

    struct Nobody;

    impl Peer for Nobody {
        fn handle_input(&mut self, _: Timestamp, input: &[u8], _: &mut Effects<'_>) -> usize {
            input.len()
        }

        fn handle_event(&mut self, _: Timestamp, _: Event, _: &mut Effects<'_>) {}

        fn handle_timeout(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

        fn handle_closed(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

        fn poll_timeout(&self) -> Option<Timestamp> {
            None
        }
    }

    fn open(links: &mut Links, socket: usize, port: u16) -> LinkId {
        let address = ([10, 0, 0, 1], port).into();
        let remote = Remote { address, node: None };
        let id = links.insert(Box::new(Nobody), (socket, Some(remote)));
        links.enter_newcomer(id, socket);
        id
    }

    #[test]
    fn the_oldest_that_has_not_gone_on_gives_way() {
        let mut links = Links::new(2);
        let ids: Vec<LinkId> = (1..=4).map(|port| open(&mut links, 1, port)).collect();
        assert_eq!((links.count(0), links.count(1)), (0, 4));
        links.go_on(ids[0]);
        links.remove(ids[1]);
        assert_eq!(links.count(1), 3);
        assert_eq!(links.pop_newcomer(0), None);
        assert_eq!(links.pop_newcomer(1), Some(ids[2]));
        assert_eq!(links.pop_newcomer(1), Some(ids[3]));
        assert_eq!(links.pop_newcomer(1), None);
    }

    #[test]
    fn those_that_are_gone_are_not_remembered() {
        let mut links = Links::new(1);
        for port in 1..=10_000 {
            let id = open(&mut links, 0, port);
            links.remove(id);
        }
        assert!(links.newcomers[0].len() <= STALE + 1);
    }
}
