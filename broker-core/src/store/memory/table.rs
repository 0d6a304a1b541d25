use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;

use super::has_room;
use crate::store::{Change, Entry, Key, KvError, KvReply, Page, Prefix, Revision, ScanCursor};

/// Bytes that an entry takes beyond its value and twice its key (the second is in the history).
const ENTRY_OVERHEAD: u64 = 96;

/// The entries.
#[derive(Default)]
pub(super) struct Table {
    entries: BTreeMap<Key, (Revision, Bytes)>,
    charge: u64,
    /// The latest changes. Values are looked up, so that the history does not keep replaced ones alive.
    history: VecDeque<Past>,
    /// The latest change that the history has lost.
    forgotten: Revision,
}

struct Past {
    revision: Revision,
    key: Key,
    is_deleted: bool,
}

impl Table {
    /// What the entries take, in bytes.
    pub(super) fn charge(&self) -> u64 {
        self.charge
    }

    pub(super) fn revision(&self, key: &Key) -> Option<Revision> {
        self.entries.get(key).map(|(revision, _)| *revision)
    }

    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).map(|(revision, value)| Entry {
            key: key.clone(),
            revision: *revision,
            value: value.clone(),
        })
    }

    /// What the charge of all the changed keys will be, and what it is.
    pub(super) fn growth(&self, changes: &[(&Key, Option<&Bytes>)]) -> (u64, u64) {
        changes.iter().fold((0, 0), |(put, freed), (key, value)| {
            let current = self.entries.get(*key).map(|(_, value)| value);
            (
                put + value.map_or(0, |value| charge(key, value)),
                freed + current.map_or(0, |value| charge(key, value)),
            )
        })
    }

    pub(super) fn set(&mut self, key: &Key, revision: Revision, value: Option<&Bytes>, history_max: usize) {
        let replaced = match value {
            Some(value) => {
                self.charge += charge(key, value);
                self.entries.insert(key.clone(), (revision, value.clone()))
            }
            None => self.entries.remove(key),
        };
        self.charge -= replaced.map_or(0, |(_, value)| charge(key, &value));
        self.history.push_back(Past {
            revision,
            key: key.clone(),
            is_deleted: value.is_none(),
        });
        if self.history.len() > history_max
            && let Some(past) = self.history.pop_front()
        {
            self.forgotten = past.revision;
        }
    }

    /// The cursor is the revision when the scan began, in eight bytes, and the last key of the page before.
    pub(super) fn scan(
        &self,
        prefix: &Prefix,
        after: Option<&ScanCursor>,
        page: Page,
        latest: Revision,
    ) -> Result<KvReply, KvError> {
        let (began, start) = match after {
            None => (latest, Bound::Included(prefix.as_str())),
            Some(cursor) => {
                let (began, key) = parse_cursor(cursor).ok_or(KvError::HistoryGone)?;
                (began, Bound::Excluded(key))
            }
        };
        let mut rest = self
            .entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| prefix.contains(key))
            .peekable();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while has_room(page, entries.len(), bytes)
            && let Some((key, (revision, value))) = rest.next()
        {
            bytes += key.as_str().len() + value.len();
            entries.push(Entry {
                key: key.clone(),
                revision: *revision,
                value: value.clone(),
            });
        }
        let next = match (rest.peek(), entries.last()) {
            (Some(_), Some(last)) => {
                let cursor = [&began.0.to_be_bytes(), last.key.as_str().as_bytes()].concat();
                Some(ScanCursor(cursor.into()))
            }
            _ => None,
        };
        Ok(KvReply::Scanned {
            entries,
            next,
            watch_after: began,
        })
    }

    /// `None` if nothing changed; `after` has then moved on, so that nothing is looked at twice.
    pub(super) fn watch(
        &self,
        prefix: &Prefix,
        after: &mut Revision,
        page: Page,
        latest: Revision,
    ) -> Option<Result<KvReply, KvError>> {
        if !(self.forgotten..=latest).contains(after) {
            return Some(Err(KvError::HistoryGone));
        }
        let known = self.history.partition_point(|past| past.revision <= *after);
        let (mut changes, mut bytes) = (Vec::new(), 0);
        let mut seen = latest;
        for past in self.history.range(known..) {
            // The place to go on is a revision, so a commit is told whole.
            if past.revision > *after && !has_room(page, changes.len(), bytes) {
                seen = *after;
                break;
            }
            *after = past.revision;
            let value = match self.entries.get(&past.key) {
                None if past.is_deleted => None,
                Some((revision, value)) if *revision == past.revision => Some(value.clone()),
                // A later change to the key is in the history too.
                _ => continue,
            };
            if prefix.contains(&past.key) {
                bytes += past.key.as_str().len() + value.as_ref().map_or(0, Bytes::len);
                changes.push(Change {
                    key: past.key.clone(),
                    revision: past.revision,
                    value,
                });
            }
        }
        *after = seen;
        (!changes.is_empty()).then(|| {
            Ok(KvReply::Changed {
                changes,
                watch_after: seen,
            })
        })
    }
}

fn charge(key: &Key, value: &Bytes) -> u64 {
    ENTRY_OVERHEAD + (2 * key.as_str().len() + value.len()) as u64
}

fn parse_cursor(cursor: &ScanCursor) -> Option<(Revision, &str)> {
    let (began, key) = cursor.0.split_first_chunk()?;
    let began = Revision(u64::from_be_bytes(*began));
    Some((began, std::str::from_utf8(key).ok()?))
}
