//! One log of records, and what changes together with them.

use std::{collections::VecDeque, sync::Arc, task::Waker, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use super::{Durability, Fault, Key, Page, Retry};
use crate::{Timestamp, shard::Ticket};

/// The place of a commit or record in the journal. The first has 1; later ones have more. None is used twice, not
/// even after a trim or after the journal was opened again. [`Revision`](super::Revision)s of the [`Kv`](super::Kv)
/// beside the journal are the same numbers: what was written by a commit has its first sequence as its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// Before every record.
    pub const FIRST: Sequence = Sequence(1);
    /// After every record.
    pub const END: Sequence = Sequence(u64::MAX);

    /// The next one.
    pub const fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// Names what is to be committed, so that it is committed once however often it is tried. The caller makes it from
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

/// The topic that a record begins with: two bytes of length, the higher first, and that many bytes of UTF-8.
/// `None` if it does not begin so.
pub fn record_topic(data: &[u8]) -> Option<&str> {
    let (len, rest) = data.split_first_chunk::<2>()?;
    let topic = rest.get(..usize::from(u16::from_be_bytes(*len)))?;
    std::str::from_utf8(topic).ok()
}

/// A record to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Its bytes; it begins with its topic ([`record_topic`]).
    pub data: Bytes,
    /// Whether [`JournalRequest::Read`] finds it. [`JournalRequest::Tail`] returns it in any case.
    pub indexed: bool,
}

/// What happens to an entry of the [`Kv`](super::Kv) beside the journal, whatever it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Which entry.
    pub key: Key,
    /// What becomes of it.
    pub value: Value,
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// It is set to this.
    Put(Bytes),
    /// It is set to the data of the n-th record of the same commit, counted from 0.
    PutRecord(usize),
    /// It is removed, if it exists.
    Delete,
}

/// Which records a reader is interested in: those whose topic matches one of these filters, as MQTT 5 §4.7 has it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Interest {
    /// Valid topic filters, without prefixes such as `$share/`.
    pub filters: Box<[Box<str>]>,
}

/// How much of a backlog is of interest, counted from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Keep {
    /// Records; 0: all.
    pub items_max: u64,
    /// Bytes of their data; 0: all. The last record is kept even if it is larger.
    pub bytes_max: u64,
}

/// What a journal holds: the records from `first` up to but not including `next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The records before it were trimmed.
    pub first: Sequence,
    /// The next commit will have this one or a later.
    pub next: Sequence,
    /// Bytes of the records held, without overhead; approximate within one percent or one segment of the log.
    pub bytes: u64,
}

/// What is asked of a [`Journal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalRequest {
    /// Appends records and changes entries: all of it or nothing. Answered by [`JournalReply::Committed`].
    Commit {
        /// They get consecutive places.
        records: Vec<NewRecord>,
        /// Done in order: of several to one key the last counts.
        writes: Vec<Write>,
        /// A second commit of the same id is answered like the first, and nothing is done.
        dedup: Option<DedupId>,
    },
    /// All records from a place on. Answered by [`JournalReply::Records`], once.
    Tail {
        /// First place of interest, from the journal's `first` to its `next`.
        from: Sequence,
        /// Bounds of the answer.
        page: Page,
        /// At the end of the log: wait for a record (`true`), or answer with none.
        wait: bool,
    },
    /// The indexed records from a place on that somebody is interested in, found by their topics. Answered by
    /// [`JournalReply::Found`], without waiting. What was trimmed is passed over.
    Read {
        /// Which records.
        interest: Arc<Interest>,
        /// First place of interest.
        from: Sequence,
        /// Older matching records than these are passed over and counted.
        keep: Keep,
        /// Bounds of the answer.
        page: Page,
    },
    /// Single records. Answered by [`JournalReply::Fetched`].
    Fetch(Vec<Sequence>),
    /// Answered by [`JournalReply::Head`].
    Head,
    /// Drops records before `upto`, which is at most `next`; a back end may keep some of them for a while. Answered by
    /// [`JournalReply::Trimmed`], also if there are none. Entries are not affected.
    Trim {
        /// The first to be kept.
        upto: Sequence,
    },
}

/// What a [`Journal`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalReply {
    /// It was done.
    Committed {
        /// The place of the commit, and of its first record if it has any.
        first: Sequence,
        /// The commit's records have the places from `first` on, one each; every later commit has this place or a
        /// later one. Greater than `first`, also without records.
        next: Sequence,
        /// It was done before.
        duplicate: bool,
    },
    /// A page of the log, by increasing sequence.
    Records {
        /// The records; none only if the request did not want to wait.
        records: Vec<Record>,
        /// Where the next tail goes on. All records before it are committed and were returned.
        next: Sequence,
    },
    /// What a reader is interested in, by increasing sequence.
    Found {
        /// Every matching record from `from` up to but not including `next`, but for those passed over. May be empty
        /// though there is more: then `next` has moved, and the reader asks again.
        records: Vec<Record>,
        /// Where to go on.
        next: Sequence,
        /// At the time of the answer nothing indexed stood at `next` or beyond.
        at_end: bool,
        /// How many were passed over because of [`Keep`].
        passed_over: u64,
    },
    /// Those of the asked for that exist, in the order asked for.
    Fetched(Vec<Record>),
    /// What the journal holds, all of it committed.
    Head(Extent),
    /// The records are gone, or go soon: trimming is not durable by the time of its completion.
    Trimmed,
}

/// Why a [`Journal`] did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum JournalError {
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
            JournalError::OutOfRange(_) => Retry::Refresh,
            JournalError::Fault(fault) => fault.retry(),
        }
    }

    /// With what the commits behind a commit that failed with this have to fail, see [`Journal`].
    pub const fn takes_along(&self) -> Option<&Fault> {
        match self {
            JournalError::Fault(Fault::TooLarge { .. }) | JournalError::OutOfRange(_) => None,
            JournalError::Fault(fault) => Some(fault),
        }
    }
}

/// What one handle accepts, and what the journal remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// Bytes of the largest record, and of the largest value of a write.
    pub record_bytes_max: usize,
    /// Requests submitted and not yet polled; a waiting tail is one of them.
    pub in_flight_max: usize,
    /// A dedup id is remembered for this long,
    pub dedup_window: Duration,
    /// or until the journal has got this many newer ones, whichever comes first.
    pub dedup_ids_max: usize,
}

/// A log of records with the entries of a [`Kv`](super::Kv), as one of its handles sees it.
///
/// - Commits of one handle that succeed have places in the order of their submission, and complete in that order,
///   failed ones too. Other completions come in any order.
/// - A commit that fails did nothing, unless its [`Retry`] is [`Retry::Unsure`]. It takes along the commits that its
///   handle submitted before the failure was polled: they fail with the same [`Fault`], so that none is done which
///   builds on one that is not. Only [`Fault::TooLarge`] says nothing about those after it.
/// - What a tail, a read or a fetch returns is committed: no crash that [`Durability`] covers takes it back. A tail or
///   read that is submitted after a commit of any handle has completed sees it.
///   A tail that waits is complete no later than that, through every handle: a shard that has polled its tail knows
///   what anybody else was told.
/// - The memory for dedup ids survives what the records survive.
pub trait Journal: Send {
    /// What this handle accepts.
    fn limits(&self) -> JournalLimits;

    /// What a completed commit survives.
    fn durability(&self) -> Durability;

    /// Takes requests from the front until none is left or `in_flight_max` is reached; there is room again after a
    /// completion was polled. Each ticket comes back once; giving the same again before that is the caller's error.
    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, JournalRequest)>);

    /// The next completion. `None`: nothing yet, and `waker`, in place of an earlier one, will be woken when there
    /// is. After a `submit`, poll without waiting for that: requests may have completed on the spot.
    fn poll(&mut self, now: Timestamp, waker: &Waker)
    -> Option<(Ticket, Result<JournalReply, JournalError>)>;
}
