//! A whole node in one thread and in virtual time: its shards, the queues between them, and a control plane that takes
//! its time. What may happen in any order happens in an order that the seed chooses.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use broker_core::{
    Connect, Event, LinkId, Request, ShardId, Timestamp,
    shard::{Batch, Common, Output, Question, Shard, ShardSettings, Ticket, shard_of},
};

use testkit::Random;

/// The shards of one node, and everything that is under way between them.
#[derive(Debug)]
pub struct Node {
    shards: Vec<Shard>,
    common: Arc<Common>,
    now: Timestamp,
    random: Random,
    /// Batches under way, by sender and receiver. Between two shards the order is kept.
    queues: BTreeMap<(ShardId, ShardId), VecDeque<Batch>>,
    questions: Vec<(ShardId, Ticket, Box<Question>)>,
    homes: BTreeMap<LinkId, ShardId>,
    links: u64,
    events: VecDeque<(LinkId, Event)>,
}

/// What may happen next.
#[derive(Clone, Copy)]
enum Move {
    /// A shard ends its turn.
    Flush(usize),
    /// The oldest batch from one shard to another arrives.
    Arrive(ShardId, ShardId),
    /// The control plane answers the question at this place.
    Answer(usize),
}

impl Node {
    /// A node of `shards` shards at the time `now`.
    pub fn new(shards: u16, common: Common, now: Timestamp, seed: u64) -> Node {
        let common = Arc::new(common);
        let make = |id| {
            Shard::new(ShardSettings {
                id: ShardId(id),
                shards,
                common: Arc::clone(&common),
                seed,
            })
        };
        Node {
            shards: (0..shards).map(make).collect(),
            common: Arc::clone(&common),
            now,
            random: Random::new(seed),
            queues: BTreeMap::new(),
            questions: Vec::new(),
            homes: BTreeMap::new(),
            links: 0,
            events: VecDeque::new(),
        }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The shards, to be looked at.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Connections so far; the next one has the number after it.
    pub fn links(&self) -> u64 {
        self.links
    }

    /// A client connects, on the shard that its identifier belongs to; without one, on any.
    pub fn connect(&mut self, connect: Connect) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        let count = u16::try_from(self.shards.len()).expect("made from a u16");
        let home = if connect.client_id.is_empty() {
            ShardId(u16::try_from(self.random.below(self.shards.len())).expect("less than a u16"))
        } else {
            shard_of(&connect.client_id, count)
        };
        self.homes.insert(link, home);
        self.handle(link, Request::Connect(Box::new(connect)));
        link
    }

    /// A request of a link's peer.
    pub fn handle(&mut self, link: LinkId, request: Request) {
        if let Some(&home) = self.homes.get(&link) {
            self.shards[usize::from(home.0)].handle(self.now, link, request);
            self.drain(home);
        }
    }

    /// The link's bytes wait, or have gone.
    pub fn congest(&mut self, link: LinkId, congested: bool) {
        if let Some(&home) = self.homes.get(&link) {
            self.shards[usize::from(home.0)].handle_congestion(self.now, link, congested);
            self.drain(home);
        }
    }

    /// Replaces the configuration on every shard.
    pub fn reconfigure(&mut self, common: Common) {
        self.common = Arc::new(common);
        for shard in &mut self.shards {
            shard.reconfigure(Arc::clone(&self.common));
        }
    }

    /// The next event for a peer, in the order in which the shards made them.
    pub fn poll_event(&mut self) -> Option<(LinkId, Event)> {
        self.events.pop_front()
    }

    /// Lets one thing happen, chosen by the seed. False if nothing is under way.
    pub fn step(&mut self) -> bool {
        let mut moves = Vec::new();
        moves.extend(
            (0..self.shards.len())
                .filter(|&at| self.shards[at].has_batches())
                .map(Move::Flush),
        );
        moves.extend(self.queues.keys().map(|&(from, to)| Move::Arrive(from, to)));
        moves.extend((0..self.questions.len()).map(Move::Answer));
        if moves.is_empty() {
            return false;
        }
        match moves[self.random.below(moves.len())] {
            Move::Flush(at) => {
                let from = self.shards[at].id();
                for (to, batch) in self.shards[at].take_batches() {
                    self.queues.entry((from, to)).or_default().push_back(batch);
                }
            }
            Move::Arrive(from, to) => self.arrive(from, to),
            Move::Answer(at) => {
                let (shard, ticket, question) = self.questions.remove(at);
                let reply = question.answer(self.now, &self.common);
                self.shards[usize::from(shard.0)].handle_reply(self.now, ticket, reply);
                self.drain(shard);
            }
        }
        true
    }

    fn arrive(&mut self, from: ShardId, to: ShardId) {
        let Some(queue) = self.queues.get_mut(&(from, to)) else {
            return;
        };
        let batch = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&(from, to));
        }
        if let Some(batch) = batch {
            self.shards[usize::from(to.0)].handle_batch(self.now, from, batch);
            self.drain(to);
        }
    }

    /// The earliest deadline of all shards.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.shards.iter().filter_map(Shard::poll_timeout).min()
    }

    /// Sets the clock; it does not run backwards. Deadlines that pass are not acted on before [`Node::fire`].
    pub fn set_clock(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Lets one shard act on a deadline that has passed. False if none has.
    pub fn fire(&mut self) -> bool {
        let due: Vec<ShardId> = self
            .shards
            .iter()
            .filter(|shard| shard.poll_timeout().is_some_and(|at| at <= self.now))
            .map(Shard::id)
            .collect();
        if due.is_empty() {
            return false;
        }
        let shard = due[self.random.below(due.len())];
        self.shards[usize::from(shard.0)].handle_timeout(self.now);
        self.drain(shard);
        true
    }

    fn drain(&mut self, shard: ShardId) {
        while let Some(output) = self.shards[usize::from(shard.0)].poll_output() {
            match output {
                Output::Deliver(link, event) => self.events.push_back((link, event)),
                Output::Ask(ticket, question) => self.questions.push((shard, ticket, question)),
            }
        }
    }
}
