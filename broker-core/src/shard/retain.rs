//! Retained messages (§3.3.1.3). Each is kept by the shard that its topic hashes to.

use crate::{
    Message, RetainHandling, ShardId, SubscribeOptions, SubscriptionIds, Timestamp,
    retained::Page,
    session::{Presence, Queued, Replay, Sending, SessionKey},
    topic,
};

use super::{Shard, ShardMessage, publish::effective_qos};

/// Topics looked at for one slice of a replay.
const SCAN: usize = 4096;
/// Expired messages removed in one go.
const EXPIRE_SLICE: usize = 1024;
/// Replays of one session that ask before it is their turn, so that thousands of subscriptions do not wait for one
/// another's answers.
const ASK_AHEAD: usize = 64;

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
        if !is_new {
            // The same subscription made anew starts over.
            self.stop_replay(key, filter);
        }
        self.replays.insert(number, key);
        let replays = &mut self.session_mut(key).replays;
        let at = replays.len();
        replays.push_back(Replay {
            number,
            filter: filter.into(),
            since,
            options,
            subscription_ids: id.into_iter().collect::<SubscriptionIds>(),
            sources,
            asked: false,
            page: std::collections::VecDeque::new(),
            overtaken: Vec::new(),
            stale: false,
        });
        if at < ASK_AHEAD {
            self.ask_page(key, at);
        }
        if self.ready.back() != Some(&key) {
            self.ready.push_back(key);
        }
    }

    /// Ends the replay of a subscription, if there is one.
    pub(super) fn stop_replay(&mut self, key: SessionKey, filter: &str) {
        let (replays, numbers) = (&mut self.sessions[key.0 as usize].replays, &mut self.replays);
        replays.retain(|replay| {
            let is_kept = *replay.filter != *filter;
            if !is_kept {
                numbers.remove(&replay.number);
            }
            is_kept
        });
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
            let Some(replay) = session.replays.front_mut() else {
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
                session.replays.pop_front();
                self.replays.remove(&number);
                if session.replays.get(ASK_AHEAD - 1).is_some_and(Replay::is_idle) {
                    self.ask_page(key, ASK_AHEAD - 1);
                }
            } else if replay.asked {
                return;
            } else {
                self.ask_page(key, 0);
            }
        }
        self.ready.push_back(key);
    }

    /// Asks for the next slice of the replay at this place: of this shard's own store until there is something or its
    /// end, else of another shard.
    fn ask_page(&mut self, key: SessionKey, at: usize) {
        let own = self.id;
        loop {
            let Some(replay) = self.sessions[key.0 as usize].replays.get_mut(at) else {
                return;
            };
            let (true, Some((shard, after))) = (replay.is_idle(), replay.sources.last().cloned()) else {
                return;
            };
            replay.asked = true;
            let (number, filter) = (replay.number, replay.filter.clone());
            if shard != own {
                let query = ShardMessage::RetainedQuery {
                    replay: number,
                    filter,
                    after,
                };
                return self.outbound.push(shard, query);
            }
            let (messages, next) = self.retained_page(&filter, after.as_deref());
            if let Some(replay) = self.sessions[key.0 as usize].replays.get_mut(at) {
                replay.fill(messages, next);
            }
        }
    }

    /// A slice of what this shard keeps, and where to go on.
    pub(super) fn retained_page(&self, filter: &str, after: Option<&str>) -> (Vec<Message>, Option<String>) {
        let mut messages = Vec::new();
        match self
            .retained
            .page(filter, after, Replay::PAGE, SCAN, &mut messages)
        {
            Page::Done => (messages, None),
            Page::More(topic) => (messages, Some(topic)),
        }
    }

    /// A slice has come from another shard; its session may be gone, or have begun anew.
    pub(super) fn fill_replay(&mut self, number: u64, messages: Vec<Message>, next: Option<String>) {
        let Some(&key) = self.replays.get(&number) else {
            return;
        };
        let replays = &mut self.sessions[key.0 as usize].replays;
        let Ok(at) = replays.binary_search_by_key(&number, |replay| replay.number) else {
            return;
        };
        replays[at].fill(messages, next);
        self.ask_page(key, at);
        // Only the first replay of a session sends.
        if at == 0 && self.ready.back() != Some(&key) {
            self.ready.push_back(key);
        }
    }
}
