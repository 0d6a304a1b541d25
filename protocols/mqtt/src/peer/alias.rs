//! Topic aliases (MQTT 5 §3.3.2.3.4), both ways.

use std::{collections::HashMap, num::NonZeroU16};

/// Most aliases that the broker gives to one client, whatever the client would take: a bound on its memory.
const OUTGOING_MAX: u16 = 64;

/// Most bytes of topics that the aliases of one client may stand for. Topic Alias Maximum alone bounds nothing: 65 535
/// aliases of topics as long are four gigabytes.
const INCOMING_BYTES_MAX: usize = 4 << 20;

/// Aliases that the client made.
#[derive(Debug, Default)]
pub(super) struct IncomingAliases {
    #[expect(
        clippy::box_collection,
        reason = "one word in a million connections without aliases"
    )]
    topics: Option<Box<HashMap<NonZeroU16, Box<str>>>>,
    bytes: usize,
}

impl IncomingAliases {
    /// False if the client's aliases would take more than [`INCOMING_BYTES_MAX`]: then nothing has changed.
    #[must_use]
    pub(super) fn set(&mut self, alias: NonZeroU16, topic: &str) -> bool {
        let replaced = self.get(alias).map_or(0, str::len);
        let bytes = self.bytes - replaced + topic.len();
        if bytes > INCOMING_BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.topics.get_or_insert_default().insert(alias, topic.into());
        true
    }

    pub(super) fn get(&self, alias: NonZeroU16) -> Option<&str> {
        self.topics.as_ref()?.get(&alias).map(|topic| &**topic)
    }
}

/// Aliases that the broker made for this client: the first topics get one each, up to the client's limit.
#[derive(Debug, Default)]
pub(super) struct OutgoingAliases {
    maximum: u16,
    #[expect(
        clippy::box_collection,
        reason = "one word in a million connections without aliases"
    )]
    topics: Option<Box<HashMap<Box<[u8]>, NonZeroU16>>>,
}

/// How a topic is written to this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alias {
    /// The client knows it: the alias alone will do.
    Known(NonZeroU16),
    /// Topic and alias together, from now on the alias.
    New(NonZeroU16),
    /// No alias is left.
    None,
}

impl OutgoingAliases {
    pub(super) fn new(topic_alias_maximum: u16) -> OutgoingAliases {
        OutgoingAliases {
            maximum: topic_alias_maximum.min(OUTGOING_MAX),
            topics: None,
        }
    }

    pub(super) fn find(&self, topic: &[u8]) -> Alias {
        if self.maximum == 0 {
            return Alias::None;
        }
        if let Some(&alias) = self.topics.as_ref().and_then(|topics| topics.get(topic)) {
            return Alias::Known(alias);
        }
        let used = self.topics.as_ref().map_or(0, |topics| topics.len());
        let next = u16::try_from(used + 1).ok().filter(|&next| next <= self.maximum);
        next.and_then(NonZeroU16::new).map_or(Alias::None, Alias::New)
    }

    /// The client has been sent this topic with this alias.
    pub(super) fn learn(&mut self, topic: &[u8], alias: NonZeroU16) {
        self.topics.get_or_insert_default().insert(topic.into(), alias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_get_the_aliases() {
        let one = NonZeroU16::MIN;
        let mut aliases = OutgoingAliases::new(1);
        assert_eq!(aliases.find(b"a"), Alias::New(one));
        aliases.learn(b"a", one);
        assert_eq!(aliases.find(b"a"), Alias::Known(one));
        assert_eq!(aliases.find(b"b"), Alias::None);
        assert_eq!(OutgoingAliases::new(0).find(b"a"), Alias::None);
    }

    #[test]
    fn an_incoming_alias_may_change_its_topic() {
        let alias = NonZeroU16::new(7).unwrap();
        let mut aliases = IncomingAliases::default();
        assert_eq!(aliases.get(alias), None);
        assert!(aliases.set(alias, "a"));
        assert!(aliases.set(alias, "bb"));
        assert_eq!(aliases.get(alias), Some("bb"));
        assert_eq!(aliases.get(NonZeroU16::MIN), None);
        assert_eq!(aliases.bytes, 2);
    }
}
