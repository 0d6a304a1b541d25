//! What must outlive a process or leave the machine: three traits, in values.
//!
//! | trait | holds | one machine | cluster |
//! |---|---|---|---|
//! | [`Kv`] | sessions, owners, users, banned, settings, checkpoints of retained messages | embedded store | replicated map |
//! | [`Journal`] | messages that a persistent session or the retained store needs, QoS 2 and cursor records | embedded store | replicated log |
//! | [`Fabric`] | frames between nodes | no other node | message bus |
//!
//! A back end is a handle with two ends. Requests go in with tickets, as many at a time as a loop turn has
//! gathered; completions come out with the same tickets when they are due. It neither blocks nor knows a runtime:
//! how it groups commits, which thread writes, and how it reaches a server are its own affair. `poll` takes a
//! [`Waker`](std::task::Waker), the standard library's way to say "call again", which every runtime and every plain
//! thread can make. Each worker has its own handle on the same content. [`memory`] holds the back ends that forget
//! everything with their process; [`conformance`] is what every back end has to pass.
//!
//! # Bounds
//!
//! A handle has at most `in_flight_max` requests whose completions have not been polled; `submit` leaves the rest
//! with the caller, in order, who then stops reading the clients that cause them. Every listing and every tail
//! comes in pages of the caller's size ([`Page`]), pulled and never pushed.
//!
//! # How the shard uses them
//!
//! A shard emits requests as outputs, as it does its questions to the control plane; the driver gathers those of a
//! loop turn for one `submit` and feeds completions back as replies. Meanwhile one client waits, never the shard.
//! What a completion vouches for is the store's [`Durability`].
//!
//! | acknowledged | waits for |
//! |---|---|
//! | CONNACK | in a cluster `Create` or `Update` of the owner's entry; `Create` or `Update` of the session's entry if the session outlives its connection |
//! | SUBACK | the routes confirmed by the other shards and nodes; `Update` of the session's entry if persistent, with the position of each journal shard from which it reads |
//! | PUBACK, PUBREC | `Append` of the message if a persistent session matches or the message is to be retained; of QoS 2 the record also says that this packet identifier was received, so both are stored or neither |
//! | PUBREL to a subscriber, PUBCOMP to a publisher | `Append` of the state change to the shard of cursor records |
//! | QoS 1 deliveries acknowledged by a subscriber | nothing: cursor records are gathered; what is lost in a crash is sent again with DUP |
//!
//! A message is stored once. A persistent session is its entry, with filters, plus one cursor per journal shard,
//! and its backlog is read from the journal. `Trim` follows the lowest cursor and the limits of age and size.
//! Before a trim passes a retained message that is still current, its checkpoint is written to the `Kv`; a shard of
//! cursor records is compacted by appending a summary and trimming what lies before it.
//! At start, before the first listener opens: `Scan` of the sessions and the checkpoints, `Tail` of every shard to
//! its end.
//!
//! A failed write is not acknowledged. The publisher of an unacknowledged message sends it again, and the
//! [`DedupId`] keeps the second from being stored beside the first. [`Retry`] says what else is possible.

pub mod conformance;
mod fabric;
mod journal;
mod kv;
pub mod memory;

use std::num::NonZeroU16;

use thiserror::Error;

pub use fabric::{Fabric, FabricCommand, FabricError, FabricEvent, FabricLimits, NodeId, ReplyTo};
pub use journal::{
    DedupId, Extent, Journal, JournalError, JournalLimits, JournalReply, JournalRequest, JournalShard,
    Record, Sequence,
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
