//! Shared groups with persistent members: the group reads the journal like a session, and leases each message to a
//! member until the member has it for good.
//!
//! One shard owns the group. A lease ends when the member's client has acknowledged (QoS 1) or received (QoS 2) the
//! message; of QoS 2 also when the store knows that it is the member's, and in any case with the member's session. Or
//! the member gives it back because its connection or its subscription ended. What is given back goes to another
//! member, before what has not been leased yet.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    ClientId, Message, QoS, Timestamp,
    session::{Reading, SharedTarget},
    store::{Interest, JournalError, JournalReply, JournalRequest, Keep, Page, Record, Sequence, format},
};

use super::{
    Shard, ShardMessage, Ticket,
    backlog::Asker,
    owned::{Lease, SentTo},
    route::Member,
};

/// Messages that one member has and has not acknowledged; beyond, others get them, or they wait in the journal.
const LEASES_MAX: u32 = 64;
/// One page of a group's backlog.
const PAGE: Page = Page {
    items_max: std::num::NonZeroU16::new(128).expect("not zero"),
    bytes_max: 64 << 10,
};

impl Shard {
    /// A message from the journal, for the groups of this shard that have read everything before it.
    pub(super) fn route_to_groups(&mut self, now: Timestamp, message: &Message, sequence: Sequence) {
        let mut found: smallvec::SmallVec<[u64; 4]> = smallvec::SmallVec::new();
        let (own, owned) = (self.id, &self.owned);
        if owned.groups.is_empty() || !self.may_last(message) {
            return;
        }
        self.index.for_each_match(message.topic(), |_, route| {
            for group in route.groups.iter().flat_map(|groups| groups.values()) {
                if group.owner == own && group.is_durable() {
                    found.extend(owned.number(&group.target));
                }
            }
        });
        for number in found {
            let Some(group) = self.owned.groups.get_mut(&number) else {
                continue;
            };
            if let Reading::Asked(_) = group.reading {
                group.beyond = sequence.next();
            }
            if group.reading != Reading::Live || sequence < group.next || group.taken.contains(&sequence) {
                continue;
            }
            if !group.waiting.is_empty() || !self.lease(now, number, sequence, message, &[]) {
                // Nobody takes it now: it stays in the journal until somebody does.
                if let Some(group) = self.owned.groups.get_mut(&number) {
                    group.reading = Reading::Behind;
                }
                continue;
            }
            if let Some(group) = self.owned.groups.get_mut(&number) {
                group.next = sequence.next();
            }
            self.mark_group(number);
        }
    }

    pub(super) fn may_last(&self, message: &Message) -> bool {
        message.qos() > QoS::AtMostOnce || self.common.config.mqtt.upgrade_qos
    }

    /// Gives a message to a member that has room. False if there is none.
    fn lease(
        &mut self,
        now: Timestamp,
        number: u64,
        sequence: Sequence,
        message: &Message,
        sent_to: &[ClientId],
    ) -> bool {
        let Some(group) = self.owned.groups.get(&number) else {
            return true;
        };
        let target = Arc::clone(&group.target);
        let Some(id) = self.index.find(&target.filter) else {
            return false;
        };
        let Some(at) = self
            .index
            .get(id)
            .groups
            .as_ref()
            .and_then(|groups| groups.get_index_of(&target.group))
        else {
            return false;
        };
        let Some(member) = self.choose(message, None, id, at) else {
            return false;
        };
        let Some(member) = self.with_room(number, member, id, at) else {
            return false;
        };
        let Some(group) = self.owned.groups.get_mut(&number) else {
            return true;
        };
        let lease = Lease {
            member: member.client_id.clone(),
            sent_to: sent_to.to_vec(),
        };
        group.leased.insert(sequence, lease);
        *group.counts.entry(member.client_id.clone()).or_default() += 1;
        // To another member it is no repetition [MQTT-3.3.1-3].
        let is_repeated = sent_to.contains(&member.client_id) || sequence < group.repeats_before;
        if member.shard == self.id {
            self.deliver_lease(
                now,
                &member.client_id,
                &target,
                sequence,
                message.clone(),
                is_repeated,
            );
        } else {
            let lease = ShardMessage::Lease {
                to: member.client_id,
                target,
                sequence,
                message: message.clone(),
                is_repeated,
            };
            self.outbound.push(member.shard, lease);
        }
        true
    }

    /// The member, or the next one that has room.
    fn with_room(
        &self,
        number: u64,
        member: Member,
        id: crate::filter_index::FilterId,
        at: usize,
    ) -> Option<Member> {
        let group = self.owned.groups.get(&number)?;
        let has_room = |member: &&Member| {
            group
                .counts
                .get(&member.client_id)
                .is_none_or(|count| *count < LEASES_MAX)
        };
        if has_room(&&member) {
            return Some(member);
        }
        let members = self.index.get(id).group_at(at)?;
        members.candidates().iter().find(has_room).cloned()
    }

    /// Something has changed: a member came, or has room again.
    pub(super) fn group_moves(&mut self, number: u64) {
        let now = self.now;
        loop {
            let Some(group) = self.owned.groups.get_mut(&number) else {
                return;
            };
            let Some((sequence, (message, sent_to))) = group.waiting.pop_first() else {
                break;
            };
            if message.is_expired(now) {
                self.metrics.messages_dropped_expired.inc();
                self.mark_group(number);
            } else if self.lease(now, number, sequence, &message, &sent_to) {
                self.mark_group(number);
            } else {
                if let Some(group) = self.owned.groups.get_mut(&number) {
                    group.waiting.insert(sequence, (message, sent_to));
                }
                return;
            }
        }
        self.fetch_returned(number);
        self.read_group(number);
    }

    fn has_members_online(&self, target: &SharedTarget) -> bool {
        let id = self.index.find(&target.filter);
        id.and_then(|id| self.index.get(id).group(&target.group))
            .is_some_and(|group| group.has_online())
    }

    pub(super) fn fetch_returned(&mut self, number: u64) {
        let Some(group) = self.owned.groups.get(&number) else {
            return;
        };
        if !group.fetching.is_empty() || group.returned.is_empty() || !self.has_members_online(&group.target)
        {
            return;
        }
        let first = group.returned.keys().take(usize::from(PAGE.items_max.get()));
        let sequences: Vec<Sequence> = first.copied().collect();
        let ticket = self.ask_store(JournalRequest::Fetch(sequences.clone()));
        self.askers.insert(ticket, Asker::Returned(number));
        if let Some(group) = self.owned.groups.get_mut(&number) {
            group.fetching = sequences;
        }
    }

    pub(super) fn read_group(&mut self, number: u64) {
        let limits = &self.common.config.mqtt;
        let keep = Keep {
            items_max: limits.max_mqueue_len as u64,
            bytes_max: limits.max_mqueue_bytes as u64,
        };
        let Some(group) = self.owned.groups.get(&number) else {
            return;
        };
        let is_due =
            group.reading == Reading::Behind && group.waiting.is_empty() && group.fetching.is_empty();
        if !is_due || group.next == Sequence::END || !self.has_members_online(&group.target) {
            return;
        }
        let request = JournalRequest::Read {
            interest: Arc::new(Interest {
                filters: [group.target.filter.clone()].into(),
            }),
            from: group.next,
            keep,
            page: PAGE,
        };
        let ticket = self.ask_store(request);
        self.askers.insert(ticket, Asker::Group(number));
        if let Some(group) = self.owned.groups.get_mut(&number) {
            group.reading = Reading::Asked(ticket);
            group.beyond = Sequence::FIRST;
        }
    }

    pub(super) fn group_page_came(
        &mut self,
        now: Timestamp,
        number: u64,
        ticket: Ticket,
        result: Result<JournalReply, JournalError>,
    ) {
        let tail = self.tail.next;
        let Some(group) = self.owned.groups.get_mut(&number) else {
            return;
        };
        if group.reading != Reading::Asked(ticket) {
            return;
        }
        group.reading = Reading::Behind;
        let Ok(JournalReply::Found {
            records,
            next,
            at_end,
            passed_over,
        }) = result
        else {
            // It is asked again when something changes.
            return self.metrics.store_failures.inc();
        };
        self.metrics.delivery_dropped.add(passed_over);
        self.metrics.delivery_dropped_queue_full.add(passed_over);
        group.next = group.next.max(next);
        if at_end && next >= group.beyond {
            group.next = group.next.max(tail);
            group.reading = Reading::Live;
        }
        for record in records {
            self.group_takes(now, number, &record);
        }
        self.mark_group(number);
        self.group_moves(number);
    }

    fn group_takes(&mut self, now: Timestamp, number: u64, record: &Record) {
        let Ok(message) = format::decode_message(&record.data, &mut self.tail.origins) else {
            return self.metrics.store_unreadable.inc();
        };
        let age_max = self.common.config.mqtt.mqueue_age_max;
        let is_old = age_max.is_some_and(|age| message.created().after(age) <= now);
        if is_old || message.is_expired(now) {
            return self.metrics.messages_dropped_expired.inc();
        }
        if !self.may_last(&message) {
            return;
        }
        if let Some(group) = self.owned.groups.get_mut(&number)
            && !group.taken.contains(&record.sequence)
        {
            group.waiting.insert(record.sequence, (message, SentTo::new()));
        }
    }

    pub(super) fn returned_came(
        &mut self,
        now: Timestamp,
        number: u64,
        result: Result<JournalReply, JournalError>,
    ) {
        let Some(group) = self.owned.groups.get_mut(&number) else {
            return;
        };
        let asked = std::mem::take(&mut group.fetching);
        let Ok(JournalReply::Fetched(records)) = result else {
            return self.metrics.store_failures.inc();
        };
        // What was asked for and did not come has left the journal.
        let mut sent_to: BTreeMap<Sequence, SentTo> = BTreeMap::new();
        for sequence in &asked {
            sent_to.extend(group.returned.remove_entry(sequence));
        }
        for record in &records {
            let Ok(message) = format::decode_message(&record.data, &mut self.tail.origins) else {
                self.metrics.store_unreadable.inc();
                continue;
            };
            if let Some(group) = self.owned.groups.get_mut(&number)
                && !message.is_expired(now)
            {
                let sent_to = sent_to.remove(&record.sequence).unwrap_or_default();
                group.waiting.insert(record.sequence, (message, sent_to));
            }
        }
        self.mark_group(number);
        self.group_moves(number);
    }
}
