use std::{collections::VecDeque, task::Waker};

use super::{Content, Handle, MemoryStore, Request, WaitFor};
use crate::{
    Timestamp,
    shard::Ticket,
    store::{Durability, Kv, KvError, KvLimits, KvReply, KvRequest, Value},
};

/// A handle on the entries of a [`MemoryStore`].
pub struct MemoryKv {
    handle: Handle<KvRequest>,
    limits: KvLimits,
}

impl MemoryKv {
    pub(super) fn new(store: &MemoryStore) -> MemoryKv {
        MemoryKv {
            handle: Handle::new(store),
            limits: KvLimits {
                value_bytes_max: store.limits.item_bytes_max,
                in_flight_max: store.limits.in_flight_max,
            },
        }
    }
}

impl Kv for MemoryKv {
    fn limits(&self) -> KvLimits {
        self.limits
    }

    fn durability(&self) -> Durability {
        Durability::None
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, KvRequest)>) {
        self.handle.submit(now, requests);
    }

    fn poll(&mut self, now: Timestamp, waker: &Waker) -> Option<(Ticket, Result<KvReply, KvError>)> {
        self.handle.poll(now, waker)
    }
}

impl Request for KvRequest {
    type Answer = Result<KvReply, KvError>;
    const WAITS_FOR: WaitFor = WaitFor::Change;

    fn execute(&mut self, _: Timestamp, content: &mut Content) -> Option<Self::Answer> {
        let latest = content.revision();
        Some(match self {
            KvRequest::Get(key) => Ok(KvReply::Entry(content.table.get(key))),
            KvRequest::Create(key, value) => content.write(key, None, Value::Put(value.clone())),
            KvRequest::Update(key, revision, value) => {
                content.write(key, Some(*revision), Value::Put(value.clone()))
            }
            KvRequest::Delete(key, revision) => content.write(key, Some(*revision), Value::Delete),
            KvRequest::Scan { prefix, after, page } => {
                content.table.scan(prefix, after.as_ref(), *page, latest)
            }
            KvRequest::Watch { prefix, after, page } => {
                return content.table.watch(prefix, after, *page, latest);
            }
        })
    }
}
