//! What a client has asked of the broker, and what it knows of the answers.

use std::collections::BTreeMap;

use broker_core::{SubscribeOptions, topic};

/// SUBSCRIBE or UNSUBSCRIBE of one filter.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// `None`: UNSUBSCRIBE.
    pub(super) made: Option<(SubscribeOptions, Option<u32>)>,
    /// Sent at this tick.
    pub(super) asked: u64,
    /// Its acknowledgement came at this tick.
    pub(super) known: Option<u64>,
}

/// The subscriptions of one session, by filters in the client's words.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(BTreeMap<String, Vec<Change>>);

/// The filter without its prefix.
pub(super) fn bare(filter: &str) -> &str {
    if let Some(rest) = filter.strip_prefix("$share/") {
        return rest.split_once('/').map_or(rest, |(_, bare)| bare);
    }
    filter.strip_prefix("$queue/").unwrap_or(filter)
}

pub(super) fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/") || filter.starts_with("$queue/")
}

impl Subscriptions {
    pub(super) fn ask(&mut self, tick: u64, filter: &str, made: Option<(SubscribeOptions, Option<u32>)>) {
        let changes = self.0.entry(filter.to_owned()).or_default();
        changes.push(Change {
            made,
            asked: tick,
            known: None,
        });
    }

    /// The answer to what was asked at the tick `asked`.
    pub(super) fn answer(&mut self, tick: u64, asked: u64, filter: &str, is_done: bool) {
        let changes = self.0.entry(filter.to_owned()).or_default();
        if let Some(at) = changes.iter().position(|change| change.asked == asked) {
            if is_done {
                changes[at].known = Some(tick);
            } else {
                changes.remove(at);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// From here on nothing is certain: the session may be another.
    pub(super) fn doubt(&mut self, tick: u64) {
        let filters: Vec<String> = self.0.keys().cloned().collect();
        for filter in filters {
            self.ask(tick, &filter, None);
        }
    }

    pub(super) fn filters(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Filters on which there may be a subscription at the end of all changes.
    pub(super) fn held(&self) -> Vec<String> {
        let held = self
            .0
            .iter()
            .filter(|(_, changes)| changes.last().is_some_and(|last| last.made.is_some()));
        held.map(|(filter, _)| filter.clone()).collect()
    }

    /// Subscriptions on `filter` that can have been there at some time from tick `from` to tick `to`.
    pub(super) fn possible(&self, filter: &str, from: u64, to: u64) -> Vec<&Change> {
        let changes = self.0.get(filter).map_or(&[][..], Vec::as_slice);
        let is_possible = |at: usize| {
            let change = &changes[at];
            let mut later = changes[at + 1..].iter();
            change.made.is_some()
                && change.asked <= to
                && !later.any(|later| later.known.is_some_and(|known| known < from))
        };
        (0..changes.len())
            .filter(|&at| is_possible(at))
            .map(|at| &changes[at])
            .collect()
    }

    /// The subscription on `filter` that was certainly there from tick `from` on and is unchanged.
    pub(super) fn certain(&self, filter: &str, from: u64) -> Option<&Change> {
        let last = self.0.get(filter)?.last()?;
        (last.made.is_some() && last.known.is_some_and(|known| known <= from)).then_some(last)
    }

    /// Since when there has been a subscription on `filter` without a gap, to which messages that `is_due` by its
    /// options are due.
    pub(super) fn covered(&self, filter: &str, is_due: impl Fn(&SubscribeOptions) -> bool) -> Option<u64> {
        let mut since = None;
        for change in self.0.get(filter)? {
            since = match &change.made {
                Some((options, _)) if is_due(options) => since.or(change.known),
                _ => None,
            };
        }
        since
    }

    /// Own filters that match `topic`.
    pub(super) fn matching(&self, name: &str) -> impl Iterator<Item = &str> {
        let own = self.filters().filter(|filter| !is_shared(filter));
        own.filter(move |filter| topic::matches(filter, name))
    }
}
