//! When which link has to be looked at.

use std::{cmp::Reverse, collections::BinaryHeap};

use broker_core::{LinkId, Timestamp};

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

    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }
}
