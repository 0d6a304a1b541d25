//! Late copies of QoS 2 messages.
//!
//! TCP keeps the order; a network of datagrams may deliver a copy of a PUBLISH when its PUBCOMP is through, and taken
//! for a new message it would be delivered twice. So a message that was completed is remembered for as long as the
//! network may hold back a copy, by its contents: some clients give all their messages the same number.

use std::hash::{DefaultHasher, Hash, Hasher};

use broker_core::Timestamp;

use super::timers::LATE;
use crate::codec::{MsgId, Publish};

/// The last messages. A client has one under way (§6.6), so that a few are enough.
#[derive(Debug, Default)]
pub(super) struct LateCopies([Option<Copied>; 4]);

#[derive(Clone, Copy, Debug)]
struct Copied {
    msg_id: MsgId,
    print: u64,
    /// `None` until it is completed: until then the broker knows it.
    until: Option<Timestamp>,
}

/// What a copy has in common with its original.
pub(super) fn print(publish: &Publish<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (publish.msg_id, publish.topic, publish.retain, publish.data).hash(&mut hasher);
    hasher.finish()
}

impl LateCopies {
    pub(super) fn received(&mut self, msg_id: MsgId, print: u64) {
        self.0.rotate_right(1);
        self.0[0] = Some(Copied {
            msg_id,
            print,
            until: None,
        });
    }

    pub(super) fn completed(&mut self, now: Timestamp, msg_id: MsgId) {
        let mut copied = self.0.iter_mut().flatten();
        if let Some(copied) = copied.find(|copied| copied.msg_id == msg_id) {
            copied.until.get_or_insert(now.after(LATE));
        }
    }

    pub(super) fn is_copy(&self, now: Timestamp, print: u64) -> bool {
        let is_it = |copied: &Copied| copied.print == print && copied.until.is_some_and(|until| now < until);
        self.0.iter().flatten().any(is_it)
    }
}
