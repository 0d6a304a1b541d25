//! The worker and its loop.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use broker_core::{
    LinkId, Request, ShardId, Timestamp,
    shard::{Batch, Shard},
    store::Journal,
};
use tokio::time::Sleep;

use super::{
    AskHandler, Command, Mailbox, WorkerHandle,
    arena::Arena,
    link::{Failure, Link},
    mailbox::{Inbox, Sent},
    ports::DatagramSide,
    store::Stored,
    timers::Timers,
    wake::{Ready, Source},
};
use crate::{Clock, Counters, WorkerConfig};

/// Rounds of settling in one turn. What is left after them is settled in the next turn, after new input.
const SETTLE_ROUNDS: usize = 8;

/// What a worker is made from, besides its shard.
pub(super) struct Setup {
    pub(super) handle: WorkerHandle,
    pub(super) everyone: Arc<[WorkerHandle]>,
    pub(super) config: WorkerConfig,
    pub(super) clock: Clock,
    pub(super) ask: AskHandler,
    pub(super) journal: Box<dyn Journal>,
}

/// One thread of the data plane: its shard and its links. Reached by [`WorkerHandle::run`].
pub struct Worker {
    pub(super) id: ShardId,
    pub(super) config: WorkerConfig,
    clock: Clock,
    /// When this turn began. One reading of the clock serves the whole turn.
    pub(super) now: Timestamp,
    pub(super) shard: Shard,
    pub(super) stored: Stored,
    pub(super) ask: AskHandler,
    pub(super) links: Arena<Link>,
    pub(super) ready: Arc<Ready>,
    ready_now: Vec<Source>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) everyone: Arc<[WorkerHandle]>,
    inbox: Inbox,
    /// Batches that wait for room at their destination, by [`ShardId`].
    outgoing: Vec<VecDeque<Batch>>,
    /// Some batch waits: no socket is read, or the queue would grow without bound.
    pub(super) is_held_up: bool,
    /// Links and sockets whose turn to read came while the worker was held up.
    pub(super) held_up: Vec<Source>,
    pub(super) timers: Timers,
    sleep: Pin<Box<Sleep>>,
    sleep_until: Timestamp,
    /// Links to settle at the end of the turn.
    pub(super) touched: Vec<LinkId>,
    pub(super) requests: Vec<Request>,
    pub(super) spare_requests: Vec<Request>,
    /// Everything is read into it. Empty while in use.
    pub(super) buffer: Vec<u8>,
    /// Bytes put into outboxes since sockets were last written.
    pub(super) unflushed: usize,
    pub(super) datagrams: DatagramSide,
    pub(super) counters: Arc<Counters>,
    /// Set by the shutdown: when to end even if bytes wait.
    pub(super) ending: Option<Timestamp>,
}

impl Worker {
    pub(super) fn new(setup: Setup, shard: Shard) -> Worker {
        let now = setup.clock.now();
        Worker {
            id: setup.handle.id,
            clock: setup.clock,
            now,
            shard,
            stored: Stored::new(setup.journal),
            ask: setup.ask,
            links: Arena::new(),
            ready: Arc::default(),
            ready_now: Vec::new(),
            mailbox: setup.handle.mailbox,
            datagrams: DatagramSide::new(setup.handle.id, setup.everyone.len()),
            outgoing: setup.everyone.iter().map(|_| VecDeque::new()).collect(),
            everyone: setup.everyone,
            inbox: Inbox::default(),
            is_held_up: false,
            held_up: Vec::new(),
            timers: Timers::default(),
            sleep: Box::pin(tokio::time::sleep_until(setup.clock.instant(now).into())),
            sleep_until: now,
            touched: Vec::new(),
            requests: Vec::new(),
            spare_requests: Vec::new(),
            buffer: vec![
                0;
                super::input::GAP + setup.config.read_buffer_bytes.max(super::input::READ_BYTES_MIN)
            ],
            unflushed: 0,
            counters: setup.handle.counters,
            ending: None,
            config: setup.config,
        }
    }

    /// One turn; ready when the worker has ended.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.counters.turns.add(1);
        let mut ready = std::mem::take(&mut self.ready_now);
        self.ready.take(&mut ready, context.waker());
        let mut inbox = std::mem::take(&mut self.inbox);
        self.mailbox.take(&mut inbox);
        // After the mailbox: what other workers did before they sent it lies in the past of this turn.
        self.now = self.clock.now();
        // Before the mail is looked at: what it speaks of may have been stored before it was sent.
        self.stored.begin_turn(context.waker());
        self.catch_up();
        self.work_off(&mut inbox);
        self.inbox = inbox;
        for source in ready.drain(..) {
            match source {
                Source::Link(link) => self.poll_link(link),
                Source::Socket(listener) => self.poll_port(listener),
            }
            if self.shard.batch_weight() > self.config.batch_bytes {
                self.send_batches();
            }
        }
        self.ready_now = ready;
        // After the sockets: what has come in time counts, however late it is looked at.
        self.fire_timers();
        for _ in 0..SETTLE_ROUNDS {
            self.send_batches();
            if self.poll_stored() {
                self.send_batches();
            }
            self.settle_touched();
            if self.touched.is_empty() && !self.stored.is_ready() {
                break;
            }
        }
        self.send_batches();
        self.send_parcels();
        if self.has_ended() {
            self.close_all_associations();
            self.mailbox.end();
            return Poll::Ready(());
        }
        let is_busy = !self.touched.is_empty() || self.stored.is_ready();
        if is_busy || self.alarm_is_due(context) || !self.mailbox.sleep(context.waker()) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn work_off(&mut self, inbox: &mut Inbox) {
        for (from, batch) in inbox.batches.drain(..) {
            self.counters.batches_received.add(1);
            self.shard.handle_batch(self.now, from, batch);
            self.drain_shard();
        }
        for command in inbox.commands.drain(..) {
            match command {
                Command::Arrival(arrival) => self.arrive(arrival),
                Command::Reply(ticket, reply) => self.shard.handle_reply(self.now, ticket, reply),
                Command::Nudge(link) => self.nudge(link),
                Command::Datagrams(news) => self.datagram_news(news),
                Command::Run(call) => call(self),
                Command::Shutdown(within) => self.begin_end(within),
            }
            self.drain_shard();
        }
    }

    fn fire_timers(&mut self) {
        while let Some((at, id)) = self.timers.pop(self.now) {
            let Some(link) = self.links.get_mut(id) else {
                continue;
            };
            if link.alarm != at {
                // An earlier deadline took this entry's place.
                continue;
            }
            link.alarm = Timestamp::NEVER;
            if link.deadline <= self.now {
                link.deadline = Timestamp::NEVER;
                link.failure = Some(Failure::SendTimeout);
                self.touch(id);
            } else if link.peer_deadline(self.config.high_water_bytes) <= self.now {
                let now = self.now;
                self.call_peer(id, |peer, effects| peer.handle_timeout(now, effects));
                self.submit(id);
            } else {
                self.set_alarm(id);
            }
        }
        self.fire_endpoints();
        if self.shard.poll_timeout().is_some_and(|at| at <= self.now) {
            self.shard.handle_timeout(self.now);
            self.drain_shard();
        }
    }

    /// Enters the link's next deadline into the timers, unless an earlier entry is there.
    pub(super) fn set_alarm(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let next = link
            .peer_deadline(self.config.high_water_bytes)
            .min(link.deadline);
        if next < link.alarm {
            link.alarm = next;
            self.timers.push(next, id);
            let links = &self.links;
            self.timers.forget_stale(links.len(), |at, id| {
                links.get(id).is_some_and(|link| link.alarm == at)
            });
        }
    }

    /// Sets the worker's only timer to the earliest deadline. True if it fired
    /// already, so that another turn is due.
    ///
    /// The timer is only moved when it must fire earlier: one that fires too early costs less than one that is moved
    /// at every message.
    fn alarm_is_due(&mut self, context: &mut Context<'_>) -> bool {
        let deadlines = [
            self.timers.earliest(),
            self.shard.poll_timeout(),
            self.datagrams.poll_timeout(),
            self.ending,
        ];
        let earliest = deadlines.into_iter().flatten().min().unwrap_or(Timestamp::NEVER);
        if earliest < self.sleep_until || self.sleep.is_elapsed() {
            self.sleep_until = earliest;
            self.sleep.as_mut().reset(self.clock.instant(earliest).into());
        }
        self.sleep.as_mut().poll(context).is_ready()
    }

    /// Hands over what the turn has for the store and for other workers.
    pub(super) fn send_batches(&mut self) {
        self.submit_stored();
        if !self.is_held_up && !self.shard.has_batches() {
            return;
        }
        let batches = self.shard.take_batches();
        for (to, batch) in batches {
            match self.outgoing.get_mut(usize::from(to.0)) {
                Some(queue) => queue.push_back(batch),
                None => self.counters.batches_dropped.add(1),
            }
        }
        let was_held_up = std::mem::take(&mut self.is_held_up);
        for (queue, to) in self.outgoing.iter_mut().zip(&*self.everyone) {
            let waiting = queue.len();
            if waiting == 0 {
                continue;
            }
            match to.mailbox.send_batches(self.id, &self.mailbox, queue) {
                Sent::All | Sent::Full => self.counters.batches_sent.add((waiting - queue.len()) as u64),
                Sent::Ended => {
                    self.counters.batches_dropped.add(waiting as u64);
                    queue.clear();
                }
            }
            self.is_held_up |= !queue.is_empty();
        }
        if self.is_held_up && !was_held_up {
            self.counters.mailbox_full_events.add(1);
        }
        if !self.is_held_up {
            for source in std::mem::take(&mut self.held_up) {
                match source {
                    Source::Link(id) => {
                        self.ready.push(source);
                        if let Some(link) = self.links.get_mut(id) {
                            link.held_up = false;
                            self.touch(id);
                        }
                    }
                    Source::Socket(listener) => {
                        if let Some(port) = self.datagrams.port(listener) {
                            port.wake.1.wake_by_ref();
                        }
                    }
                }
            }
        }
    }

    fn has_ended(&self) -> bool {
        let is_done = || {
            self.links.len() == 0 && !self.is_held_up && self.stored.is_settled() && self.datagrams.is_done()
        };
        self.ending.is_some_and(|at| at <= self.now || is_done())
    }
}
