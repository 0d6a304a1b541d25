//! How much of the journal is still needed.

use crate::{Timestamp, session::Tenant, store::Sequence};

use super::Shard;

/// Time between two looks at all sessions, while the journal grows.
const INTERVAL_MS: u64 = 5000;
/// Sessions looked at before the worker has its turn again.
const SLICE: usize = 16_384;

/// A look at all sessions, in slices.
#[derive(Debug)]
pub(super) struct Sweep {
    /// When it begins or goes on; `NEVER` if nothing has happened since the last one.
    pub(super) at: Timestamp,
    /// The next place to be looked at.
    next: usize,
    /// The lowest that was found.
    low: Sequence,
    /// Where the journal ended when it began: what is committed later is not looked for.
    end: Sequence,
}

impl Default for Sweep {
    fn default() -> Sweep {
        Sweep {
            at: Timestamp::NEVER,
            next: 0,
            low: Sequence::END,
            end: Sequence::END,
        }
    }
}

impl Shard {
    /// The journal has grown.
    pub(super) fn await_sweep(&mut self, now: Timestamp) {
        if self.sweep.at == Timestamp::NEVER {
            self.sweep = Sweep {
                at: Timestamp::from_millis(now.as_millis().saturating_add(INTERVAL_MS)),
                ..Sweep::default()
            };
        }
    }

    /// A session has got a record that nobody else need keep from here on.
    pub(super) fn keep_from(&mut self, sequence: Sequence) {
        self.sweep.low = self.sweep.low.min(sequence);
        let low = self.stats.journal_low.get();
        self.stats.journal_low.set(low.min(sequence.0));
    }

    /// Goes on with the look at all sessions; at its end what nobody needs is known.
    pub(super) fn sweep_due(&mut self, now: Timestamp) {
        let from = self.sweep.next;
        let end = self.sessions.capacity();
        let tail = self.tail.next;
        if from == 0 {
            self.sweep.end = tail;
            self.ask_end();
            // Looked at again at the end: meanwhile a message may go from a group to a session that was looked at.
            self.sweep.low = tail.min(self.groups_need_from());
        }
        let mut low = self.sweep.low;
        for at in from..end.min(from + SLICE) {
            match self.sessions.get(at) {
                Some(Tenant::Online(session)) => {
                    if let Some(stored) = &session.stored {
                        low = low.min(stored.needs_from(&session.outgoing, tail));
                    }
                }
                Some(Tenant::Dormant(dormant)) => low = low.min(dormant.needs_from()),
                Some(Tenant::Ending(_)) | None => {}
            }
        }
        self.sweep.low = low;
        self.sweep.next = from + SLICE;
        if self.sweep.next < end {
            self.sweep.at = now;
            return;
        }
        self.sweep.at = Timestamp::NEVER;
        let low = low.min(self.groups_need_from());
        self.stats.journal_low.set(low.0);
        if self.sweep.end < tail {
            self.await_sweep(now);
        }
    }
}
