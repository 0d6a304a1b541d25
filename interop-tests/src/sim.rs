//! A whole node in one thread and in virtual time: its shards, the queues between them, a store and a control plane that
//! take their time. What may happen in any order happens in an order that the seed chooses.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU16,
    sync::Arc,
    task::Waker,
};

use broker_core::{
    Connect, Event, LinkId, Request, ShardId, Timestamp,
    shard::{Batch, Common, Output, Question, Shard, ShardSettings, Ticket, home, shard_of},
    store::{
        Entry, Journal, JournalReply, JournalRequest, Kv, KvReply, KvRequest, Page, Prefix, Sequence,
        memory::MemoryLimits,
    },
};

use testkit::{Random, TestJournal, TestStore};

/// The shards of one node, and everything that is under way between them.
#[derive(Debug)]
pub struct Node {
    shards: Vec<Shard>,
    /// Commits wait in it until it is their turn.
    store: TestStore,
    /// Each shard's handle on the store, and what the handle has not taken yet.
    journals: Vec<(TestJournal, VecDeque<(Ticket, JournalRequest)>)>,
    /// Whether a shard has done anything since the end of its last turn.
    busy: Vec<bool>,
    common: Arc<Common>,
    now: Timestamp,
    random: Random,
    /// Batches under way, by sender and receiver. Between two shards the order is kept.
    queues: BTreeMap<(ShardId, ShardId), VecDeque<Batch>>,
    questions: Vec<(ShardId, Ticket, Box<Question>)>,
    homes: BTreeMap<LinkId, ShardId>,
    links: u64,
    /// Links whose sockets are not read.
    held: BTreeSet<LinkId>,
    is_stalled: bool,
    events: VecDeque<(LinkId, Event)>,
}

/// What may happen next.
#[derive(Clone, Copy)]
enum Move {
    /// A shard ends its turn: its requests to the store and its batches leave.
    Flush(usize),
    /// The store completes a commit.
    Commit,
    /// A shard is told the next thing that the store has for it.
    Stored(usize),
    /// The oldest batch from one shard to another arrives.
    Arrive(ShardId, ShardId),
    /// The control plane answers the question at this place.
    Answer(usize),
}

impl Node {
    /// A node of `shards` shards at the time `now`.
    pub fn new(shards: u16, common: Common, now: Timestamp, seed: u64) -> Node {
        let store = TestStore::new(MemoryLimits::default());
        store.hold(true);
        let mut node = Node {
            shards: Vec::new(),
            store,
            journals: Vec::new(),
            busy: Vec::new(),
            common: Arc::new(common),
            now,
            random: Random::new(seed),
            queues: BTreeMap::new(),
            questions: Vec::new(),
            homes: BTreeMap::new(),
            links: 0,
            held: BTreeSet::new(),
            is_stalled: false,
            events: VecDeque::new(),
        };
        node.start(shards);
        node.open();
        node
    }

    /// The process is killed: connections, batches and questions are gone without a word, and of what was not
    /// committed some is done and some is not, as the seed chooses. [`Node::start`] follows; time may pass before.
    pub fn crash(&mut self) {
        self.store.crash_anywhere(&mut self.random);
        self.shards.clear();
        self.journals.clear();
        self.busy.clear();
        self.queues.clear();
        self.questions.clear();
        self.homes.clear();
        self.held.clear();
        self.events.clear();
    }

    /// Makes so many shards from what the store has. Nobody may connect before [`Node::open`].
    pub fn start(&mut self, shards: u16) {
        let make = |id| {
            Shard::new(ShardSettings {
                id: ShardId(id),
                shards,
                common: Arc::clone(&self.common),
                seed: 1,
            })
        };
        self.shards = (0..shards).map(make).collect();
        let journal = |_| (self.store.journal(), VecDeque::new());
        self.journals = (0..shards).map(journal).collect();
        self.busy = vec![true; usize::from(shards)];
        let mut entries = self.entries();
        while !entries.is_empty() {
            // A scan has no particular order.
            let entry = entries.swap_remove(self.random.below(entries.len()));
            if let Some(home) = home(&entry, shards) {
                let restored = self.shards[usize::from(home.0)].restore(self.now, &entry);
                restored.expect("a shard reads what shards have written");
            }
        }
        for id in 0..shards {
            self.shards[usize::from(id)].begin(self.now);
            self.drain(ShardId(id));
        }
    }

    /// Waits until every shard knows the routes of the others, then lets clients in.
    pub fn open(&mut self) {
        while !self.shards.iter().all(Shard::is_settled) && self.step() {}
        for shard in &mut self.shards {
            shard.open(self.now);
        }
    }

    /// The store; whoever completes commits or lets them fail does so between two steps.
    pub fn store(&self) -> &TestStore {
        &self.store
    }

    /// All entries that the store has.
    pub fn entries(&self) -> Vec<Entry> {
        entries(&self.store, self.now)
    }

    /// Records of the journal from a place on, of the first thousand.
    pub fn records_from(&self, from: Sequence) -> usize {
        let mut journal = self.store.journal();
        let page = Page {
            items_max: NonZeroU16::new(1000).expect("a thousand"),
            bytes_max: usize::MAX,
        };
        let wait = false;
        let request = JournalRequest::Tail { from, page, wait };
        journal.submit(self.now, &mut VecDeque::from([(Ticket(0), request)]));
        match journal.poll(self.now, Waker::noop()) {
            Some((_, Ok(JournalReply::Records { records, .. }))) => records.len(),
            other => panic!("memory answers at once, not {other:?}"),
        }
    }

    /// Commits last very long from now on: none completes. Or they complete again.
    pub fn stall(&mut self, is_stalled: bool) {
        self.is_stalled = is_stalled;
    }

    /// True if the link's socket is not to be read, because the store is too slow for what it brings.
    pub fn is_held(&self, link: LinkId) -> bool {
        self.held.contains(&link)
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
        let shards = 0..self.shards.len();
        moves.extend(shards.clone().filter(|&at| self.busy[at]).map(Move::Flush));
        moves.extend((!self.is_stalled && self.store.pending() > 0).then_some(Move::Commit));
        moves.extend(shards.map(Move::Stored));
        moves.extend(self.queues.keys().map(|&(from, to)| Move::Arrive(from, to)));
        moves.extend((0..self.questions.len()).map(Move::Answer));
        // A shard may have nothing to be told: then another thing happens.
        while !moves.is_empty() {
            let next = moves.swap_remove(self.random.below(moves.len()));
            if self.make(next) {
                return true;
            }
        }
        false
    }

    /// False if there was nothing to do.
    fn make(&mut self, next: Move) -> bool {
        match next {
            Move::Flush(at) => return self.flush(at),
            Move::Commit => return self.store.complete_any(&mut self.random),
            Move::Stored(at) => return self.stored(at),
            Move::Arrive(from, to) => self.arrive(from, to),
            Move::Answer(at) => {
                let (shard, ticket, question) = self.questions.swap_remove(at);
                let reply = question.answer(self.now, &self.common);
                self.shards[usize::from(shard.0)].handle_reply(self.now, ticket, reply);
                self.drain(shard);
            }
        }
        true
    }

    /// Ends a shard's turn. False if nothing leaves.
    fn flush(&mut self, at: usize) -> bool {
        let shard = &mut self.shards[at];
        let (journal, requests) = &mut self.journals[at];
        shard.take_store_requests(requests);
        let gathered = requests.len();
        journal.submit(self.now, requests);
        self.busy[at] = !requests.is_empty();
        let mut is_any = requests.len() < gathered;
        let from = shard.id();
        for (to, batch) in shard.take_batches() {
            self.queues.entry((from, to)).or_default().push_back(batch);
            is_any = true;
        }
        is_any
    }

    fn stored(&mut self, at: usize) -> bool {
        let Some((ticket, result)) = self.journals[at].0.poll(self.now, Waker::noop()) else {
            return false;
        };
        self.shards[at].handle_stored(self.now, ticket, result);
        let id = self.shards[at].id();
        self.drain(id);
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
        self.busy[usize::from(shard.0)] = true;
        while let Some(output) = self.shards[usize::from(shard.0)].poll_output() {
            match output {
                Output::Deliver(link, event) => self.events.push_back((link, event)),
                Output::Ask(ticket, question) => self.questions.push((shard, ticket, question)),
                Output::Hold(link) => {
                    self.held.insert(link);
                }
                Output::Release(link) => {
                    self.held.remove(&link);
                }
            }
        }
    }
}

/// All entries of a store.
fn entries(store: &TestStore, now: Timestamp) -> Vec<Entry> {
    let mut kv = store.kv();
    let request = KvRequest::Scan {
        prefix: Prefix::all(),
        after: None,
        page: Page {
            items_max: NonZeroU16::MAX,
            bytes_max: usize::MAX,
        },
    };
    kv.submit(now, &mut VecDeque::from([(Ticket(0), request)]));
    match kv.poll(now, Waker::noop()) {
        Some((
            _,
            Ok(KvReply::Scanned {
                entries, next: None, ..
            }),
        )) => entries,
        other => panic!("a scan in memory brings entries at once, not {other:?}"),
    }
}
