//! A node in one thread: what a driver and a control plane do, without sockets, threads and clocks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use broker_core::{
    Close, Effects, Event, LinkId, Message, Outbox, Peer, ReasonCode, Request, ShardId, Timestamp,
    shard::{Batch, Common, Output, Question, Shard, Ticket, home},
    store::memory::MemoryLimits,
};
use bytes::Bytes;

use crate::{Random, TestStore};
use worker::Worker;

/// Shards with the peers they carry, in virtual time.
///
/// ```text
/// input(bytes) ──▶ peer ──requests──▶ shard of the client id ──events──▶ peer ──▶ output()
///                                       ▲  │ batches to other shards, questions to the control plane
///                                       └──┘
/// ```
///
/// Every call settles the node before it returns, so nothing is under way that is not held back on purpose
/// ([`Node::hold_batches`], [`Node::hold_answers`], [`Node::hold_commits`]). Bytes that nobody took by the end of the
/// test fail it.
///
/// What has to last is in a [`TestStore`]: a node can [crash](Node::crash) and be [started](Node::restart) again.
#[derive(Debug)]
pub struct Node {
    workers: Vec<Worker>,
    store: TestStore,
    common: Arc<Common>,
    now: Timestamp,
    lines: BTreeMap<LinkId, Line>,
    batches: VecDeque<(ShardId, ShardId, Batch)>,
    questions: VecDeque<(ShardId, Ticket, Box<Question>)>,
    batches_held: bool,
    answers_held: bool,
    opened: u64,
}

/// One connection.
struct Line {
    peer: Box<dyn Peer>,
    shard: ShardId,
    outbox: Outbox,
    /// Input that the peer has not used yet.
    input: Vec<u8>,
    /// The shard was told that too much waits.
    congested: bool,
    /// The shard wants no more of its input.
    held: bool,
    close: Option<Close>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("shard", &self.shard)
            .field("outbox_bytes", &self.outbox.len())
            .field("input_bytes", &self.input.len())
            .field("close", &self.close)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// When a node's time begins: not 0, so that times before it exist.
    pub const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    /// A node of `shards` shards.
    ///
    /// # Panics
    ///
    /// As [`Shard::new`].
    pub fn new(shards: u16, common: Common) -> Node {
        let mut node = Node {
            workers: Vec::new(),
            store: TestStore::new(MemoryLimits::default()),
            common: Arc::new(common),
            now: Node::START,
            lines: BTreeMap::new(),
            batches: VecDeque::new(),
            questions: VecDeque::new(),
            batches_held: false,
            answers_held: false,
            opened: 0,
        };
        node.restart(shards);
        node
    }

    /// Bytes in an outbox above which the node, like a driver, reports congestion and reads no more of that client,
    /// until [`Node::output`] takes them.
    pub const HIGH_WATER_BYTES: usize = 64 << 10;

    /// The present.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// A shard, to be looked at.
    pub fn shard(&self, id: u16) -> &Shard {
        &self.workers[usize::from(id)].shard
    }

    /// Calls a shard directly, as a worker or the admin API would, and settles.
    pub fn with_shard<R>(&mut self, id: u16, call: impl FnOnce(&mut Shard, Timestamp) -> R) -> R {
        let now = self.now;
        let result = call(self.shard_mut(ShardId(id)), now);
        self.drain(ShardId(id));
        self.settle();
        result
    }

    /// Replaces configuration, admission and hooks on every shard.
    pub fn reconfigure(&mut self, common: Common) {
        self.common = Arc::new(common);
        for worker in &mut self.workers {
            worker.shard.reconfigure(Arc::clone(&self.common));
        }
    }

    /// A transport opens.
    pub fn open(&mut self, peer: impl Peer + 'static) -> LinkId {
        self.opened += 1;
        let link = LinkId(self.opened);
        // A CONNECT without a client id stays where it came in; any other goes where it belongs.
        let shard = u16::try_from(self.opened % self.workers.len() as u64).expect("less than a u16");
        let line = Line {
            peer: Box::new(peer),
            shard: ShardId(shard),
            outbox: Outbox::new(),
            input: Vec::new(),
            congested: false,
            held: false,
            close: None,
        };
        self.lines.insert(link, line);
        link
    }

    /// Bytes come in. What a parked peer does not take waits; what comes after the end is lost.
    pub fn input(&mut self, link: LinkId, bytes: &[u8]) {
        let line = self.line(link);
        if line.close.is_none() {
            line.input.extend_from_slice(bytes);
        }
        self.settle();
    }

    /// The transport is gone; what the peer had not taken goes with it. Bytes written before may still be taken.
    pub fn cut(&mut self, link: LinkId) {
        self.call(link, |peer, now, effects| peer.handle_closed(now, effects));
        let line = self.line(link);
        line.input = Vec::new();
        line.close.get_or_insert_with(|| Close {
            reason: "cut",
            detail: String::new(),
        });
        self.settle();
    }

    /// The client stops reading, although its outbox is not full, or has caught up.
    pub fn congest(&mut self, link: LinkId, congested: bool) {
        let now = self.now;
        let line = self.line(link);
        line.congested = congested;
        let shard = line.shard;
        self.shard_mut(shard).handle_congestion(now, link, congested);
        self.drain(shard);
        self.settle();
    }

    /// All bytes that wait for the client. If there were so many that the node held more back, they come next time.
    pub fn output(&mut self, link: LinkId) -> Bytes {
        let line = self.line(link);
        let bytes = line.outbox.take();
        if bytes.len() > Node::HIGH_WATER_BYTES && line.congested {
            self.congest(link, false);
        } else {
            self.settle();
        }
        bytes
    }

    /// One datagram comes in. Its peer uses all of it, also while the shard holds the link: whoever sends datagrams
    /// cannot be made to wait. What comes after the end is lost.
    ///
    /// # Panics
    ///
    /// If the peer leaves some of it.
    pub fn datagram(&mut self, link: LinkId, datagram: &[u8]) {
        let used = self.call(link, |peer, now, effects| {
            peer.handle_input(now, datagram, effects)
        });
        assert!(
            used.is_none_or(|used| used == datagram.len()),
            "a peer uses all of a datagram"
        );
        self.settle();
    }

    /// All datagrams that wait for the client, one by one, as [`Node::output`] takes the bytes of a stream.
    pub fn datagrams(&mut self, link: LinkId) -> Vec<Bytes> {
        let mut output = Outbox::new();
        output.put(&self.output(link));
        let mut datagrams = Vec::new();
        while let Some(datagram) = output.datagram() {
            datagrams.push(Bytes::copy_from_slice(datagram));
            output.pop_datagram();
        }
        assert!(output.is_empty(), "a stream is no sequence of datagrams");
        datagrams
    }

    /// Bytes that wait for the client.
    pub fn output_len(&self, link: LinkId) -> usize {
        self.lines[&link].outbox.len()
    }

    /// Why the connection ended; `None` while it is open.
    pub fn closed(&self, link: LinkId) -> Option<&Close> {
        self.lines[&link].close.as_ref()
    }

    /// The peer waits for its shard and takes no input.
    pub fn is_parked(&self, link: LinkId) -> bool {
        self.lines[&link].peer.is_parked()
    }

    /// Batches between shards wait from now on, or leave again.
    pub fn hold_batches(&mut self, hold: bool) {
        self.batches_held = hold;
        self.settle();
    }

    /// The control plane stops answering, or works again.
    pub fn hold_answers(&mut self, hold: bool) {
        self.answers_held = hold;
        self.settle();
    }

    /// What has to last. Who changes how commits complete calls the node's own methods, which let it go on then.
    pub fn store(&self) -> &TestStore {
        &self.store
    }

    /// Commits wait from now on, or complete again.
    pub fn hold_commits(&mut self, hold: bool) {
        self.store.hold(hold);
        self.settle();
    }

    /// The commit that has waited longest completes. False if none waits.
    pub fn complete_commit(&mut self) -> bool {
        let is_completed = self.store.complete_one();
        self.settle();
        is_completed
    }

    /// The process is killed: shards and connections are gone, and the peers were told nothing. Of the commits that
    /// wait, the first `executed` are done. Until [`Node::restart`] there is no node, but time can pass.
    pub fn crash(&mut self, executed: usize) {
        self.store.crash(executed);
        self.forget();
    }

    /// As [`Node::crash`]; which commits are done `random` chooses.
    pub fn crash_anywhere(&mut self, random: &mut Random) {
        self.store.crash_anywhere(random);
        self.forget();
    }

    fn forget(&mut self) {
        self.store.hold(false);
        self.workers.clear();
        self.lines.clear();
        self.batches.clear();
        self.questions.clear();
    }

    /// The process starts, with so many shards, from what the store has.
    ///
    /// # Panics
    ///
    /// As [`Shard::new`].
    pub fn restart(&mut self, shards: u16) {
        let make = |id| Worker::new(ShardId(id), shards, &self.common, &self.store);
        self.workers = (0..shards).map(make).collect();
        for entry in worker::entries(&self.store, self.now) {
            let now = self.now;
            if let Some(shard) = home(&entry, shards) {
                let restored = self.shard_mut(shard).restore(now, &entry);
                restored.expect("a shard reads what shards have written");
            }
        }
        for id in 0..shards {
            let now = self.now;
            self.shard_mut(ShardId(id)).begin(now);
            self.drain(ShardId(id));
        }
        let were_held = std::mem::take(&mut self.batches_held);
        self.settle();
        for id in 0..shards {
            let now = self.now;
            self.shard_mut(ShardId(id)).open(now);
        }
        self.batches_held = were_held;
        self.fire();
        self.settle();
    }

    /// A message of the gateway's own, from the shard `shard`.
    ///
    /// # Errors
    ///
    /// As [`Shard::publish_internal`].
    pub fn publish(&mut self, shard: u16, message: Message) -> Result<bool, ReasonCode> {
        self.with_shard(shard, |shard, now| shard.publish_internal(now, message))
    }

    /// Time passes; everything that falls due on the way happens at its time, the shards' before the peers'.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now.after(by);
        while let Some(at) = self.next_deadline().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.fire();
            self.settle();
        }
        self.now = end;
    }

    /// When the next thing falls due.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let shards = self.workers.iter();
        let shards = shards.filter_map(|worker| worker.shard.poll_timeout());
        let lines = self.lines.values().filter(|line| line.close.is_none());
        let peers = lines.filter_map(|line| line.peer.poll_timeout());
        shards.chain(peers).min()
    }

    fn fire(&mut self) {
        let now = self.now;
        for at in 0..self.workers.len() {
            let shard = &mut self.workers[at].shard;
            if shard.poll_timeout().is_some_and(|due| due <= now) {
                shard.handle_timeout(now);
                let id = shard.id();
                self.drain(id);
            }
        }
        let links: Vec<LinkId> = self.lines.keys().copied().collect();
        for link in links {
            let line = self.line(link);
            if line.close.is_some() {
                continue;
            }
            if line.peer.poll_timeout().is_some_and(|due| due <= self.now) {
                self.call(link, |peer, now, effects| peer.handle_timeout(now, effects));
                let due = self.line(link).peer.poll_timeout();
                assert!(
                    self.closed(link).is_some() || due.is_none_or(|due| due > self.now),
                    "a peer stays due after its timeout"
                );
            }
        }
    }

    fn shard_mut(&mut self, id: ShardId) -> &mut Shard {
        &mut self.workers[usize::from(id.0)].shard
    }

    fn line(&mut self, link: LinkId) -> &mut Line {
        self.lines.get_mut(&link).expect("the link was opened here")
    }

    /// Lets everything happen that may happen now.
    fn settle(&mut self) {
        loop {
            let mut is_quiet = !self.take_completions();
            is_quiet &= !self.feed();
            for worker in &mut self.workers {
                // What is to be committed is submitted before others are told of it.
                is_quiet &= !worker.submit(self.now);
                let from = worker.shard.id();
                let batches = worker.shard.take_batches();
                self.batches
                    .extend(batches.into_iter().map(|(to, batch)| (from, to, batch)));
            }
            if !self.batches_held
                && let Some((from, to, batch)) = self.batches.pop_front()
            {
                is_quiet = false;
                let now = self.now;
                self.shard_mut(to).handle_batch(now, from, batch);
                self.drain(to);
            }
            if !self.answers_held
                && let Some((shard, ticket, question)) = self.questions.pop_front()
            {
                is_quiet = false;
                let now = self.now;
                let reply = question.answer(now, &self.common);
                self.shard_mut(shard).handle_reply(now, ticket, reply);
                self.drain(shard);
            }
            if is_quiet {
                return;
            }
        }
    }

    /// Passes on what the store has answered. True if there was something.
    fn take_completions(&mut self) -> bool {
        let mut is_any = false;
        for at in 0..self.workers.len() {
            while let Some((ticket, result)) = self.workers[at].poll(self.now) {
                is_any = true;
                let (now, shard) = (self.now, &mut self.workers[at].shard);
                shard.handle_stored(now, ticket, result);
                let id = shard.id();
                self.drain(id);
            }
        }
        is_any
    }

    /// Offers every peer its input. True if one has used some.
    fn feed(&mut self) -> bool {
        let mut is_used = false;
        let links: Vec<LinkId> = self.lines.keys().copied().collect();
        for link in links {
            let line = self.line(link);
            let has_room = line.outbox.len() <= Node::HIGH_WATER_BYTES;
            let takes_input = has_room && !line.held && !line.peer.is_parked();
            if line.input.is_empty() || line.close.is_some() || !takes_input {
                continue;
            }
            let input = std::mem::take(&mut line.input);
            let used = self
                .call(link, |peer, now, effects| peer.handle_input(now, &input, effects))
                .unwrap_or(input.len());
            assert!(used <= input.len(), "a peer cannot use more than it is offered");
            is_used |= used > 0;
            let line = self.line(link);
            if line.close.is_none() {
                line.input = input[used..].to_vec();
            }
        }
        is_used
    }

    /// Calls the peer of an open connection and passes on what it asks for. `None` if the connection has ended.
    fn call<R>(
        &mut self,
        link: LinkId,
        call: impl FnOnce(&mut dyn Peer, Timestamp, &mut Effects<'_>) -> R,
    ) -> Option<R> {
        let (result, requests) = self.call_only(link, call)?;
        for request in requests {
            let shard = self.request(link, request);
            self.drain(shard);
        }
        Some(result)
    }

    fn call_only<R>(
        &mut self,
        link: LinkId,
        call: impl FnOnce(&mut dyn Peer, Timestamp, &mut Effects<'_>) -> R,
    ) -> Option<(R, Vec<Request>)> {
        let now = self.now;
        let line = self.line(link);
        if line.close.is_some() {
            return None;
        }
        let mut requests = Vec::new();
        let result = call(
            &mut *line.peer,
            now,
            &mut Effects {
                wire: &mut line.outbox,
                requests: &mut requests,
                close: &mut line.close,
            },
        );
        Some((result, requests))
    }

    /// Returns the shard that got the request.
    fn request(&mut self, link: LinkId, request: Request) -> ShardId {
        if let Request::Connect(connect) = &request {
            let here = self.line(link).shard;
            let home = self.shard_mut(here).place(&connect.client_id);
            self.line(link).shard = home;
        }
        let (now, shard) = (self.now, self.line(link).shard);
        self.shard_mut(shard).handle(now, link, request);
        shard
    }

    fn drain(&mut self, shard: ShardId) {
        while let Some(output) = self.shard_mut(shard).poll_output() {
            match output {
                Output::Deliver(link, event) => self.event(link, event),
                Output::Hold(link) => self.line(link).held = true,
                Output::Release(link) => self.line(link).held = false,
                Output::Ask(ticket, question) => self.questions.push_back((shard, ticket, question)),
            }
        }
    }

    /// What the peer asks for in answer is drained by the caller.
    fn event(&mut self, link: LinkId, event: Event) {
        let called = self.call_only(link, |peer, now, effects| peer.handle_event(now, event, effects));
        for request in called.into_iter().flat_map(|((), requests)| requests) {
            self.request(link, request);
        }
        let now = self.now;
        let line = self.line(link);
        if line.outbox.len() > Node::HIGH_WATER_BYTES && !line.congested && line.close.is_none() {
            line.congested = true;
            let shard = line.shard;
            self.shard_mut(shard).handle_congestion(now, link, true);
        }
    }
}

impl Drop for Node {
    /// A test that passes has looked at everything that was sent.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for (link, line) in &mut self.lines {
            let left = line.outbox.take();
            assert!(
                left.is_empty(),
                "nobody looked at the output of {link:?}: {left:02x?}"
            );
        }
    }
}

#[cfg(test)]
mod tests;
mod worker;
