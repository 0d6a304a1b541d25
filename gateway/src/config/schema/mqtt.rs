//! Keys of the broker: `mqtt.*`, `broker.*`, `retainer.*`, `delayed.*`.

use broker_core::{DefaultPriority, SharedStrategy};

use super::{Access, Spec, checks, lens};
use crate::config::{
    field::Words,
    settings::RedirectReason,
    value::{Keyword, Kind},
};

const INFINITY: Option<Keyword> = Some(Keyword {
    word: "infinity",
    zero: false,
});
const INFINITY_OR_ZERO: Option<Keyword> = Some(Keyword {
    word: "infinity",
    zero: true,
});
const DISABLED: Option<Keyword> = Some(Keyword {
    word: "disabled",
    zero: false,
});

const DISABLED_OR_ZERO: Option<Keyword> = Some(Keyword {
    word: "disabled",
    zero: true,
});

pub(super) static SPECS: &[Spec] = &[
    Spec {
        pattern: "mqtt.max_packet_size",
        kind: Kind::Size {
            min: 64,
            max: 256 << 20,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.max_packet_size)),
        doc: "Largest MQTT packet that is accepted; MQTT 5 clients are told (§3.2.2.3.6). A larger \
              one closes the connection with reason code 0x95, before it was read.",
    },
    Spec {
        pattern: "mqtt.max_payload_size",
        kind: Kind::Size {
            min: 1,
            max: 256 << 20,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.max_payload_size)),
        doc: "Largest application message that is accepted, properties and topic not counted. A \
              larger one is not delivered: it is answered by reason code 0x97 (quota exceeded) where \
              the protocol can, and counted.",
    },
    Spec {
        pattern: "mqtt.max_clientid_len",
        kind: Kind::Integer {
            min: 23,
            max: 65_535,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.max_clientid_len)),
        doc: "Longest client identifier, in bytes of UTF-8. Every server must accept 23 \
              [MQTT-3.1.3-5]. A longer one is refused with reason code 0x85.",
    },
    Spec {
        pattern: "mqtt.max_topic_levels",
        kind: Kind::Integer {
            min: 1,
            max: 65_535,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.max_topic_levels)),
        doc: "Most levels of a topic or topic filter. Each level is a step of every match. A topic \
              with more is refused with reason code 0x90, a filter with 0x8F.",
    },
    Spec {
        pattern: "mqtt.max_topic_alias",
        kind: Kind::Integer {
            min: 0,
            max: 65_535,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.max_topic_alias)),
        doc: "Highest topic alias that MQTT 5 clients may set (§3.2.2.3.8). 0 turns aliases off. \
              Memory is taken only for those in use.",
    },
    Spec {
        pattern: "mqtt.receive_maximum",
        kind: Kind::Integer {
            min: 1,
            max: 65_535,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.receive_maximum)),
        doc: "QoS 1 and 2 messages that a client may have sent without an acknowledgement \
              (§3.2.2.3.3). One that sends more is disconnected with reason code 0x93.",
    },
    Spec {
        pattern: "mqtt.max_qos_allowed",
        kind: Kind::Integer {
            min: 0,
            max: 2,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.max_qos_allowed)),
        doc: "Highest quality of service for publishing (§3.2.2.3.4). A higher one closes the \
              connection with reason code 0x9B [MQTT-3.2.2-11]; subscriptions are granted at most \
              this.",
    },
    Spec {
        pattern: "mqtt.max_inflight",
        kind: Kind::Integer {
            min: 1,
            max: 65_535,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.max_inflight)),
        doc: "QoS 1 and 2 messages on their way to one client at a time. The receive maximum of an \
              MQTT 5 client lowers it. More means throughput over long distances, and memory per \
              client.",
    },
    Spec {
        pattern: "mqtt.max_mqueue_len",
        kind: Kind::Integer {
            min: 1,
            max: 1_000_000_000,
            keyword: INFINITY_OR_ZERO,
        },
        access: Access::Node(lens!(Limit, broker.mqtt.max_mqueue_len)),
        doc: "Messages that wait in one session, for a client that is away or slow. At the limit QoS \
              0 messages go first, then the oldest ones, and they are counted.",
    },
    Spec {
        pattern: "mqtt.max_mqueue_bytes",
        kind: Kind::Size {
            min: 1024,
            max: 1 << 40,
            keyword: INFINITY_OR_ZERO,
        },
        access: Access::Node(lens!(Limit, broker.mqtt.max_mqueue_bytes)),
        doc: "Bytes of messages that wait in one session, with the policy of `mqtt.max_mqueue_len`.",
    },
    Spec {
        pattern: "mqtt.mqueue_store_qos0",
        kind: Kind::Boolean,
        access: Access::Node(lens!(broker.mqtt.mqueue_store_qos0)),
        doc: "Whether messages of QoS 0 wait, in memory, for a client that sleeps (MQTT-SN §6.14), within the limits of \
              its queue. For any other client that is away they are dropped.",
    },
    Spec {
        pattern: "mqtt.max_mqueue_age",
        kind: Kind::Duration {
            min: 1000,
            max: 315_360_000_000,
            step: 1,
            keyword: DISABLED_OR_ZERO,
        },
        access: Access::Node(lens!(broker.mqtt.mqueue_age_max)),
        doc: "How long a message may wait in a session. One that has waited for longer is not delivered, and counted.",
    },
    Spec {
        pattern: "mqtt.mqueue_priorities",
        kind: Kind::Text {
            allowed: "TOPIC=NUMBER, separated by commas, with numbers from 1 to 255, or disabled",
            check: checks::priorities,
        },
        access: Access::Node(lens!(Priorities, broker.mqtt.mqueue_priorities)),
        doc: "Priorities of waiting messages by topic, such as `alarm/fire=10, alarm/door=8`. Those with the highest \
              number are delivered first and dropped last; within a priority the order of publication stands. \
              Topics are names without wildcards. `disabled` treats all messages alike.",
    },
    Spec {
        pattern: "mqtt.mqueue_default_priority",
        kind: Kind::Choice(DefaultPriority::WORDS),
        access: Access::Node(lens!(broker.mqtt.mqueue_default_priority)),
        doc: "Whether topics that `mqtt.mqueue_priorities` does not name come before or after all that it names.",
    },
    Spec {
        pattern: "mqtt.max_awaiting_rel",
        kind: Kind::Integer {
            min: 1,
            max: 65_535,
            keyword: INFINITY_OR_ZERO,
        },
        access: Access::Node(lens!(Limit, broker.mqtt.max_awaiting_rel)),
        doc: "QoS 2 messages of one session that were received and not yet released. MQTT 5 clients \
              are told the lower of this and `mqtt.receive_maximum`; one that goes beyond is \
              disconnected with reason code 0x93.",
    },
    Spec {
        pattern: "mqtt.retry_interval",
        kind: Kind::Duration {
            min: 1000,
            max: 86_400_000,
            step: 1,
            keyword: INFINITY,
        },
        access: Access::Node(lens!(broker.mqtt.retry_interval)),
        doc: "Time after which a message that an MQTT 3 client did not acknowledge is sent again on \
              the same connection. `infinity` sends again only after a reconnect, which is all that \
              MQTT 5 permits [MQTT-4.4.0-1].",
    },
    Spec {
        pattern: "mqtt.session_expiry_interval",
        kind: Kind::Duration {
            min: 0,
            max: 4_294_967_294_000,
            step: 1000,
            keyword: INFINITY,
        },
        access: Access::Node(lens!(Expiry, broker.mqtt.session_expiry_interval)),
        doc: "How long the session of an MQTT 3 client with clean session 0 outlives its connection, \
              and the longest that an MQTT 5 client can ask for (§3.1.2.11.2).",
    },
    Spec {
        pattern: "mqtt.server_keepalive",
        kind: Kind::Duration {
            min: 1000,
            max: 65_535_000,
            step: 1000,
            keyword: DISABLED,
        },
        access: Access::Node(lens!(Seconds, broker.mqtt.server_keepalive)),
        doc: "Longest keep alive of MQTT 5 clients: one that asks for more, or for none, is told to use this \
              instead (§3.2.2.3.14); a shorter one stands. Clients of 3.1 and 3.1.1 cannot be told. `disabled` \
              leaves it to the client.",
    },
    Spec {
        pattern: "mqtt.keepalive_multiplier",
        kind: Kind::Multiplier {
            min: 100,
            max: 10_000,
        },
        access: Access::Node(lens!(broker.mqtt.keepalive_percent)),
        doc: "A client from which nothing was heard for its keep alive times this is gone. MQTT says \
              1.5 [MQTT-3.1.2-22].",
    },
    Spec {
        pattern: "mqtt.idle_timeout",
        kind: Kind::Duration {
            min: 1000,
            max: 300_000,
            step: 1,
            keyword: None,
        },
        access: Access::Node(lens!(broker.mqtt.idle_timeout)),
        doc: "Time for CONNECT to arrive on a new connection, and for each answer of an enhanced \
              authentication. Then the connection is closed.",
    },
    Spec {
        pattern: "mqtt.max_subscriptions",
        kind: Kind::Integer {
            min: 1,
            max: 1_000_000_000,
            keyword: INFINITY_OR_ZERO,
        },
        access: Access::Node(lens!(Limit, broker.mqtt.max_subscriptions)),
        doc: "Subscriptions of one session. A further one is refused with reason code 0x97.",
    },
    Spec {
        pattern: "mqtt.retain_available",
        kind: Kind::Boolean,
        access: Access::Node(lens!(broker.mqtt.retain_available)),
        doc: "Whether messages can be retained (§3.2.2.3.5). If not, a retained publish closes the \
              connection with reason code 0x9A [MQTT-3.2.2-14].",
    },
    Spec {
        pattern: "mqtt.wildcard_subscription",
        kind: Kind::Boolean,
        access: Access::Node(lens!(broker.mqtt.wildcard_subscription)),
        doc: "Whether filters may hold `+` and `#` (§3.2.2.3.11). If not, they are refused with \
              reason code 0xA2.",
    },
    Spec {
        pattern: "mqtt.shared_subscription",
        kind: Kind::Boolean,
        access: Access::Node(lens!(broker.mqtt.shared_subscription)),
        doc: "Whether `$share/GROUP/FILTER` and `$queue/FILTER` are available (§3.2.2.3.13). If not, \
              they are refused with reason code 0x9E.",
    },
    Spec {
        pattern: "mqtt.exclusive_subscription",
        kind: Kind::Boolean,
        access: Access::Node(lens!(broker.mqtt.exclusive_subscription)),
        doc: "Whether `$exclusive/TOPIC` is available, a subscription that one client at a time can \
              have. If not, it is refused with reason code 0x8F.",
    },
    Spec {
        pattern: "mqtt.upgrade_qos",
        kind: Kind::Boolean,
        access: Access::Node(lens!(broker.mqtt.upgrade_qos)),
        doc: "Deliver at the subscription's quality of service even where the message was published \
              at a lower one. MQTT says the lower of the two counts (§3.8.4).",
    },
    Spec {
        pattern: "mqtt.server_redirect.reason",
        kind: Kind::Choice(RedirectReason::WORDS),
        access: Access::Node(lens!(server_redirect.reason)),
        doc: "What a redirected client is told: `use_another_server` (0x9C, for now) or \
              `server_moved` (0x9D, for good). Counts only together with \
              `mqtt.server_redirect.server_reference`.",
    },
    Spec {
        pattern: "mqtt.server_redirect.server_reference",
        kind: Kind::Text {
            allowed: "server addresses separated by blanks (MQTT 5 §4.11), or nothing",
            check: checks::server_reference,
        },
        access: Access::Node(lens!(server_redirect.server_reference)),
        doc: "Where to send clients instead of serving them, such as `b.example:1883`, to drain or \
              move a node: every CONNECT is answered by this reference (§4.11), in MQTT 3 by code 3 \
              (server unavailable). Empty: clients are served.",
    },
    Spec {
        pattern: "broker.shared_subscription_strategy",
        kind: Kind::Choice(SharedStrategy::WORDS),
        access: Access::Node(lens!(broker.shared_strategy)),
        doc: "How a shared subscription picks the member that gets a message: any (`random`), in \
              turn per publisher (`round_robin`) or per group (`round_robin_per_group`), the same as \
              long as it is there (`sticky`), one on the publisher's own worker if there is one \
              (`local`), or by hash of the publisher (`hash_clientid`) or topic (`hash_topic`), \
              which keeps their order.",
    },
    Spec {
        pattern: "retainer.max_retained_messages",
        kind: Kind::Integer {
            min: 1,
            max: 10_000_000_000,
            keyword: INFINITY_OR_ZERO,
        },
        access: Access::Node(lens!(Limit, broker.retained_max)),
        doc: "Topics that may have a retained message. At the limit a message for a new topic is \
              delivered but not retained, and counted.",
    },
    Spec {
        pattern: "retainer.max_payload_size",
        kind: Kind::Size {
            min: 1,
            max: 256 << 20,
            keyword: None,
        },
        access: Access::Node(lens!(broker.retained_payload_bytes_max)),
        doc: "Largest payload that is retained; a message with a larger one is delivered but not \
              retained, and counted.",
    },
    Spec {
        pattern: "delayed.max_delayed_messages",
        kind: Kind::Integer {
            min: 1,
            max: 1_000_000_000,
            keyword: INFINITY_OR_ZERO,
        },
        access: Access::Node(lens!(Limit, broker.delayed_max)),
        doc: "Messages published to `$delayed/SECONDS/TOPIC` that may wait. At the limit the \
              publisher is told quota exceeded (0x97).",
    },
];
