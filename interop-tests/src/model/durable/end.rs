//! Everybody comes back, gets what is left, and leaves for ever.

use std::collections::BTreeSet;

use broker_core::{QoS, SubscribeOptions, topic};

use super::{
    Acks, CLIENTS, Durable,
    check::effective,
    ledger::{Kind, Note, SLACK_MS},
    steps::{GROUPS, RETAINED},
    subscriptions::{bare, is_shared},
};
use crate::model::nothing_left;

impl Durable {
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.stall(false);
        self.set_fault(None);
        self.log(|_| "everybody comes back".to_owned());
        self.settle()?;
        for at in 0..CLIENTS {
            if !self.clients[at].is_online() {
                self.connect_with(at, false, u32::MAX, Acks::AtOnce)?;
                self.settle()?;
            }
            self.catch_up(at);
            self.settle()?;
        }
        // Delayed messages, Wills.
        self.pass(40_000)?;
        self.settle()?;
        for at in 0..CLIENTS {
            self.verify(at)?;
        }
        self.verify_groups()?;
        self.verify_retained()?;
        self.end()
    }

    /// From here on the client acknowledges at once.
    fn catch_up(&mut self, at: usize) {
        let Some(link) = self.clients[at].link else { return };
        self.clients[at].acks = Acks::AtOnce;
        self.log(|_| format!("client {at} catches up"));
        self.node.congest(link, false);
        while let Some((request, number)) = self.clients[at].owed.pop_front() {
            self.answer(at, link, request, number);
        }
    }

    /// What one client had to get through its own subscriptions.
    fn verify(&self, at: usize) -> Result<(), String> {
        let client = &self.clients[at];
        if !client.publishing.is_empty() || !client.receiving.is_empty() {
            return Err(format!(
                "client {at} has not completed {:?}, {:?}",
                client.publishing, client.receiving
            ));
        }
        let upgrade = self.config.mqtt.upgrade_qos;
        let filters: Vec<&str> = client
            .subscriptions
            .filters()
            .filter(|filter| !is_shared(filter))
            .collect();
        for note in self.ledger.notes() {
            if note.sure.is_none() || note.expires < u64::MAX || self.may_be_cut(at, note) {
                continue;
            }
            let is_due = |options: &SubscribeOptions| {
                effective(note.qos, options.qos, upgrade) > QoS::AtMostOnce
                    && !(options.no_local && note.publisher == at)
            };
            let is_there = client.got.contains_key(&(String::new(), note.number));
            let matching = filters
                .iter()
                .filter(|filter| topic::matches(filter, &note.topic));
            for filter in matching.filter(|_| !is_there) {
                let since = client.subscriptions.covered(filter, is_due);
                if since.is_some_and(|since| since < note.begin) {
                    return Err(format!(
                        "client {at} lost {note:?}, due to {filter} since {since:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// So many later messages were for the session, or for its filters, that it may have been passed over.
    fn may_be_cut(&self, at: usize, note: &Note) -> bool {
        let limit = self.config.mqtt.max_mqueue_len;
        let filters: Vec<&str> = self.clients[at].subscriptions.filters().collect();
        let is_later = |other: &&Note| {
            other.end > note.begin
                && filters
                    .iter()
                    .any(|filter| topic::matches(bare(filter), &other.topic))
        };
        let later = self.ledger.notes().iter().filter(is_later);
        let count: u64 = later.map(|other| u64::from(other.attempts)).sum();
        limit > 0 && count > limit as u64
    }

    /// What somebody of each group had to get.
    fn verify_groups(&self) -> Result<(), String> {
        let upgrade = self.config.mqtt.upgrade_qos;
        for (group, _) in GROUPS {
            for note in self.ledger.notes() {
                let is_lasting =
                    |options: &SubscribeOptions| effective(note.qos, options.qos, upgrade) > QoS::AtMostOnce;
                // Somebody who was there all the time.
                let members = self.clients.iter().filter(|client| client.expiry > 0);
                let covered = members.filter_map(|client| client.subscriptions.covered(group, is_lasting));
                let since = covered.min();
                let left = self.left.get(*group).copied();
                let is_due = note.sure.is_some()
                    && since.is_some_and(|since| since < note.begin)
                    && left.is_none_or(|left| left < note.begin)
                    && note.expires == u64::MAX
                    && topic::matches(bare(group), &note.topic);
                let is_taken = self.takers.contains_key(&((*group).to_owned(), note.number));
                if is_due && !is_taken && self.config.mqtt.max_mqueue_len == 0 && self.takes_at_qos_1(group) {
                    return Err(format!("nobody of {group} got {note:?}, members since {since:?}"));
                }
            }
        }
        Ok(())
    }

    /// No member ever asked for QoS 0, at which messages may be lost.
    fn takes_at_qos_1(&self, group: &str) -> bool {
        let upgrade = self.config.mqtt.upgrade_qos;
        let mut asked = self
            .clients
            .iter()
            .flat_map(|client| client.subscriptions.possible(group, 0, u64::MAX));
        upgrade
            || asked.all(|change| {
                change
                    .made
                    .is_some_and(|(options, _)| options.qos > QoS::AtMostOnce)
            })
    }

    /// A newcomer gets what is retained: of each topic a message after which no other was certainly published.
    fn verify_retained(&mut self) -> Result<(), String> {
        let at = 0;
        let link = self.clients[at].link.expect("it has come back");
        let before = self.clients[at].got.clone();
        let options = SubscribeOptions {
            qos: QoS::AtMostOnce,
            ..SubscribeOptions::default()
        };
        self.subscribe_to(at, link, &["r/#".to_owned()], options, None);
        self.settle()?;
        let got: BTreeSet<u64> = self.clients[at]
            .got
            .iter()
            .filter(|((group, number), got)| {
                let known = before.get(&(group.clone(), *number)).map_or(0, |got| got.count);
                group.is_empty() && got.count > known
            })
            .map(|((_, number), _)| *number)
            .collect();
        for topic in RETAINED {
            let is_of = |number: &&u64| self.ledger.note(**number).topic == *topic;
            let found: Vec<u64> = got.iter().filter(is_of).copied().collect();
            self.verify_retained_topic(topic, &found)?;
        }
        Ok(())
    }

    fn verify_retained_topic(&self, topic: &str, found: &[u64]) -> Result<(), String> {
        let notes = self.ledger.notes().iter();
        let published: Vec<&Note> = notes.filter(|note| note.retain && note.topic == topic).collect();
        let is_last = |note: &&Note| {
            let mut others = published.iter();
            !others.any(|other| other.sure.is_some() && other.begin > note.end)
        };
        let last: Vec<&Note> = published.iter().copied().filter(is_last).collect();
        let now = self.now();
        let is_gone = |note: &&Note| note.is_empty || note.expires <= now + SLACK_MS;
        let may_be_none = last.iter().any(is_gone) || last.iter().all(|note| note.sure.is_none());
        let is_right = match found {
            [] => may_be_none,
            [number] => last.iter().any(|note| note.number == *number && !note.is_empty),
            _ => false,
        };
        if is_right {
            return Ok(());
        }
        Err(format!(
            "retained on {topic}: {found:?}, which is none of {last:?}"
        ))
    }

    /// Ends all sessions, and forgets what is retained.
    fn end(&mut self) -> Result<(), String> {
        if self.faulty_at.is_some() {
            // What could not be removed is found at the next start, sessions with it.
            let shards = u16::try_from(self.node.shards().len()).expect("made from a u16");
            self.node.crash();
            self.ledger.crash();
            self.node.start(shards);
            let now = self.now();
            for at in 0..CLIENTS {
                self.cut_off(at, now);
            }
            self.owners.clear();
            self.node.open();
        }
        self.log(|_| "everybody leaves".to_owned());
        for at in 0..CLIENTS {
            self.connect_with(at, true, 0, Acks::AtOnce)?;
            self.settle()?;
        }
        for at in 1..CLIENTS {
            self.lose(at)?;
        }
        self.settle()?;
        let link = self.clients[0].link.expect("it has connected");
        for topic in RETAINED {
            self.send_new(0, link, topic, QoS::AtLeastOnce, Kind::Plain, (true, true), None);
        }
        self.settle()?;
        self.lose(0)?;
        self.settle()?;
        self.pass(12_000)?;
        self.settle()?;
        nothing_left(&self.node)?;
        let entries = self.node.entries();
        if !entries.is_empty() {
            let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
            return Err(format!("left in the store: {keys:?}"));
        }
        for shard in self.node.shards() {
            let low = shard.stats().journal_low();
            let needed = self.node.records_from(low);
            if needed > 0 {
                return Err(format!("{:?} needs {needed} records from {low:?} on", shard.id()));
            }
        }
        Ok(())
    }
}
