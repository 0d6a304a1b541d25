//! Counters and gauges of one shard, under EMQX's names.
//!
//! Only the shard writes them: a write is a relaxed load and store, not a read-modify-write. Any thread may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::store::Sequence;

/// A number that one thread writes and every thread may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The current value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Adds `count`. Only for the owner.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Adds one. Only for the owner.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Replaces the value. Only for the owner.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

macro_rules! metrics {
    (
        $(#[$top:meta])*
        $struct:ident { $($field:ident = $name:literal, $doc:literal;)* $(; { $($other:ident,)* })? }
    ) => {
        $(#[$top])*
        #[derive(Debug, Default)]
        pub struct $struct {
            $(#[doc = $doc] pub $field: Counter,)*
            $($(pub(crate) $other: Counter,)*)?
        }

        impl $struct {
            /// How many there are.
            pub const COUNT: usize = [$($name,)*].len();

            /// Every name with its value, in a fixed order.
            pub fn values(&self) -> [(&'static str, u64); Self::COUNT] {
                [$(($name, self.$field.get()),)*]
            }
        }
    };
}

metrics! {
    /// What happened since the start. Names as in `$SYS/brokers/<node>/metrics`, dots for slashes.
    Metrics {
        client_connect = "client.connect", "Clients that asked to be admitted.";
        client_connected = "client.connected", "Clients admitted.";
        client_disconnected = "client.disconnected", "Connections of admitted clients that ended.";
        client_auth_anonymous = "client.auth.anonymous", "Clients admitted because no authenticator knew them.";
        authentication_failure = "authentication.failure", "Clients that authentication refused.";
        client_refused = "client.connack.error", "Clients refused for any reason.";
        authorization_allow = "authorization.allow", "Actions allowed.";
        authorization_deny = "authorization.deny", "Actions denied.";
        client_asleep = "client.asleep", "Times that clients fell asleep.";
        client_awake = "client.awake", "Times that clients woke for what waited for them.";
        client_awake_refused = "client.awake.error", "Times that they were not allowed to, for any reason.";
        session_created = "session.created", "Sessions that began.";
        session_resumed = "session.resumed", "Sessions found again by their client.";
        session_takenover = "session.takenover", "Sessions whose connection was taken over.";
        session_discarded = "session.discarded", "Sessions thrown away at a clean start.";
        session_terminated = "session.terminated", "Sessions that ended.";
        messages_received = "messages.received", "Application messages accepted from clients.";
        messages_qos0_received = "messages.qos0.received", "Of these, QoS 0.";
        messages_qos1_received = "messages.qos1.received", "Of these, QoS 1.";
        messages_qos2_received = "messages.qos2.received", "Of these, QoS 2.";
        messages_sent = "messages.sent", "Application messages handed to clients' connections.";
        messages_qos0_sent = "messages.qos0.sent", "Of these, QoS 0.";
        messages_qos1_sent = "messages.qos1.sent", "Of these, QoS 1.";
        messages_qos2_sent = "messages.qos2.sent", "Of these, QoS 2.";
        messages_acked = "messages.acked", "Deliveries of QoS 1 and 2 that clients completed.";
        messages_retained = "messages.retained", "Messages stored as retained.";
        messages_delayed = "messages.delayed", "Messages stored for later.";
        messages_forward = "messages.forward", "Messages handed to another shard.";
        messages_dropped = "messages.dropped", "Messages that nobody received.";
        messages_dropped_no_subscribers = "messages.dropped.no_subscribers", "Of these, for want of subscribers.";
        messages_dropped_expired = "messages.dropped.expired", "Messages whose expiry interval passed before delivery.";
        messages_dropped_quota = "messages.dropped.quota_exceeded", "Messages refused at a limit.";
        messages_redispatched = "messages.redispatched", "Shared messages handed to another member.";
        retained_dropped = "retained.dropped.limit", "Messages not retained because the store or the message was too large.";
        delivery_dropped = "delivery.dropped", "Deliveries dropped.";
        delivery_dropped_queue_full = "delivery.dropped.queue_full", "Of these, at the session's queue limit.";
        delivery_dropped_qos0 = "delivery.dropped.qos0_msg", "Of these, QoS 0 to a slow or absent client.";
        delivery_dropped_asleep = "delivery.dropped.asleep", "Of these, QoS 0 to a client that slept.";
        delivery_dropped_expired = "delivery.dropped.expired", "Of these, expired while waiting.";
        delivery_dropped_too_large = "delivery.dropped.too_large", "Of these, larger than the client's maximum packet size.";
        delivery_dropped_no_local = "delivery.dropped.no_local", "Of these, the client's own message.";
        packets_unexpected_ack = "packets.ack.missed", "Acknowledgements of an unknown packet identifier.";
        packets_duplicate = "packets.publish.duplicate", "QoS 2 messages received again before their release.";
        quota_exceeded = "quota.exceeded", "Requests refused at a limit of the session or the node.";
        client_subscribe = "client.subscribe", "Subscriptions made.";
        client_unsubscribe = "client.unsubscribe", "Subscriptions ended.";
        wills_published = "messages.will", "Will messages published.";
        delivery_dropped_trimmed = "delivery.dropped.trimmed", "Of dropped deliveries, those whose message a limit of the store has cut.";
        store_failures = "store.failures", "Requests to the store that failed.";
        store_pauses = "store.pauses", "Connections not read for a while because the store was too slow.";
        store_unreadable = "store.unreadable", "Records and entries that could not be read.";
    }
}

metrics! {
    /// What is there now. Names as in `$SYS/brokers/<node>/stats`, dots for slashes.
    Stats {
        connections = "connections.count", "Admitted clients that are connected.";
        sessions = "sessions.count", "Sessions, with and without a connection.";
        subscriptions = "subscriptions.count", "Subscriptions of all sessions.";
        subscriptions_shared = "subscriptions.shared.count", "Of these, shared.";
        topics = "topics.count", "Distinct topic filters.";
        retained = "retained.count", "Retained messages.";
        delayed = "delayed.count", "Messages that wait for their time.";
        ; {
            journal_low,
        }
    }
}

impl Stats {
    /// The first place in the journal that the shard needs; [`Sequence::default`] until that is known.
    pub fn journal_low(&self) -> Sequence {
        Sequence(self.journal_low.get())
    }
}
