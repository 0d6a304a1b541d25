//! Whether what a client gets is what it should get.

use broker_core::{Delivery, LinkId, QoS, ReasonCode, Request, topic};

use super::{
    Durable, Taker,
    ledger::{Fate, Kind, Note},
    steps::{GROUPS, RETAINED},
    subscriptions::{Change, bare},
};
use crate::reference::number_of;

/// The QoS of a delivery.
pub(super) fn effective(published: QoS, subscribed: QoS, upgrade: bool) -> QoS {
    if upgrade {
        published.max(subscribed)
    } else {
        published.min(subscribed)
    }
}

fn options(change: &Change) -> broker_core::SubscribeOptions {
    change.made.map(|(options, _)| options).unwrap_or_default()
}

fn id(change: &Change) -> Option<u32> {
    change.made.and_then(|(_, id)| id)
}

impl Durable {
    pub(super) fn delivered(&mut self, at: usize, link: LinkId, delivery: &Delivery) -> Result<(), String> {
        self.report.deliveries += 1;
        self.report.repetitions += u64::from(delivery.dup);
        self.report.retained += u64::from(delivery.retain);
        let number = number_of(&delivery.message).unwrap_or_default();
        let context = |what: String| format!("client {at} on {link:?}, message {number}: {what}");
        let Some(note) = self.ledger.get(number).cloned() else {
            return Err(context("nobody has sent it".to_owned()));
        };
        if note.topic != delivery.message.topic() {
            return Err(context(format!("its topic is {}", delivery.message.topic())));
        }
        let group = GROUPS
            .iter()
            .find(|(_, id)| delivery.subscription_ids.contains(id))
            .map_or("", |(filter, _)| *filter);
        self.check_time(&note, delivery).map_err(context)?;
        if group.is_empty() {
            self.check_own(at, &note, delivery).map_err(context)?;
        } else {
            self.check_shared(at, &note, group, delivery).map_err(context)?;
        }
        let key = (group.to_owned(), number);
        match (delivery.qos, delivery.packet_id) {
            (QoS::AtMostOnce, None) => self.count(at, link, &note, &key, delivery).map_err(context),
            (QoS::AtLeastOnce, Some(id)) => {
                self.take_id(at, id.get(), number).map_err(context)?;
                self.count(at, link, &note, &key, delivery).map_err(context)?;
                self.owe(at, link, Request::PubAck(id, ReasonCode::Success), Some(key));
                Ok(())
            }
            (QoS::ExactlyOnce, Some(id)) => {
                self.take_id(at, id.get(), number).map_err(context)?;
                match self.clients[at].receiving.insert(id.get(), number) {
                    Some(before) if before != number => {
                        return Err(context(format!("{id:?} is still {before}'s")));
                    }
                    Some(_) if !delivery.dup => {
                        return Err(context(format!("{id:?} comes again without DUP")));
                    }
                    Some(_) => {}
                    None if !self.goes_on(at, id.get()) => {
                        return Err(context(format!("{id:?} has been used before")));
                    }
                    None => self.count(at, link, &note, &key, delivery).map_err(context)?,
                }
                self.owe(at, link, Request::PubRec(id, ReasonCode::Success), None);
                Ok(())
            }
            (qos, id) => Err(context(format!("{qos:?} with {id:?}"))),
        }
    }

    /// Identifiers of QoS 2 count up, also across a crash.
    fn goes_on(&mut self, at: usize, id: u16) -> bool {
        let last = self.clients[at].last_exact.replace(id);
        last.is_none_or(|last| (1..0x8000).contains(&id.wrapping_sub(last)))
    }

    /// Not before its time, and no Will that is not to be published.
    fn check_time(&self, note: &Note, delivery: &Delivery) -> Result<(), String> {
        let now = self.now();
        match note.kind {
            Kind::Delayed(due) if note.attempts == 1 && now < due => {
                Err(format!("it is due at {due}, not at {now}"))
            }
            Kind::Will(Fate::Armed) => Err("the Will of a connection that lives".to_owned()),
            Kind::Will(Fate::Never) if note.end < u64::MAX && self.faulty_at.is_none() => {
                Err("a Will that is not to be published".to_owned())
            }
            Kind::Will(Fate::Due(due, _)) if now < due => {
                Err(format!("a Will that is due at {due}, not at {now}"))
            }
            _ if delivery.message.payload().is_empty() != note.is_empty => Err("another payload".to_owned()),
            _ => Ok(()),
        }
    }

    /// A packet identifier that is in use on this connection is not used for anything else [MQTT-2.2.1-3].
    fn take_id(&mut self, at: usize, id: u16, number: u64) -> Result<(), String> {
        let client = &mut self.clients[at];
        match client.unacked.insert(id, number) {
            Some(before) => Err(format!("packet identifier {id} is in use for {before}")),
            None if client.unacked.len() > usize::from(client.window.min(self.config.mqtt.max_inflight)) => {
                Err(format!("beyond the window of {}", client.window))
            }
            None => Ok(()),
        }
    }

    /// Some subscription was there for it, and what it says of those that were is right.
    fn check_own(&self, at: usize, note: &Note, delivery: &Delivery) -> Result<(), String> {
        let upgrade = self.config.mqtt.upgrade_qos;
        let tick = self.ledger.tick;
        let is_own = note.publisher == at;
        let subscriptions = &self.clients[at].subscriptions;
        // Retained messages may be older than the subscription; a Will whose end could not be stored comes late.
        let is_cancelled = note.kind == Kind::Will(Fate::Never);
        let until = if (note.retain && delivery.retain) || is_cancelled {
            tick
        } else {
            note.end.min(tick)
        };
        let mut possible: Vec<&Change> = Vec::new();
        let mut certain: Vec<&Change> = Vec::new();
        for filter in subscriptions.matching(&note.topic) {
            let is_meant = |change: &&Change| !(is_own && options(change).no_local);
            let versions = subscriptions.possible(filter, note.begin, tick);
            let count = versions.len();
            // What waits is delivered as the subscription is by then.
            if versions.iter().any(|change| change.asked <= until) {
                possible.extend(versions.into_iter().filter(is_meant));
            }
            let settled = subscriptions.certain(filter, note.begin);
            certain.extend(settled.filter(is_meant).filter(|_| count == 1));
        }
        if possible.is_empty() {
            return Err(format!(
                "no subscription was there for it: {note:?}, {subscriptions:?}"
            ));
        }
        for got in &delivery.subscription_ids {
            if possible.iter().all(|change| id(change) != Some(*got)) {
                return Err(format!("identifier {got} is of none of {possible:?}"));
            }
        }
        // A retained message comes for one subscription, and a QoS 1 or 2 message from the journal for what was there.
        let may_be_replay = note.retain && delivery.retain;
        if !may_be_replay {
            for change in &certain {
                if id(change).is_some_and(|id| !delivery.subscription_ids.contains(&id)) {
                    return Err(format!("the identifier of {change:?} is missing"));
                }
            }
        }
        let qos = |change: &&Change| effective(note.qos, options(change).qos, upgrade);
        let most = possible.iter().map(qos).max();
        let least = certain.iter().map(qos).max().filter(|_| !may_be_replay);
        if Some(delivery.qos) > most || Some(delivery.qos) < least {
            return Err(format!("{:?} of {least:?} to {most:?}", delivery.qos));
        }
        let may_retain = note.retain;
        let must_retain = note.retain && certain.iter().any(|change| options(change).retain_as_published);
        if (delivery.retain && !may_retain) || (!delivery.retain && must_retain) {
            return Err(format!("the retain flag is {}", delivery.retain));
        }
        Ok(())
    }

    fn check_shared(&self, at: usize, note: &Note, group: &str, delivery: &Delivery) -> Result<(), String> {
        let tick = self.ledger.tick;
        let possible = self.clients[at].subscriptions.possible(group, note.begin, tick);
        if possible.is_empty() || !topic::matches(bare(group), &note.topic) {
            return Err(format!("it is no member of {group}"));
        }
        if delivery.subscription_ids.len() > 1 {
            return Err(format!("identifiers {:?}", delivery.subscription_ids));
        }
        let upgrade = self.config.mqtt.upgrade_qos;
        let qos = |change: &&Change| effective(note.qos, options(change).qos, upgrade) == delivery.qos;
        if !possible.iter().any(qos) {
            return Err(format!("{:?} of {possible:?}", delivery.qos));
        }
        Ok(())
    }

    /// How often it comes, and in which order.
    fn count(
        &mut self,
        at: usize,
        link: LinkId,
        note: &Note,
        key: &(String, u64),
        delivery: &Delivery,
    ) -> Result<(), String> {
        let is_shared = !key.0.is_empty();
        let crashes = self.ledger.crashes;
        let is_settled = if is_shared {
            self.is_group_settled(&key.0, note)
        } else {
            self.is_settled(at, note)
        };
        let client = &mut self.clients[at];
        // What is delivered at QoS 0 waits for nothing.
        let mut most = match delivery.qos {
            QoS::AtMostOnce => note.attempts,
            _ => note.copies(),
        };
        if note.retain {
            most += client.replays;
        }
        // By a subscription that was there before, and by one that was just made and is known after a crash.
        most += u32::from(!is_settled);
        let got = client.got.entry(key.clone()).or_default();
        let is_first = got.count == 0;
        got.count += 1;
        got.fresh += u32::from(!delivery.dup);
        let here = match got.link {
            Some((known, count)) if known == link => count + 1,
            _ => 1,
        };
        got.link = Some((link, here));
        // What is handed out at QoS 0 before its end is stored comes again after a crash.
        let is_repeatable = note.kind != Kind::Plain || is_shared;
        let is_excused = is_repeatable && delivery.qos == QoS::AtMostOnce && crashes > 0;
        let wrong = if is_excused || got.count <= most {
            None
        } else if delivery.qos != QoS::AtLeastOnce {
            Some("it comes too often")
        } else if got.fresh > most {
            Some("it comes again without DUP")
        } else if here > most {
            Some("it comes again on the same connection")
        } else if got.acked == Some(crashes) && !is_shared && most == 1 {
            Some("it comes again after its acknowledgement")
        } else {
            None
        };
        if let Some(what) = wrong {
            return Err(format!("{what}: {got:?}, {note:?}"));
        }
        if is_shared {
            let taker = Taker {
                client: at,
                qos: delivery.qos,
                is_persistent: client.expiry > 0,
            };
            return self.share(note, key, taker, is_settled);
        }
        let is_ordered = note.kind == Kind::Plain && !RETAINED.contains(&&*note.topic);
        if is_first && is_ordered {
            self.check_order(at, note, delivery)?;
        }
        Ok(())
    }

    /// Every subscription that may match was answered when it was sent.
    fn is_settled(&self, at: usize, note: &Note) -> bool {
        let (subscriptions, tick) = (&self.clients[at].subscriptions, self.ledger.tick);
        subscriptions.matching(&note.topic).all(|filter| {
            let possible = subscriptions.possible(filter, note.begin, tick);
            possible
                .iter()
                .all(|change| change.known.is_some_and(|known| known < note.begin))
        })
    }

    /// No member was about to join, to leave or to change its subscription: with a persistent one the group begins to
    /// read the journal, without it goes on.
    fn is_group_settled(&self, group: &str, note: &Note) -> bool {
        let tick = self.ledger.tick;
        let mut changes = self
            .clients
            .iter()
            .flat_map(|client| client.subscriptions.possible(group, note.begin, tick));
        changes.all(|change| change.known.is_some_and(|known| known < note.begin))
    }

    /// First arrivals are in the order of publisher, topic and QoS, once the subscription was known to be there.
    fn check_order(&mut self, at: usize, note: &Note, delivery: &Delivery) -> Result<(), String> {
        let subscriptions = &self.clients[at].subscriptions;
        let is_known = subscriptions.matching(&note.topic).any(|filter| {
            let covered = subscriptions.covered(filter, |_| true);
            covered.is_some_and(|since| since < note.begin)
        });
        // What was refused, or cut by a limit, comes later if it is sent again.
        let may_be_late = self.faulty_at.is_some() || self.config.mqtt.max_mqueue_len > 0;
        if !is_known || (note.attempts > 1 && may_be_late) {
            return Ok(());
        }
        let key = (note.publisher, note.topic.clone(), delivery.qos);
        let last = self.clients[at].last.insert(key, note.number);
        match last {
            Some(before) if before > note.number => Err(format!("it comes after {before}")),
            _ => Ok(()),
        }
    }

    /// One member of a group gets it, another only as a repetition; of QoS 2 nobody else, if the member's session lasts.
    fn share(
        &mut self,
        note: &Note,
        key: &(String, u64),
        taker: Taker,
        is_settled: bool,
    ) -> Result<(), String> {
        let takers = self.takers.entry(key.clone()).or_default();
        takers.push(taker);
        let is_for_good = |taker: &&Taker| taker.qos == QoS::ExactlyOnce && taker.is_persistent;
        let count = takers.iter().filter(is_for_good).count();
        let is_once = note.qos == QoS::ExactlyOnce && takers.iter().all(|taker| taker.is_persistent);
        if is_settled && is_once && count > 1 {
            let clients: Vec<usize> = takers.iter().map(|taker| taker.client).collect();
            return Err(format!("members {clients:?} of {} got it: {note:?}", key.0));
        }
        Ok(())
    }

    /// Nothing is under way: what is seen from outside fits together.
    pub(super) fn check_quiet(&mut self) -> Result<(), String> {
        for client in &self.clients {
            if let Some(link) = client.link.filter(|link| self.node.is_held(*link)) {
                return Err(format!("{link:?} is not read, but nothing waits for the store"));
            }
        }
        if self.faulty_at.is_some() {
            return Ok(());
        }
        let entries = self.node.entries();
        let stored = entries
            .iter()
            .filter(|entry| entry.key.as_str().starts_with("r."))
            .count();
        let kept: usize = self
            .node
            .shards()
            .iter()
            .map(|shard| shard.census().retained)
            .sum();
        if stored != kept {
            return Err(format!(
                "{kept} retained messages in memory, {stored} in the store"
            ));
        }
        Ok(())
    }
}
