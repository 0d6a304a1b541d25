//! When which link has to be looked at.

use std::{cmp::Reverse, collections::BinaryHeap};

use broker_core::{LinkId, Timestamp};

/// Entries of links that are gone, or that an earlier one has replaced, which are not worth being sought out.
const STALE: usize = 1024;

/// A heap of deadlines with at most a few entries per link. A deadline that moves *later*, as a keep alive does at
/// every packet, costs nothing: the old entry stays, and when its time comes the link is asked again. That makes one
/// heap operation per keep-alive period, and 16 bytes per link.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Timestamp, LinkId)>>);

impl Timers {
    pub(super) fn push(&mut self, at: Timestamp, link: LinkId) {
        self.0.push(Reverse((at, link)));
    }

    /// The next entry that is due.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, LinkId)> {
        self.0.peek().filter(|Reverse((at, _))| *at <= now)?;
        self.0.pop().map(|Reverse(entry)| entry)
    }

    /// Once most entries are sure to be stale, forgets those that `is_live` denies: clients with a long keep alive
    /// come and go faster than their times come. There is at most one live entry for each of `links`.
    pub(super) fn forget_stale(&mut self, links: usize, is_live: impl Fn(Timestamp, LinkId) -> bool) {
        if self.0.len() < 4 * links + STALE {
            return;
        }
        self.0.retain(|Reverse((at, link))| is_live(*at, *link));
        self.0.shrink_to(2 * self.0.len() + STALE);
    }

    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_entries_do_not_pile_up() {
        let mut timers = Timers::default();
        let at = Timestamp::from_millis;
        timers.push(at(7), LinkId(7));
        for millis in 0..100_000 {
            timers.push(at(1_000_000 + millis), LinkId(millis));
            timers.forget_stale(1, |_, link| link == LinkId(7));
            assert!(timers.0.len() <= 4 + STALE);
        }
        assert_eq!(timers.pop(at(7)), Some((at(7), LinkId(7))));
    }
}
