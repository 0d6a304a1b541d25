//! Late copies of requests.
//!
//! TCP keeps the order; a network of datagrams may deliver a copy of a request when its answer is through and the
//! client has gone on. A PUBLISH of QoS 2 that was completed would be delivered twice, a SUBSCRIBE undo the
//! UNSUBSCRIBE after it. So requests are remembered for as long as the network may hold back a copy ([`LATE`]), and
//! copies are dropped, not answered: a client that means the same request once more, in the same words and under the
//! same number, repeats it until it is taken.
//!
//! QoS 1 may come twice and REGISTER always has the same answer: neither is remembered.

use std::hash::{DefaultHasher, Hash, Hasher};

use broker_core::Timestamp;

use super::timers::LATE;
use crate::codec::MsgId;

/// The last requests. A client has one under way (§6.6), so that a few are enough.
#[derive(Debug, Default)]
pub(super) struct LateCopies([Option<Copied>; 4]);

#[derive(Clone, Copy, Debug)]
struct Copied {
    print: u64,
    /// Set for a message of QoS 2 until it is completed: until then the broker knows it.
    under_way: Option<MsgId>,
    until: Timestamp,
}

/// What a copy has in common with its original: all of it but DUP.
pub(super) fn print(request: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.hash(&mut hasher);
    hasher.finish()
}

impl LateCopies {
    /// True if the request is a copy of one that came lately; else it is remembered.
    pub(super) fn is_copy(&mut self, now: Timestamp, print: u64) -> bool {
        self.has(now, print) || {
            self.remember(Copied {
                print,
                under_way: None,
                until: now.after(LATE),
            });
            false
        }
    }

    /// True if this is a copy of a message of QoS 2 that was completed lately.
    pub(super) fn has(&self, now: Timestamp, print: u64) -> bool {
        let is_it =
            |copied: &Copied| copied.print == print && copied.under_way.is_none() && now < copied.until;
        self.0.iter().flatten().any(is_it)
    }

    /// A message of QoS 2 has come.
    pub(super) fn receive(&mut self, now: Timestamp, msg_id: MsgId, print: u64) {
        let repeated = |copied: &Copied| copied.print == print && copied.under_way.is_some();
        if !self.0.iter().flatten().any(repeated) {
            self.remember(Copied {
                print,
                under_way: Some(msg_id),
                until: now,
            });
        }
    }

    /// It is completed.
    pub(super) fn complete(&mut self, now: Timestamp, msg_id: MsgId) {
        let mut copied = self.0.iter_mut().flatten();
        if let Some(copied) = copied.find(|copied| copied.under_way == Some(msg_id)) {
            copied.under_way = None;
            copied.until = now.after(LATE);
        }
    }

    /// True if no copy can come any more.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let is_over = |copied: &Copied| copied.under_way.is_none() && copied.until <= now;
        self.0.iter().flatten().all(is_over)
    }

    fn remember(&mut self, copied: Copied) {
        self.0.rotate_right(1);
        self.0[0] = Some(copied);
    }
}
