//! Topic ids (§6.5, §6.7): the predefined ones, and those that are registered in a session.
//!
//! Registered ids count up from [`FIRST`], below it is room for predefined ones. A topic name keeps its id for as
//! long as the session lasts. Ids are promised to the client once they are noted with the session
//! ([`Request::Note`](broker_core::Request::Note)), in pages of [`PAGE_LEN`] names, so that the client never knows
//! one that a restart of the broker takes back.

mod page;

use broker_core::{NOTE_BYTES, NOTES_BYTES_MAX, Timestamp};
use bytes::Bytes;

use crate::{
    codec::{Topic, TopicId},
    config::Predefined,
};

/// The first id that is registered.
pub(crate) const FIRST: u16 = 1025;

/// Names in one note.
pub(crate) const PAGE_LEN: u16 = 16;

/// The note that has the first page; those before it are for other purposes.
pub(crate) const FIRST_PAGE: u16 = 2;

/// How many ids there are: 0xFFFF is reserved (§5.3.11).
const IDS_MAX: u16 = 0xFFFF - FIRST;

/// Bytes of all pages, as the broker counts them. The rest of what a session may note is for the notes before them:
/// without these its client could not be woken.
const PAGES_BYTES_MAX: usize = NOTES_BYTES_MAX - (4 << 10);

/// The ids of one session.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// By id, from [`FIRST`].
    entries: Vec<Entry>,
    /// Places in `entries`, by name.
    by_name: Vec<u16>,
    /// How many of `entries`, from the first, the session remembers.
    noted: u16,
    /// How many it remembers once it has answered the note that is under way.
    writing: Option<u16>,
    /// What `entries` take in pages.
    bytes: usize,
    /// The broker could not store a page: no new ids before this time.
    rests_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    /// The client knows the id: it asked for it or has accepted it since it connected.
    confirmed: bool,
    /// `confirmed`, as the note says it.
    confirmed_in_note: bool,
}

/// What is known of a topic name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) id: TopicId,
    /// It will be there after a restart of the broker.
    pub(crate) is_noted: bool,
    /// The client can be sent it without a REGISTER.
    pub(crate) is_confirmed: bool,
}

impl Topics {
    /// The ids that the notes of a session tell of; `confirmed`: the client that slept still knows those it knew.
    /// Notes that nobody here has written are left alone.
    pub(crate) fn restore(notes: &[(u16, Bytes)], confirmed: bool) -> Topics {
        let mut pages: Vec<_> = notes.iter().filter(|(number, _)| *number >= FIRST_PAGE).collect();
        pages.sort_by_key(|(number, _)| *number);
        let mut topics = Topics::default();
        for (at, (number, page)) in pages.into_iter().enumerate() {
            let is_next = usize::from(*number - FIRST_PAGE) == at;
            let is_whole = topics.entries.len() == at * usize::from(PAGE_LEN);
            if !is_next || !is_whole || page::decode(page, &mut topics.entries).is_none() {
                break;
            }
        }
        topics.entries.truncate(usize::from(IDS_MAX));
        topics.bytes = weight(&topics.entries, 0);
        topics.noted = u16::try_from(topics.entries.len()).expect("fewer than 65 536");
        for entry in &mut topics.entries {
            entry.confirmed &= confirmed;
        }
        let mut by_name: Vec<u16> = (0..topics.noted).collect();
        by_name.sort_by_key(|&at| &topics.entries[usize::from(at)].name);
        topics.by_name = by_name;
        topics
    }

    /// True if nothing has been registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name of an id that the client may use.
    pub(crate) fn name(&self, id: TopicId) -> Option<&str> {
        let at = id.0.checked_sub(FIRST).filter(|&at| at < self.noted)?;
        Some(&self.entries[usize::from(at)].name)
    }

    /// The id of a name.
    pub(crate) fn find(&self, name: &str) -> Option<Registered> {
        let at = self.by_name[self.place(name).ok()?];
        Some(Registered {
            id: TopicId(FIRST + at),
            is_noted: at < self.noted,
            is_confirmed: self.entries[usize::from(at)].confirmed,
        })
    }

    /// A new id for a name that has none; `None` if there are `max` already, or if no more names can be noted.
    pub(crate) fn add(&mut self, name: &str, max: u16) -> Option<TopicId> {
        let at = u16::try_from(self.entries.len()).ok()?;
        if at >= max.min(IDS_MAX) {
            return None;
        }
        let place = self.place(name).err()?;
        let entry = Entry {
            name: name.into(),
            confirmed: false,
            confirmed_in_note: false,
        };
        let bytes = self.bytes + weight(std::slice::from_ref(&entry), self.entries.len());
        if bytes > PAGES_BYTES_MAX {
            return None;
        }
        self.bytes = bytes;
        self.by_name.insert(place, at);
        self.entries.push(entry);
        Some(TopicId(FIRST + at))
    }

    /// The client knows the id, or (`false`) has said that it does not.
    pub(crate) fn confirm(&mut self, id: TopicId, confirmed: bool) {
        let at = id.0.checked_sub(FIRST).map(usize::from);
        if let Some(entry) = at.and_then(|at| self.entries.get_mut(at)) {
            entry.confirmed = confirmed;
        }
    }

    /// The next page to be noted, unless one is under way.
    pub(crate) fn next_note(&mut self) -> Option<(u16, Bytes)> {
        let len = u16::try_from(self.entries.len()).expect("at most IDS_MAX");
        if self.writing.is_some() || self.noted == len {
            return None;
        }
        let page = self.noted / PAGE_LEN;
        self.writing = Some(len.min((page + 1) * PAGE_LEN));
        Some(self.page(page))
    }

    /// The note under way has been answered. Those of its ids that are not remembered are gone, and there are no new ones
    /// before `rests_until`.
    pub(crate) fn noted(&mut self, number: u16, is_ok: bool, rests_until: Timestamp) {
        let Some(writing) = self
            .writing
            .filter(|_| number == FIRST_PAGE + self.noted / PAGE_LEN)
        else {
            return;
        };
        self.writing = None;
        if is_ok {
            self.noted = writing;
            return;
        }
        self.rests_until = Some(rests_until);
        self.forget_unnoted();
    }

    /// Until when there are no new ids, if the broker could not store the last ones.
    pub(crate) fn rests_until(&self) -> Option<Timestamp> {
        self.rests_until
    }

    /// The rest is over if its time has come.
    pub(crate) fn end_rest(&mut self, now: Timestamp) {
        self.rests_until = self.rests_until.filter(|until| *until > now);
    }

    /// The pages whose notes do not say what the client knows: to be written before it sleeps.
    pub(crate) fn stale_notes(&mut self) -> Vec<(u16, Bytes)> {
        let is_stale = |entry: &Entry| entry.confirmed != entry.confirmed_in_note;
        let noted = &self.entries[..usize::from(self.noted)];
        let pages = noted.chunks(usize::from(PAGE_LEN)).zip(0u16..);
        let stale: Vec<u16> = pages
            .filter(|(page, _)| page.iter().any(is_stale))
            .map(|(_, page)| page)
            .collect();
        // What is not noted yet is promised to nobody.
        self.forget_unnoted();
        stale.into_iter().map(|page| self.page(page)).collect()
    }

    fn forget_unnoted(&mut self) {
        let noted = self.noted;
        self.bytes -= weight(&self.entries[usize::from(noted)..], usize::from(noted));
        self.entries.truncate(usize::from(noted));
        self.by_name.retain(|&at| at < noted);
    }

    fn page(&mut self, page: u16) -> (u16, Bytes) {
        let start = usize::from(page) * usize::from(PAGE_LEN);
        let end = self.entries.len().min(start + usize::from(PAGE_LEN));
        let entries = &mut self.entries[start..end];
        for entry in &mut *entries {
            entry.confirmed_in_note = entry.confirmed;
        }
        (FIRST_PAGE + page, page::encode(entries))
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.by_name
            .binary_search_by(|&at| (*self.entries[usize::from(at)].name).cmp(name))
    }
}

/// What these entries, the first of which is at `at`, take in pages.
fn weight(entries: &[Entry], at: usize) -> usize {
    let begins_page = |at: usize| at.is_multiple_of(usize::from(PAGE_LEN));
    let weights = entries.iter().zip(at..).map(|(entry, at)| {
        let page = if begins_page(at) { NOTE_BYTES } else { 0 };
        page::len(entry) + page
    });
    weights.sum()
}

impl Predefined {
    /// The name of a predefined id, for this client.
    pub(crate) fn name(&self, client_id: &str, id: TopicId) -> Option<&str> {
        let own = self.clients.get(client_id).and_then(|topics| topics.get(&id));
        own.or_else(|| self.global.get(&id)).map(|name| &**name)
    }

    /// The predefined id of a name, for this client. A table is small and looked through from the start.
    pub(crate) fn id(&self, client_id: &str, name: &str) -> Option<TopicId> {
        let own = self.clients.get(client_id).into_iter().flatten();
        let global = self.global.iter();
        own.chain(global)
            .find(|(id, topic)| ***topic == *name && self.name(client_id, **id) == Some(name))
            .map(|(id, _)| *id)
    }
}

/// The short form of a topic name, if it has one (§6.7).
pub(crate) fn short(name: &str) -> Option<Topic> {
    let octets: [u8; 2] = name.as_bytes().try_into().ok()?;
    Some(Topic::Short(octets))
}

#[cfg(test)]
mod tests;
