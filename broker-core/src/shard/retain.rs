//! Retained messages (§3.3.1.3). Each is kept by the shard that its topic hashes to.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    Message, RetainHandling, ShardId, SubscribeOptions, SubscriptionIds, Timestamp,
    retained::Page,
    session::{Presence, Queued, Replay, Replays, Sending, SessionKey},
    topic,
};

use super::{Shard, ShardMessage, publish::effective_qos};

/// Topics looked at for one slice of a replay.
const SCAN: usize = 4096;
/// Topics looked at in one turn: some milliseconds.
const SCAN_TURN: usize = 16_384;
/// Questions of other shards that wait for their turn; one beyond is answered at once, so that who asks too much waits.
const LOOKUPS_MAX: usize = 1024;
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
    /// Stores the message under its topic, or with an empty payload forgets the topic [MQTT-3.3.1-6].
    pub(super) fn retain(&mut self, message: &Message) {
        let keeper = self.keeper(message.topic());
        if keeper == self.id {
            self.retain_here(message);
        } else {
            self.outbound.push(keeper, ShardMessage::Retain(message.clone()));
        }
    }

    pub(super) fn retain_here(&mut self, message: &Message) {
        let config = &self.common.config;
        let limit = self.share_of(config.retained_max);
        if message.payload().is_empty() {
            self.retained.remove(message.topic());
        } else if message.payload().len() > config.retained_payload_bytes_max
            || (limit.is_some_and(|limit| self.retained.len() >= limit)
                && self.retained.get(message.topic()).is_none())
        {
            self.metrics.retained_dropped.inc();
        } else {
            self.metrics.messages_retained.inc();
            self.retained.insert(message.clone());
        }
        self.stats.retained.set(self.retained.len() as u64);
    }

    pub(super) fn retained_due(&mut self, now: Timestamp) {
        let removed = self.retained.expire(now, EXPIRE_SLICE);
        self.metrics.messages_dropped_expired.add(removed as u64);
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
        let wanted = match options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if !wanted || !self.common.config.mqtt.retain_available {
            return;
        }
        let (number, since) = (self.next_number(), self.now);
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
            let session = &mut *self.sessions[key.0 as usize];
            let Presence::Online {
                link,
                congested: false,
                ..
            } = session.presence
            else {
                return;
            };
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
                };
                let packet_id =
                    (qos != crate::QoS::AtMostOnce).then(|| session.outgoing.send(now, item.clone()));
                self.put(
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
                session.replays.pop_first();
                self.replays.remove(&number);
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

    /// The last of the replays that may ask has its turn to do so.
    fn ask_ahead(&mut self, key: SessionKey) {
        let last = self.session_mut(key).replays.asking().nth(Replays::ASKING - 1);
        if let Some(number) = last.map(|replay| replay.number) {
            self.ask_page(key, number);
        }
    }

    /// Asks for the next slice of a replay that has nothing left, of the shard where it goes on.
    fn ask_page(&mut self, key: SessionKey, number: u64) {
        let Some(replay) = self.sessions[key.0 as usize].replays.get_mut(number) else {
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
        let replays = &mut self.sessions[key.0 as usize].replays;
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
