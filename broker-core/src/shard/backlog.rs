//! What a persistent session has missed, read from the journal page by page as its client takes it.

use std::{num::NonZeroU16, sync::Arc};

use crate::{
    LinkId, Message, QoS, SubscriptionIds, Timestamp,
    session::{Queued, Reading, SessionKey},
    store::{
        Interest, JournalError, JournalReply, JournalRequest, Keep, Page, Record, Sequence, format,
        record_topic,
    },
    topic,
};

use super::{Shard, Ticket, publish::effective_qos};

/// One page of a backlog.
const PAGE: Page = Page {
    items_max: NonZeroU16::new(256).expect("not zero"),
    bytes_max: 64 << 10,
};
/// Messages and bytes that wait in memory; beyond, a session that was up to date leaves the rest to the journal.
const QUEUE_MAX: usize = 256;
const QUEUE_BYTES: usize = 64 << 10;

/// Who waits for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A session, while it has this link: its backlog.
    Backlog(SessionKey, LinkId),
    /// The same: messages that were under way on an earlier connection.
    Deliveries(SessionKey, LinkId),
    /// A shared group of this shard, by its number: its backlog.
    Group(u64),
    /// The same: messages that members gave back.
    Returned(u64),
    /// The shard: whether it has seen everything.
    End,
}

impl Shard {
    /// A message that the journal has for a session which is up to date.
    pub(super) fn deliver_stored(&mut self, now: Timestamp, key: SessionKey, mut item: Queued) {
        item.priority = self.priority(&item.message);
        let is_ranked = self.ranks_backlogs();
        let Some(session) = self.online_mut(key) else {
            return;
        };
        let Some(stored) = &mut session.stored else { return };
        let (len, bytes) = session.outgoing.queued();
        if !is_ranked && (len >= QUEUE_MAX || bytes >= QUEUE_BYTES) {
            stored.reading = Reading::Behind;
            return;
        }
        if let Some(sequence) = item.sequence {
            stored.next = sequence.next();
        }
        self.mark_dirty(now, key);
        self.deliver(now, key, item);
    }

    /// With priorities all that waits is read into memory, as much as a queue may hold: which of it goes first, and what
    /// is cut, depends on all of it. Without a limit only what is in memory is sorted.
    pub(super) fn ranks_backlogs(&self) -> bool {
        let limits = &self.common.config.mqtt;
        !limits.mqueue_priorities.is_empty() && limits.max_mqueue_len > 0
    }

    pub(super) fn priority(&self, message: &Message) -> u16 {
        let limits = &self.common.config.mqtt;
        if limits.mqueue_priorities.is_empty() {
            return 0;
        }
        limits.mqueue_priority(message.local_topic())
    }

    /// Asks for the next page if the session has use for it.
    pub(super) fn read_on(&mut self, key: SessionKey) {
        let is_ranked = self.ranks_backlogs();
        let limits = &self.common.config.mqtt;
        let keep = if is_ranked {
            Keep::default()
        } else {
            Keep {
                items_max: limits.max_mqueue_len as u64,
                bytes_max: limits.max_mqueue_bytes as u64,
            }
        };
        let Some(session) = self.sessions[key.0 as usize].online_mut() else {
            return;
        };
        let (len, bytes) = session.outgoing.queued();
        let link = session.link;
        let Some(stored) = &mut session.stored else { return };
        if stored.reading != Reading::Behind
            || stored.has_read_all()
            || stored.fetching.is_some()
            || stored.unsettled > 0
            || session.opening
            || (!is_ranked && (len >= QUEUE_MAX / 2 || bytes >= QUEUE_BYTES / 2))
        {
            return;
        }
        let index = &self.index;
        let subscriptions = &session.subscriptions;
        let interest = stored.interest.get_or_insert_with(|| {
            let durable = subscriptions
                .iter()
                .filter(|one| one.durable && one.kind.group().is_none());
            let filters = durable.map(|one| index.name(one.route).into());
            Arc::new(Interest {
                filters: filters.collect(),
            })
        });
        let request = JournalRequest::Read {
            interest: Arc::clone(interest),
            from: stored.next,
            keep,
            page: PAGE,
        };
        let ticket = self.ask_store(request);
        self.askers.insert(ticket, Asker::Backlog(key, link));
        if let Some(stored) = self.session_mut(key).stored.as_mut() {
            stored.reading = Reading::Asked(ticket);
            stored.beyond = Sequence::FIRST;
        }
    }

    /// Asks for messages under way that are not in memory.
    pub(super) fn fetch_deliveries(&mut self, key: SessionKey) {
        let session = self.session_mut(key);
        let (unread, link) = (session.outgoing.unread(), session.link);
        if unread.is_empty() {
            return;
        }
        let ticket = self.ask_store(JournalRequest::Fetch(unread));
        self.askers.insert(ticket, Asker::Deliveries(key, link));
        if let Some(stored) = self.session_mut(key).stored.as_mut() {
            stored.fetching = Some(ticket);
        }
    }

    pub(super) fn page_came(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        asker: Asker,
        result: Result<JournalReply, JournalError>,
    ) {
        match asker {
            Asker::Backlog(key, link) if self.has_link(key, link) => {
                self.backlog_came(now, key, ticket, result)
            }
            Asker::Deliveries(key, link) if self.has_link(key, link) => {
                self.deliveries_came(now, key, ticket, result)
            }
            Asker::Backlog(..) | Asker::Deliveries(..) => {}
            Asker::Group(number) => self.group_page_came(now, number, ticket, result),
            Asker::Returned(number) => self.returned_came(now, number, result),
            Asker::End => self.end_came(result),
        }
    }

    fn has_link(&self, key: SessionKey, link: LinkId) -> bool {
        self.online(key).is_some_and(|session| session.link == link)
    }

    fn backlog_came(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        ticket: Ticket,
        result: Result<JournalReply, JournalError>,
    ) {
        let Some(stored) = self.session_mut(key).stored.as_mut() else {
            return;
        };
        if stored.reading != Reading::Asked(ticket) {
            return;
        }
        if stored.interest.is_none() {
            // Its subscriptions have changed: the page may lack messages of new ones.
            stored.reading = Reading::Behind;
            return self.read_on(key);
        }
        let Ok(JournalReply::Found {
            records,
            next,
            at_end,
            passed_over,
        }) = result
        else {
            // The store cannot be read: the client is sent away, so that it does not wait for ever.
            self.metrics.store_failures.inc();
            let closing =
                crate::Closing::because(crate::ReasonCode::ServerBusy, "the backlog cannot be read");
            return self.close_session(now, key, closing);
        };
        let gate = stored.gate;
        self.metrics.delivery_dropped.add(passed_over);
        self.metrics.delivery_dropped_queue_full.add(passed_over);
        for record in records.into_iter().take_while(|record| record.sequence < gate) {
            self.take_record(now, key, &record);
        }
        let tail = self.tail.next;
        if let Some(stored) = self.session_mut(key).stored.as_mut() {
            stored.has_read(next, at_end, tail);
        }
        self.mark_dirty(now, key);
        self.pump(now, key);
    }

    /// One record of a backlog: into the session's queue, if the session still wants it.
    fn take_record(&mut self, now: Timestamp, key: SessionKey, record: &Record) {
        let session = self.session_mut(key);
        if let Some(stored) = session.stored.as_mut()
            && (record.sequence < stored.next || stored.ahead.remove(&record.sequence))
        {
            return;
        }
        let Ok(message) = format::decode_message(&record.data, &mut self.tail.origins) else {
            self.metrics.store_unreadable.inc();
            return;
        };
        let Some(mut item) = self.wanted(key, message, record) else {
            return;
        };
        let age_max = self.common.config.mqtt.mqueue_age_max;
        let is_old = age_max.is_some_and(|age| item.message.created().after(age) <= now);
        if is_old || item.message.is_expired(now) {
            self.metrics.delivery_dropped.inc();
            self.metrics.delivery_dropped_expired.inc();
            return self.drop_delivery(now, key, &item, "expired");
        }
        item.priority = self.priority(&item.message);
        self.enqueue(now, key, item);
    }

    /// What the session's subscriptions make of a record: highest QoS, all identifiers.
    fn wanted(&self, key: SessionKey, message: Message, record: &Record) -> Option<Queued> {
        let session = self.session(key);
        let is_own = message.origin().client_id == session.client.client_id;
        let name = record_topic(&record.data)?;
        let (mut qos, mut durable) = (None, false);
        let mut retain_as_published = session.is_bridge;
        let mut ids = SubscriptionIds::new();
        let mut merge = |one: &crate::session::Subscription| {
            if one.since > record.sequence || one.kind.group().is_some() || (one.options.no_local && is_own) {
                return;
            }
            durable |= one.durable;
            qos = qos.max(Some(one.options.qos));
            retain_as_published |= one.options.retain_as_published;
            ids.extend(one.id);
        };
        let subscriptions = &session.subscriptions;
        if subscriptions.len() <= 16 {
            for one in subscriptions.iter() {
                if topic::matches(self.index.name(one.route), name) {
                    merge(one);
                }
            }
        } else {
            self.index.for_each_match(name, |id, _| {
                if let Some(one) = subscriptions.get(id, None) {
                    merge(one);
                }
            });
        }
        let qos = effective_qos(message.qos(), qos?, self.common.config.mqtt.upgrade_qos);
        (durable && qos > QoS::AtMostOnce).then(|| Queued {
            qos,
            retain: message.retain() && retain_as_published,
            subscription_ids: ids,
            shared: None,
            sequence: Some(record.sequence),
            priority: 0,
            message,
        })
    }

    fn deliveries_came(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        ticket: Ticket,
        result: Result<JournalReply, JournalError>,
    ) {
        let stored = self.session(key).stored.as_ref();
        if stored.is_none_or(|stored| stored.fetching != Some(ticket)) {
            // Of an earlier connection of the link.
            return;
        }
        let Ok(JournalReply::Fetched(records)) = result else {
            self.metrics.store_failures.inc();
            let closing = crate::Closing::because(crate::ReasonCode::ServerBusy, "messages cannot be read");
            return self.close_session(now, key, closing);
        };
        let origins = &mut self.tail.origins;
        let mut messages: std::collections::BTreeMap<Sequence, Message> = std::collections::BTreeMap::new();
        for record in records {
            if let Ok(message) = format::decode_message(&record.data, origins) {
                messages.insert(record.sequence, message);
            }
        }
        let session = self.session_mut(key);
        let missing = session.outgoing.fill(|sequence| messages.get(&sequence).cloned());
        if let Some(stored) = session.stored.as_mut() {
            stored.fetching = None;
        }
        self.metrics.delivery_dropped.add(missing as u64);
        self.metrics.delivery_dropped_trimmed.add(missing as u64);
        if missing > 0 {
            self.settle_shared(key);
            self.mark_dirty(now, key);
        }
        self.pump(now, key);
    }

    /// Every session that was up to date, or about to be, has to read again.
    pub(super) fn all_behind(&mut self) {
        let mut woken = Vec::new();
        for (at, tenant) in &mut self.sessions {
            let Some(session) = tenant.online_mut() else {
                continue;
            };
            if let Some(stored) = &mut session.stored
                && stored.reading != Reading::Behind
            {
                stored.reading = Reading::Behind;
                woken.push(SessionKey(
                    u32::try_from(at).expect("sessions are numbered in u32"),
                ));
            }
        }
        self.ready.extend(woken);
    }
}
