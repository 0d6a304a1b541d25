//! What arrives at clients, and what they acknowledge (§4.3, §4.4, §4.6, §4.9).

use std::{collections::BTreeMap, rc::Rc};

use broker_core::{Delivery, LinkId, PacketId, QoS, ReasonCode, topic};

use super::{Answer, Copy, Inflight, Judgement, Note, Origin, Reference, Session, TIMER_SLACK_MS, number_of};

impl Reference {
    /// A PUBLISH to a client.
    pub(super) fn delivered(&mut self, link: LinkId, delivery: &Delivery) -> Judgement {
        let Some(at) = self.find_link(link) else {
            return Err(format!("a delivery to {link:?}, which is gone"));
        };
        let number = number_of(&delivery.message).unwrap_or_default();
        let client = self.sessions[at].client.clone();
        let context = |what: &str| format!("{client} on {link:?}: {what}: number {number}, {delivery:?}");
        if delivery.dup {
            let result = self.sessions[at].repeat(delivery, number);
            return result.map_err(|what| format!("{link:?}: {what}: number {number}, {delivery:?}"));
        }
        self.sessions[at]
            .may_get(delivery)
            .map_err(|what| context(&what))?;
        let mut ids = delivery.subscription_ids.to_vec();
        ids.sort_unstable();
        let replayed = self.sessions[at].replayed_copy(&self.retained, delivery, &ids);
        if let Some(copy) = replayed {
            // It is one of these, or comes once more as a retained one.
            for copy in &mut self.sessions[at].waiting {
                copy.optional |= copy.note.number == number;
            }
            self.sessions[at].take_on(copy, delivery.qos, delivery.packet_id.map(PacketId::get));
            return Ok(());
        }
        let fits = |copy: &Copy| {
            copy.note.number == number
                && (copy.is_loose || copy.qos == delivery.qos)
                && (copy.is_loose || copy.retain == delivery.retain)
                && (copy.is_loose || copy.ids == ids)
                && copy.note.topic == delivery.message.topic()
                && copy.note.payload == delivery.message.payload()
                && copy.note.publisher == delivery.message.origin().client_id.as_str()
        };
        let waiting = &self.sessions[at].waiting;
        let demanded = waiting.iter().position(|copy| fits(copy) && !copy.optional);
        let copy = if let Some(place) = demanded.or_else(|| waiting.iter().position(fits)) {
            if let Some(earlier) = self.sessions[at].overtaken(place, self.now) {
                return Err(context(&format!("it overtakes {earlier:?}")));
            }
            self.sessions[at].waiting.remove(place)
        } else {
            let holds = |(holder, copy): &(String, Copy)| *holder == client && fits(copy);
            let place = self.debts.iter().position(|debt| debt.holders.iter().any(holds));
            let copy = match place {
                Some(place) => {
                    let debt = self.debts.remove(place);
                    let holder = debt.holders.into_iter().find(|holder| holds(holder));
                    holder.map(|(_, copy)| copy)
                }
                None => self.late_copy(delivery, &ids).or(replayed).filter(fits),
            };
            let Some(copy) = copy else {
                let is_it = |copy: &&Copy| copy.note.number == number;
                let known: Vec<_> = self.sessions[at].waiting.iter().filter(is_it).collect();
                return Err(context(&format!("nobody sent it like this, expected {known:?}")));
            };
            copy
        };
        // [MQTT-3.3.2-5], except for what is delivered as soon as it comes.
        if copy.queued && copy.note.expires.saturating_add(2 * TIMER_SLACK_MS) <= self.now {
            return Err(context("it has expired"));
        }
        self.sessions[at].take_on(copy, delivery.qos, delivery.packet_id.map(PacketId::get));
        Ok(())
    }

    /// A delayed message that comes once more, as a retained one, for a subscription that may have changed since.
    fn late_copy(&self, delivery: &Delivery, ids: &[u32]) -> Option<Copy> {
        let note = self.late.get(&number_of(&delivery.message)?)?;
        Some(Copy {
            note: Rc::clone(note),
            qos: delivery.qos,
            retain: true,
            ids: ids.to_vec(),
            origin: Origin::Retained(String::new()),
            optional: true,
            queued: false,
            is_loose: false,
        })
    }

    /// PUBREL without a PUBREC before it: only as a repetition after a reconnect.
    pub(super) fn released_again(&mut self, link: LinkId, id: u16) -> Judgement {
        let session = self.find_link(link).map(|at| &mut self.sessions[at]);
        let entry = session.and_then(|session| {
            let is_stored = session.is_stored;
            let is_next = |entry: &&mut Inflight| !entry.sent && (!is_stored || entry.released);
            session.inflight.iter_mut().find(is_next)
        });
        match entry {
            Some(entry) if entry.id == id && entry.released => {
                entry.sent = true;
                Ok(())
            }
            other => Err(format!(
                "{link:?}: PUBREL {id} unasked, next to repeat: {other:?}"
            )),
        }
    }

    pub(super) fn puback(&mut self, at: usize, id: u16) {
        let inflight = &mut self.sessions[at].inflight;
        inflight.retain(|entry| !(entry.id == id && entry.copy.qos == QoS::AtLeastOnce));
    }

    pub(super) fn pubrec(&mut self, link: LinkId, at: usize, id: PacketId, reason: ReasonCode) {
        let inflight = &mut self.sessions[at].inflight;
        let place = inflight
            .iter()
            .position(|entry| entry.id == id.get() && entry.copy.qos == QoS::ExactlyOnce);
        let answer = match place {
            Some(place) if reason.is_error() && !inflight[place].released => {
                inflight.remove(place);
                None
            }
            Some(place) => {
                inflight[place].released = true;
                Some(ReasonCode::Success)
            }
            None if reason.is_error() => None,
            None => Some(ReasonCode::PacketIdentifierNotFound),
        };
        if let Some(code) = answer {
            self.expect(link, Answer::PubRel(id, code));
        }
    }

    pub(super) fn pubcomp(&mut self, at: usize, id: u16) {
        let inflight = &mut self.sessions[at].inflight;
        inflight.retain(|entry| !(entry.id == id && entry.released));
    }

    pub(super) fn pubrel(&mut self, link: LinkId, at: usize, id: PacketId) {
        let awaiting = &mut self.sessions[at].awaiting_rel;
        let code = match awaiting.iter().position(|&awaited| awaited == id.get()) {
            Some(place) => {
                awaiting.remove(place);
                ReasonCode::Success
            }
            None => ReasonCode::PacketIdentifierNotFound,
        };
        self.expect(link, Answer::PubComp(id, code));
    }

    pub(super) fn undeliverable(&mut self, at: usize, id: Option<u16>) {
        self.sessions[at].inflight.retain(|entry| Some(entry.id) != id);
    }

    /// Nothing is under way any more: has everything come that had to?
    ///
    /// # Errors
    /// If not.
    pub fn quiet(&mut self) -> Judgement {
        self.published = 0;
        if !self.expected.is_empty() {
            return Err(format!("these answers did not come: {:?}", self.expected));
        }
        let now = self.now;
        for session in &mut self.sessions {
            session.quiet(now)?;
        }
        for mut debt in std::mem::take(&mut self.debts) {
            let is_expired = debt.holders.iter().any(|(_, copy)| copy.may_be_gone(now));
            let before = debt.holders.clone();
            debt.holders.retain_mut(|(holder, copy)| {
                copy.queued = true;
                let session = self.sessions.iter().find(|session| session.client == *holder);
                session.is_some_and(|session| session.is_blocked(copy.qos))
            });
            if !debt.holders.is_empty() {
                self.debts.push(debt);
            } else if !debt.optional && !is_expired {
                return Err(format!("{:?}: none of {before:?} got it", debt.target));
            }
        }
        Ok(())
    }
}

impl Copy {
    fn may_be_gone(&self, now: u64) -> bool {
        self.optional || self.note.expires <= now.saturating_add(2 * TIMER_SLACK_MS)
    }
}

impl Session {
    /// A repetition: what was first sent first comes first, under its old identifier [MQTT-4.4.0-1], [MQTT-4.6.0-1].
    fn repeat(&mut self, delivery: &Delivery, number: u64) -> Judgement {
        let (sent, window) = (self.sent(), usize::from(self.window));
        let id = delivery.packet_id.map(PacketId::get);
        let is_next = |entry: &Inflight| !entry.sent;
        let place = if self.is_stored {
            // QoS 1 and 2 may have overtaken each other, and what was retained everything.
            let is_live =
                |entry: &Inflight| entry.copy.origin == Origin::Live && entry.copy.qos == delivery.qos;
            let is_first = |entry: &Inflight| is_next(entry) && !entry.released && is_live(entry);
            let place = self
                .inflight
                .iter()
                .position(|entry| is_next(entry) && Some(entry.id) == id);
            match self.inflight.iter().position(is_first) {
                Some(first) if place.is_some_and(|place| is_live(&self.inflight[place])) => Some(first),
                _ => place,
            }
        } else {
            self.inflight.iter().position(is_next)
        };
        let Some(entry) = place.map(|place| &mut self.inflight[place]) else {
            return Err("a repetition of nothing".to_owned());
        };
        let is_it = delivery.packet_id.map(PacketId::get) == Some(entry.id)
            && !entry.released
            && entry.copy.note.number == number
            && entry.copy.qos == delivery.qos;
        if !is_it {
            return Err(format!("not what is to be repeated first: {entry:?}"));
        }
        if sent >= window {
            return Err("a repetition, but the window is closed".to_owned());
        }
        entry.sent = true;
        Ok(())
    }

    /// The client has changed its subscription on `filter`: what waits in the journal is read as its subscriptions are
    /// by then, and not at all if none is left for it.
    pub(super) fn loosen(&mut self, filter: &str, is_ended: bool) {
        let is_stored = self.is_stored;
        let is_meant = |copy: &&mut Copy| {
            copy.queued && copy.origin == Origin::Live && topic::matches(filter, &copy.note.topic)
        };
        for copy in self.waiting.iter_mut().filter(is_meant).filter(|_| is_stored) {
            copy.is_loose = true;
            copy.optional |= is_ended;
        }
    }

    /// A message that is retained, for a subscription whose retained messages begin anew.
    fn replayed_copy(
        &self,
        retained: &BTreeMap<String, Rc<Note>>,
        delivery: &Delivery,
        ids: &[u32],
    ) -> Option<Copy> {
        let note = retained.get(delivery.message.topic())?;
        let is_begun = |(filter, is_anew): &(String, bool)| *is_anew && topic::matches(filter, &note.topic);
        let is_it = delivery.retain && number_of(&delivery.message) == Some(note.number);
        (is_it && self.replays.iter().any(is_begun)).then(|| Copy {
            note: Rc::clone(note),
            qos: delivery.qos,
            retain: true,
            ids: ids.to_vec(),
            origin: Origin::Retained(String::new()),
            optional: true,
            queued: false,
            is_loose: false,
        })
    }

    /// A new message may come now, under this packet identifier.
    fn may_get(&self, delivery: &Delivery) -> Judgement {
        if delivery.qos == QoS::AtMostOnce {
            return Ok(());
        }
        // Of a stored session what waits for the store may come later than others.
        let is_free = |id: u16| self.inflight.iter().all(|entry| entry.id != id);
        let is_right = match delivery.packet_id.map(PacketId::get) {
            Some(id) if self.is_stored => is_free(id),
            id => id == Some(self.free_id()),
        };
        if !is_right {
            return Err(format!("the next packet identifier is {}", self.free_id()));
        }
        if self.has_unsent() {
            return Err("it overtakes what has to be repeated".to_owned());
        }
        if self.sent() >= usize::from(self.window) {
            return Err("the window is closed".to_owned());
        }
        Ok(())
    }

    /// Counted up, and never one that is in use [MQTT-2.2.1-3].
    fn free_id(&self) -> u16 {
        let mut id = self.next_id;
        while self.inflight.iter().any(|entry| entry.id == id) {
            id = id.checked_add(1).unwrap_or(1);
        }
        id
    }

    /// `qos`: as it came.
    fn take_on(&mut self, mut copy: Copy, qos: QoS, id: Option<u16>) {
        copy.qos = qos;
        if let Some(id) = id {
            self.next_id = id.checked_add(1).unwrap_or(1);
            self.inflight.push(Inflight {
                id,
                copy,
                released: false,
                sent: true,
            });
        }
    }

    /// What should have come before the copy at `place`: of the same publisher, topic and QoS [MQTT-4.6.0-5, 4.6.0-6].
    fn overtaken(&self, place: usize, now: u64) -> Option<&Copy> {
        let copy = &self.waiting[place];
        let is_live = |one: &Copy| one.origin == Origin::Live;
        self.waiting[..place].iter().find(|one| {
            is_live(copy)
                && is_live(one)
                && !one.may_be_gone(now)
                && !one.is_loose
                && one.qos == copy.qos
                && one.note.topic == copy.note.topic
                && one.note.publisher == copy.note.publisher
        })
    }

    /// A message of this QoS may have to wait.
    fn is_blocked(&self, qos: QoS) -> bool {
        !self.is_reachable() || (qos > QoS::AtMostOnce && !self.has_window())
    }

    fn quiet(&mut self, now: u64) -> Judgement {
        if self.is_reachable() && self.has_unsent() && self.sent() < usize::from(self.window) {
            return Err(format!(
                "{}: repetitions did not come: {:?}",
                self.client, self.inflight
            ));
        }
        let (is_reachable, has_window) = (self.is_reachable(), self.has_window());
        for copy in &mut self.waiting {
            copy.queued = true;
            let is_free = match (&copy.origin, copy.qos) {
                (Origin::Live, QoS::AtMostOnce) => is_reachable,
                _ => is_reachable && has_window,
            };
            if is_free && !copy.may_be_gone(now) {
                return Err(format!("{} did not get {copy:?}", self.client));
            }
        }
        if is_reachable && has_window {
            self.replays.clear();
            self.waiting.clear();
        }
        Ok(())
    }
}
