//! `$delayed/<seconds>/<topic>`: messages that wait for their time.

use std::collections::BTreeMap;

use crate::{Message, ReasonCode, Timestamp, topic};

use super::Shard;

/// EMQX's limit: 2^32 - 1 seconds.
const SECONDS_MAX: u64 = u32::MAX as u64;

/// Messages in the order of their time, then of their arrival.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    messages: BTreeMap<(Timestamp, u64), Message>,
}

impl Delayed {
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
    pub(super) fn delay(&mut self, now: Timestamp, message: &Message) -> Result<(), ReasonCode> {
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
        let number = self.next_number();
        self.delayed.messages.insert((at, number), message);
        self.metrics.messages_delayed.inc();
        self.stats.delayed.set(self.delayed.messages.len() as u64);
        Ok(())
    }

    /// Hands out the first message, which is due.
    pub(super) fn delayed_due(&mut self, now: Timestamp) {
        let Some((_, message)) = self.delayed.messages.pop_first() else {
            return;
        };
        self.stats.delayed.set(self.delayed.messages.len() as u64);
        if message.is_expired(now) {
            self.metrics.messages_dropped_expired.inc();
            return;
        }
        // Its publisher, if there still, gets none of it through a subscription with No Local [MQTT-3.8.3-3].
        let publisher = self.by_client.get(&message.origin().client_id).copied();
        // Its topic is no delayed one unless it was nested, and then it waits again.
        let _ = self.dispatch(now, message, publisher);
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
