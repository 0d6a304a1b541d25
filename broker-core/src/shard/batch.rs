//! What shards of one node say to each other. Between two shards the order is kept.

use std::{collections::VecDeque, sync::Arc, vec};

use crate::{ClientId, Message, ShardId, session::SharedTarget, store::Sequence};

/// Messages from one shard to another, in order.
#[derive(Debug, Default)]
pub struct Batch {
    messages: Vec<ShardMessage>,
    weight: usize,
}

impl Batch {
    /// Messages in it.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes that it accounts for: those of its messages count in full, though other batches may share them.
    pub fn weight(&self) -> usize {
        self.weight
    }
}

/// Batches that have come in, message by message.
#[derive(Debug, Default)]
pub(super) struct Inbox(VecDeque<(ShardId, vec::IntoIter<ShardMessage>)>);

impl Inbox {
    pub(super) fn push(&mut self, from: ShardId, batch: Batch) {
        self.0.push_back((from, batch.messages.into_iter()));
    }

    pub(super) fn pop(&mut self) -> Option<(ShardId, ShardMessage)> {
        while let Some((from, messages)) = self.0.front_mut() {
            if let Some(message) = messages.next() {
                return Some((*from, message));
            }
            self.0.pop_front();
        }
        None
    }
}

#[derive(Debug)]
pub(super) enum ShardMessage {
    /// For the plain subscribers of the receiving shard. True: it is in the journal too, for those who read it.
    Publish(Message, bool),
    /// For the member of a shared group that the sender chose.
    Dispatch {
        to: ClientId,
        target: Arc<SharedTarget>,
        message: Message,
    },
    /// For the member of a shared group of the sender's, from this place of the journal.
    Lease {
        to: ClientId,
        target: Arc<SharedTarget>,
        sequence: Sequence,
        message: Message,
        /// It may have been sent to a member before.
        is_repeated: bool,
    },
    /// No other member may have it.
    Settled {
        target: Arc<SharedTarget>,
        sequence: Sequence,
        /// The store has an entry that says so.
        is_taken: bool,
    },
    /// The member will not deliver it: another may have it.
    Returned {
        target: Arc<SharedTarget>,
        sequence: Sequence,
        /// It was sent to the member's client.
        was_sent: bool,
    },
    /// The sender's part of the routes changed.
    Route(RouteChange),
    /// Everything before it is to be confirmed by `Passed` with the same number.
    Barrier(u64),
    Passed(u64),
    /// To be stored by the shard that keeps this topic; an empty payload removes.
    Retain(Message),
    /// One of these was not committed.
    RetainFailed(Message),
    /// Asks for a slice of the retained messages that the receiver keeps.
    RetainedQuery {
        replay: u64,
        filter: Arc<str>,
        after: Option<String>,
    },
    RetainedPage {
        replay: u64,
        messages: Vec<Message>,
        next: Option<String>,
    },
    /// Asks for the only subscription on a topic that the receiver keeps account of.
    ExclusiveClaim {
        operation: u64,
        at: usize,
        topic: Box<str>,
        client_id: ClientId,
    },
    ExclusiveAnswer {
        operation: u64,
        at: usize,
        granted: bool,
    },
    ExclusiveRelease {
        topic: Box<str>,
        client_id: ClientId,
    },
}

impl ShardMessage {
    fn weight(&self) -> usize {
        let carried = match self {
            ShardMessage::Publish(message, _)
            | ShardMessage::Retain(message)
            | ShardMessage::RetainFailed(message)
            | ShardMessage::Lease { message, .. }
            | ShardMessage::Dispatch { message, .. } => message.weight(),
            ShardMessage::RetainedPage { messages, .. } => messages.iter().map(Message::weight).sum(),
            _ => 0,
        };
        size_of::<ShardMessage>() + carried
    }
}

/// A change of the sender's subscribers that the other shards must know to route to it.
#[derive(Clone, Debug)]
pub(super) enum RouteChange {
    /// The sender has its first plain subscription of this kind on this filter.
    Add { filter: Box<str>, durable: bool },
    /// The sender has none of this kind any more.
    Remove { filter: Box<str>, durable: bool },
    /// A session of the sender is a member of a shared group, with or without a connection.
    Member {
        target: Arc<SharedTarget>,
        client_id: ClientId,
        online: bool,
        durable: bool,
    },
    /// It is no member any more.
    Leave {
        target: Arc<SharedTarget>,
        client_id: ClientId,
    },
}

/// What leaves for the other shards at the end of the turn.
#[derive(Debug)]
pub(super) struct Outbound {
    own: ShardId,
    batches: Vec<Batch>,
    weight: usize,
}

impl Outbound {
    pub(super) fn new(own: ShardId, shards: u16) -> Outbound {
        Outbound {
            own,
            batches: (0..shards).map(|_| Batch::default()).collect(),
            weight: 0,
        }
    }

    pub(super) fn push(&mut self, to: ShardId, message: ShardMessage) {
        debug_assert_ne!(to, self.own, "a shard does not send to itself");
        let weight = message.weight();
        let batch = &mut self.batches[usize::from(to.0)];
        batch.messages.push(message);
        batch.weight += weight;
        self.weight += weight;
    }

    pub(super) fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.own;
        (0..u16::try_from(self.batches.len()).expect("shards are counted in u16"))
            .map(ShardId)
            .filter(move |shard| *shard != own)
    }

    pub(super) fn broadcast(&mut self, change: &RouteChange) {
        for shard in self.others() {
            self.push(shard, ShardMessage::Route(change.clone()));
        }
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weight == 0
    }

    pub(super) fn take(&mut self) -> Vec<(ShardId, Batch)> {
        let mut taken = Vec::new();
        self.weight = 0;
        for shard in self.others() {
            let batch = &mut self.batches[usize::from(shard.0)];
            if !batch.is_empty() {
                taken.push((shard, std::mem::take(batch)));
            }
        }
        taken
    }
}
