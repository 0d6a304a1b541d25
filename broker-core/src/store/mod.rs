//! What must outlive a process or leave the machine: three traits, in values.
//!
//! | trait | holds | one machine | cluster |
//! |---|---|---|---|
//! | [`Journal`] | messages that a persistent session or the retained store needs, in one order | segmented log | replicated log |
//! | [`Kv`] | what else persistent sessions are made of, retained and delayed messages, settings | embedded tables | replicated map |
//! | [`Fabric`] | frames between nodes | no other node | message bus |
//!
//! A back end is a handle with two ends. Requests go in with tickets, as many at a time as a loop turn has
//! gathered; completions come out with the same tickets when they are due. It neither blocks nor knows a runtime:
//! how it groups commits, which thread writes, and how it reaches a server are its own affair. `poll` takes a
//! [`Waker`](std::task::Waker), the standard library's way to say "call again", which every runtime and every plain
//! thread can make. Each worker has its own handle on the same content. [`memory`] holds the back ends that forget
//! everything with their process; [`conformance`] is what every back end has to pass.
//!
//! # A commit is a transaction
//!
//! `Kv` and `Journal` of one store are two views of one content. A [`JournalRequest::Commit`] appends records *and*
//! changes entries, all or nothing, in one order for the whole store. So a message and the mark that its packet
//! identifier was received are stored together, and nothing ever has to be reconciled. The revision of an entry is the
//! sequence of the commit that wrote it.
//!
//! # Bounds
//!
//! A handle has at most `in_flight_max` requests whose completions have not been polled; `submit` leaves the rest
//! with the caller, in order, who then stops reading the clients that cause them. Every listing and every tail
//! comes in pages of the caller's size ([`Page`]), pulled and never pushed.
//!
//! # How the shard uses them
//!
//! A turn of a shard is one commit: what its requests changed that must last. Events that promise it (PUBACK, SUBACK,
//! CONNACK, …) are held until the commit has completed; the rest leaves at once. Meanwhile one client waits, never the
//! shard. What a completion vouches for is the store's [`Durability`].
//!
//! | acknowledged | waits for |
//! |---|---|
//! | CONNACK | the session's entry if the session outlives its connection |
//! | SUBACK | the routes confirmed by the other shards; the subscription's entry if the session is persistent |
//! | PUBACK, PUBREC | the record if a persistent session matches or the message is to be retained; of QoS 2 the same commit marks the packet identifier as received |
//! | PUBREL to a subscriber, PUBCOMP to a publisher | the state change |
//! | QoS 2 PUBLISH to a persistent session | its packet identifier, so that the same message has it after a crash |
//! | QoS 1 deliveries acknowledged by a subscriber | nothing: they are written later, together; what is lost in a crash is sent again with DUP |
//!
//! A message is stored once. A persistent session is its entries, with filters, and one cursor; its backlog is read by
//! [`JournalRequest::Read`]. What it gets while it is connected comes from [`JournalRequest::Tail`], so every session
//! sees the order of the journal. `Trim` follows the lowest cursor and the limits of age and size.
//! At start, before the first listener opens: `Scan` of the entries; nothing of the log has to be read.
//!
//! A failed commit is not acknowledged: the connections that wait for it end, and their clients try again.

pub mod conformance;
mod fabric;
pub mod format;
mod journal;
mod kv;
pub mod memory;

use std::num::NonZeroU16;

use thiserror::Error;

pub use fabric::{Fabric, FabricCommand, FabricError, FabricEvent, FabricLimits, NodeId, ReplyTo};
pub use journal::{
    DedupId, Extent, Interest, Journal, JournalError, JournalLimits, JournalReply, JournalRequest, Keep,
    NewRecord, Record, Sequence, Value, Write, record_topic,
};
pub use kv::{
    Change, Entry, KEY_BYTES_MAX, Key, Kv, KvError, KvLimits, KvReply, KvRequest, Prefix, Revision,
    ScanCursor,
};

/// What a completed write has survived by the time of its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Written and synced to stable storage (or to a quorum that does so): survives a loss of power.
    Sync,
    /// Handed to the operating system: survives the end of the process, not a loss of power.
    Async,
    /// Nothing: the content ends with the process.
    None,
}

/// How much one answer may hold. A back end may answer with less, but not with nothing while there is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Items at most.
    pub items_max: NonZeroU16,
    /// No item is added once the keys and values before it make up this many bytes; the first always is.
    pub bytes_max: usize,
}

/// Whether asking again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request fails again.
    Never,
    /// It was not executed; the same request may succeed later.
    Later,
    /// It may have been executed. An append is repeated with its dedup id; before a write to the `Kv` is repeated,
    /// its key is read.
    Unsure,
    /// It was not executed because the caller's picture is out of date: look again, then ask anew.
    Refresh,
}

/// Why a store of any kind did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// The value or record is larger than the store's limits allow.
    #[error("{bytes} bytes, at most {bytes_max} allowed")]
    TooLarge {
        /// Size of the value or record.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// No room: something has to be trimmed or deleted, or the operator has to act.
    #[error("the store is full")]
    Full,
    /// The store cannot be reached or has no leader at present; the request was not executed.
    #[error("the store is not available")]
    Unavailable,
    /// The connection to the store broke before the answer came.
    #[error("the store did not answer; the request may have been executed")]
    Indeterminate,
    /// The store is broken; until it is opened again no request will succeed and nothing may be acknowledged.
    #[error("the store has failed: {0}")]
    Failed(Box<str>),
}

impl Fault {
    /// Whether asking again helps.
    pub const fn retry(&self) -> Retry {
        match self {
            Fault::TooLarge { .. } => Retry::Never,
            Fault::Full | Fault::Unavailable => Retry::Later,
            // A store that broke in the middle of a commit cannot tell either.
            Fault::Indeterminate | Fault::Failed(_) => Retry::Unsure,
        }
    }
}
