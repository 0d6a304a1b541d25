//! The handle on the entries.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use broker_core::{
    Timestamp,
    shard::Ticket,
    store::{Durability, Kv, KvError, KvLimits, KvReply, KvRequest},
};

use crate::{
    engine::{Engine, KvAnswer, KvWrite, Slot, Submission},
    tables::{Query, Question},
};

/// A [`Kv`] on the entries of a [`Store`](crate::Store). Writes go the way of all commits, one by one; reads are
/// answered by a thread of the tables.
pub struct KvHandle {
    engine: Arc<Engine>,
    slot: Arc<Slot<KvAnswer>>,
    done: VecDeque<(Ticket, KvAnswer)>,
    /// Submitted and not polled.
    in_flight: usize,
}

impl KvHandle {
    pub(crate) fn new(engine: Arc<Engine>) -> KvHandle {
        KvHandle {
            engine,
            slot: Arc::new(Slot::new()),
            done: VecDeque::new(),
            in_flight: 0,
        }
    }

    fn write(&self, now: Timestamp, ticket: Ticket, write: KvWrite) {
        let slot = Arc::clone(&self.slot);
        self.engine.submit([Submission::Kv {
            slot,
            ticket,
            now,
            write,
        }]);
    }

    fn ask(&self, ticket: Ticket, question: Question) {
        self.engine.tables.ask(Query {
            slot: Arc::clone(&self.slot),
            ticket,
            question,
        });
    }
}

impl Kv for KvHandle {
    fn limits(&self) -> KvLimits {
        KvLimits {
            value_bytes_max: self.engine.limits.record_bytes_max,
            in_flight_max: self.engine.limits.in_flight_max,
        }
    }

    fn durability(&self) -> Durability {
        self.engine.durability
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, KvRequest)>) {
        while self.in_flight < self.engine.limits.in_flight_max
            && let Some((ticket, request)) = requests.pop_front()
        {
            self.in_flight += 1;
            let (key, expected, value) = match request {
                KvRequest::Create(key, value) => (key, None, Some(value)),
                KvRequest::Update(key, revision, value) => (key, Some(revision), Some(value)),
                KvRequest::Delete(key, revision) => (key, Some(revision), None),
                KvRequest::Get(key) => {
                    self.ask(ticket, Question::Get(key));
                    continue;
                }
                KvRequest::Scan { prefix, after, page } => {
                    self.ask(ticket, Question::Scan { prefix, after, page });
                    continue;
                }
                KvRequest::Watch { prefix, after, page } => {
                    self.ask(ticket, Question::Watch { prefix, after, page });
                    continue;
                }
            };
            self.write(now, ticket, KvWrite { key, expected, value });
        }
    }

    fn poll(&mut self, _: Timestamp, waker: &Waker) -> Option<(Ticket, Result<KvReply, KvError>)> {
        if self.done.is_empty() {
            self.slot.take(&mut self.done, waker);
        }
        let done = self.done.pop_front();
        self.in_flight -= usize::from(done.is_some());
        done
    }
}
