//! Persistent sessions: what is known of their entries in the store, and what is left of them without a connection.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    ClientId, ClientInfo, PacketId, Timestamp, Will,
    filter_index::FilterId,
    shard::Ticket,
    store::{
        Interest, Sequence,
        format::{CursorEntry, Token},
    },
};

use super::{Outgoing, Sleeper, Subscriptions};

/// The stored side of a session that is connected.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Names its entries.
    pub(crate) token: Token,
    /// Everything before it in the journal was given to the session, or was not for it.
    pub(crate) next: Sequence,
    pub(crate) reading: Reading,
    /// While a page is on its way: what has been committed for the session since it was asked for stands before this.
    pub(crate) beyond: Sequence,
    /// A client that is only awake gets nothing that stands from there on; [`Sequence::END`] for every other.
    pub(crate) gate: Sequence,
    /// Places from `next` on that were given to it nevertheless.
    pub(crate) ahead: BTreeSet<Sequence>,
    /// Of deliveries that are complete, the places that the cursor in the store has not reached: the store has an
    /// entry of each.
    pub(crate) complete: BTreeSet<Sequence>,
    /// Before it, a message may be older than the subscription that it matches.
    pub(crate) settled_from: Sequence,
    /// Subscriptions whose place is not known yet.
    pub(crate) unsettled: u32,
    /// Of them, those whose retained messages were all sent: their entries are written again once it is.
    pub(crate) replayed: Vec<FilterId>,
    /// Numbers of retained messages that it got at once, as subscriptions of others did, and that stand in the
    /// journal too.
    pub(crate) had: BTreeSet<u64>,
    /// What it reads, until its subscriptions change.
    pub(crate) interest: Option<Arc<Interest>>,
    /// Something has changed that the store will be told later.
    pub(crate) is_dirty: bool,
    /// The cursor that the store has.
    pub(crate) cursor: Option<CursorEntry>,
    /// QoS 1 messages before it may have been sent before the process was killed.
    pub(crate) repeats_before: Sequence,
    /// Messages under way that are fetched; nothing is sent until they are there.
    pub(crate) fetching: Option<Ticket>,
}

/// Where a session's messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It has read everything and gets what is committed from now on.
    Live,
    /// There may be more to read.
    Behind,
    /// A page is on its way.
    Asked(Ticket),
}

/// A persistent session without a connection: as little as possible, since there may be millions.
#[derive(Debug)]
pub(crate) struct Dormant {
    pub(crate) client_id: ClientId,
    pub(crate) expiry_interval: u32,
    /// The session ends; `NEVER` if it is kept for ever.
    pub(crate) expires_at: Timestamp,
    /// The Will is published; `NEVER` if there is none, or if it is kept for the next connection.
    pub(crate) will_at: Timestamp,
    pub(crate) will: Option<Box<DormantWill>>,
    pub(crate) subscriptions: Subscriptions,
    /// As in [`Stored`].
    pub(crate) next: Sequence,
    pub(crate) repeats_before: Sequence,
    /// The packet identifier to go on with.
    pub(crate) packet_id: PacketId,
    /// Deliveries so far.
    pub(crate) order: u64,
    /// What most sessions have not.
    pub(crate) rest: Option<Box<Rest>>,
    /// What other sessions than those of sleeping clients have not.
    pub(crate) sleeper: Option<Box<Sleeper>>,
    /// The earliest timer that stands for this session.
    pub(crate) armed: Timestamp,
}

/// A Will that waits, and whose it is.
#[derive(Debug)]
pub(crate) struct DormantWill {
    pub(crate) will: Will,
    pub(crate) client: Arc<ClientInfo>,
}

/// Exchanges under way.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) outgoing: Outgoing,
    pub(crate) awaiting_rel: Vec<PacketId>,
    pub(crate) complete: BTreeSet<Sequence>,
    /// Filters, with the mountpoint, whose retained messages were not all sent.
    pub(crate) replays: Vec<Arc<str>>,
}

impl Default for Rest {
    fn default() -> Rest {
        Rest {
            outgoing: Outgoing::new(1),
            awaiting_rel: Vec::new(),
            complete: BTreeSet::new(),
            replays: Vec::new(),
        }
    }
}

impl Rest {
    /// There is nothing to be kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.outgoing.is_idle()
            && self.awaiting_rel.is_empty()
            && self.complete.is_empty()
            && self.replays.is_empty()
    }
}

impl Dormant {
    /// Names its entries.
    pub(crate) fn token(&self) -> Token {
        Token::of(self.client_id.as_str())
    }

    /// The client sleeps until then; `NEVER` if it does not.
    pub(crate) fn asleep_until(&self) -> Timestamp {
        self.sleeper
            .as_ref()
            .map_or(Timestamp::NEVER, |sleeper| sleeper.until)
    }

    /// The earliest time at which something is due.
    pub(crate) fn deadline(&self) -> Timestamp {
        self.expires_at.min(self.will_at).min(self.asleep_until())
    }

    /// As in [`Stored`].
    pub(crate) fn settled_from(&self) -> Sequence {
        let places = self.subscriptions.iter().map(|one| one.since);
        let settled = places.filter(|since| *since < Sequence::END);
        settled.max().unwrap_or(Sequence::FIRST)
    }

    /// The first place in the journal that it still needs.
    pub(crate) fn needs_from(&self) -> Sequence {
        let under_way = self.rest.as_ref().and_then(|rest| rest.outgoing.oldest_needed());
        let mut subscriptions = self.subscriptions.iter();
        let reads = subscriptions.any(|one| one.durable && one.kind.group().is_none());
        let reads_from = if reads { self.next } else { Sequence::END };
        under_way.map_or(reads_from, |under_way| under_way.min(reads_from))
    }
}

/// If there are more, the first of them may come twice.
const HAD_MAX: usize = 1024;

impl Stored {
    /// A message that stands in the journal, or will, was sent without waiting for that.
    pub(crate) fn note_had(&mut self, message_id: u64) {
        if self.had.len() == HAD_MAX {
            self.had.pop_first();
        }
        self.had.insert(message_id);
    }

    /// True once for each message noted.
    pub(crate) fn take_had(&mut self, message_id: u64) -> bool {
        !self.had.is_empty() && self.had.remove(&message_id)
    }

    /// A page up to `next` has come. `at_end`: there was nothing behind it. Then the session is up to date unless the
    /// tail, which has come to `tail` meanwhile, had something for it that stands behind the page.
    pub(crate) fn has_read(&mut self, next: Sequence, at_end: bool, tail: Sequence) {
        self.next = self.next.max(next);
        self.reading = Reading::Behind;
        if self.gate < Sequence::END {
            self.next = if at_end {
                self.gate
            } else {
                self.next.min(self.gate)
            };
        } else if at_end && next >= self.beyond {
            self.next = self.next.max(tail);
            self.reading = Reading::Live;
            self.interest = None;
            self.ahead = self.ahead.split_off(&self.next);
        }
    }

    /// There is nothing to read for it now.
    pub(crate) fn has_read_all(&self) -> bool {
        self.reading == Reading::Live || (self.next >= self.gate && self.gate < Sequence::END)
    }

    /// The first place in the journal that the session still needs.
    pub(crate) fn needs_from(&self, outgoing: &Outgoing, tail: Sequence) -> Sequence {
        let reads_from = match self.reading {
            Reading::Live => self.next.max(tail),
            Reading::Behind | Reading::Asked(_) => self.next,
        };
        let unsent = outgoing.unsent(reads_from);
        let under_way = outgoing.oldest_needed().unwrap_or(unsent);
        unsent.min(under_way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Subscription, Tenant};

    #[test]
    fn a_session_without_a_connection_is_small() {
        // There is one of each for every client that is away.
        assert_eq!(size_of::<Tenant>(), 16);
        assert!(size_of::<Dormant>() <= 128, "{}", size_of::<Dormant>());
        assert!(size_of::<Subscription>() <= 56, "{}", size_of::<Subscription>());
    }
}
