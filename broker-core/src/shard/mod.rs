//! One shard of the broker: a pure state machine that owns the sessions of the clients of one worker.

use crate::{Event, LinkId, Request, ShardId, Timestamp};

/// Messages from one shard to another, in order.
#[derive(Debug, Default)]
pub struct Batch(pub(crate) Vec<()>);

/// Names a question to the control plane, so that the answer finds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What a shard asks the control plane.
#[derive(Debug)]
pub enum Question {}

/// The answer of the control plane.
#[derive(Debug)]
pub enum Reply {}

/// What a shard wants done.
#[derive(Debug)]
pub enum Output {
    /// Hand the event to the peer of this link.
    Deliver(LinkId, Event),
    /// Answer the question by [`Shard::handle_reply`] with the same ticket.
    Ask(Ticket, Question),
}

/// One shard.
#[derive(Debug)]
pub struct Shard {}

impl Shard {
    /// A request of a peer on this worker.
    pub fn handle(&mut self, now: Timestamp, link: LinkId, request: Request) {
        let _ = (now, link, request);
    }

    /// Messages that another shard forwarded.
    pub fn handle_batch(&mut self, now: Timestamp, from: ShardId, batch: Batch) {
        let _ = (now, from, batch);
    }

    /// The answer to a question.
    pub fn handle_reply(&mut self, now: Timestamp, ticket: Ticket, reply: Reply) {
        let _ = (now, ticket, reply);
    }

    /// The link's client reads too slowly (`true`: bytes wait above the high-water mark) or has caught up.
    pub fn handle_congestion(&mut self, now: Timestamp, link: LinkId, congested: bool) {
        let _ = (now, link, congested);
    }

    /// The time of [`Shard::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let _ = now;
    }

    /// The next thing to do; `None`: everything is done until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// Ends a turn of the worker's loop: the batches that leave now, at most one per destination.
    pub fn take_batches(&mut self) -> Vec<(ShardId, Batch)> {
        Vec::new()
    }

    /// When [`Shard::handle_timeout`] must be called, if at all.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }
}
