//! A peer without a protocol: it passes on what it is given to ask, and keeps what it hears.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use broker_core::{Effects, Event, LinkId, Peer, Request, Timestamp};
use testkit::Node;

#[derive(Debug, Default)]
struct Queues {
    requests: Vec<Request>,
    events: VecDeque<Event>,
}

/// The other end of a [`Wire`].
#[derive(Clone, Debug)]
pub(super) struct Line {
    queues: Arc<Mutex<Queues>>,
    pub(super) link: LinkId,
}

struct Wire(Arc<Mutex<Queues>>);

impl Line {
    pub(super) fn open(node: &mut Node) -> Line {
        let queues = Arc::<Mutex<Queues>>::default();
        let link = node.open(Wire(Arc::clone(&queues)));
        Line { queues, link }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("nothing panics while it is locked")
    }

    pub(super) fn ask(&self, node: &mut Node, request: Request) {
        self.lock().requests.push(request);
        node.datagram(self.link, b"!");
    }

    pub(super) fn hear(&self) -> Option<Event> {
        self.lock().events.pop_front()
    }
}

impl Peer for Wire {
    fn handle_input(&mut self, _: Timestamp, input: &[u8], effects: &mut Effects<'_>) -> usize {
        let mut queues = self.0.lock().expect("nothing panics while it is locked");
        effects.requests.append(&mut queues.requests);
        input.len()
    }

    fn handle_event(&mut self, _: Timestamp, event: Event, _: &mut Effects<'_>) {
        let mut queues = self.0.lock().expect("nothing panics while it is locked");
        queues.events.push_back(event);
    }

    fn handle_timeout(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn handle_closed(&mut self, _: Timestamp, _: &mut Effects<'_>) {}

    fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}
