//! One shard of the broker: a pure state machine that owns the sessions of the clients of one worker.
//!
//! Values go in by the `handle_*` methods; what is to be done comes out of [`Shard::poll_output`] until it is empty,
//! and, once per turn of the worker's loop, out of [`Shard::take_batches`]. One procedure stands in one file.
//!
//! A client id belongs to one shard ([`shard_of`]): the worker that reads a CONNECT for another shard hands the
//! connection over to that shard's worker before it calls [`Shard::handle`]. So a session never moves within a
//! node, and a takeover is always a matter of one shard.

mod acknowledge;
mod asleep;
mod authenticate;
mod backlog;
mod ban;
mod batch;
mod census;
mod commit;
mod connect;
mod delayed;
mod deliver;
mod disconnect;
mod dormant;
mod ending;
mod exclusive;
mod fail;
mod flush;
mod group;
mod lease;
mod note;
mod owned;
mod peers;
mod points;
mod publish;
mod receive;
mod restore;
mod retain;
mod revive;
mod route;
mod shared;
mod subscribe;
mod subscription;
mod sweep;
mod tail;
#[cfg(test)]
mod tests;
mod timeout;
mod unsubscribe;

use std::{collections::VecDeque, hash::BuildHasher, sync::Arc};

use hashbrown::HashMap;
use slab::Slab;

use crate::{
    ClientId, Config, Event, LinkId, Message, ReasonCode, Request, ShardId, Timestamp,
    admission::{Admission, Banned},
    filter_index::FilterIndex,
    hooks::{HookEffects, Hooks},
    metrics::{Metrics, Stats},
    random::Random,
    retained::RetainedStore,
    session::{Session, SessionKey, Tenant},
    store::{Sequence, format::Token},
    timer::TimerQueue,
};

pub use authenticate::{Question, Reply};
use backlog::Asker;
pub use batch::Batch;
use batch::{Inbox, Outbound, RouteChange, ShardMessage};
pub use census::Census;
use commit::Commits;
use connect::Connecting;
use delayed::Delayed;
use ending::Endings;
use owned::OwnedGroups;
use receive::Receiver;
pub use restore::{RestoreError, home};
use restore::{Restoring, Settling};
use retain::Lookups;
use route::Route;
pub use route::SHARDS_MAX;
use subscribe::Operation;
use sweep::Sweep;
use tail::Tail;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// Names a question to the control plane, so that the answer finds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a shard wants done.
#[derive(Debug)]
pub enum Output {
    /// Hand the event to the peer of this link.
    Deliver(LinkId, Event),
    /// Answer the question by [`Shard::handle_reply`] with the same ticket.
    Ask(Ticket, Box<Question>),
    /// Read nothing more of this link: it adds to what the store is too slow for.
    Hold(LinkId),
    /// Go on reading it.
    Release(LinkId),
}

/// What all shards of a node have in common. Replaced as a whole when the configuration is reloaded.
#[derive(Debug, Default)]
pub struct Common {
    /// Limits and switches.
    pub config: Config,
    /// Who may connect, and what for.
    pub admission: Admission,
    /// Extensions.
    pub hooks: Hooks,
}

/// What makes up a shard.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Its number.
    pub id: ShardId,
    /// How many there are on this node, at most [`SHARDS_MAX`].
    pub shards: u16,
    /// Shared with the others.
    pub common: Arc<Common>,
    /// Source of everything random: assigned client ids, random members of shared groups.
    pub seed: u64,
}

/// One shard.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    shards: u16,
    common: Arc<Common>,
    metrics: Arc<Metrics>,
    stats: Arc<Stats>,
    random: Random,
    /// The latest time that any input brought.
    now: Timestamp,
    links: FastMap<LinkId, Link>,
    sessions: Slab<Tenant>,
    by_client: HashMap<ClientId, SessionKey, foldhash::quality::RandomState>,
    index: FilterIndex<Route>,
    retained: RetainedStore,
    banned: Banned,
    delayed: Delayed,
    /// Who holds the exclusive subscription on a topic that this shard keeps account of.
    exclusive: HashMap<Box<str>, ClientId, foldhash::quality::RandomState>,
    operations: FastMap<u64, Operation>,
    /// Whose retained messages are on their way.
    replays: FastMap<u64, SessionKey>,
    lookups: Lookups,
    /// Sessions that have more to send than one slice.
    ready: VecDeque<SessionKey>,
    /// When sessions have to be looked at; their real deadlines are looked up then.
    timers: TimerQueue<SessionKey>,
    /// When hooks want to be called; `NEVER` on all shards but the first.
    hooks_at: Timestamp,
    /// Deadlines that may still be acted on in this turn.
    timeouts: usize,
    /// What other shards sent and has not been looked at.
    inbox: Inbox,
    effects: HookEffects,
    /// Links that wait for the control plane.
    tickets: FastMap<Ticket, LinkId>,
    secret: u64,
    outputs: VecDeque<Output>,
    outbound: Outbound,
    /// Counts questions, operations and replays.
    numbers: u64,
    published: u64,
    commits: Commits,
    tail: Tail,
    /// Questions to the journal other than commits, by ticket.
    askers: FastMap<Ticket, Asker>,
    /// Sessions of which the store is to be told something.
    dirty: VecDeque<SessionKey>,
    /// Of these, those of which it is told with the turn's commit.
    flush_now: Vec<SessionKey>,
    /// When it is told of the others; `NEVER` if there is nothing to tell.
    flush_at: Timestamp,
    sweep: Sweep,
    endings: Endings,
    /// Entries of retained messages that this shard has changed itself, and where its change stands in the journal.
    corrections: HashMap<Box<str>, Sequence, foldhash::quality::RandomState>,
    /// By topic, the latest retained message that this shard keeps and has not come upon in the journal.
    early: HashMap<Box<str>, (u64, Timestamp), foldhash::quality::RandomState>,
    /// By shard, the highest number of a retained message that this one has come upon in the journal.
    followed: Vec<u64>,
    owned: OwnedGroups,
    /// What the store has told at the start.
    restoring: Option<Box<Restoring>>,
    settling: Option<Settling>,
    /// Between [`Shard::begin`] and [`Shard::open`]: nothing is due before everybody can be reached.
    is_starting: bool,
    /// Changes of routes announced to the other shards, and how many of them all have confirmed.
    routes_changed: u64,
    routes_confirmed: u64,
    receivers: Vec<Receiver>,
    /// The same of those whose clients sleep: one for each of their subscriptions.
    sleepers: Vec<Receiver>,
}

/// A link as its shard sees it.
#[derive(Debug)]
enum Link {
    Connecting(Box<Connecting>),
    Online(SessionKey),
}

/// The shard that a client id belongs to, of `shards` on this node. The same in every process.
pub fn shard_of(client_id: &str, shards: u16) -> ShardId {
    Token::of(client_id).shard(shards)
}

/// Spreads texts evenly over the shards. Not keyed, so that every shard and process agrees; who chooses its client
/// ids for it can gather its own load on one shard.
fn partition(text: &str, shards: u16) -> ShardId {
    let hash = foldhash::quality::FixedState::with_seed(0x7469_6465).hash_one(text);
    ShardId(u16::try_from(hash % u64::from(shards)).expect("less than a u16"))
}

impl Shard {
    /// A shard without sessions.
    ///
    /// # Panics
    /// If there are no shards, more than [`SHARDS_MAX`], or `id` is not one of them.
    pub fn new(settings: ShardSettings) -> Shard {
        let ShardSettings {
            id,
            shards,
            common,
            seed,
        } = settings;
        assert!(
            (1..=SHARDS_MAX).contains(&shards) && id.0 < shards,
            "shard {id:?} of {shards}"
        );
        Shard {
            id,
            shards,
            common,
            metrics: Arc::default(),
            stats: Arc::default(),
            random: Random::new(seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            now: Timestamp::default(),
            links: FastMap::default(),
            sessions: Slab::new(),
            by_client: HashMap::default(),
            index: FilterIndex::with_seed(seed),
            retained: RetainedStore::new(),
            banned: Banned::new(),
            delayed: Delayed::new(id),
            exclusive: HashMap::default(),
            operations: FastMap::default(),
            replays: FastMap::default(),
            lookups: Lookups::default(),
            ready: VecDeque::new(),
            timers: TimerQueue::new(),
            hooks_at: if id == ShardId(0) {
                Timestamp::default()
            } else {
                Timestamp::NEVER
            },
            timeouts: 0,
            inbox: Inbox::default(),
            effects: HookEffects::default(),
            tickets: FastMap::default(),
            secret: seed,
            outputs: VecDeque::new(),
            outbound: Outbound::new(id, shards),
            numbers: 0,
            published: 0,
            commits: Commits::default(),
            tail: Tail::default(),
            askers: FastMap::default(),
            dirty: VecDeque::new(),
            flush_now: Vec::new(),
            flush_at: Timestamp::NEVER,
            is_starting: false,
            sweep: Sweep::default(),
            endings: Endings::default(),
            corrections: HashMap::default(),
            early: HashMap::default(),
            followed: vec![0; usize::from(shards)],
            owned: OwnedGroups::default(),
            restoring: None,
            settling: None,
            routes_changed: 0,
            routes_confirmed: 0,
            receivers: Vec::new(),
            sleepers: Vec::new(),
        }
    }

    /// Its number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The shard that a connection with this client id belongs to. An empty id is this shard's: it will be
    /// assigned one that is.
    pub fn place(&self, client_id: &str) -> ShardId {
        if client_id.is_empty() {
            self.id
        } else {
            shard_of(client_id, self.shards)
        }
    }

    /// Its counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Its gauges.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Replaces limits, admission and hooks; sessions keep what they were admitted with.
    pub fn reconfigure(&mut self, common: Arc<Common>) {
        self.common = common;
        self.await_tick();
    }

    /// A request of a peer on this worker.
    pub fn handle(&mut self, now: Timestamp, link: LinkId, request: Request) {
        self.now = now;
        match (request, self.links.get(&link)) {
            (Request::Connect(connect), None) => self.connect(now, link, *connect),
            (Request::Auth(auth), Some(_)) => self.auth(now, link, *auth),
            (Request::Disconnect(disconnect), Some(_)) => self.disconnect(now, link, &disconnect),
            (request, Some(&Link::Online(key))) => self.handle_online(now, link, key, request),
            // The broker has closed the link, or the peer asks before it is admitted: nobody waits for an answer.
            _ => {}
        }
        self.apply_effects(now);
    }

    fn handle_online(&mut self, now: Timestamp, link: LinkId, key: SessionKey, request: Request) {
        match request {
            Request::Publish(publish) => self.publish(now, link, key, publish),
            Request::PubAck(packet_id, _) => self.puback(now, key, packet_id),
            Request::PubRec(packet_id, reason) => self.pubrec(now, link, key, packet_id, reason),
            Request::PubRel(packet_id, _) => self.pubrel(link, key, packet_id),
            Request::PubComp(packet_id, _) => self.pubcomp(now, key, packet_id),
            Request::Undeliverable(packet_id) => self.undeliverable(now, key, packet_id),
            Request::Subscribe(subscribe) => self.subscribe(now, link, key, *subscribe),
            Request::Unsubscribe(unsubscribe) => self.unsubscribe(now, link, key, *unsubscribe),
            Request::Note(number, value) => self.note(link, key, number, value),
            Request::SetWill(will) => self.set_will(link, key, will),
            Request::Connect(_) | Request::Auth(_) | Request::Disconnect(_) => {}
        }
    }

    /// Messages that another shard forwarded. They are handed out one by one as outputs are polled, so that what
    /// is said of congestion in between counts, and a batch never becomes events all at once.
    pub fn handle_batch(&mut self, now: Timestamp, from: ShardId, batch: Batch) {
        self.now = now;
        self.inbox.push(from, batch);
    }

    /// The answer to a question. An answer to a question that nobody waits for any more is dropped.
    pub fn handle_reply(&mut self, now: Timestamp, ticket: Ticket, reply: Reply) {
        self.now = now;
        self.authenticated(now, ticket, reply);
        self.apply_effects(now);
    }

    /// The link's client reads too slowly (`true`: bytes wait above the high-water mark) or has caught up.
    pub fn handle_congestion(&mut self, now: Timestamp, link: LinkId, congested: bool) {
        self.now = now;
        if let Some(&Link::Online(key)) = self.links.get(&link) {
            self.set_congested(key, congested);
        }
    }

    /// A message from inside the process: `$SYS`, the admin API, an embedding application. The topic is
    /// absolute; authorization does not apply. True if somebody may get it.
    ///
    /// # Errors
    /// Topic name invalid or quota exceeded, for a `$delayed/` topic.
    pub fn publish_internal(&mut self, now: Timestamp, message: Message) -> Result<bool, ReasonCode> {
        self.now = now;
        let outcome = self.dispatch(now, message, None);
        self.apply_effects(now);
        outcome.map(|dispatched| dispatched.is_matched)
    }

    /// The next thing to do; `None`: everything is done until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let now = self.now;
            if let Some(key) = self.ready.pop_front() {
                self.pump(now, key);
            } else if let Some((from, message)) = self.inbox.pop() {
                self.handle_message(now, from, message);
                self.apply_effects(now);
            } else if !self.fire(now) {
                return None;
            }
        }
    }

    /// True if [`Shard::take_batches`] has something.
    pub fn has_batches(&self) -> bool {
        !self.outbound.is_empty()
    }

    /// Bytes that the batches account for which [`Shard::take_batches`] has ([`Batch::weight`]).
    pub fn batch_weight(&self) -> usize {
        self.outbound.weight()
    }

    /// Ends a turn of the worker's loop: the batches that leave now, at most one per destination.
    pub fn take_batches(&mut self) -> Vec<(ShardId, Batch)> {
        self.outbound.take()
    }

    fn emit(&mut self, link: LinkId, event: Event) {
        self.outputs.push_back(Output::Deliver(link, event));
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A session that is connected.
    fn online(&self, key: SessionKey) -> Option<&Session> {
        self.sessions.get(key.0 as usize)?.online()
    }

    fn online_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(key.0 as usize)?.online_mut()
    }

    /// The session of a link, which is connected.
    fn session(&self, key: SessionKey) -> &Session {
        self.online(key)
            .expect("a link leads to a session that is connected")
    }

    fn session_mut(&mut self, key: SessionKey) -> &mut Session {
        self.online_mut(key)
            .expect("a link leads to a session that is connected")
    }
}
