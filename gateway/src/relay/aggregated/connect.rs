//! Clients that come, sleep, wake and go.

use broker_core::{Connect, MessageParts};

use super::*;
use crate::relay::client::{client_info, connected};

impl Aggregated {
    pub(super) fn connect(&mut self, now: Timestamp, link: LinkId, mut connect: Connect, out: &mut Output) {
        let refuse = |reason, out: &mut Output| {
            out.events
                .push((link, Event::Refused(Box::new(Closing::new(reason)))));
        };
        let known = self.by_id.get(connect.client_id.as_str()).copied();
        if let Some(guard) = connect.wake.take() {
            if !known.is_some_and(|key| self.wake(key, link, &connect, &guard, out)) {
                refuse(ReasonCode::BadUserNameOrPassword, out);
            }
            return;
        }
        if !self.is_open() {
            return refuse(ReasonCode::ServerUnavailable, out);
        }
        let kept = known.filter(|&key| self.come_back(now, key, &connect, out));
        let Some(key) = kept.or_else(|| self.begin(now, &connect, out)) else {
            return refuse(ReasonCode::QuotaExceeded, out);
        };
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let mut will = None;
        match connect.will.clone() {
            None if connect.keeps_will => will.clone_from(&session.will),
            new => session.will = new.map(Box::new),
        }
        session.is_clean = connect.session_expiry_interval == 0;
        session.expiry_secs = connect.session_expiry_interval;
        session.presence = Presence::Here {
            link,
            is_awake: false,
        };
        session.client = client_info(session.client.client_id.as_str(), &connect);
        self.by_link.insert(link, key);
        let session_present = kept.is_some();
        let event = connected(&session.client, &connect, session_present, &session.notes, will);
        out.events.push((link, event));
        out.notices.push(Notice::Connected {
            client_id: session.client.client_id.to_string(),
            session_present,
        });
        let hand_out = |event| out.events.push((link, event));
        session.deliveries.attach(connect.receive_maximum, hand_out);
        session.after_delivery(out);
    }

    /// A client whose session is here. False, if it does not want it.
    fn come_back(&mut self, now: Timestamp, key: SessionKey, connect: &Connect, out: &mut Output) -> bool {
        if let Some(link) = self.sessions.get(&key).and_then(Session::link) {
            let closing = Closing::new(ReasonCode::SessionTakenOver);
            let cause = DisconnectCause::ByServer(closing.reason);
            out.events.push((link, Event::Close(Box::new(closing))));
            self.disconnect(now, key, cause, out);
        }
        if connect.clean_start {
            self.end(now, key, out);
        }
        self.sessions.contains_key(&key)
    }

    /// A new session. `None`, if there are too many.
    fn begin(&mut self, now: Timestamp, connect: &Connect, out: &mut Output) -> Option<SessionKey> {
        if self.sessions.len() >= self.terms.sessions_max {
            let ends = |(&key, session): (&SessionKey, &Session)| match session.presence {
                Presence::Away(until) => Some((until, key)),
                Presence::Here { .. } | Presence::Asleep(_) => None,
            };
            let (_, first) = self.sessions.iter().filter_map(ends).min()?;
            self.end(now, first, out);
        }
        let client_id: Arc<str> = match connect.client_id.as_str() {
            "" => format!("sn-{:016x}", self.random.next()).into(),
            id => id.into(),
        };
        self.last_session += 1;
        let key = self.last_session;
        self.by_id.insert(Arc::clone(&client_id), key);
        let session = Session {
            client: client_info(&client_id, connect),
            presence: Presence::Away(Timestamp::NEVER),
            is_clean: true,
            expiry_secs: 0,
            notes: Notes::default(),
            will: None,
            deliveries: Deliveries::new(self.terms.queue),
            last_id: PacketId::FIRST,
            subscriptions: BTreeSet::new(),
            publishing: BTreeMap::new(),
            was_full: false,
            armed: Timestamp::NEVER,
        };
        self.sessions.insert(key, session);
        Some(key)
    }

    /// A PINGREQ of a client that sleeps (§6.14). False, if it may not wake this session.
    fn wake(
        &mut self,
        key: SessionKey,
        link: LinkId,
        connect: &Connect,
        guard: &[u8],
        out: &mut Output,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else {
            return false;
        };
        let is_asleep = matches!(session.presence, Presence::Asleep(_));
        if !is_asleep || session.notes.guard().is_none_or(|note| *note != guard) {
            return false;
        }
        session.presence = Presence::Here { link, is_awake: true };
        self.by_link.insert(link, key);
        let will = session.will.clone();
        let event = connected(&session.client, connect, true, &session.notes, will);
        out.events.push((link, event));
        let hand_out = |event| out.events.push((link, event));
        session.deliveries.attach(connect.receive_maximum, hand_out);
        session.after_delivery(out);
        true
    }

    pub(super) fn disconnect(
        &mut self,
        now: Timestamp,
        key: SessionKey,
        cause: DisconnectCause,
        out: &mut Output,
    ) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        session.deliveries.detach();
        let link = session.link();
        if let Some(link) = link {
            self.by_link.remove(&link);
        }
        if let DisconnectCause::Asleep(seconds) = cause {
            session.presence = Presence::Asleep(now.after_secs(u64::from(seconds)));
            out.events.extend(link.map(|link| (link, Event::Asleep)));
            return self.arm(key);
        }
        out.notices.push(Notice::Disconnected {
            client_id: session.client.client_id.to_string(),
            reason: match session.presence {
                Presence::Asleep(_) => "it did not wake in time".to_owned(),
                Presence::Here { .. } | Presence::Away(_) => cause.text().to_owned(),
            },
        });
        session.presence = Presence::Away(match session.expiry_secs {
            u32::MAX => Timestamp::NEVER,
            seconds => now.after_secs(u64::from(seconds)),
        });
        let is_clean = session.is_clean;
        let will = session.will.clone().filter(|_| cause != DisconnectCause::Normal);
        let origin = Arc::clone(&session.client);
        if let Some(will) = will {
            let parts = MessageParts {
                qos: will.qos,
                retain: will.retain,
                ..MessageParts::new(&will.topic, &will.payload)
            };
            if let Some(message) = parts.publish(now, &origin) {
                self.publish_own(now, message, out);
            }
        }
        match is_clean {
            true => self.end(now, key, out),
            false => self.arm(key),
        }
    }

    /// Forgets a session.
    pub(super) fn end(&mut self, now: Timestamp, key: SessionKey, out: &mut Output) {
        let Some(session) = self.sessions.remove(&key) else {
            return;
        };
        if let Some(link) = session.link() {
            self.by_link.remove(&link);
        }
        self.by_id.remove(session.client.client_id.as_str());
        for id in session.publishing.into_values() {
            self.disown(now, id, out);
        }
        for filter in session.subscriptions {
            if self.drop_subscriber(&filter, key) {
                self.end_filter(now, filter, None, out);
            }
        }
    }
}
