//! A map of small values whose every write is compare-and-set.

use std::{borrow::Borrow, collections::VecDeque, sync::Arc, task::Waker};

use bytes::Bytes;
use thiserror::Error;

use super::{Durability, Fault, Page, Retry};
use crate::{Timestamp, shard::Ticket};

/// Bytes of the longest [`Key`].
pub const KEY_BYTES_MAX: usize = 255;

/// The name of an entry: tokens of ASCII letters, digits, `-`, `_` and `=`, separated by single dots, at most
/// [`KEY_BYTES_MAX`] bytes. The first token names the table.
///
/// Every back end can hold such keys as they are. What is longer or has other characters (a client id may have
/// 65 535 bytes of UTF-8) is keyed by a hash; the value then holds the full name, and its reader compares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// `None` if `name` is no valid key.
    pub fn new(name: &str) -> Option<Key> {
        let is_token = |token: &str| {
            !token.is_empty()
                && token
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte))
        };
        (name.len() <= KEY_BYTES_MAX && name.split('.').all(is_token)).then(|| Key(name.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A set of keys: those that have further tokens after the given ones, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// Every key.
    pub fn all() -> Prefix {
        Prefix("".into())
    }

    /// The keys below these tokens: `sess` stands for `sess.a` and `sess.a.b`, neither for `sess` nor `session.a`.
    pub fn below(tokens: &Key) -> Prefix {
        Prefix(format!("{}.", tokens.as_str()).into())
    }

    /// True if `key` is one of them.
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str().starts_with(&*self.0)
    }

    /// What the text of these keys starts with.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names one write. The writes to one store, deletions included, have increasing revisions, from 1; none is used
/// twice, not even after the store was opened again. Those of one [commit](super::JournalRequest::Commit) share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

/// A value as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// The write that set it.
    pub revision: Revision,
    /// What was set.
    pub value: Bytes,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub key: Key,
    /// The write.
    pub revision: Revision,
    /// The value; `None`: deleted.
    pub value: Option<Bytes>,
}

/// Where a scan goes on. Only the store that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanCursor(pub Bytes);

/// What is asked of a [`Kv`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvRequest {
    /// Answered by [`KvReply::Entry`].
    Get(Key),
    /// Sets a key that must not exist. Answered by [`KvReply::Written`].
    Create(Key, Bytes),
    /// Replaces the value that has this revision. Answered by [`KvReply::Written`].
    Update(Key, Revision, Bytes),
    /// Removes the value that has this revision. Answered by [`KvReply::Written`].
    Delete(Key, Revision),
    /// The next page of the keys in a set, in no particular order. Answered by [`KvReply::Scanned`].
    Scan {
        /// Which keys.
        prefix: Prefix,
        /// From the page before; `None` starts.
        after: Option<ScanCursor>,
        /// Bounds of the answer.
        page: Page,
    },
    /// The changes after a revision; waits for the first. Answered by [`KvReply::Changed`], once: to go on watching
    /// is to ask again.
    Watch {
        /// Which keys.
        prefix: Prefix,
        /// Changes up to this one are known.
        after: Revision,
        /// Bounds of the answer.
        page: Page,
    },
}

/// What a [`Kv`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvReply {
    /// What was found; `None`: nothing has this name.
    Entry(Option<Entry>),
    /// The write was done, and this is its revision.
    Written(Revision),
    /// A page of a scan. A key that exists from the scan's first page to its last is in one of them.
    Scanned {
        /// The entries.
        entries: Vec<Entry>,
        /// For the next page; `None`: this was the last.
        next: Option<ScanCursor>,
        /// Watching after this revision, the same on all pages of a scan, misses nothing that the scan missed.
        /// It may tell again what the scan told; the higher revision counts.
        watch_after: Revision,
    },
    /// Changes by increasing revision, at least one. Of several changes to a key all but the last may be left out.
    /// Those of one commit come in one page, also if that makes it larger than asked for.
    Changed {
        /// The changes.
        changes: Vec<Change>,
        /// Where the next watch goes on; later than the last change if others than the watched keys changed.
        watch_after: Revision,
    },
}

/// Why a [`Kv`] did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KvError {
    /// The key exists (on create), or its value has another revision (on update and delete).
    #[error("conflict: the key's revision is {current:?}")]
    Conflict {
        /// The revision as it is; `None`: the key does not exist.
        current: Option<Revision>,
    },
    /// The store no longer knows all changes since that revision (or, for a cursor, never made it): scan anew.
    #[error("the changes since that revision are no longer known")]
    HistoryGone,
    /// Any store may say so.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl KvError {
    /// Whether asking again helps.
    pub const fn retry(&self) -> Retry {
        match self {
            KvError::Conflict { .. } | KvError::HistoryGone => Retry::Refresh,
            KvError::Fault(fault) => fault.retry(),
        }
    }
}

/// What one handle accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLimits {
    /// Bytes of the largest value.
    pub value_bytes_max: usize,
    /// Requests submitted and not yet polled; a waiting watch is one of them.
    pub in_flight_max: usize,
}

/// A map from [`Key`]s to values, as one of its handles sees it.
///
/// - Each write is atomic; several are not.
/// - Writes of one handle to one key take effect and complete in the order of their submission. Other completions
///   come in any order.
/// - A read sees at least the writes, by any handle, that had completed when it was submitted.
pub trait Kv: Send {
    /// What this handle accepts.
    fn limits(&self) -> KvLimits;

    /// What a completed write survives.
    fn durability(&self) -> Durability;

    /// Takes requests from the front until none is left or `in_flight_max` is reached; there is room again after a
    /// completion was polled. Each ticket comes back once; giving the same again before that is the caller's error.
    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, KvRequest)>);

    /// The next completion. `None`: nothing yet, and `waker`, in place of an earlier one, will be woken when there
    /// is. After a `submit`, poll without waiting for that: requests may have completed on the spot.
    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<(Ticket, Result<KvReply, KvError>)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_tokens() {
        for valid in ["a", "sess.0f", "a.b-c_d=e.9", &"x".repeat(KEY_BYTES_MAX)] {
            assert!(Key::new(valid).is_some(), "{valid}");
        }
        for invalid in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a/b",
            "a*",
            "ä",
            "a\0",
            &"x".repeat(KEY_BYTES_MAX + 1),
        ] {
            assert!(Key::new(invalid).is_none(), "{invalid}");
        }
    }

    #[test]
    fn a_prefix_is_made_of_whole_tokens() {
        let key = |name| Key::new(name).unwrap();
        let prefix = Prefix::below(&key("sess"));
        for (name, expected) in [
            ("sess.a", true),
            ("sess.a.b", true),
            ("sess", false),
            ("session.a", false),
        ] {
            assert_eq!(prefix.contains(&key(name)), expected, "{name}");
            assert!(Prefix::all().contains(&key(name)));
        }
    }
}
