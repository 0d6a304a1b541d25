//! What outlives the process, on one machine: the [`Journal`](broker_core::store::Journal) and the
//! [`Kv`](broker_core::store::Kv) of a node as two views of one directory.
//!
//! ```text
//! <dir>/VERSION            format and identity of the store
//! <dir>/LOCK               held by the process that has the store open
//! <dir>/log/<base>.log     segments; <base>: sequence of the first commit, 20 decimal digits
//! <dir>/log/<base>.idx     topic index of a sealed segment that had to leave memory; made again when it is missing
//! <dir>/tables/            a tree of sorted files; a view of the writes in the log
//! ```
//!
//! The log is what is synced. Its writer thread takes the commits of all handles, writes those that wait together and
//! syncs them once. The tables follow without a sync of their own; they know how far they are, and what they miss
//! is read from the log when the store is opened.
//!
//! | thread | does |
//! |---|---|
//! | `store-writer` | group commit: the only one that appends and syncs |
//! | `store-reader` | `Read`, `Fetch`, and tails that have fallen behind memory; owns the topic indexes |
//! | `store-keeper` | syncs tables, drops segments, writes index files |
//! | `store-tables` | applies writes to the tables and flushes them to files |
//! | `store-compact` | merges the files of the tables |
//! | `store-query` | answers what a `Kv` handle reads |
//!
//! A commit is visible to every handle before anybody is told of its completion.

mod directory;
mod engine;
pub mod files;
mod journal;
mod kv;
mod log;
pub mod ops;
mod options;
mod stats;
mod store;
mod tables;

pub use journal::JournalHandle;
pub use kv::KvHandle;
pub use options::{OpenError, Options, Progress};
pub use stats::{State, StoreStats};
pub use store::Store;
