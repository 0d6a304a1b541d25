//! What an admitted client may publish and subscribe.

use std::{
    fmt,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{ClientInfo, QoS, Timestamp};

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Publish, or have a Will published.
    Publish {
        /// Quality of service of the message.
        qos: QoS,
        /// The message is to be retained.
        retain: bool,
    },
    /// Subscribe.
    Subscribe {
        /// Highest quality of service asked for.
        qos: QoS,
    },
}

/// What a source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client may.
    Allow,
    /// It may not.
    Deny,
    /// The source has nothing to say; the next one is asked.
    Ignore,
}

/// A source of authorization. Runs on the data plane: it must neither block nor wait. A slow source keeps its
/// rules in memory and refreshes them elsewhere.
pub trait Authorizer: Send + Sync {
    /// Name for logs and events, such as `file`.
    fn name(&self) -> &str;

    /// Says whether `client` may. `topic` is in the client's own words: no mountpoint, no `$share/GROUP/`. For
    /// [`Action::Subscribe`] it is a topic filter.
    fn authorize(&self, client: &ClientInfo, action: Action, topic: &str) -> Verdict;
}

/// `authorization.no_match`: what happens when no source has anything to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NoMatch {
    /// The client may.
    #[default]
    Allow,
    /// It may not.
    Deny,
}

/// `authorization.cache.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// `enable`; default true.
    pub enable: bool,
    /// `max_size`: answers remembered per client; default 32. At the bound the oldest one goes. More than
    /// [`CacheConfig::SIZE_MAX`] are not remembered, whatever it says.
    pub max_size: usize,
    /// `ttl`: how long an answer is remembered; default 1 minute.
    pub ttl: Duration,
}

impl CacheConfig {
    /// Most answers per client: all of them are looked through, which then is as dear as asking a source.
    pub const SIZE_MAX: usize = 256;
    /// Longest topic whose answer is remembered, bytes, so that hostile topics cannot fill the memory.
    pub const TOPIC_BYTES_MAX: usize = 1024;
}

impl Default for CacheConfig {
    fn default() -> CacheConfig {
        CacheConfig {
            enable: true,
            max_size: 32,
            ttl: Duration::from_secs(60),
        }
    }
}

/// The sources in their order, and what stands around them.
pub struct Authorization {
    sources: Vec<Arc<dyn Authorizer>>,
    no_match: NoMatch,
    cache: CacheConfig,
    generation: u64,
}

impl Authorization {
    /// Makes an authorization. Answers that caches hold from any other one are void, so a reload takes effect at
    /// once and at no cost.
    pub fn new(sources: Vec<Arc<dyn Authorizer>>, no_match: NoMatch, cache: CacheConfig) -> Authorization {
        static GENERATIONS: AtomicU64 = AtomicU64::new(1);
        Authorization {
            sources,
            no_match,
            cache,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// True if `client` may: superuser, then the client's cache, then the sources in turn, then `no_match`.
    /// Without sources nothing is looked up nor remembered.
    pub fn check(
        &self,
        now: Timestamp,
        client: &ClientInfo,
        cache: &mut AuthorizationCache,
        action: Action,
        topic: &str,
    ) -> bool {
        if client.is_superuser {
            return true;
        }
        if self.sources.is_empty() {
            return self.no_match == NoMatch::Allow;
        }
        let max_size = self.cache.max_size.min(CacheConfig::SIZE_MAX);
        if !self.cache.enable || max_size == 0 || topic.len() > CacheConfig::TOPIC_BYTES_MAX {
            return self.decide(client, action, topic);
        }
        let key = Key::new(action, topic);
        if let Some(allowed) = cache.get(self.generation, now, key, action, topic) {
            return allowed;
        }
        let allowed = self.decide(client, action, topic);
        let entry = Entry {
            key,
            action,
            topic: topic.into(),
            expires: now.after(self.cache.ttl),
            allowed,
        };
        cache.insert(self.generation, max_size, entry);
        allowed
    }

    fn decide(&self, client: &ClientInfo, action: Action, topic: &str) -> bool {
        for source in &self.sources {
            match source.authorize(client, action, topic) {
                Verdict::Allow => return true,
                Verdict::Deny => return false,
                Verdict::Ignore => {}
            }
        }
        self.no_match == NoMatch::Allow
    }
}

impl Default for Authorization {
    /// No sources: everything is allowed.
    fn default() -> Authorization {
        Authorization::new(Vec::new(), NoMatch::default(), CacheConfig::default())
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.sources.iter().map(|source| source.name()).collect();
        f.debug_struct("Authorization")
            .field("sources", &names)
            .field("no_match", &self.no_match)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

/// The latest answers for one client, at most `max_size` of them; the oldest goes first. One pointer in size;
/// owns no memory while empty.
#[derive(Debug, Default)]
pub struct AuthorizationCache(Option<Box<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    generation: u64,
    entries: Vec<Entry>,
    /// Where the next entry goes once `entries` is full: a ring, so that no entry ever moves.
    oldest: usize,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    action: Action,
    topic: Box<str>,
    expires: Timestamp,
    allowed: bool,
}

/// Hash of action and topic: entries are told apart by one comparison, and confirmed by the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u64);

impl Key {
    fn new(action: Action, topic: &str) -> Key {
        Key(foldhash::fast::FixedState::default().hash_one((action, topic)))
    }
}

impl AuthorizationCache {
    /// Forgets every answer, and the memory.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    /// Answers held, expired ones included.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| inner.entries.len())
    }

    /// True if no answer is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, generation: u64, now: Timestamp, key: Key, action: Action, topic: &str) -> Option<bool> {
        let inner = self.0.as_ref().filter(|inner| inner.generation == generation)?;
        inner
            .entries
            .iter()
            .find(|entry| entry.key == key && entry.action == action && *entry.topic == *topic)
            .filter(|entry| now < entry.expires)
            .map(|entry| entry.allowed)
    }

    fn insert(&mut self, generation: u64, max_size: usize, entry: Entry) {
        let inner = self.0.get_or_insert_default();
        if inner.generation != generation {
            **inner = Entries {
                generation,
                ..Entries::default()
            };
        }
        let same = |known: &Entry| {
            known.key == entry.key && known.action == entry.action && known.topic == entry.topic
        };
        if let Some(at) = inner.entries.iter().position(same) {
            inner.entries[at] = entry;
        } else if inner.entries.len() < max_size {
            inner.entries.push(entry);
        } else {
            inner.entries[inner.oldest] = entry;
            inner.oldest = (inner.oldest + 1) % inner.entries.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const SUBSCRIBE: Action = Action::Subscribe { qos: QoS::AtMostOnce };

    /// Has a verdict on topics that start with a text, and counts how often it is asked.
    struct Source(&'static str, Verdict, AtomicUsize);

    impl Source {
        fn new(start: &'static str, verdict: Verdict) -> Arc<Source> {
            Arc::new(Source(start, verdict, AtomicUsize::new(0)))
        }
        fn asked(&self) -> usize {
            self.2.load(Ordering::Relaxed)
        }
    }

    impl Authorizer for Source {
        fn name(&self) -> &str {
            "test"
        }
        fn authorize(&self, _: &ClientInfo, _: Action, topic: &str) -> Verdict {
            self.2.fetch_add(1, Ordering::Relaxed);
            if topic.starts_with(self.0) {
                self.1
            } else {
                Verdict::Ignore
            }
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn client(is_superuser: bool) -> ClientInfo {
        ClientInfo::internal("c", is_superuser)
    }

    #[test]
    fn sources_are_asked_in_turn_and_then_no_match_decides() {
        for (no_match, fallback) in [(NoMatch::Allow, true), (NoMatch::Deny, false)] {
            let sources: Vec<Arc<dyn Authorizer>> = vec![
                Source::new("a/b", Verdict::Deny),
                Source::new("a", Verdict::Allow),
                Source::new("d", Verdict::Deny),
            ];
            let authorization = Authorization::new(sources, no_match, CacheConfig::default());
            for (topic, expected) in [("a/b", false), ("a/c", true), ("d", false), ("e", fallback)] {
                let mut cache = AuthorizationCache::default();
                let allowed = authorization.check(at(0), &client(false), &mut cache, SUBSCRIBE, topic);
                assert_eq!(allowed, expected, "{topic}");
                assert!(authorization.check(at(0), &client(true), &mut cache, SUBSCRIBE, topic));
            }
        }
    }

    #[test]
    fn without_sources_nothing_is_remembered() {
        let mut cache = AuthorizationCache::default();
        let open = Authorization::default();
        let closed = Authorization::new(Vec::new(), NoMatch::Deny, CacheConfig::default());
        assert!(open.check(at(0), &client(false), &mut cache, SUBSCRIBE, "a"));
        assert!(!closed.check(at(0), &client(false), &mut cache, SUBSCRIBE, "a"));
        assert!(cache.0.is_none());
        assert_eq!(size_of::<AuthorizationCache>(), size_of::<usize>());
    }

    #[test]
    fn answers_are_remembered_per_action_and_topic_until_they_expire() {
        let source = Source::new("", Verdict::Allow);
        let config = CacheConfig {
            ttl: Duration::from_millis(10),
            ..CacheConfig::default()
        };
        let authorization = Authorization::new(vec![source.clone()], NoMatch::Deny, config);
        let mut cache = AuthorizationCache::default();
        let publish = |qos, retain| Action::Publish { qos, retain };
        for (millis, action, topic, asked) in [
            (0, SUBSCRIBE, "a", 1),
            (9, SUBSCRIBE, "a", 1),
            (9, SUBSCRIBE, "b", 2),
            (9, publish(QoS::AtMostOnce, false), "a", 3),
            (9, publish(QoS::AtMostOnce, true), "a", 4),
            (9, publish(QoS::AtLeastOnce, false), "a", 5),
            (9, publish(QoS::AtMostOnce, true), "a", 5),
            (10, SUBSCRIBE, "a", 6),
            (19, SUBSCRIBE, "a", 6),
        ] {
            assert!(authorization.check(at(millis), &client(false), &mut cache, action, topic));
            assert_eq!(source.asked(), asked, "{millis} {action:?} {topic}");
        }
        assert_eq!(cache.len(), 5);
        cache.clear();
        assert!(cache.is_empty());
    }

    #[test]
    fn the_oldest_answer_makes_room() {
        let source = Source::new("", Verdict::Deny);
        let config = CacheConfig {
            max_size: 2,
            ..CacheConfig::default()
        };
        let authorization = Authorization::new(vec![source.clone()], NoMatch::Allow, config);
        let mut cache = AuthorizationCache::default();
        for (topic, asked) in [
            ("a", 1),
            ("b", 2),
            ("a", 2),
            ("c", 3),
            ("b", 3),
            ("a", 4),
            ("c", 4),
            ("b", 5),
        ] {
            assert!(!authorization.check(at(0), &client(false), &mut cache, SUBSCRIBE, topic));
            assert_eq!(source.asked(), asked, "{topic}");
            assert!(cache.len() <= 2);
        }
    }

    #[test]
    fn the_memory_of_a_cache_is_bounded_whatever_the_configuration_and_the_client_do() {
        let source = Source::new("", Verdict::Allow);
        let config = CacheConfig {
            max_size: usize::MAX,
            ..CacheConfig::default()
        };
        let authorization = Authorization::new(vec![source.clone()], NoMatch::Deny, config);
        let mut cache = AuthorizationCache::default();
        for n in 0..1000 {
            authorization.check(at(0), &client(false), &mut cache, SUBSCRIBE, &n.to_string());
        }
        assert_eq!(cache.len(), CacheConfig::SIZE_MAX);
        let mut cache = AuthorizationCache::default();
        for (bytes, remembered) in [(1025, 0), (1024, 1)] {
            authorization.check(at(0), &client(false), &mut cache, SUBSCRIBE, &"x".repeat(bytes));
            assert_eq!(cache.len(), remembered);
        }
    }

    #[test]
    fn a_reload_makes_remembered_answers_void() {
        let mut cache = AuthorizationCache::default();
        let old = Authorization::new(
            vec![Source::new("", Verdict::Allow)],
            NoMatch::Deny,
            CacheConfig::default(),
        );
        let new = Authorization::new(
            vec![Source::new("", Verdict::Deny)],
            NoMatch::Deny,
            CacheConfig::default(),
        );
        assert!(old.check(at(0), &client(false), &mut cache, SUBSCRIBE, "a"));
        assert!(!new.check(at(0), &client(false), &mut cache, SUBSCRIBE, "a"));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn the_cache_can_be_turned_off() {
        for config in [
            CacheConfig {
                enable: false,
                ..CacheConfig::default()
            },
            CacheConfig {
                max_size: 0,
                ..CacheConfig::default()
            },
        ] {
            let source = Source::new("", Verdict::Allow);
            let authorization = Authorization::new(vec![source.clone()], NoMatch::Deny, config);
            let mut cache = AuthorizationCache::default();
            for _ in 0..3 {
                assert!(authorization.check(at(0), &client(false), &mut cache, SUBSCRIBE, "a"));
            }
            assert_eq!((source.asked(), cache.len()), (3, 0));
        }
    }
}
