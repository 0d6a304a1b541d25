//! Retained messages (MQTT 5 §3.3.1.3): at most one per topic.
//!
//! An ordered set of the messages themselves, by the topic that each of them carries: 16 B per message beyond the
//! message (measured with a million in random order), and as much again for one that expires.

mod scan;

#[cfg(test)]
mod tests;

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::BTreeSet,
    ops::Bound::{self, Excluded, Included, Unbounded},
};

use crate::{Message, Timestamp};
use scan::{Pattern, Verdict};

/// Retained messages by topic.
///
/// It stores what it is given: that an empty payload removes the message of its topic [MQTT-3.3.1-6], and limits of
/// number and size, are the caller's business.
#[derive(Clone, Debug, Default)]
pub struct RetainedStore {
    messages: BTreeSet<ByTopic>,
    expiring: BTreeSet<ByExpiry>,
    bytes: usize,
}

/// How far [`RetainedStore::page`] came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// There is nothing more.
    Done,
    /// There may be more after this topic: pass it as `after` for the next page.
    More(String),
}

impl RetainedStore {
    /// An empty store.
    pub fn new() -> RetainedStore {
        RetainedStore::default()
    }

    /// Stores the message as that of its topic; returns the one that it replaces.
    pub fn insert(&mut self, message: Message) -> Option<Message> {
        self.bytes += message.weight();
        let expiring = (message.expires() < Timestamp::NEVER).then(|| ByExpiry(message.clone()));
        let replaced = self.messages.replace(ByTopic(message));
        let replaced = replaced.map(|ByTopic(message)| self.forget(message));
        self.expiring.extend(expiring);
        replaced
    }

    /// Takes out the message of `topic`.
    pub fn remove(&mut self, topic: &str) -> Option<Message> {
        let ByTopic(message) = self.messages.take(topic.as_bytes())?;
        Some(self.forget(message))
    }

    /// The message of `topic`, expired or not.
    pub fn get(&self, topic: &str) -> Option<&Message> {
        self.messages
            .get(topic.as_bytes())
            .map(|ByTopic(message)| message)
    }

    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// True if there is no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Sum of the messages' weights ([`Message::weight`]), in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends to `out` the messages whose topics match the valid filter, in byte order of the topics, starting
    /// behind the topic `after`.
    ///
    /// Ends after `limit` messages, or after looking at `budget` topics (each at least 1; a seek counts as a topic);
    /// what it used is taken off the budget. Parts of the store that cannot match are skipped by seeking: what does not start like the filter up
    /// to its first wildcard, and below each value of a `+` what does not go on like the filter.
    ///
    /// Messages may come and go between pages. A page may hold messages that have expired and still wait for
    /// [`RetainedStore::expire`].
    pub fn page(
        &self,
        filter: &str,
        after: Option<&str>,
        limit: usize,
        budget: &mut usize,
        out: &mut Vec<Message>,
    ) -> Page {
        let pattern = Pattern::new(filter);
        let full = out.len().saturating_add(limit.max(1));
        let mut messages = self.starting(match after {
            Some(after) if after.as_bytes() >= pattern.prefix() => Excluded(after.as_bytes()),
            _ => Included(pattern.prefix()),
        });
        let mut target = Vec::new();
        let mut next = messages.next();
        while let Some(message) = next {
            let topic = message.topic_bytes();
            *budget = budget.saturating_sub(1);
            let verdict = pattern.judge(topic, &mut target);
            next = match verdict {
                Verdict::End => return Page::Done,
                Verdict::Match | Verdict::Next | Verdict::Seek => messages.next(),
            };
            if verdict == Verdict::Match {
                out.push(message.clone());
            }
            if next.is_some() && (out.len() >= full || *budget == 0) {
                return Page::More(message.topic().to_owned());
            }
            // Mostly the successor already is the target or behind it: a look at it is cheaper than a seek.
            let seek = verdict == Verdict::Seek && next.is_some_and(|next| *next.topic_bytes() < *target);
            if seek {
                *budget = budget.saturating_sub(1);
                messages = self.starting(Included(&target));
                next = messages.next();
            }
        }
        Page::Done
    }

    /// Takes out messages that have expired by `now`, at most `budget` of them. There are more if
    /// [`RetainedStore::next_expiry`] has passed, still.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> Vec<Message> {
        let mut removed = Vec::new();
        while removed.len() < budget && self.next_expiry().is_some_and(|at| at <= now) {
            let Some(ByExpiry(message)) = self.expiring.pop_first() else {
                break;
            };
            self.messages.remove(message.topic_bytes());
            self.bytes -= message.weight();
            removed.push(message);
        }
        removed
    }

    /// When the next message expires.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiring.first().map(|ByExpiry(message)| message.expires())
    }

    fn starting(&self, from: Bound<&[u8]>) -> impl Iterator<Item = &Message> + use<'_> {
        let range = self.messages.range::<[u8], _>((from, Unbounded));
        range.map(|ByTopic(message)| message)
    }

    /// Corrects the books for a message that has left the set.
    fn forget(&mut self, message: Message) -> Message {
        self.bytes -= message.weight();
        let entry = ByExpiry(message);
        if entry.0.expires() < Timestamp::NEVER {
            self.expiring.remove(&entry);
        }
        entry.0
    }
}

/// A message, ordered by the bytes of its topic.
#[derive(Clone, Debug)]
struct ByTopic(Message);

impl Borrow<[u8]> for ByTopic {
    fn borrow(&self) -> &[u8] {
        self.0.topic_bytes()
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &ByTopic) -> Ordering {
        self.0.topic_bytes().cmp(other.0.topic_bytes())
    }
}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &ByTopic) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &ByTopic) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByTopic {}

/// A message that expires, ordered by when.
#[derive(Clone, Debug)]
struct ByExpiry(Message);

impl Ord for ByExpiry {
    fn cmp(&self, other: &ByExpiry) -> Ordering {
        let when = self.0.expires().cmp(&other.0.expires());
        when.then_with(|| self.0.topic_bytes().cmp(other.0.topic_bytes()))
    }
}

impl PartialOrd for ByExpiry {
    fn partial_cmp(&self, other: &ByExpiry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByExpiry {
    fn eq(&self, other: &ByExpiry) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByExpiry {}
