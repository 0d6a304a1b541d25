//! The subscriptions of one session.

use std::sync::Arc;

use crate::{SubscribeOptions, filter_index::FilterId, topic};

/// One subscription: a route of the shard's index and how this session uses it.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    /// The filter, with the client's mountpoint, in the shard's index.
    pub(crate) route: FilterId,
    pub(crate) kind: Kind,
    pub(crate) options: SubscribeOptions,
    /// Subscription identifier.
    pub(crate) id: Option<u32>,
}

/// What a prefix made of the filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// `$local/`: not announced to other nodes.
    Local,
    /// `$exclusive/`: nobody else may hold it.
    Exclusive,
    /// `$share/<group>/` and, with the group `$queue`, `$queue/`.
    Shared(Arc<str>),
}

impl Kind {
    /// Takes the prefix off a filter in the client's words; `None` if the filter is not valid.
    pub(crate) fn split(filter: &str) -> Option<(Kind, &str)> {
        if let Some(rest) = filter.strip_prefix("$share/") {
            let (group, filter) = rest.split_once('/')?;
            let is_valid = !group.is_empty() && !topic::has_wildcard(group) && !filter.is_empty();
            return is_valid.then(|| (Kind::Shared(group.into()), filter));
        }
        let (kind, rest) = if let Some(rest) = filter.strip_prefix("$queue/") {
            (Kind::Shared("$queue".into()), rest)
        } else if let Some(rest) = filter.strip_prefix("$local/") {
            (Kind::Local, rest)
        } else if let Some(rest) = filter.strip_prefix("$exclusive/") {
            (Kind::Exclusive, rest)
        } else {
            (Kind::Plain, filter)
        };
        topic::is_valid_filter(rest).then_some((kind, rest))
    }

    /// The shared group, if it is one.
    pub(crate) fn group(&self) -> Option<&str> {
        match self {
            Kind::Shared(group) => Some(group),
            _ => None,
        }
    }

    /// The filter in the client's words.
    pub(crate) fn describe(&self, filter: &str) -> String {
        match self {
            Kind::Plain => filter.to_owned(),
            Kind::Local => format!("$local/{filter}"),
            Kind::Exclusive => format!("$exclusive/{filter}"),
            Kind::Shared(group) if &**group == "$queue" => format!("$queue/{filter}"),
            Kind::Shared(group) => format!("$share/{group}/{filter}"),
        }
    }
}

/// Subscriptions in the order of their routes, so that thousands on one session stay quick.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(Vec<Subscription>);

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        self.0.iter()
    }

    /// The subscription on `route` in `group` (plain ones have no group).
    pub(crate) fn get(&self, route: FilterId, group: Option<&str>) -> Option<&Subscription> {
        self.position(route, group).ok().map(|at| &self.0[at])
    }

    /// Adds or replaces; returns what was there.
    pub(crate) fn insert(&mut self, subscription: Subscription) -> Option<Subscription> {
        match self.position(subscription.route, subscription.kind.group()) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at], subscription)),
            Err(at) => {
                self.0.insert(at, subscription);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, route: FilterId, group: Option<&str>) -> Option<Subscription> {
        let at = self.position(route, group).ok()?;
        let removed = self.0.remove(at);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(removed)
    }

    fn position(&self, route: FilterId, group: Option<&str>) -> Result<usize, usize> {
        self.0
            .binary_search_by(|other| (other.route, other.kind.group()).cmp(&(route, group)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_give_a_filter_its_meaning() {
        assert_eq!(Kind::split("a/b"), Some((Kind::Plain, "a/b")));
        assert_eq!(
            Kind::split("$share/g/a/#"),
            Some((Kind::Shared("g".into()), "a/#"))
        );
        assert_eq!(Kind::split("$share/g//"), Some((Kind::Shared("g".into()), "/")));
        assert_eq!(
            Kind::split("$queue/a"),
            Some((Kind::Shared("$queue".into()), "a"))
        );
        assert_eq!(Kind::split("$local/a"), Some((Kind::Local, "a")));
        assert_eq!(Kind::split("$exclusive/a"), Some((Kind::Exclusive, "a")));
        assert_eq!(Kind::split("$shared/g/a"), Some((Kind::Plain, "$shared/g/a")));
        for bad in [
            "$share/g",
            "$share//a",
            "$share/g/",
            "$share/+/a",
            "$share/g#/a",
            "$queue/",
            "$exclusive/a#",
        ] {
            assert_eq!(Kind::split(bad), None, "{bad}");
        }
    }
}
