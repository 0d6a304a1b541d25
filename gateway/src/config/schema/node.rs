//! Keys of the node: `node.*`, security, `$SYS`, logs.

use broker_core::{DenyAction, DenyCode};

use super::{Access, Spec, checks, lens};
use crate::config::{
    field::Words,
    settings::{LogFormat, LogLevel, NoMatch, UserIdType},
    value::{Keyword, Kind},
};

const DISABLED: Option<Keyword> = Some(Keyword {
    word: "disabled",
    zero: false,
});
const PATH: Kind = Kind::Text {
    allowed: "a path, or nothing",
    check: checks::path,
};
const INTERVAL: Kind = Kind::Duration {
    min: 1000,
    max: 86_400_000,
    step: 1,
    keyword: DISABLED,
};

pub(super) static SPECS: &[Spec] = &[
    Spec {
        pattern: "node.name",
        kind: Kind::Text {
            allowed: "text without `/`, `+`, `#` and blanks",
            check: checks::level,
        },
        access: Access::Node(lens!(broker.node_name)),
        doc: "Name of this node. It appears in the topics `$SYS/brokers/NAME/...` and in events, and must differ \
              from the name of every other node that the same monitoring sees.",
    },
    Spec {
        pattern: "node.data_dir",
        kind: Kind::Text {
            allowed: "a path",
            check: checks::required_path,
        },
        access: Access::Node(lens!(node.data_dir)),
        doc: "Directory for what outlives the process: sessions, their messages, retained and delayed messages. It is \
              made if it is missing, and belongs to one running node. With `durability = none` it is not used. Like \
              every path of the configuration it is taken from the working directory of the process unless it is \
              absolute. A change needs a restart.",
    },
    Spec {
        pattern: "node.workers",
        kind: Kind::Integer {
            min: 1,
            max: 64,
            keyword: Some(Keyword {
                word: "auto",
                zero: true,
            }),
        },
        access: Access::Node(lens!(node.workers)),
        doc: "Threads that carry connections; each owns its connections and one shard of the broker. `auto` is one \
              per core that the process may use, at most 64.",
    },
    Spec {
        pattern: "allow_anonymous",
        kind: Kind::Boolean,
        access: Access::Node(lens!(broker.allow_anonymous)),
        doc: "Whether a client is let in that no authenticator knew: because there is no users file, or because the \
              file does not name the client. Turn it off where the network is not trusted.",
    },
    Spec {
        pattern: "authentication.users_file",
        kind: PATH,
        access: Access::Node(lens!(OptionalPath, authentication.users_file)),
        doc: "File of users and password hashes, written by `tidegate passwd` and read again on SIGHUP. Empty: there \
              is no such authenticator and `allow_anonymous` decides alone.",
    },
    Spec {
        pattern: "authentication.user_id_type",
        kind: Kind::Choice(UserIdType::WORDS),
        access: Access::Node(lens!(authentication.user_id_type)),
        doc: "Whether the entries of the users file are looked up by the user name or by the client identifier that \
              a client sends.",
    },
    Spec {
        pattern: "authentication.timeout",
        kind: Kind::Duration {
            min: 100,
            max: 300_000,
            step: 1,
            keyword: None,
        },
        access: Access::Node(lens!(authentication.timeout)),
        doc: "How long a client may wait for its password to be verified. One that waited longer is \
              refused with reason code 0x89 (server busy); it is never let in.",
    },
    Spec {
        pattern: "acl_file",
        kind: PATH,
        access: Access::Node(lens!(OptionalPath, acl_file)),
        doc: "File of authorization rules in EMQX's acl.conf syntax, read again on SIGHUP. Empty: no rules, so \
              `authorization.no_match` decides about every topic.",
    },
    Spec {
        pattern: "authorization.no_match",
        kind: Kind::Choice(NoMatch::WORDS),
        access: Access::Node(lens!(authorization.no_match)),
        doc: "What happens to a publish or subscribe that no rule mentions.",
    },
    Spec {
        pattern: "authorization.deny_action",
        kind: Kind::Choice(DenyAction::WORDS),
        access: Access::Node(lens!(broker.deny_action)),
        doc: "What a client gets that publishes or subscribes without being allowed to: `ignore` tells it where the \
              protocol has a reason code and goes on, `disconnect` closes its connection.",
    },
    Spec {
        pattern: "authorization.deny_code",
        kind: Kind::Choice(DenyCode::WORDS),
        access: Access::Node(lens!(broker.deny_code)),
        doc: "The reason code that an MQTT 5 client gets for what is denied: `not_authorized` (0x87), or \
              `unspecified_error` (0x80), which does not reveal that a rule is behind it.",
    },
    Spec {
        pattern: "authorization.cache.enable",
        kind: Kind::Boolean,
        access: Access::Node(lens!(authorization.cache_enable)),
        doc: "Whether each client's recent decisions are kept, so that rules are not searched for every message.",
    },
    Spec {
        pattern: "authorization.cache.max_size",
        kind: Kind::Integer {
            min: 1,
            max: 256,
            keyword: None,
        },
        access: Access::Node(lens!(authorization.cache_max_size)),
        doc: "Decisions kept per client. At the limit the oldest one goes.",
    },
    Spec {
        pattern: "authorization.cache.ttl",
        kind: Kind::Duration {
            min: 1000,
            max: 86_400_000,
            step: 1,
            keyword: None,
        },
        access: Access::Node(lens!(authorization.cache_ttl)),
        doc: "How long a decision is kept; a changed rule takes at most so long to reach a connected client, or no \
              time if the file is read again on SIGHUP.",
    },
    Spec {
        pattern: "sys_topics.sys_msg_interval",
        kind: INTERVAL,
        access: Access::Node(lens!(sys_topics.sys_msg_interval)),
        doc: "How often statistics and metrics are published below `$SYS/brokers/NODE/`.",
    },
    Spec {
        pattern: "sys_topics.sys_heartbeat_interval",
        kind: INTERVAL,
        access: Access::Node(lens!(sys_topics.sys_heartbeat_interval)),
        doc: "How often `$SYS/brokers/NODE/uptime` and `.../datetime` are published.",
    },
    Spec {
        pattern: "sys_topics.sys_event_messages.client_connected",
        kind: Kind::Boolean,
        access: Access::Node(lens!(sys_topics.client_connected)),
        doc: "Whether `$SYS/brokers/NODE/clients/CLIENTID/connected` tells of each client that connects.",
    },
    Spec {
        pattern: "sys_topics.sys_event_messages.client_disconnected",
        kind: Kind::Boolean,
        access: Access::Node(lens!(sys_topics.client_disconnected)),
        doc: "Whether `$SYS/brokers/NODE/clients/CLIENTID/disconnected` tells of each client that goes, and why.",
    },
    Spec {
        pattern: "sys_topics.sys_event_messages.client_subscribed",
        kind: Kind::Boolean,
        access: Access::Node(lens!(sys_topics.client_subscribed)),
        doc: "Whether `$SYS/brokers/NODE/clients/CLIENTID/subscribed` tells of each new subscription.",
    },
    Spec {
        pattern: "sys_topics.sys_event_messages.client_unsubscribed",
        kind: Kind::Boolean,
        access: Access::Node(lens!(sys_topics.client_unsubscribed)),
        doc: "Whether `$SYS/brokers/NODE/clients/CLIENTID/unsubscribed` tells of each subscription that ends.",
    },
    Spec {
        pattern: "log.level",
        kind: Kind::Choice(LogLevel::WORDS),
        access: Access::Node(lens!(log.level)),
        doc: "The least severe events that are logged. `warning` is what was refused or limited; `info` adds \
              one line per connection that ends, with its reason, and changes of the node's state.",
    },
    Spec {
        pattern: "log.format",
        kind: Kind::Choice(LogFormat::WORDS),
        access: Access::Node(lens!(log.format)),
        doc: "`text` writes readable lines, `json` one object per line. Both go to the standard error stream.",
    },
];
