//! The ids of commits, as long as they are remembered.

use std::{collections::VecDeque, time::Duration};

use broker_core::{
    Timestamp,
    store::{DedupId, Sequence},
};
use hashbrown::HashMap;

/// Which commits were done.
pub(crate) struct Dedup {
    places: HashMap<DedupId, (Sequence, Sequence), foldhash::fast::RandomState>,
    by_age: VecDeque<(Timestamp, DedupId)>,
    window: Duration,
    ids_max: usize,
}

impl Dedup {
    pub(crate) fn new(window: Duration, ids_max: usize) -> Dedup {
        Dedup {
            places: HashMap::default(),
            by_age: VecDeque::new(),
            window,
            ids_max,
        }
    }

    /// The place of a commit with this id, and the place after it.
    pub(crate) fn find(&mut self, now: Timestamp, id: DedupId) -> Option<(Sequence, Sequence)> {
        while let Some((time, oldest)) = self.by_age.front()
            && now.since(*time) > self.window
        {
            self.places.remove(oldest);
            self.by_age.pop_front();
        }
        self.places.get(&id).copied()
    }

    pub(crate) fn insert(&mut self, now: Timestamp, id: DedupId, place: (Sequence, Sequence)) {
        if self.ids_max == 0 || self.places.insert(id, place).is_some() {
            return;
        }
        self.by_age.push_back((now, id));
        if self.by_age.len() > self.ids_max
            && let Some((_, oldest)) = self.by_age.pop_front()
        {
            self.places.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forgotten_by_age_and_by_number() {
        let mut dedup = Dedup::new(Duration::from_millis(10), 3);
        let at = Timestamp::from_millis;
        let place = |number| (Sequence(number), Sequence(number + 1));
        for number in 1..=4 {
            dedup.insert(at(number), DedupId(number.into()), place(number));
        }
        assert_eq!(dedup.find(at(4), DedupId(1)), None, "three newer ones");
        assert_eq!(dedup.find(at(12), DedupId(2)), Some(place(2)));
        assert_eq!(dedup.find(at(13), DedupId(2)), None);
        assert_eq!(dedup.find(at(13), DedupId(3)), Some(place(3)));
    }
}
