use std::{collections::VecDeque, task::Waker};

use super::{Content, Handle, MemoryStore, Request, WaitFor};
use crate::{
    Timestamp,
    shard::Ticket,
    store::{Durability, Journal, JournalError, JournalLimits, JournalReply, JournalRequest},
};

/// A handle on the log of a [`MemoryStore`].
pub struct MemoryJournal {
    handle: Handle<JournalRequest>,
    limits: JournalLimits,
}

impl MemoryJournal {
    pub(super) fn new(store: &MemoryStore) -> MemoryJournal {
        MemoryJournal {
            handle: Handle::new(store),
            limits: JournalLimits {
                record_bytes_max: store.limits.item_bytes_max,
                in_flight_max: store.limits.in_flight_max,
                dedup_window: store.limits.dedup_window,
                dedup_ids_max: store.limits.dedup_ids_max,
            },
        }
    }
}

impl Journal for MemoryJournal {
    fn limits(&self) -> JournalLimits {
        self.limits
    }

    fn durability(&self) -> Durability {
        Durability::None
    }

    fn submit(&mut self, now: Timestamp, requests: &mut VecDeque<(Ticket, JournalRequest)>) {
        self.handle.submit(now, requests);
    }

    fn poll(
        &mut self,
        now: Timestamp,
        waker: &Waker,
    ) -> Option<(Ticket, Result<JournalReply, JournalError>)> {
        self.handle.poll(now, waker)
    }
}

impl Request for JournalRequest {
    type Answer = Result<JournalReply, JournalError>;
    const WAITS_FOR: WaitFor = WaitFor::Record;

    fn taken_along(&self, failed: &Self::Answer) -> Option<Self::Answer> {
        let fault = failed.as_ref().err()?.takes_along()?;
        matches!(self, JournalRequest::Commit { .. }).then(|| Err(fault.clone().into()))
    }

    fn execute(&mut self, now: Timestamp, content: &mut Content) -> Option<Self::Answer> {
        let extent = content.extent();
        Some(match self {
            JournalRequest::Commit {
                records,
                writes,
                dedup,
            } => content.commit(now, records, writes, *dedup),
            JournalRequest::Tail { from, .. } if !(extent.first..=extent.next).contains(from) => {
                Err(JournalError::OutOfRange(extent))
            }
            JournalRequest::Tail { from, page, wait } => {
                let (records, next) = content.log.tail(*from, *page, extent.next);
                if records.is_empty() && *wait {
                    return None;
                }
                Ok(JournalReply::Records { records, next })
            }
            JournalRequest::Read { from, .. } if *from > extent.next => Err(JournalError::OutOfRange(extent)),
            JournalRequest::Read {
                interest,
                from,
                keep,
                page,
            } => Ok(content.log.read(interest, *from, *keep, *page, extent.next)),
            JournalRequest::Fetch(places) => Ok(JournalReply::Fetched(content.log.fetch(places))),
            JournalRequest::Head => Ok(JournalReply::Head(extent)),
            JournalRequest::Trim { upto } if *upto > extent.next => Err(JournalError::OutOfRange(extent)),
            JournalRequest::Trim { upto } => {
                content.log.trim(*upto);
                Ok(JournalReply::Trimmed)
            }
        })
    }
}
