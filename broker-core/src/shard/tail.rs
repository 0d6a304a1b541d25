//! The journal as it grows: every shard sees every record, in order, and takes what concerns it.

use std::num::NonZeroU16;

use crate::{
    Timestamp,
    store::{
        JournalError, JournalReply, JournalRequest, Page, Record, Sequence,
        format::{self, Origins},
        record_topic,
    },
};

use super::{Shard, Ticket, backlog::Asker};

/// Records of one page. All that was committed is seen before anything else is done in a turn, so that a retained
/// message which somebody was told is stored is found by whoever asks next.
const PAGE: Page = Page {
    items_max: NonZeroU16::new(4096).expect("not zero"),
    bytes_max: 8 << 20,
};

/// Time until a store that could not answer is asked again.
const RETRY_SECS: u64 = 1;

/// How far this shard has come.
#[derive(Debug)]
pub(super) struct Tail {
    /// Everything before it has been seen. [`Sequence::END`] until the journal has said where it ends.
    pub(super) next: Sequence,
    asked: Option<Ticket>,
    /// When it is asked again, after the store could not answer; `NEVER` otherwise.
    pub(super) retry_at: Timestamp,
    /// When the shard began to follow.
    pub(super) began: Timestamp,
    /// Publishers of the messages that were read lately.
    pub(super) origins: Origins,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail {
            next: Sequence::END,
            asked: None,
            retry_at: Timestamp::NEVER,
            began: Timestamp::default(),
            origins: Origins::default(),
        }
    }
}

impl Shard {
    /// Begins to follow the journal, once every entry has been given to [`Shard::restore`]. Without it the shard works,
    /// but nothing is delivered to sessions that outlive their connections.
    /// Nothing happens by itself before [`Shard::open`].
    pub fn begin(&mut self, now: Timestamp) {
        self.now = now;
        self.is_starting = true;
        self.tail.began = now;
        self.finish_restore(now);
        if self.tail.asked.is_none() {
            self.ask_tail();
        }
        self.apply_effects(now);
    }

    /// Every shard is [settled](Shard::is_settled): what has become due while the process was down may happen, and
    /// clients may come.
    pub fn open(&mut self, now: Timestamp) {
        self.now = now;
        self.is_starting = false;
        self.disown_orphans();
        self.await_sweep(now);
    }

    /// True once the shard knows where the journal ends.
    pub fn has_begun(&self) -> bool {
        self.tail.next < Sequence::END
    }

    /// A completion that is not of a commit.
    pub(super) fn store_answered(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        result: Result<JournalReply, JournalError>,
    ) {
        if self.tail.asked == Some(ticket) {
            self.tail.asked = None;
            match result {
                Ok(JournalReply::Head(extent)) => {
                    self.tail.next = extent.next;
                    self.restored();
                    self.groups_begin();
                }
                Ok(JournalReply::Records { records, next }) => self.follow(now, records, next),
                Ok(_) => unreachable!("a tail is answered by records"),
                // What was trimmed before it was seen is gone; whoever needs it reads, and learns so.
                Err(JournalError::OutOfRange(extent)) => self.fall_behind(extent.first),
                Err(JournalError::Fault(_)) => {
                    self.metrics.store_failures.inc();
                    self.tail.retry_at = now.after_secs(RETRY_SECS);
                    return;
                }
            }
            self.ask_tail();
        } else if let Some(asker) = self.askers.remove(&ticket) {
            self.page_came(now, ticket, asker, result);
        }
    }

    /// Asks for what comes next, or where the journal ends if that is not known.
    pub(super) fn ask_tail(&mut self) {
        self.tail.retry_at = Timestamp::NEVER;
        let request = if self.has_begun() {
            JournalRequest::Tail {
                from: self.tail.next,
                page: PAGE,
                wait: true,
            }
        } else {
            JournalRequest::Head
        };
        self.tail.asked = Some(self.ask_store(request));
    }

    /// Asks whether anything stands in the journal that was not seen: a tail that waits does not say so when only
    /// entries were committed, and what is seen need not be kept.
    pub(super) fn ask_end(&mut self) {
        if self.has_begun() {
            let request = JournalRequest::Tail {
                from: self.tail.next,
                page: PAGE,
                wait: false,
            };
            let ticket = self.ask_store(request);
            self.askers.insert(ticket, Asker::End);
        }
    }

    pub(super) fn end_came(&mut self, result: Result<JournalReply, JournalError>) {
        // If there is something, the tail that waits brings it.
        if let Ok(JournalReply::Records { records, next }) = result
            && records.is_empty()
        {
            self.tail.next = self.tail.next.max(next);
        }
    }

    fn follow(&mut self, now: Timestamp, records: Vec<Record>, next: Sequence) {
        for record in records {
            self.follow_record(now, &record);
            self.tail.next = record.sequence.next();
        }
        self.tail.next = next;
        self.await_sweep(now);
    }

    fn follow_record(&mut self, now: Timestamp, record: &Record) {
        let Some(topic) = record_topic(&record.data) else {
            return;
        };
        let is_kept_here = format::is_retained(&record.data) && self.keeper(topic) == self.id;
        let mut concerns = is_kept_here;
        if !concerns {
            let own = self.id;
            self.index.for_each_match(topic, |_, route| {
                concerns |= (route.durable > 0 && !route.subscribers.is_empty())
                    || route.groups.as_ref().is_some_and(|groups| {
                        groups
                            .values()
                            .any(|group| group.is_durable() && group.owner == own)
                    });
            });
        }
        if !concerns {
            return;
        }
        let Ok(message) = format::decode_message(&record.data, &mut self.tail.origins) else {
            self.metrics.store_unreadable.inc();
            return;
        };
        if is_kept_here {
            self.retain_stored(&message, record.sequence, &record.data);
        }
        self.route_stored(now, &message, record.sequence);
        self.route_to_groups(now, &message, record.sequence);
    }

    /// Records were missed: who was up to date has to read.
    fn fall_behind(&mut self, from: Sequence) {
        self.tail.next = from;
        self.all_behind();
        self.groups_behind();
    }
}
