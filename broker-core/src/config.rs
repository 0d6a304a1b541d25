//! Settings of the broker core: the limits of `mqtt.*` and their relatives. Plain values; the gateway reads them
//! from its configuration.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{QoS, ReasonCode};

/// Every limit and switch of the broker, with EMQX's names where EMQX has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of this node, as it appears in `$SYS` and events.
    pub node_name: String,
    /// `mqtt.*`.
    pub mqtt: MqttConfig,
    /// `broker.shared_subscription_strategy`.
    pub shared_strategy: SharedStrategy,
    /// `retainer.max_retained_messages`; 0: no limit. At the limit a new topic is not retained (counted).
    pub retained_max: usize,
    /// `retainer.max_payload_size`, bytes. A larger message is delivered but not retained (counted).
    pub retained_payload_bytes_max: usize,
    /// `delayed.max_delayed_messages`; 0: no limit. At the limit the publisher is told quota exceeded.
    pub delayed_max: usize,
    /// `authorization.deny_action`.
    pub deny_action: DenyAction,
    /// `authorization.deny_code`.
    pub deny_code: DenyCode,
    /// `allow_anonymous`: what happens to a client that no authenticator knows; the gateway builds the chain of
    /// authenticators with it.
    pub allow_anonymous: bool,
    /// Clients are sent elsewhere instead of being admitted (MQTT 5 §4.11).
    pub redirect: Option<Redirect>,
}

/// Where clients are sent (MQTT 5 §4.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// True: Server moved (0x9D), for ever; false: Use another server (0x9C), for now.
    pub moved: bool,
    /// Server reference: hosts as §4.11 recommends to write them, such as `a.example:1883 b.example`.
    pub server_reference: String,
}

/// `mqtt.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttConfig {
    /// Largest packet accepted, bytes; told to MQTT 5 clients (§3.2.2.3.6).
    pub max_packet_size: u32,
    /// Largest application payload accepted, bytes.
    pub max_payload_size: u32,
    /// Longest client identifier accepted, bytes.
    pub max_clientid_len: u16,
    /// Most levels of a topic or filter.
    pub max_topic_levels: u16,
    /// Highest topic alias accepted from clients; 0 turns aliases off.
    pub max_topic_alias: u16,
    /// QoS 1 and 2 messages that a client may have unacknowledged towards the broker (§3.2.2.3.3).
    pub receive_maximum: u16,
    /// Highest QoS accepted (§3.2.2.3.4).
    pub max_qos_allowed: QoS,
    /// Deliveries of QoS 1 and 2 under way to one client; the client's receive maximum lowers it.
    pub max_inflight: u16,
    /// Messages that wait in one session; 0: no limit. QoS 0 goes first, then the oldest (counted).
    pub max_mqueue_len: usize,
    /// Bytes that wait in one session; 0: no limit. The same policy.
    pub max_mqueue_bytes: usize,
    /// `mqtt.mqueue_store_qos0`: messages of QoS 0 wait, in memory, for a client that sleeps (MQTT-SN §6.14). For any
    /// other client that is away they are dropped.
    pub mqueue_store_qos0: bool,
    /// Messages that have waited for longer in a session are dropped instead of delivered (counted); `None`: no limit.
    pub mqueue_age_max: Option<Duration>,
    /// Priorities of waiting messages by topic name, 1 to 255: a higher one is delivered first and dropped last.
    pub mqueue_priorities: Arc<BTreeMap<Box<str>, u8>>,
    /// The priority of topics that are not named.
    pub mqueue_default_priority: DefaultPriority,
    /// QoS 2 messages received and not yet released, per session; 0: no limit but `receive_maximum`. MQTT 5 clients
    /// are told the lower of the two as Receive Maximum; a client that goes beyond is disconnected (0x93).
    pub max_awaiting_rel: usize,
    /// Time after which an unacknowledged delivery is repeated to a 3.x client; `None`: only on reconnect, which
    /// is what MQTT 5 demands [MQTT-4.4.0-1].
    pub retry_interval: Option<Duration>,
    /// Session expiry of 3.x clients with clean session 0, and the highest that MQTT 5 clients get.
    pub session_expiry_interval: Duration,
    /// Longest keep alive that MQTT 5 clients get, seconds: a longer one, or none, is replaced by this (§3.2.2.3.14).
    /// `None`: the client chooses. Clients of 3.x cannot be told.
    pub server_keepalive: Option<u16>,
    /// Retained messages are supported.
    pub retain_available: bool,
    /// Filters with `+` and `#` are supported.
    pub wildcard_subscription: bool,
    /// `$share/` and `$queue/` are supported.
    pub shared_subscription: bool,
    /// `$exclusive/` is supported.
    pub exclusive_subscription: bool,
    /// Deliver at the subscription's QoS even when the message's is lower.
    pub upgrade_qos: bool,
    /// Keep-alive periods without a packet, times 100, after which a client is gone: 150 as §3.1.2.10 demands.
    pub keepalive_percent: u32,
    /// Time for CONNECT to arrive, and for each step of enhanced authentication.
    pub idle_timeout: Duration,
    /// Subscriptions of one session; 0: no limit.
    pub max_subscriptions: usize,
}

/// `mqtt.mqueue_default_priority`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultPriority {
    /// Above every named topic.
    Highest,
    /// Below every named topic.
    Lowest,
}

/// How a shared subscription picks a member for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedStrategy {
    /// Any member.
    Random,
    /// One after the other, counted per publisher.
    RoundRobin,
    /// One after the other, counted per group.
    RoundRobinPerGroup,
    /// The same member as long as it is there, chosen per group by each shard for its publishers.
    Sticky,
    /// A member on the publisher's shard, else any.
    Local,
    /// By hash of the publisher's client id.
    HashClientId,
    /// By hash of the topic.
    HashTopic,
}

/// What happens to a publisher or subscriber that authorization denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyAction {
    /// It is told so where its protocol can say it.
    Ignore,
    /// Its connection is closed.
    Disconnect,
}

/// What a denied MQTT 5 client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyCode {
    /// Not authorized (0x87).
    NotAuthorized,
    /// Unspecified error (0x80): the reason is not revealed (§3.9.3).
    UnspecifiedError,
}

impl DenyCode {
    /// The code on the wire.
    pub const fn reason(self) -> ReasonCode {
        match self {
            DenyCode::NotAuthorized => ReasonCode::NotAuthorized,
            DenyCode::UnspecifiedError => ReasonCode::UnspecifiedError,
        }
    }
}

impl MqttConfig {
    /// The priority of waiting messages of this topic, higher first: 0 to 256. The same for all if no topic is named.
    pub fn mqueue_priority(&self, topic: &str) -> u16 {
        match (self.mqueue_priorities.get(topic), self.mqueue_default_priority) {
            (Some(&priority), _) => priority.into(),
            (None, DefaultPriority::Highest) => u16::from(u8::MAX) + 1,
            (None, DefaultPriority::Lowest) => 0,
        }
    }

    /// The keep alive that replaces what a client proposed, if it does.
    pub fn imposed_keep_alive(&self, proposed: u16) -> Option<u16> {
        self.server_keepalive
            .filter(|&imposed| proposed == 0 || proposed > imposed)
    }

    /// The Receive Maximum told to MQTT 5 clients and enforced on all.
    pub fn effective_receive_maximum(&self) -> u16 {
        match u16::try_from(self.max_awaiting_rel) {
            Ok(0) | Err(_) => self.receive_maximum,
            Ok(limit) => self.receive_maximum.min(limit),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            node_name: "tidegate@127.0.0.1".to_owned(),
            mqtt: MqttConfig::default(),
            shared_strategy: SharedStrategy::RoundRobin,
            retained_max: 0,
            retained_payload_bytes_max: 1 << 20,
            delayed_max: 0,
            deny_action: DenyAction::Ignore,
            deny_code: DenyCode::NotAuthorized,
            allow_anonymous: true,
            redirect: None,
        }
    }
}

impl Default for MqttConfig {
    fn default() -> MqttConfig {
        MqttConfig {
            max_packet_size: 1 << 20,
            max_payload_size: 1 << 20,
            max_clientid_len: 65_535,
            max_topic_levels: 128,
            max_topic_alias: 65_535,
            receive_maximum: 65_535,
            max_qos_allowed: QoS::ExactlyOnce,
            max_inflight: 32,
            max_mqueue_len: 1000,
            max_mqueue_bytes: 64 << 20,
            mqueue_store_qos0: true,
            mqueue_age_max: None,
            mqueue_priorities: Arc::default(),
            mqueue_default_priority: DefaultPriority::Lowest,
            max_awaiting_rel: 1000,
            retry_interval: None,
            session_expiry_interval: Duration::from_secs(2 * 3600),
            server_keepalive: None,
            retain_available: true,
            wildcard_subscription: true,
            shared_subscription: true,
            exclusive_subscription: true,
            upgrade_qos: false,
            keepalive_percent: 150,
            idle_timeout: Duration::from_secs(15),
            max_subscriptions: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_are_not_named_come_before_or_after_all_others() {
        let named = BTreeMap::from([("a/b".into(), 1), ("c".into(), 255)]);
        let with = |default| MqttConfig {
            mqueue_priorities: Arc::new(named.clone()),
            mqueue_default_priority: default,
            ..MqttConfig::default()
        };
        let order = |default| ["a/b", "c", "x"].map(|topic| with(default).mqueue_priority(topic));
        assert_eq!(order(DefaultPriority::Lowest), [1, 255, 0]);
        assert_eq!(order(DefaultPriority::Highest), [1, 255, 256]);
    }
}
