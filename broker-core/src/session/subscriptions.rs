//! The subscriptions of one session.

use std::sync::Arc;

use crate::{SubscribeOptions, filter_index::FilterId};

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
