//! Messages: who is to get them (§3.3, §4.7, §4.8).

use std::{collections::BTreeSet, rc::Rc};

use broker_core::{LinkId, Publish, QoS, ReasonCode, Timestamp, topic};

use super::{Answer, Copy, Debt, Kind, NEVER, Note, Origin, Reference, Session, Target, number_of};

impl Reference {
    pub(super) fn publish(&mut self, link: LinkId, at: usize, publish: &Publish) {
        let limits = &self.config.mqtt;
        let session = &mut self.sessions[at];
        let (client, is_v5) = (session.client.clone(), session.is_v5);
        let message = &publish.message;
        let id = publish.packet_id;
        if let (QoS::ExactlyOnce, Some(id)) = (message.qos(), id) {
            if session.awaiting_rel.contains(&id.get()) {
                let is_reused = is_v5 && !publish.dup;
                let reason = if is_reused {
                    session.awaiting_rel.retain(|awaited| *awaited != id.get());
                    ReasonCode::PacketIdentifierInUse
                } else {
                    ReasonCode::Success
                };
                return self.expect(link, Answer::PubRec(id, reason));
            }
            if session.awaiting_rel.len() >= usize::from(limits.effective_receive_maximum()) {
                return self.close(&client, ReasonCode::ReceiveMaximumExceeded);
            }
        }
        if message.qos() > limits.max_qos_allowed {
            return self.close(&client, ReasonCode::QoSNotSupported);
        }
        if message.retain() && !limits.retain_available {
            return self.close(&client, ReasonCode::RetainNotSupported);
        }
        let note = Rc::new(Note {
            number: number_of(message).unwrap_or_default(),
            publisher: client.clone(),
            topic: message.topic().to_owned(),
            payload: message.payload().to_vec(),
            qos: message.qos(),
            retain: message.retain(),
            expires: match message.expires() {
                Timestamp::NEVER => NEVER,
                at => at.as_millis(),
            },
        });
        let codes = self.dispatch(note);
        match (message.qos(), id) {
            (QoS::AtLeastOnce, Some(id)) => {
                let answers = codes.iter().map(|&code| Answer::PubAck(id, code)).collect();
                self.expected.push((link, answers));
            }
            (QoS::ExactlyOnce, Some(id)) => {
                // A 3.x client cannot see an error: its exchange goes on.
                if let Some(at) = self
                    .find(&client)
                    .filter(|_| !is_v5 || codes.iter().all(|code| !code.is_error()))
                {
                    self.sessions[at].awaiting_rel.push(id.get());
                }
                let answers = codes.iter().map(|&code| Answer::PubRec(id, code)).collect();
                self.expected.push((link, answers));
            }
            _ => {}
        }
    }

    fn close(&mut self, client: &str, reason: ReasonCode) {
        if let Some(link) = self.find(client).and_then(|at| self.sessions[at].link) {
            self.expect(link, Answer::Close(reason));
        }
        self.end_connection(client, false);
    }

    /// Publishes or delays. Returns the codes that the publisher may be told.
    pub(super) fn dispatch(&mut self, note: Rc<Note>) -> Vec<ReasonCode> {
        if let Some(rest) = note.topic.strip_prefix("$delayed/") {
            let parsed = rest
                .split_once('/')
                .and_then(|(seconds, topic)| Some((seconds.parse::<u32>().ok()?, topic)));
            let Some((seconds, topic)) = parsed.filter(|(_, topic)| topic::is_valid_name(topic)) else {
                return vec![ReasonCode::TopicNameInvalid];
            };
            self.arrivals += 1;
            let due = self.now + u64::from(seconds) * 1000;
            let later = Rc::new(Note {
                topic: topic.to_owned(),
                publisher: note.publisher.clone(),
                payload: note.payload.clone(),
                ..*note
            });
            self.delayed.push((due, self.arrivals, later));
            return vec![ReasonCode::Success];
        }
        self.published += 1;
        if note.retain {
            // [MQTT-3.3.1-5], [MQTT-3.3.1-6]
            if note.payload.is_empty() {
                self.retained.remove(&note.topic);
            } else {
                self.retained.insert(note.topic.clone(), Rc::clone(&note));
            }
            // Where the message before it waits still, it may be gone, even if No Local hides the new one.
            for copy in self.sessions.iter_mut().flat_map(|session| &mut session.waiting) {
                let is_retained = matches!(copy.origin, Origin::Retained(_));
                copy.optional |= is_retained && copy.note.topic == note.topic;
            }
        }
        self.route(&note)
    }

    fn route(&mut self, note: &Rc<Note>) -> Vec<ReasonCode> {
        let mut is_matched = false;
        // Somebody subscribes, but not here and now.
        let mut is_away = false;
        let mut is_own = false;
        let mut targets = BTreeSet::new();
        let mut passed_by = Vec::new();
        for at in 0..self.sessions.len() {
            let session = &self.sessions[at];
            let mut copy: Option<Copy> = None;
            for subscription in &session.subscriptions {
                if !topic::matches(&subscription.filter, &note.topic) {
                    continue;
                }
                if let Kind::Shared(group) = &subscription.kind {
                    targets.insert(Target {
                        group: group.clone(),
                        filter: subscription.filter.clone(),
                    });
                    continue;
                }
                // [MQTT-3.8.3-3]
                if subscription.options.no_local && session.client == note.publisher {
                    is_own = true;
                    passed_by.extend(session.is_stored.then(|| (at, subscription.clone())));
                    continue;
                }
                let one = self.copy(note, subscription, Origin::Live);
                if session.is_stored && one.qos == QoS::AtMostOnce {
                    passed_by.push((at, subscription.clone()));
                }
                match &mut copy {
                    None => copy = Some(one),
                    // Overlapping subscriptions: one copy at the highest QoS with all identifiers [MQTT-3.3.4-2..4].
                    Some(copy) => {
                        copy.qos = copy.qos.max(one.qos);
                        copy.retain |= one.retain;
                        copy.ids.extend(one.ids);
                        copy.ids.sort_unstable();
                    }
                }
            }
            if let Some(copy) = copy {
                is_away |= self.sessions[at].link.is_none() && copy.qos == QoS::AtMostOnce;
                is_matched |= self.sessions[at].link.is_some() || copy.qos > QoS::AtMostOnce;
                self.add_copy(at, copy);
            }
        }
        // If the journal has it, it comes to a session that reads it when its subscription is another.
        for (at, subscription) in passed_by {
            let mut copy = self.copy(note, &subscription, Origin::Live);
            (copy.optional, copy.queued, copy.is_loose) = (true, true, true);
            self.sessions[at].waiting.push(copy);
        }
        for target in targets {
            is_matched = true;
            let holders = self.candidates(&target, None, note);
            self.owe(target, holders);
        }
        match (is_matched, is_own || is_away) {
            (true, _) => vec![ReasonCode::Success],
            (false, true) => vec![ReasonCode::Success, ReasonCode::NoMatchingSubscribers],
            (false, false) => vec![ReasonCode::NoMatchingSubscribers],
        }
    }

    pub(super) fn copy(&self, note: &Rc<Note>, subscription: &super::Subscription, origin: Origin) -> Copy {
        let (published, subscribed) = (note.qos, subscription.options.qos);
        Copy {
            note: Rc::clone(note),
            qos: if self.config.mqtt.upgrade_qos {
                published.max(subscribed)
            } else {
                published.min(subscribed)
            },
            retain: match origin {
                Origin::Retained(_) => true,
                _ => note.retain && subscription.options.retain_as_published,
            },
            ids: subscription.id.into_iter().collect(),
            origin,
            optional: false,
            queued: false,
            is_loose: false,
        }
    }

    fn add_copy(&mut self, at: usize, mut copy: Copy) {
        let limit = self.config.mqtt.max_mqueue_len;
        let is_only = self.published == 1;
        let session = &mut self.sessions[at];
        session.strike(&copy.note);
        if session.link.is_none() && copy.qos == QoS::AtMostOnce {
            return;
        }
        copy.queued = !session.may_send(copy.qos);
        let is_queued = copy.queued;
        session.waiting.push(copy);
        if limit == 0 {
            return;
        }
        if session.is_stored {
            // What of it the limit cuts is decided when the session reads the journal.
            for copy in &mut session.waiting {
                copy.optional |= copy.queued;
            }
            return;
        }
        let queue = |copy: &&Copy| copy.queued && copy.origin == Origin::Live;
        let is_known = session.waiting.iter().filter(queue).all(|copy| !copy.optional);
        let is_over = session.waiting.iter().filter(queue).count() > limit;
        if !is_only || (is_over && !is_known) {
            // It is not determined what is in the queue, or in which order it came.
            for copy in &mut session.waiting {
                copy.optional = true;
            }
            return;
        }
        if !is_queued || !is_over {
            return;
        }
        let mut places = (0..session.waiting.len()).filter(|&place| queue(&&session.waiting[place]));
        let oldest = places.clone().next();
        let first_qos0 = places.find(|&place| session.waiting[place].qos == QoS::AtMostOnce);
        if let Some(place) = first_qos0.or(oldest) {
            session.waiting.remove(place);
        }
    }

    /// What every member of a group would get, connected ones only if there are any (§4.8.2).
    fn candidates(&self, target: &Target, except: Option<&str>, note: &Rc<Note>) -> Vec<(String, Copy)> {
        let members = self
            .sessions
            .iter()
            .filter(|session| Some(&*session.client) != except);
        let (online, offline): (Vec<_>, Vec<_>) = members
            .filter_map(|session| {
                let mut subscriptions = session.subscriptions.iter();
                let found = subscriptions.find(|one| {
                    one.filter == target.filter && one.kind == Kind::Shared(target.group.clone())
                })?;
                let copy = self.copy(note, found, Origin::Shared(target.clone()));
                Some((session.link.is_some(), (session.client.clone(), copy)))
            })
            .partition(|(is_online, _)| *is_online);
        let chosen = if online.is_empty() { offline } else { online };
        chosen.into_iter().map(|(_, holder)| holder).collect()
    }

    /// One of `holders` is to get what they all would.
    fn owe(&mut self, target: Target, holders: Vec<(String, Copy)>) {
        let mut optional = false;
        for (client, copy) in &holders {
            if let Some(at) = self.find(client) {
                optional |= self.sessions[at].link.is_none() && copy.qos == QoS::AtMostOnce;
            }
        }
        if !holders.is_empty() {
            self.debts.push(Debt {
                target,
                holders,
                optional,
            });
        }
    }

    pub(super) fn targets_of(&self, client: &str) -> Vec<Target> {
        let subscriptions = self.find(client).map(|at| &self.sessions[at].subscriptions);
        let shared = subscriptions
            .into_iter()
            .flatten()
            .filter_map(|one| match &one.kind {
                Kind::Shared(group) => Some(Target {
                    group: group.clone(),
                    filter: one.filter.clone(),
                }),
                _ => None,
            });
        shared.collect()
    }

    /// A member of a group loses its connection or its subscription: others get what it has not, and may get again
    /// what it has not acknowledged; QoS 2 under way stays [MQTT-4.8.2-4, 4.8.2-5].
    pub(super) fn leave_group(&mut self, client: &str, target: &Target, is_member: bool) {
        let Some(at) = self.find(client) else { return };
        let is_served = |session: &Session| {
            session.client != client
                && session.link.is_some()
                && session
                    .subscriptions
                    .iter()
                    .any(|one| one.filter == target.filter && one.kind == Kind::Shared(target.group.clone()))
        };
        if is_member && !self.sessions.iter().any(is_served) {
            for debt in self.debts.iter_mut().filter(|debt| debt.target == *target) {
                let mut holders = debt.holders.iter();
                debt.optional |= holders.any(|(name, copy)| name == client && copy.qos == QoS::AtMostOnce);
            }
            return;
        }
        let mut moved = Vec::new();
        self.sessions[at].inflight.retain(|entry| {
            // What is under way on a living connection still is the client's to acknowledge.
            let is_taken = !entry.sent
                && entry.copy.origin == Origin::Shared(target.clone())
                && entry.copy.qos == QoS::AtLeastOnce
                && !entry.released;
            if is_taken {
                moved.push(Rc::clone(&entry.copy.note));
            }
            !is_taken
        });
        for note in moved {
            let holders = self.candidates(target, Some(client), &note);
            self.owe(target.clone(), holders);
        }
        for mut debt in std::mem::take(&mut self.debts) {
            let place = debt.holders.iter().position(|(holder, _)| holder == client);
            if let Some(place) = place.filter(|_| debt.target == *target) {
                let (_, copy) = debt.holders.remove(place);
                for (other, copy) in self.candidates(target, Some(client), &copy.note) {
                    let offline = self
                        .find(&other)
                        .is_some_and(|at| self.sessions[at].link.is_none());
                    debt.optional |= offline && copy.qos == QoS::AtMostOnce;
                    if debt.holders.iter().all(|(holder, _)| *holder != other) {
                        debt.holders.push((other, copy));
                    }
                }
            }
            if !debt.holders.is_empty() {
                self.debts.push(debt);
            }
        }
    }
}

impl Session {
    /// A message of this QoS goes out at once.
    fn may_send(&self, qos: QoS) -> bool {
        let live = || self.waiting.iter().filter(|copy| copy.origin == Origin::Live);
        let is_behind = match qos {
            QoS::AtMostOnce => live().any(|copy| copy.queued && copy.qos == QoS::AtMostOnce),
            _ => {
                let leaving = live()
                    .filter(|copy| !copy.queued && copy.qos > QoS::AtMostOnce)
                    .count();
                self.has_unsent()
                    || live().any(|copy| copy.queued && copy.qos > QoS::AtMostOnce)
                    || self.sent() + leaving >= usize::from(self.window)
            }
        };
        self.is_reachable() && !is_behind
    }

    /// A live message that is retained makes what was retained of its topic obsolete: no old state comes after the
    /// new one.
    fn strike(&mut self, note: &Note) {
        let is_old =
            |copy: &Copy| matches!(copy.origin, Origin::Retained(_)) && copy.note.topic == note.topic;
        self.waiting.retain(|copy| !(note.retain && is_old(copy)));
    }
}
