//! What a protocol keeps with a session besides: notes, and a Will that changes while its client is connected.

use bytes::Bytes;

use crate::{Event, LinkId, ReasonCode, Will, session::SessionKey, store::format::Name};

use super::{Shard, connect::will_refusal};

impl Shard {
    pub(super) fn note(&mut self, link: LinkId, key: SessionKey, number: u16, value: Option<Bytes>) {
        // It may be a part of something larger.
        let value = value.map(|value| Bytes::copy_from_slice(&value));
        let session = self.session_mut(key);
        let sleeper = session.sleeper.get_or_insert_default();
        let is_noted = sleeper.note(number, value.clone());
        if sleeper.is_empty() {
            session.sleeper = None;
        }
        if !is_noted {
            self.metrics.quota_exceeded.inc();
            return self.acknowledge(link, Event::Noted(number, ReasonCode::QuotaExceeded));
        }
        let event = Event::Noted(number, ReasonCode::Success);
        let Some(token) = self.token(key) else {
            return self.acknowledge(link, event);
        };
        let name = Name::Note(token, number);
        match value {
            Some(value) => self.put(name, value),
            None => self.delete(name),
        }
        self.pause_if_full(link);
        self.hold_event(link, event);
    }

    pub(super) fn set_will(&mut self, link: LinkId, key: SessionKey, will: Option<Box<Will>>) {
        let limits = &self.common.config.mqtt;
        if let Some(closing) = will.as_ref().and_then(|will| will_refusal(will, limits)) {
            return self.acknowledge(link, Event::WillSet(closing.reason));
        }
        self.session_mut(key).will = will;
        let event = Event::WillSet(ReasonCode::Success);
        if self.token(key).is_none() {
            return self.acknowledge(link, event);
        }
        self.store_session(key);
        self.pause_if_full(link);
        self.hold_event(link, event);
    }
}
