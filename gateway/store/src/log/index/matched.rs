use std::{collections::VecDeque, io, sync::Arc};

use broker_core::{
    store::{Interest, Sequence},
    topic,
};
use hashbrown::HashMap;

use super::{Entry, Index};

/// Topics up to this many are read by their postings, one by one; more are found by going through all records.
const NARROW_MAX: usize = 64;
/// Entries that are looked at together.
const BLOCK: u32 = 256;

/// The topics of a segment that an interest matches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched {
    /// Their numbers, each once, ascending.
    topics: Vec<u32>,
    /// One bit per topic of the segment, if there are many.
    bits: Vec<u64>,
    /// Topics of the segment that were looked at.
    seen: u32,
    /// For so many records of the segment: those that match, and the bytes of their data.
    sums: Option<(u32, u64, u64)>,
}

/// A record that matches: its ordinal and entry.
pub(crate) type Hit = (u32, Entry);

impl Matched {
    /// Finds them; each once, however many filters match it.
    fn find(index: &mut dyn Index, interest: &Interest) -> io::Result<Matched> {
        let mut topics = Vec::new();
        for filter in &interest.filters {
            if !topic::has_wildcard(filter) {
                topics.extend(index.lookup(filter)?);
                continue;
            }
            index.scan(literal_prefix(filter), &mut |number, name| {
                if topic::matches(filter, name) {
                    topics.push(number);
                }
            })?;
        }
        let mut matched = Matched {
            topics,
            ..Matched::default()
        };
        matched.arrange(index.topics());
        Ok(matched)
    }

    /// Adds the topics that the segment has got since.
    fn extend(&mut self, index: &mut dyn Index, interest: &Interest) -> io::Result<()> {
        let topics = &mut self.topics;
        index.scan_new(self.seen, &mut |number, name| {
            if interest.filters.iter().any(|filter| topic::matches(filter, name)) {
                topics.push(number);
            }
        })?;
        self.arrange(index.topics());
        Ok(())
    }

    fn arrange(&mut self, seen: u32) {
        self.topics.sort_unstable();
        self.topics.dedup();
        self.seen = seen;
        if self.topics.len() > NARROW_MAX {
            self.bits.resize(seen.div_ceil(64) as usize, 0);
            for number in &self.topics {
                self.bits[*number as usize / 64] |= 1 << (number % 64);
            }
        }
    }

    /// True if nothing matches.
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn is_narrow(&self) -> bool {
        self.topics.len() <= NARROW_MAX
    }

    fn has(&self, number: u32) -> bool {
        self.bits
            .get(number as usize / 64)
            .is_some_and(|bits| bits & (1 << (number % 64)) != 0)
    }

    /// Records that match, and the bytes of their data.
    pub(crate) fn sums(&mut self, index: &mut dyn Index) -> io::Result<(u64, u64)> {
        let records = index.records();
        if let Some((at, count, bytes)) = self.sums
            && at == records
        {
            return Ok((count, bytes));
        }
        let (mut count, mut bytes) = (0, 0);
        for number in &self.topics {
            let sums = index.sums(*number)?;
            count += u64::from(sums.0);
            bytes += sums.1;
        }
        self.sums = Some((records, count, bytes));
        Ok((count, bytes))
    }

    /// Adds up to `max` matching records from the ordinal `from` on to `hits`, ascending. Returns where to go on.
    pub(crate) fn after(
        &self,
        index: &mut dyn Index,
        from: u32,
        max: usize,
        hits: &mut Vec<Hit>,
    ) -> io::Result<u32> {
        let records = index.records();
        if !self.is_narrow() {
            let mut block = Vec::new();
            index.entries(from, BLOCK, &mut block)?;
            for (ordinal, entry) in (from..).zip(&block) {
                if hits.len() >= max {
                    return Ok(ordinal);
                }
                if self.has(entry.topic) {
                    hits.push((ordinal, *entry));
                }
            }
            return Ok(if block.is_empty() {
                records
            } else {
                from + block.len() as u32
            });
        }
        let mut heads = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let at = index.postings_before(*topic, from)?;
            let count = index.sums(*topic)?.0;
            if at < count {
                heads.push((index.posting(*topic, at)?, *topic, at, count));
            }
        }
        while let Some(lowest) = (0..heads.len()).min_by_key(|at| heads[*at].0) {
            let (ordinal, topic, at, count) = heads[lowest];
            if hits.len() >= max {
                return Ok(ordinal);
            }
            hits.push((ordinal, index.entry(ordinal)?));
            if at + 1 < count {
                heads[lowest] = (index.posting(topic, at + 1)?, topic, at + 1, count);
            } else {
                heads.swap_remove(lowest);
            }
        }
        Ok(records)
    }

    /// Calls `each` with the matching records below the ordinal `below`, descending, while it returns true.
    pub(crate) fn before(
        &self,
        index: &mut dyn Index,
        below: u32,
        each: &mut dyn FnMut(Hit) -> bool,
    ) -> io::Result<()> {
        if !self.is_narrow() {
            let mut block = Vec::new();
            let mut end = below;
            while end > 0 {
                let start = end.saturating_sub(BLOCK);
                block.clear();
                index.entries(start, end - start, &mut block)?;
                for (ordinal, entry) in (start..end).zip(&block).rev() {
                    if self.has(entry.topic) && !each((ordinal, *entry)) {
                        return Ok(());
                    }
                }
                end = start;
            }
            return Ok(());
        }
        let mut heads = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            if let Some(at) = index.postings_before(*topic, below)?.checked_sub(1) {
                heads.push((index.posting(*topic, at)?, *topic, at));
            }
        }
        while let Some(highest) = (0..heads.len()).max_by_key(|at| heads[*at].0) {
            let (ordinal, topic, at) = heads[highest];
            if !each((ordinal, index.entry(ordinal)?)) {
                return Ok(());
            }
            if at > 0 {
                heads[highest] = (index.posting(topic, at - 1)?, topic, at - 1);
            } else {
                heads.swap_remove(highest);
            }
        }
        Ok(())
    }

    /// How many records with ordinals from `from` up to `below` match.
    pub(crate) fn count(&mut self, index: &mut dyn Index, from: u32, below: u32) -> io::Result<u64> {
        if from >= below {
            return Ok(0);
        }
        if from == 0 && below == index.records() {
            return Ok(self.sums(index)?.0);
        }
        if self.is_narrow() {
            let mut count = 0;
            for topic in &self.topics {
                let before = index.postings_before(*topic, from)?;
                count += u64::from(index.postings_before(*topic, below)? - before);
            }
            return Ok(count);
        }
        let mut count = 0;
        let mut block = Vec::new();
        for start in (from..below).step_by(BLOCK as usize) {
            block.clear();
            index.entries(start, BLOCK.min(below - start), &mut block)?;
            count += block.iter().filter(|entry| self.has(entry.topic)).count() as u64;
        }
        Ok(count)
    }

    fn cost(&self) -> usize {
        160 + self.topics.capacity() * 4 + self.bits.capacity() * 8
    }
}

/// What every topic that the filter matches starts with.
fn literal_prefix(filter: &str) -> &str {
    let wildcard = filter.find(['+', '#']).unwrap_or(filter.len());
    let prefix = &filter[..wildcard];
    // `a/#` matches `a`, too.
    match filter[wildcard..].starts_with('#') {
        true => prefix.strip_suffix('/').unwrap_or(prefix),
        false => prefix,
    }
}

/// What was matched, within a bound of bytes; the oldest goes first. An interest is known by its address, which stays
/// its own because it is kept here.
pub(crate) struct MatchCache {
    found: HashMap<(usize, Sequence), (Arc<Interest>, Matched), foldhash::fast::RandomState>,
    queue: VecDeque<(usize, Sequence)>,
    cost: usize,
    cost_max: usize,
}

impl MatchCache {
    pub(crate) fn new(cost_max: usize) -> MatchCache {
        MatchCache {
            found: HashMap::default(),
            queue: VecDeque::new(),
            cost: 0,
            cost_max,
        }
    }

    /// Takes out what `interest` matches in the segment, up to date; to be given back by `put`.
    pub(crate) fn take(&mut self, interest: &Arc<Interest>, index: &mut dyn Index) -> io::Result<Matched> {
        let key = (Arc::as_ptr(interest).addr(), index.base());
        let Some((_, mut matched)) = self.found.remove(&key) else {
            return Matched::find(index, interest);
        };
        self.cost -= matched.cost();
        if matched.seen != index.topics() {
            matched.extend(index, interest)?;
        }
        Ok(matched)
    }

    pub(crate) fn put(&mut self, interest: &Arc<Interest>, base: Sequence, matched: Matched) {
        let key = (Arc::as_ptr(interest).addr(), base);
        self.cost += matched.cost();
        if let Some((_, old)) = self.found.insert(key, (Arc::clone(interest), matched)) {
            self.cost -= old.cost();
        }
        self.queue.push_back(key);
        while self.cost > self.cost_max
            && let Some(oldest) = self.queue.pop_front()
        {
            if let Some((_, old)) = self.found.remove(&oldest) {
                self.cost -= old.cost();
            }
        }
        // Keys stand in the queue once per use; what was used often must not make it long.
        if self.queue.len() > 64 + 4 * self.found.len() {
            let found = &self.found;
            let mut known = hashbrown::HashSet::<_, foldhash::fast::RandomState>::default();
            self.queue
                .retain(|key| found.contains_key(key) && known.insert(*key));
        }
    }

    /// Forgets a segment: it is gone, or its topics have other numbers now.
    pub(crate) fn forget(&mut self, base: Sequence) {
        let cost = &mut self.cost;
        self.found.retain(|key, (_, matched)| {
            let keep = key.1 != base;
            if !keep {
                *cost -= matched.cost();
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_what_all_matches_start_with() {
        for (filter, prefix) in [
            ("a/b", "a/b"),
            ("a/#", "a"),
            ("a/+", "a/"),
            ("a/+/c/#", "a/"),
            ("#", ""),
            ("+/x", ""),
            ("/#", ""),
            ("/+", "/"),
        ] {
            assert_eq!(literal_prefix(filter), prefix, "{filter}");
        }
    }
}
