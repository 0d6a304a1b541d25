//! The thread that answers what a [`KvHandle`](crate::KvHandle) wants to read. It may wait for the disk.

use std::{
    cmp::Ordering as Order,
    collections::{VecDeque, btree_map},
    ops::Bound,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use broker_core::{
    shard::Ticket,
    store::{Change, Entry, Fault, Key, KvError, KvReply, Page, Prefix, Revision, ScanCursor},
};
use bytes::Bytes;

use super::{Entries, Shared, TreeError, overlay::Pending, wait};
use crate::engine::{KvAnswer, Slot};

/// What is asked.
pub(crate) enum Question {
    /// As `KvRequest::Get`.
    Get(Key),
    /// As `KvRequest::Scan`.
    Scan {
        prefix: Prefix,
        after: Option<ScanCursor>,
        page: Page,
    },
    /// As `KvRequest::Watch`.
    Watch {
        prefix: Prefix,
        after: Revision,
        page: Page,
    },
}

/// What is asked, and where the answer goes.
pub(crate) struct Query {
    pub(crate) slot: Arc<Slot<KvAnswer>>,
    pub(crate) ticket: Ticket,
    pub(crate) question: Question,
}

#[derive(Default)]
pub(super) struct Queries {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    queries: VecDeque<Query>,
    /// Something was committed.
    is_changed: bool,
    is_closing: bool,
}

impl Queries {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, query: Query) {
        self.lock().queries.push_back(query);
        self.arrived.notify_one();
    }

    pub(super) fn wake(&self) {
        self.lock().is_changed = true;
        self.arrived.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().is_closing = true;
        self.arrived.notify_one();
    }
}

/// Answers until the tables are closed; what is left then is told that.
pub(super) fn answer(shared: &Shared) {
    let mut watches: Vec<Query> = Vec::new();
    loop {
        let mut queue = shared.queries.lock();
        while queue.queries.is_empty() && !queue.is_changed && !queue.is_closing {
            queue = wait(&shared.queries.arrived, queue);
        }
        let is_closing = queue.is_closing;
        let is_changed = std::mem::take(&mut queue.is_changed);
        let queries = std::mem::take(&mut queue.queries);
        drop(queue);
        if is_closing {
            for query in queries.into_iter().chain(watches) {
                query
                    .slot
                    .complete([(query.ticket, Err(Fault::Unavailable.into()))]);
            }
            return;
        }
        if is_changed {
            watches.retain_mut(|watch| !try_answer(shared, watch));
        }
        for mut query in queries {
            // Set before looking, so that a commit in between wakes this thread.
            if matches!(query.question, Question::Watch { .. }) {
                shared.is_watched.store(true, Ordering::Release);
            }
            if !try_answer(shared, &mut query) {
                watches.push(query);
            }
        }
        if watches.is_empty() {
            shared.is_watched.store(false, Ordering::Release);
        }
    }
}

/// False if the question has to wait.
fn try_answer(shared: &Shared, query: &mut Query) -> bool {
    let answer = match &mut query.question {
        Question::Get(key) => match shared.get(key) {
            Ok(entry) => Some(Ok(KvReply::Entry(entry))),
            Err(error) => Some(Err(unreadable(error))),
        },
        Question::Scan { prefix, after, page } => Some(scan(shared, prefix, after.as_ref(), *page)),
        Question::Watch { prefix, after, page } => watch(shared, prefix, after, *page),
    };
    match answer {
        Some(answer) => {
            query.slot.complete([(query.ticket, answer)]);
            true
        }
        None => false,
    }
}

fn unreadable(error: TreeError) -> KvError {
    Fault::from(error).into()
}

/// Entries of an answer, within its bounds.
struct Filling {
    page: Page,
    bytes: usize,
    entries: Vec<Entry>,
}

impl Filling {
    fn is_full(&self) -> bool {
        self.entries.len() >= usize::from(self.page.items_max.get())
            || (!self.entries.is_empty() && self.bytes >= self.page.bytes_max)
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.key.as_str().len() + entry.value.len();
        self.entries.push(entry);
    }
}

/// The cursor is the revision when the scan began, in eight bytes, and the key after which the next page begins.
fn scan(shared: &Shared, prefix: &Prefix, after: Option<&ScanCursor>, page: Page) -> KvAnswer {
    let (began, mut from) = match after {
        None => {
            let committed = shared.state().committed;
            (Revision(committed.0.saturating_sub(1)), None)
        }
        Some(cursor) => {
            let (began, key) = parse_cursor(cursor).ok_or(KvError::HistoryGone)?;
            (began, Some(key))
        }
    };
    let mut filling = Filling {
        page,
        bytes: 0,
        entries: Vec::new(),
    };
    let mut is_more = true;
    while is_more && !filling.is_full() {
        is_more = fill(shared, prefix, &mut from, &mut filling).map_err(unreadable)?;
    }
    let next = match from {
        Some(last) if is_more => {
            let cursor = [&began.0.to_be_bytes(), last.as_str().as_bytes()].concat();
            Some(ScanCursor(cursor.into()))
        }
        _ => None,
    };
    Ok(KvReply::Scanned {
        entries: filling.entries,
        next,
        watch_after: began,
    })
}

fn parse_cursor(cursor: &ScanCursor) -> Option<(Revision, Key)> {
    let (began, key) = cursor.0.split_first_chunk()?;
    let key = Key::new(std::str::from_utf8(key).ok()?)?;
    Some((Revision(u64::from_be_bytes(*began)), key))
}

/// Adds entries after `from`, which moves on. False if there are no more.
fn fill(
    shared: &Shared,
    prefix: &Prefix,
    from: &mut Option<Key>,
    filling: &mut Filling,
) -> Result<bool, TreeError> {
    let mut merge = Merge::new(shared, prefix, from.as_ref(), filling.page)?;
    while !filling.is_full() {
        let Some((key, entry)) = merge.next()? else {
            // The merge ends where the overlay was cut off, or at the end of all.
            let is_more = merge.end.is_some();
            *from = merge.end.or(from.take());
            return Ok(is_more);
        };
        *from = Some(key);
        if let Some(entry) = entry {
            filling.push(entry);
        }
    }
    Ok(true)
}

/// Keys of the tree and of the overlay in one order.
struct Merge<'a> {
    prefix: &'a Prefix,
    stored: Entries,
    next_stored: Option<Entry>,
    writes: btree_map::IntoIter<Key, Pending>,
    next_write: Option<(Key, Pending)>,
    /// Beyond this key the overlay may have more than `writes`.
    end: Option<Key>,
}

impl<'a> Merge<'a> {
    fn new(
        shared: &Shared,
        prefix: &'a Prefix,
        after: Option<&Key>,
        page: Page,
    ) -> Result<Merge<'a>, TreeError> {
        let start = match after {
            Some(key) => Bound::Excluded(key.as_str()),
            None => Bound::Included(prefix.as_str()),
        };
        let items_max = usize::from(page.items_max.get());
        // The overlay first: what leaves it meanwhile is found in the tree.
        let (writes, is_complete) = shared.state().overlay.range(start, prefix.as_str(), items_max);
        let end = writes.keys().next_back().filter(|_| !is_complete).cloned();
        let mut merge = Merge {
            prefix,
            stored: shared.tree.range(start)?,
            next_stored: None,
            writes: writes.into_iter(),
            next_write: None,
            end,
        };
        merge.advance_stored()?;
        merge.next_write = merge.writes.next();
        Ok(merge)
    }

    fn advance_stored(&mut self) -> Result<(), TreeError> {
        let next = self.stored.next().transpose()?;
        self.next_stored = next.filter(|entry| {
            self.prefix.contains(&entry.key) && self.end.as_ref().is_none_or(|end| entry.key <= *end)
        });
        Ok(())
    }

    /// The next key and what it has; nothing if it was deleted.
    fn next(&mut self) -> Result<Option<(Key, Option<Entry>)>, TreeError> {
        let stored_key = self.next_stored.as_ref().map(|entry| &entry.key);
        let write_key = self.next_write.as_ref().map(|(key, _)| key);
        let order = match (stored_key, write_key) {
            (None, None) => return Ok(None),
            (Some(_), None) => Order::Less,
            (None, Some(_)) => Order::Greater,
            (Some(stored), Some(write)) => stored.cmp(write),
        };
        let stored = if order.is_le() {
            self.next_stored.take()
        } else {
            None
        };
        let write = if order.is_ge() {
            self.next_write.take()
        } else {
            None
        };
        if order.is_le() {
            self.advance_stored()?;
        }
        if order.is_ge() {
            self.next_write = self.writes.next();
        }
        let Some((key, pending)) = write else {
            return Ok(stored.map(|entry| (entry.key.clone(), Some(entry))));
        };
        // A later write may have reached the tree since the overlay was looked at.
        if stored
            .as_ref()
            .is_some_and(|entry| entry.revision >= pending.revision)
        {
            return Ok(Some((key, stored)));
        }
        let entry = pending.value.map(|value| Entry {
            key: key.clone(),
            revision: pending.revision,
            value,
        });
        Ok(Some((key, entry)))
    }
}

/// `None` if nothing changed; `after` has then moved on, so that nothing is looked at twice.
fn watch(shared: &Shared, prefix: &Prefix, after: &mut Revision, page: Page) -> Option<KvAnswer> {
    let (changes, last) = {
        let state = shared.state();
        let last = Revision(state.committed.0.saturating_sub(1));
        if !(state.history.forgotten..=last).contains(after) {
            return Some(Err(KvError::HistoryGone));
        }
        let changes = state.history.after(*after);
        let wanted: Vec<_> = changes
            .filter(|(_, key, _)| prefix.contains(key))
            .cloned()
            .collect();
        (wanted, last)
    };
    let (mut told, mut bytes): (Vec<Change>, usize) = (Vec::new(), 0);
    for (revision, key, is_deleted) in changes {
        let is_full =
            told.len() >= usize::from(page.items_max.get()) || (!told.is_empty() && bytes >= page.bytes_max);
        if let Some(before) = told.last()
            && is_full
            && before.revision < revision
        {
            *after = before.revision;
            let (changes, watch_after) = (told, *after);
            return Some(Ok(KvReply::Changed { changes, watch_after }));
        }
        let value = match shared.get(&key) {
            Ok(None) if is_deleted => None,
            Ok(Some(entry)) if entry.revision == revision => Some(entry.value),
            // A later change to the key is, or will be, in the history too.
            Ok(_) => continue,
            Err(error) => return Some(Err(unreadable(error))),
        };
        // Of several changes in one commit the last counts.
        told.retain(|change| change.revision != revision || change.key != key);
        bytes += key.as_str().len() + value.as_ref().map_or(0, Bytes::len);
        told.push(Change { key, revision, value });
    }
    *after = last;
    (!told.is_empty()).then_some(Ok(KvReply::Changed {
        changes: told,
        watch_after: last,
    }))
}
