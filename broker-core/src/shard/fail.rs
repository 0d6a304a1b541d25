//! A commit that has failed: nothing that it promised is said, and what memory has beyond the store is written again.

use crate::{
    ClientId, Closing, DisconnectCause, Event, LinkId, PacketId, ReasonCode, Timestamp,
    session::Tenant,
    store::{Fault, JournalError, Sequence},
};

use super::{Link, Shard, ShardMessage, commit::Held};

impl Shard {
    /// The commit that was to be waited for has failed: nothing that it promised is said.
    pub(super) fn fail(&mut self, now: Timestamp, held: Held, error: &JournalError) {
        match held {
            Held::Event(link, event) => self.fail_event(now, link, event, error),
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
            Held::GroupFlushed(number) => self.fail_group(number),
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
        }
    }

    /// MQTT 5 clients are told that their message was not taken; others lose their connection and try again.
    fn fail_event(&mut self, now: Timestamp, link: LinkId, event: Event, error: &JournalError) {
        let Some(&Link::Online(key)) = self.links.get(&link) else {
            return;
        };
        let session = self.session_mut(key);
        session.held = session.held.saturating_sub(1);
        session.outgoing.forget_stored();
        let reason = failure_reason(error);
        match event {
            Event::PubAck(packet_id, _) if session.is_v5() => {
                self.emit(link, Event::PubAck(packet_id, reason));
            }
            Event::PubRec(packet_id, _) if session.is_v5() => {
                self.emit(link, Event::PubRec(packet_id, reason));
            }
            Event::Connected(_) => {
                let closing = Closing::because(
                    ReasonCode::ServerUnavailable,
                    "the session cannot be stored at present",
                );
                // Its connection was none.
                session.will = None;
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
