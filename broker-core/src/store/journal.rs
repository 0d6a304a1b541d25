//! A few logs of records, each with its own order.

use std::{collections::VecDeque, task::Waker, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use super::{Durability, Fault, Page, Retry};
use crate::{Timestamp, shard::Ticket};

/// One log of a journal, counted from 0; how many there are is fixed when the journal is created. Not a shard of
/// the broker: every broker shard of every node may append to every journal shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JournalShard(pub u16);

/// The place of a record in its shard. The first record has 1; later ones have more, mostly by 1. None is used
/// twice, not even after a trim or after the journal was opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// Names what is to be appended, so that it is appended once however often it is tried. The caller makes it from
/// what cannot come again: node and its incarnation, session and its epoch, packet identifier and its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedupId(pub u128);

/// A record as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub sequence: Sequence,
    /// What was appended.
    pub data: Bytes,
}

/// What a shard holds: the records from `first` up to but not including `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The records before it were trimmed.
    pub first: Sequence,
    /// The next record will have this one or a later.
    pub next: Sequence,
    /// Bytes of the records held, without overhead.
    pub bytes: u64,
}

/// What is asked of a [`Journal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalRequest {
    /// Answered by [`JournalReply::Appended`].
    Append {
        /// To which log.
        shard: JournalShard,
        /// What to append.
        record: Bytes,
        /// A second append of the same id to the same shard is answered like the first, and nothing is appended.
        dedup: DedupId,
    },
    /// The records from a place on. Answered by [`JournalReply::Records`], once.
    Tail {
        /// Of which log.
        shard: JournalShard,
        /// First place of interest, from the shard's `first` to its `next`.
        from: Sequence,
        /// Bounds of the answer.
        page: Page,
        /// At the end of the log: wait for a record (`true`), or answer with none.
        wait: bool,
    },
    /// Answered by [`JournalReply::Head`].
    Head(JournalShard),
    /// Drops the records before `upto`, which is at most the shard's `next`. Answered by [`JournalReply::Trimmed`],
    /// also if there are none.
    Trim {
        /// Of which log.
        shard: JournalShard,
        /// The first to be kept.
        upto: Sequence,
    },
}

/// What a [`Journal`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalReply {
    /// The record stands there.
    Appended {
        /// Its place.
        sequence: Sequence,
        /// It stood there before.
        duplicate: bool,
    },
    /// A page of a log, by increasing sequence.
    Records {
        /// The records; none only if the request did not want to wait.
        records: Vec<Record>,
        /// Where the next tail goes on.
        next: Sequence,
    },
    /// What the shard holds, all of it committed.
    Head(Extent),
    /// The records are gone, or go soon: trimming is not durable by the time of its completion.
    Trimmed,
}

/// Why a [`Journal`] did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JournalError {
    /// The journal has fewer shards.
    #[error("no such journal shard")]
    NoSuchShard,
    /// A tail starts at trimmed records, or a place lies beyond the end, as it does after a journal was lost.
    #[error("outside of the journal, which reaches from {} to {}", .0.first.0, .0.next.0)]
    OutOfRange(Extent),
    /// Any store may say so.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl JournalError {
    /// Whether asking again helps.
    pub const fn retry(&self) -> Retry {
        match self {
            JournalError::NoSuchShard => Retry::Never,
            JournalError::OutOfRange(_) => Retry::Refresh,
            JournalError::Fault(fault) => fault.retry(),
        }
    }
}

/// What one handle accepts, and what the journal remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// How many shards there are.
    pub shards: u16,
    /// Bytes of the largest record.
    pub record_bytes_max: usize,
    /// Requests submitted and not yet polled; a waiting tail is one of them.
    pub in_flight_max: usize,
    /// A dedup id is remembered for this long,
    pub dedup_window: Duration,
    /// or until the shard has got this many newer ones, whichever comes first.
    pub dedup_ids_max: usize,
}

/// Logs of records, as one of their handles sees them.
///
/// - Appends of one handle to one shard that succeed have places in the order of their submission, and appends to
///   one shard complete in that order. Other completions come in any order.
/// - An append that fails says nothing about those after it: who must keep an order across failures waits for each.
/// - What a tail returns is committed: no crash that [`Durability`] covers takes it back.
/// - The memory for dedup ids survives what the records survive.
pub trait Journal: Send {
    /// What this handle accepts.
    fn limits(&self) -> JournalLimits;

    /// What a completed append survives.
    fn durability(&self) -> Durability;

    /// Takes requests from the front until none is left or `in_flight_max` is reached; there is room again after a
    /// completion was polled. Each ticket comes back once; giving the same again before that is the caller's error.
    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, JournalRequest)>);

    /// The next completion. `None`: nothing yet, and `waker`, in place of an earlier one, will be woken when there
    /// is. After a `submit`, poll without waiting for that: requests may have completed on the spot.
    fn poll(&mut self, now: Timestamp, waker: &Waker)
    -> Option<(Ticket, Result<JournalReply, JournalError>)>;
}
