//! `$delayed/<seconds>/<topic>`: messages that wait for their time.

use std::collections::BTreeMap;

use crate::{
    Message, ReasonCode, ShardId, Timestamp,
    store::{
        Value,
        format::{DelayedEntry, Name, encode_message},
    },
    topic,
};

use super::{Shard, commit::Held, publish::Dispatched};

/// EMQX's limit: 2^32 - 1 seconds.
const SECONDS_MAX: u64 = u32::MAX as u64;

/// Messages in the order of their time, then of their arrival.
#[derive(Debug)]
pub(super) struct Delayed {
    messages: BTreeMap<(Timestamp, u64), Waiting>,
    /// The last number given.
    last: u64,
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    /// The time in the name of its entry: it is due later if it could not be committed then.
    named: Timestamp,
    /// It was handed out then, and only the store lacks it.
    is_handed_out: bool,
}

impl Delayed {
    /// None yet. The shard's numbers are those that say its own when they are divided by how many shards there are.
    pub(super) fn new(shard: ShardId) -> Delayed {
        Delayed {
            messages: BTreeMap::new(),
            last: u64::from(shard.0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// When the first of them is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.messages.first_key_value().map(|((at, _), _)| *at)
    }
}

/// The delay in seconds and the real topic, if `topic` (without a mountpoint) is a well-formed delayed one.
fn parse(topic: &str) -> Option<(u64, &str)> {
    let (seconds, target) = topic.strip_prefix("$delayed/")?.split_once('/')?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = seconds
        .parse()
        .ok()
        .filter(|seconds| is_number && *seconds <= SECONDS_MAX)?;
    topic::is_valid_name(target).then_some((seconds, target))
}

/// The topic that a delayed message will be published under.
pub(super) fn target(topic: &str) -> Option<&str> {
    parse(topic).map(|(_, target)| target)
}

impl Shard {
    /// Keeps a message for later.
    ///
    /// # Errors
    /// Topic name invalid, or quota exceeded at `delayed.max_delayed_messages` (counted per shard in equal parts).
    pub(super) fn delay(&mut self, now: Timestamp, message: &Message) -> Result<Dispatched, ReasonCode> {
        let (seconds, target) = parse(message.local_topic()).ok_or(ReasonCode::TopicNameInvalid)?;
        let limit = self.share_of(self.common.config.delayed_max);
        if limit.is_some_and(|limit| self.delayed.messages.len() >= limit) {
            self.metrics.quota_exceeded.inc();
            return Err(ReasonCode::QuotaExceeded);
        }
        let topic = format!("{}{target}", message.origin().mountpoint);
        let renamed = message.with_topic(&topic, message.retain());
        let message = renamed.ok_or(ReasonCode::TopicNameInvalid)?;
        let at = now.after_secs(seconds);
        let number = self.delayed_number();
        let entry = DelayedEntry {
            record: encode_message(&message),
        };
        self.put(Name::Delayed(at.as_millis(), number), entry.encode());
        self.keep_delayed(at, number, message);
        self.hold(Held::Kept(at, number));
        self.metrics.messages_delayed.inc();
        Ok(Dispatched {
            is_matched: true,
            is_stored: true,
        })
    }

    /// A number that no other delayed message has, of this shard and of this process: messages of the same time are
    /// handed out in the order of their numbers.
    fn delayed_number(&mut self) -> u64 {
        // As many numbers as are needed in a life, above all that were found at the start.
        self.delayed.last += u64::from(self.shards);
        self.delayed.last
    }

    /// Keeps a message that has an entry of this name.
    pub(super) fn keep_delayed(&mut self, at: Timestamp, number: u64, message: Message) {
        self.delayed.last = self.delayed.last.max(number);
        let waiting = Waiting {
            message,
            named: at,
            is_handed_out: false,
        };
        self.delayed.messages.insert((at, number), waiting);
        self.stats.delayed.set(self.delayed.messages.len() as u64);
    }

    /// Hands out the first message, which is due.
    pub(super) fn delayed_due(&mut self, now: Timestamp) {
        let Some(((_, number), waiting)) = self.delayed.messages.pop_first() else {
            return;
        };
        let Waiting {
            message,
            named,
            is_handed_out,
        } = waiting;
        self.stats.delayed.set(self.delayed.messages.len() as u64);
        let name = Name::Delayed(named.as_millis(), number);
        if message.is_expired(now) {
            self.metrics.messages_dropped_expired.inc();
            return self.delete(name);
        }
        if is_handed_out {
            let is_stored = self.store_again(&message);
            self.delete(name);
            if is_stored {
                self.hold(Held::Delayed(named, number, message));
            }
            return;
        }
        // Its publisher, if there still, gets none of it through a subscription with No Local [MQTT-3.8.3-3].
        let publisher = self.by_client.get(&message.origin().client_id).copied();
        // Its topic is no delayed one unless it was nested, and then it waits again.
        let dispatched = self.dispatch(now, message.clone(), publisher);
        // Forgotten with the commit that it is part of: a message may begin one, and what follows it does not.
        self.delete(name);
        if dispatched.is_ok_and(|dispatched| dispatched.is_stored) {
            self.hold(Held::Delayed(named, number, message));
        }
    }

    /// A message that was handed out is committed later if it cannot be now, as one is that was delayed.
    pub(super) fn hold_again(&mut self, now: Timestamp, message: Message) {
        let number = self.delayed_number();
        self.hold(Held::Delayed(now, number, message));
    }

    /// It could not be committed, and its publisher is told so.
    pub(super) fn keep_no_longer(&mut self, at: Timestamp, number: u64) {
        self.commits
            .redo
            .remove(&Name::Delayed(at.as_millis(), number).key());
        self.delayed.messages.remove(&(at, number));
        self.stats.delayed.set(self.delayed.messages.len() as u64);
    }

    /// What was due could not be committed: it is due again, a little later. The entry that a Will came from is to be
    /// written without it: with that it gets one of its own.
    pub(super) fn delay_again(&mut self, now: Timestamp, named: Timestamp, number: u64, message: Message) {
        let entry = DelayedEntry {
            record: encode_message(&message),
        };
        let key = Name::Delayed(named.as_millis(), number).key();
        self.commits.redo.insert(key, Value::Put(entry.encode()));
        let waiting = Waiting {
            message,
            named,
            is_handed_out: true,
        };
        self.delayed.messages.insert((now.after_secs(1), number), waiting);
        self.stats.delayed.set(self.delayed.messages.len() as u64);
    }

    /// This shard's equal part of a limit of the node; `None` without a limit.
    pub(super) fn share_of(&self, limit: usize) -> Option<usize> {
        (limit > 0).then(|| limit.div_ceil(usize::from(self.shards)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_of_seconds_and_a_valid_topic_make_a_delayed_one() {
        assert_eq!(parse("$delayed/15/a/b"), Some((15, "a/b")));
        assert_eq!(parse("$delayed/4294967295//"), Some((4_294_967_295, "/")));
        for bad in [
            "$delayed/15",
            "$delayed/15/",
            "$delayed//a",
            "$delayed/-1/a",
            "$delayed/+1/a",
            "$delayed/4294967296/a",
            "$delayed/1s/a",
            "delayed/1/a",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
