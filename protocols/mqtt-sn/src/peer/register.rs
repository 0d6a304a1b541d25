//! REGISTER of the client (§6.5), and the notes that keep topic ids.

use broker_core::{ReasonCode, Request};

use super::{
    Io,
    outgoing::Outgoing,
    publish::ASKED_MAX,
    state::{Asked, Connection},
};
use crate::{
    codec::{Message, MsgId, ReturnCode, TopicId},
    topics::{FIRST, FIRST_PAGE, Registered},
};
use broker_core::PacketId;

impl Connection {
    pub(super) fn handle_register(&mut self, id: MsgId, topic_name: &str, io: &mut Io<'_, '_>) {
        if let Some(topic_id) = self.predefined_id(topic_name, io) {
            return reg_ack(topic_id, id, ReturnCode::Accepted, io);
        }
        let is_it = |asked: &Asked| matches!(asked, Asked::Register { msg_id, .. } if *msg_id == id);
        if self.asked.iter().any(is_it) {
            return io.settings.counters.received_duplicate.inc();
        }
        let registered = match self.find_or_add(topic_name, io) {
            Some(registered) if registered.is_noted || self.asked.len() < ASKED_MAX => registered,
            _ => {
                io.settings.counters.received_congestion.inc();
                return reg_ack(TopicId::NONE, id, ReturnCode::Congestion, io);
            }
        };
        if registered.is_noted {
            self.confirm(registered.id);
            reg_ack(registered.id, id, ReturnCode::Accepted, io);
        } else {
            self.asked.push(Asked::Register {
                msg_id: id,
                topic_id: registered.id,
            });
        }
    }

    /// The predefined id of a name, unless it is among those that are registered.
    pub(super) fn predefined_id(&self, topic_name: &str, io: &Io<'_, '_>) -> Option<TopicId> {
        let id = io
            .settings
            .predefined
            .id(self.client.client_id.as_str(), topic_name)?;
        (id.0 < FIRST).then_some(id)
    }

    /// The id of a name; `None` if there are no more, or none for now.
    pub(super) fn find_or_add(&mut self, topic_name: &str, io: &mut Io<'_, '_>) -> Option<Registered> {
        let topics = self.topics.get_or_insert_default();
        if let Some(registered) = topics.find(topic_name) {
            return Some(registered);
        }
        topics.end_rest(io.now);
        if topics.rests_until().is_some() {
            return None;
        }
        let id = topics.add(topic_name, io.settings.max_topic_ids)?;
        if let Some((number, page)) = topics.next_note() {
            io.request(Request::Note(number, Some(page)));
        }
        Some(Registered {
            id,
            is_noted: false,
            is_confirmed: false,
        })
    }

    /// The client knows this id.
    pub(super) fn confirm(&mut self, id: TopicId) {
        if let Some(topics) = &mut self.topics {
            topics.confirm(id, true);
        }
    }

    /// Ids that wait for this note are good, or are gone.
    pub(super) fn noted(&mut self, number: u16, reason: ReasonCode, io: &mut Io<'_, '_>) {
        let Some(topics) = self.topics.as_mut().filter(|_| number >= FIRST_PAGE) else {
            return;
        };
        let is_ok = !reason.is_error();
        topics.noted(number, is_ok, io.now.after(io.settings.retry_interval));
        let next = if is_ok { topics.next_note() } else { None };
        if let Some((number, page)) = next {
            io.request(Request::Note(number, Some(page)));
        }
        let waiting = |asked: &Asked| match asked {
            Asked::Register { topic_id, .. } => !is_ok || topics.name(*topic_id).is_some(),
            _ => false,
        };
        let at: Vec<usize> = (0..self.asked.len())
            .filter(|&at| waiting(&self.asked[at]))
            .collect();
        for at in at.into_iter().rev() {
            let Asked::Register { msg_id, topic_id } = self.asked.remove(at) else {
                continue;
            };
            if is_ok {
                self.confirm(topic_id);
                reg_ack(topic_id, msg_id, ReturnCode::Accepted, io);
            } else {
                reg_ack(TopicId::NONE, msg_id, ReturnCode::Congestion, io);
            }
        }
        self.answer_subscriptions(is_ok, io);
        let waits = |outgoing: &Outgoing| !outgoing.waiting.is_empty();
        if !is_ok && self.outgoing.as_deref().is_some_and(waits) {
            // A client that is awake does not wait until the broker can store again.
            self.is_full();
        }
    }

    /// The next number for a REGISTER.
    pub(super) fn next_msg_id(&mut self) -> MsgId {
        let number: PacketId = self.next_number();
        MsgId(number.get())
    }
}

fn reg_ack(topic_id: TopicId, msg_id: MsgId, return_code: ReturnCode, io: &mut Io<'_, '_>) {
    io.put(&Message::RegAck {
        topic_id,
        msg_id,
        return_code,
    });
}
