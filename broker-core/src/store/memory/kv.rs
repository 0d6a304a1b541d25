use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    task::Waker,
};

use bytes::Bytes;

use super::{Content, Handle, MemoryLimits};
use crate::{
    Timestamp,
    shard::Ticket,
    store::{
        Change, Durability, Entry, Fault, Key, Kv, KvError, KvLimits, KvReply, KvRequest, Page, Prefix,
        Revision, ScanCursor,
    },
};

/// A [`Kv`] in memory; a clone is another handle on the same content.
#[derive(Clone)]
pub struct MemoryKv {
    handle: Handle<Table>,
    limits: MemoryLimits,
}

impl MemoryKv {
    /// A handle on a store without entries.
    pub fn new(limits: MemoryLimits) -> MemoryKv {
        let table = Table {
            limits,
            revision: 0,
            entries: BTreeMap::new(),
            bytes: 0,
            history: VecDeque::new(),
        };
        MemoryKv {
            handle: Handle::new(table, limits.in_flight_max),
            limits,
        }
    }
}

impl Kv for MemoryKv {
    fn limits(&self) -> KvLimits {
        KvLimits {
            value_bytes_max: self.limits.item_bytes_max,
            in_flight_max: self.limits.in_flight_max,
        }
    }

    fn durability(&self) -> Durability {
        Durability::None
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, KvRequest)>) {
        self.handle.submit(now, requests);
    }

    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<(Ticket, Result<KvReply, KvError>)> {
        self.handle.poll(now, waker)
    }
}

struct Table {
    limits: MemoryLimits,
    revision: u64,
    entries: BTreeMap<Key, (Revision, Bytes)>,
    bytes: u64,
    /// The latest writes, one per revision, the last of which is `revision`: the key, and whether it was deleted.
    /// Values are looked up, so that the history does not keep replaced ones alive.
    history: VecDeque<(Key, bool)>,
}

impl Content for Table {
    type Request = KvRequest;
    type Answer = Result<KvReply, KvError>;

    fn execute(&mut self, _: Timestamp, request: &mut KvRequest) -> Option<Self::Answer> {
        Some(match request {
            KvRequest::Get(key) => Ok(KvReply::Entry(self.get(key))),
            KvRequest::Create(key, value) => self.write(key, None, Some(value.clone())),
            KvRequest::Update(key, revision, value) => self.write(key, Some(*revision), Some(value.clone())),
            KvRequest::Delete(key, revision) => self.write(key, Some(*revision), None),
            KvRequest::Scan { prefix, after, page } => self.scan(prefix, after.as_ref(), *page),
            KvRequest::Watch { prefix, after, page } => return self.watch(prefix, after, *page),
        })
    }

    fn writes(&self) -> u64 {
        self.revision
    }
}

impl Table {
    fn get(&self, key: &Key) -> Option<Entry> {
        self.entries.get(key).map(|(revision, value)| Entry {
            key: key.clone(),
            revision: *revision,
            value: value.clone(),
        })
    }

    fn write(
        &mut self,
        key: &Key,
        expected: Option<Revision>,
        value: Option<Bytes>,
    ) -> Result<KvReply, KvError> {
        let current = self.entries.get(key).map(|(revision, _)| *revision);
        let size = |value: &Bytes| (key.as_str().len() + value.len()) as u64;
        let freed = self.entries.get(key).map_or(0, |(_, value)| size(value));
        let added = value.as_ref().map_or(0, size);
        if let Some(value) = &value
            && value.len() > self.limits.item_bytes_max
        {
            let (bytes, bytes_max) = (value.len(), self.limits.item_bytes_max);
            return Err(Fault::TooLarge { bytes, bytes_max }.into());
        }
        if current != expected {
            return Err(KvError::Conflict { current });
        }
        if added > freed && self.bytes - freed + added > self.limits.bytes_max {
            return Err(Fault::Full.into());
        }
        self.bytes = self.bytes - freed + added;
        self.revision += 1;
        let revision = Revision(self.revision);
        self.history.push_back((key.clone(), value.is_none()));
        match value {
            Some(value) => self.entries.insert(key.clone(), (revision, value)),
            None => self.entries.remove(key),
        };
        if self.history.len() > self.limits.history_max {
            self.history.pop_front();
        }
        Ok(KvReply::Written(revision))
    }

    /// The cursor is the revision when the scan began, in eight bytes, and the last key of the page before.
    fn scan(&self, prefix: &Prefix, after: Option<&ScanCursor>, page: Page) -> Result<KvReply, KvError> {
        let (began, after) = match after {
            None => (self.revision, None),
            Some(cursor) => {
                let (began, key) = parse_cursor(cursor).ok_or(KvError::HistoryGone)?;
                (began, Some(key))
            }
        };
        let start = match after {
            Some(key) => Bound::Excluded(key),
            None => Bound::Included(prefix.as_str()),
        };
        let mut rest = self
            .entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| prefix.contains(key))
            .peekable();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < usize::from(page.items_max.get())
            && (entries.is_empty() || bytes < page.bytes_max)
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
                let cursor = [&began.to_be_bytes(), last.key.as_str().as_bytes()].concat();
                Some(ScanCursor(cursor.into()))
            }
            _ => None,
        };
        Ok(KvReply::Scanned {
            entries,
            next,
            watch_after: Revision(began),
        })
    }

    /// `None` if nothing changed; `after` has then moved on, so that nothing is looked at twice.
    fn watch(&self, prefix: &Prefix, after: &mut Revision, page: Page) -> Option<Result<KvReply, KvError>> {
        let forgotten = self.revision - self.history.len() as u64;
        if !(forgotten..=self.revision).contains(&after.0) {
            return Some(Err(KvError::HistoryGone));
        }
        let (mut changes, mut bytes) = (Vec::new(), 0);
        while after.0 < self.revision
            && changes.len() < usize::from(page.items_max.get())
            && (changes.is_empty() || bytes < page.bytes_max)
        {
            // At most `history_max`, a usize.
            let (key, is_deleted) = &self.history[(after.0 - forgotten) as usize];
            after.0 += 1;
            let value = match self.entries.get(key) {
                None if *is_deleted => None,
                Some((revision, value)) if revision == after => Some(value.clone()),
                // A later change to the key is in the history too.
                _ => continue,
            };
            if prefix.contains(key) {
                bytes += key.as_str().len() + value.as_ref().map_or(0, Bytes::len);
                changes.push(Change {
                    key: key.clone(),
                    revision: *after,
                    value,
                });
            }
        }
        (!changes.is_empty()).then(|| {
            Ok(KvReply::Changed {
                changes,
                watch_after: *after,
            })
        })
    }
}

fn parse_cursor(cursor: &ScanCursor) -> Option<(u64, &str)> {
    let (began, key) = cursor.0.split_first_chunk()?;
    Some((u64::from_be_bytes(*began), std::str::from_utf8(key).ok()?))
}
