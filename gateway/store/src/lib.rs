//! What outlives the process, on one machine: the [`Journal`](broker_core::store::Journal) and the
//! [`Kv`](broker_core::store::Kv) of a node as two views of one directory.
//!
//! ```text
//! <dir>/VERSION            format and identity of the store
//! <dir>/LOCK               held by the process that has the store open
//! <dir>/log/<base>.log     segments; <base>: sequence of the first commit, 20 decimal digits
//! <dir>/log/<base>.idx     topic index of a sealed segment that had to leave memory; made again when it is missing
//! <dir>/tables/            a tree of sorted files; a view of the writes in the log
//! <dir>/reserve            holds nothing but room, for a full disk; empty: it was given up and not made again yet
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
//! # A full disk
//!
//! The keeper makes the file `reserve`: as large as a segment, from 4 to 64 MiB. The first write that finds no room
//! empties it. From then on commits with records are refused with [`Fault::Full`](broker_core::store::Fault::Full)
//! without touching the disk, and [`State`] is `Full`. Commits that only change entries are taken as long as they fit,
//! and the tables are flushed, so sessions read what is stored for them and segments that nobody needs go. After each of
//! those, and every second, the keeper tries to make the file again, with a quarter more so that records find room as
//! well. When it can, records are taken again. An empty file says the same to the next process. If there is no room when
//! the store is opened for the first time, it goes on without: then every commit is tried when the disk is full.
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
mod reserve;
mod stats;
mod store;
mod tables;

pub use journal::JournalHandle;
pub use kv::KvHandle;
pub use options::{OpenError, Options, Progress};
pub use stats::{State, StoreStats};
pub use store::Store;
