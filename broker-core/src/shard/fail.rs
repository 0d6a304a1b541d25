//! A commit that has failed: nothing that it promised is said, and what memory has beyond the store is written again.

use std::collections::HashSet;

use crate::{
    ClientId, Closing, DisconnectCause, Event, LinkId, PacketId, ReasonCode, Timestamp,
    session::{SessionKey, Tenant},
    store::{
        Fault, JournalError, Key, Sequence, Value, Write,
        format::{Name, Token},
    },
};

use super::{Shard, ShardMessage, commit::Held};

/// Time before a store that did not take a commit is tried again.
const RETRY_MS: u64 = 1000;

impl Shard {
    /// What a failed commit was to change is changed by the next one, unless something later has changed it: sooner or
    /// later the entries say what memory says. Not what was refused to a client, and is undone in memory.
    pub(super) fn redo(&mut self, now: Timestamp, writes: Vec<Write>, error: &JournalError) {
        let mut bytes_max = usize::MAX;
        match error {
            // The others can do nothing for it.
            JournalError::Fault(Fault::TooLarge { bytes_max: limit, .. }) => bytes_max = *limit,
            _ => {
                let at = Timestamp::from_millis(now.as_millis().saturating_add(RETRY_MS));
                self.commits.retry_at = Some(at);
            }
        }
        let commits = &mut self.commits;
        let later = commits.under_way.iter().chain([&commits.open]);
        let later: HashSet<&Key> = later
            .flat_map(|commit| &commit.writes)
            .map(|write| &write.key)
            .collect();
        for Write { key, value } in writes {
            let is_small = match &value {
                Value::Put(bytes) => bytes.len() <= bytes_max,
                Value::PutRecord(_) => false,
                Value::Delete => true,
            };
            let stands = match Name::parse(&key) {
                Some(Name::Received(..) | Name::Retained(_)) | None => false,
                // Removed by the commit that publishes it, and not before.
                Some(Name::Delayed(..)) => matches!(value, Value::Put(_)),
                Some(_) => true,
            };
            if is_small && stands && !later.contains(&key) {
                commits.redo.insert(key, value);
            }
        }
    }

    /// An earlier session of this client has ended, but the store may still have it.
    pub(super) fn is_being_removed(&self, client_id: &ClientId) -> bool {
        if self.commits.redo.is_empty() && self.commits.removing.is_empty() {
            return false;
        }
        let token = Token::of(client_id.as_str());
        self.commits.removing.contains_key(&token)
            || self.commits.redo.contains_key(&Name::Session(token).key())
    }

    /// A commit that was to remove a session is over.
    pub(super) fn removed(&mut self, token: Token) {
        if let Some(count) = self.commits.removing.get_mut(&token) {
            *count -= 1;
            if *count == 0 {
                self.commits.removing.remove(&token);
            }
        }
    }

    /// The commit that was to be waited for has failed: nothing that it promised is said.
    pub(super) fn fail(&mut self, now: Timestamp, held: Held, error: &JournalError) {
        match held {
            Held::Event {
                link,
                connection,
                event,
            } => {
                if let Some(key) = self.connected(link, connection) {
                    self.fail_event(now, link, key, event, error);
                }
            }
            // The client asks again, and it will be written by then.
            Held::Asleep(_) => {}
            Held::Received(client_id, packet_id) => {
                if let Some(awaiting) = self.awaiting_rel(&client_id) {
                    awaiting.retain(|awaited| *awaited != packet_id);
                }
            }
            // The store still knows it, and so must the session: its client releases it again.
            Held::Released(client_id, packet_id) => {
                if let Some(awaiting) = self.awaiting_rel(&client_id)
                    && !awaiting.contains(&packet_id)
                {
                    awaiting.push(packet_id);
                }
            }
            Held::Subscribed {
                client_id,
                route,
                group,
                ..
            } => {
                // It stands in memory, and is written again with the next SUBSCRIBE: its client gets no SUBACK.
                let tail = self.tail.next;
                self.subscription_settled(&client_id, route, group.as_deref(), tail);
                if let Some(&key) = self.by_client.get(&client_id) {
                    let closing =
                        Closing::because(failure_reason(error), "the store does not take the subscription");
                    self.close_session(now, key, closing);
                }
            }
            Held::Flushed {
                client_id,
                finished,
                complete,
            } => self.fail_flush(now, &client_id, finished, complete),
            Held::Owned(number) => {
                self.group_stored();
                self.fail_group(number);
            }
            Held::GroupFlushed(number, settled) => {
                if let Some(group) = self.owned.groups.get_mut(&number) {
                    group.unmark(settled);
                }
                self.fail_group(number);
            }
            Held::Retained(message) => self.retain_failed(&message),
            // Its entries are removed by the next commit.
            Held::Removed(token) => self.removed(token),
            // Its member's own entry has failed too, or says what the group's would.
            Held::Passed(shard, operation) => self.outbound.push(shard, ShardMessage::Passed(operation)),
            // The lease stands, and is ended with the delivery or the session.
            Held::Taken(..) => {}
            // The entry stays as it is until the next message of the topic, or the next start.
            Held::Corrected(topic) => self.corrected(&topic, Sequence::FIRST),
            Held::Kept(at, number) => self.keep_no_longer(at, number),
            Held::Delayed(at, number, message) => self.delay_again(now, at, number, message),
        }
    }

    fn awaiting_rel(&mut self, client_id: &ClientId) -> Option<&mut Vec<PacketId>> {
        let key = *self.by_client.get(client_id)?;
        match &mut self.sessions[key.0 as usize] {
            Tenant::Online(session) => Some(&mut session.awaiting_rel),
            Tenant::Dormant(dormant) => dormant.rest.as_mut().map(|rest| &mut rest.awaiting_rel),
            Tenant::Ending(_) => None,
        }
    }

    /// All of it is written again with the next change.
    fn fail_flush(
        &mut self,
        now: Timestamp,
        client_id: &ClientId,
        finished: Vec<PacketId>,
        complete: Vec<Sequence>,
    ) {
        let Some(&key) = self.by_client.get(client_id) else {
            return;
        };
        match &mut self.sessions[key.0 as usize] {
            Tenant::Online(session) => {
                session.outgoing.give_back(finished, complete);
                if let Some(stored) = &mut session.stored {
                    stored.cursor = None;
                }
                self.mark_dirty(now, key);
            }
            Tenant::Dormant(dormant) => {
                if let Some(rest) = &mut dormant.rest {
                    rest.outgoing.give_back(finished, complete);
                }
            }
            Tenant::Ending(_) => {}
        }
    }

    /// Clients are told that their message was not taken; those of MQTT 3.x, who cannot be, lose their connection and try
    /// again.
    fn fail_event(
        &mut self,
        now: Timestamp,
        link: LinkId,
        key: SessionKey,
        event: Event,
        error: &JournalError,
    ) {
        let session = self.session_mut(key);
        session.held = session.held.saturating_sub(1);
        session.outgoing.forget_stored();
        let reason = failure_reason(error);
        match event {
            Event::PubAck(packet_id, _) if !session.speaks_mqtt_3() => {
                self.emit(link, Event::PubAck(packet_id, reason));
            }
            Event::PubRec(packet_id, _) if !session.speaks_mqtt_3() => {
                self.emit(link, Event::PubRec(packet_id, reason));
            }
            // It stands in memory and will be written; that it is safe is not said.
            Event::Noted(number, _) => self.emit(link, Event::Noted(number, reason)),
            Event::WillSet(_) => self.emit(link, Event::WillSet(reason)),
            Event::Connected(connected) => {
                if !connected.session_present {
                    // Nobody was told that there is a session.
                    session.expiry_interval = 0;
                }
                let closing = Closing::because(
                    ReasonCode::ServerUnavailable,
                    "the session cannot be stored at present",
                );
                // Its connection was none, and the Will that it brought is none.
                if connected.will.is_none() {
                    session.will = None;
                }
                self.end_connection(now, key, DisconnectCause::ByServer(closing.reason), None, &[]);
                self.emit(link, Event::Refused(Box::new(closing)));
            }
            _ => self.close_session(now, key, Closing::because(reason, "the store does not take it")),
        }
    }
}

/// What a client is told whose request the store did not take.
fn failure_reason(error: &JournalError) -> ReasonCode {
    match error {
        JournalError::Fault(Fault::Full | Fault::TooLarge { .. }) => ReasonCode::QuotaExceeded,
        _ => ReasonCode::ImplementationSpecificError,
    }
}
