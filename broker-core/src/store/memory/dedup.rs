use std::collections::VecDeque;

use hashbrown::HashMap;

use super::MemoryLimits;
use crate::{
    Timestamp,
    store::{DedupId, Sequence},
};

/// What was committed under an id: its `first` and `next`.
type Places = (Sequence, Sequence);

/// The latest dedup ids.
#[derive(Default)]
pub(super) struct DedupIds {
    places: HashMap<DedupId, Places, foldhash::quality::RandomState>,
    /// The ids by age, with the time of their commit.
    ages: VecDeque<(Timestamp, DedupId)>,
}

impl DedupIds {
    /// Where the commit of that id stands, if it is remembered.
    pub(super) fn find(&mut self, now: Timestamp, id: DedupId, limits: &MemoryLimits) -> Option<Places> {
        self.forget(|at, _| at.after(limits.dedup_window) < now);
        self.places.get(&id).copied()
    }

    pub(super) fn insert(&mut self, now: Timestamp, id: DedupId, places: Places, limits: &MemoryLimits) {
        self.places.insert(id, places);
        self.ages.push_back((now, id));
        self.forget(|_, ids| ids > limits.dedup_ids_max);
    }

    /// Forgets the oldest ids as long as `is_over` says so of the oldest one's time and the number of ids.
    fn forget(&mut self, is_over: impl Fn(Timestamp, usize) -> bool) {
        while let Some(&(at, id)) = self.ages.front()
            && is_over(at, self.ages.len())
        {
            self.ages.pop_front();
            self.places.remove(&id);
        }
    }
}
