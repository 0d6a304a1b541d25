//! The subscriptions of one session.

use std::{collections::BTreeMap, sync::Arc};

use crate::{SubscribeOptions, filter_index::FilterId, store::Sequence, topic};

/// One subscription: a route of the shard's index and how this session uses it.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    /// The filter, with the client's mountpoint, in the shard's index.
    pub(crate) route: FilterId,
    pub(crate) kind: Kind,
    pub(crate) options: SubscribeOptions,
    /// Subscription identifier.
    pub(crate) id: Option<u32>,
    /// Its messages of QoS 1 and 2 come from the journal.
    pub(crate) durable: bool,
    /// They do so from there on; [`Sequence::END`] while that is not known.
    pub(crate) since: Sequence,
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

/// The subscriptions of one session: mostly a few, sometimes a hundred thousand.
#[derive(Debug)]
pub(crate) enum Subscriptions {
    /// In no order.
    Few(Vec<Subscription>),
    /// By route and group; plain subscriptions have no group.
    Many(BTreeMap<(FilterId, Option<Arc<str>>), Subscription>),
}

impl Default for Subscriptions {
    fn default() -> Subscriptions {
        Subscriptions::Few(Vec::new())
    }
}

impl Subscriptions {
    /// Up to here a list is searched; beyond, a tree pays.
    const FEW: usize = 16;

    pub(crate) fn len(&self) -> usize {
        match self {
            Subscriptions::Few(list) => list.len(),
            Subscriptions::Many(tree) => tree.len(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Subscription> {
        let (list, tree) = match self {
            Subscriptions::Few(list) => (Some(list), None),
            Subscriptions::Many(tree) => (None, Some(tree)),
        };
        list.into_iter()
            .flatten()
            .chain(tree.into_iter().flat_map(BTreeMap::values))
    }

    /// The subscription on `route` in `group`.
    pub(crate) fn get(&self, route: FilterId, group: Option<&str>) -> Option<&Subscription> {
        match self {
            Subscriptions::Few(list) => list.iter().find(|one| one.is(route, group)),
            Subscriptions::Many(tree) => tree.get(&(route, group.map(Arc::from))),
        }
    }

    pub(crate) fn get_mut(&mut self, route: FilterId, group: Option<&str>) -> Option<&mut Subscription> {
        match self {
            Subscriptions::Few(list) => list.iter_mut().find(|one| one.is(route, group)),
            Subscriptions::Many(tree) => tree.get_mut(&(route, group.map(Arc::from))),
        }
    }

    /// Adds or replaces; returns what was there.
    pub(crate) fn insert(&mut self, new: Subscription) -> Option<Subscription> {
        match self {
            Subscriptions::Few(list) => {
                if let Some(old) = list.iter_mut().find(|old| old.is(new.route, new.kind.group())) {
                    return Some(std::mem::replace(old, new));
                }
                list.push(new);
                if list.len() > Subscriptions::FEW {
                    let all = list.drain(..).map(|one| (one.key(), one));
                    *self = Subscriptions::Many(all.collect());
                }
                None
            }
            Subscriptions::Many(tree) => tree.insert(new.key(), new),
        }
    }

    /// Gives back memory that only growing needs: sessions without a connection are many.
    pub(crate) fn shrink(&mut self) {
        if let Subscriptions::Few(list) = self {
            list.shrink_to_fit();
        }
    }

    pub(crate) fn remove(&mut self, route: FilterId, group: Option<&str>) -> Option<Subscription> {
        match self {
            Subscriptions::Few(list) => {
                let at = list.iter().position(|one| one.is(route, group))?;
                let removed = list.swap_remove(at);
                if list.is_empty() {
                    *list = Vec::new();
                }
                Some(removed)
            }
            Subscriptions::Many(tree) => {
                let removed = tree.remove(&(route, group.map(Arc::from)));
                // Half of what made it a tree, so that one subscription coming and going does not rebuild it.
                if tree.len() <= Subscriptions::FEW / 2 {
                    *self = Subscriptions::Few(std::mem::take(tree).into_values().collect());
                }
                removed
            }
        }
    }
}

impl Subscription {
    fn is(&self, route: FilterId, group: Option<&str>) -> bool {
        self.route == route && self.kind.group() == group
    }

    fn key(&self) -> (FilterId, Option<Arc<str>>) {
        let group = match &self.kind {
            Kind::Shared(group) => Some(Arc::clone(group)),
            _ => None,
        };
        (self.route, group)
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
