//! Retained messages (§3.3.1.3). Each is kept by the shard that its topic hashes to.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use crate::{
    Message, ShardId, SubscribeOptions, SubscriptionIds, Timestamp,
    retained::Page,
    session::{Queued, Replay, Replays, Sending, SessionKey},
    store::{
        Sequence, Value,
        format::{Name, Token},
    },
    topic,
};

use super::{Shard, ShardMessage, commit::Held, publish::effective_qos, subscribe::replay_is_wanted};

/// Topics looked at for one slice of a replay.
const SCAN: usize = 4096;
/// Topics looked at in one turn: some milliseconds.
const SCAN_TURN: usize = 16_384;
/// Questions of other shards that wait for their turn; one beyond is answered at once, so that who asks too much waits.
const LOOKUPS_MAX: usize = 1024;
/// Corrections of entries remembered before those are forgotten that cannot matter any more.
const CORRECTIONS: usize = 4096;
/// Expired messages removed in one go.
const EXPIRE_SLICE: usize = 1024;

/// A slice of the retained messages of this shard that somebody waits for.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) asker: ShardId,
    pub(super) replay: u64,
    pub(super) filter: Arc<str>,
    pub(super) after: Option<String>,
}

/// Looking through the retained messages for filters that match few of them takes long: per turn of the worker only
/// so many topics are looked at, and whoever asks for more waits in this queue.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    waiting: VecDeque<Lookup>,
    /// Topics that may still be looked at in the turn that began then.
    budget: usize,
    turn: Timestamp,
}

impl Lookups {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A turn begins.
    pub(super) fn refill(&mut self, now: Timestamp) {
        self.budget = SCAN_TURN;
        self.turn = now;
    }
}

impl Shard {
    /// Gives a message that is to be stored under its topic, or with an empty payload makes it forgotten
    /// [MQTT-3.3.1-6], to the topic's keeper. True if it is to be committed, too: the keeper comes upon it in the journal
    /// then, which gives all publishers of a topic one order. What the node says of itself is not worth storing.
    pub(super) fn retain(&mut self, message: &Message) -> bool {
        let is_own = message.topic().starts_with("$SYS/");
        if !is_own && message.payload().len() > self.common.config.retained_payload_bytes_max {
            self.metrics.retained_dropped.inc();
            return false;
        }
        let keeper = self.keeper(message.topic());
        if keeper == self.id {
            self.retain_early(message);
        } else {
            self.outbound.push(keeper, ShardMessage::Retain(message.clone()));
        }
        !is_own
    }

    /// The keeper has a message before it is committed, so that whoever has seen it finds it.
    pub(super) fn retain_early(&mut self, message: &Message) {
        // The journal may be faster than another shard's batch.
        let is_late = self
            .followed
            .get(shard_of_id(message))
            .is_some_and(|&id| id > 0 && message.id() <= id);
        if is_late {
            return;
        }
        self.retain_here(message);
        if !message.topic().starts_with("$SYS/") {
            self.early.insert(message.topic().into(), mark(message));
        }
    }

    /// A message was not committed: its topic's keeper does not come upon it.
    pub(super) fn retain_failed(&mut self, message: &Message) {
        let keeper = self.keeper(message.topic());
        if keeper == self.id {
            self.retained_for_now(message);
        } else {
            self.outbound
                .push(keeper, ShardMessage::RetainFailed(message.clone()));
        }
    }

    /// What is kept stays until the next message of the topic, or the end of the process.
    pub(super) fn retained_for_now(&mut self, message: &Message) {
        if self.early.get(message.topic()) == Some(&mark(message)) {
            self.early.remove(message.topic());
        }
    }

    /// Keeps the message, or forgets that of its topic. False if it is not kept because of a limit.
    pub(super) fn retain_here(&mut self, message: &Message) -> bool {
        let limit = self.share_of(self.common.config.retained_max);
        let mut is_kept = true;
        if message.payload().is_empty() {
            self.retained.remove(message.topic());
        } else if limit.is_some_and(|limit| self.retained.len() >= limit)
            && self.retained.get(message.topic()).is_none()
        {
            self.metrics.retained_dropped.inc();
            is_kept = false;
        } else {
            self.metrics.messages_retained.inc();
            self.retained.insert(message.clone());
        }
        self.stats.retained.set(self.retained.len() as u64);
        is_kept
    }

    /// The keeper of a topic comes upon a message to be retained in the journal, which has an entry of it by now.
    pub(super) fn retain_stored(&mut self, message: &Message, sequence: Sequence, record: &Bytes) {
        let topic = message.topic();
        // An earlier process has counted by itself.
        if message.created() >= self.tail.began
            && let Some(id) = self.followed.get_mut(shard_of_id(message))
        {
            *id = (*id).max(message.id());
        }
        let is_overwritten = match self.corrections.get(topic) {
            // This shard's own change of the entry stands behind the message in the journal.
            Some(place) if sequence < *place => true,
            Some(_) => {
                self.corrections.remove(topic);
                false
            }
            None => false,
        };
        let is_kept = match self.early.get(topic) {
            Some(early) if *early == mark(message) => {
                self.early.remove(topic);
                message.payload().is_empty() || self.retained.get(topic).is_some()
            }
            // A later one has come already, and is about to come here, too.
            Some(_) => true,
            None => self.retain_here(message),
        };
        if !is_kept || (is_overwritten && message.payload().is_empty()) {
            self.correct_retained(topic, Value::Delete);
        } else if is_overwritten {
            self.correct_retained(topic, Value::Put(record.clone()));
        }
    }

    /// Changes the entry of a topic other than by a publisher's commit. Where the change will stand among those is
    /// known only later, so that it may have to be corrected again.
    fn correct_retained(&mut self, topic: &str, value: Value) {
        if self.corrections.len() >= CORRECTIONS {
            let seen = self.tail.next;
            self.corrections.retain(|_, place| *place > seen);
        }
        self.write(Name::Retained(Token::of(topic)), value);
        self.corrections.insert(topic.into(), Sequence::END);
        self.hold(Held::Corrected(topic.into()));
    }

    /// The place of a correction is known.
    pub(super) fn corrected(&mut self, topic: &str, place: Sequence) {
        if let Some(known) = self.corrections.get_mut(topic) {
            *known = place;
        }
    }

    pub(super) fn retained_due(&mut self, now: Timestamp) {
        for message in self.retained.expire(now, EXPIRE_SLICE) {
            self.metrics.messages_dropped_expired.inc();
            self.correct_retained(message.topic(), Value::Delete);
        }
        self.stats.retained.set(self.retained.len() as u64);
    }

    /// Begins to send the retained messages that a subscription gets.
    pub(super) fn start_replay(
        &mut self,
        key: SessionKey,
        filter: &str,
        options: SubscribeOptions,
        id: Option<u32>,
        is_new: bool,
    ) {
        if !replay_is_wanted(options, is_new) || !self.common.config.mqtt.retain_available {
            return;
        }
        let number = self.next_number();
        let route = self.index.find(filter);
        let subscription = route.and_then(|route| self.session(key).subscriptions.get(route, None));
        let since = match subscription.map(|one| one.since) {
            Some(Sequence::END) => Timestamp::NEVER,
            _ => self.now,
        };
        let sources = if topic::has_wildcard(filter) {
            (0..self.shards).map(|shard| (ShardId(shard), None)).collect()
        } else {
            vec![(self.keeper(filter), None)]
        };
        // The same subscription made anew starts over.
        self.stop_replay(key, filter);
        self.replays.insert(number, key);
        let replays = &mut self.session_mut(key).replays;
        replays.push(Replay {
            number,
            filter: filter.into(),
            since,
            options,
            subscription_ids: id.into_iter().collect::<SubscriptionIds>(),
            sources,
            asked: false,
            page: VecDeque::new(),
            overtaken: Vec::new(),
            stale: false,
        });
        if replays.len() <= Replays::ASKING {
            self.ask_page(key, number);
        }
        if self.ready.back() != Some(&key) {
            self.ready.push_back(key);
        }
    }

    /// Begins the replay of a subscription anew that a lost connection has interrupted.
    pub(super) fn resume_replay(&mut self, key: SessionKey, filter: &str) {
        let route = self.index.find(filter);
        let subscription = route.and_then(|route| self.session(key).subscriptions.get(route, None));
        if let Some((options, id)) = subscription.map(|one| (one.options, one.id)) {
            let options = SubscribeOptions {
                retain_handling: crate::RetainHandling::Send,
                ..options
            };
            self.start_replay(key, filter, options, id, true);
        }
    }

    /// Ends the replay of a subscription, if there is one.
    pub(super) fn stop_replay(&mut self, key: SessionKey, filter: &str) {
        if let Some(replay) = self.session_mut(key).replays.remove(filter) {
            self.replays.remove(&replay.number);
            // Another one has come up among those that ask.
            self.ask_ahead(key);
        }
    }

    /// Sends retained messages while nothing else waits, and asks for more when a slice is used up.
    pub(super) fn pump_replays(&mut self, now: Timestamp, key: SessionKey) {
        for _ in 0..4 * Replay::PAGE {
            let upgrade = self.common.config.mqtt.upgrade_qos;
            let Some(session) = self.sessions[key.0 as usize].online_mut() else {
                return;
            };
            if !session.takes_messages() {
                return;
            }
            let link = session.link;
            let Some(replay) = session.replays.first_mut() else {
                return;
            };
            if let Some(message) = replay.page.front() {
                let qos = effective_qos(message.qos(), replay.options.qos, upgrade);
                if !session.outgoing.has_room(qos) {
                    return;
                }
                let Some(message) = replay.page.pop_front() else {
                    return;
                };
                let is_own = message.origin().client_id == session.client.client_id;
                let is_known = message.created() > replay.since;
                if is_known || message.is_expired(now) || (replay.options.no_local && is_own) {
                    continue;
                }
                let subscription_ids = replay.subscription_ids.clone();
                let item = Queued {
                    message,
                    qos,
                    retain: true,
                    subscription_ids,
                    shared: None,
                    sequence: None,
                    priority: 0,
                };
                let packet_id =
                    (qos != crate::QoS::AtMostOnce).then(|| session.outgoing.send(now, item.clone()));
                self.put_on_wire(
                    now,
                    link,
                    key,
                    Sending::Publish {
                        item,
                        packet_id,
                        dup: false,
                    },
                );
                continue;
            }
            if replay.is_done() {
                let number = replay.number;
                let filter = Arc::clone(&replay.filter);
                session.replays.pop_first();
                self.replays.remove(&number);
                self.replay_done(key, &filter);
                self.ask_ahead(key);
            } else if replay.asked {
                return;
            } else {
                let number = replay.number;
                self.ask_page(key, number);
            }
        }
        self.ready.push_back(key);
    }

    /// The store need not start it over any more.
    fn replay_done(&mut self, key: SessionKey, filter: &str) {
        let Some(route) = self.index.find(filter) else {
            return;
        };
        let session = self.session_mut(key);
        let subscription = session.subscriptions.get(route, None);
        if let Some(stored) = &mut session.stored
            && subscription.is_some_and(|one| one.since == Sequence::END)
        {
            // Its entry is on its way, and tells its place by where it stands.
            return stored.replayed.push(route);
        }
        self.store_subscription(key, route, None, false, false);
    }

    /// The last of the replays that may ask has its turn to do so.
    fn ask_ahead(&mut self, key: SessionKey) {
        let last = self.session_mut(key).replays.asking().nth(Replays::ASKING - 1);
        if let Some(number) = last.map(|replay| replay.number) {
            self.ask_page(key, number);
        }
    }

    /// Asks for the next slice of a replay that has nothing left, of the shard where it goes on.
    fn ask_page(&mut self, key: SessionKey, number: u64) {
        let Some(replay) = self
            .online_mut(key)
            .and_then(|session| session.replays.get_mut(number))
        else {
            return;
        };
        let (true, Some((shard, after))) = (replay.is_idle(), replay.sources.last().cloned()) else {
            return;
        };
        replay.asked = true;
        let filter = Arc::clone(&replay.filter);
        if shard == self.id {
            return self.look_up(Lookup {
                asker: shard,
                replay: number,
                filter,
                after,
            });
        }
        let query = ShardMessage::RetainedQuery {
            replay: number,
            filter,
            after,
        };
        self.outbound.push(shard, query);
    }

    /// Answers a question about what this shard keeps, at once or when others have had their turn.
    pub(super) fn look_up(&mut self, lookup: Lookup) {
        if self.lookups.turn < self.now {
            self.lookups.refill(self.now);
        }
        let is_in_turn = self.lookups.waiting.is_empty() && self.lookups.budget > 0;
        // Those of this shard are bounded by its sessions.
        if is_in_turn || (lookup.asker != self.id && self.lookups.waiting.len() >= LOOKUPS_MAX) {
            self.answer(lookup);
        } else {
            self.lookups.waiting.push_back(lookup);
        }
    }

    /// Answers a question that has waited. False if there is none, or if enough topics were looked at in this turn.
    pub(super) fn next_lookup(&mut self) -> bool {
        if self.lookups.budget == 0 {
            return false;
        }
        let next = self.lookups.waiting.pop_front();
        next.map(|lookup| self.answer(lookup)).is_some()
    }

    fn answer(&mut self, lookup: Lookup) {
        let Lookup {
            asker,
            replay,
            filter,
            after,
        } = lookup;
        if asker == self.id && !self.replays.contains_key(&replay) {
            return;
        }
        let (mut messages, mut budget) = (Vec::new(), SCAN);
        let page = self.retained.page(
            &filter,
            after.as_deref(),
            Replay::PAGE,
            &mut budget,
            &mut messages,
        );
        self.lookups.budget = self.lookups.budget.saturating_sub((SCAN - budget).max(1));
        let next = match page {
            Page::Done => None,
            Page::More(topic) => Some(topic),
        };
        if asker == self.id {
            return self.fill_replay(replay, messages, next);
        }
        let page = ShardMessage::RetainedPage {
            replay,
            messages,
            next,
        };
        self.outbound.push(asker, page);
    }

    /// A slice has come; its session may be gone, or have begun anew.
    pub(super) fn fill_replay(&mut self, number: u64, messages: Vec<Message>, next: Option<String>) {
        let Some(&key) = self.replays.get(&number) else {
            return;
        };
        let Some(session) = self.online_mut(key) else {
            return;
        };
        let replays = &mut session.replays;
        let Some(replay) = replays.get_mut(number) else {
            return;
        };
        replay.fill(messages, next);
        // Only the first replay of a session sends.
        let sends = replays.first_mut().is_some_and(|first| first.number == number);
        self.ask_page(key, number);
        if sends && self.ready.back() != Some(&key) {
            self.ready.push_back(key);
        }
    }
}

/// The shard that gave the message its number: numbers of one shard count up.
fn shard_of_id(message: &Message) -> usize {
    usize::try_from(message.id() >> 48).expect("sixteen bits")
}

/// Tells messages of one topic apart.
fn mark(message: &Message) -> (u64, Timestamp) {
    (message.id(), message.created())
}
