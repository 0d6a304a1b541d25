use std::{collections::VecDeque, task::Waker};

use bytes::Bytes;
use hashbrown::HashMap;

use super::{Content, Handle, MemoryLimits};
use crate::{
    Timestamp,
    shard::Ticket,
    store::{
        DedupId, Durability, Extent, Fault, Journal, JournalError, JournalLimits, JournalReply,
        JournalRequest, JournalShard, Page, Record, Sequence,
    },
};

/// A [`Journal`] in memory; a clone is another handle on the same content.
#[derive(Clone)]
pub struct MemoryJournal {
    handle: Handle<Logs>,
    limits: JournalLimits,
}

impl MemoryJournal {
    /// A handle on a journal without records.
    pub fn new(shards: u16, limits: MemoryLimits) -> MemoryJournal {
        let logs = Logs {
            limits,
            logs: (0..shards).map(|_| Log::default()).collect(),
            bytes: 0,
            appended: 0,
        };
        MemoryJournal {
            handle: Handle::new(logs, limits.in_flight_max),
            limits: JournalLimits {
                shards,
                record_bytes_max: limits.item_bytes_max,
                in_flight_max: limits.in_flight_max,
                dedup_window: limits.dedup_window,
                dedup_ids_max: limits.dedup_ids_max,
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

struct Logs {
    limits: MemoryLimits,
    logs: Vec<Log>,
    /// Of all logs.
    bytes: u64,
    appended: u64,
}

#[derive(Default)]
struct Log {
    /// Records that were trimmed: the first one held has this number plus 1.
    trimmed: u64,
    records: VecDeque<Bytes>,
    bytes: u64,
    ids: HashMap<DedupId, Sequence, foldhash::quality::RandomState>,
    /// The ids by age, with the time of their append.
    ages: VecDeque<(Timestamp, DedupId)>,
}

impl Content for Logs {
    type Request = JournalRequest;
    type Answer = Result<JournalReply, JournalError>;

    fn execute(&mut self, now: Timestamp, request: &mut JournalRequest) -> Option<Self::Answer> {
        match request {
            JournalRequest::Append { shard, record, dedup } => Some(self.append(now, *shard, record, *dedup)),
            JournalRequest::Tail {
                shard,
                from,
                page,
                wait,
            } => match self.log(*shard).and_then(|log| log.tail(*from, *page)) {
                Ok(JournalReply::Records { records, .. }) if records.is_empty() && *wait => None,
                answer => Some(answer),
            },
            JournalRequest::Head(shard) => Some(self.log(*shard).map(|log| JournalReply::Head(log.extent()))),
            JournalRequest::Trim { shard, upto } => Some(self.trim(*shard, *upto)),
        }
    }

    fn writes(&self) -> u64 {
        self.appended
    }
}

impl Logs {
    fn log(&mut self, shard: JournalShard) -> Result<&mut Log, JournalError> {
        self.logs
            .get_mut(usize::from(shard.0))
            .ok_or(JournalError::NoSuchShard)
    }

    fn append(
        &mut self,
        now: Timestamp,
        shard: JournalShard,
        record: &Bytes,
        dedup: DedupId,
    ) -> Result<JournalReply, JournalError> {
        let (limits, held) = (self.limits, self.bytes);
        let log = self.log(shard)?;
        let (bytes, bytes_max) = (record.len(), limits.item_bytes_max);
        if bytes > bytes_max {
            return Err(Fault::TooLarge { bytes, bytes_max }.into());
        }
        log.forget_ids(|at, _| at.after(limits.dedup_window) < now);
        if let Some(&sequence) = log.ids.get(&dedup) {
            return Ok(JournalReply::Appended {
                sequence,
                duplicate: true,
            });
        }
        if held + bytes as u64 > limits.bytes_max {
            return Err(Fault::Full.into());
        }
        let sequence = log.extent().next;
        log.records.push_back(record.clone());
        log.bytes += bytes as u64;
        log.ids.insert(dedup, sequence);
        log.ages.push_back((now, dedup));
        log.forget_ids(|_, ids| ids > limits.dedup_ids_max);
        self.bytes += bytes as u64;
        self.appended += 1;
        Ok(JournalReply::Appended {
            sequence,
            duplicate: false,
        })
    }

    fn trim(&mut self, shard: JournalShard, upto: Sequence) -> Result<JournalReply, JournalError> {
        let log = self.log(shard)?;
        let extent = log.extent();
        if upto > extent.next {
            return Err(JournalError::OutOfRange(extent));
        }
        while log.trimmed + 1 < upto.0
            && let Some(record) = log.records.pop_front()
        {
            log.trimmed += 1;
            log.bytes -= record.len() as u64;
        }
        let freed = extent.bytes - log.bytes;
        self.bytes -= freed;
        Ok(JournalReply::Trimmed)
    }
}

impl Log {
    fn extent(&self) -> Extent {
        Extent {
            first: Sequence(self.trimmed + 1),
            next: Sequence(self.trimmed + 1 + self.records.len() as u64),
            bytes: self.bytes,
        }
    }

    fn tail(&self, from: Sequence, page: Page) -> Result<JournalReply, JournalError> {
        let extent = self.extent();
        if !(extent.first..=extent.next).contains(&from) {
            return Err(JournalError::OutOfRange(extent));
        }
        let (mut records, mut bytes, mut next) = (Vec::new(), 0, from);
        // Fits: the log has that many records.
        let skip = (from.0 - extent.first.0) as usize;
        for data in self.records.range(skip..).take(usize::from(page.items_max.get())) {
            if !records.is_empty() && bytes >= page.bytes_max {
                break;
            }
            bytes += data.len();
            records.push(Record {
                sequence: next,
                data: data.clone(),
            });
            next.0 += 1;
        }
        Ok(JournalReply::Records { records, next })
    }

    /// Forgets the oldest ids as long as `is_over` says so of the oldest one's time and the number of ids.
    fn forget_ids(&mut self, is_over: impl Fn(Timestamp, usize) -> bool) {
        while let Some(&(at, id)) = self.ages.front()
            && is_over(at, self.ages.len())
        {
            self.ages.pop_front();
            self.ids.remove(&id);
        }
    }
}
