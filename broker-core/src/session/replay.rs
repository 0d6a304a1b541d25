//! Retained messages on their way to one new subscription, fetched and sent in slices.

use std::{
    collections::{BTreeMap, VecDeque, btree_map},
    sync::Arc,
};

use crate::{Message, SubscribeOptions, SubscriptionIds, Timestamp};

/// The replays of one session, in the order in which they began; one per filter. Mostly there are none, and then they
/// take no memory of their own.
#[derive(Debug, Default)]
pub(crate) struct Replays(Option<Box<Begun>>);

#[derive(Debug, Default)]
struct Begun {
    by_number: BTreeMap<u64, Replay>,
    numbers: BTreeMap<Arc<str>, u64>,
}

impl Replays {
    /// Only so many of the oldest have asked for anything, or have anything fetched.
    pub(crate) const ASKING: usize = 64;

    /// Adds one behind the others. There must be none of its filter.
    pub(crate) fn push(&mut self, replay: Replay) {
        let begun = self.0.get_or_insert_default();
        begun.numbers.insert(Arc::clone(&replay.filter), replay.number);
        begun.by_number.insert(replay.number, replay);
    }

    /// Takes out that of a filter.
    pub(crate) fn remove(&mut self, filter: &str) -> Option<Replay> {
        let begun = self.0.as_mut()?;
        let number = begun.numbers.remove(filter)?;
        let replay = begun.by_number.remove(&number);
        self.forget_if_over();
        replay
    }

    /// The subscription on `filter` gets live what is published from now on.
    pub(crate) fn begin(&mut self, filter: &str, now: Timestamp) {
        let Some(begun) = &mut self.0 else { return };
        let number = begun.numbers.get(filter);
        if let Some(replay) = number.and_then(|number| begun.by_number.get_mut(number)) {
            replay.since = replay.since.min(now);
        }
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Replay> {
        self.0.as_mut()?.by_number.get_mut(&number)
    }

    /// The oldest: the one that sends.
    pub(crate) fn first_mut(&mut self) -> Option<&mut Replay> {
        let first = self.0.as_mut()?.by_number.first_entry();
        first.map(btree_map::OccupiedEntry::into_mut)
    }

    pub(crate) fn pop_first(&mut self) -> Option<Replay> {
        let begun = self.0.as_mut()?;
        let (_, replay) = begun.by_number.pop_first()?;
        begun.numbers.remove(&replay.filter);
        self.forget_if_over();
        Some(replay)
    }

    /// Those that may have asked for something.
    pub(crate) fn asking(&mut self) -> impl Iterator<Item = &mut Replay> {
        let begun = self.0.iter_mut();
        begun
            .flat_map(|begun| begun.by_number.values_mut())
            .take(Replays::ASKING)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Replay> {
        self.0.iter().flat_map(|begun| begun.by_number.values())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |begun| begun.by_number.len())
    }

    fn forget_if_over(&mut self) {
        if self.len() == 0 {
            self.0 = None;
        }
    }
}

/// The retained messages that one subscription still gets.
///
/// It is pulled: the next slice is asked for once the session has nothing else waiting, so a hundred thousand
/// retained messages neither fill its queue nor push live messages out of it. A live message that is retained makes
/// the one before it of its topic obsolete: it is struck out, so that a subscriber never sees an old state after a
/// new one. The new one itself is no longer retained for this subscription: the client has it as a live message.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Names this replay in the questions to the stores.
    pub(crate) number: u64,
    /// The filter, with the client's mountpoint.
    pub(crate) filter: Arc<str>,
    /// The subscription stands since then: what is published later reaches it as it is published. `NEVER` until its
    /// place in the journal is known.
    pub(crate) since: Timestamp,
    pub(crate) options: SubscribeOptions,
    pub(crate) subscription_ids: SubscriptionIds,
    /// Shards whose part of the store is not read to its end, with the topic to go on after; last one first.
    pub(crate) sources: Vec<(crate::ShardId, Option<String>)>,
    /// A slice is asked for and has not come.
    pub(crate) asked: bool,
    /// Fetched and not yet sent.
    pub(crate) page: VecDeque<Message>,
    /// Topics seen live since the last question.
    pub(crate) overtaken: Vec<Box<str>>,
    /// Too many topics were seen live: the slice on its way is asked for again.
    pub(crate) stale: bool,
}

impl Replay {
    /// Messages of one slice.
    pub(crate) const PAGE: usize = 64;
    /// Topics seen live while a slice is on its way; beyond, the slice is fetched again.
    const OVERTAKEN_MAX: usize = 256;

    /// A live message of `topic` that is now the retained one has gone to the session.
    pub(crate) fn overtake(&mut self, topic: &str) {
        self.page.retain(|message| message.topic() != topic);
        if self.asked && !self.stale {
            if self.overtaken.len() < Replay::OVERTAKEN_MAX {
                self.overtaken.push(topic.into());
            } else {
                self.stale = true;
            }
        }
    }

    /// A slice has come. `next`: where to go on; `None` at the end of this source.
    pub(crate) fn fill(&mut self, messages: Vec<Message>, next: Option<String>) {
        self.asked = false;
        let overtaken = std::mem::take(&mut self.overtaken);
        if std::mem::take(&mut self.stale) {
            return;
        }
        self.page.extend(
            messages
                .into_iter()
                .filter(|message| !overtaken.iter().any(|topic| **topic == *message.topic())),
        );
        match next {
            Some(topic) => {
                if let Some(source) = self.sources.last_mut() {
                    source.1 = Some(topic);
                }
            }
            None => {
                self.sources.pop();
            }
        }
    }

    /// Nothing is fetched and nothing is asked for, but there is more.
    pub(crate) fn is_idle(&self) -> bool {
        !self.asked && self.page.is_empty() && !self.sources.is_empty()
    }

    /// Everything is sent.
    pub(crate) fn is_done(&self) -> bool {
        self.sources.is_empty() && self.page.is_empty() && !self.asked
    }
}
